"""Several steps at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.scenarios.conftest import Ways
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[Any] = []
GAUGE = {"now": 0, "most": 0}


@activity
async def square(number: int) -> int:
    GAUGE["now"] += 1
    GAUGE["most"] = max(GAUGE["most"], GAUGE["now"])
    try:
        await asyncio.sleep(0)
    finally:  # a crash may come in the middle of it
        GAUGE["now"] -= 1
    LOG.append(number)
    return number * number


@workflow
async def squares(ctx: WorkflowContext, count: int) -> list[int]:
    return await ctx.execute_parallel(*((square, (number,)) for number in range(count)))


@pytest.mark.parametrize("count", [0, 1, 20])
async def test_results_come_in_argument_order_under_one_group(ways: Ways, count: int) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        GAUGE.update(now=0, most=0)
        run_id = await env.start(squares, count)
        assert await env.result(run_id) == [number * number for number in range(count)]
        completed = await env.events(run_id, "ActivityCompleted")
        assert len(completed) == count
        assert {one["group"] for one in completed} == ({1} if count else set())
        assert GAUGE["most"] <= 5
        if env.plain:
            assert sorted(LOG) == list(range(count))

    if count:
        await ways(scenario, squares, max_concurrent_activities=5)
    else:
        async with WorkflowEnvironment([squares]) as env:
            await scenario(env)


async def test_a_thousand_at_once_respect_the_cap(stores: Any) -> None:
    LOG.clear()
    GAUGE.update(now=0, most=0)
    store = stores()
    env = WorkflowEnvironment([squares], store=store, max_concurrent_activities=50)
    assert await env.result(await env.start(squares, 1000)) == [number * number for number in range(1000)]
    assert GAUGE["most"] == 50
    assert len(LOG) == 1000
    await store.close()


@activity(retry_policy=RetryPolicy(max_retries=0))
async def stumble() -> None:
    await asyncio.sleep(0.01)
    raise ValueError("stumbled")


@activity
async def endless(number: int) -> None:
    LOG.append(f"begun {number}")
    try:
        await asyncio.Event().wait()
    finally:
        LOG.append(f"ended {number}")


async def test_one_failure_cancels_the_others_and_is_raised_when_they_have_ended(ways: Ways) -> None:
    @workflow
    async def fragile(ctx: WorkflowContext) -> str:
        try:
            await ctx.execute_parallel((endless, (1,)), (stumble,), (endless, (2,)))
        except ValueError as error:
            return str(error)
        return "?"

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(fragile)
        assert await env.result(run_id) == "stumbled"
        begun = sorted(one for one in LOG if one.startswith("begun"))
        assert sorted(one.replace("ended", "begun") for one in LOG if one.startswith("ended")) == begun
        types = [one["type"] for one in await env.events(run_id) if one["type"].startswith("Activity")]
        assert types == ["ActivityFailed", "ActivityCancelled", "ActivityCancelled"]

    await ways(scenario, fragile)
