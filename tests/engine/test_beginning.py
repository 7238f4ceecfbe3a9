"""Code that runs later than its own time says: nobody sleeps shorter than asked, and every replay agrees."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.engine.history_builder import FACTS, START, codec, defined, replayed, started, stored
from tinyworkflow_core import WorkflowContext, activity
from tinyworkflow_core.advance.records import asked_for
from tinyworkflow_core.clock import moment
from tinyworkflow_core.engine.commands import ExecuteActivity, StartTimer
from tinyworkflow_core.engine.history import (
    ActivityCompleted,
    Event,
    LeaseTaken,
    RunPickedUp,
    RunResumed,
    RunSuspended,
    SignalReceived,
    TimerFired,
    TimerStarted,
)
from tinyworkflow_core.engine.replay import Blocked, Completed, Execution

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


async def naps(ctx: WorkflowContext) -> str:
    await ctx.sleep("30m")
    return str(ctx.now())


def execution(history: Sequence[Event], **options: Any) -> Execution:
    return Execution(defined(naps), stored(history), facts=FACTS, codec=codec, **options)


def due(run: Execution) -> Any:
    [pending] = run.journal.open.values()
    assert isinstance(pending.command, StartTimer)
    return pending.due


def test_a_sleep_of_a_run_picked_up_late_is_as_long_as_asked() -> None:
    run = execution([started()], now=START + HOUR)
    assert due(run) == START + HOUR + timedelta(minutes=30)
    assert run.take_picked_up() == RunPickedUp(at=START + HOUR)
    assert run.take_picked_up() is None  # once


@pytest.mark.parametrize("before", [[], [LeaseTaken(at=START + SECOND, owner="b", previous_owner="a")]])
def test_a_replay_begins_when_the_run_was_picked_up(before: list[Event]) -> None:
    history = [started(), *before, RunPickedUp(at=START + HOUR)]
    again = execution(history, now=START + 5 * HOUR)
    assert (due(again), again.picked_up) == (START + HOUR + timedelta(minutes=30), None)
    fired = TimerFired(at=START + 2 * HOUR, id=1, due=due(again))
    assert replayed(naps, [*history, fired]) == Completed(output=codec.encode(str(START + 2 * HOUR)))


def test_what_is_hardly_late_costs_no_event() -> None:
    run = execution([started()], now=START + SECOND - timedelta(microseconds=1))
    assert (run.picked_up, due(run)) == (None, START + SECOND - timedelta(microseconds=1) + timedelta(minutes=30))


@pytest.mark.parametrize(
    "history",
    [
        [started(), TimerFired(at=START + HOUR, id=1, due=START + timedelta(minutes=30))],
        [started(), SignalReceived(at=START, message_id="m", name="early", payload="1")],
    ],
    ids=["a step", "a signal"],
)
def test_code_that_has_begun_keeps_its_time(history: list[Event]) -> None:
    """Histories of earlier releases say nothing of it."""
    assert execution(history, now=START + 9 * HOUR).picked_up is None


def test_what_came_before_its_time_to_begin_is_no_beginning() -> None:
    early = SignalReceived(at=START - HOUR, message_id="m", name="early", payload="1")
    aside = [RunSuspended(at=START, message_id="s"), RunResumed(at=START + SECOND, message_id="r")]
    run = execution([started(), early, *aside], now=START + HOUR)
    assert run.picked_up == RunPickedUp(at=START + HOUR)


def test_who_only_looks_does_not_make_it_begin() -> None:
    run = execution([started()])
    assert (run.picked_up, run._context.now()) == (None, moment(START.timestamp()))


LAG = timedelta(milliseconds=30)
HALF_AN_HOUR = timedelta(minutes=30)


def test_a_sleep_counts_from_the_moment_at_which_it_is_asked_for() -> None:
    run = execution([started()], now=START + LAG)
    assert due(run) == START + LAG + HALF_AN_HOUR
    [pending] = run.journal.open.values()
    noted = asked_for(pending, START + LAG)
    assert noted == TimerStarted(at=START + LAG, id=1, due=START + HALF_AN_HOUR, wakes_at=START + LAG + HALF_AN_HOUR)
    assert due(execution([started(), noted], now=START + HOUR)) == START + LAG + HALF_AN_HOUR
    assert due(execution([started(), noted])) == START + LAG + HALF_AN_HOUR


def test_a_sleep_after_a_step_counts_from_when_the_step_was_stored() -> None:
    run = Execution(defined(works_and_naps), [started()], facts=FACTS, codec=codec, now=START)
    done = ended(run, at=START + SECOND)
    run.step([done], START + SECOND + LAG)
    assert due(run) == START + SECOND + LAG + HALF_AN_HOUR
    again = Execution(
        defined(works_and_naps), stored([started(), done]), facts=FACTS, codec=codec, now=START + 9 * HOUR
    )
    assert due(again) == START + SECOND + HALF_AN_HOUR  # it lay dead for hours, and would have slept


def test_what_was_asked_for_before_something_else_happened_keeps_its_time() -> None:
    told = SignalReceived(at=START + SECOND, message_id="m", name="x", payload="1")
    run = execution([started(), told], now=START + SECOND + LAG)
    assert due(run) == START + HALF_AN_HOUR


def test_a_moment_of_the_calendar_is_that_moment() -> None:
    async def until(ctx: WorkflowContext) -> None:
        await ctx.sleep_until(START + HOUR)

    run = Execution(defined(until), [started()], facts=FACTS, codec=codec, now=START + LAG)
    assert due(run) == START + HOUR


async def works_and_naps(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(works)
    await ctx.sleep("30m")


@activity
async def works() -> None: ...


def ended(run: Execution, *, at: datetime) -> ActivityCompleted:
    [pending] = run.journal.open.values()
    assert isinstance(pending.command, ExecuteActivity)
    return ActivityCompleted(at=at, attempt=1, started_at=at, result="null", **pending.command.about())


# --- what says that code has begun, and what does not -------------------------------------------------


@pytest.mark.parametrize("skew", [timedelta(milliseconds=200), HOUR], ids=["another clock", "a fork before its time"])
def test_a_step_with_an_earlier_time_than_the_start_is_a_step_all_the_same(skew: timedelta) -> None:
    run = Execution(defined(works_and_naps), [started()], facts=FACTS, codec=codec, now=START)
    done = ended(run, at=START - skew)
    run.step([done], START - skew)
    [pending] = run.journal.open.values()
    noted = asked_for(pending, START - skew)
    assert noted is not None
    history = stored([started(), done, noted])
    again = Execution(defined(works_and_naps), history, facts=FACTS, codec=codec, now=START + HOUR)
    assert isinstance(again.outcome, Blocked)
    assert (again.picked_up, due(again)) == (None, due(run))


def test_code_that_begins_again_after_a_death_asks_for_the_same_as_before() -> None:
    taken_at = START + 5 * SECOND
    died = LeaseTaken(at=START + 50 * SECOND, owner="b", previous_owner="a")
    first = execution([started()], now=taken_at, taken_at=taken_at)
    again = execution([started(), died], now=START + 50 * SECOND, taken_at=taken_at)
    assert first._context.now() == again._context.now() == taken_at
    assert again.picked_up == RunPickedUp(at=taken_at)


@pytest.mark.parametrize(
    ("taken_at", "aside"),
    [(START - SECOND, []), (START + 2 * HOUR, []), (START, [RunSuspended(at=START, message_id="s")])],
    ids=["before its time", "by a clock that is ahead", "and put aside"],
)
def test_a_taking_that_was_no_beginning_is_not_taken_for_one(taken_at: datetime, aside: list[Event]) -> None:
    run = execution([started(), *aside], now=START + HOUR, taken_at=taken_at)
    assert run.picked_up == RunPickedUp(at=START + HOUR)


@pytest.mark.parametrize(
    "before",
    [
        SignalReceived(at=START - SECOND, message_id="m", name="early", payload="1"),
        LeaseTaken(at=START, owner="b", previous_owner="a"),
        RunResumed(at=START, message_id="r"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_came_before_the_code_shortens_no_sleep(before: Event) -> None:
    assert due(execution([started(), before], now=START + LAG)) == START + LAG + HALF_AN_HOUR


def test_a_step_that_was_long_in_being_stored_shortens_no_sleep() -> None:
    run = Execution(defined(works_and_naps), [started()], facts=FACTS, codec=codec, now=START)
    run.step([ended(run, at=START + SECOND)], START + 9 * SECOND)
    assert due(run) == START + 9 * SECOND + HALF_AN_HOUR
