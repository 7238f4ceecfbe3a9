"""What an engine hands to the driver (`Adapter`), and what its workflows call back (stamps, step bodies).

Nothing here measures; see workloads.py and restarts.py. Standard library only: it is imported in the environment of
every peer. An adapter never polls for a run's end, since polling would be part of the figure: it uses the engine's own
wait, or `finished` and `until_finished` where the engine has none.

Workflows that every adapter registers; steps are trivial, so that a figure is what the engine costs:

    seq(n)         x = 0; n times x = step(x); return x                                                   W1, W2
    fan(n)         n steps at once; return the sum of their results                                       W3
    sig(key)       one step mark(key); wait for a signal and return it                                    W4
    seqsig(n, key) stamp(key, "enter"); n steps; stamp(key, "looped"); wait for a signal and return it    W5
    crash(n, path) n steps crash_step(i, path, n // 2); return n                                          W7
    nap(key, s)    stamp(key, "before"); sleep s seconds durably; stamp(key, "after")                     W8
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import time
from argparse import Namespace
from collections.abc import Coroutine
from typing import Any

PHASE_NAMES = {"w5": "seqsig", "w7": "crash"}
"""Which workflow the run of that id is, for engines that find a run by both."""


class Adapter:
    """One engine. The driver calls start_server once, open, runs, close; W5 and W7 open it in fresh processes.

    - store: where it keeps runs, and how durably. durable: False when a crash of the machine or its server loses them.
    - imports: the statement that loads the engine (W6). names: the one that a user needs to write and run a workflow,
      where `imports` alone leaves something for later.
    - unsupported: workload -> why the engine cannot do it.
    - w7_cap: seconds to wait for a recovery.
    - w4_pause: the pause between "the run waits" and "send", drawn from this range: a full second, so that an engine
      that polls once a second is met at every phase of its poll.
    """

    peer = version = store = "?"
    durable = True
    imports = "pass"
    names: str | None = None
    unsupported: dict[str, str] = {}  # noqa: RUF012  # replaced by subclasses, never changed
    w7_cap = 120.0
    w4_pause = (0.2, 1.2)

    def __init__(self, options: Namespace) -> None:
        self.options = options

    def start_server(self, folder: str) -> Any:
        """Start what outlives the worker's process, if the engine has such a thing, and return how to reach it."""
        return None

    async def open(self, folder: str, address: Any) -> None:
        """Connect, and start the worker; earlier runs in `folder` go on."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop gracefully."""

    async def start(self, workflow: str, *args: Any, id: str) -> Any:
        """Start a run and return a handle to it."""
        raise NotImplementedError

    async def result(self, handle: Any) -> Any:
        """Wait for the run's end and return its result."""
        raise NotImplementedError

    async def signal(self, handle: Any, value: str) -> None:
        """Send the run what it waits for."""
        raise NotImplementedError

    async def attach(self, id: str) -> Any:
        """A handle to a run that an earlier process has started."""
        raise NotImplementedError

    async def run(self, workflow: str, *args: Any, id: str) -> Any:
        """Start a run and wait for its result."""
        return await self.result(await self.start(workflow, *args, id=id))

    def extra(self) -> dict[str, Any]:
        """More to report, after the figure was taken."""
        return {}

    def loop(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run `main` in the event loop that the engine's documentation asks for."""
        return asyncio.run(main)


# --- called by workflows and steps -------------------------------------------------------------------

_stamps: dict[tuple[str, str], float] = {}


def stamp(key: str, name: str) -> None:
    """Remember when this was first reached in this process. Not a step."""
    _stamps.setdefault((key, name), time.monotonic())


def stamped(key: str, name: str) -> float | None:
    """When it was reached, if it was."""
    return _stamps.get((key, name))


def forget_stamps() -> None:
    """As a fresh process has it."""
    _stamps.clear()


def mark_step(key: str) -> str:
    """The body of the step mark(key): it shows the driver that the run has come this far."""
    stamp(key, "marked")
    return key


def crash_step(i: int, path: str, victim: int) -> int:
    """The body of W7's step: a line for each execution. The first one of `victim` hangs until its process is killed."""
    first = str(victim) not in executions(path)
    with open(path, "a") as log:
        log.write(f"{i}\n")
    if i == victim and first:
        time.sleep(600)
    return i


def executions(path: str) -> list[str]:
    """The steps that were executed, in order."""
    if not os.path.exists(path):
        return []
    with open(path) as log:
        return log.read().split()


_finished: set[str] = set()
_waiters: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}


def finished(id: str) -> None:
    """The last act of a workflow whose engine cannot wait for the end: only from then on its status is asked for."""
    _finished.add(id)
    if waiter := _waiters.pop(id, None):
        waiter[0].call_soon_threadsafe(waiter[1].set)


async def until_finished(id: str) -> None:
    """Until `finished(id)` was called in this process."""
    event = asyncio.Event()
    _waiters[id] = (asyncio.get_running_loop(), event)
    if id not in _finished:
        await event.wait()


# --- servers and files -------------------------------------------------------------------------------

LIVE: list[subprocess.Popen[bytes]] = []
"""Processes that were started here; ended one by one at exit."""


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn_server(command: list[str], log: str, env: dict[str, str] | None = None) -> None:
    """Start a server that is ended when the figure was taken."""
    with open(log, "ab") as output:
        LIVE.append(subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=env))


def stop_servers() -> None:
    """End what was started here, and wait for it."""
    for process in LIVE:
        if process.poll() is None:
            process.terminate()
    for process in LIVE:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    LIVE.clear()


def wait_port(port: int, timeout: float = 60) -> None:
    """Until something listens there."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def sqlite_journal(path: str) -> str:
    """The journal mode as the file itself says it."""
    with open(path, "rb") as file:
        head = file.read(20)
    return "WAL" if struct.unpack("BB", head[18:20]) == (2, 2) else "rollback (DELETE)"
