"""Overview: all rows of a long timeline at once, a line for each kind. Pure.

What falls into the same part of the time is drawn as one and counted, so that what is drawn is bounded by the kinds
that there are, however long a history is. A timeline that fits into a few pages of rows needs none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from datetime import datetime

from ...records import dataclass
from .gantt import WIDTH, Shape
from .rows import Kind, Row, Timeline, Tone

MORE_THAN = 300
"""Rows. With fewer there is no overview."""
CELLS = 100
"""Parts of the time that are told apart."""
MOST_FAILED = 5
"""Rows of a kind that have failed, and are pointed to."""
MOST_STATES = 6
"""States of the rows of a kind that are counted each for itself."""

_LOUDEST = (Tone.FAILED, Tone.OPEN, Tone.DONE, Tone.CANCELLED, Tone.WAIT)
"""What a part of the time is drawn as that holds several: the first of these."""
_TIMES = frozenset({Kind.SIGNAL, Kind.HOLDER, Kind.PATCH})
"""Kinds whose rows are names, and stand for any number of moments."""


@dataclass(kw_only=True, slots=True)
class KindLine:
    """All rows of one kind. `failed`: (number of the last event, position of the step) of the first that failed."""

    kind: Kind
    rows: int = 0
    states: str = ""
    shapes: list[Shape] = field(default_factory=list)
    failed: list[tuple[int, int | None]] = field(default_factory=list)
    more_failed: int = 0


def overview(timeline: Timeline) -> list[KindLine]:
    """A line for each kind, in the order in which they came up; none for a timeline that is short."""
    if len(timeline.rows) <= MORE_THAN:
        return []
    found: dict[Kind, _Sum] = {}
    place = _Place(timeline)
    for row in timeline.rows:
        if row.kind not in found:
            found[row.kind] = _Sum()
        found[row.kind].add(row, place)
    return [one.line(kind) for kind, one in found.items()]


class _Place:
    """In which of the cells a moment falls."""

    def __init__(self, timeline: Timeline) -> None:
        self._begin, self.end = timeline.begin, timeline.end
        self._per_second = CELLS / max((timeline.end - timeline.begin).total_seconds(), 0.001)

    def of(self, moment: datetime) -> int:
        return min(max(int((moment - self._begin).total_seconds() * self._per_second), 0), CELLS - 1)


class _Sum:
    """What the rows of one kind come to."""

    def __init__(self) -> None:
        self._rows = self._moments = self._failures = 0
        self._states: Counter[str] = Counter()
        self._failed: list[tuple[int, int | None]] = []
        self._begins = {tone: [0] * (CELLS + 1) for tone in Tone}
        """How many more (or fewer) bars are in this cell than in the one before it."""

    def add(self, row: Row, place: _Place) -> None:
        self._rows += 1
        self._moments += len(row.marks)
        state = "void" if row.void else row.state.partition(":")[0]
        self._states[state] += 1
        if state == "failed":
            self._failures += 1
            if len(self._failed) < MOST_FAILED:
                last = max([one.event for one in row.bars] + [one.event for one in row.marks])
                self._failed.append((last, row.id))
        for bar in row.bars:
            counts = self._begins[bar.tone]
            counts[place.of(bar.begin)] += 1
            counts[place.of(bar.end or place.end) + 1] -= 1
        for mark in row.marks:
            counts, cell = self._begins[mark.tone], place.of(mark.at)
            counts[cell] += 1
            counts[cell + 1] -= 1

    def line(self, kind: Kind) -> KindLine:
        states = [f"{count} {state}" for state, count in self._states.most_common(MOST_STATES) if state]
        return KindLine(
            kind=kind,
            rows=self._rows,
            states=f"{self._moments} in all" if kind in _TIMES else ", ".join(states),
            shapes=self._shapes(),
            failed=self._failed,
            more_failed=self._failures - len(self._failed),
        )

    def _shapes(self) -> list[Shape]:
        shapes: list[Shape] = []
        here = dict.fromkeys(_LOUDEST, 0)
        width = WIDTH / CELLS
        changed = True
        for cell in range(CELLS):
            for tone in _LOUDEST:
                if step := self._begins[tone][cell]:
                    here[tone] += step
                    changed = True
            loudest = next((tone for tone in _LOUDEST if here[tone]), None)
            if loudest is None:
                changed = True
            elif changed:
                title = ", ".join(f"{count} {_WORDS[tone]}" for tone, count in here.items() if count)
                shapes.append(Shape(x=round(cell * width, 1), width=width, tone=loudest, title=title, void=False))
                changed = False
            else:  # the same as before it: one shape
                last = shapes.pop()
                wider = round(last.width + width, 1)
                shapes.append(Shape(x=last.x, width=wider, tone=last.tone, title=last.title, void=False))
        return shapes


_WORDS = {
    Tone.FAILED: "failed",
    Tone.OPEN: "at work",
    Tone.DONE: "done",
    Tone.CANCELLED: "cancelled or cut short",
    Tone.WAIT: "waiting",
}
