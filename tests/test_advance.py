"""One call: what it holds on to, what it lets go of, and what it leaves behind when something goes wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from tinyworkflow_core import AdvanceSettings, App, RetryAfter, RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.advance import Progress
from tinyworkflow_core.advance.holding import Attention
from tinyworkflow_core.approvals import Decision
from tinyworkflow_core.clock import SystemClock
from tinyworkflow_core.errors import StoreError, StoreUnavailableError
from tinyworkflow_core.store import Commit, Lease, Run, Status, Store
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import START, VirtualClock

CALLS: list[Any] = []


@activity
async def note(what: Any) -> Any:
    CALLS.append(what)
    return what


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=0))
async def long() -> str:
    CALLS.append("long")
    await asyncio.sleep(30)
    return "done"


@workflow
async def steps(ctx: WorkflowContext, count: int) -> int:
    for number in range(count):
        await ctx.execute_activity(note, number)
    return count


@workflow
async def one_long(ctx: WorkflowContext) -> str:
    try:
        return await ctx.execute_activity(long)
    except TimeoutError as error:
        return str(error)


@workflow
async def asks_while_working(ctx: WorkflowContext) -> list[Any]:
    async def ask() -> bool:
        return bool(await ctx.wait_for_approval("ok"))

    answer, worked = await asyncio.gather(ask(), ctx.execute_activity(until_released))
    return [answer, worked]


class Gate:
    """What holds `until_released` back; a fresh one for each test."""

    opened = asyncio.Event()


@activity
async def until_released() -> str:
    await Gate.opened.wait()
    return "worked"


@workflow
async def stops_on_signal(ctx: WorkflowContext) -> str:
    working = asyncio.create_task(ctx.execute_activity(until_released))
    await ctx.wait_for_signal("stop")
    working.cancel()
    await asyncio.wait([working])
    return "stopped"


@workflow
async def short_nap(ctx: WorkflowContext) -> str:
    await asyncio.sleep(0.05)
    return "rested"


@workflow
async def large(ctx: WorkflowContext, count: int) -> int:
    found = await ctx.execute_parallel(*((blob, (number,)) for number in range(count)))
    return sum(map(len, found))


@activity
async def blob(number: int) -> str:
    return "x" * 500_000


@workflow
async def collects(ctx: WorkflowContext, count: int) -> int:
    return sum([len(await ctx.wait_for_signal("item")) for _ in range(count)])


WORKFLOWS: list[Any] = [steps, one_long, asks_while_working, stops_on_signal, short_nap, large, collects]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    Gate.opened = asyncio.Event()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = open_store("sqlite:///:memory:")
    yield opened
    await opened.close()


def app(store: Store, **options: Any) -> App:
    return App(store, **({"workflows": WORKFLOWS, "dispatcher": "none"} | options))


async def _run(store: Store, run_id: str) -> Run:
    run = await store.get(run_id)
    assert run is not None
    return run


async def _asks(store: Store, run_id: str) -> bool:
    return bool((await _run(store, run_id)).open_approvals)


async def _asks_nothing(store: Store, run_id: str) -> bool:
    return not await _asks(store, run_id)


async def _is_running(store: Store, run_id: str) -> bool:
    return (await _run(store, run_id)).status is Status.RUNNING


async def _types(one: App, run_id: str) -> list[str]:
    return [event["type"] for event in await one.client.get_workflow_events(run_id)]


async def test_a_call_whose_time_is_up_hands_over_and_the_next_goes_on(store: Store) -> None:
    class Ticking:
        """Every look at the clock takes a second."""

        moment = START

        def now(self) -> datetime:
            self.moment += timedelta(seconds=1)
            return self.moment

    one = app(store, clock=Ticking(), request_seconds=20.0)
    run_id = await one.client.start_workflow(steps, 10)
    progress, calls = Progress.CONTINUES, 0
    while progress is Progress.CONTINUES:
        progress, calls = await one.advance(run_id), calls + 1
        assert calls < 50
    assert progress is Progress.CLOSED
    assert calls > 1
    assert list(range(10)) == CALLS


async def test_an_attempt_cut_off_in_a_call_that_it_had_to_itself_counts_as_failed(store: Store) -> None:
    one = app(store, request_seconds=0.4)
    run_id = await one.client.start_workflow(one_long)
    assert await one.advance(run_id) is Progress.CONTINUES
    assert await one.advance(run_id) is Progress.CONTINUES
    assert await one.advance(run_id) is Progress.CLOSED
    assert CALLS == ["long", "long"]
    assert "that is all a call may take here" in await one.client.get_result(run_id)


async def test_an_attempt_cut_off_by_the_end_of_the_process_never_was(store: Store) -> None:
    one = app(store)
    run_id = await one.client.start_workflow(asks_while_working)
    call = asyncio.create_task(one.advance(run_id))
    await eventually(lambda: _asks(store, run_id))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    run = await _run(store, run_id)
    assert (run.status, run.lease_owner, [a.key for a in run.open_approvals]) == ("pending", None, ["ok"])
    assert run.wake_at is not None
    assert run.wake_at <= SystemClock().now()
    assert await _types(one, run_id) == ["RunStarted", "ApprovalRequested"]
    Gate.opened.set()
    await one.decide(run_id, "ok", Decision(approved=True))
    assert await one.advance(run_id) is Progress.CLOSED
    assert await one.client.get_result(run_id) == [True, "worked"]


async def test_an_approval_shows_and_can_be_decided_while_a_step_is_at_work(store: Store) -> None:
    one = app(store, dispatcher="local")
    run_id = await one.client.start_workflow(asks_while_working)
    await eventually(lambda: _asks(store, run_id))
    await one.decide(run_id, "ok", Decision(approved=True, by="ann"))
    await eventually(lambda: _asks_nothing(store, run_id))
    await one.decide(run_id, "ok", Decision(approved=True))  # taken up, and still the same answer
    Gate.opened.set()
    assert await one.client.get_result(run_id, timeout=5) == [True, "worked"]
    await one.dispatcher.close()


async def test_a_signal_reaches_a_run_whose_step_is_at_work(store: Store) -> None:
    one = app(store, dispatcher="local")
    run_id = await one.client.start_workflow(stops_on_signal)
    await eventually(lambda: _is_running(store, run_id))
    await one.client.send_signal(run_id, "stop")
    assert await one.client.get_result(run_id, timeout=5) == "stopped"
    assert "ActivityCancelled" in await _types(one, run_id)
    await one.dispatcher.close()


async def test_renewing_the_lease_tells_of_messages_that_nobody_dispatched(store: Store) -> None:
    one = app(store, settings=AdvanceSettings(lease_seconds=0.3))
    run_id = await one.client.start_workflow(stops_on_signal)
    call = asyncio.create_task(one.advance(run_id))
    await asyncio.sleep(0.05)
    await app(store).client.send_signal(run_id, "stop")  # another process, whose wake-up is lost
    assert await asyncio.wait_for(call, 5) is Progress.CLOSED


async def test_a_step_longer_than_the_lease_keeps_it(store: Store) -> None:
    one = app(store, settings=AdvanceSettings(lease_seconds=0.2))
    run_id = await one.client.start_workflow(stops_on_signal)
    call = asyncio.create_task(one.advance(run_id))
    await asyncio.sleep(0.5)  # more than two leases
    assert await app(store).advance(run_id) is Progress.BUSY
    await one.client.send_signal(run_id, "stop")
    assert await asyncio.wait_for(call, 5) is Progress.CLOSED
    assert "LeaseTaken" not in await _types(one, run_id)


async def test_a_timer_within_the_patience_is_waited_for_and_a_longer_one_is_not(store: Store) -> None:
    patient = app(store)
    run_id = await patient.client.start_workflow(short_nap)
    assert await patient.advance(run_id) is Progress.CLOSED
    hasty = app(store, settings=AdvanceSettings(patience_seconds=0.01))
    run_id = await hasty.client.start_workflow(short_nap)
    assert await hasty.advance(run_id) is Progress.RELEASED
    run = await _run(store, run_id)
    assert (run.status, run.lease_owner) == ("waiting", None)


async def test_results_too_large_for_one_document_go_into_several(store: Store) -> None:
    class Small:
        """The same store, with documents as small as Firestore's."""

        max_event_bytes = 1_000_000

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    one = app(Small())
    run_id = await one.client.start_workflow(large, 5)
    assert await one.advance(run_id) is Progress.CLOSED
    assert await one.client.get_result(run_id) == 2_500_000
    run_id = await one.client.start_workflow(collects, 5)
    for number in range(5):
        await one.client.send_signal(run_id, "item", "y" * 400_000, message_id=str(number))
    assert await one.advance(run_id) is Progress.CLOSED
    assert await one.client.get_result(run_id) == 2_000_000


