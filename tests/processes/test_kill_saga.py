"""kill -9, for real, in the middle of undoing: nothing is left out and nothing is out of order."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.eventually import eventually
from tests.processes import steps
from tests.processes.conftest import Workers
from tinyworkflow_core import TinyWorkflowClient, WorkflowFailedError

STEPS, KILLS = 30, 4


async def test_a_run_killed_four_times_while_it_undoes_what_it_did_undoes_it_all_in_order(workers: Workers) -> None:
    chance = random.Random(20261122)
    moments = sorted(chance.sample(range(STEPS + 1, 2 * STEPS - 1), KILLS))
    async with TinyWorkflowClient(workers.url) as client:
        run_id = await client.start_workflow(steps.undo_all, STEPS)
        for moment in moments:
            worker = workers.start()
            await _until_steps(workers, moment)
            await asyncio.sleep(chance.random() * 0.01)  # not always at the same point of a step
            workers.kill(worker)
        workers.start()
        with pytest.raises(WorkflowFailedError, match="no"):
            await client.get_result(run_id, timeout=60)
        executions = workers.executions()
        assert [*dict.fromkeys(executions)] == [*range(1, STEPS + 1), *range(-STEPS, 0)]
        assert len(executions) <= 2 * STEPS + KILLS
        events = await client.get_workflow_events(run_id)
        completed = [event["result"] for event in events if event["type"] == "ActivityCompleted"]
        assert completed == [*range(-1, -STEPS - 1, -1), *range(-STEPS, 0)]


async def _until_steps(workers: Workers, count: int) -> None:
    async def enough() -> bool:
        return len(set(workers.executions())) > count

    await eventually(enough, seconds=60)
