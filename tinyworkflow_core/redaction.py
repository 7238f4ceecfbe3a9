"""Redaction: which fields of a workflow's values are hidden from those who look at its runs.

It is applied where values leave for people (the HTTP front), never to what is stored or to what code receives: encrypt
the store for that. Pure; knows plain JSON data alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import DefinitionError
from .records import dataclass

REDACTED = "[redacted]"


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is hidden. `fields` are names, or the last names of a path: ("card", "number") is `number` in any `card`, at
    whatever depth, lists in between do not count. `everything`: all values whole, and the words of errors."""

    fields: frozenset[tuple[str, ...]] = frozenset()
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.fields)

    def __or__(self, other: Redaction) -> Redaction:
        return Redaction(self.fields | other.fields, self.everything or other.everything)

    def hide(self, value: Any) -> Any:
        """Plain JSON data with what is hidden replaced. None stays None: that there is nothing is no secret."""
        if value is None or not self:
            return value
        return REDACTED if self.everything else self._hide(value, ())

    def words(self, text: str) -> str:
        """The words of an error. They are nobody's field, so they are hidden with everything alone."""
        return REDACTED if self.everything else text

    def _hide(self, value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [self._hide(one, place) for one in value]
        if not isinstance(value, dict):
            return value
        shown = {}
        for name, one in value.items():
            here = (*place, name)
            hidden = one is not None and any(here[-len(field) :] == field for field in self.fields)
            shown[name] = REDACTED if hidden else self._hide(one, here)
        return shown


NOTHING = Redaction()
EVERYTHING = Redaction(everything=True)


def redaction(about: str, redact: Any) -> Redaction:
    """What `@workflow(redact=...)` says: True, or names of fields. Raises DefinitionError for anything else."""
    if isinstance(redact, bool):
        return EVERYTHING if redact else NOTHING
    if isinstance(redact, str) or not isinstance(redact, Iterable):
        raise DefinitionError(f'{about}: redact is True or names of fields, such as ("card.number",), not {redact!r}')
    fields = [tuple(one.split(".")) if isinstance(one, str) else () for one in redact]
    if not all(field and all(field) for field in fields):
        raise DefinitionError(f'{about}: redact names fields by text, such as "iban" or "card.number"')
    return Redaction(frozenset(fields))
