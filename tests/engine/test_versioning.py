"""Patches: an old run keeps its branch, a new one takes the new branch, and no replay changes its mind."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.activities import charge, echo, inc
from tests.engine.history_builder import FACTS, START, Begin, LiveRun, codec, replayed, started, stored
from tinyworkflow_core.engine.commands import ExecuteActivity
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import (
    ActivityScheduled,
    Event,
    PatchMarked,
    RunForked,
    SignalReceived,
)
from tinyworkflow_core.engine.replay import Blocked, Completed, Execution, Mismatch, Outcome


async def before(ctx: WorkflowContext) -> list[Any]:
    """As it was first deployed."""
    first = await ctx.execute_activity(inc, 1)
    second = await ctx.execute_activity(echo, "old")
    await ctx.sleep(60)
    return [first, second]


async def after(ctx: WorkflowContext) -> list[Any]:
    """The same with a change in the middle."""
    first = await ctx.execute_activity(inc, 1)
    if ctx.patched("change"):
        second = await ctx.execute_activity(charge, 5)
    else:
        second = await ctx.execute_activity(echo, "old")
    await ctx.sleep(60)
    return [first, second]


async def later(ctx: WorkflowContext) -> list[Any]:
    """The same once the old branch is gone."""
    first = await ctx.execute_activity(inc, 1)
    ctx.deprecate_patch("change")
    second = await ctx.execute_activity(charge, 5)
    await ctx.sleep(60)
    return [first, second]


async def at_last(ctx: WorkflowContext) -> list[Any]:
    """The same when no old run is left."""
    first = await ctx.execute_activity(inc, 1)
    second = await ctx.execute_activity(charge, 5)
    await ctx.sleep(60)
    return [first, second]


def to_the_end(run: LiveRun) -> LiveRun:
    """Answer whatever is asked, until the run has ended."""
    while isinstance(run.outcome, Blocked):
        if run.activities:
            run.complete(run.activities[0], run.activities[0].activity.name)
        else:
            run.later(60).fire(run.timers[0])
    return run


def next_activity(outcome: Outcome) -> str:
    assert isinstance(outcome, Blocked), outcome
    [command] = [one.command for one in outcome.pending if isinstance(one.command, ExecuteActivity)]
    return command.activity.name


def marks(history: list[Event]) -> list[str]:
    return [event.patch for event in history if isinstance(event, PatchMarked)]


# --- the two branches ------------------------------------------------------------------------------


def test_a_new_run_takes_the_new_branch_and_marks_it_before_what_it_asked_for(begin: Begin) -> None:
    run = to_the_end(begin(after))
    assert run.result == ["inc", "charge"]
    kinds = [type(event).__name__ for event in run.history]
    assert kinds[:4] == ["RunStarted", "ActivityCompleted", "PatchMarked", "ActivityCompleted"]
    assert marks(run.history) == ["change"]


def test_a_run_that_was_past_the_change_keeps_the_old_branch_to_its_end(begin: Begin) -> None:
    run = begin(before)
    run.complete(run.activities[0], 2).complete(run.activities[0], "old")
    for deployed in (after, before, after):
        assert isinstance(replayed(deployed, run.history), Blocked)
    run = to_the_end(run)
    assert isinstance(replayed(after, run.history), Completed)
    assert marks(run.history) == []


def test_a_run_that_is_recorded_to_stand_in_the_old_branch_keeps_it(begin: Begin) -> None:
    run = begin(before)
    run.complete(run.activities[0], 2).let_go()
    assert isinstance(run.history[-1], ActivityScheduled)
    assert next_activity(replayed(after, run.history)) == "echo"


def test_a_run_that_has_not_come_to_the_change_takes_the_new_branch(begin: Begin) -> None:
    run = begin(before).let_go()
    again = begin(after)
    again.happen(*run.history[1:])
    assert to_the_end(again).result == ["inc", "charge"]


@pytest.mark.parametrize("code", [after, before], ids=["new", "old"])
def test_every_cut_of_a_history_leads_the_changed_code_on(begin: Begin, code: Any) -> None:
    run = to_the_end(begin(code))
    for cut in range(1, len(run.history) + 1):
        outcome = replayed(after, run.history[:cut])
        assert not isinstance(outcome, Mismatch), (cut, outcome)
    assert isinstance(outcome, Completed)


def test_a_recorded_patch_fits_the_code_that_no_longer_asks_for_it(begin: Begin) -> None:
    run = to_the_end(begin(after))
    for cut in range(3, len(run.history) + 1):
        assert not isinstance(replayed(at_last, run.history[:cut]), Mismatch), cut


# --- asked more than once ----------------------------------------------------------------------------


async def asks_in_a_loop(ctx: WorkflowContext) -> list[Any]:
    answers = []
    for number in range(3):
        answers.append([ctx.patched("p"), ctx.patched("p"), ctx.patched(f"p{number}")])
        await ctx.execute_activity(inc, number)
    return answers


async def did_not_ask(ctx: WorkflowContext) -> list[Any]:
    for number in range(3):
        await ctx.execute_activity(inc, number)
    return []


def test_a_patch_that_is_asked_for_again_gives_the_same_answer_and_is_marked_once(begin: Begin) -> None:
    run = to_the_end(begin(asks_in_a_loop))
    assert run.result == [[True, True, True]] * 3
    assert marks(run.history) == ["p", "p0", "p1", "p2"]


def test_a_run_that_once_took_the_old_branch_takes_it_in_every_round(begin: Begin) -> None:
    old = begin(did_not_ask)
    old.complete(old.activities[0])
    run = begin(asks_in_a_loop)
    run.execution.close()
    run.history = list(old.history)
    run.execution = Execution(run.code, stored(run.history), facts=FACTS, codec=codec)
    to_the_end(run)
    assert run.result == [[False, False, False], [False, False, True], [False, False, True]]


def test_two_tasks_that_ask_at_once_get_one_answer(begin: Begin) -> None:
    async def two(ctx: WorkflowContext) -> list[Any]:
        async def one(number: int) -> Any:
            await ctx.execute_activity(inc, number)
            is_new = ctx.patched("p")
            return [is_new, await ctx.execute_activity(charge if is_new else echo, number)]

        return list(await asyncio.gather(one(1), one(2)))

    run = begin(two)
    first, second = run.activities
    run.complete(second).complete(first)
    for command in list(run.activities):
        run.complete(command, command.activity.name)
    assert run.result == [[True, "charge"], [True, "charge"]]
    assert marks(run.history) == ["p"]


def test_a_query_may_ask_for_a_patch_and_decides_nothing(begin: Begin) -> None:
    async def asked(ctx: WorkflowContext) -> bool:
        ctx.on_query("is new", lambda: ctx.patched("p"))
        await ctx.execute_activity(inc, 1)
        is_new = ctx.patched("p")
        await ctx.execute_activity(inc, 2)
        return is_new

    run = begin(asked)
    assert run.execution.query("is new") == "false"
    assert run.execution.take_patches() == []
    run.complete(run.activities[0])
    assert run.execution.query("is new") == "true"
    assert to_the_end(run).result is True


# --- what came before the code ran ------------------------------------------------------------------


async def greets(ctx: WorkflowContext) -> Any:
    is_new = ctx.patched("p")
    return [is_new, await ctx.wait_for_signal("go"), await ctx.wait_for_signal("go")]


def early_signal(number: int, *, seconds: float) -> SignalReceived:
    at = START + timedelta(seconds=seconds)
    return SignalReceived(at=at, message_id=f"signal/{number}", name="go", payload=codec.encode(number))


def test_signals_from_before_a_run_began_do_not_make_it_an_old_one() -> None:
    history = [started(), early_signal(1, seconds=-2), early_signal(2, seconds=-1)]
    outcome = replayed(greets, history)
    assert isinstance(outcome, Completed)
    assert codec.decode(outcome.output) == [True, 1, 2]


async def goes_on(ctx: WorkflowContext) -> Any:
    ctx.deprecate_patch("p")
    return await ctx.execute_activity(inc, 1)


def test_signals_from_before_a_run_began_do_not_park_it_once_the_old_branch_is_gone() -> None:
    history = [started(), early_signal(1, seconds=-2)]
    assert isinstance(replayed(goes_on, history), Blocked)


def test_a_new_run_whose_first_commit_holds_two_signals_is_new_when_it_is_replayed(begin: Begin) -> None:
    async def patient(ctx: WorkflowContext) -> Any:
        first = await ctx.wait_for_signal("go")
        is_new = ctx.patched("p")
        await ctx.execute_activity(charge if is_new else inc, first)
        return is_new

    run = begin(patient)
    run.history[0] = replace(started(), fingerprint=run.code.fingerprint)
    run.happen(run.signalled("go", 1), run.signalled("go", 2))
    assert next_activity(run.outcome) == "charge"
    assert next_activity(replayed(run.code, run.history)) == "charge"
    assert to_the_end(run).result is True


# --- the old branch is gone ---------------------------------------------------------------------------


def test_a_run_that_took_the_old_branch_is_parked_once_it_is_gone(begin: Begin) -> None:
    run = begin(before)
    run.complete(run.activities[0], 2).complete(run.activities[0], "old")
    outcome = replayed(later, run.history)
    assert isinstance(outcome, Mismatch)
    assert "'change'" in outcome.error.recorded
    lines, first = inspect.getsourcelines(later)
    [offset] = [i for i, text in enumerate(lines) if "deprecate_patch" in text]
    assert outcome.error.where == f"{__file__}:{first + offset}"
    assert isinstance(replayed(after, run.history), Blocked)  # nothing is lost by it


def test_a_run_that_took_the_new_branch_goes_on_when_the_old_one_is_gone(begin: Begin) -> None:
    run = to_the_end(begin(after))
    for cut in range(3, len(run.history) + 1):
        assert not isinstance(replayed(later, run.history[:cut]), Mismatch), cut


def test_a_run_that_never_met_the_old_branch_is_not_parked_by_its_own_replay(begin: Begin) -> None:
    run = to_the_end(begin(later))
    assert run.result == ["inc", "charge"]
    for cut in range(1, len(run.history) + 1):
        assert not isinstance(replayed(later, run.history[:cut]), Mismatch), cut
    assert isinstance(replayed(at_last, run.history), Completed)


def test_a_fork_keeps_the_branch_of_the_run_that_it_was_made_of(begin: Begin) -> None:
    for code, branch in ((after, "charge"), (before, "echo")):
        run = begin(code)
        run.complete(run.activities[0], 2).complete(run.activities[0], "x")
        history = [*run.history, RunForked(at=run.now, from_run_id="run-0", at_event=len(run.history))]
        assert isinstance(replayed(after, history), Blocked), branch
