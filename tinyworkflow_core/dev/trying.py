"""Trying: a curl that starts one of the workflows that are served, with an input that its schema takes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jsonschema import Draft202012Validator

_TEXTS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T09:00:00Z",
    "duration": "PT1H",
    "email": "ada@example.com",
    "time": "09:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEPTH = 8


def curl(url: str, workflows: Sequence[Mapping[str, Any]], *, with_key: bool) -> str:
    """The command for the first of `workflows` (as GET /v1/workflows lists them); it lists them where there is none."""
    words = ["curl", "-s"]
    if with_key:
        words += ["-H", '"X-API-Key: $KEY"']
    for one in workflows:
        schema = one["versions"][-1]["input_schema"]
        try:
            body = {} if schema is None else {"input": sample(schema)}
        except ValueError:
            continue
        words += ["-X", "POST", f"{url}/v1/workflows/{quote(one['name'], safe='')}/runs"]
        words += ["-H", "'Content-Type: application/json'", "-H", "'Prefer: wait=5'"]
        return " ".join([*words, "-d", shlex.quote(json.dumps(body, ensure_ascii=False))])
    return " ".join([*words, f"{url}/v1/workflows"])


def sample(schema: Mapping[str, Any]) -> Any:
    """Some value that fits the JSON schema. Raises ValueError where none is found."""
    value = _value(schema, schema, 0)
    if not Draft202012Validator(schema).is_valid(value):
        raise ValueError("no example was found for this schema")
    return value


def _value(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError("the schema is nested too deeply")
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        if name not in root.get("$defs", {}):
            raise ValueError(f"the schema says nothing of {schema['$ref']!r}")
        return _value(root["$defs"][name], root, depth + 1)
    for told in ("default", "const"):
        if told in schema:
            return schema[told]
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    for branches in ("anyOf", "oneOf", "allOf"):
        if schema.get(branches):
            return _value(schema[branches][0], root, depth + 1)
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _value(properties.get(name, {}), root, depth + 1) for name in schema.get("required", ())}
    if kind == "array":
        items = schema.get("items", {})
        return [_value(items, root, depth + 1) for _ in range(min(schema.get("minItems", 0), 10))]
    return _scalar(kind, schema)


def _scalar(kind: object, schema: Mapping[str, Any]) -> Any:
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return min(least, schema.get("maximum", least))
    if kind == "string":
        text = _TEXTS.get(schema.get("format", ""), "text")
        return text.ljust(min(schema.get("minLength", 0), 100), "x")[: schema.get("maxLength")]
    return {"boolean": True, "null": None}.get(str(kind), "text")
