"""Cancellation arrives as asyncio.CancelledError, and the code may clean up before it ends."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.engine.activities import inc, undo
from tests.engine.history_builder import Begin, picture
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.replay import Blocked, Cancelled


async def nap(ctx: WorkflowContext) -> str:
    await ctx.sleep(100)
    return "rested"


async def one_step(ctx: WorkflowContext) -> int:
    return await ctx.execute_activity(inc, 1)


async def with_cleanup(ctx: WorkflowContext) -> str:
    try:
        await ctx.sleep(100)
    finally:
        await ctx.execute_activity(undo, "all")
    return "rested"


def test_a_run_that_sleeps_is_cancelled_at_once_and_leaves_no_timer(begin: Begin) -> None:
    run = begin(nap).let_go().cancel("no longer needed")
    assert run.outcome == Cancelled(reason="no longer needed")
    assert not run.execution.journal.open


def test_a_run_whose_activity_works_withdraws_it_and_ends_when_that_has_ended(begin: Begin) -> None:
    run = begin(one_step)
    (command,) = run.activities
    run.cancel()
    assert run.execution.journal.withdrawn == [command.id]
    assert run.withdrawn == [command]
    assert run.end_withdrawn().outcome == Cancelled(reason=None)


def test_an_activity_that_completes_although_it_was_withdrawn_ends_the_run_all_the_same(begin: Begin) -> None:
    run = begin(one_step)
    (command,) = run.activities
    assert run.cancel().complete(command, 2).outcome == Cancelled(reason=None)


def test_a_cancellation_right_after_the_result_still_cancels(begin: Begin) -> None:
    async def two_steps(ctx: WorkflowContext) -> int:
        return await ctx.execute_activity(inc, await ctx.execute_activity(inc, 1))

    run = begin(two_steps)
    run.happen(run.completed(run.activities[0], 2), run.cancel_requested())
    assert [one.args for one in run.withdrawn] == [(2,)]
    assert run.end_withdrawn().outcome == Cancelled(reason=None)


def test_a_cancellation_before_the_first_step_is_met_at_the_first_wait(begin: Begin) -> None:
    run = begin(nap, always_replay=True)
    assert run.cancel().outcome == Cancelled(reason=None)


def test_a_workflow_that_catches_the_cancellation_and_returns_is_completed(begin: Begin) -> None:
    async def gentle(ctx: WorkflowContext) -> str:
        try:
            await ctx.sleep(100)
        except asyncio.CancelledError as error:
            return f"stopped: {error}"
        return "rested"

    assert begin(gentle).cancel("weather").result == "stopped: weather"


def test_cleanup_may_run_activities_and_the_run_is_cancelled_after_them(begin: Begin) -> None:
    run = begin(with_cleanup).cancel("stop")
    (cleanup,) = run.activities
    assert cleanup.args == ("all",)
    assert run.complete(cleanup).outcome == Cancelled(reason="stop")


def test_a_cleanup_that_fails_fails_the_run(begin: Begin) -> None:
    run = begin(with_cleanup).cancel()
    run.fail(run.activities[0], ValueError("cannot undo"))
    assert run.error.message == "cannot undo"
    assert run.error.cause is not None
    assert run.error.cause.type == "CancelledError"


def test_a_second_request_does_not_interrupt_the_cleanup(begin: Begin) -> None:
    run = begin(with_cleanup).cancel("first").cancel("second").cancel("third")
    (cleanup,) = run.activities
    assert run.withdrawn == []
    assert set(run.execution.seen) == {"message-1", "message-2", "message-3"}
    assert run.complete(cleanup).outcome == Cancelled(reason="first")


def test_a_second_request_while_the_first_waits_for_an_activity_changes_nothing(begin: Begin) -> None:
    run = begin(one_step).cancel("first").cancel("second")
    assert run.execution.journal.withdrawn == [1]
    assert run.end_withdrawn().outcome == Cancelled(reason="first")


def test_a_run_that_ends_cancelled_although_nobody_asked_has_failed(begin: Begin) -> None:
    async def self_made(ctx: WorkflowContext) -> None:
        task = asyncio.create_task(asyncio.sleep(5))
        await asyncio.sleep(1)
        task.cancel()
        await task

    run = begin(self_made)
    run.fire(run.timers[0])
    assert (run.error.type, run.error.message) == ("CancelledError", "the workflow cancelled itself")


def test_all_tasks_of_a_group_are_cancelled_with_the_run(begin: Begin) -> None:
    async def grouped(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            for i in range(3):
                group.create_task(ctx.execute_activity(inc, i))

    run = begin(grouped).cancel()
    assert len(run.withdrawn) == 3
    assert run.end_withdrawn().outcome == Cancelled(reason=None)


def test_a_parallel_call_that_is_cancelled_waits_for_all_its_activities(begin: Begin) -> None:
    async def parallel(ctx: WorkflowContext) -> list[Any]:
        return await ctx.execute_parallel((inc, (1,)), (inc, (2,)))

    run = begin(parallel).cancel()
    first, second = run.withdrawn
    assert isinstance(run.end_withdrawn(first).outcome, Blocked)
    assert run.end_withdrawn(second).outcome == Cancelled(reason=None)


def test_a_parallel_call_that_is_cancelled_while_it_winds_up_a_failure_waits_all_the_same(begin: Begin) -> None:
    async def parallel(ctx: WorkflowContext) -> list[Any]:
        return await ctx.execute_parallel((inc, (1,)), (inc, (2,)))

    run = begin(parallel)
    run.fail(run.activities[0], ValueError("no")).cancel()
    assert len(run.withdrawn) == 1
    assert run.end_withdrawn().outcome == Cancelled(reason=None)


def test_a_cancellation_during_a_timeouts_withdrawal_is_not_taken_for_the_timeout(begin: Begin) -> None:
    async def limited(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(5):
                await ctx.execute_activity(inc, 1)
        except TimeoutError:
            return "late"
        return "in time"

    run = begin(limited)
    run.fire(run.timers[0]).cancel("stop")
    assert picture(run.end_withdrawn().outcome) == ["cancelled", "stop"]
