"""A run that failed goes on from the point of failure, by a person's wish or by its workflow's own policy."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.scenarios import faults
from tests.scenarios.conftest import Ways
from tests.scenarios.faults import AT_ONCE, BROKEN, KEYS, LOG, FaultError, begin, book, done, failure, step
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import (
    App,
    ApplicationError,
    RetryAfter,
    RetryPolicy,
    WorkflowContext,
    WorkflowFailedError,
    activity,
    activity_context,
    workflow,
)
from tinyworkflow_core.errors import RunNotFoundError, RunStateError, TakeoverLimitError
from tinyworkflow_core.testing import START, WorkflowEnvironment

ATTEMPTS: list[tuple[int, str]] = []


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=5, jitter=False))
async def patient(what: str) -> str:
    context = activity_context()
    ATTEMPTS.append((context.attempt, context.idempotency_key))
    return faults.run_body(what)


@workflow
async def three_steps(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.execute_activity(step, "first")
    second = await ctx.execute_activity(patient, "second")
    return [first, second, await ctx.execute_activity(step, "third")]


async def mended(env: WorkflowEnvironment, run_id: str) -> Any:
    """The fault is gone, and somebody retries the run: its result."""
    BROKEN.clear()
    await env.retry(run_id)
    return await env.result(run_id)


async def test_the_failed_step_is_run_again_with_fresh_attempts_and_no_completed_one_is(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("second")
        ATTEMPTS.clear()
        run_id = await env.start(three_steps)
        await failure(env, run_id)
        BROKEN.clear()
        await env.advance("1d")
        assert await mended(env, run_id) == ["first", "second", "third"]
        assert await done(env, run_id) == ["first", "second", "third"]
        assert (await env.status(run_id)).retry_count == 1
        assert len({key for _, key in ATTEMPTS}) == 1
        if env.plain:
            assert LOG == ["first", "second", "second", "second", "third"]
            assert [number for number, _ in ATTEMPTS] == [1, 2, 1]

    await ways(scenario, three_steps)


async def test_a_run_that_fails_again_can_be_retried_again(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("second", "third")
        run_id = await env.start(three_steps)
        await failure(env, run_id)
        BROKEN.discard("second")
        await env.retry(run_id)
        assert str(await failure(env, run_id)) == "third"
        await env.retry(run_id)
        assert str(await failure(env, run_id)) == "third"
        assert await mended(env, run_id) == ["first", "second", "third"]
        assert await done(env, run_id) == ["first", "second", "third"]
        assert (await env.status(run_id)).retry_count == 3

    await embedded_ways(scenario, three_steps)


async def test_a_run_that_failed_by_its_own_bug_goes_on_once_mended_code_is_deployed(stores: StoreFactory) -> None:
    @workflow(name="greeter")
    async def buggy(ctx: WorkflowContext) -> str:
        first: Any = await ctx.execute_activity(step, "first")
        return str(first.upperr() + await ctx.execute_activity(step, "second"))

    @workflow(name="greeter")
    async def right(ctx: WorkflowContext) -> str:
        first: Any = await ctx.execute_activity(step, "first")
        return str(first.upper() + await ctx.execute_activity(step, "second"))

    begin()
    store = stores()
    before = WorkflowEnvironment([buggy], store=store)
    run_id = await before.start(buggy)
    assert isinstance(await failure(before, run_id), AttributeError)
    await before.retry(run_id)
    assert isinstance(await failure(before, run_id), AttributeError)
    after = WorkflowEnvironment([right], store=store)
    await after.retry(run_id)
    assert await after.result(run_id) == "FIRSTsecond"
    assert LOG == ["first", "second"]
    await store.close()


async def test_cleanup_after_a_bug_is_not_in_the_way_of_mended_code(embedded_ways: Ways) -> None:
    @workflow
    async def tidy(ctx: WorkflowContext) -> str:
        try:
            await ctx.execute_activity(step, "first")
            if "bug" in BROKEN:
                raise KeyError("bug")
            return await ctx.execute_activity(step, "second")
        finally:
            await ctx.execute_activity(step, "cleanup")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bug")
        run_id = await env.start(tidy)
        assert isinstance(await failure(env, run_id), KeyError)
        assert await done(env, run_id) == ["first", "cleanup"]
        assert await mended(env, run_id) == "second"
        assert await done(env, run_id) == ["first", "cleanup", "second", "cleanup"]

    await embedded_ways(scenario, tidy)


# --- what was in between -----------------------------------------------------------------------------


@workflow
async def listens(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.wait_for_signal("say")
    await ctx.execute_activity(step, "middle")
    return [first, *[await ctx.wait_for_signal("say") for _ in range(3)]]


async def test_signals_from_before_and_after_the_failure_are_kept_in_order(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("middle")
        run_id = await env.start(listens)
        for word in ("one", "two"):
            await env.signal(run_id, "say", word)
        await failure(env, run_id)
        BROKEN.clear()
        await env.retry(run_id)
        for word in ("three", "four"):
            await env.signal(run_id, "say", word)
        assert await env.result(run_id) == ["one", "two", "three", "four"]

    await ways(scenario, listens)


async def test_a_signal_that_came_while_the_run_was_failing_is_kept(stores: StoreFactory) -> None:
    begin()
    store = stores()

    async def fails_late(what: str) -> str:
        LOG.append(what)
        if len(LOG) == 1:
            # Another process delivers it; this one does not know until it looks.
            await WorkflowEnvironment([listens], store=store).signal(run_id, "say", "just in time")
            raise FaultError(what)
        return what

    env = WorkflowEnvironment([listens], store=store, activities={"step": fails_late})
    run_id = await env.start(listens)
    await env.signal(run_id, "say", "one")
    await failure(env, run_id)
    await env.retry(run_id)
    await env.signal(run_id, "say", "three")
    await env.signal(run_id, "say", "four")
    assert await env.result(run_id) == ["one", "just in time", "three", "four"]
    await store.close()


@workflow
async def hurried(ctx: WorkflowContext) -> str:
    try:
        async with asyncio.timeout(60):
            await ctx.sleep(40)
            await ctx.execute_activity(step, "middle")
            return str(await ctx.wait_for_signal("go"))
    except TimeoutError:
        return f"late at {(ctx.now() - ctx.input_data).total_seconds():g}"


async def test_a_timeout_that_was_running_is_put_off_by_the_time_the_run_lay_failed(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("middle")
        run_id = await env.start(hurried, env.clock.now())
        await failure(env, run_id)
        await env.advance("1d")
        BROKEN.clear()
        await env.retry(run_id)
        await env.advance(19)
        assert (await env.status(run_id)).status == "waiting"
        assert await env.result(run_id) == f"late at {86400 + 60}"

    await embedded_ways(scenario, hurried)


async def test_an_open_question_is_open_again_after_a_retry_for_what_was_left_of_its_time(embedded_ways: Ways) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> str:
        answer = asyncio.create_task(ctx.wait_for_approval("boss", timeout="1h"))
        await ctx.sleep(600)
        await ctx.execute_activity(step, "middle")
        return "yes" if await answer else "no"

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("middle")
        run_id = await env.start(asks)
        await failure(env, run_id)
        assert (await env.status(run_id)).open_approvals == ()
        await env.advance("1d")
        BROKEN.clear()
        await env.retry(run_id)
        await env.run()
        [question] = (await env.status(run_id)).open_approvals
        assert question.expires_at == env.clock.now() + timedelta(seconds=3000)
        await env.decide(run_id, "boss")
        assert await env.result(run_id) == "yes"

    await embedded_ways(scenario, asks)


# --- several at once ---------------------------------------------------------------------------------


@activity(retry_policy=AT_ONCE)
async def slow(what: str) -> str:
    if BROKEN:
        await asyncio.sleep(3600)
    return faults.run_body(what)


async def _parallel(ctx: WorkflowContext) -> list[Any]:
    return await ctx.execute_parallel((step, ("quick",)), (step, ("bad",)), (slow, ("slow",)), (step, ("worse",)))


async def _gather(ctx: WorkflowContext) -> list[Any]:
    steps = [ctx.execute_activity(step, one) for one in ("quick", "bad")]
    steps.append(ctx.execute_activity(slow, "slow"))
    return list(await asyncio.gather(*steps, ctx.execute_activity(step, "worse")))


async def _group(ctx: WorkflowContext) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.execute_activity(step, one)) for one in ("quick", "bad")]
        tasks.append(group.create_task(ctx.execute_activity(slow, "slow")))
        tasks.append(group.create_task(ctx.execute_activity(step, "worse")))
    return [one.result() for one in tasks]


async def _map(ctx: WorkflowContext) -> list[Any]:
    batch = await ctx.map(one_of, ["quick", "bad", "slow", "worse"])
    batch.raise_if_failed()
    return list(batch.results)


@activity(retry_policy=AT_ONCE)
async def one_of(what: str) -> str:
    if what == "slow" and BROKEN:
        await asyncio.sleep(3600)
    return faults.run_body(what)


@pytest.mark.parametrize("together", [_parallel, _gather, _group, _map])
async def test_siblings_that_completed_are_not_run_again_those_that_were_cancelled_or_failed_too_are(
    ways: Ways, together: Callable[[WorkflowContext], Any]
) -> None:
    at_once = workflow(name="at_once", lint="off")(together)

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bad", "worse")
        run_id = await env.start(at_once)
        await failure(env, run_id)
        before = await done(env, run_id)
        assert await mended(env, run_id) == ["quick", "bad", "slow", "worse"]
        assert sorted(await done(env, run_id)) == ["bad", "quick", "slow", "worse"]
        if env.plain:
            assert before == ["quick"]
        assert [len(set(KEYS[one])) for one in ("quick", "bad", "slow", "worse")] == [1, 1, 1, 1]

    await ways(scenario, at_once)


async def test_siblings_of_a_task_with_a_bug_are_run_again_where_they_were_cancelled(embedded_ways: Ways) -> None:
    @workflow
    async def grouped(ctx: WorkflowContext) -> list[Any]:
        async def buggy() -> str:
            await ctx.execute_activity(step, "quick")
            if BROKEN:
                raise KeyError("bug")
            return "mended"

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ctx.execute_activity(slow, "slow")),
                group.create_task(ctx.execute_child(kid, "sibling")),
                group.create_task(buggy()),
            ]
        return [one.result() for one in tasks]

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bug")
        run_id = await env.start(grouped)
        await failure(env, run_id)
        assert await mended(env, run_id) == ["slow", "sibling", "mended"]
        assert sorted(await done(env, run_id)) == ["quick", "slow"]

    await embedded_ways(scenario, grouped, kid)


# --- children ----------------------------------------------------------------------------------------


@workflow
async def kid(ctx: WorkflowContext, what: str) -> str:
    await ctx.sleep(10)
    return await ctx.execute_activity(step, what)


@pytest.mark.parametrize("own_id", [None, "my-kid"])
async def test_a_failure_inside_a_child_is_retried_by_a_new_child_and_no_other(ways: Ways, own_id: str | None) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        good = await ctx.execute_child(kid, "good")
        return [good, await ctx.execute_child(kid, "bad", run_id=own_id)]

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bad")
        run_id = await env.start(parent)
        assert str(await failure(env, run_id)) == "bad"
        assert await mended(env, run_id) == ["good", "bad"]
        children = await env.client.list_workflow_executions(parent_run_id=run_id)
        assert sorted(one.status for one in children) == ["completed", "completed", "failed"]

    await ways(scenario, parent, kid)


async def test_a_sibling_child_that_was_cancelled_by_the_failure_is_started_anew(embedded_ways: Ways) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            child = group.create_task(ctx.execute_child(kid, "child"))
            other = group.create_task(ctx.execute_activity(step, "bad"))
        return [child.result(), other.result()]

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bad")
        run_id = await env.start(parent)
        await failure(env, run_id)
        assert await mended(env, run_id) == ["child", "bad"]
        children = await env.client.list_workflow_executions(parent_run_id=run_id)
        assert {one.status for one in children} <= {"completed", "cancelled"}
        assert [one.status for one in children].count("completed") == 1

    await embedded_ways(scenario, parent, kid)


@pytest.mark.parametrize(("policy", "ends"), [("cancel", "cancelled"), ("terminate", "terminated"), ("abandon", None)])
async def test_a_child_that_went_on_beside_is_there_again_after_a_retry(
    ways: Ways, policy: Any, ends: str | None
) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        child = await ctx.start_child(kid, "child", on_parent_close=policy)
        await ctx.execute_activity(step, "between")
        await ctx.execute_activity(step, "bad")
        return [await child.result(), child.run_id]

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bad")
        run_id = await env.start(parent)
        await failure(env, run_id)
        await env.advance("1h")  # by now the first child has ended, and could tell nobody
        result, child_id = await mended(env, run_id)
        assert result == "child"
        assert (await env.status(child_id)).status == "completed"
        children = await env.client.list_workflow_executions(parent_run_id=run_id)
        assert sorted(one.status for one in children) == sorted({"completed"} | ({ends} if ends else set()))

    await ways(scenario, parent, kid)


async def test_a_child_that_only_the_failure_started_is_ended_when_the_run_is_retried_by_itself(
    embedded_ways: Ways,
) -> None:
    @workflow(retry_policy=RetryPolicy(max_retries=1, initial_delay=60, jitter=False))
    async def parent(ctx: WorkflowContext) -> str:
        try:
            return await ctx.execute_activity(step, "bad")
        except FaultError:
            await ctx.start_child(waits, run_id="left-behind")
            raise

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bad")
        run_id = await env.start(parent)
        await env.run()
        BROKEN.clear()
        assert await env.result(run_id) == "bad"
        await env.run()
        assert (await env.status("left-behind")).status == "cancelled"

    await embedded_ways(scenario, parent, waits)


@workflow
async def waits(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_signal("go")


# --- other kinds of steps ----------------------------------------------------------------------------


async def test_a_signal_that_reached_nobody_is_sent_again(embedded_ways: Ways) -> None:
    @workflow
    async def sends(ctx: WorkflowContext) -> str:
        await ctx.signal_run("target", "go", "hello")
        return "sent"

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(sends)
        assert isinstance(await failure(env, run_id), RunNotFoundError)
        target = await env.start(waits, run_id="target")
        await env.retry(run_id)
        assert await env.result(run_id) == "sent"
        assert await env.result(target) == "hello"

    await embedded_ways(scenario, sends, waits)


async def test_a_side_effect_that_failed_is_tried_again(embedded_ways: Ways) -> None:
    @workflow
    async def looks(ctx: WorkflowContext) -> Any:
        return await ctx.side_effect(_value)

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("value")
        run_id = await env.start(looks)
        await failure(env, run_id)
        assert await mended(env, run_id) == 5

    await embedded_ways(scenario, looks)


def _value() -> int:
    if "value" in BROKEN:
        raise FaultError("value")
    return 5


# --- failures that are not alone ---------------------------------------------------------------------


async def test_a_failure_that_was_handled_before_stays_as_it_was(embedded_ways: Ways) -> None:
    @workflow
    async def falls_back(ctx: WorkflowContext) -> list[str]:
        try:
            found = await ctx.execute_activity(step, "preferred")
        except FaultError:
            found = await ctx.execute_activity(step, "fallback")
        return [found, await ctx.execute_activity(step, "last")]

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("preferred", "last")
        run_id = await env.start(falls_back)
        await failure(env, run_id)
        assert await mended(env, run_id) == ["fallback", "last"]
        assert await done(env, run_id) == ["fallback", "last"]

    await embedded_ways(scenario, falls_back)


async def test_a_failure_in_handling_a_failure_begins_with_the_first(embedded_ways: Ways) -> None:
    @workflow
    async def falls_back(ctx: WorkflowContext) -> str:
        try:
            return await ctx.execute_activity(step, "preferred")
        except FaultError:
            await ctx.execute_activity(step, "note")
            return await ctx.execute_activity(step, "fallback")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("preferred", "fallback")
        run_id = await env.start(falls_back)
        assert str(await failure(env, run_id)) == "fallback"
        assert await mended(env, run_id) == "preferred"
        assert await done(env, run_id) == ["note", "preferred"]

    await embedded_ways(scenario, falls_back)


@workflow
async def cleans_up(ctx: WorkflowContext) -> str:
    try:
        return await ctx.execute_activity(step, "main")
    finally:
        await ctx.execute_activity(step, "cleanup")


@pytest.mark.parametrize("broken", [["cleanup"], ["main", "cleanup"], ["main"]])
async def test_a_cleanup_that_failed_or_followed_a_failure_is_run_again(embedded_ways: Ways, broken: list[str]) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin(*broken)
        run_id = await env.start(cleans_up)
        assert str(await failure(env, run_id)) == broken[-1]
        assert await mended(env, run_id) == "main"
        # After the failure of the main step it was another cleanup than the one after its success.
        again = ["cleanup"] if broken == ["main"] else []
        assert await done(env, run_id) == [*again, "main", "cleanup"]

    await embedded_ways(scenario, cleans_up)


# --- cancelled, timed out, terminated, killed --------------------------------------------------------


async def test_a_cancellation_that_came_too_late_does_not_meet_the_retried_run(embedded_ways: Ways) -> None:
    @activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=60, jitter=False))
    async def slow_undo(what: str) -> str:
        return faults.run_body(f"un-{what}")

    @workflow
    async def trip(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(book.options(compensate=slow_undo), "hotel")
        return await ctx.execute_activity(step, "charge")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge", "un-hotel")
        run_id = await env.start(trip)
        await env.run()
        await env.cancel(run_id)
        BROKEN.discard("un-hotel")
        assert str(await failure(env, run_id)) == "charge"
        assert await mended(env, run_id) == "charge"

    await embedded_ways(scenario, trip)


async def test_a_cleanup_that_failed_in_a_cancelled_run_is_run_again_and_ends_it_as_cancelled(
    embedded_ways: Ways,
) -> None:
    @workflow
    async def rests(ctx: WorkflowContext) -> None:
        try:
            await ctx.sleep("1h")
        finally:
            await ctx.execute_activity(step, "cleanup")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("cleanup")
        run_id = await env.start(rests)
        await env.run()
        await env.cancel(run_id)
        await failure(env, run_id)
        BROKEN.clear()
        await env.retry(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "cancelled"
        assert await done(env, run_id) == ["cleanup"]

    await embedded_ways(scenario, rests)


async def test_a_run_whose_time_was_up_has_its_whole_time_again(embedded_ways: Ways) -> None:
    @workflow(timeout="1h")
    async def rests(ctx: WorkflowContext) -> Any:
        await ctx.execute_activity(step, "first")
        return await ctx.wait_for_signal("go")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(rests)
        assert isinstance(await failure(env, run_id), TimeoutError)
        await env.advance("1d")
        await env.retry(run_id)
        await env.advance(3599)
        assert (await env.status(run_id)).status == "waiting"
        await env.advance(1)
        assert isinstance(await failure(env, run_id), TimeoutError)
        await env.retry(run_id)
        await env.signal(run_id, "go", "at last")
        assert await env.result(run_id) == "at last"
        assert await done(env, run_id) == ["first"]

    await embedded_ways(scenario, rests)


async def test_a_terminated_run_goes_on_where_it_was(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(listens)
        await env.signal(run_id, "say", "one")
        await env.run()
        await env.terminate(run_id, "too early")
        await env.run()
        with pytest.raises(WorkflowFailedError, match="terminated"):
            await env.result(run_id)
        await env.retry(run_id)
        for word in ("two", "three", "four"):
            await env.signal(run_id, "say", word)
        assert await env.result(run_id) == ["one", "two", "three", "four"]
        assert await done(env, run_id) == ["middle"]

    await ways(scenario, listens)


async def test_a_run_that_killed_its_processes_may_try_as_often_again(stores: StoreFactory) -> None:
    begin()
    store = stores()

    async def poison(what: str) -> str:
        LOG.append(what)
        if BROKEN:
            env.kill()
        return what

    BROKEN.add("step")
    env = WorkflowEnvironment([cleans_up], store=store, activities={"step": poison})
    run_id = await env.start(cleans_up)
    for _ in range(2):
        LOG.clear()
        assert isinstance(await failure(env, run_id), TakeoverLimitError)
        assert LOG == ["main"] * 6
        await env.retry(run_id)
    BROKEN.clear()
    assert await env.result(run_id) == "main"
    await store.close()


# --- by the workflow's own policy --------------------------------------------------------------------


@pytest.mark.parametrize("max_retries", [0, 1, 3])
async def test_a_policy_retries_exactly_as_often_as_it_says_after_the_delays_it_says(
    ways: Ways, max_retries: int
) -> None:
    policy = RetryPolicy(max_retries=max_retries, initial_delay=60, backoff_multiplier=3, max_delay=300, jitter=False)

    @workflow(retry_policy=policy)
    async def automatic(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(step, "first")
        return await ctx.execute_activity(step, "bad")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bad")
        run_id = await env.start(automatic)
        for count, delay in enumerate([60, 180, 300][:max_retries], start=1):
            await env.run()
            run = await env.status(run_id)
            assert (run.status, run.retry_count, run.max_retries) == ("retrying", count, max_retries)
            assert run.error == "bad"
            await env.advance(delay - 1)
            assert (await env.status(run_id)).retry_count == count
            await env.advance(1)
        assert (await env.status(run_id)).status == "failed" or max_retries == 0
        await failure(env, run_id)
        assert (await env.status(run_id)).retry_count == max_retries
        assert await done(env, run_id) == ["first"]
        if env.plain:
            assert ["first"] + ["bad"] * (max_retries + 1) == LOG

    await ways(scenario, automatic)


async def test_a_retry_by_hand_begins_the_policys_count_anew(embedded_ways: Ways) -> None:
    @workflow(retry_policy=RetryPolicy(max_retries=2, initial_delay=60, jitter=False))
    async def automatic(ctx: WorkflowContext) -> int:
        await ctx.execute_activity(step, "bad")
        return ctx.retry_count

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bad")
        run_id = await env.start(automatic)
        await failure(env, run_id)
        await env.retry(run_id)
        await failure(env, run_id)
        assert (await env.status(run_id)).retry_count == 5
        assert await mended(env, run_id) == 6
        if env.plain:
            assert LOG == ["bad"] * 7

    await embedded_ways(scenario, automatic)


async def test_the_workflow_knows_how_often_it_was_retried(embedded_ways: Ways) -> None:
    @workflow(retry_policy=RetryPolicy(max_retries=3, initial_delay=60, jitter=False))
    async def lucky(ctx: WorkflowContext) -> int:
        if ctx.retry_count < 2:
            raise FaultError("not yet")
        return ctx.retry_count

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(lucky)
        assert await env.result(run_id) == 2
        assert (await env.status(run_id)).retry_count == 2

    await embedded_ways(scenario, lucky)


NEVER: dict[str, Exception] = {
    "of a kind that is never retried": KeyError("x"),
    "that says so itself": ApplicationError("no", retryable=False),
}


@pytest.mark.parametrize("error", NEVER.values(), ids=NEVER.keys())
async def test_a_failure_is_not_retried_by_itself(error: Exception) -> None:
    @workflow(retry_policy=RetryPolicy(max_retries=3, never_on=(KeyError,)))
    async def automatic(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(book, "hotel")
        raise error

    begin()
    async with WorkflowEnvironment([automatic]) as env:
        run_id = await env.start(automatic)
        await env.run()
        assert (await env.status(run_id)).status == "failed"
        assert (await env.status(run_id)).retry_count == 0
        assert LOG == ["hotel", "un-hotel"]


async def test_the_time_that_a_failure_asks_for_is_waited() -> None:
    @activity(retry_policy=AT_ONCE)
    async def busy() -> None:
        raise RetryAfter(900)

    @workflow(retry_policy=RetryPolicy(max_retries=1, initial_delay=1, max_delay=5))
    async def automatic(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(busy)

    async with WorkflowEnvironment([automatic]) as env:
        run_id = await env.start(automatic)
        await env.advance(899)
        assert (await env.status(run_id)).status == "retrying"
        await env.advance(1)
        assert (await env.status(run_id)).status == "failed"


@workflow(retry_policy=RetryPolicy(max_retries=1, initial_delay=600, max_delay=600, jitter=False))
async def retried_trip(ctx: WorkflowContext) -> list[Any]:
    await ctx.execute_activity(book, "hotel")
    await ctx.execute_activity(step, "charge")
    return [await ctx.wait_for_signal("say"), await ctx.wait_for_signal("say")]


async def test_a_run_that_is_cancelled_while_it_waits_to_be_retried_undoes_and_ends_at_once(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(retried_trip)
        await env.run()
        await env.cancel(run_id)
        await env.advance(20)
        assert (await env.status(run_id)).status == "cancelled"
        assert await done(env, run_id) == ["hotel", "un-hotel"]
        if env.plain:
            assert LOG == ["hotel", "charge", "un-hotel"]

    await ways(scenario, retried_trip)


async def test_signals_that_come_while_a_run_waits_to_be_retried_are_kept_and_change_nothing(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(retried_trip)
        await env.run()
        await env.signal(run_id, "say", "one")
        await env.run()
        await env.signal(run_id, "say", "two")
        await env.advance(599)
        assert (await env.status(run_id)).status == "retrying"
        BROKEN.clear()
        assert await env.result(run_id) == ["one", "two"]
        assert await done(env, run_id) == ["hotel", "charge"]

    await ways(scenario, retried_trip)


async def test_what_others_send_while_a_run_waits_to_be_retried_is_taken_at_once_and_wakes_it_once(
    embedded_ways: Ways,
) -> None:
    @workflow(retry_policy=RetryPolicy(max_retries=1, initial_delay=600, max_delay=600, jitter=False))
    async def beside(ctx: WorkflowContext) -> list[Any]:
        total: list[int] = []
        ctx.on_update("add", total.append)
        child = await ctx.start_child(kid, "child")
        elsewhere = step.options(run_on="queue", retry_policy=RetryPolicy(jitter=False))
        far = asyncio.create_task(ctx.execute_activity(elsewhere, "far"))
        await ctx.execute_activity(step, "bad")
        return [await child.result(), await far, total]

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("bad")
        run_id = await env.start(beside)
        await env.run()
        hops = env.hops[run_id]
        await env.advance(300)  # the child ends, and says so
        assert env.hops[run_id] <= hops + (1 if env.plain else 4)
        if env.plain:
            assert await done(env, run_id) == ["far"]
        assert await env.store.inbox(run_id) == []
        assert (await env.status(run_id)).status == "retrying"
        BROKEN.clear()
        await env.update(run_id, "add", 5)
        assert await env.result(run_id) == ["child", "far", [5]]
        assert sorted(await done(env, run_id)) == ["bad", "far"]

    await embedded_ways(scenario, beside, kid)


async def test_a_retry_is_not_begun_that_would_come_after_the_runs_time() -> None:
    policy = RetryPolicy(max_retries=9, initial_delay=600, max_delay=600, jitter=False)
    timed = workflow(name="timed", timeout="5m", retry_policy=policy)(retried_trip.fn)
    begin("charge")
    async with WorkflowEnvironment([timed]) as env:
        run_id = await env.start(timed)
        await env.run()
        assert (await env.status(run_id)).status == "failed"
        assert LOG == ["hotel", "charge", "un-hotel"]


# --- who may retry what ------------------------------------------------------------------------------


async def test_only_a_run_that_failed_or_was_terminated_can_be_retried() -> None:
    begin()
    async with WorkflowEnvironment([waits, cleans_up]) as env:
        run_id = await env.start(waits)
        await env.run()
        with pytest.raises(RunStateError, match="is waiting"):
            await env.client.retry_workflow(run_id)
        await env.cancel(run_id)
        await env.run()
        with pytest.raises(RunStateError, match="is cancelled"):
            await env.client.retry_workflow(run_id)
        run_id = await env.start(cleans_up)
        await env.result(run_id)
        with pytest.raises(RunStateError, match="is completed"):
            await env.client.retry_workflow(run_id)
        BROKEN.add("main")
        run_id = await env.start(cleans_up)
        await failure(env, run_id)
        await env.client.retry_workflow(run_id)
        with pytest.raises(RunStateError, match="is pending"):
            await env.client.retry_workflow(run_id)
        with pytest.raises(RunNotFoundError):
            await env.client.retry_workflow("nobody")


class _Ticking:
    """A clock that tells everybody who asks another moment."""

    moments = itertools.count()

    def now(self) -> datetime:
        return START + timedelta(hours=1, microseconds=next(self.moments))


async def test_of_many_who_retry_a_run_at_once_one_does(stores: StoreFactory) -> None:
    begin("main")
    store = stores()
    env = WorkflowEnvironment([cleans_up], store=store)
    run_id = await env.start(cleans_up)
    await failure(env, run_id)
    BROKEN.clear()
    clients = [App(store, workflows=[cleans_up], dispatcher="none", clock=_Ticking()).client for _ in range(10)]
    answers = await asyncio.gather(*(one.retry_workflow(run_id) for one in clients), return_exceptions=True)
    assert [type(one) for one in answers if one is not None] == [RunStateError] * 9
    assert await env.result(run_id) == "main"
    assert len(await env.events(run_id, "RunRetried")) == 1
    assert (await env.status(run_id)).retry_count == 1
    await store.close()
