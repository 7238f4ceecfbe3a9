"""What a run costs on Firestore, in documents, counted at the client's own requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.stores.wire import Wire
from tinyworkflow_core import WorkflowContext, activity, workflow
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
    yield Metered(WorkflowEnvironment([sequence, fan_out, waits, naps, asks], store=store), wire)
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
    for _ in range(3):  # ticks look for what is due, and find nothing: one read for each of their two queries
        await metered.env._processes[0].app.tick()
    assert metered.spent() == (0, 0, 6)


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
    assert read <= 7
    assert env.hops[run_id] == hops + 1
    assert (await env.status(run_id)).status == "completed"
