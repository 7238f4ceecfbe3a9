"""What a hostile look at retries, children, generations and forks has found: each test is a guarantee that once did
not hold."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from tests.scenarios.faults import AT_ONCE, BROKEN, LOG, FaultError, begin, done, step, undo
from tinyworkflow_core import App, RetryPolicy, WorkflowContext, WorkflowFailedError, activity, outbound, workflow
from tinyworkflow_core.dispatcher import Advance
from tinyworkflow_core.exchange import HttpResponse
from tinyworkflow_core.store import Store
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import WorkflowEnvironment, four_ways

LATE = RetryPolicy(max_retries=1, initial_delay=90, max_delay=90, jitter=False)


# --- children ------------------------------------------------------------------------------------------


@workflow
async def waits_to_be_told(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_signal("go")


@workflow
async def gives_up(ctx: WorkflowContext) -> list[str]:
    said: list[str] = []
    child = asyncio.ensure_future(ctx.execute_child(waits_to_be_told))
    await ctx.wait_for_signal("stop")
    child.cancel()
    try:
        await child
    except asyncio.CancelledError:
        said.append("child given up")
    await ctx.execute_activity(step, "after")
    await ctx.wait_for_signal("end")
    return said


async def test_a_child_that_is_withdrawn_in_the_very_commit_that_starts_it_is_told_and_the_run_replays_as_it_was() -> (
    None
):
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(gives_up)
        await env.signal(run_id, "stop")  # it is read in the call that starts the child
        await env.run()
        children = await env.client.list_workflow_executions(parent_run_id=run_id)
        assert {one.status for one in children} <= {"cancelled"}
        assert await done(env, run_id) == ["after"]  # it waited for no end of the child
        await env.signal(run_id, "end")
        assert await env.result(run_id) == ["child given up"]
        told = env.writes
        await env.advance(3600)
        assert env.writes == told

    await four_ways(scenario, [gives_up, waits_to_be_told])


async def test_a_child_that_was_told_to_end_is_told_once_though_its_parent_wakes_often() -> None:
    begin()
    async with WorkflowEnvironment([gives_up, waits_to_be_told]) as env:
        run_id = await env.start(gives_up)
        await env.signal(run_id, "stop")
        await env.run()
        assert [one["status"] for one in await env.events(run_id, "ChildEnded")] == ["cancelled"]
        writes, hops = env.writes, env.hops[run_id]
        await env.signal(run_id, "something else")
        await env.run()
        # Delivered, taken, recorded, let go.
        assert (env.writes - writes, env.hops[run_id] - hops) == (4, 1)


@workflow
async def sends_at_once(ctx: WorkflowContext) -> Any:
    name = f"{ctx.run_id}-child"
    child = asyncio.ensure_future(ctx.execute_child(waits_to_be_told, run_id=name))
    await asyncio.sleep(0)
    await ctx.signal_run(name, "go", 7)
    return await child


async def test_a_signal_reaches_a_child_that_the_same_write_starts() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        assert await env.result(await env.start(sends_at_once)) == 7

    await four_ways(scenario, [sends_at_once, waits_to_be_told])


# --- time --------------------------------------------------------------------------------------------


@activity(retry_policy=RetryPolicy(max_retries=3, initial_delay=100, max_delay=100, jitter=False))
async def undo_with_trouble(what: str) -> None:
    LOG.append(f"un-{what}")
    if "undoing" in BROKEN:
        BROKEN.clear()
        raise ValueError("not yet")


@activity(retry_policy=AT_ONCE, compensate=undo_with_trouble)
async def reserve(what: str) -> str:
    LOG.append(what)
    return what


@workflow(timeout=60, retry_policy=LATE)
async def short_of_time(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(reserve, "room")
    raise RuntimeError("no breakfast")


async def test_a_run_whose_time_runs_out_while_it_is_undone_is_not_retried_after_that() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("undoing")
        run_id = await env.start(short_of_time)
        with pytest.raises(WorkflowFailedError) as raised:
            await env.result(run_id)
        assert isinstance(raised.value.__cause__, RuntimeError)
        assert await env.events(run_id, "RunRetried") == []
        if env.plain:
            assert LOG == ["room", "un-room", "un-room"]

    await four_ways(scenario, [short_of_time])


@workflow(timeout=100)
async def two_generations(ctx: WorkflowContext, generation: int) -> str:
    await ctx.execute_activity(step, "work")
    if generation == 0:
        ctx.continue_as_new(1)
    await ctx.sleep(10)
    return "done"


async def test_the_time_that_a_retry_gives_anew_goes_with_the_run_into_its_next_generation() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("work")
        run_id = await env.start(two_generations, 0)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        await env.advance(500)
        begin()
        await env.retry(run_id)
        assert await env.result(run_id) == "done"

    await four_ways(scenario, [two_generations])


async def test_a_fork_of_a_run_that_was_retried_has_a_time_of_its_own() -> None:
    begin("work")
    async with WorkflowEnvironment([two_generations]) as env:
        run_id = await env.start(two_generations, 1)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        begin()
        await env.retry(run_id)
        assert await env.result(run_id) == "done"
        at_event = [one["type"] for one in await env.events(run_id)].index("ActivityCompleted") + 1
        await env.advance(500)
        fork = await env.fork(run_id, at_event)
        assert await env.result(fork) == "done"


# --- idempotency keys ----------------------------------------------------------------------------------


def _says_so(method: str, url: str, *, headers: dict[str, str], **about: Any) -> HttpResponse:
    LOG.append(f"{url} {headers['idempotency-key'].partition('/')[2]}")
    return HttpResponse(status=200, url=url)


@workflow
async def calls_out(ctx: WorkflowContext) -> None:
    await ctx.call_http("POST", "https://shop.test/order")
    try:
        await ctx.execute_activity(step, "work")
    except FaultError:
        await ctx.call_http("POST", "https://shop.test/alert")
        raise
    await ctx.call_http("POST", "https://shop.test/charge")


async def test_two_requests_never_have_one_idempotency_key_though_a_retry_gives_one_the_place_of_the_other() -> None:
    begin("work")
    async with WorkflowEnvironment([calls_out], activities={outbound.send: _says_so}) as env:
        run_id = await env.start(calls_out)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        begin()
        await env.retry(run_id)
        await env.result(run_id)
        assert LOG == ["work", "https://shop.test/charge 0/http-2/again-1"]


@workflow
async def pays(ctx: WorkflowContext) -> None:
    await ctx.call_http("POST", "https://shop.test/charge")
    ctx.add_compensation(undo, "charge")
    await ctx.execute_activity(step, "work")


async def test_a_request_that_was_undone_and_is_made_anew_has_another_key() -> None:
    begin("work")
    async with WorkflowEnvironment([pays], activities={outbound.send: _says_so}) as env:
        run_id = await env.start(pays)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        begin()
        await env.retry(run_id)
        await env.result(run_id)
        assert LOG == ["https://shop.test/charge 0/http-1/again-1", "work"]


# --- wake-ups ------------------------------------------------------------------------------------------


@activity(retry_policy=AT_ONCE)
async def fails_once_then_waits() -> None:
    LOG.append("called")
    if len(LOG) == 1:
        await APPS[0].client.send_signal("run", "early")
        raise ValueError("the first one fails")
    await asyncio.Event().wait()


APPS: list[App] = []


@workflow(retry_policy=RetryPolicy(max_retries=1, initial_delay=0, jitter=False))
async def is_called_for(ctx: WorkflowContext) -> Any:
    working = asyncio.ensure_future(ctx.execute_activity(fails_once_then_waits))
    told = asyncio.ensure_future(ctx.wait_for_signal("go"))
    await asyncio.wait([working, told], return_when=asyncio.FIRST_COMPLETED)
    return await (working if working.done() else told)


async def test_a_call_that_goes_on_with_the_retry_of_its_run_hears_of_messages_at_once() -> None:
    async def is_at_work() -> bool:
        return len(LOG) == 2

    begin()
    app = App("sqlite:///:memory:", workflows=[is_called_for], dispatcher="none")
    APPS[:] = [app]
    await app.client.start_workflow(is_called_for, run_id="run")
    call = asyncio.create_task(app.carry_out(Advance(run_id="run")))
    try:
        await eventually(is_at_work)
        await app.client.send_signal("run", "go", 5)
        await app.carry_out(Advance(run_id="run"))
        assert await app.client.get_result("run", timeout=3) == 5
    finally:
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await app.close()


# --- what does not fit into one document --------------------------------------------------------------


@workflow
async def answers(ctx: WorkflowContext) -> int:
    return 42


@workflow
async def patched_parent(ctx: WorkflowContext) -> int:
    assert ctx.patched("new")
    child = asyncio.ensure_future(ctx.execute_child(answers))
    for _ in range(2):
        await ctx.wait_for_signal("data")
    return int(await child)


def _narrow_store() -> Store:
    store = open_store("sqlite:///:memory:")
    store.max_event_bytes = 3000
    return store


async def test_a_child_stands_in_the_history_from_the_write_on_that_starts_it_however_full_the_document_is() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(patched_parent)
        await env.signal(run_id, "data", "x" * 900)
        await env.signal(run_id, "data", "x" * 800)
        assert await env.result(run_id) == 42

    await four_ways(scenario, [patched_parent, answers], open_store=_narrow_store)


# --- updates -------------------------------------------------------------------------------------------


@workflow
async def is_updated(ctx: WorkflowContext) -> str:
    ctx.on_update("double", lambda number: 2 * number)
    return str(await ctx.wait_for_signal("end"))


async def test_an_update_is_answered_once_though_the_run_ends_in_the_very_commit_that_holds_the_answer() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(is_updated)
        await env.run()
        for number in (1, 2):
            with contextlib.suppress(TimeoutError):
                await env._observer().update_workflow(run_id, "double", number, update_id=f"{number}", timeout=0)
        env.clock.move_to(env.clock.now() + timedelta(seconds=1))  # the updates come before the signal
        await env.signal(run_id, "end", "over")
        assert await env.result(run_id) == "over"
        answered = [one["message_id"] for one in await env.events(run_id, "UpdateCompleted")]
        assert sorted(answered) == ["update/1", "update/2"]
        assert await env._observer().update_workflow(run_id, "double", 1, update_id="1") == 2

    await four_ways(scenario, [is_updated])
