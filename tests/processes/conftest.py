"""Real worker processes on a store that several can share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores.conftest import SHARED_STORES, factory_of

ROOT = Path(__file__).parents[2]


class Workers:
    """Starts `tinyworkflow worker` processes and kills them for real."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.log = folder / "steps.log"
        self._output = folder / "workers.out"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        environ = os.environ | {
            "TINYWORKFLOW_DATABASE_URL": self.url,
            "TINYWORKFLOW_TICK": "0.2s",
            "STEPS_LOG": str(self.log),
        }
        if not self.url.startswith("sqlite"):
            # On SQLite the leases keep their 30 s: a dead process of this host is found at once all the same.
            environ["TINYWORKFLOW_LEASE"] = "2s"
        command = [sys.executable, "-m", "tinyworkflow_core.cli", "-w", "tests.processes.steps", "worker"]
        with self._output.open("ab") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
        self._processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def executions(self) -> list[int]:
        """The steps whose bodies have run, in order."""
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                self.kill(process)


@pytest.fixture(params=SHARED_STORES)
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(factory_of(request).url(), tmp_path)
    yield made
    made.end()
