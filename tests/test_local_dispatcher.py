"""LocalDispatcher: calls inside this process, soon or at their time. The loop's time is skipped, never waited for."""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tinyworkflow_core.dispatcher import Advance, Task
from tinyworkflow_core.dispatchers.local import MAX_CONCURRENT_CALLS, LocalDispatcher, NoDispatcher

START = datetime(2026, 1, 1, tzinfo=UTC)


class SkippingSelector(selectors.SelectSelector):
    """Moves the time on by what it was told to wait, when nothing happens."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits for ever"
            self.time += timeout
        return found


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only while everybody waits, and then at once. It is a Clock as well."""

    def __init__(self) -> None:
        self._skipping = SkippingSelector()
        super().__init__(self._skipping)
        self._clock_resolution = 1e-6  # with the machine's, a float of many days is never late enough
        self.off_by = timedelta(0)

    def time(self) -> float:
        return self._skipping.time

    def now(self) -> datetime:
        return START + timedelta(seconds=self.time()) + self.off_by


def the_loop() -> SkippingLoop:
    """The one that a `skipping` test runs in."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    return loop


class Stage:
    """A dispatcher whose handler writes down what it is called for, and when."""

    def __init__(self, **options: Any) -> None:
        self.loop = the_loop()
        self.calls: list[str] = []
        self.ended: list[str] = []
        self.times: list[float] = []
        self.most = 0
        self.under_way = 0
        self.seconds: Mapping[str, float] = {}
        self.dispatcher = LocalDispatcher(self.handle, clock=self.loop, **options)

    async def handle(self, task: Task) -> str:
        run_id = task.run_id
        self.calls.append(run_id)
        self.times.append(self.loop.time())
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.seconds.get(run_id, 0))
            if run_id.startswith("bad"):
                raise ValueError(run_id)
        finally:
            self.under_way -= 1
        self.ended.append(run_id)
        return "ignored"

    async def dispatch(self, run_id: str, after: float | timedelta | None = None) -> None:
        after = timedelta(seconds=after) if isinstance(after, float | int) else after
        at = None if after is None else self.loop.now() + after
        await self.dispatcher.dispatch(Advance(run_id=run_id), at=at)


def skipping(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs the test in a loop that skips time."""

    def run() -> None:
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            runner.run(test())

    run.__name__ = test.__name__
    return run


@skipping
async def test_a_call_is_made_soon_and_dispatching_does_not_wait_for_it() -> None:
    stage = Stage()
    await stage.dispatch("a")
    assert (stage.calls, stage.dispatcher.busy) == ([], 1)
    await asyncio.sleep(1)
    assert (stage.calls, stage.dispatcher.busy) == (["a"], 0)


@skipping
async def test_so_many_calls_are_made_at_a_time_and_no_more_in_the_order_of_arrival() -> None:
    stage = Stage(max_calls=3)
    run_ids = [f"run-{number}" for number in range(20)]
    stage.seconds = dict.fromkeys(run_ids, 1)
    for run_id in run_ids:
        await stage.dispatch(run_id)
    assert stage.dispatcher.busy == 20
    await asyncio.sleep(2.5)
    assert stage.calls == run_ids[:9]
    assert stage.dispatcher.busy == 14
    await asyncio.sleep(10)
    assert stage.calls == run_ids
    assert sorted(stage.ended) == sorted(run_ids)
    assert (stage.most, stage.dispatcher.busy) == (3, 0)


@skipping
async def test_the_limit_is_two_hundred_unless_told_otherwise() -> None:
    stage = Stage()
    stage.seconds = {str(number): 1 for number in range(500)}
    for run_id in stage.seconds:
        await stage.dispatch(run_id)
    await asyncio.sleep(10)
    assert (stage.most, len(stage.calls)) == (MAX_CONCURRENT_CALLS, 500) == (200, 500)


@skipping
async def test_a_rest_ends_early_when_half_of_the_calls_that_filled_it_have_ended() -> None:
    stage = Stage(max_calls=4)
    stage.seconds = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 1}
    for run_id in "abcd":
        assert stage.dispatcher.room == 4 - "abcd".index(run_id)
        await stage.dispatch(run_id)
    assert stage.dispatcher.room == 0
    await stage.dispatcher.rest(60)
    assert stage.loop.time() == pytest.approx(2)
    assert stage.dispatcher.room == 2
    # It is not full any more: what ends now tells nobody.
    await stage.dispatcher.rest(60)
    assert stage.loop.time() == pytest.approx(62)
    # Nor does it go by unheard, when nobody rests at that moment.
    for run_id in "abcde":
        await stage.dispatch(run_id)
    await asyncio.sleep(10)
    await stage.dispatcher.rest(60)
    assert stage.loop.time() == pytest.approx(72)
    await stage.dispatcher.rest(60)
    assert stage.loop.time() == pytest.approx(132)
    await stage.dispatcher.close()
    assert stage.dispatcher.room == 0, "what is closed makes no calls"


