"""Steering: what operators do to runs: suspend, resume, terminate, retry, fork, forget.

Each is a function on a store and a dispatcher; `WorkflowClient` has them as methods. Messages steer a run through its
inbox like any other; a retry opens an ended run again, a fork makes a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from .clock import Clock, fresh_id
from .dispatcher import Advance, Dispatcher
from .engine.history import (
    CLOSING,
    ActivityEvent,
    ActivityHeartbeat,
    ActivityScheduled,
    ActivityStarted,
    Event,
    LeaseTaken,
    RunFailed,
    RunForked,
    RunResumed,
    RunRetried,
    RunStarted,
    RunSuspended,
    UpdateAccepted,
    UpdateCompleted,
    UpdateRejected,
)
from .engine.rewind import effective
from .errors import InvalidInputError, RunExistsError, RunNotFoundError, RunStateError
from .registry import Registry
from .serialization import Codec
from .store import CLOSED_STATUSES, Run, RunQuery, RunState, Status, Store

RETRIABLE = (Status.FAILED, Status.TERMINATED)


async def retry(store: Store, dispatcher: Dispatcher, run_id: str, *, clock: Clock) -> None:
    """Open a failed or terminated run again: it goes on from the point of failure.

    Raises RunNotFoundError, and RunStateError for a run that is open or has ended otherwise.
    """
    state = await _load(store, run_id)
    if state.run.status not in RETRIABLE:
        raise RunStateError(f"run {run_id!r} is {state.run.status}: only one that failed can be retried", run_id=run_id)
    now = clock.now()
    opened = await store.reopen(
        run_id,
        sequence=state.sequence + 1,
        events=[_retried(state, now)],
        retry_count=state.run.retry_count + 1,
        now=now,
    )
    if not opened:
        raise RunStateError(f"run {run_id!r} was retried by somebody else in this moment", run_id=run_id)
    await dispatcher.dispatch(Advance(run_id=run_id))


def _retried(state: RunState, now: datetime) -> RunRetried:
    started, last = state.history[0], state.history[-1]
    assert isinstance(started, RunStarted)
    failed = last if isinstance(last, RunFailed) else None
    began = max(event.at for event in state.history if event is started or isinstance(event, RunForked))
    allowed = None if started.deadline is None else started.deadline - began
    return RunRetried(
        at=now,
        failed_at=last.at,
        due=max(now, last.at),
        automatic=False,
        error=None if failed is None else failed.error,
        forgotten=() if failed is None else failed.failed,
        undone=() if failed is None else failed.undone,
        position=None if failed is None else failed.position,
        deadline=None if allowed is None else now + allowed,
    )


async def fork(
    store: Store,
    dispatcher: Dispatcher,
    registry: Registry,
    run_id: str,
    at_event: int,
    input_data: Any,
    *,
    clock: Clock,
    codec: Codec,
    token: str | None = None,
) -> str:
    """Start a new run that has lived through the first `at_event` events of another (as `event_id` counts them), with
    its input unless another is given. Returns its run_id.

    - token: hexadecimal digits that make the run_id; the same fork with the same one is that very run.
    - Raises RunNotFoundError, InvalidInputError, UnknownWorkflowError, PayloadTooLargeError, and RunExistsError when
      the token is another run's.
    """
    state = await _load(store, run_id)
    origin = state.run
    if not 1 <= at_event <= len(state.history):
        raise InvalidInputError(f"at_event: run {run_id!r} has the events 1 to {len(state.history)}, not {at_event}")
    definition = registry.workflow(origin.name, origin.version)
    now = clock.now()
    started = state.history[0]
    assert isinstance(started, RunStarted)
    text = started.input if input_data is None else codec.encode(definition.validate(input_data))
    new_id = f"{origin.name}_{token or fresh_id(12)}"
    opening = replace(
        started,
        input=text,
        fingerprint=definition.fingerprint,
        parent_run_id=None,
        parent_message=None,
        deadline=None if definition.timeout is None else now + timedelta(seconds=definition.timeout),
        seed=started.seed or f"{run_id}/{origin.generation}",
        seen=(),
    )
    copied = _copied(state.history[:at_event])
    events: list[Event] = [opening, *copied, RunForked(at=now, from_run_id=run_id, at_event=at_event)]
    run = Run(
        run_id=new_id,
        workflow_id=origin.workflow_id,
        name=origin.name,
        version=origin.version,
        input=text,
        created_at=max(now, started.at),
        wake_at=now,
        retry_count=sum(isinstance(event, RunRetried) for event in copied),
        attributes=origin.attributes,
    )
    if not await store.create(run, events) and not await _is_fork(store, new_id, events[-1], text):
        raise RunExistsError(f"run_id {new_id!r} is taken", run_id=new_id)
    await dispatcher.dispatch(Advance(run_id=new_id))
    return new_id


async def _is_fork(store: Store, run_id: str, forked: Event, text: str) -> bool:
    """Whether that run was made by the very same fork."""
    assert isinstance(forked, RunForked)
    found = await store.load(run_id)
    return (
        found is not None
        and found.run.input == text
        and any(
            isinstance(one, RunForked) and (one.from_run_id, one.at_event) == (forked.from_run_id, forked.at_event)
            for one in found.history
        )
    )


def _copied(prefix: Sequence[Event]) -> list[Event]:
    """What of it holds for another run as well: no ends, no holders, nothing that only the old one waits for."""
    events = effective(prefix)
    done = {event.id for event in events if isinstance(event, ActivityEvent) and not isinstance(event, _UNDER_WAY)}
    answered = {event.message_id for event in events if isinstance(event, UpdateCompleted)}
    kept: list[Event] = []
    for event in prefix[1:]:  # with what is void: the retries that made it so are copied, too
        match event:
            case LeaseTaken() | RunSuspended() | RunResumed() | UpdateRejected():
                continue
            case ActivityScheduled() | ActivityHeartbeat():
                continue
            case ActivityStarted(id=command_id) if command_id not in done:
                continue
            case UpdateAccepted(message_id=message_id) if message_id not in answered:
                pass  # carried out again: nobody waits for the answer, but the workflow may
            case RunRetried():  # the time that it gave is the old one's
                kept.append(replace(event, deadline=None))
                continue
            case _ if isinstance(event, CLOSING):
                continue
        kept.append(event)
    return kept


_UNDER_WAY = (ActivityScheduled, ActivityStarted)


async def forget_old(store: Store, *, before: datetime, workflow_name: str | None = None) -> int:
    """Purge every run that ended before that moment. Returns how many there were.

    It reads the ended runs that were started before it, a page at a time.
    """
    count = 0
    for status in sorted(CLOSED_STATUSES):
        query = RunQuery(status=status, name=workflow_name, started_before=before, limit=100)
        while True:
            page = await store.list(query)
            for run in page.items:
                if run.closed_at is not None and run.closed_at < before:
                    await store.purge(run.run_id)
                    count += 1
            if page.next_cursor is None:
                break
            query = replace(query, cursor=page.next_cursor)
    return count


async def _load(store: Store, run_id: str) -> RunState:
    state = await store.load(run_id)
    if state is None:
        raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
    return state
