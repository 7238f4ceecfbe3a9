"""One SQLite file, shared by a function process, a `tinyworkflow worker` and a client with a worker of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.functions.server import ROOT, server
from tests.listening import listeners
from tinyworkflow_core import App, TinyWorkflowClient
from tinyworkflow_core.approvals import Decision

RELEASE = {"repository": "octo/hello", "url": "https://example.com", "author": "ada"}
STEPS_BEFORE_APPROVAL = 10
MOST_TRAINS = 40


async def test_function_worker_and_client_share_one_file_and_a_killed_ones_runs_go_on_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, log = f"sqlite:///{tmp_path}/shared.db", tmp_path / "train.log"
    environ = {"TINYWORKFLOW_DATABASE_URL": url, "TRAIN_LOG": str(log), "TRAIN_STEP_SECONDS": "0.1"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(ROOT / "functions"))
    from workflows.release_train import release_train

    command = [sys.executable, "-m", "tinyworkflow_core.cli", "-w", "workflows", "worker"]
    worker = subprocess.Popen(  # noqa: ASYNC220  # it takes a millisecond, and nothing else runs here yet
        command, cwd=ROOT / "functions", env=os.environ, stderr=subprocess.DEVNULL
    )
    client = App(url, workflows=[release_train])

    async def three_listen() -> bool:
        return listeners(tmp_path / "shared.db") == 3

    try:
        with server("app", environ) as function:
            await asyncio.to_thread(function.wait_until_up)
            await client.start_worker()
            await eventually(three_listen)  # else the first two are done with everything before the third is up
            run_ids: list[str] = []

            async def everybody_is_at_work() -> bool:
                if len(run_ids) < MOST_TRAINS:
                    tag = f"v{len(run_ids)}"
                    run_ids.append(await outsider.start_workflow(release_train, RELEASE | {"tag": tag}))
                return await _holders(log, 3)

            # Started by one who does not work: all three are told, and race for each.
            async with TinyWorkflowClient(url, workflows=[release_train]) as outsider:
                await eventually(everybody_is_at_work)
            function.kill()
            await eventually(lambda: _all(client, run_ids, "paused"))
            for run_id in run_ids:
                await client.decide(run_id, "publish", Decision(approved=True))
            await eventually(lambda: _all(client, run_ids, "completed"))
    finally:
        worker.terminate()
        worker.wait()
        await client.close()
    started = Counter(line.split()[1] for line in _lines(log) if line.endswith("start"))
    assert len(started) == len(run_ids) * (STEPS_BEFORE_APPROVAL + 2)
    # Only what the killed process had in hand was begun twice: three checks at a time at most, in each of its runs.
    assert set(started.values()) <= {1, 2}
    assert sum(started.values()) - len(started) <= 3 * len(run_ids)


async def _holders(log: Path, count: int) -> bool:
    return len({line.split()[2] for line in _lines(log)}) >= count


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


async def _all(client: App, run_ids: list[str], status: str) -> bool:
    runs: list[Any] = [await client.store.get(run_id) for run_id in run_ids]
    return all(run.status == status for run in runs)
