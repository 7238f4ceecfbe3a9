"""Rows: what a timeline consists of: steps with their bars and marks. Data alone; `timeline.py` makes it.

Bars, marks and rows are not frozen: a long history makes thousands of them, and a frozen record takes twice as long to
make. Nobody but `row_building.py` changes them."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import StrEnum

from ...records import dataclass


class Kind(StrEnum):
    """What a row is about."""

    RUN = "run"
    HOLDER = "take-over"
    ACTIVITY = "activity"
    COMPENSATION = "compensation"
    TIMER = "timer"
    APPROVAL = "approval"
    CHILD = "child"
    SIGNAL = "signal"
    UPDATE = "update"
    MESSAGE = "message"
    SIDE_EFFECT = "side effect"
    PATCH = "patch"


class Tone(StrEnum):
    """How something is drawn. WAIT: nothing is at work. OPEN: at work, as far as is known."""

    DONE = "done"
    FAILED = "failed"
    OPEN = "open"
    WAIT = "wait"
    CANCELLED = "cancelled"


@dataclass(kw_only=True, slots=True)
class Bar:
    """A stretch of time. `end` None: it goes on. `event`: the number of the event that says so, from 1. `void`: a retry
    has made it count no more."""

    begin: datetime
    end: datetime | None
    tone: Tone
    words: str
    event: int
    void: bool = False


@dataclass(kw_only=True, slots=True)
class Mark:
    """A moment."""

    at: datetime
    tone: Tone
    words: str
    event: int
    void: bool = False


@dataclass(kw_only=True, slots=True)
class Row:
    """A line of the timeline. `id`: the command's position, for steps. `state`: how it stands, in a word or two."""

    kind: Kind
    name: str
    event: int
    """Its first event."""
    id: int | None = None
    run_id: str | None = None
    """The other run, for a child."""
    state: str = ""
    attempts: int = 0
    bars: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    since: Bar | None = None
    """What goes on: a bar without an end, which is not among `bars` yet. For whoever builds the row."""
    begin: datetime = field(init=False)
    """The first moment of it."""
    end: datetime | None = field(init=False)
    """The last moment of it; None: it goes on."""

    @property
    def void(self) -> bool:
        """Whether retries have made all of it count no more."""
        first = self.bars or self.marks
        if first and not first[0].void:
            return False
        return all(one.void for one in self.bars) and all(one.void for one in self.marks)

    def settle(self) -> None:
        """Tell `begin` and `end` by the bars and marks, of which there is at least one."""
        if len(self.bars) == 1 and not self.marks:  # as nearly all rows of a long history
            self.begin, self.end = self.bars[0].begin, self.bars[0].end
            return
        moments = [one.at for one in self.marks]
        ends: list[datetime | None] = [one.end for one in self.bars]
        self.begin = min(moments + [one.begin for one in self.bars])
        self.end = None if None in ends else max(moments + [one for one in ends if one is not None])


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """All rows in the order in which they began to be recorded. `begin` and `end` span them; `end` of an open run is
    `now`."""

    rows: list[Row]
    begin: datetime
    end: datetime
    latest: datetime
    """When something was recorded last."""
    is_open: bool
