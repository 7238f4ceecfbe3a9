"""Rows: what a timeline consists of: steps with their bars and marks. Data alone; `timeline.py` makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A stretch of time. `end` None: it goes on. `event`: the number of the event that says so, from 1. `void`: a retry
    has made it count no more."""

    begin: datetime
    end: datetime | None
    tone: Tone
    words: str
    event: int
    void: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
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

    @property
    def void(self) -> bool:
        """Whether retries have made all of it count no more."""
        parts: list[Bar | Mark] = [*self.bars, *self.marks]
        return all(one.void for one in parts)

    @property
    def begin(self) -> datetime:
        """The first moment of it."""
        return min([one.begin for one in self.bars] + [one.at for one in self.marks])

    @property
    def end(self) -> datetime | None:
        """The last moment of it; None: it goes on."""
        ends = [one.end for one in self.bars]
        known = [one for one in ends if one is not None] + [one.at for one in self.marks]
        return None if None in ends else max(known)


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
