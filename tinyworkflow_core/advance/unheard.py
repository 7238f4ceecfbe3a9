"""Unheard: what a call has to find out by itself, because no message says it: the ends of children that ended while the
run was closed, and attempts that the end of the call cuts off every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ..engine.commands import ExecuteActivity, StartChild
from ..engine.history import ActivityFailed, ActivityHeartbeat, Event, RunRetried
from ..engine.replay import Execution
from ..store import Run
from .outgoing import Ready, word_of_end, word_of_end_id
from .records import received
from .surroundings import Surroundings

_CUT_OFF_SHARE = 0.8
"""An attempt that was cut off after this share of the call's time would be cut off every time: it counts as failed."""


async def ends_missed(
    history: Sequence[Event], run: Run, execution: Execution, around: Surroundings, now: datetime
) -> list[Ready]:
    """The ends of children that ended while this run was closed: nobody could be told then."""
    if not any(isinstance(one, RunRetried) and not one.automatic for one in history):
        return []
    missed = []
    for pending in execution.journal.open.values():
        command = pending.command
        if not isinstance(command, StartChild) or not pending.started:
            continue
        child = await around.store.get(command.run_id)
        if child is None or not child.status.closed:
            continue
        message_id = word_of_end_id(run.generation, command)
        word = word_of_end(message_id, child.status, child.output, child.error, now, around)
        missed.append(Ready(received(word, now=now, generation=run.generation, journal=execution.journal)))
    return missed


def failed_by_deadline(
    execution: Execution,
    around: Surroundings,
    began: datetime,
    now: datetime,
    cut_off: Mapping[int, datetime | None],
    beats: Sequence[ActivityHeartbeat],
) -> list[Event]:
    """Attempts that had nearly all of the time of the call that `began` then, and were cut off all the same. `cut_off`
    says when each has started, `beats` what the last of them have told."""
    events: list[Event] = []
    told = {one.id: one.details for one in beats}
    for command_id, started_at in cut_off.items():
        pending = execution.journal.open.get(command_id)
        if started_at is None or pending is None or not isinstance(pending.command, ExecuteActivity):
            continue
        activity, attempt = pending.command.activity, pending.attempt + 1
        if activity.at_most_once or (now - started_at) < (now - began) * _CUT_OFF_SHARE:
            continue
        took = (now - started_at).total_seconds()
        error = TimeoutError(
            f"activity {activity.name!r} was cut off after {took:g} s: that is all a call may take here"
        )
        in_time = activity.is_in_time(now, pending.first_started_at or started_at)
        events.append(
            ActivityFailed(
                at=now,
                attempt=attempt,
                started_at=started_at,
                error=around.codec.failure(error),
                retry_at=now if attempt <= activity.retry_policy.max_retries and in_time else None,
                heartbeat=told.get(command_id, pending.heartbeat),
                **pending.command.about(),
            )
        )
    return events
