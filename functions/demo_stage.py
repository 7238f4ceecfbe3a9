"""The stage of the demo: real function processes on a fresh store, and the file that the activities write to.

Whatever happens on it, no process is left when it is taken down. What is played is in `demo.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tinyworkflow_core.clock import fresh_id

ROOT = Path(__file__).resolve().parents[1]
LEASE_SECONDS, TICK_SECONDS, STEP_SECONDS = 3.0, 0.25, 0.3

Json = dict[str, Any]


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class CannotTry(Exception):
    """Something that the demo needs is not on this machine."""


class Function:
    """One functions-framework server: a process group of its own on a port of its own."""

    def __init__(self, environ: Mapping[str, str], output: Path) -> None:
        self.port = _free_port()
        self.output = output
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def group(self) -> int | None:
        """The process group; None while nothing runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the server, and return when it answers."""
        command = [sys.executable, "-m", "functions_framework", "--target", "app", "--source", "functions/main.py"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=dict(self._environ), stdout=output, stderr=output, start_new_session=True
            )
        until(self._answers, 30, f"the function at port {self.port} does not come up")

    def kill(self) -> None:
        """kill -9 for the server and its children."""
        process, self._process = self._process, None
        if process is not None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended by itself
            process.wait()

    def printed(self) -> str:
        """The end of what it has printed."""
        return self.output.read_text(errors="replace")[-3000:] if self.output.exists() else ""

    def get(self, path: str) -> Json:
        """GET, as JSON."""
        answer: Json = self.client.get(path).raise_for_status().json()
        return answer

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise DemoError(f"the function at port {self.port} has ended:\n{self.printed()}")
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False


@dataclass(frozen=True)
class Body:
    """One line that an activity's body wrote: outside of the engine, so it counts what really ran."""

    step: int
    name: str
    pid: int
    what: str


@dataclass(frozen=True)
class Stage:
    """What the demo plays on."""

    functions: list[Function]
    url: str
    secret: str
    log: Path

    def bodies(self) -> list[Body]:
        """All that the activities have written so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        rows = [line.split() for line in lines]
        return [Body(int(key.rpartition("/")[2]), name, int(pid), what) for name, key, pid, what in rows]

    def alive(self) -> list[Function]:
        """The functions that run."""
        return [one for one in self.functions if one.group is not None]

    def holder(self) -> Function:
        """The function in which the last body was at work."""
        pid = self.bodies()[-1].pid
        try:
            group = os.getpgid(pid)
            return next(one for one in self.functions if one.group == group)
        except (ProcessLookupError, StopIteration):
            raise DemoError(f"process {pid} has ended, and not by us") from None


@contextmanager
def stage(store: str) -> Iterator[Stage]:
    """Running functions on a fresh store; all processes are killed on the way out, whatever happens."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinyworkflow-demo-")))
        made = Stage([], database_url(store, folder, stack), fresh_id(40), folder / "bodies.log")
        (folder / "builder-is-away").touch()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TINYWORKFLOW_", "K_"))}
        environ = inherited | {
            "TINYWORKFLOW_DATABASE_URL": made.url,
            "TINYWORKFLOW_LEASE": f"{LEASE_SECONDS:g}s",
            "TINYWORKFLOW_TICK": f"{TICK_SECONDS:g}s",
            "GITHUB_WEBHOOK_SECRET": made.secret,
            "TRAIN_LOG": str(made.log),
            "TRAIN_FAIL_BUILD": str(folder / "builder-is-away"),
            "TRAIN_STEP_SECONDS": str(STEP_SECONDS),
        }
        for number in range(3 if store == "firestore" else 1):
            one = Function(environ, folder / f"function-{number}.out")
            made.functions.append(one)
            stack.callback(one.client.close)
            stack.callback(one.kill)
        for one in made.functions:
            one.start()
        yield made


def database_url(store: str, folder: Path, stack: ExitStack) -> str:
    """A fresh database; the Firestore emulator is started when that is asked for."""
    if store == "sqlite":
        return f"sqlite:///{folder}/demo.db"
    sys.path.insert(0, str(ROOT))
    from tests.emulator import EmulatorFailed, EmulatorMissing, firestore_emulator

    try:
        os.environ["FIRESTORE_EMULATOR_HOST"] = stack.enter_context(firestore_emulator())
    except (EmulatorMissing, EmulatorFailed) as reason:
        raise CannotTry(str(reason)) from None
    return f"firestore://demo-{fresh_id(8)}/"


def until(condition: Callable[[], bool], seconds: float, problem: str) -> None:
    """Look again and again, for so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{problem} (waited {seconds:g} s)")
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
