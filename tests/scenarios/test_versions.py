"""Changed code under open runs: versions, patches, and what happens to a run that the code no longer fits."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta
from typing import Any

import pytest

from tests.scenarios.conftest import Ways
from tests.scenarios.deploying import deploy
from tinyworkflow_core import RunNotFoundError, WorkflowContext, activity, workflow
from tinyworkflow_core.registry import WorkflowDefinition
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[Any] = []


@activity
async def note(what: Any) -> Any:
    LOG.append(what)
    return what


@activity
async def other(what: Any) -> Any:
    LOG.append(["other", what])
    return what


# --- versions ------------------------------------------------------------------------------------------


@workflow(name="order", version=1)
async def order_1(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.execute_activity(note, "one")
    await ctx.sleep("1d")
    return [ctx.version, first]


@workflow(name="order", version=2)
async def order_2(ctx: WorkflowContext) -> list[Any]:
    return [ctx.version, await ctx.execute_activity(other, "two")]


async def test_an_open_run_ends_on_the_version_it_began_with_and_a_new_one_takes_the_highest(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        deploy(env, order_1)
        run_id = await env.start("order")
        await env.run()
        deploy(env, order_1, order_2)
        assert await env.result(await env.start("order")) == [2, "two"]
        assert await env.result(await env.start("order", version=1)) == [1, "one"]
        assert await env.result(run_id) == [1, "one"]

    await ways(scenario, order_1, order_2)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_run_whose_version_is_gone_is_parked_and_goes_on_when_it_is_back(ways: Ways, at_once: bool) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        deploy(env, order_1)
        run_id = await env.start("order")
        await env.run()
        deploy(env, order_2)
        env.clock.move_to(env.clock.now() + timedelta(days=1))  # at one go: it is looked at every 5 minutes
        await env.run()
        run = await env.status(run_id)
        assert run.status == "parked"
        assert run.problem is not None
        assert "'order'" in run.problem
        assert "version 1" in run.problem
        deploy(env, order_1, order_2)
        if at_once:
            await env.resume(run_id)
            await env.run()
        else:
            await env.advance("5m")
        run = await env.status(run_id)
        assert (run.status, run.problem, run.output_data) == ("completed", None, {"result": [1, "one"]})
        if env.plain:
            assert LOG == ["one"]

    await ways(scenario, order_1, order_2)


# --- patches -------------------------------------------------------------------------------------------


@workflow(name="bill")
async def bill_before(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.execute_activity(note, "first")
    await ctx.sleep("10m")
    return [first, await ctx.execute_activity(note, "old"), await ctx.execute_activity(note, "last")]


@workflow(name="bill")
async def bill_patched(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.execute_activity(note, "first")
    is_new = ctx.patched("tax")  # before the nap: an old run is past it
    await ctx.sleep("10m")
    if is_new:
        async with asyncio.TaskGroup() as group:  # the first effects of the new branch
            both = [group.create_task(ctx.execute_activity(other, part)) for part in ("a", "b")]
        second = [one.result() for one in both]
    else:
        second = await ctx.execute_activity(note, "old")
    return [first, second, await ctx.execute_activity(note, "last")]


@workflow(name="bill")
async def bill_deprecated(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.execute_activity(note, "first")
    ctx.deprecate_patch("tax")
    await ctx.sleep("10m")
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(ctx.execute_activity(other, part)) for part in ("a", "b")]
    return [first, [one.result() for one in both], await ctx.execute_activity(note, "last")]


OLD, NEW = ["first", "old", "last"], ["first", ["a", "b"], "last"]


async def test_an_old_run_takes_the_old_branch_and_a_new_one_the_new_branch(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        deploy(env, bill_before)
        old = await env.start("bill")
        await env.advance("1m")
        deploy(env, bill_patched)
        new = await env.start("bill")
        await env.advance("1m")
        assert await env.result(old) == OLD
        assert await env.result(new) == NEW
        assert await env.events(old, "PatchMarked") == []
        [mark] = await env.events(new, "PatchMarked")
        kinds = [one["type"] for one in await env.events(new) if one["type"] != "LeaseTaken"]
        assert mark["patch"] == "tax"
        assert kinds.index("PatchMarked") < kinds.index("TimerStarted")

    await ways(scenario, bill_before)


async def test_once_the_old_branch_is_gone_a_run_that_needs_it_is_parked_and_the_others_go_on(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        deploy(env, bill_before)
        old = await env.start("bill")
        await env.advance("1m")
        deploy(env, bill_patched)
        new = await env.start("bill")
        await env.advance("1m")
        deploy(env, bill_deprecated)
        newest = await env.start("bill")
        await env.advance("1m")
        assert await env.result(new) == NEW
        assert await env.result(newest) == NEW
        run = await env.status(old)
        assert run.status == "parked"
        assert "patch 'tax'" in (run.problem or "")
        deploy(env, bill_patched)
        await env.resume(old)
        await env.run()
        assert (await env.status(old)).output_data == {"result": OLD}

    await ways(scenario, bill_before)


async def test_the_branch_a_run_took_before_a_crash_is_the_one_it_takes_after_it(ways: Ways) -> None:
    """Two messages in one commit, the first of which leads to the patch: nothing of it is recorded yet."""

    @workflow
    async def branches(ctx: WorkflowContext) -> list[Any]:
        await ctx.wait_for_signal("go")
        step = other if ctx.patched("p") else note
        return [await ctx.execute_activity(step, "x"), await ctx.wait_for_signal("go"), ctx.patched("p")]

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(branches)
        await env.run()
        for number in range(2):
            await env.signal(run_id, "go", number)
        assert await env.result(run_id) == ["x", 1, True]
        assert all(one == ["other", "x"] for one in LOG)

    await ways(scenario, branches)


async def test_a_mark_is_kept_when_the_write_that_brings_it_has_to_be_made_again(ways: Ways) -> None:
    """The child's id is taken: the store refuses the first write whole."""

    @workflow
    async def sleeps(ctx: WorkflowContext) -> None:
        await ctx.sleep("1d")

    @workflow
    async def starts(ctx: WorkflowContext) -> bool:
        is_new = ctx.patched("p")
        try:
            await ctx.execute_child(sleeps, run_id="taken")
        except Exception:
            await ctx.sleep("1h")
        return is_new

    async def scenario(env: WorkflowEnvironment) -> None:
        await env.start(sleeps, run_id="taken")
        run_id = await env.start(starts)
        await env.run()
        assert [one["patch"] for one in await env.events(run_id, "PatchMarked")] == ["p"]
        assert await env.result(run_id) is True

    await ways(scenario, starts, sleeps)


