"""Patterns of waiting: a timer that is moved, reminders until somebody acts, a monitor that asks again and again."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.scenarios.conftest import Ways
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, activity_context, workflow
from tinyworkflow_core.errors import WorkflowFailedError
from tinyworkflow_core.testing import START, WorkflowEnvironment

LOG: list[Any] = []
READY_AFTER = [5]
"""The monitored thing is ready at this question, counted from 1."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    LOG.clear()


async def wake_at(env: WorkflowEnvironment, run_id: str) -> datetime | None:
    run = await env.store.get(run_id)
    assert run is not None
    return run.wake_at


async def live_timers(env: WorkflowEnvironment, run_id: str) -> list[datetime]:
    """When the timers are due that the run waits for, by the execution that its history leads to."""
    state = await env.store.load(run_id)
    assert state is not None
    app = env._processes[0].app
    from tinyworkflow_core.engine.context import RunFacts
    from tinyworkflow_core.engine.replay import Execution

    run = state.run
    facts = RunFacts(
        run_id=run_id, workflow_id=run.workflow_id, name=run.name, version=run.version, generation=run.generation
    )
    execution = Execution(app.registry.workflow(run.name, run.version), state.history, facts=facts, codec=app.codec)
    found = [one.due for one in execution.journal.open.values() if one.due is not None]
    execution.close()
    return found


# --- a timer that is moved -----------------------------------------------------------------------------


@workflow
async def updatable(ctx: WorkflowContext, seconds: int) -> float:
    due = ctx.now() + timedelta(seconds=seconds)
    while True:
        try:
            async with asyncio.timeout((due - ctx.now()).total_seconds()):
                due = await ctx.wait_for_signal("move")
        except TimeoutError:
            return (ctx.now() - START).total_seconds()


