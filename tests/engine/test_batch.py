"""ctx.map: how many at a time, when it stops, and what it says of each item; by hand and by chance."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.activities import DeclinedError, echo, inc
from tests.engine.history_builder import Begin, LiveRun
from tinyworkflow_core.engine.batch import BatchResult, Completion, run_batch
from tinyworkflow_core.engine.commands import ExecuteActivity
from tinyworkflow_core.engine.context import WorkflowContext


def told(result: BatchResult[Any]) -> dict[str, Any]:
    return {
        "results": result.results,
        "errors": [str(one) for one in result.errors],
        "counts": [result.total_count, result.success_count, result.failure_count, result.cancelled_count],
        "reason": result.reason,
        "statuses": "".join(one.status[0] for one in result.items),
    }


async def mapping(ctx: WorkflowContext, options: dict[str, Any]) -> Any:
    count = options.pop("count", 4)
    return told(await ctx.map(echo, range(count), **options))


def asked(run: LiveRun) -> list[Any]:
    """The items that are at work."""
    return [one.args[0] for one in run.activities]


def of(run: LiveRun, item: Any) -> ExecuteActivity:
    return next(one for one in run.activities if one.args[0] == item)


# --- by hand -----------------------------------------------------------------------------------------


def test_results_stand_in_the_order_of_the_items_whatever_ended_first(begin: Begin) -> None:
    run = begin(mapping, {"count": 3})
    for item in (2, 0, 1):
        run.complete(of(run, item), f"r{item}")
    assert run.result == {
        "results": ["r0", "r1", "r2"], "errors": [], "counts": [3, 3, 0, 0], "reason": "all_completed",
        "statuses": "sss",
    }  # fmt: skip


def test_it_stops_when_enough_have_succeeded_and_ends_after_the_others_have(begin: Begin) -> None:
    run = begin(mapping, {"min_successful": 2})
    run.complete(of(run, 3), "r3").complete(of(run, 1), "r1")
    assert asked(run) == []
    assert [one.args[0] for one in run.withdrawn] == [0, 2]
    run.end_withdrawn(run.withdrawn[0])
    run.end_withdrawn()
    assert run.result["reason"] == "min_successful"
    assert (run.result["statuses"], run.result["counts"]) == ("cscs", [4, 2, 0, 2])


def test_one_that_ends_while_it_is_being_stopped_counts_as_cancelled(begin: Begin) -> None:
    run = begin(mapping, {"min_successful": 1, "count": 3})
    run.complete(of(run, 0), "r0")
    first, second = run.withdrawn
    run.complete(first, "r1").fail(second, DeclinedError("no"))
    assert run.result["statuses"] == "scc"
    assert run.result["reason"] == "min_successful"


def test_one_failure_is_tolerated_and_the_second_is_not(begin: Begin) -> None:
    run = begin(mapping, {"tolerated_failures": 1})
    run.fail(of(run, 0), DeclinedError("first"))
    assert asked(run) == [1, 2, 3]
    run.fail(of(run, 2), DeclinedError("second")).end_withdrawn()
    assert run.result["errors"] == ["first", "second"]
    assert (run.result["reason"], run.result["statuses"]) == ("failures", "fcfc")


def test_by_default_the_first_failure_stops_it(begin: Begin) -> None:
    run = begin(mapping, {})
    run.fail(of(run, 1), DeclinedError("no")).end_withdrawn()
    assert (run.result["reason"], run.result["statuses"]) == ("failures", "cfcc")


def test_with_none_any_number_may_fail(begin: Begin) -> None:
    run = begin(mapping, {"tolerated_failures": None})
    for item in range(4):
        run.fail(of(run, item), DeclinedError(str(item)))
    assert (run.result["reason"], run.result["statuses"]) == ("all_completed", "ffff")


def test_the_next_item_begins_when_another_has_ended_and_those_never_begun_are_cancelled(begin: Begin) -> None:
    run = begin(mapping, {"max_concurrency": 2, "min_successful": 2, "count": 5})
    assert asked(run) == [0, 1]
    run.complete(of(run, 1), "r1")
    assert asked(run) == [0, 2]
    run.complete(of(run, 2), "r2").end_withdrawn()
    assert run.result["statuses"] == "csscc"
    assert run.execution.journal.position == 3  # the last two were never asked for


def test_an_empty_list_ends_at_once(begin: Begin) -> None:
    run = begin(mapping, {"count": 0})
    assert run.result == {
        "results": [], "errors": [], "counts": [0, 0, 0, 0], "reason": "all_completed", "statuses": "",
    }  # fmt: skip
    assert run.execution.journal.position == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrency": 0}, {"max_concurrency": -1}, {"max_concurrency": 1.5}, {"max_concurrency": True},
        {"min_successful": 0}, {"min_successful": 5}, {"tolerated_failures": -1}, {"tolerated_failures": "1"},
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused_before_anything_begins(begin: Begin, options: Any) -> None:
    run = begin(mapping, options)
    assert run.error.type == "ValueError"
    assert next(iter(options)) in run.error.message
    assert run.execution.journal.position == 0


def test_what_is_no_activity_is_refused(begin: Begin) -> None:
    async def careless(ctx: WorkflowContext) -> None:
        await ctx.map(len, [[1]])

    assert "put @activity on it" in begin(careless).error.message


def test_too_many_failures_raise_the_first_error_when_asked_to(begin: Begin) -> None:
    async def strict(ctx: WorkflowContext, tolerated: int | None) -> str:
        batch = await ctx.map(echo, "abc", tolerated_failures=tolerated)
        batch.raise_if_failed()
        return batch.reason

    run = begin(strict, 1)
    run.fail(of(run, "c"), DeclinedError("c fell first")).fail(of(run, "b"), DeclinedError("then b")).end_withdrawn()
    assert (run.error.type.rpartition(".")[2], run.error.message) == ("DeclinedError", "then b")  # in item order
    run = begin(strict, None)
    for item in "abc":
        run.fail(of(run, item), DeclinedError(item))
    assert run.result == "all_completed"


def test_a_cancellation_in_the_middle_ends_what_runs_and_begins_nothing_more(begin: Begin) -> None:
    run = begin(mapping, {"max_concurrency": 2, "tolerated_failures": None})
    run.fail(of(run, 0), DeclinedError("no"))
    run.cancel()
    assert (asked(run), len(run.withdrawn)) == ([], 2)
    run.end_withdrawn(run.withdrawn[0])
    assert run.outcome.__class__.__name__ == "Blocked"
    run.end_withdrawn()
    assert run.outcome.__class__.__name__ == "Cancelled"
    assert run.execution.journal.position == 3


def test_the_items_of_one_map_are_one_group_and_two_maps_are_two(begin: Begin) -> None:
    async def two(ctx: WorkflowContext) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.map(echo, "ab", max_concurrency=1))
            group.create_task(ctx.map(inc, [1, 2]))

    run = begin(two)
    groups = {(one.activity.name, one.args[0]): one.group for one in run.activities}
    assert groups == {("echo", "a"): 1, ("inc", 1): 2, ("inc", 2): 2}
    run.complete(of(run, "a"))
    assert of(run, "b").group == 1


def test_a_failing_sibling_in_a_task_group_stops_the_map(begin: Begin) -> None:
    async def grouped(ctx: WorkflowContext) -> str:
        with pytest.raises(ExceptionGroup):  # noqa: PT012  # the group is what raises
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.map(echo, "abc", max_concurrency=2))
                group.create_task(ctx.execute_activity(inc, 1))
        return "declined"

    run = begin(grouped)
    run.fail(of(run, 1), DeclinedError("no"))
    assert [one.args[0] for one in run.withdrawn] == ["a", "b"]
    assert run.end_withdrawn().result == "declined"


def test_ten_thousand_items_take_time_in_proportion() -> None:
    async def nothing(index: int) -> int:
        return index

    result = asyncio.run(asyncio.wait_for(run_batch(nothing, 10_000, Completion(max_concurrency=10)), 5))
    assert result.results == list(range(10_000))


# --- by chance ---------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Items that end when they are told to, and what was seen of them."""

    fails: list[bool]
    turns: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    most: int = 0

    async def begin(self, index: int) -> int:
        self.begun.append(index)
        self.turns[index] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.turns))
        try:
            await self.turns[index]
        finally:
            del self.turns[index]
            self.ended.append(index)
        if self.fails[index]:
            raise DeclinedError(str(index))
        return index