class Flaky:
    """A store whose commits fail when told to, before or after they have happened."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fail: list[tuple[str, StoreError]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, lease: Lease, commit: Commit) -> None:
        when, error = self.fail.pop() if self.fail else ("never", StoreError())
        if when == "before":
            raise error
        await self._store.commit(lease, commit)
        if when == "after":
            raise error


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_write_that_the_store_could_not_confirm_is_made_again_once(store: Store, when: str) -> None:
    flaky = Flaky(store)
    one = app(flaky)
    run_id = await one.client.start_workflow(steps, 3)
    flaky.fail = [(when, StoreUnavailableError("away"))] * 2
    assert await one.advance(run_id) is Progress.CLOSED
    assert CALLS == [0, 1, 2]
    assert await _types(one, run_id) == ["RunStarted", *["ActivityCompleted"] * 3, "RunCompleted"]


async def test_a_call_that_breaks_lets_go_of_its_run_and_does_not_come_back_at_once(store: Store) -> None:
    flaky = Flaky(store)
    clock = VirtualClock()
    one = app(flaky, clock=clock)
    run_id = await one.client.start_workflow(steps, 3)
    flaky.fail = [("before", StoreError("broken"))]
    with pytest.raises(StoreError, match="broken"):
        await one.advance(run_id)
    run = await _run(store, run_id)
    assert (run.status, run.lease_owner, run.wake_at) == ("pending", None, START + timedelta(seconds=30))
    assert await one.advance(run_id) is Progress.CLOSED
    assert CALLS == [0, 0, 1, 2]  # the step whose result was not written is made again


async def test_a_run_whose_code_is_gone_or_differs_is_parked_whole_and_goes_on_with_fitting_code(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow(name="evolving")
    async def first(ctx: WorkflowContext) -> Any:
        await ctx.execute_activity(note, "a")
        return await ctx.wait_for_signal("go", timeout="1h")

    @workflow(name="evolving")
    async def second(ctx: WorkflowContext) -> Any:
        await ctx.execute_activity(note, "b")
        return await ctx.wait_for_signal("go", timeout="1h")

    caplog.set_level(logging.CRITICAL)
    clock = VirtualClock()
    with_first = app(store, workflows=[first], clock=clock)
    run_id = await with_first.client.start_workflow("evolving")
    assert await with_first.advance(run_id) is Progress.RELEASED
    for definitions, problem in ([], "no workflow 'evolving'"), ([second], "step 1: the history records activity"):
        other = app(store, workflows=definitions, clock=clock)
        assert await other.advance(run_id) is Progress.RELEASED
        run = await _run(store, run_id)
        assert run.status == "parked"
        assert problem in (run.problem or "")
        assert run.wake_at == clock.now() + timedelta(minutes=5)
    assert f"{__file__}:" in (run.problem or "")
    await with_first.client.send_signal(run_id, "go", "on")
    assert await with_first.advance(run_id) is Progress.CLOSED
    assert await with_first.client.get_result(run_id) == "on"
    assert CALLS == ["a"]


@dataclass
class Parcel:
    weight: int


@activity
async def pack() -> Parcel:
    return Parcel(weight=3)


@workflow
async def ships(ctx: WorkflowContext) -> int:
    parcel = await ctx.execute_activity(pack)
    try:
        await ctx.wait_for_signal("go")
    except Exception:
        return -1
    return parcel.weight


async def test_a_result_whose_class_is_gone_parks_the_run_until_it_is_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    one = app(store, workflows=[ships])
    run_id = await one.client.start_workflow(ships)
    assert await one.advance(run_id) is Progress.RELEASED
    await one.client.send_signal(run_id, "go")
    with monkeypatch.context() as without:
        without.delattr(sys.modules[__name__], "Parcel")
        assert await one.advance(run_id) is Progress.RELEASED
        run = await _run(store, run_id)
        assert (run.status, "Parcel" in (run.problem or "")) == ("parked", True)
    assert await one.advance(run_id) is Progress.CLOSED
    assert await one.client.get_result(run_id) == 3


async def test_retry_after_reaches_the_workflow_as_itself(store: Store) -> None:
    @activity(retry_policy=RetryPolicy(max_retries=0))
    async def busy() -> None:
        raise RetryAfter(7, "come back later")

    @workflow
    async def asks_again(ctx: WorkflowContext) -> float:
        try:
            await ctx.execute_activity(busy)
        except RetryAfter as error:
            return error.delay
        return -1

    one = app(store, workflows=[asks_again])
    run_id = await one.client.start_workflow(asks_again)
    assert await one.advance(run_id) is Progress.CLOSED
    assert await one.client.get_result(run_id) == 7


async def test_a_history_written_in_another_order_of_commits_is_the_same_history(store: Store) -> None:
    one = app(store)
    run_id = await one.client.start_workflow(steps, 3)
    await one.advance(run_id)
    state = await store.load(run_id)
    assert state is not None
    copy = replace(state.run, run_id="copy", status=Status.PENDING, output=None, closed_at=None, wake_at=START)
    assert await store.create(copy, list(state.history)[:3])
    assert await one.advance("copy") is Progress.CLOSED
    assert CALLS == [0, 1, 2, 2]


async def test_asking_for_a_run_that_is_not_there_or_has_ended_does_nothing(store: Store) -> None:
    one = app(store)
    assert await one.advance("nobody") is Progress.UNKNOWN
    run_id = await one.client.start_workflow(steps, 0)
    assert await one.advance(run_id) is Progress.CLOSED
    before = await _run(store, run_id)
    assert await one.advance(run_id) is Progress.CLOSED
    assert await _run(store, run_id) == before


async def test_a_wait_is_not_cut_short_by_the_time_of_one_before_it_that_was_called() -> None:
    attention, loop = Attention(), asyncio.get_running_loop()
    for between in (0.0, 0.05):
        loop.call_later(0.01, attention.call)
        await attention.wait(0.04)
        await asyncio.sleep(between)  # the first wait's time may come while nobody waits, too
        began = loop.time()
        await attention.wait(0.1)
        assert loop.time() - began > 0.09
    loop.call_soon(attention.call)
    await attention.wait(3600)
    attention.call()
    await attention.wait(3600)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no eager tasks")
async def test_steps_that_end_before_their_task_was_first_put_off_count(store: Store) -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    try:
        one = app(store)
        run_id = await one.client.start_workflow(steps, 3)
        assert await asyncio.wait_for(one.advance(run_id), 30) is Progress.CLOSED
    finally:
        loop.set_task_factory(before)
    assert CALLS == [0, 1, 2]


def test_an_interrupt_in_a_step_ends_the_process_without_a_word_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    @activity
    async def interrupted() -> None:
        raise KeyboardInterrupt

    @workflow
    async def begins(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(interrupted)

    async def main() -> None:
        opened = open_store("sqlite:///:memory:")
        try:
            one = app(opened, workflows=[begins])
            await one.advance(await one.client.start_workflow(begins))
        finally:
            await opened.close()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    gc.collect()
    assert [one.getMessage() for one in caplog.records if one.name == "asyncio"] == []


async def test_a_run_that_waited_for_somebody_to_pick_it_up_sleeps_no_shorter(store: Store) -> None:
    clock = VirtualClock()
    one = app(store, clock=clock, workflows=[naps_for_an_hour])
    run_id = await one.client.start_workflow(naps_for_an_hour)
    clock.move_to(START + timedelta(hours=2))  # nobody was there
    picked_up = clock.now()
    assert await one.advance(run_id) is Progress.RELEASED
    assert (await _run(store, run_id)).wake_at == picked_up + timedelta(hours=1)
    assert await _types(one, run_id) == ["RunStarted", "RunPickedUp", "TimerStarted"]
    clock.move_to(START + timedelta(hours=3))
    assert await one.advance(run_id) is Progress.CLOSED  # by a replay that has read when it began
    assert datetime.fromisoformat(await one.client.get_result(run_id)) == picked_up


@workflow
async def naps_for_an_hour(ctx: WorkflowContext) -> str:
    began = ctx.now()
    await ctx.sleep("1h")
    return str(began)


async def test_a_call_that_comes_a_little_early_waits_for_the_time_of_the_run(store: Store) -> None:
    one = app(store)
    run_id = await one.client.start_workflow(short_nap, start_delay=0.1)
    assert await one.advance(run_id) is Progress.CLOSED
    state = await store.load(run_id)
    assert state is not None
    assert all(event.at >= state.history[0].at for event in state.history)


async def test_a_call_that_comes_much_too_early_leaves_the_run_waiting(store: Store) -> None:
    one = app(store)
    run_id = await one.client.start_workflow(short_nap, start_delay=60)
    assert await one.advance(run_id) is Progress.RELEASED
    assert (await _run(store, run_id)).status is Status.PENDING
    assert await _types(one, run_id) == ["RunStarted"]


async def test_who_has_something_to_say_need_not_wait_for_the_time_of_the_run(store: Store) -> None:
    one = app(store)
    run_id = await one.client.start_workflow(short_nap, start_delay=0.12)
    await one.client.cancel_workflow(run_id, "not wanted")
    assert await one.advance(run_id) is Progress.CLOSED
    assert await _types(one, run_id) == ["RunStarted", "CancelRequested", "RunCancelled"]


async def test_what_nobody_has_taken_stands_behind_the_late_beginning(store: Store) -> None:
    clock = VirtualClock()
    one = app(store, clock=clock, workflows=[fails_at_once])
    run_id = await one.client.start_workflow(fails_at_once)
    await one.client.send_signal(run_id, "unread", 1)
    clock.move_to(START + timedelta(hours=2))
    assert await one.advance(run_id) is Progress.CLOSED
    assert await _types(one, run_id) == ["RunStarted", "RunPickedUp", "SignalReceived", "RunFailed"]


@workflow
async def fails_at_once(ctx: WorkflowContext) -> None:
    raise ValueError("no")


async def test_code_that_was_cut_off_in_its_first_step_repeats_it_with_the_same_arguments(store: Store) -> None:
    clock = VirtualClock()
    one = app(store, clock=clock, workflows=[notes_the_time])
    run_id = await one.client.start_workflow(notes_the_time)
    clock.move_to(START + timedelta(seconds=5))
    call = asyncio.create_task(one.advance(run_id))
    await eventually(lambda: _is_running(store, run_id))
    await eventually(_was_called)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    clock.move_to(START + timedelta(seconds=60))
    Gate.opened.set()
    assert await one.advance(run_id) is Progress.CLOSED
    assert [str(START + timedelta(seconds=5))] * 2 == CALLS


async def _was_called() -> bool:
    return bool(CALLS)


@activity
async def note_and_wait(what: str) -> None:
    CALLS.append(what)
    await Gate.opened.wait()


@workflow
async def notes_the_time(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(note_and_wait, str(ctx.now()))
