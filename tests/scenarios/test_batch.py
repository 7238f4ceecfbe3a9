"""ctx.map: one activity for each of many items, and rules for when it is enough."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.eventually import eventually
from tests.scenarios.conftest import Ways
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.errors import WorkflowFailedError
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    LOG.clear()


def running() -> set[str]:
    """The items whose activity has begun and not ended."""
    begun: set[str] = set()
    for what, item in LOG:
        begun = begun | {item} if what == "begin" else begun - {item}
    return begun


def most_at_once() -> int:
    begun = most = 0
    for what, _ in LOG:
        begun += 1 if what == "begin" else -1
        most = max(most, begun)
    return most


@activity(retry_policy=RetryPolicy(max_retries=0))
async def handle(item: Any) -> Any:
    LOG.append(("begin", str(item)))
    try:
        match item:
            case ["hang", _]:
                await asyncio.Event().wait()
            case ["fail", number]:
                raise ValueError(f"item {number}")
            case ["nap", _]:
                await asyncio.sleep(0.002)
        return item
    finally:
        LOG.append(("end", str(item)))


@workflow
async def mapped(ctx: WorkflowContext, asked: dict[str, Any]) -> Any:
    batch = await ctx.map(handle, asked["items"], **asked.get("options", {}))
    return {
        "reason": batch.reason,
        "statuses": "".join(one.status[0] for one in batch.items),
        "results": batch.results,
        "errors": [str(error) for error in batch.errors],
        "counts": (batch.total_count, batch.success_count, batch.failure_count, batch.cancelled_count),
    }


def told(text: str) -> list[list[Any]]:
    """Items by letters: o(k), f(ail), h(ang), n(ap)."""
    words = {"o": "ok", "f": "fail", "h": "hang", "n": "nap"}
    return [[words[letter], number] for number, letter in enumerate(text)]


CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "two of four are enough": ("ohho", {"min_successful": 2}, "sccs", "min_successful"),
    "one failure is no error": ("ofoo", {"tolerated_failures": 1}, "sfss", "all_completed"),
    "two failures are": ("fhfh", {"tolerated_failures": 1}, "fcfc", "failures"),
    "none tolerates all": ("ffff", {"tolerated_failures": None}, "ffff", "all_completed"),
    "one at a time, until the first failure": ("oofoo", {"max_concurrency": 1}, "ssfcc", "failures"),
    "nothing to do": ("", {}, "", "all_completed"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_batch_ends_by_its_rule_and_leaves_nothing_running(ways: Ways, case: str) -> None:
    items, options, statuses, reason = CASES[case]

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(mapped, {"items": told(items), "options": options})
        found = await env.result(run_id)
        assert (found["statuses"], found["reason"]) == (statuses, reason)
        assert found["results"] == [item for item, status in zip(told(items), statuses, strict=True) if status == "s"]
        assert found["errors"] == [f"item {number}" for number, status in enumerate(statuses) if status == "f"]
        assert found["counts"] == (len(items), *(statuses.count(one) for one in "sfc"))
        assert running() == set()
        withdrawn = len(await env.events(run_id, "ActivityCancelled"))
        assert withdrawn == len({item for _, item in LOG}) - statuses.count("s") - statuses.count("f")

    await ways(scenario, mapped)


async def test_no_more_than_the_bound_are_at_work_at_once_and_the_bound_is_used(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(mapped, {"items": told("n" * 9), "options": {"max_concurrency": 3}})
        assert (await env.result(run_id))["results"] == told("n" * 9)
        assert most_at_once() == 3

    await ways(scenario, mapped)


async def test_a_bound_of_zero_fails_the_run_with_an_error_that_says_so(stores: StoreFactory) -> None:
    store = stores()
    env = WorkflowEnvironment([mapped], store=store)
    run_id = await env.start(mapped, {"items": told("oo"), "options": {"max_concurrency": 0}})
    with pytest.raises(WorkflowFailedError, match="max_concurrency must be a whole number of at least 1") as raised:
        await env.result(run_id)
    assert isinstance(raised.value.__cause__, ValueError)
    await store.close()


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 20}, {"min_successful": 500}])
async def test_a_thousand_items_give_their_results_in_order(stores: StoreFactory, options: dict[str, Any]) -> None:
    store = stores()
    env = WorkflowEnvironment([mapped], store=store)
    run_id = await env.start(mapped, {"items": list(range(1000)), "options": options})
    found = await env.result(run_id)
    if "min_successful" in options:
        assert (found["reason"], found["counts"][1] >= 500, sum(found["counts"][1:])) == ("min_successful", True, 1000)
    else:
        assert found["results"] == list(range(1000))
    assert most_at_once() <= options.get("max_concurrency", 100)
    assert running() == set()
    await store.close()


CLEANUP = str(["ok", "cleanup"])


@workflow
async def interrupted(ctx: WorkflowContext) -> Any:
    try:
        return (await ctx.map(handle, told("ohhoo"), max_concurrency=3)).reason
    finally:
        await ctx.execute_activity(handle, ["ok", "cleanup"])


async def test_a_run_that_is_cancelled_in_the_middle_of_a_batch_cleans_up_after_its_items_have_ended(
    ways: Ways,
) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(interrupted)
        working = asyncio.create_task(env.run())
        await eventually(lambda: _is_in_the_middle(working))
        at_work = [process.app for process in env._processes]
        await env.cancel(run_id)
        for app in at_work:  # as a store that notifies would; one that died meanwhile finds that out
            for attention in app._advancer._held.values():
                attention.call_for_messages()
        await working
        await env.run()
        assert (await env.status(run_id)).status == "cancelled"
        assert running() == set()
        ended = await env.events(run_id, "ActivityCompleted", "ActivityCancelled")
        assert len(ended) == len({item for _, item in LOG})
        assert LOG[-2:] == [("begin", CLEANUP), ("end", CLEANUP)]
        assert LOG.count(("end", CLEANUP)) == 1 or env.crashed

    await ways(scenario, interrupted)


async def _is_in_the_middle(working: asyncio.Task[None]) -> bool:
    return len(running()) == 2 or working.done()


async def test_a_batch_in_a_task_group_is_stopped_by_the_failure_of_a_sibling(ways: Ways) -> None:
    @workflow
    async def grouped(ctx: WorkflowContext) -> list[str]:
        batch = sibling = None
        try:
            async with asyncio.TaskGroup() as group:
                batch = group.create_task(ctx.map(handle, told("hoh")))
                sibling = group.create_task(ctx.execute_activity(handle, ["fail", 99]))
        except* ValueError as errors:
            messages = [str(error) for error in errors.exceptions]
        assert batch is not None
        assert sibling is not None
        return [*messages, str(batch.cancelled()), str(sibling.done())]

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        assert await env.result(await env.start(grouped)) == ["item 99", "True", "True"]
        assert running() == set()

    await ways(scenario, grouped)


async def test_a_batch_may_be_made_of_calls_of_their_own_and_stop_early(ways: Ways) -> None:
    away = handle.options(run_on="queue", timeout="1m", retry_policy=RetryPolicy(initial_delay=1))

    @workflow
    async def far(ctx: WorkflowContext) -> Any:
        batch = await ctx.map(away, told("ooooo"), max_concurrency=2, min_successful=3)
        return batch.reason, batch.success_count

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        reason, succeeded = await env.result(await env.start(far))
        assert reason == "min_successful"
        assert succeeded >= 3
        if env.plain:
            assert len({item for _, item in LOG}) <= 4

    await ways(scenario, far)
