"""Starting and ending functions-framework as a user does: a real process, its own process group, a real socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

ROOT = Path(__file__).parents[2]
START_SECONDS = 30.0


class Server:
    """One running target."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: IO[bytes]) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._output = output

    def wait_until_up(self) -> None:
        """Until it answers."""
        until(self._answers, START_SECONDS, lambda: f"the server did not come up:\n{self.printed()}")

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the server has ended:\n{self.printed()}"
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def printed(self) -> str:
        """What it has printed."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def kill(self) -> None:
        """kill -9 for all of its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def server(
    target: str, environ: Mapping[str, str], port: int | None = None, source: str = "functions/main.py"
) -> Iterator[Server]:
    """`functions-framework --target TARGET`, killed on the way out if it still runs. It need not be up yet."""
    port = port or free_port()
    command = [sys.executable, "-m", "functions_framework", "--target", target, "--source", source]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TINYWORKFLOW_", "K_"))}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started = Server(process, port, output)
        try:
            yield started
        finally:
            if process.poll() is None:
                started.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(
    condition: Callable[[], object], seconds: float = 20.0, message: Callable[[], str] = lambda: "it did not happen"
) -> None:
    """Look again and again; what is waited for happens in another process."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(0.02)
