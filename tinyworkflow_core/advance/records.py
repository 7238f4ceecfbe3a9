"""Events for a history: what a message, an open command or an ended attempt is written down as, and how much fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..engine.commands import ActivityAttempt, ExecuteActivity, RequestApproval, StartChild, StartTimer
from ..engine.history import (
    ActivityCompleted,
    ActivityFailed,
    ActivityHeartbeat,
    ActivityScheduled,
    ApprovalDecided,
    ApprovalRequested,
    ApprovalVoted,
    CancelRequested,
    ChildEnded,
    Event,
    LeaseTaken,
    RunResumed,
    RunRetried,
    RunStarted,
    RunSuspended,
    SignalReceived,
    TimerStarted,
    UpdateAccepted,
    UpdateRejected,
    event_from_dict,
)
from ..engine.journal import Journal, Pending
from ..serialization import Failure, stored_size
from ..store import CastVote, Message, MessageKind, NewRun, OpenApproval, Run

_EVENT_OVERHEAD = 400
"""Bytes of an event's JSON besides its values: names, times, ids."""

_MEANWHILE = (
    LeaseTaken, SignalReceived, RunSuspended, RunResumed, UpdateAccepted, UpdateRejected, ApprovalDecided,
    ApprovalVoted, ChildEnded, ActivityCompleted, ActivityFailed,
)  # fmt: skip
"""What may happen to a run that waits for its time."""


def asked_for(pending: Pending, now: datetime) -> Event | None:
    """The event that says that the workflow asked for this; None for what is only recorded with its result."""
    match pending.command:
        case StartTimer() as timer:
            return TimerStarted(at=now, id=timer.id, due=timer.due, wakes_at=pending.due if pending.delay else None)
        case ExecuteActivity() as activity:
            if pending.begun or pending.deadline is not None:
                return None
            return ActivityScheduled(at=now, attempt=pending.attempt + 1, **activity.about())
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
                quorum=asked.quorum,
                veto=asked.veto,
                escalate_to=asked.escalate_to,
                escalates_at=asked.escalates_at,
            )
        case _:
            return None


def open_approval(command: RequestApproval, pending: Pending, now: datetime) -> OpenApproval:
    """The question as the run's record shows it. When it is due is put off as its timers are."""
    escalates_at = None if command.escalates_at is None else command.escalates_at + pending.delay
    return OpenApproval(
        id=command.id,
        key=command.key,
        requested_at=now,
        title=command.title,
        details=command.details,
        approvers=command.approvers,
        form=command.form,
        expires_at=None if command.expires_at is None else command.expires_at + pending.delay,
        quorum=command.quorum,
        veto=command.veto,
        escalate_to=command.escalate_to,
        escalates_at=escalates_at,
    )


def cast_vote(event: ApprovalVoted) -> CastVote:
    """The vote as the run's record shows it."""
    return CastVote(by=event.by, approved=event.approved, at=event.at, comment=event.comment, way=event.way)


def received(message: Message, *, now: datetime, generation: int, journal: Journal | None) -> Event | None:
    """The event that a message becomes; None for one about something that this generation has not asked for, or does
    no longer wait for. Without a journal (the code has not been asked) such messages are no events either."""
    body = message.body
    match message.kind:
        case MessageKind.SIGNAL:
            return SignalReceived(at=now, message_id=message.id, name=body["name"], payload=body["payload"])
        case MessageKind.UPDATE:
            return UpdateAccepted(at=now, message_id=message.id, name=body["name"], payload=body["payload"])
        case MessageKind.CANCEL:
            return CancelRequested(at=now, message_id=message.id, reason=body.get("reason"))
        case MessageKind.APPROVAL:
            if journal is None or body["generation"] != generation or body["id"] > journal.position:
                return None
            return _answered(message, now)
        case MessageKind.CHILD:
            return _child_ended(message, now, generation, journal)
        case MessageKind.ACTIVITY:
            return _activity_ended(message, now, generation, journal)
        case _:
            return None


def _answered(message: Message, now: datetime) -> Event:
    body = message.body
    said: dict[str, Any] = {
        "at": now,
        "id": body["id"],
        "key": body["key"],
        "message_id": message.id,
        "approved": body["approved"],
        "by": body.get("by"),
        "comment": body.get("comment"),
        "data": body.get("data", "null"),
        "way": body.get("way"),
    }
    return ApprovalVoted(**said) if body.get("votes") else ApprovalDecided(**said)


