"""Long activities in real processes: progress that outlives a kill -9, steps that run at most once, calls of their
own that two processes share."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.eventually import eventually
from tests.functions.server import free_port
from tests.processes import steps
from tests.processes.conftest import ROOT, Workers
from tinyworkflow_core import TinyWorkflowClient


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_the_last_persisted_heartbeat_survives_a_kill_and_the_next_attempt_goes_on_from_there(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TINYWORKFLOW_LEASE", "1.5s")  # heartbeats are written at a third of it
    worker = workers.start()
    async with TinyWorkflowClient(workers.url) as client:
        run_id = await client.start_workflow(steps.copy_in_a_process, kind)

        async def heartbeats() -> list[Any]:
            events = await client.get_workflow_events(run_id)
            return [one["details"] for one in events if one["type"] == "ActivityHeartbeat"]

        await eventually(heartbeats)
        workers.kill(worker)
        persisted = (await heartbeats())[-1]
        assert 0 < persisted < 60
        workers.start()
        assert await client.get_result(run_id, timeout=60) == persisted
        assert workers.executions() == [0, persisted]


async def test_a_step_that_runs_at_most_once_is_not_begun_again_after_a_kill(workers: Workers) -> None:
    worker = workers.start()
    async with TinyWorkflowClient(workers.url) as client:
        run_id = await client.start_workflow(steps.launch_in_a_process)
        await eventually(lambda: _began(workers))
        workers.kill(worker)
        for _ in range(2):
            workers.start()
        assert await client.get_result(run_id, timeout=60) == "interrupted"
        assert workers.executions() == [1]


async def _began(workers: Workers) -> bool:
    return bool(workers.executions())


async def test_fifty_calls_of_their_own_are_shared_by_two_processes_on_one_file(tmp_path: Path) -> None:
    url, log = f"sqlite:///{tmp_path}/shared.db", tmp_path / "steps.log"
    ports = [free_port(), free_port()]
    queue = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    environ = os.environ | {"TINYWORKFLOW_DATABASE_URL": url, "STEPS_LOG": str(log), "QUEUE": queue}
    command = [sys.executable, "-m", "uvicorn", "tests.processes.front:front", "--factory", "--log-level", "warning"]
    processes = [
        subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, env=environ)  # noqa: ASYNC220  # it takes a millisecond
        for port in ports
    ]
    try:
        async with httpx.AsyncClient(timeout=30) as caller, TinyWorkflowClient(url) as client:
            for port in ports:
                await eventually(lambda port=port: _is_up(caller, port))  # type: ignore[misc]  # bound at once
            run_id = await client.start_workflow(steps.share_out, 50)
            await caller.post(f"http://127.0.0.1:{ports[0]}/internal/advance", json={"run_id": run_id})
            pids = Counter(await client.get_result(run_id, timeout=60))
            assert set(pids) == {process.pid for process in processes}
            assert min(pids.values()) >= 10
            assert sorted(map(int, log.read_text().split())) == list(range(50))  # each of them once
            events = await client.get_workflow_events(run_id)
            assert Counter(one["type"] for one in events if one["type"].startswith("Activity")) == {
                "ActivityScheduled": 50,
                "ActivityCompleted": 50,
            }
    finally:
        for process in processes:
            process.terminate()
            await asyncio.to_thread(process.wait)


async def _is_up(caller: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await caller.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
    except httpx.TransportError:
        return False
