"""What operators do to runs: suspend and resume, terminate, fork, forget. Retries have scenarios of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.scenarios.conftest import embedded_ways, stores, ways
from tests.scenarios.faults import BROKEN, KEYS, LOG, begin, done, failure, run_body, step
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import RetryPolicy, RunClosedError, WorkflowContext, activity, activity_context, workflow
from tinyworkflow_core.errors import InvalidInputError, RunNotFoundError
from tinyworkflow_core.testing import WorkflowEnvironment

__all__ = ["embedded_ways", "stores", "ways"]  # fixtures

WORLD: list[WorkflowEnvironment] = []
"""The environment of the test that runs, for activities that act on their own run."""


@workflow
async def listens(ctx: WorkflowContext) -> list[Any]:
    await ctx.execute_activity(step, "first")
    said = await ctx.wait_for_signal("say")
    return [said, await ctx.execute_activity(step, "last")]


# --- suspend and resume ------------------------------------------------------------------------------


async def test_a_suspended_run_does_nothing_until_it_is_resumed_and_loses_nothing(ways: Any) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(listens)
        await env.run()
        await env.suspend(run_id, "night")
        await env.run()
        assert (await env.status(run_id)).status == "suspended"
        await env.signal(run_id, "say", "hello")
        await env.advance("1d")
        assert (await env.status(run_id)).status == "suspended"
        assert await done(env, run_id) == ["first"]
        await env.resume(run_id)
        assert await env.result(run_id) == ["hello", "last"]
        [event] = await env.events(run_id, "RunSuspended")
        assert event["reason"] == "night"

    await ways(scenario, listens)


@activity
async def suspends_its_own_run(what: str) -> str:
    [env] = WORLD
    if not LOG:
        LOG.append("suspending")
        await env.suspend(activity_context().run_id)
        await env.run()
    return run_body(what)


async def test_an_activity_at_work_comes_to_its_end_and_nothing_is_begun_after_it(ways: Any) -> None:
    @workflow
    async def two(ctx: WorkflowContext) -> list[Any]:
        first = await ctx.execute_activity(suspends_its_own_run, "first")
        return [first, await ctx.execute_activity(step, "last")]

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        WORLD[:] = [env]
        run_id = await env.start(two)
        await env.advance("1h")
        assert (await env.status(run_id)).status == "suspended"
        assert "last" not in LOG
        if env.plain:
            assert await done(env, run_id) == ["first"]
        await env.resume(run_id)
        assert await env.result(run_id) == ["first", "last"]
        if env.plain:
            assert LOG == ["suspending", "first", "last"]

    await ways(scenario, two)


async def test_a_run_that_is_suspended_before_its_delayed_start_begins_after_it_is_resumed(ways: Any) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        early, late = [await env.start(listens, start_delay="1h") for _ in range(2)]
        for run_id in (early, late):
            await env.suspend(run_id)
        await env.run()
        await env.resume(early)
        await env.advance(3599)
        assert (await env.status(early)).status == "pending"
        assert (await env.status(late)).status == "suspended"
        await env.advance("1d")
        assert (await env.status(early)).status == "waiting"
        assert (await env.status(late)).status == "suspended"
        assert await done(env, late) == []
        await env.resume(late)
        await env.run()
        assert (await env.status(late)).status == "waiting"

    await ways(scenario, listens)


async def test_a_run_that_is_suspended_while_it_waits_to_be_retried_is_retried_after_it_is_resumed(
    embedded_ways: Any,
) -> None:
    @workflow(retry_policy=RetryPolicy(max_retries=1, initial_delay=60, jitter=False))
    async def automatic(ctx: WorkflowContext) -> str:
        return await ctx.execute_activity(step, "first")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("first")
        run_id = await env.start(automatic)
        await env.run()
        await env.suspend(run_id)
        await env.advance("1d")
        assert (await env.status(run_id)).status == "suspended"
        BROKEN.clear()
        await env.resume(run_id)
        assert await env.result(run_id) == "first"
        assert (await env.status(run_id)).retry_count == 1

    await embedded_ways(scenario, automatic)


async def test_suspending_twice_is_undone_by_resuming_once_and_resuming_a_run_at_large_does_nothing(
    embedded_ways: Any,
) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(listens)
        await env.resume(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "waiting"
        await env.suspend(run_id)
        await env.suspend(run_id)
        await env.run()
        await env.suspend(run_id)
        await env.run()
        await env.resume(run_id)
        await env.signal(run_id, "say", "hello")
        assert await env.result(run_id) == ["hello", "last"]

    await embedded_ways(scenario, listens)


async def test_a_suspension_after_a_resumption_counts(embedded_ways: Any) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(listens)
        await env.run()
        await env.suspend(run_id)
        await env.run()
        await env.resume(run_id)
        await env.suspend(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "suspended"

    await embedded_ways(scenario, listens)


async def test_a_suspended_runs_question_can_be_decided_and_counts_when_it_is_resumed(embedded_ways: Any) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> str:
        answer = await ctx.wait_for_approval("boss", timeout="1h")
        return f"{answer.by} said {answer.approved}"

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(asks)
        await env.run()
        await env.suspend(run_id)
        await env.run()
        [question] = (await env.status(run_id)).open_approvals
        await env.decide(run_id, question.key, by="ada")
        await env.advance("1d")  # past the time of the question
        assert (await env.status(run_id)).status == "suspended"
        await env.resume(run_id)
        assert await env.result(run_id) == "ada said True"

    await embedded_ways(scenario, asks)


async def test_timers_run_on_while_a_run_is_suspended_and_fire_when_it_is_resumed(embedded_ways: Any) -> None:
    @workflow
    async def naps(ctx: WorkflowContext) -> str:
        await ctx.sleep("1h")
        return "rested"

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(naps)
        await env.run()
        await env.suspend(run_id)
        await env.advance("2h")
        await env.resume(run_id)
        await env.run()
        assert (await env.status(run_id)).output_data == {"result": "rested"}

    await embedded_ways(scenario, naps)


# --- terminate ---------------------------------------------------------------------------------------


async def test_a_terminated_run_ends_at_once_and_its_code_is_not_asked(ways: Any) -> None:
    @workflow
    async def tidy(ctx: WorkflowContext) -> None:
        try:
            await ctx.sleep("1h")
        finally:
            await ctx.execute_activity(step, "cleanup")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(tidy)
        await env.run()
        await env.terminate(run_id, "enough")
        await env.run()
        assert (await env.status(run_id)).status == "terminated"
        assert [one["reason"] for one in await env.events(run_id, "RunTerminated")] == ["enough"]
        assert LOG == []
        for verb in ("suspend_workflow", "resume_workflow", "terminate_workflow", "cancel_workflow"):
            with pytest.raises(RunClosedError):
                await getattr(env.client, verb)(run_id)

    await ways(scenario, tidy)


async def test_a_suspended_run_can_be_terminated(embedded_ways: Any) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(listens)
        await env.run()
        await env.suspend(run_id)
        await env.run()
        await env.terminate(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "terminated"

    await embedded_ways(scenario, listens)


# --- fork --------------------------------------------------------------------------------------------


@pytest.fixture
async def env() -> AsyncIterator[WorkflowEnvironment]:
    begin()
    async with WorkflowEnvironment([listens, chance, times_out, asks_boss, parent, kid, fails_last]) as environment:
        WORLD[:] = [environment]
        yield environment


async def forked(env: WorkflowEnvironment, run_id: str, kind: str, count: int = 1, input_data: Any = None) -> str:
    """A fork that has lived through the first `count` events of that kind."""
    places = [one["event_id"] for one in await env.events(run_id, kind)]
    return await env.fork(run_id, places[count - 1], input_data)


async def test_a_fork_goes_on_from_that_event_and_the_origin_is_left_alone(env: WorkflowEnvironment) -> None:
    run_id = await env.start(listens, workflow_id="order-1", attributes={"tier": "gold"})
    await env.run()
    await env.signal(run_id, "say", "one")
    await env.result(run_id)
    before = await env.events(run_id)
    fork = await forked(env, run_id, "ActivityCompleted")
    await env.signal(fork, "say", "two")
    assert await env.result(fork) == ["two", "last"]
    assert LOG == ["first", "last", "last"]
    assert len(set(KEYS["last"])) == 2
    run = await env.status(fork)
    assert (run.workflow_id, run.attributes, run.parent_run_id) == ("order-1", {"tier": "gold"}, None)
    assert await env.events(run_id) == before


async def test_a_fork_keeps_the_signals_of_its_part_of_the_history(env: WorkflowEnvironment) -> None:
    run_id = await env.start(listens)
    await env.signal(run_id, "say", "one")
    await env.result(run_id)
    fork = await forked(env, run_id, "SignalReceived")
    assert await env.result(fork) == ["one", "last"]


@workflow
async def chance(ctx: WorkflowContext, amount: int) -> list[Any]:
    drawn = [ctx.random().random(), str(ctx.uuid4())]
    paid = await ctx.execute_activity(pay, amount)
    return [*drawn, paid, str(ctx.uuid4()), await ctx.execute_activity(pay, amount)]


@activity
async def pay(amount: int) -> str:
    return f"paid {amount}"


async def test_a_fork_with_another_input_repeats_what_is_recorded_and_chance_with_it(env: WorkflowEnvironment) -> None:
    run_id = await env.start(chance, 10)
    origin = await env.result(run_id)
    fork = await forked(env, run_id, "ActivityCompleted", input_data=20)
    assert await env.result(fork) == [*origin[:4], "paid 20"]
    assert (await env.status(fork)).input_data == 20
    again = await forked(env, fork, "RunForked")
    assert await env.result(again) == [*origin[:4], "paid 20"]
    with pytest.raises(InvalidInputError):
        await env.fork(run_id, 2, "much")


@workflow
async def times_out(ctx: WorkflowContext) -> str:
    try:
        async with asyncio.timeout(3600):
            await ctx.execute_activity(step, "first")
            return str(await ctx.wait_for_signal("go"))
    except TimeoutError:
        return "late"


async def test_timers_of_a_fork_go_on_from_where_it_was_forked_off(env: WorkflowEnvironment) -> None:
    run_id = await env.start(times_out)
    assert await env.result(run_id) == "late"
    await env.advance("10d")
    fork = await forked(env, run_id, "TimerStarted")
    await env.advance(3599)
    assert (await env.status(fork)).status == "waiting"
    await env.advance(1)
    assert (await env.status(fork)).output_data == {"result": "late"}


@workflow
async def asks_boss(ctx: WorkflowContext) -> bool:
    return bool(await ctx.wait_for_approval("boss", timeout="1h"))


async def test_an_open_question_is_asked_anew_in_a_fork_and_one_that_was_decided_is_not(
    env: WorkflowEnvironment,
) -> None:
    run_id = await env.start(asks_boss)
    await env.run()
    await env.decide(run_id, "boss", approved=True)
    assert await env.result(run_id) is True
    await env.advance("1d")
    fork = await forked(env, run_id, "ApprovalRequested")
    await env.run()
    [question] = (await env.status(fork)).open_approvals
    assert question.expires_at == env.clock.now() + timedelta(hours=1)
    await env.decide(fork, "boss", approved=False)
    assert await env.result(fork) is False
    assert await env.result(await forked(env, run_id, "ApprovalDecided")) is True


@workflow
async def kid(ctx: WorkflowContext, what: str) -> str:
    return await ctx.execute_activity(step, what)


@workflow
async def parent(ctx: WorkflowContext) -> list[Any]:
    one = await ctx.execute_child(kid, "one")
    return [one, await ctx.execute_child(kid, "two"), await ctx.execute_activity(step, "last")]


async def test_children_that_ended_before_the_fork_are_not_run_again_and_others_are_its_own(
    env: WorkflowEnvironment,
) -> None:
    run_id = await env.start(parent)
    await env.result(run_id)
    fork = await forked(env, run_id, "ChildStarted", 2)  # the second child is at work then
    assert await env.result(fork) == ["one", "two", "last"]
    assert LOG == ["one", "two", "last", "two", "last"]
    children = await env.client.list_workflow_executions(parent_run_id=fork)
    assert [one.status for one in children] == ["completed"]


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=60, jitter=False))
async def patient(what: str) -> str:
    return run_body(what)


@workflow(timeout="1h")
async def fails_last(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(step, "first")
    return await ctx.execute_activity(patient, "last")


async def test_a_failed_run_can_be_forked_before_its_failure_and_the_fork_be_retried(env: WorkflowEnvironment) -> None:
    BROKEN.add("last")
    run_id = await env.start(fails_last)
    await failure(env, run_id)
    await env.advance("1d")
    fork = await forked(env, run_id, "ActivityFailed")  # after the first of its two attempts
    await failure(env, fork)
    assert [one["attempt"] for one in await env.events(fork, "ActivityFailed")] == [1, 2]
    await env.retry(fork)
    [retried] = await env.events(fork, "RunRetried")
    assert retried["deadline"] == (env.clock.now() + timedelta(hours=1)).isoformat()
    BROKEN.clear()
    assert await env.result(fork) == "last"
    assert LOG == ["first", "last", "last", "last", "last"]
    assert (await env.status(run_id)).status == "failed"


async def test_a_fork_of_a_retried_run_knows_nothing_of_what_the_retry_made_void(env: WorkflowEnvironment) -> None:
    BROKEN.add("last")
    run_id = await env.start(fails_last)
    await failure(env, run_id)
    BROKEN.clear()
    await env.retry(run_id)
    await env.result(run_id)
    fork = await forked(env, run_id, "RunRetried")
    assert await env.result(fork) == "last"
    assert LOG.count("first") == 1
    assert (await env.status(fork)).retry_count == 1


async def test_a_fork_needs_a_run_an_event_of_it_and_code(env: WorkflowEnvironment) -> None:
    run_id = await env.start(listens)
    await env.run()
    count = len(await env.events(run_id))
    for place in (0, -1, count + 1):
        with pytest.raises(InvalidInputError, match=f"has the events 1 to {count}"):
            await env.client.fork_workflow(run_id, place)
    with pytest.raises(RunNotFoundError):
        await env.client.fork_workflow("nobody", 1)


# --- forget ------------------------------------------------------------------------------------------


async def test_cleaning_up_forgets_the_runs_that_ended_before_and_no_other(stores: StoreFactory) -> None:
    begin()
    store = stores()
    env = WorkflowEnvironment([listens], store=store)
    old, cancelled, open_still, new = [await env.start(listens) for _ in range(4)]
    await env.signal(old, "say", "x")
    await env.cancel(cancelled)
    await env.advance("30d")
    await env.signal(new, "say", "x")
    await env.run()
    assert await env.client.cleanup_old_workflows(days=30) == 0  # not before: exactly then
    await env.advance("1d")
    assert await env.client.cleanup_old_workflows(days=30) == 2
    assert await env.client.cleanup_old_workflows(days=30) == 0
    for run_id in (old, cancelled):
        with pytest.raises(RunNotFoundError):
            await env.status(run_id)
    assert (await env.status(open_still)).status == "waiting"
    assert (await env.status(new)).status == "completed"
    await store.close()
