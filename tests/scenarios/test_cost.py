"""What a run costs on Firestore, in documents, counted at the client's own requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.eventually import eventually
from tests.scenarios.costing import (
    ROWS,
    Metered,
    asks,
    fan_out,
    hands_out,
    metered_environment,
    naps,
    sequence,
    updated,
    waits,
)
from tinyworkflow_core.dispatcher import Perform


@pytest.fixture
async def metered(firestore_emulator: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Metered]:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_emulator)
    async with metered_environment() as metered:
        yield metered


async def _in_one_call(metered: Metered, workflow: Any, input_data: Any = None) -> tuple[int, int, int]:
    """Start a run and make the one call that it needs; documents written, deleted and read by both."""
    env = metered.env
    metered.spent()
    run_id = await env.start(workflow, input_data)
    await env._processes[0].app.advance(run_id)
    return metered.spent()


@pytest.mark.parametrize("steps", [0, 1, 10, 100])
async def test_a_sequence_of_n_steps_writes_n_and_three_documents_and_reads_three(metered: Metered, steps: int) -> None:
    written, deleted, read = await _in_one_call(metered, sequence, steps)
    print(f"\n{steps} steps: {written} written, {deleted} deleted, {read} read")
    assert written <= steps + 3
    assert (deleted, read <= 3) == (0, True)


async def test_a_fan_out_that_ends_together_is_committed_together(metered: Metered) -> None:
    written, _, read = await _in_one_call(metered, fan_out, 50)
    print(f"\nfan-out of 50: {written} written, {read} read")
    assert written <= 50 + 3
    assert read <= 3


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
    assert read <= 7
    assert env.hops[run_id] == hops + 1
    assert (await env.status(run_id)).status == "completed"


@pytest.mark.parametrize("name", ROWS)
async def test_each_feature_costs_the_documents_that_are_written_here(metered: Metered, name: str) -> None:
    spent = await metered.to_the_end(ROWS[name])
    print(f"\n{name}: {spent}")
    assert spent == ROWS[name].spent


async def test_gathering_calls_of_their_own_writes_the_record_for_each_taking_and_for_no_outcome(
    metered: Metered,
) -> None:
    """One document takes about one write a second for long: 100 outcomes must not be 100 writes to the run's record."""
    env, world, width = metered.env, metered.env._world, 100
    run_id = await env.start(hands_out, width)
    app, other = (process.app for process in env._processes)
    await app.advance(run_id)
    performing = [task for task in world.take_due() if isinstance(task, Perform)]
    assert len(performing) == width
    metered.wire.written_to.clear()

    for begin in range(0, width, 20):
        await asyncio.gather(*(app.perform(task) for task in performing[begin : begin + 20]))

    assert metered.wire.written_to.total() == width  # the outcomes, each a message
    assert metered.wire.written_to[run_id] == 0
    wakes = world.take_due()
    await asyncio.gather(*(one.advance(run_id) for one in (app, other) for _ in wakes))  # each comes twice
    assert (await env.status(run_id)).status == "completed"
    print(f"\n{width} outcomes, and its record written {metered.wire.written_to[run_id]} times")
    assert metered.wire.written_to[run_id] <= 4  # taken, and let go or ended, once or twice


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
