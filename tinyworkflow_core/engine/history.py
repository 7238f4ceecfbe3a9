"""Events: what has happened in one run, as frozen records and as JSON data.

A history is the ordered list of these. Replaying it rebuilds the run, so an event is never changed once it is
stored; a field that is added later needs a default, and a meaning that changes gets an entry in `_UPCASTS`.

`id` is a command's position: the n-th thing the workflow asked for has id n, in every replay. Values are JSON text
made by the Codec (`input`, `result`, `payload`, ...); this module never looks inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any

from ..errors import SerializationError
from ..serialization import Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened. `at` is the moment it was recorded, by the clock of the function that recorded it."""

    at: datetime


# --- the run -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted(Event):
    """The first event of every generation. `engine` and `python` pin the behaviour that replay has to repeat."""

    name: str
    version: int
    input: str
    engine: int
    python: str
    fingerprint: str | None = None
    parent_run_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseTaken(Event):
    """A new holder took the run from one that had died or fallen silent.

    It is written by the taking itself and occupies the sequence number that the old holder would write next: from
    then on whatever the old holder tries to commit is refused.
    """

    owner: str
    previous_owner: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelRequested(Event):
    """Somebody asked for the run to be cancelled; workflow code meets it as asyncio.CancelledError."""

    message_id: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCompleted(Event):
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFailed(Event):
    error: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCancelled(Event):
    reason: str | None = None


# --- activities --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityEvent(Event):
    """Common to all events of one activity. `digest` is the fingerprint of its arguments; `input` their JSON text
    where it is short; `group` the id of the parallel call that it is part of."""

    id: int
    name: str
    digest: str
    input: str | None = None
    group: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityScheduled(ActivityEvent):
    """The workflow asked for the activity, and the run was let go before an attempt of it ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityCompleted(ActivityEvent):
    attempt: int
    started_at: datetime
    result: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityFailed(ActivityEvent):
    """One attempt failed. With `retry_at` the next attempt is due then; without, this was the last."""

    attempt: int
    started_at: datetime
    error: Failure
    retry_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityCancelled(ActivityEvent):
    """The workflow withdrew the activity, and what was running of it has ended."""


# --- timers, signals, approvals, side effects ---------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TimerStarted(Event):
    id: int
    due: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class TimerFired(Event):
    id: int
    due: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalReceived(Event):
    message_id: str
    name: str
    payload: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalRequested(Event):
    id: int
    key: str
    title: str | None = None
    details: str | None = None
    approvers: tuple[str, ...] = ()
    form: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalDecided(Event):
    id: int
    key: str
    message_id: str
    approved: bool
    by: str | None = None
    comment: str | None = None
    data: str = "null"


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalWithdrawn(Event):
    """The workflow no longer waits for it: its time was up, or the wait was cancelled."""

    id: int
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SideEffectRecorded(Event):
    """What `side_effect(fn)` gave: a result, or the exception that it raised."""

    id: int
    result: str | None = None
    error: Failure | None = None


CLOSING = (RunCompleted, RunFailed, RunCancelled)
"""The events that end a run."""

# --- as data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """How one event class is written: which of its fields need converting."""

    cls: type[Event]
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    moments: frozenset[str] = field(default_factory=frozenset)
    failures: frozenset[str] = field(default_factory=frozenset)
    tuples: frozenset[str] = field(default_factory=frozenset)


def _shape(cls: type[Event]) -> _Shape:
    every = fields(cls)
    kinds = {f.name: str(f.type) for f in every}
    return _Shape(
        cls=cls,
        names=tuple(kinds),
        defaults={f.name: f.default for f in every if f.default is not MISSING},
        moments=frozenset(name for name, kind in kinds.items() if kind.startswith("datetime")),
        failures=frozenset(name for name, kind in kinds.items() if kind.startswith("Failure")),
        tuples=frozenset(name for name, kind in kinds.items() if kind.startswith("tuple")),
    )


_SHAPES: dict[str, _Shape] = {
    cls.__name__: _shape(cls)
    for cls in (
        RunStarted, LeaseTaken, CancelRequested, RunCompleted, RunFailed, RunCancelled,
        ActivityScheduled, ActivityCompleted, ActivityFailed, ActivityCancelled,
        TimerStarted, TimerFired, SignalReceived, ApprovalRequested, ApprovalDecided, ApprovalWithdrawn,
        SideEffectRecorded,
    )
}  # fmt: skip

_UPCASTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""kind -> what turns data written by an older release into today's. Applied before reading."""

_ABSENT: Any = object()


def event_to_dict(event: Event) -> dict[str, Any]:
    """The event as JSON data, `kind` first; fields that hold their default are left out."""
    kind = type(event).__name__
    shape = _SHAPES[kind]
    data: dict[str, Any] = {"kind": kind}
    for name in shape.names:
        value = getattr(event, name)
        if value == shape.defaults.get(name, _ABSENT):
            continue
        if name in shape.moments:
            value = value.isoformat()
        elif name in shape.failures:
            value = value.to_dict()
        elif name in shape.tuples:
            value = list(value)
        data[name] = value
    return data


def event_from_dict(data: Mapping[str, Any]) -> Event:
    """The reverse of `event_to_dict`. Raises SerializationError for a kind this release does not know, or damage."""
    kind = data.get("kind", "")
    if upcast := _UPCASTS.get(kind):
        data = upcast(dict(data))
        kind = data["kind"]
    shape = _SHAPES.get(kind)
    if shape is None:
        raise SerializationError(f"the history holds an event of kind {kind!r}, which this release does not know")
    try:
        return shape.cls(**_values(shape, data))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SerializationError(f"a stored event of kind {kind!r} is damaged: {error!r}") from error


def _values(shape: _Shape, data: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in shape.names:
        value = data.get(name, _ABSENT)
        if value is _ABSENT:
            continue
        if value is not None:
            if name in shape.moments:
                value = datetime.fromisoformat(value)
            elif name in shape.failures:
                value = Failure.from_dict(value)
            elif name in shape.tuples:
                value = tuple(value)
        values[name] = value
    return values


def history_to_json(events: Iterable[Event]) -> list[dict[str, Any]]:
    """A whole history as JSON data, in order."""
    return [event_to_dict(event) for event in events]


def history_from_json(data: Iterable[Mapping[str, Any]]) -> list[Event]:
    """The reverse of `history_to_json`."""
    return [event_from_dict(one) for one in data]
