"""Signals: kept, in order, never lost at a deadline; handlers; conditions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.engine.activities import inc
from tests.engine.history_builder import Begin
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.mailbox import Letter, Mailbox


async def ten(ctx: WorkflowContext) -> list[Any]:
    await ctx.execute_activity(inc, 0)
    return [await ctx.wait_for_signal("go") for _ in range(10)]


async def patient(ctx: WorkflowContext) -> list[Any]:
    """Waits five seconds for a signal, then for ever for the next."""
    got: list[Any] = []
    try:
        got.append(await ctx.wait_for_signal("go", timeout=5))
    except TimeoutError:
        got.append("late")
    got.append(await ctx.wait_for_signal("go"))
    return got


# --- waiting ---------------------------------------------------------------------------------------


def test_a_signal_wakes_the_one_that_waits_for_its_name(begin: Begin) -> None:
    async def one(ctx: WorkflowContext) -> Any:
        return await ctx.wait_for_signal("go")

    run = begin(one)
    run.signal("other", 1)
    assert run.commands == []
    assert run.signal("go", {"a": (1, 2)}).result == {"a": (1, 2)}
    assert set(run.execution.seen) == {"message-1", "message-2"}


def test_signals_that_came_early_are_kept_and_given_first_in_first_out(begin: Begin) -> None:
    run = begin(ten)
    for i in range(7):
        run.signal("go", i)
    run.complete(run.activities[0])
    for i in range(7, 10):
        run.signal("go", i)
    assert run.result == list(range(10))


def test_waits_for_one_name_are_served_in_the_order_in_which_they_began(begin: Begin) -> None:
    async def three(ctx: WorkflowContext) -> list[Any]:
        return await asyncio.gather(*(ctx.wait_for_signal("go") for _ in range(3)))

    assert begin(three).signal("go", 1).signal("go", 2).signal("go", 3).result == [1, 2, 3]


def test_a_wait_that_was_too_long_raises_timeout_error(begin: Begin) -> None:
    async def short(ctx: WorkflowContext) -> None:
        await ctx.wait_for_signal("go", timeout="5s")

    run = begin(short)
    assert run.fire(run.timers[0]).error.type == "TimeoutError"


def test_a_signal_in_time_takes_the_timer_back(begin: Begin) -> None:
    run = begin(patient).signal("go", 1)
    assert run.commands == []
    assert run.signal("go", 2).result == [1, 2]


def test_a_signal_after_the_timeout_goes_to_the_next_wait_and_never_to_the_stale_one(begin: Begin) -> None:
    run = begin(patient)
    run.fire(run.timers[0]).signal("go", 2)
    assert run.result == ["late", 2]


def test_a_signal_in_the_same_commit_after_the_timeout_is_not_lost(begin: Begin) -> None:
    run = begin(patient)
    run.happen(run.fired(run.timers[0]), run.signalled("go", 2))
    assert run.result == ["late", 2]


def test_a_signal_in_the_same_commit_before_the_timeout_is_in_time(begin: Begin) -> None:
    run = begin(patient)
    run.happen(run.signalled("go", 1), run.fired(run.timers[0]), run.signalled("go", 2))
    assert run.result == [1, 2]


@pytest.mark.parametrize("signal_first", [True, False])
def test_a_signal_in_the_same_commit_as_a_cancellation_is_not_lost(begin: Begin, signal_first: bool) -> None:
    async def stubborn(ctx: WorkflowContext) -> list[Any]:
        got: list[Any] = []
        while len(got) < 2:
            try:
                got.append(await ctx.wait_for_signal("go"))
            except asyncio.CancelledError:
                got.append("cancelled")
        return got

    run = begin(stubborn)
    events = [run.signalled("go", 1), run.cancel_requested()]
    run.happen(*(events if signal_first else reversed(events)))
    assert run.result == ([1, "cancelled"] if signal_first else ["cancelled", 1])


def test_a_cancelled_wait_takes_no_signal_from_those_that_wait_on(begin: Begin) -> None:
    async def two(ctx: WorkflowContext) -> Any:
        first = asyncio.create_task(ctx.wait_for_signal("go"))
        second = asyncio.create_task(ctx.wait_for_signal("go"))
        await asyncio.sleep(1)
        first.cancel()
        return await second

    run = begin(two)
    run.fire(run.timers[0])
    assert run.signal("go", "for the second").result == "for the second"


async def test_a_wait_that_is_cancelled_with_the_signal_in_its_hands_gives_it_back() -> None:
    mailbox = Mailbox()
    first = asyncio.create_task(mailbox.wait("go"))
    await asyncio.sleep(0)
    mailbox.receive("go", Letter("m-1", 1))
    mailbox.receive("go", Letter("m-2", 2))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert [await mailbox.wait("go"), await mailbox.wait("go")] == [1, 2]


async def test_a_wait_that_is_cancelled_is_passed_over_and_forgotten() -> None:
    mailbox = Mailbox()
    waits = [asyncio.create_task(mailbox.wait("go")) for _ in range(3)]
    await asyncio.sleep(0)
    waits[0].cancel()
    waits[2].cancel()
    mailbox.receive("go", Letter("m-1", 1))
    assert await waits[1] == 1
    await asyncio.gather(*waits, return_exceptions=True)
    assert not mailbox._waits["go"]


# --- handlers --------------------------------------------------------------------------------------


def test_a_handler_is_called_for_every_signal_also_for_those_that_came_before(begin: Begin) -> None:
    async def counting(ctx: WorkflowContext) -> list[Any]:
        got: list[Any] = []
        await ctx.execute_activity(inc, 0)
        ctx.on_signal("add", got.append)
        await ctx.wait_for_signal("stop")
        return got

    run = begin(counting).signal("add", 1).signal("add", 2)
    run.complete(run.activities[0])
    assert run.signal("add", 3).signal("stop").result == [1, 2, 3]


def test_an_async_handler_may_run_activities(begin: Begin) -> None:
    async def adding(ctx: WorkflowContext) -> list[int]:
        got: list[int] = []

        async def add(number: int) -> None:
            got.append(await ctx.execute_activity(inc, number))

        ctx.on_signal("add", add)
        await ctx.wait_until(lambda: len(got) == 2)
        return got

    run = begin(adding).signal("add", 1).signal("add", 5)
    first, second = run.activities
    run.complete(second, 6)
    assert run.complete(first, 2).result == [6, 2]


def test_a_later_handler_replaces_the_one_before(begin: Begin) -> None:
    async def two_handlers(ctx: WorkflowContext) -> list[Any]:
        old: list[Any] = []
        new: list[Any] = []
        ctx.on_signal("add", old.append)
        await ctx.wait_for_signal("change")
        ctx.on_signal("add", new.append)
        await ctx.wait_for_signal("stop")
        return [old, new]

    assert begin(two_handlers).signal("add", 1).signal("change").signal("add", 2).signal("stop").result == [[1], [2]]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_fails_fails_the_run(begin: Begin, is_async: bool) -> None:
    async def fragile(ctx: WorkflowContext) -> None:
        def fail(payload: Any) -> None:
            raise LookupError(payload)

        async def fail_async(payload: Any) -> None:
            fail(payload)

        ctx.on_signal("add", fail_async if is_async else fail)
        await ctx.wait_for_signal("stop")

    run = begin(fragile).signal("add", "unknown")
    assert (run.error.type, run.error.message) == ("LookupError", "unknown")


# --- conditions ------------------------------------------------------------------------------------


def test_a_condition_is_asked_again_after_every_event(begin: Begin) -> None:
    async def full(ctx: WorkflowContext) -> list[Any]:
        got: list[Any] = []
        ctx.on_signal("add", got.append)
        await ctx.wait_until(lambda: sum(got) >= 6)
        return got

    assert begin(full).signal("add", 1).signal("other").signal("add", 2).signal("add", 3).result == [1, 2, 3]


def test_a_condition_that_is_true_already_does_not_wait(begin: Begin) -> None:
    async def at_once(ctx: WorkflowContext) -> str:
        await ctx.wait_until(lambda: True)
        return "through"

    assert begin(at_once).result == "through"


def test_a_condition_that_stays_false_too_long_raises_timeout_error(begin: Begin) -> None:
    async def too_long(ctx: WorkflowContext) -> Any:
        got: list[Any] = []
        ctx.on_signal("add", got.append)
        try:
            await ctx.wait_until(lambda: len(got) == 2, timeout=60)
        except TimeoutError:
            return ["late", got]

    run = begin(too_long).signal("add", 1)
    assert run.fire(run.timers[0]).result == ["late", [1]]


def test_one_condition_that_comes_true_may_make_the_next_one_true(begin: Begin) -> None:
    async def chain(ctx: WorkflowContext) -> list[str]:
        order: list[str] = []
        go: list[Any] = []
        ctx.on_signal("go", go.append)

        async def link(name: str, needs: str | None) -> None:
            await ctx.wait_until(lambda: needs in order if needs else bool(go))
            order.append(name)

        await asyncio.gather(link("c", "b"), link("b", "a"), link("a", None))
        return order

    assert begin(chain).signal("go").result == ["a", "b", "c"]


def test_a_condition_is_not_asked_any_more_once_the_workflow_has_ended(begin: Begin) -> None:
    asked: list[int] = []

    async def ends(ctx: WorkflowContext) -> int:
        def never() -> bool:
            asked.append(1)
            return False

        task = asyncio.create_task(ctx.wait_until(never))
        await ctx.wait_for_signal("go")
        return len(asked) if not task.done() else -1

    run = begin(ends, always_replay=False).signal("other").signal("go")
    assert run.result == len(asked) > 0


def test_a_condition_that_raises_raises_where_it_is_waited_for(begin: Begin) -> None:
    async def broken(ctx: WorkflowContext) -> str:
        limits: dict[str, int] = {"most": 1}
        ctx.on_signal("forget", limits.pop)
        try:
            await ctx.wait_until(lambda: limits["most"] > 1)
        except KeyError as error:
            return f"no {error}"
        return "never"

    assert begin(broken).signal("forget", "most").result == "no 'most'"
