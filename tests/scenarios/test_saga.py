"""Saga: what was done is undone, in reverse and once each, when a run will not succeed; and only then."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.scenarios import faults
from tests.scenarios.conftest import Ways
from tests.scenarios.faults import AT_ONCE, BROKEN, KEYS, LOG, FaultError, begin, book, done, failure, step, undo
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import App, RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.advance import AdvanceSettings, Progress
from tinyworkflow_core.errors import SerializationError
from tinyworkflow_core.testing import VirtualClock, WorkflowEnvironment

DONE_AND_UNDONE = ["hotel", "flight", "un-flight", "un-hotel"]


@workflow
async def trip(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(book, "hotel")
    await ctx.execute_activity(book, "flight")
    return await ctx.execute_activity(step, "charge")


@workflow
async def long_trip(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(book, "hotel")
    await ctx.execute_activity(book, "flight")
    await ctx.sleep("3h")
    return "home"


# --- when a run will not succeed ---------------------------------------------------------------------


async def test_a_failure_undoes_what_was_done_in_reverse_once_each(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(trip)
        error = await failure(env, run_id)
        assert isinstance(error, FaultError)
        assert str(error) == "charge"
        assert await done(env, run_id) == DONE_AND_UNDONE
        assert faults.at_most_twice(env)
        if env.plain:
            assert LOG == ["hotel", "flight", "charge", "un-flight", "un-hotel"]

    await ways(scenario, trip)


async def test_a_success_undoes_nothing(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(trip)
        assert await env.result(run_id) == "charge"
        assert await done(env, run_id) == ["hotel", "flight", "charge"]

    await embedded_ways(scenario, trip)


async def test_a_cancellation_undoes_what_was_done(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(long_trip)
        await env.run()
        await env.cancel(run_id, "rain")
        await env.run()
        assert (await env.status(run_id)).status == "cancelled"
        assert await done(env, run_id) == DONE_AND_UNDONE
        assert faults.at_most_twice(env)

    await ways(scenario, long_trip)


async def test_a_run_whose_time_is_up_undoes_what_was_done_and_fails_with_a_timeout(ways: Ways) -> None:
    timed = workflow(name="timed_trip", timeout="1h")(long_trip.fn)

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(timed)
        await env.run()
        await env.advance(3599)
        assert (await env.status(run_id)).status == "waiting"
        await env.advance(1)
        assert isinstance(await failure(env, run_id), TimeoutError)
        assert await done(env, run_id) == DONE_AND_UNDONE
        assert faults.at_most_twice(env)

    await ways(scenario, timed)


async def test_a_bug_in_the_workflow_undoes_what_was_done(embedded_ways: Ways) -> None:
    @workflow
    async def buggy(ctx: WorkflowContext) -> str:
        hotel: Any = await ctx.execute_activity(book, "hotel")
        return str(hotel["number"])

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(buggy)
        assert isinstance(await failure(env, run_id), TypeError)
        assert await done(env, run_id) == ["hotel", "un-hotel"]

    await embedded_ways(scenario, buggy)


async def test_a_result_that_cannot_be_stored_undoes_what_was_done() -> None:
    @workflow
    async def unstorable(ctx: WorkflowContext) -> Any:
        await ctx.execute_activity(book, "hotel")
        return lambda: None

    begin()
    async with WorkflowEnvironment([unstorable]) as env:
        run_id = await env.start(unstorable)
        assert isinstance(await failure(env, run_id), SerializationError)
        assert await done(env, run_id) == ["hotel", "un-hotel"]


# --- compensations themselves ------------------------------------------------------------------------


@activity(retry_policy=RetryPolicy(max_retries=2, initial_delay=60, backoff_multiplier=1, jitter=False))
async def patient_undo(what: str) -> str:
    return faults.run_body(f"un-{what}")


@workflow
async def patient_trip(ctx: WorkflowContext) -> str:
    for what in ("hotel", "flight", "car"):
        await ctx.execute_activity(book.options(compensate=patient_undo), what)
    return await ctx.execute_activity(step, "charge")


async def test_a_compensation_that_fails_is_retried_then_recorded_and_the_others_still_run(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge", "un-flight")
        run_id = await env.start(patient_trip)
        assert str(await failure(env, run_id)) == "charge"
        assert await done(env, run_id) == ["hotel", "flight", "car", "un-car", "un-hotel"]
        failed = await env.events(run_id, "ActivityFailed")
        assert [(one["name"], one["attempt"]) for one in failed] == [
            ("step", 1),
            ("patient_undo", 1),
            ("patient_undo", 2),
            ("patient_undo", 3),
        ]

    await ways(scenario, patient_trip)


async def test_a_compensation_that_fails_once_is_done_at_its_next_attempt(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge", "un-flight")
        run_id = await env.start(patient_trip)
        await env.run()
        assert (await env.status(run_id)).status == "retrying"
        BROKEN.discard("un-flight")
        await failure(env, run_id)
        assert await done(env, run_id) == ["hotel", "flight", "car", "un-car", "un-flight", "un-hotel"]

    await embedded_ways(scenario, patient_trip)


async def test_a_process_killed_inside_a_compensation_repeats_that_one_and_no_other(stores: StoreFactory) -> None:
    begin("charge")
    store = stores()

    async def deadly(what: str) -> str:
        if LOG.count("un-flight") == 0 and what == "flight":
            env.kill()
        return faults.run_body(f"un-{what}")

    env = WorkflowEnvironment([trip], store=store, activities={"undo": deadly})
    run_id = await env.start(trip)
    await failure(env, run_id)
    assert LOG == ["hotel", "flight", "charge", "un-flight", "un-flight", "un-hotel"]
    assert await done(env, run_id) == DONE_AND_UNDONE
    await store.close()


async def test_a_run_is_retried_and_undone_across_as_many_calls_as_it_takes(stores: StoreFactory) -> None:
    begin("charge")
    clock, store = VirtualClock(), stores()

    async def slow(what: str) -> str:
        clock.move_to(clock.now() + timedelta(seconds=1))  # all that a call may take
        return faults.run_body(what)

    async def slow_undo(what: str) -> str:
        return await slow(f"un-{what}")

    retried = workflow(name="retried_trip", retry_policy=RetryPolicy(max_retries=1, initial_delay=0))(trip.fn)
    slowly: dict[str, Any] = {"book": slow, "step": slow, "undo": slow_undo}
    app = App(
        store,
        workflows=[retried],
        dispatcher="none",
        clock=clock,
        request_seconds=1,
        settings=AdvanceSettings(patience_seconds=0),
        replaced_activities=slowly,
    )
    run_id = await app.client.start_workflow(retried)
    calls = [await app.advance(run_id) for _ in range(12)]
    assert calls[0] is Progress.CONTINUES
    assert calls[-1] is Progress.CLOSED
    events = await app.client.get_workflow_events(run_id)
    assert [one["result"] for one in events if one["type"] == "ActivityCompleted"] == DONE_AND_UNDONE
    assert LOG.count("charge") == 2
    await store.close()


async def test_what_undoes_is_not_itself_undone() -> None:
    undo_with_undo = undo.options(compensate=step)

    @workflow
    async def twice(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(book.options(compensate=undo_with_undo), "hotel")
        raise FaultError("no")

    begin()
    async with WorkflowEnvironment([twice]) as env:
        await failure(env, await env.start(twice))
    assert LOG == ["hotel", "un-hotel"]


async def test_a_cancellation_does_not_interrupt_compensations_under_way(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge", "un-flight")
        run_id = await env.start(patient_trip)
        await env.run()
        await env.cancel(run_id)
        BROKEN.discard("un-flight")
        assert str(await failure(env, run_id)) == "charge"
        assert (await done(env, run_id))[-3:] == ["un-car", "un-flight", "un-hotel"]

    await embedded_ways(scenario, patient_trip)


async def test_compensations_stop_while_the_run_is_suspended_and_go_on_after_it(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge", "un-flight")
        run_id = await env.start(patient_trip)
        await env.run()
        await env.suspend(run_id)
        BROKEN.discard("un-flight")
        await env.advance("1d")
        assert (await done(env, run_id))[3:] == ["un-car"]
        await env.resume(run_id)
        await failure(env, run_id)
        assert (await done(env, run_id))[3:] == ["un-car", "un-flight", "un-hotel"]

    await embedded_ways(scenario, patient_trip)


# --- what is undone ----------------------------------------------------------------------------------


async def test_compensations_added_by_hand_take_their_arguments_and_mix_with_the_others(embedded_ways: Ways) -> None:
    @activity(retry_policy=AT_ONCE)
    async def refund(amount: int, *, to: str) -> str:
        return faults.run_body(f"{amount} to {to}")

    @workflow
    async def by_hand(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(book, "hotel")
        await ctx.execute_activity(step, "pay")
        ctx.add_compensation(refund, 20, to="ada")
        await ctx.execute_activity(book, "flight")
        raise FaultError("no")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(by_hand)
        await failure(env, run_id)
        assert (await done(env, run_id))[3:] == ["un-flight", "20 to ada", "un-hotel"]

    await embedded_ways(scenario, by_hand)


async def test_of_parallel_steps_those_that_completed_are_undone(embedded_ways: Ways) -> None:
    @workflow
    async def at_once(ctx: WorkflowContext) -> list[Any]:
        return await ctx.execute_parallel((book, ("hotel",)), (book, ("flight",)), (book, ("car",)))

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("car")
        run_id = await env.start(at_once)
        await failure(env, run_id)
        results = await done(env, run_id)
        booked = [one for one in results if not one.startswith("un-")]
        assert results == [*booked, *(f"un-{one}" for one in reversed(booked))]
        if env.plain:
            assert sorted(booked) == ["flight", "hotel"]

    await embedded_ways(scenario, at_once)


@activity(retry_policy=AT_ONCE, compensate=undo)
async def stubborn(what: str) -> str:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        pass  # the booking went through all the same
    return faults.run_body(what)


async def test_a_step_that_completed_although_it_was_cancelled_is_undone_too(ways: Ways) -> None:
    @workflow
    async def at_once(ctx: WorkflowContext) -> list[Any]:
        return await ctx.execute_parallel((stubborn, ("hotel",)), (step, ("charge",)))

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(at_once)
        assert str(await failure(env, run_id)) == "charge"
        results = await done(env, run_id)
        assert ("un-hotel" in results) == ("hotel" in results)
        if env.plain:
            assert results == ["hotel", "un-hotel"]

    await ways(scenario, at_once)


# --- when nothing is to be undone --------------------------------------------------------------------


async def test_a_failure_that_is_handled_undoes_nothing(embedded_ways: Ways) -> None:
    @workflow
    async def careful(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(book, "hotel")
        try:
            try:
                await ctx.execute_activity(step, "charge")
            finally:
                await ctx.execute_activity(step, "note")
        except FaultError:
            return "on account"
        return "paid"

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(careful)
        assert await env.result(run_id) == "on account"
        assert await done(env, run_id) == ["hotel", "note"]

    await embedded_ways(scenario, careful)


async def test_a_suspension_undoes_nothing_nor_does_being_let_go_nor_a_termination(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin()
        run_id = await env.start(long_trip)
        await env.run()
        env.lose_everything()
        await env.suspend(run_id)
        await env.advance("1d")
        assert (await env.status(run_id)).status == "suspended"
        assert await done(env, run_id) == ["hotel", "flight"]
        await env.terminate(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "terminated"
        assert await done(env, run_id) == ["hotel", "flight"]
        assert "un-flight" not in LOG

    await ways(scenario, long_trip)


async def test_going_on_as_a_new_generation_undoes_nothing(embedded_ways: Ways) -> None:
    @workflow
    async def twice(ctx: WorkflowContext, generation: int) -> str:
        await ctx.execute_activity(book, f"hotel {generation}")
        if generation == 0:
            ctx.continue_as_new(1)
        return await ctx.execute_activity(step, "charge")

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(twice, 0)
        await failure(env, run_id)
        assert await done(env, run_id) == ["hotel 1", "un-hotel 1"]
        assert "un-hotel 0" not in LOG

    await embedded_ways(scenario, twice)


# --- and retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_retries", [0, 2])
async def test_a_workflow_with_a_retry_policy_undoes_only_after_the_last_retry(
    embedded_ways: Ways, max_retries: int
) -> None:
    policy = RetryPolicy(max_retries=max_retries, initial_delay=60, jitter=False)
    retried = workflow(name="retried_trip", retry_policy=policy)(trip.fn)

    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(retried)
        await failure(env, run_id)
        assert await done(env, run_id) == DONE_AND_UNDONE
        assert (await env.status(run_id)).retry_count == max_retries
        if env.plain:
            assert ["hotel", "flight", *["charge"] * (max_retries + 1), "un-flight", "un-hotel"] == LOG

    await embedded_ways(scenario, retried)


@workflow
async def mixed_trip(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(step, "quote")
    await ctx.execute_activity(book, "hotel")
    await ctx.execute_activity(step, "tell the hotel")
    await ctx.execute_activity(book, "flight")
    return await ctx.execute_activity(step, "charge")


async def test_a_retry_of_an_undone_run_begins_anew_at_the_first_step_that_was_undone(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(mixed_trip)
        await failure(env, run_id)
        BROKEN.clear()
        await env.retry(run_id)
        assert await env.result(run_id) == "charge"
        first = ["quote", "hotel", "tell the hotel", "flight", "un-flight", "un-hotel"]
        assert await done(env, run_id) == [*first, "hotel", "tell the hotel", "flight", "charge"]
        # Each is another step than the one that was undone, for whoever counts by idempotency key.
        assert len(set(KEYS["quote"])) == 1
        assert [len(set(KEYS[one])) for one in ("hotel", "tell the hotel", "flight")] == [2, 2, 2]

    await ways(scenario, mixed_trip)


async def test_what_could_not_be_undone_is_not_done_again(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge", "un-hotel")
        run_id = await env.start(trip)
        await failure(env, run_id)
        BROKEN.clear()
        await env.retry(run_id)
        assert await env.result(run_id) == "charge"
        assert await done(env, run_id) == ["hotel", "flight", "un-flight", "flight", "charge"]

    await embedded_ways(scenario, trip)


async def test_an_undone_run_that_fails_again_undoes_again_what_it_did_again(embedded_ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin("charge")
        run_id = await env.start(trip)
        for _ in range(2):
            await failure(env, run_id)
            await env.retry(run_id)
        await failure(env, run_id)
        assert await done(env, run_id) == DONE_AND_UNDONE * 3
        assert [len(set(KEYS[one])) for one in ("hotel", "flight", "un-flight", "un-hotel")] == [3, 3, 3, 3]

    await embedded_ways(scenario, trip)
