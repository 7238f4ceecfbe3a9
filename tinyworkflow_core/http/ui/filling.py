"""Filling in: a form on a page with what was typed into it, and what is wrong with it, each message at its field.

What a schema asks for is `form_fields.py`'s; how it looks, the template `fields.html`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from ...errors import InvalidInputError
from ...records import dataclass
from ..form_fields import FormField


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """One field as it is shown. `id` is its HTML id."""

    field: FormField
    id: str
    value: str
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledForm:
    """All fields of a form by the name that a browser sends, in their order, and the errors on top of it."""

    fields: Mapping[str, Filled]
    errors: tuple[tuple[str, str], ...] = field(default=())
    """(HTML id of the field or empty, text)."""

    def data(self) -> list[Filled]:
        """Those that were made from a schema."""
        return [one for name, one in self.fields.items() if name == "data" or name.startswith("data.")]


def filled_form(
    fields: Sequence[FormField],
    submitted: Mapping[str, str] | None = None,
    invalid: InvalidInputError | None = None,
) -> FilledForm:
    """The form with what was submitted, or else with the fields' initial values. The `loc` of an error begins with the
    name that a browser sends (`data`, and then a property, for those of a schema)."""
    ids = {one.input_name: f"field-{number}" for number, one in enumerate(fields, 1)}
    labels = {one.input_name: one.label for one in fields}
    at_field: defaultdict[str, list[str]] = defaultdict(list)
    listed: list[tuple[str, str]] = []
    for loc, message in _told(invalid):
        name, place = _place(loc, ids)
        said = f"{place}: {message}" if place else message
        at_field[name].append(said)
        listed.append((ids.get(name, ""), f"{labels[name]}: {said}" if name in labels else said))
    order = list(ids.values())
    listed.sort(key=lambda one: order.index(one[0]) if one[0] else -1)
    shown = {
        one.input_name: Filled(
            field=one,
            id=ids[one.input_name],
            value=one.initial if submitted is None else submitted.get(one.input_name, ""),
            errors=tuple(at_field[one.input_name]),
        )
        for one in fields
    }
    return FilledForm(fields=shown, errors=tuple(listed))


def invalid(loc: str, message: str) -> InvalidInputError:
    """One error, at the field of that name."""
    return InvalidInputError(f"{loc}: {message}", [{"loc": [loc], "msg": message, "type": "value"}])


def _told(error: InvalidInputError | None) -> list[tuple[list[Any], str]]:
    if error is None:
        return []
    return [(list(one["loc"]), str(one["msg"])) for one in error.errors] or [([], str(error))]


def _place(loc: list[Any], ids: Mapping[str, str]) -> tuple[str, str]:
    """The field that an error is about (empty: none), and where inside it."""
    for name, inside in (
        (".".join(map(str, loc[:2])), loc[2:]),
        (str(loc[0]) if loc else "", loc[1:]),
    ):
        if name in ids:
            return name, ".".join(map(str, inside))
    return "", ".".join(map(str, loc[1:] if loc[:1] == ["data"] else loc))