@skipping
async def test_a_run_stands_in_the_queue_once_however_often_it_is_asked_for() -> None:
    stage = Stage(max_calls=1)
    stage.seconds = {"first": 1}
    for run_id in ["first", "a", "b", "a", "a", "b"]:
        await stage.dispatch(run_id)
    assert stage.dispatcher.busy == 3
    await asyncio.sleep(5)
    assert stage.calls == ["first", "a", "b"]


@skipping
async def test_a_run_that_is_asked_for_during_its_call_is_called_for_again() -> None:
    # Only the handler can tell whether the call under way has seen what this one is about.
    stage = Stage(max_calls=2)
    stage.seconds = {"a": 1}
    await stage.dispatch("a")
    await asyncio.sleep(0.5)
    await stage.dispatch("a")
    await asyncio.sleep(5)
    assert stage.times == [0, 0.5]


@skipping
async def test_a_call_for_later_is_made_a_tenth_of_a_second_before_its_time_whatever_the_order_of_asking() -> None:
    stage = Stage()
    for run_id, after in {"c": 3, "a": 1, "e": 5.5, "b": 2, "d": 4}.items():
        await stage.dispatch(run_id, after)
    await stage.dispatch("now", 0)
    await stage.dispatch("past", -100)
    await asyncio.sleep(4.5)
    assert stage.calls == ["now", "past", "a", "b", "c", "d"]
    await asyncio.sleep(4.5)
    assert stage.times == pytest.approx([0, 0, 0.9, 1.9, 2.9, 3.9, 5.4])


@skipping
async def test_a_call_for_a_moment_that_is_near_is_made_then() -> None:
    # Else a call that does not wait for the rest itself would ask for the next one again and again.
    stage = Stage()
    for after in (0.05, 0.5, 0.999):
        await stage.dispatch(f"in {after}", after)
    await asyncio.sleep(2)
    assert stage.times == pytest.approx([0.05, 0.5, 0.999])


@skipping
async def test_a_run_asked_for_again_before_its_call_has_begun_is_called_once() -> None:
    # Whoever starts a run asks for its call, and so does whoever hears of the new run: in the same turn of the loop.
    stage = Stage()
    await stage.dispatch("a")
    stage.dispatcher.wake("a")
    await asyncio.sleep(1)
    assert stage.calls == ["a"]
    await stage.dispatch("a")
    await asyncio.sleep(1)
    assert stage.calls == ["a", "a"]


@skipping
async def test_a_run_whose_call_was_cancelled_before_it_began_can_be_asked_for_again() -> None:
    stage = Stage()
    await stage.dispatch("a")
    await stage.dispatcher.let_go()
    assert stage.calls == []
    await stage.dispatch("a")
    await asyncio.sleep(1)
    assert stage.calls == ["a"]


@skipping
async def test_calls_for_one_moment_are_all_made() -> None:
    stage = Stage()
    for run_id in "cab":
        await stage.dispatch(run_id, 1)
    await asyncio.sleep(2)
    assert sorted(stage.calls) == ["a", "b", "c"]
    assert stage.times == pytest.approx([0.9, 0.9, 0.9])


@skipping
async def test_a_call_for_the_far_future_is_made_then() -> None:
    stage = Stage()
    await stage.dispatch("next year", timedelta(days=400))
    await stage.dispatch("next month", timedelta(days=30))
    await stage.dispatch(
        "in 9000 years", datetime.max.replace(tzinfo=UTC) - START
    )  # more than a timer of any loop takes
    await asyncio.sleep(timedelta(days=401).total_seconds())
    assert stage.calls == ["next month", "next year"]
    assert stage.times == pytest.approx([30 * 86_400, 400 * 86_400])
    await stage.dispatcher.close()


@skipping
async def test_a_wall_clock_that_is_set_back_delays_a_call_and_one_set_forward_loses_none() -> None:
    stage = Stage()
    await stage.dispatch("a", 10)
    stage.loop.off_by = -timedelta(seconds=5)
    await asyncio.sleep(12)
    assert stage.calls == []
    await asyncio.sleep(4)
    assert stage.times == pytest.approx([14.9])
    await stage.dispatch("b", timedelta(days=1))
    stage.loop.off_by = timedelta(days=2)
    await asyncio.sleep(3600)  # the timers look at the clock at least that often
    assert stage.calls == ["a", "b"]


@skipping
async def test_a_run_has_one_place_among_the_later_calls_and_that_is_the_earliest() -> None:
    # A run that waits for a month and is woken every minute asks for the same month again each time.
    stage = Stage()
    for after in (30, 10, 20, 10):
        await stage.dispatch("a", after)
    for number in range(1000):
        await stage.dispatch("a", 10 + number)
    assert len(stage.dispatcher._later) == 2
    await asyncio.sleep(9)
    assert stage.calls == []
    await asyncio.sleep(2)
    assert stage.times == pytest.approx([9.9])  # and that call asks for the next one
    await stage.dispatch("a", 100)
    await asyncio.sleep(200)
    assert stage.times == pytest.approx([9.9, 110.9])


