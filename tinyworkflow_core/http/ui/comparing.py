"""Comparing: two histories side by side, aligned by step. Pure: the fingerprint of a stored value is given.

The n-th thing that a workflow asks for has the position n in every run, so two runs of one workflow agree up to where
their code took another way. What came from outside (signals, a cancellation) has no position: the n-th signal of a name
stands beside the n-th of the other run. What retries have made void is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ...engine.history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityEvent,
    ActivityFailed,
    ApprovalDecided,
    ApprovalRequested,
    ApprovalWithdrawn,
    CancelRequested,
    ChildEnded,
    ChildEvent,
    Event,
    MessageSent,
    PatchMarked,
    RunTimedOut,
    SideEffectRecorded,
    SignalReceived,
    TimerFired,
    TimerStarted,
    UpdateAccepted,
)
from ...engine.rewind import effective
from ...records import dataclass
from ...serialization import Failure
from .rows import Kind

Fingerprint = Callable[[str], str]
Key = tuple[int, str, int]
"""Steps by (0, "", position); the rest by (1, what, n-th)."""


@dataclass(kw_only=True, slots=True)
class Side:
    """What one run says about a step. `digest`: of its arguments. `input`, `result`: as stored, where known. `event`:
    the number of its first event."""

    kind: str
    name: str
    event: int
    begin: datetime
    end: datetime
    digest: str | None = None
    input: str | None = None
    result: str | None = None
    error: Failure | None = None
    outcome: str = "open"
    attempts: int = 0

    @property
    def seconds(self) -> float:
        """How long it took, as far as the history says."""
        return max((self.end - self.begin).total_seconds(), 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One step in both runs. `differs`: in what, in words; nothing: it is alike."""

    position: int | None
    a: Side | None
    b: Side | None
    differs: tuple[str, ...]


def compare(a: Sequence[Event], b: Sequence[Event], fingerprint: Fingerprint) -> list[Pair]:
    """All steps of both, by position, and then what came from outside."""
    left, right = _sides(a), _sides(b)
    pairs = []
    for key in sorted(left.keys() | right.keys()):
        one, other = left.get(key), right.get(key)
        position = key[2] if key[0] == 0 else None
        pairs.append(Pair(position=position, a=one, b=other, differs=tuple(_differences(one, other, fingerprint))))
    return pairs


def first_difference(pairs: Sequence[Pair]) -> int | None:
    """The index of the first pair that differs."""
    return next((index for index, pair in enumerate(pairs) if pair.differs), None)


def same_value(a: str | None, b: str | None, fingerprint: Fingerprint) -> bool:
    """Whether two stored values are equal, sealed or not."""
    return a == b or (a is not None and b is not None and fingerprint(a) == fingerprint(b))


def _differences(a: Side | None, b: Side | None, fingerprint: Fingerprint) -> list[str]:
    if a is None or b is None:
        return ["only in B" if a is None else "only in A"]
    if (a.kind, a.name) != (b.kind, b.name):
        return ["another step"]
    found = []
    if a.digest != b.digest:
        found.append("arguments")
    if a.outcome != b.outcome:
        found.append("outcome")
    if not same_value(a.result, b.result, fingerprint):
        found.append("result")
    if a.attempts != b.attempts:
        found.append("attempts")
    return found


def _sides(history: Sequence[Event]) -> dict[Key, Side]:
    sides: dict[Key, Side] = {}
    seen: Counter[str] = Counter()
    numbers = {id(event): number for number, event in enumerate(history, start=1)}
    for event in effective(history):
        found = _step(event) or _from_outside(event)
        if found is None:
            continue
        kind, name = found
        step: int | None = getattr(event, "id", None)
        if step is not None:
            key: Key = (0, "", step)
        else:
            seen[f"{kind} {name}"] += 1
            key = (1, f"{kind} {name}", seen[f"{kind} {name}"])
        side = sides.get(key)
        if side is None or (side.kind, side.name) != (kind, name):
            begin = getattr(event, "started_at", None) or event.at
            side = sides[key] = Side(kind=kind, name=name, event=numbers[id(event)], begin=begin, end=event.at)
        _fill(side, event)
    return sides


def _step(event: Event) -> tuple[str, str] | None:
    """Kind and name of the step that an event is about."""
    match event:
        case ActivityEvent(name=name):
            return Kind.ACTIVITY.value, name
        case TimerStarted() | TimerFired():
            return Kind.TIMER.value, "timer"
        case ApprovalRequested(key=key) | ApprovalDecided(key=key) | ApprovalWithdrawn(key=key):
            return Kind.APPROVAL.value, key
        case ChildEvent(name=name):
            return Kind.CHILD.value, name
        case MessageSent(name=name):
            return Kind.MESSAGE.value, name or "cancel"
        case SideEffectRecorded():
            return Kind.SIDE_EFFECT.value, "side effect"
    return None


def _from_outside(event: Event) -> tuple[str, str] | None:
    match event:
        case SignalReceived(name=name):
            return Kind.SIGNAL.value, name
        case UpdateAccepted(name=name):
            return Kind.UPDATE.value, name
        case PatchMarked(patch=patch):
            return Kind.PATCH.value, patch
        case CancelRequested():
            return Kind.RUN.value, "asked to cancel"
        case RunTimedOut():
            return Kind.RUN.value, "its time was up"
    return None


def _fill(side: Side, event: Any) -> None:
    side.end = max(side.end, event.at)
    side.digest = getattr(event, "digest", None) or side.digest
    side.input = getattr(event, "input", None) or side.input
    side.attempts = max(side.attempts, getattr(event, "attempt", 0))
    side.error = getattr(event, "error", None)
    match event:
        case ActivityCompleted() | SideEffectRecorded(error=None):
            side.outcome, side.result = "done", event.result
        case ActivityFailed(error=Failure(type=failed)) | SideEffectRecorded(error=Failure(type=failed)):
            side.outcome = f"failed: {failed}"
        case ActivityCancelled():
            side.outcome = "cancelled"
        case TimerFired():
            side.outcome = "fired"
        case ApprovalDecided():
            side.outcome, side.result = "approved" if event.approved else "rejected", event.data
        case ApprovalWithdrawn():
            side.outcome = "withdrawn"
        case ChildEnded():
            side.outcome, side.result = event.status, event.result
        case SignalReceived() | UpdateAccepted():
            side.outcome, side.result = "received", event.payload
        case MessageSent(error=None):
            side.outcome = "sent"
        case MessageSent():
            side.outcome = "not sent"