def expected(fails: list[bool], order: list[int], completion: Completion) -> tuple[str, str]:
    """The statuses and the reason, by the words of the documentation."""
    most = completion.max_concurrency or len(fails)
    begun = list(range(min(most, len(fails))))
    statuses, running = ["c"] * len(fails), list(begun)
    for pick in order:
        if not running:
            break
        item = running.pop(pick % len(running))
        statuses[item] = "f" if fails[item] else "s"
        if completion.tolerated_failures is not None and statuses.count("f") > completion.tolerated_failures:
            return "".join(statuses), "failures"
        if completion.min_successful is not None and statuses.count("s") >= completion.min_successful:
            return "".join(statuses), "min_successful"
        if len(begun) < len(fails):
            running.append(len(begun))
            begun.append(len(begun))
    return "".join(statuses), "all_completed"


@settings(deadline=None, max_examples=300)
@given(
    fails=st.lists(st.booleans(), max_size=9),
    picks=st.lists(st.integers(0, 20), min_size=9, max_size=9),
    max_concurrency=st.none() | st.integers(1, 10),
    min_successful=st.none() | st.integers(1, 9),
    tolerated_failures=st.none() | st.integers(0, 9),
)
def test_whatever_the_numbers_and_the_order_a_batch_ends_as_documented(
    fails: list[bool],
    picks: list[int],
    max_concurrency: int | None,
    min_successful: int | None,
    tolerated_failures: int | None,
) -> None:
    completion = Completion(
        max_concurrency=max_concurrency,
        min_successful=None if min_successful is None or min_successful > len(fails) else min_successful,
        tolerated_failures=tolerated_failures,
    )
    bench = Bench(fails)
    result = asyncio.run(_play(bench, completion, picks))
    statuses, reason = expected(fails, picks, completion)
    assert ("".join(one.status[0] for one in result.items), result.reason) == (statuses, reason)
    assert [one.index for one in result.items] == list(range(len(fails)))
    assert result.results == [item for item, status in enumerate(statuses) if status == "s"]
    assert [str(one) for one in result.errors] == [str(item) for item, status in enumerate(statuses) if status == "f"]
    assert bench.most <= (max_concurrency or len(fails))
    assert bench.begun == list(range(len(bench.begun)))
    assert sorted(bench.ended) == bench.begun  # nothing is left running
    assert result.success_count + result.failure_count + result.cancelled_count == result.total_count == len(fails)
    if reason == "failures":
        with pytest.raises(DeclinedError, match=f"^{statuses.index('f')}$"):
            result.raise_if_failed()
    else:
        result.raise_if_failed()