async def test_a_new_generation_takes_the_new_branch_though_signals_came_along_from_the_old(ways: Ways) -> None:
    @workflow(name="meter")
    async def before(ctx: WorkflowContext, round_: int) -> None:
        await ctx.wait_for_signal("next")
        ctx.continue_as_new(round_ + 1)

    @workflow(name="meter")
    async def after(ctx: WorkflowContext, round_: int) -> list[Any]:
        if round_ == 0:
            await ctx.wait_for_signal("next")
            ctx.continue_as_new(round_ + 1)
        return [ctx.patched("p"), await ctx.wait_for_signal("kept")]

    async def scenario(env: WorkflowEnvironment) -> None:
        deploy(env, before)
        run_id = await env.start("meter", 0)
        await env.signal(run_id, "kept", 1)
        await env.run()
        deploy(env, after)
        await env.advance("1m")
        await env.signal(run_id, "next")
        assert await env.result(run_id) == [True, 1]

    await ways(scenario, before)


# --- code that does not fit ----------------------------------------------------------------------------


@workflow(name="fitted")
async def as_it_was(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.execute_activity(note, 1)
    second = await ctx.execute_activity(other, 2)
    await ctx.wait_for_signal("go")
    return [first, second]


@workflow(name="fitted")
async def added(ctx: WorkflowContext) -> Any:
    await ctx.execute_activity(note, 1)
    await ctx.execute_activity(note, "new")  # here
    await ctx.execute_activity(other, 2)
    await ctx.wait_for_signal("go")


@workflow(name="fitted")
async def removed(ctx: WorkflowContext) -> Any:
    await ctx.execute_activity(other, 2)  # here
    await ctx.wait_for_signal("go")


@workflow(name="fitted")
async def removed_at_the_end(ctx: WorkflowContext) -> Any:
    await ctx.execute_activity(note, 1)
    await ctx.wait_for_signal("go")  # here


@workflow(name="fitted")
async def reordered(ctx: WorkflowContext) -> Any:
    await ctx.execute_activity(other, 2)  # here
    await ctx.execute_activity(note, 1)
    await ctx.wait_for_signal("go")


@workflow(name="fitted")
async def other_arguments(ctx: WorkflowContext) -> Any:
    await ctx.execute_activity(note, 1)
    await ctx.execute_activity(other, 3)  # here
    await ctx.wait_for_signal("go")


@activity(name="renamed")
async def renamed_activity(what: Any) -> Any:
    return what


@workflow(name="fitted")
async def renamed(ctx: WorkflowContext) -> Any:
    await ctx.execute_activity(note, 1)
    await ctx.execute_activity(renamed_activity, 2)  # here
    await ctx.wait_for_signal("go")


@workflow(name="fitted")
async def another_kind(ctx: WorkflowContext) -> Any:
    await ctx.execute_activity(note, 1)
    await ctx.sleep(5)  # here
    await ctx.wait_for_signal("go")


@workflow(name="fitted")
async def caught(ctx: WorkflowContext) -> Any:
    """No handler of the workflow's may talk its way past it."""
    await ctx.execute_activity(note, 1)
    try:
        await ctx.execute_activity(note, "new")  # here
    except BaseException:
        await ctx.execute_activity(other, 2)
    finally:
        await ctx.execute_activity(note, "finally")


@pytest.mark.parametrize(
    ("code", "step", "recorded", "asked"),
    [
        (added, 2, "activity 'other'", "activity 'note'"),
        (removed, 1, "activity 'note'", "activity 'other'"),
        (reordered, 1, "activity 'note'", "activity 'other'"),
        (other_arguments, 2, "activity 'other'", "activity 'other'"),
        (renamed, 2, "activity 'other'", "activity 'renamed'"),
        (another_kind, 2, "activity 'other'", "a timer due"),
        (caught, 2, "activity 'other'", "activity 'note'"),
    ],
    ids=lambda value: value.fn.__name__ if isinstance(value, WorkflowDefinition) else "",
)
async def test_a_run_that_the_code_does_not_fit_is_parked_with_both_sides_and_the_line_and_goes_on_once_mended(
    code: WorkflowDefinition[Any], step: int, recorded: str, asked: str
) -> None:
    LOG.clear()
    async with WorkflowEnvironment([as_it_was]) as env:
        run_id = await env.start("fitted")
        await env.run()
        done = list(LOG)
        before = await env.events(run_id)
        deploy(env, code)
        await env.signal(run_id, "go")
        await env.run()
        run = await env.status(run_id)
        assert run.status == "parked"
        lines, first = inspect.getsourcelines(code.fn)
        [offset] = [i for i, text in enumerate(lines) if text.rstrip().endswith("# here")]
        problem = run.problem or ""
        assert f"step {step}: the history records {recorded}" in problem
        assert f"asks for {asked}" in problem
        assert f"{__file__}:{first + offset}" in problem
        assert (LOG, await env.events(run_id)) == (done, before)
        deploy(env, as_it_was)
        await env.resume(run_id)
        assert await env.result(run_id) == [1, 2]


async def test_a_step_that_is_gone_where_the_code_only_waits_is_found_when_more_is_asked_for(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        deploy(env, as_it_was)
        run_id = await env.start("fitted")
        await env.run()
        deploy(env, removed_at_the_end)
        await env.signal(run_id, "go")
        await env.run()
        run = await env.status(run_id)
        assert run.status == "parked"
        assert "step 2: the history records activity 'other'" in (run.problem or "")
        deploy(env, as_it_was)
        await env.resume(run_id)
        assert await env.result(run_id) == [1, 2]

    await ways(scenario, as_it_was)


async def test_a_parked_run_goes_on_by_itself_when_mended_code_is_deployed_and_has_lost_no_signal(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        deploy(env, as_it_was)
        run_id = await env.start("fitted")
        await env.run()
        deploy(env, added)
        await env.signal(run_id, "go")
        await env.advance("1m")
        assert (await env.status(run_id)).status == "parked"
        deploy(env, as_it_was)
        await env.advance("5m")
        run = await env.status(run_id)
        assert (run.status, run.output_data, run.problem) == ("completed", {"result": [1, 2]}, None)
        with pytest.raises(RunNotFoundError):
            await env.resume("nobody")

    await ways(scenario, as_it_was)
