"""Rewind: what a retry makes void, from where on a run failed, and what its code asks for after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.activities import charge, echo, inc, undo
from tests.engine.history_builder import START, Begin, LiveRun, codec, started, stored
from tinyworkflow_core import RetryAfter, RetryPolicy
from tinyworkflow_core.engine.commands import StartChild
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.failing import next_delay
from tinyworkflow_core.engine.history import (
    ActivityCompleted,
    ActivityFailed,
    ChildEnded,
    ChildStarted,
    Event,
    LeaseTaken,
    RunFailed,
    RunForked,
    RunRetried,
    RunTimedOut,
    SignalReceived,
)
from tinyworkflow_core.engine.replay import Blocked, Cancelled, Execution, Failed
from tinyworkflow_core.engine.rewind import effective, times_redone, times_void
from tinyworkflow_core.registry import workflow
from tinyworkflow_core.serialization import Failure

FAILURE = Failure(type="ValueError", message="no")


def completed(number: int) -> Event:
    return ActivityCompleted(at=START, id=number, name="inc", digest="d", attempt=1, started_at=START, result="1")


def failed(number: int) -> Event:
    return ActivityFailed(at=START, id=number, name="inc", digest="d", attempt=1, started_at=START, error=FAILURE)


def retried(**about: Any) -> RunRetried:
    return RunRetried(at=START, failed_at=START, due=START, automatic=False, **about)


# --- void --------------------------------------------------------------------------------------------


def test_a_history_without_retries_is_what_it_is() -> None:
    history = [started(), completed(1), RunFailed(at=START, error=FAILURE)]
    assert effective(history) is history


def test_a_retry_makes_void_what_failed_what_came_after_and_the_end_and_nothing_else() -> None:
    kept: list[Event] = [started(), completed(1)]
    signal = SignalReceived(at=START, message_id="m", name="s", payload="1")
    taken = LeaseTaken(at=START, owner="a", previous_owner="b")
    void: list[Event] = [failed(2), completed(4), RunTimedOut(at=START), RunFailed(at=START, error=FAILURE)]
    retry = retried(forgotten=(2,), position=3)
    history = [*kept, void[0], signal, completed(3), *void[1:3], taken, void[3], retry, completed(2)]
    assert effective(history) == [*kept, signal, completed(3), taken, retry, completed(2)]


def test_each_retry_makes_void_only_what_came_before_it() -> None:
    first, second = retried(forgotten=(1,), position=1), retried(forgotten=(2,), position=2)
    history = [started(), failed(1), failed(3), first, completed(1), failed(2), completed(3), second, completed(2)]
    assert effective(history) == [started(), first, completed(1), second, completed(2)]


def test_a_step_is_another_one_when_it_was_undone_or_its_place_was_given_away_not_when_it_failed() -> None:
    history = [retried(forgotten=(1, 2), undone=(1,), position=3), retried(forgotten=(2,), position=2)]
    assert [times_void(history, step) for step in (1, 2, 3, 4)] == [1, 2, 1, 2]
    assert [times_redone(history, step) for step in (1, 2, 3, 4)] == [1, 0, 1, 2]


# --- from where on -----------------------------------------------------------------------------------


def outcome(run: LiveRun) -> Failed:
    assert isinstance(run.outcome, Failed), run.outcome
    return run.outcome


def retry(run: LiveRun, *, after: float = 0, automatic: bool = False) -> LiveRun:
    """The run is retried `after` so many seconds, and read anew."""
    ended, failed_at = outcome(run), run.now
    run.later(after)
    if not automatic:
        run.history.append(
            RunFailed(
                at=failed_at, error=ended.error, failed=ended.failed, undone=ended.undone, position=ended.position
            )
        )
    run.history.append(
        RunRetried(
            at=run.now,
            failed_at=failed_at,
            due=run.now,
            automatic=automatic,
            forgotten=ended.failed,
            undone=ended.undone,
            position=ended.position,
        )
    )
    run.execution.close()
    run.execution = Execution(run.code, stored(run.history), facts=run.facts, codec=codec)
    run.check_replay()
    return run


def asked(run: LiveRun) -> list[Any]:
    """The arguments of the activities that are open."""
    return [one.args[0] for one in run.activities]


async def three(ctx: WorkflowContext) -> list[Any]:
    return [await ctx.execute_activity(echo, number) for number in (1, 2, 3)]


def test_a_failed_step_is_where_it_begins_and_all_that_is_done_again(begin: Begin) -> None:
    run = begin(three)
    run.complete(run.activities[0], 1)
    run.fail(run.activities[0], ValueError("no"))
    assert (outcome(run).failed, outcome(run).undone, outcome(run).position) == ((2,), (), 2)
    retry(run)
    assert asked(run) == [2]
    assert run.open(2).attempt == 0
    run.complete(run.activities[0], 2)
    assert run.complete(run.activities[0], 3).result == [1, 2, 3]


async def together(ctx: WorkflowContext) -> list[Any]:
    return list(await asyncio.gather(*(ctx.execute_activity(echo, number) for number in (1, 2, 3))))


def test_steps_that_fail_in_the_same_commit_are_all_done_again(begin: Begin) -> None:
    run = begin(together)
    one, two, three = run.activities
    run.happen(run.completed(one, 1), run.failed(two, ValueError("two")), run.failed(three, ValueError("three")))
    assert outcome(run).failed == (2, 3)
    assert asked(retry(run)) == [2, 3]


def test_a_withdrawn_step_that_failed_is_done_again_too(begin: Begin) -> None:
    async def grouped(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            for number in (1, 2, 3):
                group.create_task(ctx.execute_activity(echo, number))

    run = begin(grouped)
    one, two, three = run.activities
    run.fail(one, ValueError("no"))
    run.fail(two, RuntimeError("on its way out")).end_withdrawn(three)
    assert outcome(run).failed == (1, 2, 3)
    assert asked(retry(run)) == [1, 2, 3]


BUG: list[bool] = []


async def buggy_group(ctx: WorkflowContext) -> list[Any]:
    async def buggy() -> Any:
        result = await ctx.execute_activity(echo, "trigger")
        if BUG:
            raise KeyError("bug")
        return result

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(buggy())]
        tasks += [group.create_task(ctx.execute_activity(echo, number)) for number in (1, 2, 3)]
    return [one.result() for one in tasks]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2)])
def test_after_a_bug_siblings_that_did_not_complete_are_done_again_in_whatever_order_they_ended(
    begin: Begin, order: tuple[int, ...]
) -> None:
    BUG[:] = [True]
    run = begin(buggy_group)
    trigger, *siblings = run.activities
    run.complete(trigger, "trigger")
    for number in order:
        command = siblings[number - 1]
        if number == 1:
            run.complete(command, 1)  # although it was withdrawn
        elif number == 2:
            run.end_withdrawn(command)
        else:
            run.fail(command, RuntimeError("on its way out"))
    assert outcome(run).error.type == "ExceptionGroup"
    BUG.clear()
    assert asked(retry(run)) == [2, 3]
    for command in run.activities:
        run.complete(command, command.args[0])
    assert run.result == ["trigger", 1, 2, 3]


def test_after_a_bug_a_cancelled_sibling_is_done_again_whatever_came_in_between(begin: Begin) -> None:
    BUG[:] = [True]
    run = begin(buggy_group)
    trigger, one, two, three = run.activities
    run.complete(trigger, "trigger").end_withdrawn(one, two).signal("noise").complete(three, 3)
    assert outcome(run).failed == ()  # they could as well have been cancelled on purpose
    BUG.clear()
    assert asked(retry(run)) == [1, 2]


def test_a_step_that_was_withdrawn_on_purpose_stays_withdrawn_when_a_bug_ends_the_run_later(begin: Begin) -> None:
    async def limited(ctx: WorkflowContext) -> Any:
        try:
            async with asyncio.timeout(5):
                await ctx.execute_activity(echo, "slow")
        except TimeoutError:
            pass
        return await buggy(ctx)

    BUG[:] = [True]
    run = begin(limited)
    run.fire(run.timers[0]).end_withdrawn()
    run.complete(run.activities[0], 1)
    assert outcome(run).failed == ()
    BUG.clear()
    assert retry(run).result == 1


def test_a_step_that_was_withdrawn_on_purpose_long_before_stays_withdrawn(begin: Begin) -> None:
    async def limited(ctx: WorkflowContext) -> None:
        try:
            async with asyncio.timeout(5):
                await ctx.execute_activity(echo, "slow")
        except TimeoutError:
            pass
        await ctx.execute_activity(echo, "other")

    run = begin(limited)
    run.fire(run.timers[0]).end_withdrawn()
    run.fail(run.activities[0], ValueError("no"))
    assert outcome(run).failed == (3,)
    assert asked(retry(run)) == ["other"]


def test_a_step_whose_withdrawal_became_void_is_done_after_all(begin: Begin) -> None:
    async def watched(ctx: WorkflowContext) -> list[Any]:
        slow = asyncio.create_task(ctx.execute_activity(echo, "slow"))
        await ctx.execute_activity(echo.options(compensate=undo), "booked")
        await ctx.execute_activity(echo, "decides")
        if BUG:
            slow.cancel()
            await asyncio.wait([slow])
            await ctx.execute_activity(echo, "fails")
        return [await slow]

    BUG[:] = [True]
    run = begin(watched)
    for name in ("booked", "decides"):
        run.complete(next(one for one in run.activities if one.args == (name,)), name)
    run.end_withdrawn()
    run.fail(run.activities[0], ValueError("no"))
    run.complete(run.activities[0])  # the compensation
    BUG.clear()
    assert asked(retry(run)) == ["booked", "slow"]


# --- cleanup and handling ----------------------------------------------------------------------------


async def tidy(ctx: WorkflowContext) -> list[Any]:
    try:
        one = await ctx.execute_activity(echo, 1)
        if BUG:
            raise KeyError("bug")
        two = await ctx.execute_activity(echo, 2)
    finally:
        await ctx.execute_activity(undo, "all")
    return [one, two]


@pytest.mark.parametrize("cleanup_fails", [False, True])
def test_what_was_asked_for_in_handling_a_bug_is_void(begin: Begin, cleanup_fails: bool) -> None:
    BUG[:] = [True]
    run = begin(tidy)
    run.complete(run.activities[0], 1)
    if cleanup_fails:
        run.fail(run.activities[0], ValueError("no"))
    else:
        run.complete(run.activities[0])
    assert outcome(run).position == 1
    BUG.clear()
    assert asked(retry(run)) == [2]


def test_an_error_that_was_handled_does_not_count_once_another_follows(begin: Begin) -> None:
    async def falls_back(ctx: WorkflowContext) -> None:
        try:
            await ctx.execute_activity(echo, "preferred")
        except ValueError:
            await ctx.execute_activity(echo, "fallback")
        await ctx.execute_activity(echo, "last")

    run = begin(falls_back)
    run.fail(run.activities[0], ValueError("no"))
    run.complete(run.activities[0], 1)
    run.fail(run.activities[0], ValueError("no"))
    assert (outcome(run).failed, outcome(run).position) == ((3,), 3)
    assert asked(retry(run)) == ["last"]


def test_an_error_that_its_owner_is_handling_is_none_of_the_run(begin: Begin) -> None:
    BUG[:] = [True]
    try:
        raise OSError("the owner's own")
    except OSError:
        run = begin(buggy, always_replay=False)
        run.complete(run.activities[0], 1)
    assert (outcome(run).failed, outcome(run).position) == ((), 1)


async def buggy(ctx: WorkflowContext) -> Any:
    result = await ctx.execute_activity(echo, 1)
    if BUG:
        raise KeyError("bug")
    return result


def test_a_bug_alone_makes_nothing_void(begin: Begin) -> None:
    BUG[:] = [True]
    run = begin(buggy)
    run.complete(run.activities[0], 1)
    assert (outcome(run).failed, outcome(run).undone, outcome(run).position) == ((), (), 1)
    BUG.clear()
    assert retry(run).result == 1


# --- undone ------------------------------------------------------------------------------------------


async def trip(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(echo, "quote")
    await ctx.execute_activity(echo.options(compensate=undo), "hotel")
    await ctx.execute_activity(echo, "letter")
    await ctx.execute_activity(charge, 10)


@pytest.mark.parametrize("undo_succeeds", [True, False])
def test_a_run_begins_anew_at_the_first_step_that_was_undone(begin: Begin, undo_succeeds: bool) -> None:
    run = begin(trip)
    for name in ("quote", "hotel", "letter"):
        run.complete(run.activities[0], name)
    run.fail(run.activities[0], ValueError("no"))
    (compensation,) = run.activities
    assert compensation.args == ("hotel",)
    if undo_succeeds:
        run.complete(compensation)
        assert (outcome(run).failed, outcome(run).undone, outcome(run).position) == ((2,), (2,), 2)
        assert asked(retry(run)) == ["hotel"]
        assert [run.execution.journal.times_redone(step) for step in (1, 2, 3)] == [0, 1, 1]
    else:
        run.fail(compensation, ValueError("no"))
        assert (outcome(run).failed, outcome(run).undone, outcome(run).position) == ((4,), (), 4)
        assert asked(retry(run)) == [10]


def test_parallel_steps_that_were_undone_are_all_done_again(begin: Begin) -> None:
    async def books(ctx: WorkflowContext) -> None:
        book = echo.options(compensate=undo)
        await ctx.execute_parallel((book, (1,)), (book, (2,)), (echo, (3,)))
        await ctx.execute_activity(charge, 10)

    run = begin(books)
    for command in reversed(run.activities):
        run.complete(command, command.args[0])
    run.fail(run.activities[0], ValueError("no"))
    assert asked(run) == [1]  # the last to be done is the first to be undone
    run.complete(run.activities[0])
    run.complete(run.activities[0])
    assert outcome(run).undone == (1, 2)
    assert asked(retry(run)) == [1, 2]


# --- time, messages, children ------------------------------------------------------------------------


def test_what_waits_is_put_off_by_the_time_the_run_lay_failed(begin: Begin) -> None:
    async def hurried(ctx: WorkflowContext) -> None:
        async with asyncio.timeout(60):
            question = asyncio.create_task(ctx.wait_for_approval("boss", timeout=50))
            await ctx.execute_activity(echo, 1)
            await question

    run = begin(hurried)
    run.later(20).fail(run.activities[0], ValueError("no"))
    retry(run, after=1000)
    assert {run.open(one.id).due for one in run.timers} == {START + timedelta(seconds=s) for s in (1050, 1060)}
    assert [run.open(one.id).delay for one in run.approvals] == [timedelta(seconds=1000)]
    assert run.execution._loop.time() == (START + timedelta(seconds=1020)).timestamp()


def test_what_waits_is_put_off_by_the_time_before_a_fork(begin: Begin) -> None:
    async def naps(ctx: WorkflowContext) -> None:
        await ctx.sleep(60)

    run = begin(naps).later(20).let_go()
    run.later(1000).happen(RunForked(at=run.now, from_run_id="origin", at_event=2))
    assert [run.open(one.id).due for one in run.timers] == [START + timedelta(seconds=1060)]


def test_a_cancellation_that_came_after_the_end_had_begun_is_not_heeded(begin: Begin) -> None:
    BUG[:] = [True]
    run = begin(tidy_trip)
    run.complete(run.activities[0], "hotel")
    run.fail(run.activities[0], ValueError("no"))
    assert asked(run) == ["hotel"]
    assert not run.execution.heeds_cancel
    run.cancel("too late").complete(run.activities[0])
    assert outcome(run).error.message == "no"


async def tidy_trip(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(echo.options(compensate=undo), "hotel")
    await ctx.execute_activity(charge, 10)


def test_a_cancellation_does_not_interrupt_the_cleanup_of_a_run_whose_time_is_up(begin: Begin) -> None:
    async def rests(ctx: WorkflowContext) -> None:
        try:
            await ctx.sleep(1000)
        finally:
            await ctx.execute_activity(undo, "all")

    run = begin(rests)
    run.happen(RunTimedOut(at=run.now))
    assert not run.execution.heeds_cancel
    run.cancel()
    assert run.withdrawn == []
    run.complete(run.activities[0])
    assert outcome(run).error.type == "TimeoutError"


@workflow
async def kid(ctx: WorkflowContext, what: str) -> str:
    return what


def child_of(policy: Any) -> Callable[[WorkflowContext], Any]:
    async def parent(ctx: WorkflowContext) -> Any:
        handle = await ctx.start_child(kid, "x", on_parent_close=policy)
        await ctx.execute_activity(echo, 1)
        return [await handle.result(), handle.run_id]

    return parent


@pytest.mark.parametrize(
    ("policy", "automatic", "again"),
    [("cancel", False, True), ("terminate", False, True), ("abandon", False, False), ("cancel", True, False)],
)
def test_a_child_that_was_told_to_end_is_started_anew_and_one_that_went_on_is_not(
    begin: Begin, policy: Any, automatic: bool, again: bool
) -> None:
    run = begin(child_of(policy))
    (command,) = (one for one in run.commands if isinstance(one, StartChild))
    run.happen(ChildStarted(at=run.now, on_parent_close=policy, **command.about()))
    run.fail(run.activities[0], ValueError("no"))
    retry(run, automatic=automatic)
    child = run.open(command.id)
    assert isinstance(child.command, StartChild)
    assert child.recorded is not again
    assert child.command.run_id == command.run_id + (".retry-1" if again else "")
    if again:
        run.happen(ChildStarted(at=run.now, on_parent_close=policy, **child.command.about()))
    run.complete(run.activities[0], 1)
    run.happen(ChildEnded(at=run.now, status="completed", result='"x"', **child.command.about()))
    assert run.result == ["x", child.command.run_id]


def test_a_child_that_was_cancelled_by_the_failure_of_its_sibling_is_void(begin: Begin) -> None:
    async def parent(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.execute_child(kid, "x"))
            group.create_task(ctx.execute_activity(echo, 1))

    run = begin(parent)
    (command,) = (one for one in run.commands if isinstance(one, StartChild))
    run.happen(ChildStarted(at=run.now, on_parent_close="cancel", **command.about()))
    run.fail(run.activities[0], ValueError("no"))
    assert isinstance(run.outcome, Blocked)
    run.happen(ChildEnded(at=run.now, status="cancelled", **command.about()))
    assert outcome(run).failed == (1, 2)


def test_a_cancelled_run_is_no_failure(begin: Begin) -> None:
    assert begin(three).cancel().end_withdrawn().outcome == Cancelled(reason=None)


# --- the workflow's own policy -----------------------------------------------------------------------

POLICY = RetryPolicy(max_retries=2, initial_delay=10, backoff_multiplier=3, max_delay=25, jitter=False)


def test_the_delay_grows_with_the_retries_that_the_policy_made_since_somebody_asked_for_one() -> None:
    def delay(*automatic: bool) -> float | None:
        retries = [RunRetried(at=START, failed_at=START, due=START, automatic=one) for one in automatic]
        return next_delay(POLICY, ValueError("no"), retries, chance_of="run")

    assert [delay(), delay(True), delay(True, True)] == [10, 25, None]
    assert [delay(True, True, False), delay(True, True, False, True)] == [10, 25]
    assert delay(True, True, False, True, True) is None


def test_a_failure_that_says_when_is_retried_then_and_no_oftener() -> None:
    assert next_delay(POLICY, RetryAfter(900), [], chance_of="run") == 900
    again = [RunRetried(at=START, failed_at=START, due=START, automatic=True)] * 2
    assert next_delay(POLICY, RetryAfter(900), again, chance_of="run") is None


def test_jitter_is_the_same_in_every_replay_and_differs_from_run_to_run() -> None:
    policy = RetryPolicy(max_retries=2, initial_delay=10)
    delays = [next_delay(policy, ValueError("no"), [], chance_of=run) for run in ("a", "a", "b")]
    assert delays[0] == delays[1] != delays[2]


def test_a_result_that_cannot_be_stored_fails_the_run_where_it_would_have_ended(begin: Begin) -> None:
    async def unstorable(ctx: WorkflowContext) -> Any:
        await ctx.execute_activity(inc, 1)
        return object()

    run = begin(unstorable)
    run.complete(run.activities[0], 2)
    assert outcome(run).error.type == "SerializationError"
    assert outcome(run).position == 1
