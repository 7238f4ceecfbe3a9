"""What workflow code sees of activities: results, failures as they were raised, several at once."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

from tests.engine.activities import DeclinedError, TwistedError, charge, echo, inc
from tests.engine.history_builder import Begin, codec, picture
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import ActivityFailed
from tinyworkflow_core.errors import ActivityError, ApplicationError, SerializationError
from tinyworkflow_core.serialization import Failure


async def one_step(ctx: WorkflowContext, number: int) -> int:
    return await ctx.execute_activity(inc, number)


async def what_failed(ctx: WorkflowContext) -> list[Any]:
    """The exception that the activity raised, as the workflow sees it, and its causes."""
    chain: list[Any] = []
    try:
        await ctx.execute_activity(inc, 1)
    except Exception as error:
        seen: BaseException | None = error
        while seen is not None:
            chain.append(
                [f"{type(seen).__module__}:{type(seen).__qualname__}", str(seen), getattr(seen, "details", None)]
            )
            seen = seen.__cause__
    return chain


async def many(ctx: WorkflowContext, count: int) -> list[int]:
    return await ctx.execute_parallel(*((inc, (i,)) for i in range(count)))


async def parallel_or_words(ctx: WorkflowContext, count: int) -> Any:
    try:
        return await many(ctx, count)
    except ValueError as error:
        return f"failed: {error}"


# --- one -------------------------------------------------------------------------------------------


def test_a_workflow_waits_for_its_activity_and_gets_its_result(begin: Begin) -> None:
    run = begin(one_step, 41)
    (command,) = run.activities
    assert (command.id, command.activity, command.args, command.input) == (1, inc, (41,), "[[41]]")
    run.complete(command, 42)
    assert run.result == 42


def test_steps_are_numbered_in_the_order_in_which_they_are_asked_for(begin: Begin) -> None:
    async def three(ctx: WorkflowContext) -> int:
        number = 0
        for _ in range(3):
            number = await ctx.execute_activity(inc, number)
        return number

    run = begin(three)
    ids = []
    for _ in range(3):
        (command,) = run.activities
        ids.append(command.id)
        run.complete(command, command.args[0] + 1)
    assert ids == [1, 2, 3]
    assert run.result == 3


def test_named_arguments_are_part_of_the_request(begin: Begin) -> None:
    async def named(ctx: WorkflowContext) -> str:
        return await ctx.execute_activity(charge, 5, currency="USD")

    (command,) = begin(named).activities
    assert json.loads(command.input) == [[5], {"currency": "USD"}]


def test_a_variant_of_an_activity_is_asked_for_by_its_own_name(begin: Begin) -> None:
    async def variant(ctx: WorkflowContext) -> int:
        return await ctx.execute_activity(inc.options(name="inc later", timeout=5), 1)

    (command,) = begin(variant).activities
    assert (command.activity.name, command.activity.timeout) == ("inc later", 5)


def test_the_result_is_what_was_stored_with_its_type(begin: Begin) -> None:
    async def typed(ctx: WorkflowContext) -> str:
        return repr(await ctx.execute_activity(echo, (1, 2)))

    run = begin(typed)
    run.complete(run.activities[0], (b"x", {3, 1}))
    assert run.result == repr((b"x", {1, 3}))


def test_an_attempt_that_failed_and_is_tried_again_is_not_seen_by_the_workflow(begin: Begin) -> None:
    run = begin(one_step, 1)
    (command,) = run.activities
    run.later(1).fail(command, ValueError("first"), retry_in=2)
    run.later(2).fail(command, ValueError("second"), retry_in=4)
    (pending,) = run.pending
    assert pending.attempt == 2
    assert pending.retry_at is not None
    assert pending.first_started_at is not None
    assert (pending.retry_at - pending.first_started_at).total_seconds() == 6
    run.complete(command, 2)
    assert run.result == 2


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ValueError("no"), ["builtins:ValueError", "no", None]),
        (FileNotFoundError(2, "gone", "a.txt"), ["builtins:FileNotFoundError", "[Errno 2] gone: 'a.txt'", None]),
        (DeclinedError("card"), ["tests.engine.activities:DeclinedError", "card", None]),
        (TwistedError(7), ["tinyworkflow_core.errors:ActivityError", "code 7", None]),
        (
            ApplicationError("empty", type="Stock", details={"left": 0}),
            ["tinyworkflow_core.errors:ApplicationError", "empty", {"left": 0}],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_workflow_sees_the_exception_that_the_activity_raised(
    begin: Begin, raised: Exception, seen: list[Any]
) -> None:
    run = begin(what_failed)
    run.fail(run.activities[0], raised)
    assert run.result == [seen]


def test_an_exception_whose_class_is_not_here_arrives_as_activity_error(begin: Begin) -> None:
    async def by_type(ctx: WorkflowContext) -> Any:
        try:
            await ctx.execute_activity(inc, 1)
        except ActivityError as error:
            return [error.type, error.message, error.details]

    run = begin(by_type)
    (command,) = run.activities
    gone = Failure(
        type="LostError", message="far away", cls="no_such_module:LostError", args='["far away"]', details='{"a":1}'
    )
    run.happen(ActivityFailed(at=run.now, **command.about(), attempt=1, started_at=run.now, error=gone))
    assert run.result == ["LostError", "far away", {"a": 1}]


def test_the_chain_of_causes_is_kept(begin: Begin) -> None:
    top = DeclinedError("card")
    top.__cause__ = TwistedError(7)
    top.__cause__.__cause__ = KeyError("k")
    run = begin(what_failed)
    run.fail(run.activities[0], top)
    assert [one[0].partition(":")[2] for one in run.result] == ["DeclinedError", "ActivityError", "KeyError"]


def test_a_failure_that_nobody_catches_fails_the_run_as_it_was(begin: Begin) -> None:
    run = begin(one_step, 1)
    run.fail(run.activities[0], DeclinedError("card"))
    assert (run.error.cls, run.error.message) == ("tests.engine.activities:DeclinedError", "card")


def test_arguments_that_cannot_be_stored_are_refused_and_the_activity_is_named(begin: Begin) -> None:
    async def unstorable(ctx: WorkflowContext) -> Any:
        return await ctx.execute_activity(echo, {"file": object()})

    assert begin(unstorable).error.message.startswith("arguments of activity 'echo': $")


def test_a_result_that_cannot_be_stored_fails_the_run_and_says_so(begin: Begin) -> None:
    async def unstorable(ctx: WorkflowContext) -> Any:
        return object()

    assert begin(unstorable).error.message.startswith("result of the workflow: $ is a builtins.object")


def test_a_function_that_is_no_activity_is_refused_by_name(begin: Begin) -> None:
    async def plain(ctx: WorkflowContext) -> Any:
        return await ctx.execute_activity(len, [])

    assert begin(plain).error.message == "len is not an activity: put @activity on it"


def test_an_exit_in_workflow_code_fails_the_run_and_not_the_process(begin: Begin) -> None:
    async def leaving(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(inc, 1)
        raise SystemExit(3)

    run = begin(leaving)
    run.complete(run.activities[0], 2)
    assert run.error.type == "SystemExit"


# --- several at once -------------------------------------------------------------------------------


def test_no_parallel_call_is_an_empty_result_at_once(begin: Begin) -> None:
    assert begin(many, 0).result == []


@pytest.mark.parametrize("count", [1, 20])
def test_parallel_results_come_in_the_order_of_the_calls(begin: Begin, count: int) -> None:
    run = begin(many, count)
    commands = run.activities
    assert [(one.id, one.args, one.group) for one in commands] == [(i + 1, (i,), 1) for i in range(count)]
    for command in reversed(commands):
        run.complete(command, command.args[0] + 1)
    assert run.result == list(range(1, count + 1))


def test_a_thousand_parallel_calls_are_one_wait(begin: Begin) -> None:
    run = begin(many, 1000)
    run.happen(*(run.completed(one, -one.args[0]) for one in reversed(run.activities)))
    assert run.result == [-i for i in range(1000)]


def test_a_parallel_call_may_leave_out_its_arguments(begin: Begin) -> None:
    async def short(ctx: WorkflowContext) -> list[Any]:
        return await ctx.execute_parallel((echo,), (echo, (1,)), (charge, (2,), {"currency": "USD"}))

    assert [one.input for one in begin(short).activities] == ["[[]]", "[[1]]", '[[2],{"currency":"USD"}]']


def test_a_parallel_call_that_is_no_tuple_is_refused(begin: Begin) -> None:
    async def bare(ctx: WorkflowContext) -> list[Any]:
        return await ctx.execute_parallel(inc)  # type: ignore[arg-type]  # the mistake that is tested

    assert "execute_parallel takes (activity, args, kwargs) tuples" in begin(bare).error.message


def test_parallel_calls_that_run_side_by_side_are_groups_of_their_own(begin: Begin) -> None:
    async def side_by_side(ctx: WorkflowContext) -> Any:
        return await asyncio.gather(many(ctx, 2), many(ctx, 2))

    run = begin(side_by_side)
    groups: dict[int | None, list[int]] = {}
    for command in run.activities:
        groups.setdefault(command.group, []).append(command.id)
    assert groups == {1: [1, 2], 3: [3, 4]}


def test_the_first_failure_is_raised_only_after_the_others_were_withdrawn_and_have_ended(begin: Begin) -> None:
    run = begin(parallel_or_words, 4)
    first, second, third, fourth = run.activities
    run.complete(first, 1)
    run.fail(third, ValueError("third"))
    assert [one.id for one in run.withdrawn] == [second.id, fourth.id]
    run.end_withdrawn(fourth)
    assert [one.id for one in run.withdrawn] == [second.id]
    run.end_withdrawn(second)
    assert run.result == "failed: third"


def test_what_a_withdrawn_call_still_gives_or_raises_does_not_replace_the_first_failure(begin: Begin) -> None:
    run = begin(parallel_or_words, 3)
    first, second, third = run.activities
    run.fail(second, ValueError("second"))
    run.complete(first, 1)
    run.fail(third, KeyError("third"))
    assert run.result == "failed: second"


def test_calls_that_fail_together_leave_no_failure_that_nobody_looked_at(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    async def unstorable(ctx: WorkflowContext) -> str:
        try:
            await ctx.execute_parallel(*((echo, (object(),)) for _ in range(3)))
        except SerializationError:
            pass
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(500)))  # the loop lets go of tasks that have ended
        return "seen"

    assert begin(unstorable).result == "seen"
    gc.collect()
    assert caplog.messages == []


def test_of_failures_in_one_commit_the_one_that_happened_first_is_raised(begin: Begin) -> None:
    run = begin(parallel_or_words, 3)
    first, second, third = run.activities
    late, early = run.failed(first, ValueError("late")), run.failed(third, ValueError("early"))
    run.happen(early, late)
    run.end_withdrawn(second)
    assert run.result == "failed: early"


def test_long_arguments_are_kept_in_the_history_as_their_digest_only(begin: Begin) -> None:
    async def long(ctx: WorkflowContext) -> Any:
        return await ctx.execute_activity(echo, "x" * 5000)

    run = begin(long)
    (command,) = run.activities
    assert len(command.about()["digest"]) == 16
    assert command.about()["input"] is None
    run.let_go().complete(command, "y")
    assert picture(run.outcome) == ["completed", codec.encode("y")]
