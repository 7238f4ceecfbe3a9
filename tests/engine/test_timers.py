"""Durable time: sleeping, and a clock that is a function of the history."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.engine.activities import inc
from tests.engine.history_builder import START, Begin
from tinyworkflow_core.engine.context import WorkflowContext


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def naps(ctx: WorkflowContext) -> str:
    await ctx.sleep("1m")
    await ctx.sleep(timedelta(hours=1))
    await ctx.sleep(0.5)
    await asyncio.sleep(7)
    return ctx.now().isoformat()


def test_every_way_to_sleep_is_a_durable_timer(begin: Begin) -> None:
    run = begin(naps)
    dues = []
    while run.execution.journal.open:
        (timer,) = run.timers
        dues.append(timer.due)
        run.let_go().fire(timer)
    assert dues == [after(60), after(3660), after(3660.5), after(3667.5)]
    assert run.result == after(3667.5).isoformat()


def test_a_sleep_of_no_length_asks_for_nothing(begin: Begin) -> None:
    async def no_nap(ctx: WorkflowContext) -> str:
        await ctx.sleep(0)
        await asyncio.sleep(-1)
        return "awake"

    assert begin(no_nap).result == "awake"


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "soon"])
def test_a_sleep_that_is_no_duration_is_refused(begin: Begin, wrong: Any) -> None:
    async def wrong_nap(ctx: WorkflowContext) -> None:
        await ctx.sleep(wrong)

    assert begin(wrong_nap).error.type == "ValueError"


def test_sleeping_until_a_moment_is_a_timer_for_that_moment(begin: Begin) -> None:
    async def until(ctx: WorkflowContext) -> str:
        await ctx.sleep_until(ctx.now() + timedelta(days=40))
        return "there"

    run = begin(until)
    (timer,) = run.timers
    assert timer.due == START + timedelta(days=40)
    assert run.fire(timer).result == "there"


def test_sleeping_until_a_moment_that_has_passed_goes_on_at_once(begin: Begin) -> None:
    async def until_before(ctx: WorkflowContext) -> str:
        await ctx.sleep_until(ctx.now() - timedelta(days=1))
        await ctx.sleep_until(ctx.now())
        return "there"

    assert begin(until_before).result == "there"


def test_sleeping_until_a_moment_without_a_time_zone_is_refused_with_the_way_out(begin: Begin) -> None:
    async def naive(ctx: WorkflowContext) -> None:
        await ctx.sleep_until(datetime(2026, 1, 1))

    assert "aware datetime, such as ctx.now()" in begin(naive).error.message


def test_a_sleep_that_is_given_up_leaves_no_timer(begin: Begin) -> None:
    async def given_up(ctx: WorkflowContext) -> str:
        naps = [asyncio.create_task(ctx.sleep(5)), asyncio.create_task(ctx.sleep_until(after(9)))]
        await asyncio.sleep(1)
        for one in naps:
            one.cancel()
        await asyncio.wait(naps)
        await ctx.wait_for_signal("go")
        return "gone"

    run = begin(given_up)
    run.fire(run.timers[0])
    assert run.commands == []
    assert run.signal("go").result == "gone"


def test_equal_timers_are_told_apart(begin: Begin) -> None:
    async def twins(ctx: WorkflowContext) -> list[int]:
        calls: list[int] = []
        loop = asyncio.get_running_loop()
        first = loop.call_later(5, calls.append, 1)
        loop.call_later(5, calls.append, 1)
        await asyncio.sleep(1)
        first.cancel()
        await ctx.wait_for_signal("go")
        return calls

    run = begin(twins)
    run.fire(run.timers[-1])
    (left,) = run.timers
    assert left.id == 2
    assert run.fire(left).signal("go").result == [1]


def test_a_callback_that_is_taken_back_is_not_called(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    async def undecided(ctx: WorkflowContext) -> list[int]:
        calls: list[int] = []
        loop = asyncio.get_running_loop()
        handles = [loop.call_soon(calls.append, i) for i in range(3)]
        handles[1].cancel()
        await asyncio.sleep(0)
        return calls

    assert begin(undecided).result == [0, 2]
    assert caplog.messages == []


def test_a_timer_that_fires_after_it_was_given_up_is_ignored(begin: Begin) -> None:
    async def in_time(ctx: WorkflowContext) -> str:
        async with asyncio.timeout(5):
            await ctx.wait_for_signal("go")
        await asyncio.sleep(100)
        return "in time"

    run = begin(in_time)
    (timer,) = run.timers
    run.happen(run.signalled("go"), run.fired(timer))
    assert run.fire(run.timers[0]).result == "in time"


async def clock_readings(ctx: WorkflowContext) -> list[float]:
    readings = []
    loop = asyncio.get_running_loop()
    for _ in range(4):
        await ctx.execute_activity(inc, 1)
        readings += [loop.time(), ctx.now().timestamp()]
    return readings


def test_the_time_is_the_moment_of_the_last_event(begin: Begin) -> None:
    run = begin(clock_readings)
    for seconds in (0, 1, 0, 2.5):
        run.later(seconds).complete(run.activities[0])
    begun = START.timestamp()
    assert run.result == [begun, begun, begun + 1, begun + 1, begun + 1, begun + 1, begun + 3.5, begun + 3.5]


def test_the_time_never_goes_backwards_when_the_clock_of_a_function_does(begin: Begin) -> None:
    run = begin(clock_readings)
    for seconds in (5, -3, -10, 9):
        run.later(seconds).complete(run.activities[0])
    begun = START.timestamp()
    assert run.result == [begun + 5] * 6 + [begun + 5] * 2


def test_a_timer_begins_at_the_event_that_led_to_it(begin: Begin) -> None:
    async def nap_after(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(inc, 1)
        await asyncio.sleep(10)

    run = begin(nap_after)
    run.later(3.000001).complete(run.activities[0])
    assert run.timers[0].due == after(13.000001)
    run.later(600).signal("unrelated")
    assert run.timers[0].due == after(13.000001)


def test_timers_of_one_moment_wake_in_the_order_of_their_events(begin: Begin) -> None:
    async def race(ctx: WorkflowContext) -> list[str]:
        order: list[str] = []

        async def nap(name: str) -> None:
            await asyncio.sleep(5)
            order.append(name)

        await asyncio.gather(nap("a"), nap("b"), nap("c"))
        return order

    run = begin(race)
    a, b, c = run.timers
    run.happen(run.fired(c), run.fired(a), run.fired(b))
    assert run.result == ["c", "a", "b"]
