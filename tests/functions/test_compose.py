"""On one's own machine: three processes as the page on dispatchers starts them, and one process that does it all."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import workflows
from tests.functions.server import ROOT, free_port, server, until
from tests.services import do_without
from tinyworkflow_core import TinyWorkflowClient
from tinyworkflow_core.clock import fresh_id

REMINDER = {"to": "ada", "text": "tea", "after": "1.5s"}  # longer than a call waits for it
START = "/v1/workflows/delayed_reminder/runs"
PORTS = {"api": "8081", "worker": "8082", "tick": "8083"}


def runs(url: str, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{url}/v1/runs", params=query, timeout=20).json()["runs"]
    return found


@contextmanager
def the_script_of_the_page(emulator: str, folder: Path) -> Iterator[tuple[dict[str, str], Callable[[], str]]]:
    """Run it, on ports that are free; the URLs of its processes, and what they have printed."""
    [script] = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/dispatchers.md").read_text(), re.MULTILINE | re.DOTALL)
    urls = {}
    for target, port in PORTS.items():
        free = str(free_port())
        urls[target] = f"http://127.0.0.1:{free}"
        script = script.replace(port, free)
    script = script.replace("127.0.0.1:8086", emulator).replace("firestore://local", f"firestore://test-{fresh_id()}")
    script = script.replace("functions-framework ", f"{sys.executable} -m functions_framework ")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TINYWORKFLOW_", "K_"))}
    printed = folder / "printed"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", script], cwd=ROOT, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield urls, lambda: printed.read_text(errors="replace")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_three_processes_bring_a_run_to_its_end_and_a_tick_brings_its_timer(
    firestore_emulator: str, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        do_without(FileNotFoundError("there is no curl on the PATH"))
    with the_script_of_the_page(firestore_emulator, tmp_path) as (urls, printed):
        until(lambda: all(map(is_up, urls.values())), 60, printed)
        api, worker, tick = (urls[target] for target in PORTS)

        at_once = httpx.post(f"{api}/v1/workflows/user_report/runs", json={"input": {"user_id": "u-1"}}, timeout=20)
        later = httpx.post(f"{api}{START}", json={"input": REMINDER}, timeout=20)
        assert (at_once.status_code, later.status_code) == (202, 202)
        until(lambda: len(runs(api, status="completed")) == 2, 30, printed)
        for answer, output in ((at_once, "Ada"), (later, "reminded")):
            assert output in str(httpx.get(f"{api}/v1/runs/{answer.json()['run_id']}").json()["output"])

        for url, others in ((api, "/internal/advance"), (api, "/internal/tick"), (worker, "/internal/tick")):
            assert httpx.post(f"{url}{others}", json={}).status_code == 404
        assert httpx.post(f"{worker}/internal/advance", json={}).status_code == 422  # let in, and misunderstood
        foreign = {"Host": "attacker.example"}
        assert httpx.post(f"{worker}/internal/advance", json={}, headers=foreign).status_code == 403
        assert httpx.post(f"{tick}/internal/tick", headers=foreign).status_code == 403
        assert "Traceback" not in printed()


def test_a_front_beside_a_worker_works_on_no_runs_itself(tmp_path: Path) -> None:
    """Even with a dispatcher that makes calls in its own process, it leaves what others have started alone."""
    url = f"sqlite:///{tmp_path}/runs.db"

    async def start_elsewhere() -> str:
        async with TinyWorkflowClient(url, workflows=[workflows.delayed_reminder]) as client:
            return await client.start_workflow("delayed_reminder", {**REMINDER, "after": 0})

    run_id = asyncio.run(start_elsewhere())
    with server("api", {"TINYWORKFLOW_DATABASE_URL": url, "TINYWORKFLOW_TICK": "50ms"}) as api:
        api.wait_until_up()
        for _ in range(10):
            [run] = runs(api.url)
            assert (run["run_id"], run["status"]) == (run_id, "pending"), api.printed()


def test_one_process_fires_schedules_and_timers_with_no_other_beside_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"

    async def schedule() -> None:
        async with TinyWorkflowClient(url, workflows=[workflows.delayed_reminder]) as client:
            await client.schedule_interval_workflow("delayed_reminder", "1s", REMINDER)

    with server("app", {"TINYWORKFLOW_DATABASE_URL": url, "TINYWORKFLOW_TICK": "100ms"}) as app:
        app.wait_until_up()
        asyncio.run(schedule())
        until(lambda: runs(app.url, status="completed"), 20, app.printed)
        [run, *_] = runs(app.url, status="completed")
        assert httpx.get(f"{app.url}/v1/runs/{run['run_id']}").json()["output"] == "reminded"
