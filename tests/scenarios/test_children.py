"""Child runs: what becomes of them reaches their parent, and what becomes of the parent reaches them."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from tests.scenarios.conftest import Ways
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import (
    InvalidInputError,
    RunClosedError,
    RunExistsError,
    RunNotFoundError,
    UnknownWorkflowError,
    WorkflowCancelledError,
    WorkflowContext,
    WorkflowFailedError,
    activity,
    workflow,
)
from tinyworkflow_core.errors import ChildFailedError, SerializationError
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[Any] = []
BROKEN: set[str] = set()

Policy = Literal["cancel", "terminate", "abandon"]


@activity
async def note(what: Any) -> Any:
    LOG.append(what)
    return what


class Parcel(BaseModel):
    item: str
    grams: int


class AddressError(Exception):
    """Importable, with two arguments."""

    def __init__(self, street: str, number: int) -> None:
        super().__init__(street, number)
        self.street, self.number = street, number


@workflow
async def pack(ctx: WorkflowContext, grams: int) -> Parcel:
    if grams < 0:
        raise AddressError("Main Street", grams)
    await ctx.execute_activity(note, grams)
    return Parcel(item="lamp", grams=grams)


@workflow
async def waits(ctx: WorkflowContext) -> Any:
    """Until it is told to go on, or to end; then it cleans up."""
    ctx.on_query("who", lambda: ctx.parent_run_id)
    try:
        return await ctx.wait_for_signal("go")
    finally:
        await ctx.execute_activity(note, "cleaned")


# --- results and failures ------------------------------------------------------------------------------


async def test_a_child_s_result_and_its_typed_failure_reach_the_parent(ways: Ways) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        parcel = await ctx.execute_child(pack, 5)
        assert type(parcel) is Parcel
        try:
            await ctx.execute_child("pack", -7)
        except AddressError as error:
            return [parcel, error.street, error.number]
        return []

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(parent)
        assert await env.result(run_id) == [Parcel(item="lamp", grams=5), "Main Street", -7]
        children = await env.client.list_workflow_executions(parent_run_id=run_id)
        assert sorted((one.run_id, one.status, one.parent_run_id) for one in children) == [
            (f"{run_id}.0.1", "completed", run_id),
            (f"{run_id}.0.2", "failed", run_id),
        ]
        assert [one["status"] for one in await env.events(run_id, "ChildEnded")] == ["completed", "failed"]

    await ways(scenario, parent, pack)


async def test_a_failure_that_nobody_catches_fails_the_parent_with_the_child_s_own_type() -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> None:
        await ctx.execute_child(pack, -7)

    async with WorkflowEnvironment([parent, pack]) as env:
        with pytest.raises(WorkflowFailedError) as raised:
            await env.result(await env.start(parent))
        assert isinstance(raised.value.__cause__, AddressError)
        assert raised.value.__cause__.args == ("Main Street", -7)


async def test_what_keeps_a_child_from_starting_is_a_typed_error_in_the_parent(ways: Ways) -> None:
    @workflow
    async def parent(ctx: WorkflowContext, taken: str) -> list[Any]:
        said: list[Any] = []
        for wanted, data, run_id in (("nobody", 1, None), (pack, "heavy", None), (pack, 1, taken), (pack, 1, "fresh")):
            try:
                said.append((await ctx.execute_child(wanted, data, run_id=run_id)).grams)
            except (UnknownWorkflowError, RunExistsError) as error:
                said.append([type(error).__name__, getattr(error, "run_id", None)])
            except InvalidInputError as error:
                said.append(["InvalidInputError", [one["loc"] for one in error.errors]])
        return said

    async def scenario(env: WorkflowEnvironment) -> None:
        await env.start(waits, run_id="other")
        run_id = await env.start(parent, "other")
        assert await env.result(run_id) == [
            ["UnknownWorkflowError", None],
            ["InvalidInputError", [[]]],
            ["RunExistsError", "other"],
            1,
        ]
        assert (await env.status("other")).status == "waiting"
        assert (await env.status("fresh")).parent_run_id == run_id

    await ways(scenario, parent, pack, waits)


async def test_two_children_of_one_id_at_once_are_one_child_and_one_error(ways: Ways) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        both = await asyncio.gather(
            *(ctx.execute_child(pack, grams, run_id="twin") for grams in (1, 2)), return_exceptions=True
        )
        return [type(one).__name__ for one in both]

    async def scenario(env: WorkflowEnvironment) -> None:
        assert await env.result(await env.start(parent)) == ["Parcel", "RunExistsError"]

    await ways(scenario, parent, pack)


async def test_a_result_as_large_as_a_value_may_be_arrives_and_a_larger_one_is_a_clear_error(
    stores: StoreFactory,
) -> None:
    @workflow
    async def large(ctx: WorkflowContext, size: int) -> str:
        return "\\" * size  # each takes four bytes by the time that it stands in a history

    @workflow
    async def parent(ctx: WorkflowContext, size: int) -> str:
        try:
            return str(len(await ctx.execute_child(large, size)))
        except SerializationError as error:
            return str(error)

    store = stores()
    try:
        async with WorkflowEnvironment([large, parent], store=store) as env:
            assert await env.result(await env.start(parent, 224_000)) == "224000"
            assert "over the limit of 900000" in await env.result(await env.start(parent, 226_000))
    finally:
        await store.close()


async def test_a_child_of_a_child_of_a_child_sends_its_result_all_the_way_up(ways: Ways) -> None:
    @workflow
    async def nested(ctx: WorkflowContext, depth: int) -> list[Any]:
        if depth == 0:
            return []
        return [depth, *await ctx.execute_child(nested, depth - 1)]

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(nested, 3)
        assert await env.result(run_id) == [3, 2, 1]
        assert (await env.status(f"{run_id}.0.1.0.1.0.1")).parent_run_id == f"{run_id}.0.1.0.1"

    await ways(scenario, nested)


# --- cancellation and close policies ------------------------------------------------------------------


async def test_cancelling_the_parent_cancels_the_child_and_waits_until_it_has_cleaned_up(ways: Ways) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> None:
        try:
            await ctx.execute_child(waits)
        finally:
            await ctx.execute_activity(note, "parent")

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(parent)
        await env.run()
        child = f"{run_id}.0.1"
        assert (await env.status(child)).status == "waiting"
        assert await env.query(child, "who") == run_id
        await env.cancel(run_id)
        with pytest.raises(WorkflowCancelledError):
            await env.result(run_id)
        assert (await env.status(child)).status == "cancelled"
        assert LOG.index("cleaned") < LOG.index("parent")
        if env.plain:
            assert LOG == ["cleaned", "parent"]

    await ways(scenario, parent, waits)


async def test_a_grandchild_is_cancelled_with_its_grandparent_the_innermost_first(ways: Ways) -> None:
    @workflow
    async def nested(ctx: WorkflowContext, depth: int) -> None:
        try:
            if depth:
                await ctx.execute_child(nested, depth - 1)
            else:
                await ctx.sleep("30d")
        finally:
            await ctx.execute_activity(note, depth)

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(nested, 2)
        await env.run()
        await env.cancel(run_id)
        with pytest.raises(WorkflowCancelledError):
            await env.result(run_id)
        assert list(dict.fromkeys(LOG)) == [0, 1, 2]

    await ways(scenario, nested)


ENDS = ("completes", "fails", "is cancelled", "is terminated", "continues as new")


@workflow
async def ends(ctx: WorkflowContext, policies: list[Policy]) -> None:
    """Has a child of each policy, and comes to the end that it is told."""
    if ctx.generation:
        await ctx.wait_for_signal("never")
    for policy in policies:
        await ctx.start_child(waits, run_id=f"{policy}-child", on_parent_close=policy)
    how = await ctx.wait_for_signal("end")
    if how == "fails":
        raise ValueError("asked to")
    if how == "continues as new":
        ctx.continue_as_new(policies)


@pytest.mark.parametrize("how", ENDS)
async def test_what_becomes_of_a_child_when_its_parent_ends_is_as_it_was_agreed(
    ways: Ways, stores: StoreFactory, how: str
) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(ends, ["cancel", "terminate", "abandon"])
        await env.run()
        if how == "is cancelled":
            await env.cancel(run_id)
        elif how == "is terminated":
            await env.terminate(run_id)
        else:
            await env.signal(run_id, "end", how)
        await env.run()
        await env.advance("1m")
        ended = {policy: (await env.status(f"{policy}-child")).status for policy in ("cancel", "terminate", "abandon")}
        assert ended == {"cancel": "cancelled", "terminate": "terminated", "abandon": "waiting"}
        await env.signal("abandon-child", "go", 1)  # whose end nobody waits for
        assert await env.result("abandon-child") == 1
        status = (await env.status(run_id)).status
        assert status == {"completes": "completed", "fails": "failed", "continues as new": "waiting"}.get(
            how, how.removeprefix("is ")
        )

    if stores.kind != "firestore" or how == "is terminated":
        await ways(scenario, ends, waits)
        return
    store = stores()  # the write is the same: once is enough where it is slow
    async with WorkflowEnvironment([ends, waits], store=store) as env:
        await scenario(env)
    await store.close()


async def test_a_child_that_others_cancel_or_terminate_is_a_child_failed_error_in_the_parent(ways: Ways) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        said: list[Any] = []
        for _ in range(2):
            try:
                await ctx.execute_child(waits)
            except ChildFailedError as error:
                said.append([error.type, error.run_id])
        return said

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(parent)
        await env.run()
        await env.cancel(f"{run_id}.0.1")
        await env.run()
        await env.advance("1m")
        await env.terminate(f"{run_id}.0.2")
        assert await env.result(run_id) == [["cancelled", f"{run_id}.0.1"], ["terminated", f"{run_id}.0.2"]]

    await ways(scenario, parent, waits)


async def test_of_a_group_of_children_the_others_are_cancelled_when_one_fails(ways: Ways) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        said: list[Any] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.execute_child(waits))
                group.create_task(ctx.execute_child(pack, -1))
                group.create_task(ctx.execute_child(waits))
        except* AddressError as failed:
            said += [one.args for one in failed.exceptions]
        return said

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(parent)
        assert await env.result(run_id) == [("Main Street", -1)]
        children = await env.client.list_workflow_executions(parent_run_id=run_id)
        assert sorted(one.status for one in children) == ["cancelled", "cancelled", "failed"]

    await ways(scenario, parent, waits, pack)


# --- handles -------------------------------------------------------------------------------------------


async def test_a_handle_signals_cancels_and_gives_the_result_and_giving_up_waiting_leaves_the_child_alone(
    ways: Ways,
) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        first = await ctx.start_child(waits)
        second = await ctx.start_child(waits)
        try:
            await asyncio.wait_for(first.result(), 5)
        except TimeoutError:
            pass
        await first.signal("go", {"a": 1})
        await second.cancel()
        said: list[Any] = [await first.result()]
        try:
            await second.result()
        except ChildFailedError as error:
            said.append(error.type)
        try:
            await second.signal("go")
        except RunClosedError as error:
            said.append(error.run_id)
        await second.cancel()  # which it is already
        return said

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(parent)
        assert await env.result(run_id) == [{"a": 1}, "cancelled", f"{run_id}.0.2"]

    await ways(scenario, parent, waits)


# --- retries -------------------------------------------------------------------------------------------


@workflow
async def mended(ctx: WorkflowContext, name: str) -> str:
    await ctx.execute_activity(note, name)
    if name in BROKEN:
        raise ValueError(f"{name} is broken")
    return name


@pytest.mark.parametrize("given", [False, True])
async def test_a_retried_parent_gets_a_fresh_child_for_the_one_that_failed(ways: Ways, given: bool) -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        first = await ctx.execute_child(mended, "first")
        return [first, await ctx.execute_child(mended, "second", run_id="mine" if given else None)]

    async def scenario(env: WorkflowEnvironment) -> None:
        BROKEN.update({"second"})
        run_id = await env.start(parent)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        BROKEN.clear()
        await env.retry(run_id)
        assert await env.result(run_id) == ["first", "second"]
        name = "mine" if given else f"{run_id}.0.2"
        children = await env.client.list_workflow_executions(parent_run_id=run_id)
        assert sorted((one.run_id, one.status) for one in children) == sorted(
            [(f"{run_id}.0.1", "completed"), (name, "failed"), (f"{name}.retry-1", "completed")]
        )

    await ways(scenario, parent, mended)


async def test_an_id_that_is_taken_by_a_stranger_stays_taken_when_the_parent_is_retried() -> None:
    @workflow
    async def parent(ctx: WorkflowContext) -> Parcel:
        parcel: Parcel = await ctx.execute_child(pack, 1, run_id="once-only")
        return parcel

    async with WorkflowEnvironment([parent, pack]) as env:
        await env.start(pack, 1, run_id="once-only")
        run_id = await env.start(parent)
        for _ in range(2):
            with pytest.raises(WorkflowFailedError) as raised:
                await env.result(run_id)
            assert isinstance(raised.value.__cause__, RunExistsError)
            await env.retry(run_id)
        with pytest.raises(RunNotFoundError):
            await env.status("once-only.again-1")


async def test_a_retried_group_starts_anew_both_the_child_that_failed_and_those_that_were_cancelled_for_it(
    ways: Ways,
) -> None:
    @workflow
    async def sleeps(ctx: WorkflowContext) -> str:
        await ctx.sleep("1m")
        return "slept"

    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.execute_child(sleeps)), group.create_task(ctx.execute_child(mended, "one"))]
        return [one.result() for one in tasks]

    async def scenario(env: WorkflowEnvironment) -> None:
        BROKEN.update({"one"})
        run_id = await env.start(parent)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        BROKEN.clear()
        await env.retry(run_id)
        assert await env.result(run_id) == ["slept", "one"]

    await ways(scenario, parent, sleeps, mended)


# --- many ----------------------------------------------------------------------------------------------


async def test_a_thousand_children_of_one_parent(stores: StoreFactory) -> None:
    count = 100 if stores.kind == "firestore" else 1000  # there each takes ten times as long

    @workflow
    async def child(ctx: WorkflowContext, number: int) -> int:
        return number * 2

    @workflow
    async def parent(ctx: WorkflowContext) -> int:
        return sum(await asyncio.gather(*(ctx.execute_child(child, number) for number in range(count))))

    store = stores()
    try:
        async with WorkflowEnvironment([parent, child], store=store) as env:
            began = time.monotonic()
            run_id = await env.start(parent)
            assert await env.result(run_id) == count * (count - 1)
            took = time.monotonic() - began
            print(
                f"{stores.kind}: {count} children in {took:.1f} s, {env.writes} writes, {env.hops[run_id]} parent hops"
            )  # what the test measures
            # One write to create each hundred, two for each child's life, one for every two hundred that have ended.
            assert env.writes < 2 * count + 60
    finally:
        await store.close()
