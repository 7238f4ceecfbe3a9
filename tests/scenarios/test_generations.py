"""Continue-as-new: one run_id, a history that does not grow, and nothing lost or doubled at the border."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from tests.scenarios.conftest import Ways
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import (
    App,
    RunStateError,
    WorkflowCancelledError,
    WorkflowContext,
    WorkflowFailedError,
    activity,
    workflow,
)
from tinyworkflow_core.engine import context, generations
from tinyworkflow_core.errors import ApprovalNotFoundError
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[Any] = []
BROKEN: set[str] = set()


@activity
async def note(what: Any) -> Any:
    LOG.append(what)
    return what


@activity
async def fragile(what: Any) -> Any:
    if what in BROKEN:
        raise ValueError(f"{what} is broken")
    return what


# --- counting ------------------------------------------------------------------------------------------


@workflow
async def count(ctx: WorkflowContext, state: list[int]) -> list[Any]:
    number, until, every = state
    if number < until:
        if number % every == every - 1:  # now and then it does more than count
            ctx.set_status(await ctx.execute_activity(fragile, number))
        ctx.continue_as_new([number + 1, until, every])
    return [number, ctx.generation, ctx.run_id]


@pytest.mark.timeout(400)
async def test_a_run_that_counts_by_continuing_as_new_keeps_one_id_and_a_bounded_history(stores: StoreFactory) -> None:
    rounds = 150 if stores.kind == "firestore" else 10_000  # there each takes ten times as long
    store = stores()
    seen: list[tuple[int, int]] = []

    @activity(name="fragile")
    async def look(number: int) -> int:
        state = await store.load(run_id)
        assert state is not None
        seen.append((len(state.history), len(state.inbox)))
        return number

    run_id = "counter"
    try:
        async with WorkflowEnvironment([count], store=store, activities={"fragile": look.fn}) as env:
            began = time.monotonic()
            await env.start(count, [0, rounds, rounds // 10], run_id=run_id)
            assert await env.result(run_id) == [rounds, rounds, run_id]
            took = time.monotonic() - began
            print(f"{stores.kind}: {rounds} generations, {took:.1f} s, {env.writes} writes")  # what it measures
            assert seen == [(1, 0)] * 10
            run = await env.status(run_id)
            assert (run.generation, run.custom_status) == (rounds, rounds - 1)
            assert [one["type"] for one in await env.events(run_id)] == ["RunStarted", "RunCompleted"]
            assert await stored_documents(stores, store, run_id) <= 4
            assert len(await env.client.list_workflow_executions()) == 1
    finally:
        await store.close()


async def stored_documents(stores: StoreFactory, store: Any, run_id: str) -> int:
    """History and inbox documents that the store holds of the run, of all generations."""
    if stores.kind == "firestore":
        at = store._at
        record = at.record(run_id)
        history = [one async for one in at.history(record).stream()]
        return len(history) + len(await store.inbox(run_id))
    return int(await store._writer.run(lambda db, changed: db.execute("SELECT COUNT(*) FROM history").fetchone()[0]))


# --- messages at the border --------------------------------------------------------------------------


@workflow
async def collects(ctx: WorkflowContext, got: list[int]) -> list[int]:
    """Takes two signals in a generation."""
    for _ in range(2):
        got.append(await ctx.wait_for_signal("item"))
        if len(got) == 7:
            return got
    ctx.continue_as_new(got)


async def test_numbered_signals_cross_any_number_of_borders_once_each_and_in_order(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(collects, [])
        for number in range(3):
            await env.signal(run_id, "item", number)
        await env.run()
        for number in range(3, 7):
            await env.signal(run_id, "item", number)
            if number % 2:
                await env.run()
        assert await env.result(run_id) == list(range(7))
        assert (await env.status(run_id)).generation == 3

    await ways(scenario, collects)


async def test_signals_sent_by_several_senders_while_the_run_continues_are_each_received_once_in_order(
    stores: StoreFactory,
) -> None:
    per_sender, senders = (10, 3) if stores.kind == "firestore" else (100, 3)

    @workflow
    async def drains(ctx: WorkflowContext, got: list[Any]) -> list[Any]:
        for _ in range(3):
            got.append(await ctx.wait_for_signal("item"))
            if len(got) == per_sender * senders:
                return got
        ctx.continue_as_new(got)

    store = stores()
    try:
        async with WorkflowEnvironment([drains], store=store) as env:
            run_id = await env.start(drains, [])

            async def send(sender: int) -> None:
                for number in range(per_sender):
                    await env.signal(run_id, "item", [sender, number])
                    await asyncio.sleep(0)

            sending = asyncio.gather(*(send(sender) for sender in range(senders)))
            while not sending.done():
                await env.run()
                await asyncio.sleep(0)
            await sending
            got = await env.result(run_id)
            assert len(got) == per_sender * senders
            for sender in range(senders):
                assert [number for one, number in got if one == sender] == list(range(per_sender))
            assert (await env.status(run_id)).generation >= per_sender * senders // 3 - 1
    finally:
        await store.close()


async def test_the_same_message_id_counts_once_on_both_sides_of_the_border(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(collects, [0, 1, 2, 3])
        await env.signal(run_id, "item", 4, message_id="a")
        await env.signal(run_id, "item", 5, message_id="b")
        await env.run()
        assert (await env.status(run_id)).generation == 1
        await env.signal(run_id, "item", 4, message_id="a")
        await env.signal(run_id, "item", 5, message_id="b")
        await env.run()
        assert (await env.status(run_id)).status == "waiting"
        await env.signal(run_id, "item", 6, message_id="c")
        assert await env.result(run_id) == list(range(7))

    await ways(scenario, collects)


async def test_signals_that_nobody_has_taken_go_along_and_count_once_there_too(ways: Ways) -> None:
    @workflow
    async def later(ctx: WorkflowContext, round_: int) -> list[Any]:
        if round_ < 2:
            await ctx.wait_for_signal("next")
            ctx.continue_as_new(round_ + 1)
        return [await ctx.wait_for_signal("kept"), await ctx.wait_for_signal("kept")]

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(later, 0)
        await env.signal(run_id, "kept", 1, message_id="a")
        await env.signal(run_id, "next")
        await env.run()
        await env.signal(run_id, "kept", 1, message_id="a")
        await env.signal(run_id, "next")
        await env.run()
        assert (await env.status(run_id)).generation == 2
        await env.signal(run_id, "kept", 1, message_id="a")
        await env.signal(run_id, "kept", 2, message_id="b")
        assert await env.result(run_id) == [1, 2]

    await ways(scenario, later)


async def test_more_signals_than_one_document_holds_go_along(stores: StoreFactory) -> None:
    @workflow
    async def hoards(ctx: WorkflowContext, round_: int) -> list[int]:
        if round_ < 3:
            await ctx.wait_for_signal("next")
            ctx.continue_as_new(round_ + 1)
        return [len(await ctx.wait_for_signal("kept")) for _ in range(7)]

    store = stores()
    size = store.max_event_bytes // 4 if stores.kind == "firestore" else 800_000
    try:
        async with WorkflowEnvironment([hoards], store=store) as env:
            run_id = await env.start(hoards, 0)
            await env.run()
            for number in range(7):
                await env.signal(run_id, "kept", "x" * (size + number))
            await env.run()
            for _ in range(3):
                await env.signal(run_id, "next")
                await env.run()
            assert await env.result(run_id) == [size + number for number in range(7)]
    finally:
        await store.close()


async def test_a_cancellation_that_comes_with_the_signal_that_ends_a_generation_reaches_the_next(ways: Ways) -> None:
    @workflow
    async def goes_on(ctx: WorkflowContext, round_: int) -> None:
        try:
            await ctx.wait_for_signal("next")
        except asyncio.CancelledError:
            await ctx.execute_activity(note, ["cancelled in", round_])
            raise
        ctx.continue_as_new(round_ + 1)

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(goes_on, 0)
        await env.run()
        await env.signal(run_id, "next", message_id="a")
        env.clock.move_to(env.clock.now() + timedelta(milliseconds=1))
        await env.cancel(run_id, "enough")  # both are taken up at once
        with pytest.raises(WorkflowCancelledError):
            await env.result(run_id)
        run = await env.status(run_id)
        assert (run.generation, run.status) == (1, "cancelled")
        if env.plain:
            assert LOG == [["cancelled in", 1]]

    await ways(scenario, goes_on)


# --- what else crosses, and what does not ------------------------------------------------------------


async def test_status_id_and_parent_go_along_and_the_facts_tell_the_generation(ways: Ways) -> None:
    @workflow
    async def child(ctx: WorkflowContext, got: list[Any]) -> list[Any]:
        got.append([ctx.generation, ctx.history_length, ctx.should_continue_as_new, ctx.parent_run_id])
        if ctx.generation == 0:
            ctx.set_status("begun")
        if ctx.generation < 2:
            ctx.continue_as_new(got)
        await ctx.wait_for_signal("end")
        return got

    @workflow
    async def parent(ctx: WorkflowContext) -> Any:
        return await ctx.execute_child(child, [], run_id="the-child")

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(parent)
        await env.run()
        run = await env.status("the-child")
        assert (run.generation, run.custom_status, run.parent_run_id) == (2, "begun", run_id)
        await env.signal("the-child", "end")
        assert await env.result(run_id) == [[number, 1, False, run_id] for number in range(3)]
        assert (await env.status("the-child")).custom_status == "begun"

    await ways(scenario, parent, child)


async def test_it_is_time_to_continue_when_the_history_has_become_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert context.CONTINUE_AS_NEW_EVENTS == 2_000
    monkeypatch.setattr(context, "CONTINUE_AS_NEW_EVENTS", 50)

    @workflow
    async def long(ctx: WorkflowContext, rounds: int) -> list[int]:
        lengths = []
        while not ctx.should_continue_as_new:
            await ctx.execute_activity(note, 0)
            lengths.append(ctx.history_length)
        if rounds:
            ctx.continue_as_new(rounds - 1)
        return [len(lengths), lengths[0], lengths[-1]]

    async with WorkflowEnvironment([long]) as env:
        assert await env.result(await env.start(long, 1)) == [49, 2, 50]


async def test_the_run_s_time_is_one_for_all_generations(ways: Ways) -> None:
    @workflow(timeout="1h")
    async def slow(ctx: WorkflowContext, got: int) -> None:
        await ctx.sleep("25m")
        ctx.continue_as_new(got + 1)

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(slow, 0)
        await env.advance("59m")
        assert (await env.status(run_id)).generation == 2
        await env.advance("1m")
        run = await env.status(run_id)
        assert (run.status, run.error_type, run.generation) == ("failed", "TimeoutError", 2)

    await ways(scenario, slow)


async def test_a_question_that_is_open_at_the_border_is_withdrawn(ways: Ways) -> None:
    @workflow
    async def asks(ctx: WorkflowContext, round_: int) -> Any:
        if round_:
            return bool(await ctx.wait_for_approval("second"))
        question = asyncio.create_task(ctx.wait_for_approval("first"))
        await ctx.wait_for_signal("next")
        del question
        ctx.continue_as_new(round_ + 1)

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(asks, 0)
        await env.run()
        assert [one.key for one in (await env.status(run_id)).open_approvals] == ["first"]
        await env.signal(run_id, "next")
        await env.run()
        assert [one.key for one in (await env.status(run_id)).open_approvals] == ["second"]
        with pytest.raises(ApprovalNotFoundError):
            await env.decide(run_id, "first")
        await env.decide(run_id, "second")
        assert await env.result(run_id) is True

    await ways(scenario, asks)


async def test_whoever_waits_for_the_result_waits_across_generations() -> None:
    async with WorkflowEnvironment([collects]) as env:
        run_id = await env.start(collects, [])
        waiting = asyncio.create_task(env.client.get_result(run_id, timeout=30))
        for number in range(7):
            await env.signal(run_id, "item", number)
            await env.run()
        assert await waiting == list(range(7))


async def test_a_run_that_failed_in_a_later_generation_is_retried_there(ways: Ways) -> None:
    @workflow
    async def climbs(ctx: WorkflowContext, floor: int) -> list[Any]:
        done = await ctx.execute_activity(note, floor)
        if floor == 3:
            return [done, await ctx.execute_activity(fragile.options(retry_policy=None), "top"), ctx.generation]
        ctx.continue_as_new(floor + 1)

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        BROKEN.add("top")
        run_id = await env.start(climbs, 0)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        BROKEN.clear()
        await env.retry(run_id)
        assert await env.result(run_id) == [3, "top", 3]
        if env.plain:
            assert LOG == [0, 1, 2, 3]

    await ways(scenario, climbs)


# --- updates at the border -----------------------------------------------------------------------------


@workflow
async def entity(ctx: WorkflowContext, total: int) -> int:
    """Lives for ever: an update adds, a signal begins the next generation."""

    async def add(number: int) -> int:
        nonlocal total
        total += number
        await ctx.execute_activity(note, number)
        return total

    async def stuck(number: int) -> None:
        await ctx.wait_for_signal("never")

    ctx.on_update("add", add)
    ctx.on_update("stuck", stuck)
    if await ctx.wait_for_signal("next") == "end":
        return total
    ctx.continue_as_new(total)


async def hand_over(env: WorkflowEnvironment, run_id: str, name: str, payload: Any, *, update_id: str) -> None:
    """Send an update without waiting for its answer."""

    async def send(app: App) -> None:
        try:
            await app.client.update_workflow(run_id, name, payload, update_id=update_id, timeout=0)
        except TimeoutError:
            pass

    await env._platform.ask(send)


async def test_an_answer_can_be_read_after_the_border_and_its_update_counts_once(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(entity, 0)
        assert await env.update(run_id, "add", 5, update_id="u") == 5
        await env.signal(run_id, "next")
        await env.run()
        assert (await env.status(run_id)).generation == 1
        assert await env.update(run_id, "add", 5, update_id="u") == 5
        assert await env.update(run_id, "add", 1, update_id="v") == 6
        await env.signal(run_id, "next", "end")
        assert await env.result(run_id) == 6
        if env.plain:
            assert LOG == [5, 1]

    await ways(scenario, entity)


async def test_who_waits_for_an_update_that_is_cut_off_by_the_border_is_told(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(entity, 0)
        await env.run()

        await hand_over(env, run_id, "stuck", 1, update_id="s")
        await env.run()
        waiting = asyncio.create_task(env.client.update_workflow(run_id, "stuck", 1, update_id="s"))
        await asyncio.sleep(0)
        await env.signal(run_id, "next")
        await env.run()
        if env.plain:
            with pytest.raises(RunStateError, match="continued as new before"):
                await asyncio.wait_for(waiting, 10)
        waiting.cancel()
        await asyncio.wait([waiting])
        with pytest.raises(RunStateError, match="continued as new before"):
            await env.update(run_id, "stuck", 1, update_id="s")

    await ways(scenario, entity)


async def test_whoever_comes_back_for_an_answer_generations_later_is_told_that_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generations, "MAX_ANSWERS", 3)
    async with WorkflowEnvironment([entity]) as env:
        run_id = await env.start(entity, 0)
        await env.update(run_id, "add", 1, update_id="first")
        for number in range(3):
            await env.update(run_id, "add", 1, update_id=f"u{number}")
        await env.signal(run_id, "next")
        await env.run()
        asking = asyncio.create_task(env.client.update_workflow(run_id, "add", 1, update_id="first", timeout=10))
        while not asking.done():
            await env.run()
            await asyncio.sleep(0.01)
        with pytest.raises(RunStateError, match="forgotten"):
            await asking
        await env.signal(run_id, "next", "end")
        assert await env.result(run_id) == 4
