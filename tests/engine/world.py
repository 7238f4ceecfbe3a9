"""The world of a run, by chance: what happens to it, in which order and how much of it at once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.engine.history_builder import codec, stand
from tests.engine.owned_run import OwnedRun
from tests.engine.programs import SIGNALS, Program
from tinyworkflow_core.engine.commands import (
    ExecuteActivity,
    RequestApproval,
    RunSideEffect,
    SendMessage,
    StartChild,
    StartTimer,
)
from tinyworkflow_core.engine.history import (
    ActivityCancelled,
    ApprovalDecided,
    ApprovalRequested,
    Event,
    RunFailed,
    RunRetried,
    SideEffectRecorded,
    TimerFired,
)
from tinyworkflow_core.engine.journal import Pending
from tinyworkflow_core.engine.replay import Blocked
from tinyworkflow_core.errors import QueryError, RunExistsError

UPDATES: list[Program] = [
    ["activity", 7], ["book", 7], ["sleep", 2], ["signal", "a", None], ["tell"], ["then fail", ["chance"], "KeyError"],
    ["map", 3, 2, None, 0], ["patched", "u", ["activity", 1], ["activity", 2]], ["catch", ["child", 7, "cancel"]],
]  # fmt: skip


def live(run: OwnedRun, schedule: Sequence[int]) -> None:
    """The world goes on as the schedule says, until that or the run ends."""
    for choice in schedule:
        if isinstance(run.outcome, Blocked):
            run.later(choice % 4 - 1)  # clocks of other machines may be behind
            _happen(run, *divmod(choice // 3, 64))
            if run.has_ended and (choice // 7) % 2:
                run.retry()
        if not isinstance(run.outcome, Blocked) and not run.has_ended:
            run.end()
            _may_be_retried(run, choice)
        if run.has_ended:
            return


def _may_be_retried(run: OwnedRun, choice: int) -> None:
    retries = sum(isinstance(event, RunRetried) for event in run.history)
    if isinstance(run.history[-1], RunFailed) and choice % 4 and retries < 4:
        run.retry()


def _happen(run: OwnedRun, chance: int, kind: int) -> None:
    """One thing, or several in one commit."""
    if kind < 10:
        _from_outside(run, chance, kind)
    elif kind < 16:
        run.signal(SIGNALS[chance % 2], chance)
    elif kind < 20:
        run.happen(run.updated("follow", UPDATES[chance % len(UPDATES)]))
    elif kind == 20:
        run.happen(run.updated("say", chance))
    elif kind < 24:
        look(run)
    elif kind < 27 and run.execution.answers:
        run.happen(*run.answered())
        assert not run.execution.answers
    elif run.pending:
        run.happen(*_several(run, chance, 1 + kind % 3 % 2 * (chance % 3)))
    else:
        run.signal(SIGNALS[chance % 2], chance)


def _from_outside(run: OwnedRun, chance: int, kind: int) -> None:
    match kind:
        case 0 if run.execution.heeds_cancel:
            run.cancel("by chance")
        case 1:
            run.suspend_and_resume()
        case 2 | 3 if run.execution.deadline is not None:
            run.happen(run.timed_out())
        case 4 if chance % 4 == 0:
            run.terminate()
        case 5:
            run.taken_over()
        case _:
            run.let_go()


def look(run: OwnedRun) -> None:
    """A query, and one that does what it must not: neither changes anything."""
    before = stand(run.execution)
    json.loads(run.execution.query("said"))
    with pytest.raises(QueryError):
        run.execution.query("meddle")
    with pytest.raises(QueryError):
        run.execution.query("unknown")
    assert stand(run.execution) == before


def _several(run: OwnedRun, chance: int, count: int) -> list[Event]:
    events: list[Event] = []
    pending = run.pending
    for _ in range(min(count, len(pending))):
        chance, place = divmod(chance, len(pending))
        events.append(_answer(run, pending.pop(place), chance))
    for event in events:
        if isinstance(event, ApprovalRequested):
            return [event]  # it is recorded while nothing else happens
    if chance % 32 == 7 and run.execution.heeds_cancel:
        events.insert(chance // 32 % 3, run.cancel_requested("in the same moment"))
    return [*run.answered(), *events] if chance % 2 else events


def _answer(run: OwnedRun, pending: Pending, chance: int) -> Event:
    match pending.command:
        case ExecuteActivity() as activity:
            return _of_activity(run, activity, pending, chance)
        case StartTimer() as timer:
            assert pending.due is not None
            run.now = max(run.now, pending.due)
            return TimerFired(at=run.now, id=timer.id, due=timer.due)
        case RequestApproval() if not pending.recorded:  # nobody knows of it yet
            asked_for = run._asked_for(pending.command)
            assert asked_for is not None
            return asked_for
        case RequestApproval() as asked:
            return ApprovalDecided(
                at=run.now, id=asked.id, key=asked.key, message_id=run._message_id(), approved=bool(chance % 2)
            )
        case RunSideEffect() as effect if chance % 4 == 1:
            error = codec.failure(RuntimeError("by chance"))
            return SideEffectRecorded(at=run.now, id=effect.id, error=error)
        case RunSideEffect() as effect:
            return SideEffectRecorded(at=run.now, id=effect.id, result=codec.encode(effect.fn()))
        case StartChild() as child:
            return _of_child(run, child, pending, chance)
        case SendMessage() as message:
            return run.sent(message, reached=chance % 4 != 1)


def _of_activity(run: OwnedRun, activity: ExecuteActivity, pending: Pending, chance: int) -> Event:
    at_most_once = activity.activity.at_most_once
    if pending.withdrawn:
        if chance % 3:
            return ActivityCancelled(at=run.now, **activity.about())
        return run.completed(activity, activity.args[0])
    if at_most_once and not pending.begun:
        return run.begun(activity)
    if activity.activity.run_on == "queue" and pending.deadline is None and pending.retry_at is None:
        return run.handed_out(activity)
    match chance % 8:
        case 1 | 2 if chance % 3:
            return run.failed(activity, ValueError("by chance"))
        case 3 | 4 if not at_most_once:
            return run.failed(activity, ValueError("by chance"), retry_in=1)
        case 5 if chance % 3:
            return run.beaten(activity, chance)
        case _:
            return run.completed(activity, activity.args[0])


def _of_child(run: OwnedRun, child: StartChild, pending: Pending, chance: int) -> Event:
    if not pending.recorded:
        if chance % 6 == 1:
            return run.child_refused(child, RunExistsError("its run_id is taken", run_id=child.run_id))
        return run.child_started(child)
    match chance % 6:
        case 1:
            return run.child_ended(child, error=ValueError("by chance"))
        case 2:
            return run.child_ended(child, status="terminated")
        case 3:
            return run.child_ended(child, status="cancelled")
        case _ if pending.withdrawn:
            return run.child_ended(child, status="cancelled")
        case _:
            return run.child_ended(child, result=chance)
