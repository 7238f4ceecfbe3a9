"""Events: what has happened in one run, as frozen records and as JSON data.

A history is the ordered list of these. Replaying it rebuilds the run, so an event is never changed once it is
stored; a field that is added later needs a default, and a meaning that changes gets an entry in `_UPCASTS`.

`id` is a command's position: the n-th thing the workflow asked for has id n, in every replay. Values are JSON text
made by the Codec (`input`, `result`, `payload`, ...); this module never looks inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from datetime import datetime
from typing import Any

from ..errors import SerializationError
from ..records import dataclass
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
    parent_message: str | None = None
    """The id of the message that tells the parent how this run has ended."""
    deadline: datetime | None = None
    """When the run's time is up."""
    seed: str | None = None
    """What random numbers grow from, where it is not this run's own id and generation."""
    seen: tuple[str, ...] = ()
    """Ids of the latest messages of earlier generations: one that is delivered again counts once."""
    custom_status: str | None = None
    """What the generation before showed of the run, as JSON text."""
    schedule_id: str | None = None
    """The schedule that started the run; then the next three are set, too."""
    scheduled_at: datetime | None = None
    interval_start: datetime | None = None
    interval_end: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPickedUp(Event):
    """The code of this generation began at `at`, noticeably later than the run was started: for the code it is that
    time. Without such an event it begins at the time of `RunStarted`."""


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
class RunTimedOut(Event):
    """The run's time was up; workflow code meets it like a cancellation, and the run fails with TimeoutError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSuspended(Event):
    """An operator put the run aside; what happens meanwhile waits in the inbox until `RunResumed`."""

    message_id: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResumed(Event):
    """A suspended run goes on."""

    message_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCompleted(Event):
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFailed(Event):
    """The run failed. What a retry of it has to know: `failed`, the ids of the activities and children whose errors
    are in the cause chain of `error`; `undone`, those that were compensated; `position`, how many commands had been
    asked for when the failure began (None: by the time it ended)."""

    error: Failure
    failed: tuple[int, ...] = ()
    undone: tuple[int, ...] = ()
    position: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCancelled(Event):
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTerminated(Event):
    """An operator ended the run by force; its code was not asked."""

    message_id: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRetried(Event):
    """The run goes on from where it failed: earlier events of commands in `forgotten`, and of commands after
    `position`, count no more. Written instead of `RunFailed` when the workflow's own policy retries it at `due`, after
    it (the run is opened again) when somebody asks for it."""

    failed_at: datetime
    due: datetime
    automatic: bool
    error: Failure | None = None
    forgotten: tuple[int, ...] = ()
    undone: tuple[int, ...] = ()
    """Those of `forgotten` that had succeeded and were compensated: they are done anew, under a new idempotency key."""
    position: int | None = None
    deadline: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunForked(Event):
    """The events before this one were copied from another run; arguments recorded there may differ from this run's."""

    from_run_id: str
    at_event: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchMarked(Event):
    """`ctx.patched(patch)` said yes: this run takes the new branch."""

    patch: str


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
    """The workflow asked for the activity, and the run was let go before an attempt of it ended; or the attempt was
    handed out as a call of its own, which is given up at `deadline`."""

    attempt: int = 1
    deadline: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityStarted(ActivityEvent):
    """The one attempt of an at-most-once activity is about to begin: from here on it is never begun again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityHeartbeat(Event):
    """The latest details that a running attempt has reported, as JSON text."""

    id: int
    attempt: int
    details: str


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
    heartbeat: str | None = None
    """The last details that the attempt reported, as JSON text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityCancelled(ActivityEvent):
    """The workflow withdrew the activity, and what was running of it has ended."""


# --- timers, signals, approvals, side effects ---------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TimerStarted(Event):
    id: int
    due: datetime
    """By the workflow's time, which is that of the last event: the same in every replay."""
    wakes_at: datetime | None = None
    """By the clock of the call that asked, which had come a little further by then: so long it is waited. None: at
    `due`."""


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
    """A question to people. `approvers` may decide, from `escalates_at` on also `escalate_to`; with a `quorum` above 1
    everybody has one vote, and `veto` says whether one rejection is enough."""

    id: int
    key: str
    title: str | None = None
    details: str | None = None
    approvers: tuple[str, ...] = ()
    form: str | None = None
    expires_at: datetime | None = None
    quorum: int = 1
    veto: bool = True
    escalate_to: tuple[str, ...] = ()
    escalates_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalDecided(Event):
    """One person's answer decides. `way`: how it came, "link", "api" or "ui" (None: from code)."""

    id: int
    key: str
    message_id: str
    approved: bool
    by: str | None = None
    comment: str | None = None
    data: str = "null"
    way: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalVoted(Event):
    """One of the votes of a question with a quorum. What they come to is a function of the question's rule and of the
    votes before it (voting.py), and is no event of its own."""

    id: int
    key: str
    message_id: str
    approved: bool
    by: str
    comment: str | None = None
    data: str = "null"
    way: str | None = None


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


