"""Timers, signals and approvals: waiting without a process, and waking for the right thing once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.scenarios.conftest import Ways
from tinyworkflow_core import RunClosedError, RunNotFoundError, WorkflowContext, activity, workflow
from tinyworkflow_core.errors import ApprovalClosedError, ApprovalConflictError, ApprovalNotFoundError
from tinyworkflow_core.testing import START, WorkflowEnvironment

LOG: list[Any] = []


@activity
async def note(what: str) -> str:
    LOG.append(what)
    return what


# --- timers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [timedelta(hours=1), timedelta(days=30)])
async def test_a_sleeping_run_needs_nobody_and_wakes_on_time(ways: Ways, length: timedelta) -> None:
    @workflow
    async def sleeper(ctx: WorkflowContext) -> str:
        await asyncio.sleep(length.total_seconds())
        return (ctx.now() - START).total_seconds().__str__()

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(sleeper)
        await env.run()
        assert not any(process.app._advancer._held for process in env._processes)
        writes = env.writes
        await env.advance(length - timedelta(seconds=1))
        assert (await env.status(run_id)).status == "waiting"
        if env.plain:
            assert env.writes == writes
        await env.advance("1s")
        assert (await env.status(run_id)).output_data == {"result": str(length.total_seconds())}

    await ways(scenario, sleeper)


async def test_a_sleeping_run_survives_the_loss_of_every_process_and_wake_up() -> None:
    @workflow
    async def sleeper(ctx: WorkflowContext) -> str:
        await ctx.sleep("1h")
        return await ctx.execute_activity(note, "woken")

    LOG.clear()
    async with WorkflowEnvironment([sleeper]) as env:
        run_id = await env.start(sleeper)
        await env.run()
        env.lose_everything()
        await env.advance("1h")
        assert (await env.status(run_id)).output_data == {"result": "woken"}
        assert LOG == ["woken"]


async def test_parallel_timers_wake_the_run_at_each_of_their_times(ways: Ways) -> None:
    @workflow
    async def two(ctx: WorkflowContext) -> list[float]:
        times: list[float] = []

        async def nap(seconds: float) -> None:
            await asyncio.sleep(seconds)
            times.append((ctx.now() - START).total_seconds())
            await ctx.execute_activity(note, f"after {seconds:g}")

        await asyncio.gather(nap(8), nap(2))
        return times

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(two)
        await env.advance(7)
        assert LOG == ["after 2"]
        assert await env.result(run_id) == [2, 8]

    await ways(scenario, two)


@workflow
async def race(ctx: WorkflowContext) -> str:
    nap = asyncio.create_task(asyncio.sleep(60, "timer"))
    signal = asyncio.create_task(ctx.wait_for_signal("go"))
    done, pending = await asyncio.wait([nap, signal], return_when=asyncio.FIRST_COMPLETED)
    for one in pending:
        one.cancel()
    first: str = next(iter(done)).result()
    await ctx.wait_for_signal("end")
    return first


async def test_the_loser_of_a_race_between_timer_and_signal_is_cancelled(ways: Ways) -> None:
    async def signal_wins(env: WorkflowEnvironment) -> None:
        run_id = await env.start(race)
        await env.advance(30)
        await env.signal(run_id, "go", "signal")
        await env.run()
        run = await env.store.get(run_id)
        assert run is not None
        assert run.wake_at is None  # the timer is gone
        await env.signal(run_id, "end")
        assert await env.result(run_id) == "signal"
        assert await env.events(run_id, "TimerFired") == []

    async def timer_wins(env: WorkflowEnvironment) -> None:
        run_id = await env.start(race)
        await env.advance(61)
        await env.signal(run_id, "end")
        assert await env.result(run_id) == "timer"

    await ways(signal_wins, race)
    await ways(timer_wins, race)


# --- signals -----------------------------------------------------------------------------------------


async def test_signals_are_kept_until_wanted_and_arrive_in_order_once_each(ways: Ways) -> None:
    @workflow
    async def collector(ctx: WorkflowContext) -> list[Any]:
        await asyncio.sleep(10)
        return [await ctx.wait_for_signal("item") for _ in range(12)]

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(collector)
        await env.signal(run_id, "item", "early")  # before the run has even begun
        for number in range(10):
            await env.advance(0.01)
            await env.signal(run_id, "item", number)
        await env.advance(0.01)
        await env.signal(run_id, "item", "twice", message_id="m1")
        await env.signal(run_id, "item", "twice", message_id="m1")
        await env.advance("1h")
        assert await env.result(run_id) == ["early", *range(10), "twice"]
        with pytest.raises(RunClosedError):
            await env.signal(run_id, "item")
        with pytest.raises(RunNotFoundError):
            await env.signal("nobody", "item")

    await ways(scenario, collector)


async def test_a_message_id_counts_once_even_after_it_was_taken_up(ways: Ways) -> None:
    @workflow
    async def two(ctx: WorkflowContext) -> list[Any]:
        return [await ctx.wait_for_signal("item"), await ctx.wait_for_signal("item")]

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(two)
        await env.signal(run_id, "item", 1, message_id="a")
        await env.run()
        await env.signal(run_id, "item", 1, message_id="a")
        await env.run()
        assert (await env.status(run_id)).status == "waiting"
        await env.signal(run_id, "item", 2, message_id="b")
        assert await env.result(run_id) == [1, 2]

    await ways(scenario, two)


async def test_a_signal_after_a_timeout_goes_to_the_next_wait(ways: Ways) -> None:
    @workflow
    async def patient(ctx: WorkflowContext) -> list[Any]:
        seen: list[Any] = []
        try:
            seen.append(await ctx.wait_for_signal("go", timeout="1m"))
        except TimeoutError:
            seen.append("timeout")
        seen.append(await ctx.wait_for_signal("go"))
        return seen

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(patient)
        await env.advance("2m")
        await env.signal(run_id, "go", "late")
        assert await env.result(run_id) == ["timeout", "late"]

    await ways(scenario, patient)


# --- approvals ---------------------------------------------------------------------------------------


@workflow
async def two_questions(ctx: WorkflowContext) -> list[Any]:
    await ctx.execute_activity(note, "prepared")
    first = await ctx.wait_for_approval("budget", title="Spend it?", details={"eur": 5}, approvers=["ann"])
    second = await ctx.wait_for_approval("legal")
    return [bool(first), first.by, first.comment, first.data, bool(second)]


async def test_each_question_needs_its_own_decision_and_a_rejection_is_falsy(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(two_questions)
        await env.run()
        run = await env.status(run_id)
        assert (run.status, [one.key for one in run.open_approvals]) == ("paused", ["budget"])
        with pytest.raises(ApprovalNotFoundError):
            await env.decide(run_id, "legal")
        await env.decide(run_id, "budget", by="ann", comment="fine", data={"limit": 3})
        await env.run()
        run = await env.status(run_id)
        assert (run.status, [one.key for one in run.open_approvals]) == ("paused", ["legal"])
        await env.decide(run_id, approved=False)
        assert await env.result(run_id) == [True, "ann", "fine", {"limit": 3}, False]
        decided = await env.events(run_id, "ApprovalDecided")
        assert [(one["key"], one["approved"], one.get("by")) for one in decided] == [
            ("budget", True, "ann"),
            ("legal", False, None),
        ]
        assert LOG == ["prepared"]

    await ways(scenario, two_questions)


async def test_an_unanswered_question_times_out_and_cannot_be_answered_late(ways: Ways) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(note, "before")
        try:
            await ctx.wait_for_approval("ok", timeout="1h")
        except TimeoutError:
            await ctx.wait_for_signal("end")
            return "nobody came"
        return "?"

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(asks)
        await env.advance("61m")
        assert (await env.status(run_id)).open_approvals == ()
        with pytest.raises(ApprovalClosedError):
            await env.decide(run_id, "ok")
        await env.signal(run_id, "end")
        assert await env.result(run_id) == "nobody came"
        with pytest.raises(ApprovalClosedError):
            await env.decide(run_id, "ok")
        assert LOG == ["before"]

    await ways(scenario, asks)


async def test_the_same_decision_twice_is_one_and_another_is_a_conflict(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(two_questions)
        await env.run()
        await env.decide(run_id, "budget", by="ann")
        await env.decide(run_id, "budget", by="ann")
        with pytest.raises(ApprovalConflictError):
            await env.decide(run_id, "budget", approved=False, by="ann")
        await env.run()
        await env.decide(run_id, "budget", by="ann")  # taken up meanwhile
        with pytest.raises(ApprovalConflictError):
            await env.decide(run_id, "budget", approved=False, by="ann")
        assert len(await env.events(run_id, "ApprovalDecided")) == 1

    await ways(scenario, two_questions)


async def test_of_ten_people_who_decide_at_once_one_decides(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(two_questions)
        await env.run()

        async def vote(number: int) -> bool:
            try:
                await env.decide(run_id, "budget", approved=number % 2 == 0, by="ann")
            except ApprovalConflictError:
                return False
            return True

        answers = await asyncio.gather(*(vote(number) for number in range(10)))
        await env.run()
        [decided] = await env.events(run_id, "ApprovalDecided")
        assert answers == [(number % 2 == 0) is decided["approved"] for number in range(10)]

    await ways(scenario, two_questions)


async def test_a_thousand_paused_runs_hold_nothing_and_do_not_slow_a_new_one() -> None:
    async with WorkflowEnvironment([two_questions]) as env:
        for _ in range(1000):
            await env.start(two_questions)
        await env.run()
        app = env._processes[0].app
        assert not app._advancer._held
        assert len([task for task in asyncio.all_tasks() if not task.done()]) == 1
        writes, hops = env.writes, sum(env.hops.values())
        run_id = await env.start(two_questions)
        await env.run()
        assert (await env.status(run_id)).status == "paused"
        # create, acquire, the step, the release: the thousand others were not touched.
        assert (env.writes - writes, sum(env.hops.values()) - hops) == (4, 1)