def _child_ended(message: Message, now: datetime, generation: int, journal: Journal | None) -> Event | None:
    of_generation, command_id, run_id = _place(message)
    if journal is None or of_generation != generation:
        return None
    pending, orphan = journal.open.get(command_id), journal.orphans.get(command_id)
    if orphan is not None and orphan.run_id == run_id:
        about: dict[str, Any] = {"id": orphan.id, "name": orphan.name, "digest": orphan.digest, "run_id": run_id}
    elif pending is not None and isinstance(pending.command, StartChild) and pending.command.run_id == run_id:
        about = pending.command.about()
    else:
        return None
    body, error = message.body, message.body.get("error")
    return ChildEnded(
        at=now,
        status=body["status"],
        message_id=message.id,
        result=body.get("result"),
        error=None if error is None else Failure.from_dict(error),
        **about,
    )


def outcome_id(attempt: ActivityAttempt, journal: Journal) -> str:
    """The id of the message that tells how an attempt that is a call of its own has ended. A retry of the run counts
    attempts anew: theirs are others."""
    return _outcome_id(attempt.generation, attempt.command.id, attempt.number, journal)


def _outcome_id(generation: int, command_id: int, attempt: int, journal: Journal) -> str:
    return f"activity/{generation}/{command_id}/{attempt}/{journal.times_void(command_id)}"


def _activity_ended(message: Message, now: datetime, generation: int, journal: Journal | None) -> Event | None:
    of_generation, command_id, _ = _place(message)
    pending = None if journal is None or of_generation != generation else journal.open.get(command_id)
    if journal is None or pending is None or pending.deadline is None:
        return None
    # One that was given up and comes after all would end the wrong attempt.
    if message.id != _outcome_id(generation, command_id, pending.attempt + 1, journal):
        return None
    event = event_from_dict(message.body["event"])
    return replace(event, at=now) if isinstance(event, ActivityCompleted | ActivityFailed) else None


def _place(message: Message) -> tuple[int, int, str]:
    _, generation, command_id, rest = message.id.split("/", 3)
    return int(generation), int(command_id), rest


def message_fits(message: Message, limit: int) -> bool:
    """Whether a history document of `limit` bytes takes what the message becomes."""
    text = message.id + json.dumps(dict(message.body), ensure_ascii=False)
    return len(text.encode(errors="surrogatepass")) + _EVENT_OVERHEAD <= limit


def messages_seen(history: Sequence[Event]) -> set[str]:
    """Ids of all messages that the history holds."""
    carried = history[0].seen if history and isinstance(history[0], RunStarted) else ()
    found = {getattr(event, "message_id", None) for event in history}
    return {*carried, *(one for one in found if one is not None)}


def begins_at(run: Run, history: Sequence[Event]) -> datetime | None:
    """When a run that has not begun yet, or waits to be retried, is to go on; None when it may at any time."""
    last = next((event for event in reversed(history) if not isinstance(event, _MEANWHILE)), None)
    if isinstance(last, RunRetried):
        return last.due
    # Compared with the starter's own clock, so that one that is wrong delays nothing.
    return last.at if last is not None and last is history[0] and last.at > run.created_at else None


def is_suspended(history: Sequence[Event]) -> bool:
    """Whether an operator has put the run aside."""
    for event in reversed(history):  # to its beginning, for most runs
        if isinstance(event, (RunSuspended, RunResumed)):
            return isinstance(event, RunSuspended)
    return False


def recent_takeovers(history: Sequence[Event]) -> int:
    """How often in a row the run was taken from a dead holder at the end of its history. A heartbeat in between ends no
    step: one that kills its process would go on so for ever."""
    count = 0
    for event in reversed(history):
        if isinstance(event, LeaseTaken):
            count += 1
        elif not isinstance(event, ActivityHeartbeat):
            break
    return count


def how_many_fit(events: Sequence[Event | None], limit: int) -> int:
    """How many of the events go into one history document of `limit` bytes: at least one."""
    if len(events) <= 1:
        return len(events)
    size = 0
    for i, event in enumerate(events):
        size += _size(event)
        if i and size > limit:
            return i
    return len(events)


def size_of_new_runs(new_runs: Sequence[NewRun]) -> int:
    """Bytes that they take in the write that creates them, nearly."""
    return sum(2 * stored_size(one.run.input) + 2 * _EVENT_OVERHEAD for one in new_runs)


def _size(event: Event | None) -> int:
    size = _EVENT_OVERHEAD
    for name in (
        "input",
        "result",
        "payload",
        "data",
        "comment",
        "details",
        "form",
        "name",
        "reason",
        "title",
        "by",
        "heartbeat",
        "custom_status",
    ):
        if isinstance(text := getattr(event, name, None), str):
            size += stored_size(text)
    if (error := getattr(event, "error", None)) is not None:
        size += len(json.dumps(error.to_dict(), ensure_ascii=False).encode(errors="surrogatepass"))
    return size
