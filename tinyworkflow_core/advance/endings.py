"""Endings: how a call lets go of its run for good, or for the time being: closed, retried, continued as new, parked,
suspended. Each is one commit, with word to the parent and an end for the children that are left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta

from ..dispatcher import Advance
from ..engine.history import (
    ChildEnded,
    ChildStarted,
    Event,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunRetried,
    RunStarted,
    RunSuspended,
    RunTerminated,
    UpdateCompleted,
)
from ..engine.replay import ENGINE, PYTHON, Cancelled, Completed, ContinuedAsNew, Failed
from ..engine.rewind import effective
from ..errors import StoreUnavailableError
from ..serialization import Failure
from ..store import Message, MessageKind, Status
from .crossing import fitted, in_parts
from .holding import Holding
from .outgoing import word_of_end
from .records import messages_seen, received
from .surroundings import Progress

_log = logging.getLogger("tinyworkflow.advance")

Outbox = tuple[tuple[str, Message], ...]


async def close(
    holding: Holding,
    outcome: Completed | Failed | Cancelled,
    *,
    before: Sequence[Event] = (),
    consumed: tuple[str, ...] = (),
) -> Progress:
    """End the run as its code has ended, or let its workflow's policy retry it."""
    await _stop(holding)
    now = holding.now()
    if isinstance(outcome, Failed) and outcome.retry_after is not None:
        return await _retry_later(holding, outcome, outcome.retry_after)
    event: Event
    output: str | None = None
    error: Failure | None = None
    match outcome:
        case Completed(output=output):
            event, status = RunCompleted(at=now, output=output), Status.COMPLETED
        case Failed(error=error, failed=failed, undone=undone, position=position):
            event = RunFailed(at=now, error=error, failed=failed, undone=undone, position=position)
            status = Status.FAILED
            letters, read = await _letters_left(holding)
            before, consumed = [*before, *letters], (*consumed, *read)
        case Cancelled(reason=reason):
            event, status = RunCancelled(at=now, reason=reason), Status.CANCELLED
    events = [*_last_words(holding), *before, event]
    return await _end(holding, status, events, consumed=consumed, output=output, error=error)


async def terminate(holding: Holding, message: Message) -> Progress:
    """End the run by force, whatever its code would say to it."""
    await _stop(holding)
    letters, read = await _letters_left(holding)
    event = RunTerminated(at=holding.now(), message_id=message.id, reason=message.body.get("reason"))
    events = [*_last_words(holding), *letters, event]
    return await _end(holding, Status.TERMINATED, events, consumed=(*read, message.id))


async def _letters_left(holding: Holding) -> tuple[list[Event], list[str]]:
    """The signals and decisions that nobody has taken, as events, and the ids of their messages: the end of the run
    would drop them, and whoever retries it wants them."""
    try:
        inbox = await holding.around.store.inbox(holding.run_id)
    except StoreUnavailableError:
        inbox = holding.inbox
    ledger, execution = holding.ledger, holding.execution
    journal, now = None if execution is None else execution.journal, holding.now()
    seen, events, read = messages_seen(ledger.history), list[Event](), list[str]()
    for message in inbox[: holding.around.settings.messages_per_commit]:
        if message.kind in (MessageKind.SIGNAL, MessageKind.APPROVAL) and message.id not in seen:
            event = received(message, now=now, generation=ledger.run.generation, journal=journal)
            if event is not None:
                events.append(event)
                read.append(message.id)
    return events, read


async def _end(
    holding: Holding,
    status: Status,
    events: Sequence[Event],
    *,
    consumed: tuple[str, ...] = (),
    output: str | None = None,
    error: Failure | None = None,
) -> Progress:
    now = holding.now()
    holding.show_state(approvals=())
    holding.ledger.show(open_approvals=())
    release = holding.ledger.release(status, output=output, error=error, closed_at=now)
    outbox = (*_word_to_parent(holding, status, output, error), *_to_children_left(holding))
    await holding.ledger.write(events, consumed=consumed, release=release, outbox=outbox)
    await holding.dispatch(Advance(run_id=target) for target, _ in outbox)
    return Progress.CLOSED


def _last_words(holding: Holding) -> list[Event]:
    answers = holding.execution.answers if holding.execution is not None else ()
    now = holding.now()
    said = [UpdateCompleted(at=now, message_id=one.message_id, result=one.result, error=one.error) for one in answers]
    return [*holding.marks(), *said]


async def _retry_later(holding: Holding, outcome: Failed, after: float) -> Progress:
    now, run = holding.now(), holding.ledger.run
    due = now + timedelta(seconds=after)
    event = RunRetried(
        at=now,
        failed_at=now,
        due=due,
        automatic=True,
        error=outcome.error,
        forgotten=outcome.failed,
        undone=outcome.undone,
        position=outcome.position,
    )
    holding.show_state(approvals=())
    holding.ledger.show(retry_count=run.retry_count + 1)
    release = holding.ledger.release(Status.RETRYING, wake_at=due, error=outcome.error)
    outbox = _to_children_void(holding, event)
    await holding.ledger.write([*_last_words(holding), event], release=release, outbox=outbox)
    await holding.dispatch(Advance(run_id=target) for target, _ in outbox)
    holding.attention.handed_over = True
    await holding.around.dispatcher.dispatch(Advance(run_id=holding.run_id), at=due if after else None)
    return Progress.RELEASED