async def test_a_timer_that_is_moved_earlier_and_later_is_one_timer_and_fires_once(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(updatable, 3600)
        await env.run()
        for seconds in (7200, 7200, 600):
            assert len(await live_timers(env, run_id)) == 1
            due = START + timedelta(seconds=seconds)
            await env.signal(run_id, "move", due)
            await env.run()
            assert await live_timers(env, run_id) == [due]
            assert await wake_at(env, run_id) == due
        await env.advance("599s")
        assert (await env.status(run_id)).status == "waiting"
        assert await env.result(run_id) == 600
        [fired] = await env.events(run_id, "TimerFired")
        assert fired["due"] == (START + timedelta(seconds=600)).isoformat()
        await env.advance("3h")
        assert len(await env.events(run_id, "TimerFired")) == 1

    await ways(scenario, updatable)


async def test_a_timer_that_is_moved_into_the_past_fires_at_once(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(updatable, 3600)
        await env.advance("10m")
        await env.signal(run_id, "move", START)
        await env.run()
        assert await env.result(run_id) == 600
        assert env.clock.now() == START + timedelta(minutes=10)

    await ways(scenario, updatable)


async def test_a_move_that_comes_in_the_second_in_which_the_timer_fires_is_not_lost(ways: Ways) -> None:
    """The message was there first: it wins, and the old timer is gone."""

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(updatable, 60)
        await env.run()
        env.clock.move_to(START + timedelta(seconds=60))
        await env.signal(run_id, "move", START + timedelta(seconds=120))
        await env.run()
        assert await live_timers(env, run_id) == [START + timedelta(seconds=120)]
        assert await env.result(run_id) == 120

    await ways(scenario, updatable)


# --- reminders until somebody acts -----------------------------------------------------------------------


@activity
async def send_mail(number: int) -> None:
    LOG.append(number)


@workflow
async def reminders(ctx: WorkflowContext) -> int:
    mails = 0
    while True:
        mails += 1
        await ctx.execute_activity(send_mail, mails)
        try:
            await ctx.wait_for_signal("complete", timeout="30d")
        except TimeoutError:
            continue
        return mails


async def test_ninety_days_are_four_mails_and_complete_ends_it_and_takes_the_timer_away(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(reminders)
        await env.advance("90d")
        assert sorted(set(LOG)) == [1, 2, 3, 4]
        if env.plain:
            assert LOG == [1, 2, 3, 4]
        assert await wake_at(env, run_id) == START + timedelta(days=120)
        assert len(await live_timers(env, run_id)) == 1
        await env.advance("5d")
        await env.signal(run_id, "complete")
        await env.run()
        run = await env.status(run_id)
        assert (run.status, run.output_data) == ("completed", {"result": 4})
        assert await wake_at(env, run_id) is None
        await env.advance("365d")
        assert len(await env.events(run_id, "TimerFired")) == 3
        assert max(LOG) == 4

    await ways(scenario, reminders)


async def test_reminders_go_on_when_everything_was_down_for_months(stores: StoreFactory) -> None:
    store = stores()
    env = WorkflowEnvironment([reminders], store=store)
    run_id = await env.start(reminders)
    await env.run()
    env.lose_everything()
    env.clock.move_to(START + timedelta(days=100))
    await env.run()
    assert LOG == [1, 2]  # late, and once: the next one is a month after that
    assert await wake_at(env, run_id) == START + timedelta(days=130)
    await store.close()


# --- monitors ------------------------------------------------------------------------------------------


@activity(retry_policy=RetryPolicy(max_retries=2, initial_delay=1, jitter=False))
async def is_ready(asked: int) -> bool:
    LOG.append((asked, activity_context().attempt))
    if activity_context().attempt == 1:  # a service that is always shaky
        raise ConnectionError("reset by peer")
    return asked >= READY_AFTER[0]


@workflow
async def monitor(ctx: WorkflowContext, state: dict[str, Any]) -> str:
    """Asks every minute until it is ready or the deadline has passed; a fresh history every two questions."""
    deadline, asked = state["deadline"], state.get("asked", 0)
    while ctx.now() < deadline:
        asked += 1
        if await ctx.execute_activity(is_ready, asked):
            return f"ready at question {asked}"
        await ctx.sleep_until(min(ctx.now() + timedelta(minutes=1), deadline))
        if asked % 2 == 0:
            ctx.continue_as_new({"deadline": deadline, "asked": asked})
    raise TimeoutError(f"not ready after {asked} questions")


async def test_a_monitor_asks_until_it_is_ready_and_no_more(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        READY_AFTER[0] = 3
        run_id = await env.start(monitor, {"deadline": START + timedelta(hours=1)})
        assert await env.result(run_id) == "ready at question 3"
        assert {asked for asked, _ in LOG} == {1, 2, 3}
        if env.plain:
            assert len(LOG) == 6
        await env.advance("2h")
        assert {asked for asked, _ in LOG} == {1, 2, 3}

    await ways(scenario, monitor)


async def test_a_monitor_gives_up_at_its_deadline_to_the_second(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        READY_AFTER[0] = 99
        run_id = await env.start(monitor, {"deadline": START + timedelta(seconds=90)})
        with pytest.raises(WorkflowFailedError, match="TimeoutError: not ready after 2 questions"):
            await env.result(run_id)
        if not env.crashed:
            assert env.clock.now() == START + timedelta(seconds=90)

    await ways(scenario, monitor)


async def test_a_monitor_survives_the_loss_of_everything_between_any_two_questions(stores: StoreFactory) -> None:
    READY_AFTER[0] = 6
    store = stores()
    env = WorkflowEnvironment([monitor], store=store)
    run_id = await env.start(monitor, {"deadline": START + timedelta(hours=1)})
    for _ in range(7):
        env.lose_everything()
        await env.advance("1m")
    assert await env.result(run_id) == "ready at question 6"
    questions = [(asked, attempt) for asked in range(1, 7) for attempt in (1, 2)]
    assert questions == LOG
    await store.close()


async def test_the_stored_history_of_a_monitor_does_not_grow_with_its_questions_and_retries(
    stores: StoreFactory,
) -> None:
    READY_AFTER[0] = 31
    store = stores()
    env = WorkflowEnvironment([monitor], store=store)
    run_id = await env.start(monitor, {"deadline": START + timedelta(days=1)})
    lengths = []
    for _ in range(33):
        await env.advance("61s")
        lengths.append(len(await env.events(run_id)))
    assert len(LOG) == 31 * 2
    assert max(lengths) <= 12
    state = await store.load(run_id)
    assert state is not None
    assert state.run.generation == 15
    assert await env.result(run_id) == "ready at question 31"
    await store.close()
