"""Row building: rows while a history is read, event by event. What an event means is said by `timeline.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ...engine.history import Event
from ...engine.rewind import effective
from .rows import Bar, Kind, Mark, Row, Tone


class RowBuilding:
    """The rows so far. `_number`, `_event` and `_void` are those of the event that is being read."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._at: dict[Any, Row] = {}
        self._number = 0
        self._event: Event
        self._void = False

    def finished(self) -> list[Row]:
        """All rows; what goes on is an open bar of its row."""
        rows = []
        for row in self._rows:
            self._close(row, None)
            if row.bars or row.marks:
                row.settle()
                rows.append(row)
        return rows

    def _row(self, key: Any, kind: Kind, name: str, step: int | None = None) -> Row:
        found = self._at.get(key)
        if found is None or found.name != name or (found.kind is not kind and _family(found.kind) is not _family(kind)):
            # New; or, after a retry, the place of a step has become another step's.
            found = self._at[key] = Row(kind=kind, name=name, event=self._number, id=step)
            self._rows.append(found)
        return found

    def _open(self, row: Row, tone: Tone, words: str, at: datetime | None = None) -> None:
        """From now (or `at`) on something goes on."""
        row.since = Bar(
            begin=at or self._event.at, end=None, tone=tone, words=words, event=self._number, void=self._void
        )

    def _close(self, row: Row, at: datetime | None, tone: Tone | None = None, words: str | None = None) -> bool:
        """End what goes on (at None: it is left open). False: nothing did."""
        since = row.since
        if since is None:
            return False
        row.since = None
        since.end = None if at is None else max(since.begin, at)
        since.tone, since.words = tone or since.tone, words or since.words
        row.bars.append(since)
        return True

    def _bar(self, row: Row, begin: datetime, end: datetime, tone: Tone, words: str) -> None:
        bar = Bar(begin=begin, end=max(begin, end), tone=tone, words=words, event=self._number, void=self._void)
        row.bars.append(bar)

    def _mark(self, row: Row, tone: Tone, words: str) -> None:
        row.marks.append(Mark(at=self._event.at, tone=tone, words=words, event=self._number, void=self._void))


def void_of(history: Sequence[Event]) -> frozenset[int]:
    """The numbers of the events that retries have made void."""
    left = effective(history)
    if left is history:
        return frozenset()
    kept = {id(event) for event in left}
    return frozenset(number for number, event in enumerate(history, start=1) if id(event) not in kept)


def _family(kind: Kind) -> Kind:
    return Kind.ACTIVITY if kind is Kind.COMPENSATION else kind
