"""Events for a history: what a message, an open command or an ended attempt is written down as, and how much fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from ..engine.commands import ExecuteActivity, RequestApproval, RunSideEffect, StartTimer
from ..engine.history import (
    ActivityScheduled,
    ApprovalDecided,
    ApprovalRequested,
    CancelRequested,
    Event,
    LeaseTaken,
    SignalReceived,
    TimerStarted,
)
from ..engine.journal import Pending
from ..serialization import stored_size
from ..store import Message, MessageKind, OpenApproval, Run

_EVENT_OVERHEAD = 400
"""Bytes of an event's JSON besides its values: names, times, ids."""


def asked_for(pending: Pending, now: datetime) -> Event | None:
    """The event that says that the workflow asked for this; None for what is only recorded with its result."""
    match pending.command:
        case StartTimer() as timer:
            return TimerStarted(at=now, id=timer.id, due=timer.due)
        case ExecuteActivity() as activity:
            return ActivityScheduled(at=now, **activity.about())
        case RequestApproval() as asked:
            return ApprovalRequested(
                at=now,
                id=asked.id,
                key=asked.key,
                title=asked.title,
                details=asked.details,
                approvers=asked.approvers,
                form=asked.form,
                expires_at=asked.expires_at,
            )
        case RunSideEffect():
            return None


def open_approval(command: RequestApproval, now: datetime) -> OpenApproval:
    """The question as the run's record shows it."""
    return OpenApproval(
        id=command.id,
        key=command.key,
        requested_at=now,
        title=command.title,
        details=command.details,
        approvers=command.approvers,
        form=command.form,
        expires_at=command.expires_at,
    )


def received(message: Message, *, now: datetime, generation: int, position: int) -> Event | None:
    """The event that a message becomes; None for a decision about something that this generation has not asked."""
    body = message.body
    match message.kind:
        case MessageKind.SIGNAL:
            return SignalReceived(at=now, message_id=message.id, name=body["name"], payload=body["payload"])
        case MessageKind.CANCEL:
            return CancelRequested(at=now, message_id=message.id, reason=body.get("reason"))
        case MessageKind.APPROVAL:
            if body["generation"] != generation or body["id"] > position:
                return None
            return ApprovalDecided(
                at=now,
                id=body["id"],
                key=body["key"],
                message_id=message.id,
                approved=body["approved"],
                by=body.get("by"),
                comment=body.get("comment"),
                data=body.get("data", "null"),
            )


def delayed_start(run: Run, history: Sequence[Event]) -> datetime | None:
    """When a run that has not begun yet is to begin; None when it may begin, or has."""
    begun = any(not isinstance(event, LeaseTaken | SignalReceived) for event in history[1:])
    # Compared with the starter's own clock, so that one that is wrong delays nothing.
    return history[0].at if history and not begun and history[0].at > run.created_at else None


def recent_takeovers(history: Sequence[Event]) -> int:
    """How often in a row the run was taken from a dead holder at the end of its history."""
    count = 0
    while count < len(history) and isinstance(history[-1 - count], LeaseTaken):
        count += 1
    return count


def how_many_fit(events: Sequence[Event | None], limit: int) -> int:
    """How many of the events go into one history document of `limit` bytes: at least one."""
    size = 0
    for i, event in enumerate(events):
        size += _size(event)
        if i and size > limit:
            return i
    return len(events)


def _size(event: Event | None) -> int:
    size = _EVENT_OVERHEAD
    for name in ("input", "result", "payload", "data", "comment", "details", "form", "name", "reason", "title", "by"):
        if isinstance(text := getattr(event, name, None), str):
            size += stored_size(text)
    if (error := getattr(event, "error", None)) is not None:
        size += len(json.dumps(error.to_dict(), ensure_ascii=False).encode(errors="surrogatepass"))
    return size
