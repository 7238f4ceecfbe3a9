"""Code and history that differ: noticed at the first difference, told with both sides and the line, not talked past."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.activities import charge, echo, inc
from tests.engine.history_builder import FACTS, START, LiveRun, codec, defined, picture, replayed, stored
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import Event, RunCompleted, RunFailed, RunStarted
from tinyworkflow_core.engine.replay import PYTHON, Blocked, Execution, Failed, Mismatch
from tinyworkflow_core.errors import NonDeterminismError
from tinyworkflow_core.serialization import Failure


def line_of(code: Callable[..., Any], mark: str = "# here") -> str:
    """file:line of the line of the function that bears the mark."""
    lines, first = inspect.getsourcelines(code)
    return f"{__file__}:{first + next(i for i, line in enumerate(lines) if mark in line)}"


def first_line(code: Callable[..., Any]) -> str:
    return f"{__file__}:{code.__code__.co_firstlineno}"


def difference(code: Any, history: list[Event]) -> NonDeterminismError:
    outcome = replayed(code, history)
    assert isinstance(outcome, Mismatch), picture(outcome)
    return outcome.error


async def original(ctx: WorkflowContext) -> str:
    number = await ctx.execute_activity(inc, 1)
    text = await ctx.execute_activity(echo, "two")
    await ctx.execute_activity(charge, number, currency=text)
    return "done"


def recorded(code: Any = original) -> list[Event]:
    """The history of a run whose activities and timers have all ended."""
    with LiveRun(code) as run:
        while isinstance(run.outcome, Blocked):
            run.let_go()
            if run.activities:
                run.complete(run.activities[0], "x")
            else:
                run.fire(run.timers[0])
        return run.history


def with_one_step() -> list[Event]:
    """The history of a run that has made its first step, asked for the second and was let go."""
    with LiveRun(original) as run:
        run.complete(run.activities[0], 2).let_go()
        return run.history


def test_a_history_of_the_same_code_is_no_mismatch() -> None:
    assert picture(replayed(original, recorded())) == ["completed", '"done"']


def test_a_step_that_was_added_in_front_is_named_with_both_sides_and_the_line() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(echo, "new")  # here
        return await original(ctx)

    error = difference(changed, recorded())
    assert error.step == 1
    assert error.recorded.startswith("activity 'inc' with arguments ")
    assert error.asked.startswith("activity 'echo' with arguments ")
    assert error.where == line_of(changed)
    assert str(error).startswith("step 1: the history records activity 'inc' with arguments ")
    assert f"but the code asks for {error.asked} at {error.where}. Deploy code that fits" in str(error)


def test_a_step_that_was_removed_is_noticed_at_the_step_that_took_its_place() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(inc, 1)
        await ctx.execute_activity(charge, 2, currency="two")  # here
        return "done"

    error = difference(changed, recorded())
    assert (error.step, error.where) == (2, line_of(changed))
    assert (error.recorded[:15], error.asked[:17]) == ("activity 'echo'", "activity 'charge'")


def test_a_step_of_another_name_is_noticed() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(inc.options(name="increment"), 1)  # here
        return "done"

    error = difference(changed, recorded())
    assert (error.step, error.where) == (1, line_of(changed))
    assert error.asked.startswith("activity 'increment'")


def test_steps_in_another_order_are_noticed() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(inc, 1)
        await ctx.execute_activity(charge, "x", currency="x")  # type: ignore[arg-type]  # here: too early
        await ctx.execute_activity(echo, "two")
        return "done"

    error = difference(changed, recorded())
    assert (error.step, error.where) == (2, line_of(changed))


def test_other_arguments_are_noticed() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(inc, 100)  # here
        return "done"

    error = difference(changed, recorded())
    assert (error.step, error.where) == (1, line_of(changed))
    assert error.recorded != error.asked
    assert error.recorded.split(" with ")[0] == error.asked.split(" with ")[0]


def test_a_change_behind_the_point_that_the_run_has_reached_is_no_mismatch() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(inc, 1)
        await ctx.execute_activity(echo, "two")
        await ctx.sleep(1)
        return "done"

    assert isinstance(replayed(changed, with_one_step()), Blocked)


async def napping(ctx: WorkflowContext) -> str:
    await ctx.sleep(60)
    return "rested"


def test_a_timer_of_another_length_under_a_waiting_run_is_noticed() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.sleep(61)  # here
        return "rested"

    with LiveRun(napping) as run:
        run.let_go()
        error = difference(changed, run.history)
    assert (error.step, error.where) == (1, line_of(changed))
    assert error.recorded == "a timer due 2026-01-01T12:01:00+00:00"
    assert error.asked == "a timer due 2026-01-01T12:01:01+00:00"


async def asking(ctx: WorkflowContext) -> bool:
    return bool(await ctx.wait_for_approval("boss"))


def test_an_approval_of_another_key_is_noticed() -> None:
    async def changed(ctx: WorkflowContext) -> bool:
        return bool(await ctx.wait_for_approval("legal"))  # here

    with LiveRun(asking) as run:
        run.let_go()
        error = difference(changed, run.history)
    assert (error.recorded, error.asked, error.where) == ("approval 'boss'", "approval 'legal'", line_of(changed))


def test_another_kind_of_step_is_noticed() -> None:
    async def changed(ctx: WorkflowContext) -> Any:
        return await ctx.side_effect(lambda: 1)  # here

    error = difference(changed, recorded())
    assert (error.step, error.asked, error.where) == (1, "a side effect", line_of(changed))


def test_code_that_waits_where_its_history_goes_on_is_told_where_it_waits() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(inc, 1)
        await ctx.wait_for_signal("never")  # here
        return "done"

    error = difference(changed, recorded())
    assert (error.step, error.asked, error.where) == (2, "nothing at that point", line_of(changed))


def test_code_that_waits_in_a_helper_is_told_the_helpers_line() -> None:
    async def helper(ctx: WorkflowContext) -> None:
        await ctx.wait_for_signal("never")  # here

    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(inc, 1)
        await helper(ctx)
        return "done"

    assert difference(changed, recorded()).where == line_of(helper)


def test_code_that_returns_earlier_than_its_history_says_is_told_where_it_is_defined() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(inc, 1)
        return "done"

    error = difference(changed, recorded())
    assert (error.step, error.asked, error.where) == (2, "nothing more: it has ended", first_line(changed))


def test_code_that_raises_earlier_than_its_history_says_is_a_mismatch_and_no_failure() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        raise ValueError("typing mistake")

    assert difference(changed, recorded()).step == 1


def test_an_approval_that_is_left_over_is_named() -> None:
    async def changed(ctx: WorkflowContext) -> bool:
        return True

    with LiveRun(asking) as run:
        run.let_go()
        assert difference(changed, run.history).recorded == "approval 'boss'"


def test_code_that_has_not_ended_although_its_history_says_so_is_a_mismatch() -> None:
    async def changed(ctx: WorkflowContext) -> str:
        await original(ctx)
        await ctx.execute_activity(inc, 1)  # here
        return "done"

    error = difference(changed, [*recorded(), RunCompleted(at=START, output='"done"')])
    assert (error.recorded, error.where) == ("the end of the workflow", line_of(changed))


def test_the_closing_event_of_a_run_that_has_ended_changes_nothing() -> None:
    assert picture(replayed(original, [*recorded(), RunCompleted(at=START, output='"done"')])) == [
        "completed",
        '"done"',
    ]


def test_a_run_that_was_ended_from_outside_can_be_replayed() -> None:
    ended = RunFailed(at=START, error=Failure(type="TakeoverLimitError", message="died too often"))
    assert isinstance(replayed(original, [*with_one_step(), ended]), Blocked)


# --- where no line of the workflow is on the stack --------------------------------------------------


async def nap_activity(ctx: WorkflowContext) -> None:
    await asyncio.gather(asyncio.sleep(5), ctx.execute_activity(inc, 1))


def test_a_step_that_runs_as_a_task_is_told_by_the_line_that_waits_for_it() -> None:
    async def changed(ctx: WorkflowContext) -> None:
        await asyncio.gather(ctx.execute_activity(inc, 2), asyncio.sleep(5))  # here

    error = difference(changed, recorded())
    assert (error.step, error.where) == (1, line_of(changed))


def test_a_parallel_call_is_told_by_its_own_line() -> None:
    async def changed(ctx: WorkflowContext) -> Any:
        return await ctx.execute_parallel((inc, (1,)), (inc, (2,)))  # here

    error = difference(changed, recorded())
    assert (error.step, error.where) == (2, line_of(changed))


def test_a_helper_that_asks_is_told_by_its_own_line() -> None:
    async def helper(ctx: WorkflowContext) -> Any:
        async with asyncio.timeout(None):
            return await ctx.execute_activity(inc, 2)  # here

    async def changed(ctx: WorkflowContext) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(helper(ctx))

    assert difference(changed, recorded()).where == line_of(helper)


def test_an_activity_that_a_signal_handler_asks_for_is_told_by_the_handlers_line() -> None:
    async def handler(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(inc, 5)  # here

    def listening(amount: int) -> Any:
        async def listens(ctx: WorkflowContext) -> None:
            ctx.on_signal("go", lambda payload: handler(ctx) if amount else None)
            await ctx.wait_for_signal("stop")
            await ctx.execute_activity(inc, 1)

        return listens

    with LiveRun(listening(0)) as run:
        run.signal("go").signal("stop")
        run.let_go()
        assert difference(listening(1), run.history).where == line_of(handler)


# --- nobody talks past it --------------------------------------------------------------------------


async def swallows_exceptions(ctx: WorkflowContext) -> str:
    try:
        await ctx.execute_activity(inc, 100)
    except Exception:
        return "swallowed"
    return "done"


async def swallows_everything(ctx: WorkflowContext) -> str:
    try:
        await ctx.execute_activity(inc, 100)
    except BaseException:
        return "swallowed"
    return "done"


async def tries_again_for_ever(ctx: WorkflowContext) -> str:
    while True:
        try:
            return await ctx.execute_activity(echo, "again")
        except BaseException:
            pass


async def returns_from_finally(ctx: WorkflowContext) -> str:
    try:
        await ctx.sleep(100)
    finally:
        return "done"  # noqa: B012  # the mistake that is tested


async def swallows_in_tasks(ctx: WorkflowContext) -> str:
    await asyncio.gather(*(tries_again_for_ever(ctx) for _ in range(3)), return_exceptions=True)
    return "done"


async def waits_for_a_condition(ctx: WorkflowContext) -> str:
    task = asyncio.create_task(ctx.wait_until(lambda: False))
    await asyncio.gather(ctx.sleep(100), ctx.sleep(200), ctx.sleep(300))
    return str(task)


SWALLOWING = [
    swallows_exceptions, swallows_everything, tries_again_for_ever, returns_from_finally, swallows_in_tasks,
    waits_for_a_condition,
]  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("code", SWALLOWING, ids=lambda code: code.__name__)
def test_no_handler_in_user_code_can_talk_its_way_past_a_mismatch(code: Any) -> None:
    history = recorded()
    execution = Execution(defined(code), stored(history), facts=FACTS, codec=codec)
    assert isinstance(execution.outcome, Mismatch)
    assert isinstance(execution.step(stored(history[1:])), Mismatch)
    execution.close()
    assert isinstance(execution.outcome, Mismatch)
    assert execution.outcome.error.step == 1


def test_no_code_runs_on_after_a_mismatch() -> None:
    after: list[str] = []

    async def changed(ctx: WorkflowContext) -> None:
        try:
            await ctx.execute_activity(inc, 100)
        except BaseException as error:
            after.append(type(error).__name__)
            raise

    execution = Execution(defined(changed), stored(recorded()), facts=FACTS, codec=codec)
    assert after == []
    execution.close()
    assert after == ["GeneratorExit"]


def test_no_other_task_goes_on_after_a_mismatch() -> None:
    after: list[str] = []

    async def changed(ctx: WorkflowContext) -> None:
        async def other() -> None:
            after.append("begun")

        await asyncio.gather(ctx.execute_activity(inc, 100), other())

    assert difference(changed, recorded()).step == 1
    assert after == []


def test_another_python_is_named_as_a_possible_cause_once() -> None:
    async def changed(ctx: WorkflowContext) -> None:
        await ctx.sleep(1)

    first, *rest = recorded()
    assert isinstance(first, RunStarted)
    older = RunStarted(at=START, name=first.name, version=1, input=first.input, engine=first.engine, python="3.10")
    execution = Execution(defined(changed), stored([older, *rest]), facts=FACTS, codec=codec)
    execution.step([])
    assert isinstance(execution.outcome, Mismatch)
    assert execution.outcome.error.__notes__ == [f"The run was started on Python 3.10; this is {PYTHON}."]
    execution.close()


def test_a_failing_workflow_is_failed_and_not_a_mismatch_when_all_fits() -> None:
    async def fails(ctx: WorkflowContext) -> None:
        await original(ctx)
        raise ValueError("no")

    assert isinstance(replayed(fails, recorded()), Failed)
