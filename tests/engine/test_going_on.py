"""What the random programs have found once, each as the story in which it happened: after a retry or a fork a run goes
on from what its history says, whatever was void, whoever its children were."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from tests.engine.activities import book, echo, undo
from tests.engine.history_builder import picture
from tests.engine.owned_run import OwnedRun
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import RunFailed, RunRetried
from tinyworkflow_core.engine.replay import Failed
from tinyworkflow_core.registry import workflow
from tinyworkflow_core.retry import RetryPolicy


class Own(Protocol):
    def __call__(self, code: Any, **options: Any) -> OwnedRun: ...


@pytest.fixture
def own() -> Iterator[Own]:
    """Begins runs with their owner, and puts them away when the test ends."""
    with ExitStack() as stack:

        def begin(code: Any, **options: Any) -> OwnedRun:
            run = OwnedRun(code, **options)
            stack.callback(run.close)
            return run

        yield begin


async def parent(ctx: WorkflowContext) -> list[Any]:
    """Goes on beside its child, and fails with it."""
    handle = await ctx.start_child("other", 1)
    beside = await ctx.execute_activity(echo, "beside")
    return [beside, await handle.result(), handle.run_id]


def beside_its_child(own: Own) -> OwnedRun:
    run = own(parent)
    run.happen(run.child_started(run.children[0]))
    return run.complete(run.activities[0], "beside")


def test_a_child_that_failed_is_started_anew_and_what_was_done_beside_it_is_kept(own: Own) -> None:
    run = beside_its_child(own)
    run.happen(run.child_ended(run.children[0], error=ValueError("no"))).end().retry()
    (child,) = run.children
    assert (child.run_id, run.activities) == ("run-1.0.1.retry-1", [])
    run.happen(run.child_started(child))
    run.happen(run.child_ended(child, error=ValueError("no"))).end().retry()
    (child,) = run.children
    run.happen(run.child_started(child)).happen(run.child_ended(child, result="yes"))
    assert run.result == ["beside", "yes", child.run_id]


def test_a_child_that_was_cancelled_for_a_failure_beside_it_is_not_waited_for_when_the_run_is_retried(own: Own) -> None:
    async def gives_up(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(5):
                await ctx.execute_child("other", 1)
        except TimeoutError:
            pass
        return str(await ctx.execute_activity(echo, 1))

    run = own(gives_up)
    run.happen(run.child_started(run.children[0]))
    run.fire(run.timers[0])
    assert run.open(run.children[0].id).withdrawn
    run.terminate().retry()  # nobody will tell of the child's end any more
    run.complete(run.activities[0], "done")
    assert run.result == "done"


def test_a_fork_starts_a_child_of_its_own_where_the_other_run_has_begun_one(own: Own) -> None:
    run = beside_its_child(own)
    with run.forked(len(run.history), "run-2") as fork:
        (child,) = fork.children
        assert child.run_id == "run-2.0.1"
        fork.happen(fork.child_started(child)).happen(fork.child_ended(child, error=ValueError("no"))).end().retry()
        assert fork.children[0].run_id == "run-2.0.1.retry-1"
        fork.happen(fork.child_started(fork.children[0]))
        fork.happen(fork.child_ended(fork.children[0], result="yes"))
        assert fork.result == ["beside", "yes", "run-2.0.1.retry-1"]


def test_what_a_fork_has_sent_to_a_child_of_its_own_stays_sent_when_it_is_retried(own: Own) -> None:
    async def tells(ctx: WorkflowContext) -> None:
        handle = await ctx.start_child("other", 1)
        await ctx.wait_for_signal("go")
        await handle.signal("go")
        await handle.result()

    run = own(tells)
    run.happen(run.child_started(run.children[0]))
    with run.forked(len(run.history), "run-2") as fork:
        fork.signal("go")
        fork.happen(fork.sent(fork.messages[0]))
        fork.happen(fork.child_refused(fork.children[0], ValueError("no"))).end().retry()
        assert [one.run_id for one in fork.children] == ["run-2.0.1.retry-1"]


def test_what_the_length_and_the_time_were_before_a_failure_they_are_in_its_retry(own: Own) -> None:
    async def tells(ctx: WorkflowContext) -> None:
        async def fails() -> None:
            await ctx.execute_activity(echo, "fails")

        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.sleep(0)
            await ctx.execute_activity(echo, 1)
            await ctx.execute_activity(echo, ctx.history_length)
            await ctx.sleep(5)

    run = own(tells)
    failing, first = run.activities
    run.later(10).fail(failing, ValueError("not yet"), retry_in=1)
    run.later(-3).complete(first)  # by a machine whose clock is behind
    run.complete(run.activities[-1])
    run.let_go().later(5).fail(failing, ValueError("no"))
    run.end().retry()
    assert [one.args for one in run.activities] == [("fails",)]
    with run.forked(len(run.history), "run-2") as fork:
        assert picture(fork.outcome) == picture(run.outcome)


def test_a_step_whose_end_led_to_more_is_not_done_again_for_a_failure_elsewhere(own: Own) -> None:
    async def cleans_up(ctx: WorkflowContext) -> None:
        try:
            await asyncio.wait_for(ctx.execute_activity(echo, "limited"), 1)
        finally:
            await ctx.execute_activity(undo, "limited")

    async def late(ctx: WorkflowContext) -> None:
        async with asyncio.timeout(1):
            await ctx.execute_activity(echo, "late")

    async def both(ctx: WorkflowContext) -> None:
        await asyncio.gather(cleans_up(ctx), late(ctx))

    run = own(both)
    for timer in run.timers:
        run.fire(timer)
    limited, left = sorted(run.withdrawn, key=lambda one: one.args[0] != "limited")
    run.end_withdrawn(limited).let_go()
    assert [one.activity.name for one in run.activities] == [undo.name]
    run.end_withdrawn(left).end().retry()
    assert [one.activity.name for one in run.activities] == [undo.name]


async def fails_by_itself(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(book, "room")
    raise ValueError("no")


retried_twice = workflow(name="under_test", lint="off", retry_policy=RetryPolicy(max_retries=2, jitter=False))


def test_a_workflow_that_fails_by_itself_is_retried_as_often_as_its_policy_says_and_then_undone(own: Own) -> None:
    run = own(retried_twice(fails_by_itself))
    run.complete(run.activities[0], "room 7")
    assert [type(run.end().history[-1]) for _ in range(2)] == [RunRetried, RunRetried]
    assert run.activities[0].activity.name == "undo"
    run.complete(run.activities[0]).end()
    assert isinstance(run.history[-1], RunFailed)


def test_a_run_that_was_terminated_while_it_was_undone_goes_on_undoing_when_it_is_retried(own: Own) -> None:
    async def books_two(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(book, "room")
        await fails_by_itself(ctx)

    run = own(retried_twice(books_two))
    run.complete(run.activities[0], "room 6").complete(run.activities[0], "room 7")
    run.end().end().complete(run.activities[0])
    assert len(run.activities) == 1  # one is undone, one is left
    run.terminate().retry()  # and now its policy would allow two more
    assert [one.activity.name for one in run.activities] == [undo.name]
    run.complete(run.activities[0])
    assert isinstance(run.outcome, Failed)
    assert run.outcome.retry_after is None


def test_a_child_that_was_started_too_late_to_be_wanted_is_started_anew_with_what_was_cancelled_beside_it(
    own: Own,
) -> None:
    is_broken = True

    async def grouped(ctx: WorkflowContext) -> list[Any]:
        async def buggy() -> str:
            await ctx.execute_activity(echo, "quick")
            if is_broken:
                raise KeyError("bug")
            return "mended"

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ctx.execute_activity(echo, "slow")),
                group.create_task(ctx.execute_child("other", 1)),
                group.create_task(buggy()),
            ]
        return [one.result() for one in tasks]

    run = own(grouped)
    (child,), (slow, quick) = run.children, run.activities
    run.happen(run.completed(quick, "quick"), run.child_started(child))  # one commit: the first withdraws the second
    run.happen(run.child_ended(child, status="cancelled")).end_withdrawn(slow).end()
    is_broken = False
    run.retry()

    (child,) = run.children
    assert child.run_id == "run-1.0.2.retry-1"
    run.complete(run.activities[0], "slow")
    run.happen(run.child_started(child)).happen(run.child_ended(child, result="sibling"))
    assert run.result == ["slow", "sibling", "mended"]
