"""`tinyworkflow dev` and `server` as a user starts them: real processes, a process group of their own, a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from tests.functions.server import ROOT, until


class Dev:
    """One command that serves."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self.process = process
        self._output = output

    @property
    def url(self) -> str:
        """Where it listens; it says so."""
        until(lambda: "/ui" in self.printed() or self.process.poll() is not None, message=self.printed)
        found = re.search(r"Dashboard +(\S+)/ui", self.printed())
        assert found, self.printed()
        return found[1]

    def printed(self) -> str:
        """What it has printed."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def wait_for(self, text: str) -> None:
        """Until it has printed that."""
        until(lambda: text in self.printed(), 30, self.printed)

    def start(self, workflow: str, value: Any, *, wait: int = 5) -> Any:
        """Start a run; what is answered. Asked again where the process that had the request was replaced."""
        while (answer := self.ask(workflow, value, wait=wait)).status_code == 503:
            assert answer.headers["Retry-After"] == "1"
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def ask(self, workflow: str, value: Any, *, wait: int) -> httpx.Response:
        """The answer to one request to start a run."""
        return httpx.post(
            f"{self.url}/v1/workflows/{workflow}/runs",
            json={"input": value},
            headers={"Prefer": f"wait={wait}"},
            timeout=60,
        )

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=30)

    def processes(self) -> set[int]:
        """Those of its group that still live."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            except OSError:  # it ended just now
                continue
            if int(group) == self.process.pid and state != "Z":
                found.add(int(stat.parent.name))
        return found

    def server(self) -> int:
        """The process below the one that watches."""
        [one] = self.processes() - {self.process.pid}
        return one


@contextmanager
def serving(folder: Path, *arguments: str, port: int = 0, environ: Mapping[str, str] | None = None) -> Iterator[Dev]:
    """`tinyworkflow ARGUMENTS --port 0` in that folder; nothing of it is left on the way out."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TINYWORKFLOW_", "K_"))}
    command = [sys.executable, "-m", "tinyworkflow_core.cli", *arguments, "--port", str(port)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        dev = Dev(process, output)
        try:
            yield dev
        finally:
            if dev.processes():
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
