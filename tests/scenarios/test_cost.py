"""What a run costs on Firestore, in documents, counted at the client's own requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.eventually import eventually
from tests.stores.wire import Wire
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, activity_context, workflow
from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.stores.firestore import FirestoreStore
from tinyworkflow_core.testing import WorkflowEnvironment


@activity
async def one(number: int) -> int:
    return number + 1


@workflow
async def sequence(ctx: WorkflowContext, steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await ctx.execute_activity(one, number)
    return number


@workflow
async def fan_out(ctx: WorkflowContext, steps: int) -> int:
    return sum(await ctx.execute_parallel(*((one, (number,)) for number in range(steps))))


@workflow
async def waits(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_signal("go")


@workflow
async def naps(ctx: WorkflowContext) -> None:
    await ctx.sleep("1d")


@workflow
async def asks(ctx: WorkflowContext) -> bool:
    return bool(await ctx.wait_for_approval("ok"))


@workflow
async def parent(ctx: WorkflowContext) -> Any:
    return await ctx.execute_child(sequence, 1)


@workflow
async def generations(ctx: WorkflowContext, left: int) -> int:
    if left:
        ctx.continue_as_new(left - 1)
    return left


@activity(run_on="queue", timeout="1m")
async def elsewhere(number: int) -> int:
    return number + 1


@workflow
async def hands_out(ctx: WorkflowContext, width: int) -> Any:
    return await ctx.execute_parallel(*((elsewhere, (number,)) for number in range(width)))


@activity(retry_policy=RetryPolicy(initial_delay=10, jitter=False))
async def fails_until(attempt: int) -> int:
    if activity_context().attempt < attempt:
        raise ValueError("again")
    return attempt


@workflow
async def retries(ctx: WorkflowContext, attempt: int) -> int:
    return await ctx.execute_activity(fails_until, attempt)


@workflow
async def updated(ctx: WorkflowContext) -> Any:
    values: list[Any] = []

    def add(value: Any) -> int:
        values.append(value)
        return len(values)

    ctx.on_update("add", add)
    await ctx.wait_for_signal("end")
    return values


WORKFLOWS = [sequence, fan_out, waits, naps, asks, parent, generations, hands_out, retries, updated]


class Metered:
    """An environment on Firestore, and what it has spent."""

    def __init__(self, env: WorkflowEnvironment, wire: Wire) -> None:
        self.env = env
        self.spent = wire.spent


@pytest.fixture
async def metered(firestore_emulator: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Metered]:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_emulator)
    store = FirestoreStore(f"test-{fresh_id()}")
    await store.get("nobody")  # connects
    wire = Wire(store._connection.client()._firestore_api)
    yield Metered(WorkflowEnvironment(WORKFLOWS, store=store), wire)
    await store.close()


async def _in_one_call(metered: Metered, workflow: Any, input_data: Any = None) -> tuple[int, int, int]:
    """Start a run and make the one call that it needs; documents written, deleted and read by both."""
    env = metered.env
    metered.spent()
    run_id = await env.start(workflow, input_data)
    await env._processes[0].app.advance(run_id)
    return metered.spent()


@pytest.mark.parametrize("steps", [0, 1, 10, 100])
async def test_a_sequence_of_n_steps_writes_n_and_three_documents_and_reads_at_most_five(
    metered: Metered, steps: int
) -> None:
    written, deleted, read = await _in_one_call(metered, sequence, steps)
    print(f"\n{steps} steps: {written} written, {deleted} deleted, {read} read")
    assert written <= steps + 3
    assert (deleted, read <= 5) == (0, True)


async def test_a_fan_out_that_ends_together_is_committed_together(metered: Metered) -> None:
    written, _, read = await _in_one_call(metered, fan_out, 50)
    print(f"\nfan-out of 50: {written} written, {read} read")
    assert written <= 50 + 3
    assert read <= 5


@pytest.mark.parametrize("workflow", [waits, naps, asks])
async def test_a_waiting_run_writes_and_reads_nothing(metered: Metered, workflow: Any) -> None:
    written, _, read = await _in_one_call(metered, workflow)
    print(f"\nstart to waiting: {written} written, {read} read")
    await metered.env._processes[0].app.tick()
    metered.spent()
    for _ in range(3):  # ticks look for what is due, and find nothing: runs, messages, schedules, one read each
        await metered.env._processes[0].app.tick()
    assert metered.spent() == (0, 0, 9)


async def test_a_signal_to_a_waiting_run_is_one_hop(metered: Metered) -> None:
    env = metered.env
    run_id = await env.start(waits)
    await env.run()
    hops = env.hops[run_id]
    metered.spent()
    await env.signal(run_id, "go", 1)
    await env.run()
    written, deleted, read = metered.spent()
    print(f"\nsignal: {written} written, {deleted} deleted, {read} read")
    # The message, the lease, the event that it becomes, the closing; the message is deleted with its event.
    assert (written, deleted) == (4, 1)
    assert read <= 8
    assert env.hops[run_id] == hops + 1
    assert (await env.status(run_id)).status == "completed"


async def _to_the_end(metered: Metered, workflow: Any, input_data: Any = None) -> tuple[int, int, int]:
    """All calls of a run, by a platform that asks nothing of the store itself."""
    env, world = metered.env, metered.env._world
    metered.spent()
    run_id = await env.start(workflow, input_data)
    while due := world.take_due():
        for task in due:
            await env._processes[0].app.carry_out(task)
        if not world.has_due and world._queue:
            env.clock.move_to(world._queue[0][0])
    spent = metered.spent()
    assert (await env.status(run_id)).status == "completed"
    return spent


COSTS: dict[str, tuple[Any, Any, tuple[int, int, int]]] = {
    "a child of one step": (parent, None, (12, 1, 14)),
    "no generation more": (generations, 0, (3, 0, 4)),
    "one generation more": (generations, 1, (5, 0, 9)),
    "ten generations more": (generations, 10, (23, 0, 54)),
    "a call of its own": (hands_out, 1, (8, 1, 15)),
    "ten calls of their own": (hands_out, 10, (17, 10, 96)),
    "no retry": (retries, 1, (4, 0, 4)),
    "one retry": (retries, 2, (7, 0, 9)),
    "two retries": (retries, 3, (10, 0, 15)),
}
"""A whole run, from its start to its end: documents written, deleted, read.

So a generation costs two written and five read; a retry that the run is let go for three written and five read or so; a
call of its own, beside what is committed together, its message (written, deleted), its two wake-ups, and the reading of
the run and its history by whoever makes it."""


@pytest.mark.parametrize("name", COSTS)
async def test_each_feature_costs_the_documents_that_are_written_here(metered: Metered, name: str) -> None:
    workflow, input_data, wanted = COSTS[name]
    spent = await _to_the_end(metered, workflow, input_data)
    print(f"\n{name}: {spent[0]} written, {spent[1]} deleted, {spent[2]} read")
    assert spent == wanted


async def test_an_update_costs_its_message_its_events_and_a_look(metered: Metered) -> None:
    env = metered.env
    run_id = await env.start(updated)
    await env.run()
    metered.spent()
    asking = asyncio.create_task(env.client.update_workflow(run_id, "add", 7))
    await eventually(lambda: _is_asked(metered))
    await env._processes[0].app.advance(run_id)
    written, deleted, _ = metered.spent()
    assert await asking == 1
    print(f"\nupdate: {written} written, {deleted} deleted")
    # The message, the lease, that it was accepted, what came of it, the release; the message is deleted again.
    assert (written, deleted) == (5, 1)


async def _is_asked(metered: Metered) -> bool:
    return metered.env._world.has_due
