"""Cancellation: a run learns of it wherever it is, cleans up once, and takes its children with it as they were told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.eventually import eventually
from tests.scenarios import faults
from tests.scenarios.conftest import Ways
from tests.scenarios.faults import BROKEN, LOG, begin, book, done, step
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import (
    App,
    RetryPolicy,
    RunClosedError,
    WorkflowCancelledError,
    WorkflowContext,
    activity,
    activity_context,
    workflow,
)
from tinyworkflow_core.store import GRACE
from tinyworkflow_core.testing import WorkflowEnvironment

WORLD: list[WorkflowEnvironment] = []
"""The environment of the scenario that runs, for activities that cancel their own run."""


@workflow
async def sleeper(ctx: WorkflowContext) -> str:
    try:
        await ctx.sleep("1h")
    finally:
        await ctx.execute_activity(step, "cleanup")
    return "rested"


async def ended(env: WorkflowEnvironment, run_id: str) -> str:
    """How the run stands once everything that is due has been done, and what was lost on the way has been found."""
    await env.run()
    if not env.plain:
        await env.advance(GRACE)
    return (await env.status(run_id)).status


async def test_a_sleeping_run_that_is_cancelled_cleans_up_once_and_at_once(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(sleeper)
        await env.run()
        await env.cancel(run_id, "rain")
        assert await ended(env, run_id) == "cancelled"
        assert await done(env, run_id) == ["cleanup"]
        [event] = await env.events(run_id, "RunCancelled")
        assert event["reason"] == "rain"
        with pytest.raises(WorkflowCancelledError):
            await env.result(run_id)
        if env.plain:
            assert LOG == ["cleanup"]

    await ways(scenario, sleeper)


async def test_a_second_cancellation_changes_nothing_and_a_later_one_finds_the_run_closed(ways: Ways) -> None:
    @activity(retry_policy=RetryPolicy(max_retries=2, initial_delay=60, jitter=False))
    async def patient(what: str) -> str:
        return faults.run_body(what)

    @workflow
    async def tidy(ctx: WorkflowContext) -> None:
        try:
            await ctx.sleep("1h")
        finally:
            await ctx.execute_activity(patient, "cleanup")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("cleanup")
        run_id = await env.start(tidy)
        await env.run()
        await env.cancel(run_id, "first")
        await env.cancel(run_id, "second")
        assert await ended(env, run_id) == "retrying"  # in the middle of its cleanup
        await env.cancel(run_id, "third")
        assert await ended(env, run_id) == "retrying"
        BROKEN.clear()
        await env.advance(60)
        assert await ended(env, run_id) == "cancelled"
        assert await done(env, run_id) == ["cleanup"]
        assert [one["reason"] for one in await env.events(run_id, "RunCancelled")] == ["first"]
        assert len(await env.events(run_id, "CancelRequested")) == 1
        with pytest.raises(RunClosedError):
            await env.client.cancel_workflow(run_id)

    await ways(scenario, tidy)


# --- inside a step -----------------------------------------------------------------------------------


@activity
async def cancels_its_own_run(how_it_ends: str) -> str:
    [env] = WORLD
    await env.cancel(activity_context().run_id)
    try:
        await env.run()
        await asyncio.sleep(0.5)  # only where a process died meanwhile, and nobody told this one
    except asyncio.CancelledError:
        LOG.append("told")
        if how_it_ends == "cancelled":
            raise
        if how_it_ends == "failed":
            raise RuntimeError("no") from None
    return "went through"


@workflow
async def busy(ctx: WorkflowContext, how_it_ends: str) -> str:
    try:
        return await ctx.execute_activity(cancels_its_own_run, how_it_ends)
    finally:
        await ctx.execute_activity(step, "cleanup")


@pytest.mark.parametrize("how_it_ends", ["cancelled", "failed", "completed"])
async def test_a_step_that_is_at_work_learns_of_it_and_however_it_ends_the_run_cleans_up_once(
    ways: Ways, how_it_ends: str
) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        WORLD[:] = [env]
        run_id = await env.start(busy, how_it_ends)
        assert await ended(env, run_id) == "cancelled"
        assert (await done(env, run_id))[-1:] == ["cleanup"]
        assert (await done(env, run_id)).count("cleanup") == 1
        if env.plain:
            assert LOG == ["told", "cleanup"]

    await ways(scenario, busy)


async def test_a_step_in_a_thread_finds_in_its_context_that_it_was_cancelled(stores: StoreFactory) -> None:
    begin()

    @activity
    def counts() -> int:
        LOG.append("begun")
        context, began = activity_context(), time.monotonic()
        while not context.cancelled and time.monotonic() - began < 20:
            time.sleep(0.01)
        LOG.append("told" if context.cancelled else "never told")
        return 1

    @workflow
    async def counting(ctx: WorkflowContext) -> None:
        try:
            await ctx.execute_activity(counts)
        finally:
            await ctx.execute_activity(step, "cleanup")

    app = App(stores(), workflows=[counting])
    run_id = await app.client.start_workflow(counting)
    await eventually(lambda: _is_in_log("begun"))
    await app.client.cancel_workflow(run_id)
    with pytest.raises(WorkflowCancelledError):
        await app.client.get_result(run_id, timeout=10)
    assert sorted(LOG) == ["begun", "cleanup", "told"]
    await app.close()


async def _is_in_log(what: str) -> bool:
    return what in LOG


# --- children ----------------------------------------------------------------------------------------


@workflow
async def parent(ctx: WorkflowContext) -> str:
    try:
        return str(await ctx.execute_child(sleeper, run_id="child"))
    finally:
        await ctx.execute_activity(step, "parent's cleanup")


async def test_a_cancellation_reaches_the_child_that_is_waited_for_and_waits_for_its_cleanup(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(parent)
        await env.run()
        await env.cancel(run_id)
        assert await ended(env, run_id) == "cancelled"
        assert (await env.status("child")).status == "cancelled"
        assert await done(env, "child") == ["cleanup"]
        assert await done(env, run_id) == ["parent's cleanup"]
        if env.plain:
            assert LOG == ["cleanup", "parent's cleanup"]

    await ways(scenario, parent, sleeper)


@pytest.mark.parametrize(
    ("policy", "ends", "cleaned"),
    [("cancel", "cancelled", ["cleanup"]), ("terminate", "terminated", []), ("abandon", "waiting", [])],
)
async def test_a_child_beside_follows_its_close_policy_when_its_parent_is_cancelled(
    ways: Ways, policy: Any, ends: str, cleaned: list[str]
) -> None:
    @workflow
    async def starts(ctx: WorkflowContext) -> None:
        await ctx.start_child(sleeper, run_id="child", on_parent_close=policy)
        await ctx.sleep("30m")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(starts)
        await env.run()
        await env.cancel(run_id)
        assert await ended(env, run_id) == "cancelled"
        assert (await env.status("child")).status == ends
        assert await done(env, "child") == cleaned

    await ways(scenario, starts, sleeper)


# --- runs that are not at work -----------------------------------------------------------------------


async def test_a_run_whose_start_is_still_to_come_is_cancelled_without_having_begun(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(sleeper, start_delay="1d")
        await env.run()
        await env.cancel(run_id)
        assert await ended(env, run_id) == "cancelled"
        assert LOG == []

    await embedded_ways(scenario, sleeper)


async def test_a_cancellation_of_a_suspended_run_waits_until_it_is_resumed(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(sleeper)
        await env.run()
        await env.suspend(run_id)
        await env.cancel(run_id)
        await env.advance("1d")
        assert await ended(env, run_id) == "suspended"
        await env.resume(run_id)
        assert await ended(env, run_id) == "cancelled"
        assert await done(env, run_id) == ["cleanup"]

    await embedded_ways(scenario, sleeper)


async def test_a_cancellation_of_a_parked_run_waits_for_code_that_fits_and_a_termination_does_not(
    stores: StoreFactory,
) -> None:
    begin()
    store = stores()
    with_code = WorkflowEnvironment([sleeper], store=store)
    run_ids = [await with_code.start(sleeper) for _ in range(2)]
    await with_code.run()
    without = WorkflowEnvironment([], store=store)
    for run_id in run_ids:
        await without.cancel(run_id)
        assert await ended(without, run_id) == "parked"
    await without.terminate(run_ids[0])
    assert await ended(without, run_ids[0]) == "terminated"
    assert await ended(without, run_ids[1]) == "parked"
    await with_code.resume(run_ids[1])
    assert await ended(with_code, run_ids[1]) == "cancelled"
    assert LOG == ["cleanup"]
    await store.close()


# --- what the workflow may do about it ---------------------------------------------------------------


async def test_a_run_may_refuse_or_take_its_time_and_later_failures_are_its_own(embedded_ways: Ways) -> None:
    @workflow
    async def gentle(ctx: WorkflowContext, how: str) -> str:
        try:
            await ctx.sleep("1h")
        except asyncio.CancelledError as error:
            if how == "fails":
                raise ValueError("cannot stop") from error
            if how == "takes a day":
                await ctx.sleep("1d")
                raise
            return f"stopped: {error}"
        return "rested"

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        ends = []
        for how in ("returns", "fails", "takes a day"):
            run_id = await env.start(gentle, how)
            await env.run()
            await env.cancel(run_id, "rain")
            ends.append(await ended(env, run_id))
        assert ends == ["completed", "failed", "waiting"]
        await env.advance("1d")
        assert await ended(env, run_id) == "cancelled"

    await embedded_ways(scenario, gentle)


async def test_time_that_is_up_ends_the_step_at_work_cleans_up_and_fails_the_run(
    stores: StoreFactory,
) -> None:
    begin()

    @activity
    async def endless() -> None:
        LOG.append("begun")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            LOG.append("told")
            raise

    @workflow(timeout=1)
    async def too_slow(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(book, "hotel")
        try:
            await ctx.execute_activity(endless)
        finally:
            await ctx.execute_activity(step, "cleanup")

    app = App(stores(), workflows=[too_slow])
    run_id = await app.client.start_workflow(too_slow)
    with pytest.raises(Exception, match="time is up") as raised:
        await app.client.get_result(run_id, timeout=20)
    assert isinstance(raised.value.__cause__, TimeoutError)
    assert LOG == ["hotel", "begun", "told", "cleanup", "un-hotel"]
    await app.close()
