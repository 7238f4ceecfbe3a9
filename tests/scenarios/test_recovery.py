"""Processes that die, wake-ups that come twice or never, clocks that are wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.scenarios.conftest import Ways
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import App, WorkflowContext, activity, workflow
from tinyworkflow_core.advance import Progress
from tinyworkflow_core.errors import WorkflowFailedError
from tinyworkflow_core.testing import START, VirtualClock, WorkflowEnvironment

RUNS: Counter[Any] = Counter()


@activity
async def step(number: int) -> int:
    RUNS[number] += 1
    return number


@workflow
async def hundred(ctx: WorkflowContext, count: int) -> int:
    total = 0
    for number in range(count):
        total += await ctx.execute_activity(step, number)
    return total


async def test_a_process_killed_inside_a_step_repeats_that_step_and_no_other(stores: StoreFactory) -> None:
    RUNS.clear()
    store = stores()

    async def deadly(number: int) -> int:
        RUNS[number] += 1
        if number == 50 and RUNS[50] == 1:
            env.kill()
        return number

    env = WorkflowEnvironment([hundred], store=store, activities={"step": deadly})
    run_id = await env.start(hundred, 100)
    assert await env.result(run_id) == sum(range(100))
    assert {number: 2 if number == 50 else 1 for number in range(100)} == RUNS
    assert [one["type"] for one in await env.events(run_id)].count("LeaseTaken") == 1
    await store.close()


async def test_a_run_that_kills_its_process_every_time_is_failed_and_harms_no_other(stores: StoreFactory) -> None:
    RUNS.clear()
    store = stores()

    async def poison(number: int) -> int:
        RUNS[number] += 1
        env.kill()
        return number

    env = WorkflowEnvironment([hundred], store=store, activities={"step": poison})
    run_id = await env.start(hundred, 1)
    with pytest.raises(WorkflowFailedError, match="died 6 times in a row"):
        await env.result(run_id)
    assert RUNS[0] == 6
    await store.close()


async def test_a_wake_up_that_comes_twice_at_once_is_worked_on_once(stores: StoreFactory) -> None:
    RUNS.clear()
    store = stores()
    release = asyncio.Event()

    async def held(number: int) -> int:
        RUNS[number] += 1
        await release.wait()
        return number

    clock = VirtualClock()
    one, other = (
        App(store, workflows=[hundred], dispatcher="none", clock=clock, replaced_activities={"step": held})
        for _ in range(2)
    )
    run_id = await one.client.start_workflow(hundred, 3)
    first, second = asyncio.create_task(one.advance(run_id)), asyncio.create_task(other.advance(run_id))
    done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    assert [call.result() for call in done] == [Progress.BUSY]
    release.set()
    assert {await first, await second} == {Progress.BUSY, Progress.CLOSED}
    assert Counter({0: 1, 1: 1, 2: 1}) == RUNS
    await store.close()


async def test_a_holder_that_lost_its_lease_is_refused_and_leaves_no_trace(stores: StoreFactory) -> None:
    RUNS.clear()
    store = stores()
    at_work, release = asyncio.Event(), asyncio.Event()

    async def held(number: int) -> int:
        at_work.set()
        await release.wait()
        return 1000

    clock = VirtualClock()
    slow = App(store, workflows=[hundred], dispatcher="none", clock=clock, replaced_activities={"step": held})
    run_id = await slow.client.start_workflow(hundred, 2)
    call = asyncio.create_task(slow.advance(run_id))
    await at_work.wait()
    clock.move_to(START + timedelta(seconds=31))  # the lease is over, and its holder does not know
    quick = App(store, workflows=[hundred], dispatcher="none", clock=clock)
    assert await quick.advance(run_id) is Progress.CLOSED
    before = await quick.client.get_workflow_events(run_id)
    release.set()
    assert await call is Progress.LOST
    assert await quick.client.get_workflow_events(run_id) == before
    assert await quick.client.get_result(run_id) == 1
    await store.close()


@workflow
async def rests(ctx: WorkflowContext) -> int:
    first: int = await ctx.execute_activity(step, 1)
    await asyncio.sleep(1800)
    return first + await ctx.execute_activity(step, 2)


async def test_the_tick_finds_a_run_whose_dispatch_was_lost(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        RUNS.clear()
        run_id = await env.start(rests)
        env.lose_everything()
        await env.run()
        assert (await env.status(run_id)).status == "waiting"
        env.lose_everything()
        await env.advance(1799)
        env.lose_everything()
        assert (await env.status(run_id)).status == "waiting"
        await env.advance(1)
        assert (await env.status(run_id)).output_data == {"result": 3}
        assert Counter({1: 1, 2: 1}) == RUNS

    await ways(scenario, rests)


class _Skewed:
    """Another machine's clock."""

    def __init__(self, clock: VirtualClock, by: timedelta) -> None:
        self._clock, self._by = clock, by

    def now(self) -> datetime:
        return self._clock.now() + self._by


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_wrong_by_an_hour_loses_nothing_and_does_nothing_twice(
    stores: StoreFactory, hours: int
) -> None:
    RUNS.clear()
    store = stores()
    clock = VirtualClock()
    right = App(store, workflows=[rests], dispatcher="none", clock=clock)
    wrong = App(store, workflows=[rests], dispatcher="none", clock=_Skewed(clock, timedelta(hours=hours)))
    run_id = await wrong.client.start_workflow(rests)
    apps = [wrong, right]
    for _ in range(20):
        for app in apps:
            for due in await app.store.due(now=app.clock.now(), limit=10):
                await app.advance(due)
        apps.reverse()
        clock.move_to(clock.now() + timedelta(minutes=10))
    assert await right.client.get_result(run_id) == 3
    assert Counter({1: 1, 2: 1}) == RUNS
    ends = [one["type"] for one in await right.client.get_workflow_events(run_id)]
    assert ends.count("RunCompleted") == ends.count("TimerFired") == 1
    await store.close()