async def continue_as_new(holding: Holding, outcome: ContinuedAsNew) -> Progress:
    """Go on as the next generation, with nothing of this one's history but the messages that nobody has taken and the
    latest answers."""
    await _stop(holding)
    ledger, now = holding.ledger, holding.now()
    started, run = ledger.history[0], ledger.run
    assert isinstance(started, RunStarted)
    opening = RunStarted(
        at=now,
        name=started.name,
        version=started.version,
        input=outcome.input,
        engine=ENGINE,
        python=PYTHON,
        fingerprint=holding.around.registry.workflow(run.name, run.version).fingerprint,
        parent_run_id=started.parent_run_id,
        parent_message=started.parent_message,
        deadline=started.deadline if holding.execution is None else holding.execution.latest_deadline,
        seen=outcome.seen,
        custom_status=None if holding.execution is None else holding.execution.custom_status,
        schedule_id=started.schedule_id,
        scheduled_at=started.scheduled_at,
        interval_start=started.interval_start,
        interval_end=started.interval_end,
    )
    holding.show_state(approvals=())
    outbox = _to_children_left(holding)
    limit = holding.around.store.max_event_bytes
    generation, rest = fitted(opening, outcome.carried, limit)
    for part in in_parts(rest, limit):  # before: a crash in between leaves only messages that were read already
        await ledger.write([], outbox=tuple((run.run_id, one) for one in part))
    release = ledger.release(Status.PENDING, wake_at=now, next_generation=tuple(generation))
    await ledger.write([], release=release, outbox=outbox)
    await holding.dispatch(Advance(run_id=target) for target, _ in outbox)
    return Progress.CONTINUED


async def park(holding: Holding, problem: str, *, logged: str | None = None) -> Progress:
    """Put the run aside, whole, until code that fits is deployed or a person acts. `logged`: what the log says in place
    of a problem that may quote data."""
    await _stop(holding)
    run_id = holding.run_id
    _log.error("run %s is parked: %s", run_id, problem if logged is None else logged, extra={"run_id": run_id})
    wake_at = holding.now() + timedelta(seconds=holding.around.settings.parked_retry_seconds)
    release = holding.ledger.release(Status.PARKED, wake_at=wake_at, problem=problem)
    await holding.ledger.write([], release=release)
    holding.attention.aside = True
    return Progress.RELEASED


async def suspend(holding: Holding, message: Message, ended: Sequence[Event]) -> Progress:
    """Put the run aside because an operator asked for it. What has ended meanwhile is recorded, and not acted on."""
    event = RunSuspended(at=holding.now(), message_id=message.id, reason=message.body.get("reason"))
    holding.show_state()
    release = holding.ledger.release(Status.SUSPENDED)
    events = holding.with_what_goes_along([*ended, event])
    await holding.ledger.write(events, consumed=(message.id,), release=release)
    holding.attention.aside = True
    return Progress.RELEASED


async def stay_suspended(holding: Holding) -> Progress:
    """Let go of a run that is suspended and was woken all the same."""
    await holding.ledger.write([], release=holding.ledger.release(Status.SUSPENDED))
    holding.attention.aside = True
    return Progress.RELEASED


async def _stop(holding: Holding) -> None:
    if holding.work is not None:
        await holding.work.stop()


# --- other runs --------------------------------------------------------------------------------------


def _word_to_parent(holding: Holding, status: Status, output: str | None, error: Failure | None) -> Outbox:
    """The message that tells the parent how the run has ended; nothing for a run without one."""
    history, now = holding.ledger.history, holding.now()
    started = history[0] if history else None
    if not isinstance(started, RunStarted) or started.parent_run_id is None or started.parent_message is None:
        return ()
    word = word_of_end(started.parent_message, status, output, error, now, holding.around)
    return ((started.parent_run_id, word),)


def _to_children_left(holding: Holding) -> Outbox:
    """Messages that settle the children which are still open, by their `on_parent_close`."""
    return _settled(holding, _open_children(holding.ledger.history).values())


def _to_children_void(holding: Holding, retried: RunRetried) -> Outbox:
    """The same for those that the retry makes void: nobody waits for them any more."""
    kept = _open_children([*holding.ledger.history, retried])
    return _settled(holding, [one for one in _open_children(holding.ledger.history).values() if one.id not in kept])


def _open_children(history: Sequence[Event]) -> dict[int, ChildStarted]:
    """Children that have not ended, by command id."""
    found: dict[int, ChildStarted] = {}
    for event in effective(history):
        if isinstance(event, ChildStarted):
            found[event.id] = event
        elif isinstance(event, ChildEnded):
            found.pop(event.id, None)
        elif isinstance(event, RunForked):
            found.clear()  # they are the other run's
    return found


def _settled(holding: Holding, children: Iterable[ChildStarted]) -> Outbox:
    now, reason = holding.now(), {"reason": f"its parent {holding.run_id} has ended"}
    outbox: list[tuple[str, Message]] = []
    for child in children:
        if child.on_parent_close == "cancel":
            outbox.append((child.run_id, Message(id="cancel", kind=MessageKind.CANCEL, received_at=now, body=reason)))
        elif child.on_parent_close == "terminate":
            message = Message(id="terminate", kind=MessageKind.TERMINATE, received_at=now, body=reason)
            outbox.append((child.run_id, message))
    return tuple(outbox)
