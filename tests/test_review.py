"""What a hostile look at the run protocol has found: each test is a guarantee that once did not hold."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
import warnings
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from tinyworkflow_core import AdvanceSettings, App, RetryAfter, RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.activities import ActivityRunner
from tinyworkflow_core.advance import Progress
from tinyworkflow_core.approvals import Decision
from tinyworkflow_core.clock import SystemClock
from tinyworkflow_core.dispatcher import Advance, Task
from tinyworkflow_core.dispatchers.local import LocalDispatcher
from tinyworkflow_core.errors import (
    ApprovalClosedError,
    InvalidInputError,
    PayloadTooLargeError,
    SerializationError,
    StoreUnavailableError,
)
from tinyworkflow_core.store import Run, Status, Store, Taken
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import VirtualClock, WorkflowEnvironment

CALLS: list[Any] = []
NEVER = RetryPolicy(max_retries=0)


class Gate:
    """What holds `until_released` back; a fresh one for each test."""

    opened = asyncio.Event()


@activity(retry_policy=NEVER)
async def takes_a_while(number: int) -> int:
    await asyncio.sleep(0.25)
    return number


@activity(retry_policy=NEVER)
async def until_released() -> str:
    CALLS.append("called")
    await Gate.opened.wait()
    return "worked"


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=0, jitter=False))
async def asks_for_a_pause(delay: str) -> str:
    CALLS.append(delay)
    raise RetryAfter(float(delay))


@activity(retry_policy=NEVER)
async def fails_at_length(number: int) -> None:
    raise ValueError(chr(0x65E5) * 8000)


@workflow
async def three_at_once(ctx: WorkflowContext) -> list[int]:
    return await ctx.execute_parallel(*((takes_a_while, (number,)) for number in range(3)))


@workflow
async def pauses(ctx: WorkflowContext, delay: str) -> str:
    try:
        return await ctx.execute_activity(asks_for_a_pause, delay)
    except Exception:
        return "gave up"


@workflow
async def waits(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_signal("go")


@workflow
async def asks(ctx: WorkflowContext) -> bool:
    return bool(await ctx.wait_for_approval("ok"))


@workflow
async def works(ctx: WorkflowContext) -> str:
    return await ctx.execute_activity(until_released)


@workflow
async def all_fail(ctx: WorkflowContext, count: int) -> int:
    found = await asyncio.gather(
        *(ctx.execute_activity(fails_at_length, number) for number in range(count)), return_exceptions=True
    )
    return len(found)


@workflow
async def no_longer_asks(ctx: WorkflowContext) -> str:
    question = asyncio.ensure_future(ctx.wait_for_approval("ok"))
    await ctx.wait_for_signal("never mind")
    question.cancel()
    return await ctx.execute_activity(until_released)


@workflow
async def polls(ctx: WorkflowContext) -> None:
    for _ in range(1_000_000):
        await asyncio.sleep(0.05)


@workflow
async def collects(ctx: WorkflowContext, count: int) -> int:
    for _ in range(count):
        await ctx.wait_for_signal("item")
    return count


def _leave() -> None:
    CALLS.append("called")
    raise GeneratorExit


@workflow
async def leaves(ctx: WorkflowContext) -> str:
    try:
        return str(await ctx.side_effect(_leave))
    except Exception as error:
        return str(getattr(error, "type", error))


@workflow
async def quick(ctx: WorkflowContext) -> str:
    return "done"


WORKFLOWS: list[Any] = [
    three_at_once, pauses, waits, asks, works, all_fail, no_longer_asks, polls, quick, collects, leaves,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    Gate.opened = asyncio.Event()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = open_store("sqlite:///:memory:")
    yield opened
    await opened.close()


def app(store: Any, **options: Any) -> App:
    return App(store, **({"workflows": WORKFLOWS, "dispatcher": "none"} | options))


async def _run(store: Store, run_id: str) -> Run:
    run = await store.get(run_id)
    assert run is not None
    return run


async def _types(one: App, run_id: str) -> list[str]:
    return [event["type"] for event in await one.client.get_workflow_events(run_id)]


class Faulty:
    """A store one of whose verbs raises what it is told to, so many times. Where that is `load`, `acquire` cannot read
    the run either."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.faults: dict[str, list[BaseException]] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name == "subscribe":
            return found

        async def verb(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if self.faults.get(name):
                raise self.faults[name].pop()
            answer = await found(*args, **options)
            return replace(answer, state=None) if "load" in self.faults and isinstance(answer, Taken) else answer

        return verb


# --- the end of a call's time --------------------------------------------------------------------


async def test_an_activity_that_waited_for_its_turn_was_not_attempted_by_a_call_that_ends(store: Store) -> None:
    one = app(store, request_seconds=0.4, max_concurrent_activities=1)
    run_id = await one.client.start_workflow(three_at_once)
    for _ in range(8):
        if await one.advance(run_id) is Progress.CLOSED:
            break
    assert await one.client.get_result(run_id, timeout=1) == [0, 1, 2]


async def test_a_continuation_that_comes_before_the_call_has_ended_goes_on(store: Store) -> None:
    class AtOnce:
        """Makes every call before the request for it returns, as a quick network may."""

        to: App
        calls = 0

        async def dispatch(self, task: Advance, at: datetime | None = None) -> None:
            if at is None and self.calls < 8:
                self.calls += 1
                await self.to.advance(task.run_id)

        async def close(self) -> None:
            pass

    soon = AtOnce()
    soon.to = one = app(store, dispatcher=soon, request_seconds=0.4, max_concurrent_activities=1)
    run_id = await one.client.start_workflow(three_at_once)
    assert await one.client.get_result(run_id, timeout=1) == [0, 1, 2]


# --- a store that cannot be read -------------------------------------------------------------------


async def test_a_history_that_this_release_cannot_read_parks_the_run_and_harms_it_in_no_way(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    faulty, clock = Faulty(store), VirtualClock()
    one = app(faulty, clock=clock)
    run_id = await one.client.start_workflow(quick)
    faulty.faults["load"] = [SerializationError("an event of a kind that this release does not know")] * 8
    while faulty.faults["load"]:
        assert await one.advance(run_id) is Progress.RELEASED
        run = await _run(store, run_id)
        assert (run.status, run.lease_owner) == (Status.PARKED, None)
        assert "does not know" in (run.problem or "")
        clock.move_to(clock.now() + timedelta(minutes=5))
    assert await one.advance(run_id) is Progress.CLOSED
    assert await _types(one, run_id) == ["RunStarted", "RunPickedUp", "RunCompleted"]


async def test_a_run_that_could_not_be_loaded_is_let_go_and_not_taken_for_dead(store: Store) -> None:
    faulty, clock = Faulty(store), VirtualClock()
    one = app(faulty, clock=clock)
    run_id = await one.client.start_workflow(quick)
    for _ in range(8):
        faulty.faults["load"] = [StoreUnavailableError("away")]
        with pytest.raises(StoreUnavailableError):
            await one.advance(run_id)
        run = await _run(store, run_id)
        assert run.lease_owner is None
        assert run.wake_at == clock.now() + timedelta(seconds=30)
        clock.move_to(clock.now() + timedelta(seconds=31))
    assert await one.advance(run_id) is Progress.CLOSED
    assert await one.client.get_result(run_id) == "done"


async def test_a_run_that_cannot_be_read_is_parked_although_the_first_answer_to_that_is_lost(store: Store) -> None:
    faulty = Faulty(store)
    one = app(faulty)
    run_id = await one.client.start_workflow(quick)
    faulty.faults["load"] = [SerializationError("an event of a kind that this release does not know")]
    faulty.faults["commit"] = [StoreUnavailableError("away")]
    assert await one.advance(run_id) is Progress.RELEASED
    run = await _run(store, run_id)
    assert (run.status, run.lease_owner) == (Status.PARKED, None)
    assert "does not know" in (run.problem or "")


async def test_an_inbox_that_cannot_be_read_just_now_ends_no_activity_that_works(store: Store) -> None:
    faulty = Faulty(store)
    one = app(faulty, settings=AdvanceSettings(lease_seconds=0.3))
    run_id = await one.client.start_workflow(works)
    call = asyncio.create_task(one.advance(run_id))
    await eventually(_called)
    faulty.faults["inbox"] = [StoreUnavailableError("away")]
    await one.client.send_signal(run_id, "noise")
    await eventually(lambda: _all_raised(faulty, "inbox"))
    Gate.opened.set()
    assert await call is Progress.CLOSED
    assert CALLS == ["called"]


async def _called() -> bool:
    return bool(CALLS)


async def _all_raised(faulty: Faulty, verb: str) -> bool:
    return not faulty.faults[verb]


async def test_a_call_cancelled_while_it_loads_its_run_leaves_it_free(store: Store) -> None:
    class Slow(Faulty):
        reached = asyncio.Event()

        def __getattr__(self, name: str) -> Any:
            found = super().__getattr__(name)
            if name != "load":
                return found

            async def slow(*args: Any, **options: Any) -> Any:
                answer = asyncio.ensure_future(found(*args, **options))  # like a request that is on its way
                self.reached.set()
                await asyncio.sleep(0.05)
                return await answer

            return slow

    slow = Slow(store)
    slow.faults["load"] = []
    one = app(slow)
    run_id = await one.client.start_workflow(quick)
    call = asyncio.create_task(one.advance(run_id))
    await slow.reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0.1)
    assert (await _run(store, run_id)).lease_owner is None


# --- attempts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", ["-1", "1e15", "nan", "inf"])
async def test_a_pause_that_no_clock_can_keep_counts_as_an_attempt_all_the_same(delay: str) -> None:
    async with WorkflowEnvironment([pauses]) as world:
        run_id = await world.start(pauses, delay)
        assert await world.result(run_id) == "gave up"
        assert len(CALLS) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_starts_threads_of_its_own_for_its_activities() -> None:
    @activity
    def in_a_thread() -> int:
        return 1

    async def once(runner: ActivityRunner) -> str:
        from tests.test_activities import attempt

        return type(await asyncio.wait_for(runner(attempt(in_a_thread)), 5)).__name__

    from tests.test_activities import runner as new_runner

    runner = new_runner()
    assert asyncio.run(once(runner)) == "ActivityCompleted"
    time.sleep(0.1)  # now its thread is idle
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads: that is the point
        child = os.fork()
    if not child:
        try:
            os._exit(0 if asyncio.run(once(runner)) == "ActivityCompleted" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- messages --------------------------------------------------------------------------------------


async def test_a_message_that_fits_no_history_is_refused_and_not_left_to_poison_the_run(store: Store) -> None:
    one, large = app(store), "x" * 5_000_000
    run_id = await one.client.start_workflow(asks)
    await one.advance(run_id)
    with pytest.raises(PayloadTooLargeError):
        await one.client.cancel_workflow(run_id, large)
    with pytest.raises(PayloadTooLargeError):
        await one.client.send_signal(run_id, large)
    with pytest.raises(PayloadTooLargeError):
        await one.client.send_signal(run_id, "go", message_id=large)
    for decision in (Decision(approved=True, comment=large), Decision(approved=True, by=large)):
        with pytest.raises(PayloadTooLargeError):
            await one.decide(run_id, "ok", decision)
    assert not await store.inbox(run_id)
    await one.decide(run_id, "ok", Decision(approved=True))
    assert await one.advance(run_id) is Progress.CLOSED


async def test_failures_in_any_script_are_cut_into_documents_that_hold_them(store: Store) -> None:
    one = app(store)
    run_id = await one.client.start_workflow(all_fail, 200)
    assert await one.advance(run_id) is Progress.CLOSED
    assert await one.client.get_result(run_id) == 200


async def test_a_question_that_was_withdrawn_takes_no_decision_while_a_step_is_at_work(store: Store) -> None:
    one = app(store, dispatcher="local")
    run_id = await one.client.start_workflow(no_longer_asks)
    await eventually(lambda: _asks(store, run_id))
    await one.client.send_signal(run_id, "never mind")
    await eventually(_called)
    await eventually(lambda: _asks_nothing(store, run_id), seconds=3)
    with pytest.raises(ApprovalClosedError):
        await one.decide(run_id, "ok", Decision(approved=True))
    Gate.opened.set()
    assert await one.client.get_result(run_id, timeout=5) == "worked"
    await one.dispatcher.close()


async def _asks(store: Store, run_id: str) -> bool:
    return bool((await _run(store, run_id)).open_approvals)


async def _asks_nothing(store: Store, run_id: str) -> bool:
    return not await _asks(store, run_id)


async def test_a_side_effect_that_raises_whatever_it_likes_is_called_once(store: Store) -> None:
    one = app(store)
    run_id = await one.client.start_workflow(leaves)
    assert await one.advance(run_id) is Progress.CLOSED
    assert await one.client.get_result(run_id) == "GeneratorExit"
    assert CALLS == ["called"]


async def test_a_backlog_of_messages_is_read_once_and_not_once_for_each_commit(store: Store) -> None:
    faulty = Faulty(store)
    one = app(faulty, settings=AdvanceSettings(messages_per_commit=5))
    run_id = await one.client.start_workflow(collects, 100)
    for number in range(100):
        await one.client.send_signal(run_id, "item", message_id=str(number))
    assert await one.advance(run_id) is Progress.CLOSED
    assert faulty.calls.count("inbox") <= 1


async def test_a_call_ends_in_time_however_many_messages_keep_coming(store: Store) -> None:
    class Flooded(Faulty):
        """Whenever the run writes something, another signal comes."""

        async def commit(self, *args: Any) -> None:
            await store.commit(*args)
            await asyncio.sleep(0.01)
            self.calls.append("commit")
            if len(self.calls) < 400:
                await client.send_signal(run_id, "item")

    flooded = Flooded(store)
    one = app(flooded, request_seconds=0.2)
    client = app(store).client
    run_id = await client.start_workflow(collects, 1_000)
    await client.send_signal(run_id, "item")
    began = asyncio.get_running_loop().time()
    assert await asyncio.wait_for(one.advance(run_id), 10) is Progress.CONTINUES
    assert asyncio.get_running_loop().time() - began < 1.5
    assert await one.advance(run_id) is Progress.CONTINUES  # and the next one takes up more of them


# --- time ------------------------------------------------------------------------------------------


async def test_a_clock_that_is_set_back_does_not_stop_the_lease_from_being_renewed(store: Store) -> None:
    class Moved:
        by = timedelta()

        def now(self) -> datetime:
            return SystemClock().now() + self.by

    clock, faulty = Moved(), Faulty(store)
    one = app(faulty, clock=clock, settings=AdvanceSettings(lease_seconds=0.6))
    run_id = await one.client.start_workflow(works)
    call = asyncio.create_task(one.advance(run_id))
    await eventually(_called)
    clock.by = -timedelta(hours=1)
    faulty.calls.clear()
    await asyncio.sleep(0.6)
    assert "renew" in faulty.calls
    Gate.opened.set()
    assert await asyncio.wait_for(call, 5) is Progress.CLOSED


async def test_runs_that_nap_for_ever_leave_room_for_the_others(store: Store) -> None:
    one = app(store, settings=AdvanceSettings(patience_seconds=0.2))
    narrow = LocalDispatcher(one.carry_out, clock=one.clock, max_calls=2)
    other = app(store, dispatcher=narrow, settings=AdvanceSettings(patience_seconds=0.2))
    narrow._handler = other.carry_out
    for _ in range(2):
        await other.client.start_workflow(polls)
    run_id = await other.client.start_workflow(quick)
    try:
        assert await other.client.get_result(run_id, timeout=5) == "done"
    finally:
        await narrow.close()


async def test_later_calls_that_an_earlier_one_replaced_are_not_kept_for_ever() -> None:
    async def handler(task: Task) -> None:
        pass

    clock = VirtualClock()
    local = LocalDispatcher(handler, clock=clock)
    for _ in range(1000):
        await local.dispatch(Advance(run_id="run"), at=clock.now() + timedelta(days=30))
        await local.dispatch(Advance(run_id="run"), at=clock.now() + timedelta(seconds=1))
        clock.move_to(clock.now() + timedelta(seconds=1))
        local._fire()
        await asyncio.sleep(0)
    assert len(local._later) < 200
    await local.close()


# --- records ---------------------------------------------------------------------------------------


async def test_a_number_that_is_none_is_no_attribute(store: Store) -> None:
    one = app(store)
    for number in (math.nan, math.inf):
        with pytest.raises(InvalidInputError):
            await one.client.start_workflow(quick, attributes={"n": number})
    await one.client.start_workflow(quick, attributes={"n": 1})
    assert len(await one.client.list_workflow_executions(attributes={"n": 1})) == 1
