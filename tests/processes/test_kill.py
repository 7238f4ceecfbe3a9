"""kill -9, for real: worker processes that die in the middle of a run, and others that share its store."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

from tests.eventually import eventually
from tests.processes import steps
from tests.processes.conftest import Workers
from tinyworkflow_core import TinyWorkflowClient

STEPS, KILLS = 100, 10


async def test_a_run_killed_ten_times_gives_its_result_and_repeats_at_most_one_step_per_kill(workers: Workers) -> None:
    chance = random.Random(20261122)
    moments = sorted(chance.sample(range(1, STEPS - 1), KILLS))
    async with TinyWorkflowClient(workers.url) as client:
        run_id = await client.start_workflow(steps.count_up, STEPS)
        for moment in moments:
            worker = workers.start()
            await _until_steps(workers, moment)
            await asyncio.sleep(chance.random() * 0.01)  # not always at the same point of a step
            workers.kill(worker)
        workers.start()
        assert await client.get_result(run_id, timeout=60) == sum(range(STEPS))
        executions = workers.executions()
        assert set(executions) == set(range(STEPS))
        assert len(executions) <= STEPS + KILLS
        events = await client.get_workflow_events(run_id)
        completed = Counter(event["id"] for event in events if event["type"] == "ActivityCompleted")
        assert completed == Counter(range(1, STEPS + 1))
        assert [event["event_id"] for event in events] == list(range(1, len(events) + 1))


async def test_workers_that_share_a_store_never_work_on_one_run_at_a_time(workers: Workers) -> None:
    for _ in range(3):
        workers.start()
    async with TinyWorkflowClient(workers.url) as client:
        run_ids = [await client.start_workflow(steps.count_up, 10) for _ in range(6)]
        for run_id in run_ids:
            assert await client.get_result(run_id, timeout=60) == sum(range(10))
        assert Counter(workers.executions()) == Counter(dict.fromkeys(range(10), 6))


async def test_a_signal_wakes_a_run_that_waits_in_another_process_at_once(workers: Workers) -> None:
    workers.start()
    async with TinyWorkflowClient(workers.url) as client:
        run_id = await client.start_workflow(steps.hold)
        await eventually(lambda: _waits(client, run_id))
        began = time.monotonic()
        await client.send_signal(run_id, "go", "now")
        assert await client.get_result(run_id, timeout=20) == "now"
        print(f"\nsignal to result across processes: {1000 * (time.monotonic() - began):.0f} ms ({workers.url[:9]})")


async def _waits(client: TinyWorkflowClient, run_id: str) -> bool:
    return (await client.get_workflow_status(run_id)).status == "waiting"


async def _until_steps(workers: Workers, count: int) -> None:
    async def enough() -> bool:
        return len(set(workers.executions())) > count

    await eventually(enough, seconds=60)