# --- children, messages, updates -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildEvent(Event):
    """Common to all events of one child run. `digest` is the fingerprint of its input."""

    id: int
    name: str
    digest: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildStarted(ChildEvent):
    """The child run exists: it was created in the same write."""

    on_parent_close: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildEnded(ChildEvent):
    """The child has ended with `status`, or (without `message_id`) could not be started."""

    status: str
    message_id: str | None = None
    result: str | None = None
    error: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageSent(Event):
    """A signal (`name`) or, without a name, a cancellation went to another run, in the same write; or could not."""

    id: int
    target: str
    name: str | None
    digest: str
    error: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateAccepted(Event):
    message_id: str
    name: str
    payload: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateCompleted(Event):
    """What the handler of an accepted update gave: a result, or the exception that it raised."""

    message_id: str
    result: str | None = None
    error: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateRejected(Event):
    """An update that was valid when it was sent no longer was when its turn came: for whoever waits for its answer."""

    message_id: str
    error: Failure


CLOSING = (RunCompleted, RunFailed, RunCancelled, RunTerminated)
"""The events that end a run."""

# --- as data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """How one event class is written and read."""

    cls: type[Event]
    kind: str
    fields: tuple[tuple[str, Any, Callable[[Any], Any] | None], ...]
    """Name, default, and what makes JSON data of the value (None: it is JSON data)."""
    names: frozenset[str]
    readers: tuple[tuple[str, Callable[[Any], Any]], ...]
    """Name, and what makes the value of the JSON data, of the fields that need it."""


_ABSENT: Any = object()
WRITERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.isoformat,
    "Failure": Failure.to_dict,
    "tuple": list,
}
"""What makes JSON data of a field's value, by `kind_of_field`; the others are JSON data."""
_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "Failure": Failure.from_dict,
    "tuple": tuple,
}


def kind_of_field(field: Field[Any]) -> str:
    """The name of the type of its values, apart from None."""
    return re.split(r"\W", str(field.type))[0]


def _shape(cls: type[Event]) -> _Shape:
    every = [(f.name, kind_of_field(f), f.default) for f in fields(cls)]
    return _Shape(
        cls=cls,
        kind=cls.__name__,
        fields=tuple((n, _ABSENT if d is MISSING else d, WRITERS.get(kind)) for n, kind, d in every),
        names=frozenset(name for name, _, _ in every),
        readers=tuple((name, _READERS[kind]) for name, kind, _ in every if kind in _READERS),
    )


_SHAPES_OF: dict[type[Event], _Shape] = {
    cls: _shape(cls)
    for cls in (
        RunStarted, RunPickedUp, LeaseTaken, CancelRequested, RunTimedOut, RunSuspended, RunResumed, RunCompleted,
        RunFailed, RunCancelled, RunTerminated, RunRetried, RunForked, PatchMarked,
        ActivityScheduled, ActivityStarted, ActivityHeartbeat, ActivityCompleted, ActivityFailed, ActivityCancelled,
        TimerStarted, TimerFired, SignalReceived, ApprovalRequested, ApprovalDecided, ApprovalVoted,
        ApprovalWithdrawn, SideEffectRecorded, ChildStarted, ChildEnded, MessageSent, UpdateAccepted, UpdateCompleted,
        UpdateRejected,
    )
}  # fmt: skip

_SHAPES = {shape.kind: shape for shape in _SHAPES_OF.values()}

_UPCASTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""kind -> what turns data written by an older release into today's. Applied before reading."""


def event_to_dict(event: Event) -> dict[str, Any]:
    """The event as JSON data, `kind` first; fields that hold their default are left out."""
    shape = _SHAPES_OF[type(event)]
    data: dict[str, Any] = {"kind": shape.kind}
    for name, default, write in shape.fields:
        value = getattr(event, name)
        if value is default or value == default:
            continue
        data[name] = value if write is None else write(value)
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
        values = {name: value for name, value in data.items() if name in shape.names}
        for name, read in shape.readers:
            if (value := values.get(name)) is not None:
                values[name] = read(value)
        return shape.cls(**values)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SerializationError(f"a stored event of kind {kind!r} is damaged: {error!r}") from error


def history_to_json(events: Iterable[Event]) -> list[dict[str, Any]]:
    """A whole history as JSON data, in order."""
    return [event_to_dict(event) for event in events]


def history_from_json(data: Iterable[Mapping[str, Any]]) -> list[Event]:
    """The reverse of `history_to_json`."""
    return [event_from_dict(one) for one in data]
