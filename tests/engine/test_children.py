"""Child runs as their parent meets them: results, errors, cancellation, handles, and what the history must fit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.engine.activities import DeclinedError, TwistedError, echo, inc
from tests.engine.history_builder import Begin, LiveRun, codec, replayed
from tinyworkflow_core.engine.commands import SendMessage, StartChild, child_run_id
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import ChildEnded, ChildStarted, Event, MessageSent
from tinyworkflow_core.engine.replay import Blocked, Completed, Mismatch
from tinyworkflow_core.errors import ActivityError, ChildFailedError, RunExistsError
from tinyworkflow_core.registry import workflow


@workflow(name="ship")
async def ship(ctx: WorkflowContext, item: str) -> str:
    return item


def children(run: LiveRun) -> list[StartChild]:
    return [one for one in run.commands if isinstance(one, StartChild)]


def sent(run: LiveRun) -> list[SendMessage]:
    return [one for one in run.commands if isinstance(one, SendMessage)]


def start(run: LiveRun, *wanted: StartChild) -> LiveRun:
    """The children exist."""
    return run.happen(*(_started(run, one) for one in wanted or children(run)))


def _started(run: LiveRun, child: StartChild) -> Event:
    return ChildStarted(at=run.now, on_parent_close=child.on_parent_close, **child.about())


def end(
    run: LiveRun, child: StartChild, result: Any = None, *, status: str = "completed", error: Exception | None = None
) -> LiveRun:
    return run.happen(ended(run, child, result, status=status, error=error))


def ended(
    run: LiveRun, child: StartChild, result: Any = None, *, status: str = "completed", error: Exception | None = None
) -> Event:
    return ChildEnded(
        at=run.now,
        status=status,
        message_id=f"child/{child.id}",
        result=codec.encode(result) if status == "completed" else None,
        error=None if error is None else codec.failure(error),
        **child.about(),
    )


def deliver(run: LiveRun, message: SendMessage, error: Exception | None = None) -> LiveRun:
    failure = None if error is None else codec.failure(error)
    return run.happen(
        MessageSent(
            at=run.now, id=message.id, target=message.target, name=message.name, digest=message.digest, error=failure
        )
    )


# --- execute_child ---------------------------------------------------------------------------------


async def one_child(ctx: WorkflowContext) -> Any:
    try:
        return await ctx.execute_child(ship, "lamp")
    except Exception as error:
        return [type(error).__name__, *error.args, getattr(error, "type", None)]


def test_a_child_is_asked_for_under_an_id_that_follows_from_its_place(begin: Begin) -> None:
    [child] = children(begin(one_child))
    assert (child.name, child.run_id, child.on_parent_close) == ("ship", "run-1.0.1", "cancel")
    assert codec.decode(child.input) == "lamp"


def test_its_result_comes_back_as_it_was_stored(begin: Begin) -> None:
    run = start(begin(one_child))
    assert end(run, children(run)[0], {"a": (1, {2})}).result == {"a": (1, {2})}


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (DeclinedError("card", 5), ["DeclinedError", "card", 5, None]),
        (TwistedError(7), ["ActivityError", "code 7", "TwistedError"]),
    ],
)
def test_its_failure_comes_back_with_its_own_type_where_that_can_be_rebuilt(
    begin: Begin, error: Exception, seen: list[Any]
) -> None:
    run = start(begin(one_child))
    assert end(run, children(run)[0], status="failed", error=error).result == seen
    assert isinstance(codec.exception(codec.failure(TwistedError(7))), ActivityError)


@pytest.mark.parametrize("status", ["cancelled", "terminated"])
def test_one_that_others_have_ended_is_a_child_failed_error_with_that_word(begin: Begin, status: str) -> None:
    run = start(begin(one_child))
    result = end(run, children(run)[0], status=status).result
    assert (result[0], result[-1]) == ("ChildFailedError", status)
    assert f"'ship' (run-1.0.1) was {status}" in result[1]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((7,), {}, "TypeError: 7 is not a workflow"),
        (("ship",), {"on_parent_close": "forget"}, "ValueError: on_parent_close is"),
        (("ship",), {"run_id": "a/b"}, "ValueError: run_id: 'a/b' does not fit"),
        (("ship", object()), {}, "SerializationError: input of child workflow 'ship'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_no_child_is_asked_for(
    begin: Begin, args: Any, kwargs: Any, message: str
) -> None:
    async def wrong(ctx: WorkflowContext) -> str:
        try:
            await ctx.execute_child(*args, **kwargs)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "?"

    assert begin(wrong).result.startswith(message)


async def in_a_group(ctx: WorkflowContext) -> Any:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.execute_child(ship, name)) for name in ("a", "b", "c")]
    except* DeclinedError as failed:
        said = [str(one) for one in failed.exceptions]
    return [said, [one.cancelled() for one in tasks]]


def test_of_a_group_the_others_are_cancelled_and_waited_for_when_one_fails(begin: Begin) -> None:
    run = start(begin(in_a_group))
    a, b, c = children(run)
    end(run, b, status="failed", error=DeclinedError("no"))
    assert [one.withdrawn for one in run.pending] == [True, True]
    assert isinstance(end(run, a, status="cancelled").outcome, Blocked)
    assert end(run, c, "too late").result == [["no"], [True, False, True]]


def test_a_cancelled_wait_asks_the_child_to_end_and_waits_for_it(begin: Begin) -> None:
    run = start(begin(one_child))
    [child] = children(run)
    run.cancel()
    assert run.execution.journal.withdrawn == [child.id]
    assert isinstance(run.outcome, Blocked)
    run.cancel()
    assert run.execution.journal.withdrawn == [child.id]
    assert type(end(run, child, status="cancelled").outcome).__name__ == "Cancelled"


def test_one_that_does_not_exist_yet_is_not_started_once_nobody_waits_for_it(begin: Begin) -> None:
    run = begin(one_child)
    run.cancel()
    assert type(run.outcome).__name__ == "Cancelled"
    assert run.execution.journal.open == {}


def test_an_abandoned_one_is_left_alone_when_nobody_waits_for_it_any_more(begin: Begin) -> None:
    async def careless(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(5):
                await ctx.execute_child(ship, "lamp", on_parent_close="abandon")
        except TimeoutError:
            pass
        return "gone on"

    run = start(begin(careless))
    assert run.fire(run.timers[0]).result == "gone on"
    assert run.execution.journal.withdrawn == []


# --- start_child -----------------------------------------------------------------------------------


async def beside(ctx: WorkflowContext) -> Any:
    child = await ctx.start_child(ship, "lamp", run_id="ship-7")
    await ctx.execute_activity(inc, 1)
    try:
        async with asyncio.timeout(5):
            return await child.result()
    except TimeoutError:
        pass
    await child.signal("hurry", 3)
    await child.cancel()
    return [child.run_id, await child.result()]


def test_a_handle_is_given_as_soon_as_the_child_exists(begin: Begin) -> None:
    run = begin(beside)
    assert run.activities == []
    start(run)
    assert [one.activity.name for one in run.activities] == ["inc"]


def test_cancelling_the_wait_for_its_result_leaves_the_child_alone(begin: Begin) -> None:
    run = start(begin(beside))
    run.complete(run.activities[0], 2).fire(run.timers[0])
    [child] = children(run)
    assert run.execution.journal.withdrawn == []
    [signal] = sent(run)
    assert (signal.target, signal.name, codec.decode(signal.payload)) == ("ship-7", "hurry", 3)
    [cancel] = sent(deliver(run, signal))
    assert (cancel.target, cancel.name) == ("ship-7", None)
    deliver(run, cancel)
    assert end(run, child, "shipped").result == ["ship-7", "shipped"]


def test_a_result_that_came_before_it_was_asked_for_is_kept(begin: Begin) -> None:
    run = start(begin(beside))
    end(run, children(run)[0], "early")
    assert run.complete(run.activities[0], 2).result == "early"


def test_the_result_may_be_asked_for_twice_and_by_two_at_once(begin: Begin) -> None:
    async def twice(ctx: WorkflowContext) -> Any:
        child = await ctx.start_child(ship, "lamp")
        return [*(await asyncio.gather(child.result(), child.result())), await child.result()]

    run = start(begin(twice))
    assert end(run, children(run)[0], 5).result == [5, 5, 5]


def test_one_that_cannot_be_started_raises_where_it_is_started(begin: Begin) -> None:
    async def taken(ctx: WorkflowContext) -> Any:
        try:
            await ctx.start_child(ship, "lamp", run_id="ship-7")
        except RunExistsError as error:
            return error.run_id

    run = begin(taken)
    error = RunExistsError("taken", run_id="ship-7")
    assert end(run, children(run)[0], status="failed", error=error).result == "ship-7"


def test_a_start_that_is_cancelled_before_the_child_exists_starts_none(begin: Begin) -> None:
    async def cleans_up(ctx: WorkflowContext) -> None:
        try:
            await ctx.start_child(ship, "lamp")
        finally:
            await ctx.execute_activity(echo, "clean")

    run = begin(cleans_up)
    run.cancel()
    assert [type(one).__name__ for one in run.commands] == ["ExecuteActivity"]


def test_a_signal_that_cannot_be_sent_raises_in_the_workflow(begin: Begin) -> None:
    async def asks(ctx: WorkflowContext) -> Any:
        try:
            await ctx.signal_run("nobody", "go")
        except ChildFailedError as error:
            return str(error)

    run = begin(asks)
    assert deliver(run, sent(run)[0], ChildFailedError("no", "nobody")).result == "no"


# --- what the history must fit -----------------------------------------------------------------------


def changed(**options: Any) -> Any:
    async def code(ctx: WorkflowContext) -> Any:
        return await ctx.execute_child(
            options.get("workflow", "ship"), options.get("input", "lamp"), run_id=options.get("run_id", "ship-7")
        )

    return code


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"workflow": "sell"}, "'sell'"),
        ({"input": "chair"}, "with input"),
        ({"run_id": "ship-8"}, "as run 'ship-8'"),
        ({"run_id": None}, "as run 'run-1.0.1'"),
    ],
)
def test_a_child_that_is_asked_for_otherwise_than_it_was_does_not_fit(
    begin: Begin, options: dict[str, Any], asked: str
) -> None:
    run = start(begin(changed()))
    outcome = replayed(changed(**options), run.history)
    assert isinstance(outcome, Mismatch)
    assert asked in outcome.error.asked
    assert "as run 'ship-7'" in outcome.error.recorded
    assert outcome.error.where.startswith(__file__)


def test_a_signal_to_another_run_or_of_another_name_does_not_fit(begin: Begin) -> None:
    def code(*about: Any) -> Any:
        async def sends(ctx: WorkflowContext) -> None:
            await ctx.signal_run(*about)

        return sends

    run = begin(code("a", "go", 1))
    deliver(run, sent(run)[0])
    for other in (("b", "go", 1), ("a", "stop", 1), ("a", "go", 2)):
        assert isinstance(replayed(code(*other), run.history), Mismatch), other
    assert isinstance(replayed(code("a", "go", 1), run.history), Completed)


def test_the_id_of_a_child_stays_within_what_a_store_takes_however_deep_it_is_nested() -> None:
    run_id, seen = "run-0123456789ab", set()
    for _ in range(200):
        run_id = child_run_id(run_id, 0, 1, 0, None)
        assert len(run_id) <= 200
        seen.add(run_id)
    assert len(seen) == 200
