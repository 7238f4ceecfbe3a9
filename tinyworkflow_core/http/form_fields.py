"""Form fields: what a JSON schema asks for as fields of an HTML form, and what was typed as JSON data again.

A schema as pydantic makes it: text, numbers, yes or no, choices, dates and times, each of them optional or not. What
has no field of its own (lists, nested models) is typed as JSON. Whether the data fits is not judged here: what cannot
be read as its type stays the text that was typed, and the check of the whole data names it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

from ..errors import InvalidInputError
from ..records import dataclass

Kind = Literal[
    "text", "longtext", "email", "date", "datetime", "time", "integer", "number", "checkbox", "choice", "json"
]

LONG_TEXT = 200
"""Text that may be longer than this gets several lines."""

_FORMATS: Mapping[str, Kind] = {"date": "date", "date-time": "datetime", "time": "time", "email": "email"}
_NOTHING: Any = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class FormField:
    """One field. `name` is the property that it fills (empty: the whole data), `input_name` what a browser sends."""

    name: str
    input_name: str
    label: str
    kind: Kind
    required: bool = False
    nullable: bool = False
    hint: str = ""
    initial: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    """(what is sent, what is shown); what is sent is the value's JSON text."""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str | None) -> Any:
        """What was typed, as JSON data; text that is none of its type stays text. Raises ValueError for text that is
        to be JSON and is not."""
        if self.kind == "checkbox":
            return text is not None
        text = (text or "").replace("\r\n", "\n")
        if not text.strip():
            return self._nothing()
        match self.kind:
            case "choice":
                return next((json.loads(sent) for sent, _ in self.choices if sent == text), text)
            case "integer" | "number":
                return _number(text.strip())
            case "json":
                return json.loads(text, parse_constant=_no_constant)
            case "text" | "longtext":
                return text
            case _:
                return text.strip()

    def _nothing(self) -> Any:
        if self.nullable:
            return None
        # A text that may be left out and was emptied is empty, and not its default again.
        return "" if self.kind in ("text", "longtext") and not self.required and self.initial else _NOTHING


def fields_of(schema: Mapping[str, Any]) -> list[FormField]:
    """The fields of a form for data of that schema."""
    whole = _resolved(schema, schema)
    if whole.get("type") != "object" or ("properties" not in whole and whole.get("additionalProperties")):
        return [
            FormField(name="", input_name="data", label=str(whole.get("title", "Data")), kind="json", required=True)
        ]
    required = whole.get("required", [])
    return [_field(name, one, schema, name in required) for name, one in whole.get("properties", {}).items()]


def read_data(fields: Sequence[FormField], submitted: Mapping[str, str]) -> Any:
    """What was typed into the fields, as JSON data. Raises InvalidInputError for text that is to be JSON and is not."""
    data: dict[str, Any] = {}
    errors = []
    for one in fields:
        try:
            value = one.read(submitted.get(one.input_name))
        except (ValueError, RecursionError):
            loc = ["data", one.name] if one.name else ["data"]
            errors.append({"loc": loc, "msg": 'must be JSON, such as [1, 2] or {"a": 1}', "type": "json"})
            continue
        if value is not _NOTHING:
            data[one.name] = value
    if errors:
        raise InvalidInputError("the form is not filled in as it should be", errors)
    return data.get("") if len(fields) == 1 and not fields[0].name else data


def _field(name: str, schema: Mapping[str, Any], root: Mapping[str, Any], required: bool) -> FormField:
    whole = _resolved(schema, root)
    options = [_resolved(one, root) for one in whole.get("anyOf", whole.get("oneOf", [whole]))]
    kinds = [one for one in options if one.get("type") != "null"]
    nullable = len(kinds) < len(options)
    inner = kinds[0] if len(kinds) == 1 else next((one for one in kinds if _is_free_text(one)), {})
    kind, choices = _kind(inner, nullable)
    initial = whole.get("default", inner.get("default", _NOTHING))
    return FormField(
        name=name,
        input_name=f"data.{name}",
        label=str(whole.get("title") or name.replace("_", " ").capitalize()),
        kind=kind,
        required=required and not nullable and kind != "checkbox",
        nullable=nullable,
        hint=str(whole.get("description") or inner.get("description") or ""),
        initial="" if initial is _NOTHING or initial is None else _shown(kind, initial),
        choices=choices,
        attributes=_attributes(kind, inner),
    )


def _kind(schema: Mapping[str, Any], nullable: bool) -> tuple[Kind, tuple[tuple[str, str], ...]]:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return "choice", tuple((json.dumps(one), str(one)) for one in values)
    match schema.get("type"):
        case "string":
            long = schema.get("maxLength", 0) > LONG_TEXT
            return _FORMATS.get(schema.get("format", ""), "longtext" if long else "text"), ()
        case "integer":
            return "integer", ()
        case "number":
            return "number", ()
        case "boolean" if nullable:
            return "choice", (("true", "Yes"), ("false", "No"))
        case "boolean":
            return "checkbox", ()
        case _:
            return "json", ()


def _attributes(kind: Kind, schema: Mapping[str, Any]) -> dict[str, str]:
    # Numbers are typed as text: a browser's number field sends nothing at all for what it cannot read, and empties it.
    if kind in ("integer", "number"):
        return {"inputmode": "numeric" if kind == "integer" else "decimal"}
    return {"maxlength": str(schema["maxLength"])} if kind in _TEXTS and "maxLength" in schema else {}


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """The schema itself, in place of a reference to it; what stands beside the reference counts more."""
    found = dict(schema)
    for _ in range(_DEEPEST):
        parts = [{"$ref": found.pop("$ref")}] if "$ref" in found else []
        if len(found.get("allOf", [])) == 1:
            parts += found.pop("allOf")
        if not parts:
            break
        for one in parts:
            told = one["$ref"].removeprefix("#/$defs/") if "$ref" in one else ""
            found = {**(root.get("$defs", {}).get(told, {}) if "$ref" in one else one), **found}
    return found


def _is_free_text(schema: Mapping[str, Any]) -> bool:
    """A decimal is a number or text: it is typed as text."""
    return schema.get("type") == "string" and "enum" not in schema and "const" not in schema


def _shown(kind: Kind, value: Any) -> str:
    if kind in ("choice", "json"):
        return json.dumps(value, ensure_ascii=False)
    if kind == "checkbox":
        return "on" if value else ""
    return str(value)


def _number(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_DEEPEST = 10
_TEXTS = ("text", "longtext", "email")
