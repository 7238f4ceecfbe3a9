"""Port: where schedules live. The record, and the verbs that every store has for it.

A schedule is one document that is read and replaced whole. Whoever replaces it says which state it has seen, so of two
that change it at once one is told to look again. No verb reads a clock, and every verb is atomic. Adapters translate
every driver error into `StoreError` or `StoreUnavailableError`; a verb that raised StoreUnavailableError may have
happened and can be called again with the same arguments.

When a schedule fires is cron.py's business; what is done then, that of firing.py and backfilling.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from .records import dataclass

DEFAULT_CONCURRENCY = 10
"""Runs of one backfill that may be open at once, unless somebody says otherwise."""


class Overlap(StrEnum):
    """What happens when a time has come and the schedule's last run is still open."""

    SKIP = "skip"
    """Nothing is started for that time."""
    QUEUE = "queue"
    """The run is started when the last one has ended."""
    CANCEL_OTHER = "cancel_other"
    """The last run is asked to cancel, and the new one is started."""
    ALLOW = "allow"
    """The new run is started beside it."""


class CatchUp(StrEnum):
    """What happens to times that nobody looked at when they came."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class BackfillState(StrEnum):
    """How far a backfill has come."""

    RUNNING = "running"
    """It has times to start runs for, or waits for the last of its runs to end."""
    DONE = "done"
    CANCELLED = "cancelled"
    """It starts nothing more; the runs that it has started go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backfill:
    """A window of a schedule's times that is being made up for. It is part of the schedule's record."""

    id: str
    start: datetime
    end: datetime
    """The window: `start <= time < end`."""
    max_concurrency: int
    """How many of its runs may be open at once."""
    total: int
    """How many times there are in the window."""
    created_at: datetime
    state: BackfillState = BackfillState.RUNNING
    next_at: datetime | None = None
    """The next time to start a run for. None: all have theirs."""
    look_at: datetime | None = None
    """When somebody must look at it. None: never again."""
    open_runs: tuple[str, ...] = ()
    """Its runs that were open when they were last looked at."""
    started: int = 0
    """Times that have their run, whoever has started it."""
    failed: int = 0
    """Runs that were seen to have failed."""
    held_since: datetime | None = None
    """Since when it gets no further: its runs are open, or (then `problem` says it) no run can be started."""
    problem: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Backfill:
        """The reverse of what a schedule's `to_dict` holds of it. Raises ValueError, TypeError or KeyError."""
        values = _known(cls, data, _BACKFILL_MOMENTS)
        values["open_runs"] = tuple(values.get("open_runs", ()))
        values["state"] = BackfillState(values.get("state", BackfillState.RUNNING))
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """One schedule. `input` is JSON text made by the Codec; `timing` and `attributes` are JSON data."""

    id: str
    workflow: str
    """The name; every run takes its highest version."""
    timing: Mapping[str, Any]
    """What `cron.timing_to_dict` gives: a kind (cron, interval, once) and what belongs to it."""
    created_at: datetime
    etag: str
    """Names this state of the record: whoever writes it takes a fresh one."""
    input: str = "null"
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_window: float | None = None
    """Seconds: a time that is older when its turn comes gets no run. None: however old it is."""
    jitter: float = 0.0
    """Seconds: a run is started at a moment between its time and so much later, always the same one for one time."""
    paused: bool = False
    note: str | None = None
    """Why it is paused, in the words of whoever did that."""
    next_at: datetime | None = None
    """The next time to fire. None: it is paused, or there is none any more."""
    due_at: datetime | None = None
    """When next_at has to be looked at: then and its jitter, or later while it is held up. None: never."""
    held_since: datetime | None = None
    """Since when next_at is held up: by the last run, or (then `problem` says it) because no run can be started."""
    problem: str | None = None
    last_at: datetime | None = None
    """The latest time for which a run was started."""
    last_run_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Given to every run."""
    pause_after_failures: int | None = None
    """The schedule is paused when so many of its runs have failed in a row. None: never."""
    failures: int = 0
    """How many have, as far as their ends were looked at."""
    watched: tuple[str, ...] = ()
    """Runs whose ends are still to be counted, the oldest first."""
    backfills: tuple[Backfill, ...] = ()
    """The oldest first: all that are running, and the latest of the others."""

    @property
    def wake_at(self) -> datetime | None:
        """When somebody must look at this record: at its next time, or at one of its backfills. None: never."""
        moments = [self.due_at, *(one.look_at for one in self.backfills)]
        return min((one for one in moments if one is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        data = _texts(values | {"watched": list(self.watched)})
        data["backfills"] = [_texts(asdict(one) | {"open_runs": list(one.open_runs)}) for one in self.backfills]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schedule:
        """The reverse of `to_dict`; fields it does not know are ignored. Raises ValueError for what is no schedule."""
        try:
            values = _known(cls, data, _MOMENTS)
            if "overlap" in values:
                values["overlap"] = Overlap(values["overlap"])
            if "catch_up" in values:
                values["catch_up"] = CatchUp(values["catch_up"])
            values["watched"] = tuple(values.get("watched", ()))
            values["backfills"] = tuple(Backfill.from_dict(one) for one in values.get("backfills", ()))
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a schedule: {error}") from error


_MOMENTS = frozenset({"created_at", "next_at", "due_at", "held_since", "last_at"})
_BACKFILL_MOMENTS = frozenset({"start", "end", "created_at", "next_at", "look_at", "held_since"})


def _texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}


def _known(cls: type[Any], data: Mapping[str, Any], moments: frozenset[str]) -> dict[str, Any]:
    values = {one.name: data[one.name] for one in fields(cls) if one.name in data}
    for name in moments & values.keys():
        values[name] = None if values[name] is None else datetime.fromisoformat(values[name])
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class DamagedSchedule:
    """A stored schedule that cannot be read. It is due like others, so that somebody hears of it."""

    id: str
    problem: str


class ScheduleStore(Protocol):
    """Where schedules live."""

    async def put(self, schedule: Schedule, *, expected: str | None) -> bool:
        """Write the record whole.

        - False, and nothing was written: the stored record's etag is not `expected` (None: there must be none).
        - Of any number of simultaneous calls with one `expected` and different etags exactly one gets True.
        - Called again with an equal record after StoreUnavailableError it gives True whether or not the first call did,
          as long as nobody has written it since: the stored etag is then the record's own.
        """
        ...

    async def get(self, schedule_id: str) -> Schedule | None:
        """The record: one document read. None: there is no such schedule. Raises ScheduleDamagedError."""
        ...

    async def delete(self, schedule_id: str) -> bool:
        """Forget a schedule, in whatever state it is; its runs stay. False: there was none (also when an earlier try
        of this call, whose answer was lost, has removed it)."""
        ...

    async def due(self, *, now: datetime, limit: int) -> Sequence[Schedule | DamagedSchedule]:
        """Schedules with `wake_at <= now`, longest overdue first, then by id.

        Reads a range of an index: its cost does not grow with the number of schedules that are not due. A record that
        cannot be read does not keep the others from being found.
        """
        ...

    async def list(self, *, limit: int = 100, after: str | None = None) -> Sequence[Schedule | DamagedSchedule]:
        """Schedules in the order of their ids. `after` is the last id of the page before; a page that is shorter than
        `limit` is the last one."""
        ...