def test_a_call_that_fails_is_logged_and_the_next_ones_are_made(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        stage = Stage(max_calls=1)
        for run_id in ("bad-1", "a", "bad-2", "b"):
            await stage.dispatch(run_id)
        await asyncio.sleep(1)
        assert stage.calls == ["bad-1", "a", "bad-2", "b"]
        assert stage.ended == ["a", "b"]
        assert stage.dispatcher.busy == 0

    with caplog.at_level(logging.ERROR, "tinyworkflow.dispatch"):
        skipping(scenario)()
    assert [record.getMessage() for record in caplog.records] == [
        "a call for run bad-1 failed",
        "a call for run bad-2 failed",
    ]
    assert [vars(record)["run_id"] for record in caplog.records] == ["bad-1", "bad-2"]
    assert all(record.exc_info for record in caplog.records)


@skipping
async def test_a_call_that_is_cancelled_from_inside_leaves_room_for_the_next() -> None:
    calls = []

    async def handle(task: Task) -> None:
        run_id = task.run_id
        calls.append(run_id)
        raise asyncio.CancelledError

    loop = the_loop()
    dispatcher = LocalDispatcher(handle, clock=loop, max_calls=1)
    for run_id in "abc":
        dispatcher.wake(run_id)
    await asyncio.sleep(1)
    assert calls == ["a", "b", "c"]


@skipping
async def test_closing_cancels_what_is_under_way_waits_for_it_and_forgets_the_rest() -> None:
    let_go = []

    async def handle(task: Task) -> None:
        run_id = task.run_id
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)  # letting go takes a moment
            let_go.append(run_id)

    loop = the_loop()
    dispatcher = LocalDispatcher(handle, clock=loop, max_calls=2)
    for run_id in ("a", "b", "queued"):
        await dispatcher.dispatch(Advance(run_id=run_id))
    await dispatcher.dispatch(Advance(run_id="later"), at=loop.now() + timedelta(seconds=5))
    await asyncio.sleep(1)
    await dispatcher.close()
    assert sorted(let_go) == ["a", "b"]
    assert (loop.time(), dispatcher.busy) == (2, 0)
    await asyncio.sleep(1000)
    assert sorted(let_go) == ["a", "b"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@skipping
async def test_a_dispatch_after_the_end_is_a_no_op() -> None:
    stage = Stage()
    await stage.dispatcher.close()
    await stage.dispatcher.close()
    await stage.dispatch("a")
    await stage.dispatch("b", 1)
    stage.dispatcher.wake("c")
    await asyncio.sleep(10)
    assert (stage.calls, stage.dispatcher.busy) == ([], 0)


@skipping
async def test_a_dispatch_out_of_a_call_that_is_being_ended_is_a_no_op() -> None:
    calls = []

    async def handle(task: Task) -> None:
        run_id = task.run_id
        calls.append(run_id)
        try:
            await asyncio.sleep(100)
        finally:
            await dispatcher.dispatch(Advance(run_id="next"))
            await dispatcher.dispatch(Advance(run_id="later"), at=loop.now() + timedelta(seconds=1))

    loop = the_loop()
    dispatcher = LocalDispatcher(handle, clock=loop)
    await dispatcher.dispatch(Advance(run_id="a"))
    await dispatcher.dispatch(Advance(run_id="later still"), at=loop.now() + timedelta(seconds=5))
    await asyncio.sleep(1)
    await dispatcher.let_go()
    await asyncio.sleep(100)
    assert calls == ["a"]
    await dispatcher.dispatch(Advance(run_id="b"))  # let go, not closed
    await asyncio.sleep(1)
    assert calls == ["a", "b"]
    await dispatcher.close()
    await asyncio.sleep(100)
    assert calls == ["a", "b"]


@skipping
async def test_a_callback_of_the_loop_may_wake_a_run() -> None:
    stage = Stage()
    stage.loop.call_later(3, stage.dispatcher.wake, "a")
    await asyncio.sleep(5)
    assert (stage.calls, stage.times) == (["a"], [3])


@skipping
async def test_no_dispatcher_makes_no_calls() -> None:
    nobody = NoDispatcher()
    await nobody.dispatch(Advance(run_id="a"))
    await nobody.dispatch(Advance(run_id="a"), at=START)
    await nobody.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@skipping
async def test_a_run_whose_call_has_failed_is_left_alone_by_ticks_for_a_while() -> None:
    stage = Stage()
    await stage.dispatch("bad-1")
    await asyncio.sleep(1)
    assert stage.dispatcher.in_hand() == {"bad-1"}
    await asyncio.sleep(5)
    assert stage.dispatcher.in_hand() == set()


@skipping
async def test_calls_that_fail_at_once_make_no_room_for_an_early_tick() -> None:
    stage = Stage(max_calls=2)
    for run_id in ("bad-1", "bad-2"):
        await stage.dispatch(run_id)
    began = asyncio.get_running_loop().time()
    await stage.dispatcher.rest(1.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.0)
    stage.seconds = {"a": 0.3, "b": 0.3}
    for run_id in ("a", "b"):
        await stage.dispatch(run_id)
    await stage.dispatcher.rest(1.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.3)
