"""Saga: which compensations an execution asks for, when, and in what order."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.engine.activities import charge, echo, undo
from tests.engine.history_builder import Begin, LiveRun
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import RunTimedOut
from tinyworkflow_core.engine.replay import Blocked, Cancelled, ContinuedAsNew, Failed
from tinyworkflow_core.registry import activity

book = echo.options(compensate=undo)


async def trip(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(book, "hotel")
    await ctx.execute_activity(book, "flight")
    return await ctx.execute_activity(charge, 10)


def asked(run: LiveRun) -> list[Any]:
    return [(one.activity.name, *one.args) for one in run.activities]


def booked(begin: Begin) -> LiveRun:
    run = begin(trip)
    for what in ("hotel", "flight"):
        run.complete(run.activities[0], what)
    return run


def test_compensations_are_asked_for_one_after_the_other_the_latest_first(begin: Begin) -> None:
    run = booked(begin)
    run.fail(run.activities[0], ValueError("no"))
    assert asked(run) == [("undo", "flight")]
    run.complete(run.activities[0])
    assert asked(run) == [("undo", "hotel")]
    assert isinstance(run.complete(run.activities[0]).outcome, Failed)
    assert run.error.message == "no"


def test_a_compensation_is_given_what_its_step_gave(begin: Begin) -> None:
    async def books(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(book, "hotel")
        raise ValueError("no")

    run = begin(books).complete(begin(books).activities[0], {"number": 7})
    assert asked(run) == [("undo", {"number": 7})]


def test_a_compensation_that_fails_for_good_is_said_and_the_others_follow(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    run = booked(begin)
    run.fail(run.activities[0], ValueError("no"))
    with caplog.at_level(logging.ERROR):
        run.fail(run.activities[0], RuntimeError("too late"))
    assert "compensation undo of step 2 failed: RuntimeError" in caplog.text
    assert "too late" not in caplog.text
    assert asked(run) == [("undo", "hotel")]
    run.complete(run.activities[0])
    assert isinstance(run.outcome, Failed)
    assert run.outcome.undone == (1,)


def test_a_compensation_that_waits_for_its_next_attempt_holds_up_the_others(begin: Begin) -> None:
    run = booked(begin)
    run.fail(run.activities[0], ValueError("no"))
    run.fail(run.activities[0], ValueError("busy"), retry_in=60)
    assert asked(run) == [("undo", "flight")]


def test_cancellation_and_time_that_is_up_compensate(begin: Begin) -> None:
    run = booked(begin).cancel("rain").end_withdrawn()
    assert asked(run) == [("undo", "flight")]
    run.complete(run.activities[0])
    assert run.complete(run.activities[0]).outcome == Cancelled(reason="rain")

    run = booked(begin)
    run.happen(RunTimedOut(at=run.now)).end_withdrawn()
    run.complete(run.activities[0])
    run.complete(run.activities[0])
    assert run.error.type == "TimeoutError"


def test_a_step_that_completed_although_it_was_withdrawn_is_compensated(begin: Begin) -> None:
    run = begin(trip)
    (hotel,) = run.activities
    run.cancel().complete(hotel, "hotel")
    assert asked(run) == [("undo", "hotel")]
    assert run.complete(run.activities[0]).outcome == Cancelled(reason=None)


def test_a_step_whose_end_and_the_cancellation_come_in_one_commit_is_compensated(begin: Begin) -> None:
    run = begin(trip)
    (hotel,) = run.activities
    run.happen(run.cancel_requested(), run.completed(hotel, "hotel"))
    assert asked(run) == [("undo", "hotel")]


def test_a_step_that_was_given_up_but_completed_is_compensated_when_the_run_fails_later(begin: Begin) -> None:
    async def hurried(ctx: WorkflowContext) -> None:
        try:
            async with asyncio.timeout(5):
                await ctx.execute_activity(book, "hotel")
        except TimeoutError:
            pass
        await ctx.execute_activity(charge, 10)

    run = begin(hurried)
    (hotel,) = run.activities
    run.fire(run.timers[0]).complete(hotel, "hotel")
    run.fail(run.activities[0], ValueError("no"))
    assert asked(run) == [("undo", "hotel")]


def test_a_step_that_failed_or_was_cancelled_is_not_compensated(begin: Begin) -> None:
    run = begin(trip)
    run.fail(run.activities[0], ValueError("no"))
    assert isinstance(run.outcome, Failed)
    assert begin(trip).cancel().end_withdrawn().outcome == Cancelled(reason=None)


def test_what_undoes_is_not_itself_undone(begin: Begin) -> None:
    @activity(compensate=echo)
    def undo_with_care(what: Any) -> None:
        return None

    async def books(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(echo.options(compensate=undo_with_care), "hotel")
        raise ValueError("no")

    run = begin(books)
    run.complete(run.activities[0], "hotel")
    assert isinstance(run.complete(run.activities[0]).outcome, Failed)


def test_a_second_end_does_not_interrupt_compensations(begin: Begin) -> None:
    run = booked(begin)
    run.fail(run.activities[0], ValueError("no")).cancel()
    run.happen(RunTimedOut(at=run.now))
    assert run.withdrawn == []
    run.complete(run.activities[0])
    assert asked(run) == [("undo", "hotel")]
    run.complete(run.activities[0])
    assert run.error.message == "no"


# --- added by hand -----------------------------------------------------------------------------------


def test_one_added_by_hand_takes_its_arguments_and_its_place_among_the_others(begin: Begin) -> None:
    async def pays(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(book, "hotel")
        await ctx.execute_activity(echo, "pay")
        ctx.add_compensation(charge, -10, currency="USD")
        await ctx.sleep(5)
        raise ValueError("no")

    run = begin(pays)
    run.complete(run.activities[0], "hotel")
    run.complete(run.activities[0], "pay")
    run.fire(run.timers[0])
    (refund,) = run.activities
    assert (refund.args, refund.kwargs) == ((-10,), {"currency": "USD"})
    run.complete(refund)
    run.complete(run.activities[0])
    assert isinstance(run.outcome, Failed)
    assert run.outcome.undone == (1,)
    assert run.outcome.position == 1


def test_one_added_by_hand_undoes_the_step_that_was_the_last_to_end_whatever_was_asked_for_since(begin: Begin) -> None:
    async def pays(ctx: WorkflowContext) -> None:
        other = asyncio.create_task(ctx.execute_activity(echo, "other"))
        await ctx.execute_activity(echo, "pay")
        ctx.add_compensation(undo, "payment")
        await other
        raise ValueError("no")

    run = begin(pays)
    other, pay = sorted(run.activities, key=lambda one: str(one.args))
    run.complete(pay).complete(other)
    run.complete(run.activities[0])
    assert isinstance(run.outcome, Failed)
    assert run.outcome.undone == (pay.id,)


def test_something_that_is_no_activity_is_refused_where_it_is_added(begin: Begin) -> None:
    async def wrong(ctx: WorkflowContext) -> None:
        ctx.add_compensation(print, "x")

    run = begin(wrong)
    assert (run.error.type, run.error.message) == ("TypeError", "print is not an activity: put @activity on it")


# --- when nothing is to be undone --------------------------------------------------------------------


def test_a_success_a_handled_failure_and_a_next_generation_compensate_nothing(begin: Begin) -> None:
    async def handles(ctx: WorkflowContext, how: str) -> str:
        await ctx.execute_activity(book, "hotel")
        if how == "goes on":
            ctx.continue_as_new("returns")
        try:
            await ctx.execute_activity(charge, 10)
        except ValueError:
            return "on account"
        return "paid"

    run = begin(handles, "returns").complete(begin(handles, "returns").activities[0], "hotel")
    assert run.complete(run.activities[0], "paid").result == "paid"
    run = begin(handles, "returns").complete(begin(handles, "returns").activities[0], "hotel")
    assert run.fail(run.activities[0], ValueError("no")).result == "on account"
    run = begin(handles, "goes on").complete(begin(handles, "goes on").activities[0], "hotel")
    assert isinstance(run.outcome, ContinuedAsNew)


def test_an_execution_that_is_put_away_asks_for_no_compensation(begin: Begin) -> None:
    run = booked(begin)
    assert isinstance(run.outcome, Blocked)
    position = run.execution.journal.position
    run.close()
    assert run.execution.journal.position == position
    assert [one.command.id for one in run.execution.journal.open.values()] == [3]