async def _play(bench: Bench, completion: Completion, picks: list[int]) -> BatchResult[int]:
    batch = asyncio.ensure_future(run_batch(bench.begin, len(bench.fails), completion))
    order: list[int] = []
    for pick in picks:
        await _rest()
        order += [one for one in bench.begun if one not in order]
        running = [one for one in order if one in bench.turns]
        if not running or batch.done():
            break
        bench.turns[running[pick % len(running)]].set_result(None)
    await _rest()
    return await batch


async def _rest() -> None:
    for _ in range(6):  # a task's end, its callback, the batch's next step, the next item's first step
        await asyncio.sleep(0)


@settings(deadline=None, max_examples=100)
@given(
    fails=st.lists(st.booleans(), min_size=1, max_size=5),
    picks=st.lists(st.integers(0, 9), min_size=12, max_size=12),
    options=st.fixed_dictionaries(
        {
            "max_concurrency": st.none() | st.integers(1, 3),
            "min_successful": st.none() | st.just(1),
            "tolerated_failures": st.none() | st.integers(0, 2),
        }
    ),
)
def test_a_map_stands_in_every_replay_where_it_stood(fails: list[bool], picks: list[int], options: Any) -> None:
    with LiveRun(mapping, {"count": len(fails), **options}) as run:  # replayed from its JSON form after every event
        for pick in picks:
            if run.outcome.__class__.__name__ != "Blocked":
                break
            if run.withdrawn:
                run.end_withdrawn(run.withdrawn[pick % len(run.withdrawn)])
                continue
            one = run.activities[pick % len(run.activities)]
            if fails[one.args[0]]:
                run.fail(one, DeclinedError("no"))
            else:
                run.complete(one, one.args[0])
        assert run.result["counts"][0] == len(fails)
