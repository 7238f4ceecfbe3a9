"""Prints how many instructions a step, a run and a replayed step take: `python -m tests.benchmarks.instructions`.

Counted by valgrind in two processes that do more and less of the same, the difference divided by what the one did
more: what a busy or a slow machine does not change. SQLite's are counted, what the kernel does is not. A run is one of
three steps, 50 of them at once.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.growth import steps
from tests.engine.history_builder import FACTS, codec, defined
from tests.engine.replay_speed import history_of, sequence
from tinyworkflow_core import TinyWorkflowClient
from tinyworkflow_core.engine.replay import replay
from tinyworkflow_core.stores import sqlite_writer

AT_ONCE = 50
SIZES = {"step": (400, 1400), "run": (100, 400), "replayed step": (1000, 3000)}
"""Of what, and how often in the two processes."""


async def do_steps(client: TinyWorkflowClient, count: int) -> None:
    """Runs of 100 steps, one after another."""
    for _ in range(count // 100):
        await client.start_workflow(steps, 100, wait=True)


async def do_runs(client: TinyWorkflowClient, count: int) -> None:
    """Runs of three steps."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with places:
            await client.get_result(await client.start_workflow(steps, 3))

    await asyncio.gather(*(one() for _ in range(count)))


async def with_client(what: str, count: int) -> None:
    """By a client of its own, on a file of its own."""
    sqlite_writer.SLOW_COMMIT_SECONDS = float("inf")  # always in the same thread, however slow valgrind makes it
    with tempfile.TemporaryDirectory() as folder:
        client = TinyWorkflowClient(f"sqlite:///{folder}/runs.db", auto_start_worker=True)
        await client.initialize()
        await (do_steps if what == "step" else do_runs)(client, count)
        await client.close()


def replay_steps(count: int) -> None:
    """Histories of 1,000 steps, again and again."""
    history = history_of(1000)
    for _ in range(count // 1000):
        replay(defined(sequence), history, facts=FACTS, codec=codec)


def counted(what: str, count: int) -> int:
    """The instructions of a process that does it so often."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", sys.executable]
    command += ["-m", "tests.benchmarks.instructions", what, str(count)]
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False)
    found = re.search(r"I *refs: *([\d,]+)", done.stderr)
    if found is None:
        raise SystemExit(done.stderr)
    return int(found[1].replace(",", ""))


def main() -> None:
    if len(sys.argv) == 3:
        what, count = sys.argv[1], int(sys.argv[2])
        if what == "replayed step":
            replay_steps(count)
        else:
            asyncio.run(with_client(what, count))
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("this needs valgrind (on Debian: apt-get install valgrind)")
    for what, (few, many) in SIZES.items():
        each = (counted(what, many) - counted(what, few)) / (many - few)
        print(f"a {what:14} {each / 1000:6,.0f} thousand instructions")


if __name__ == "__main__":
    main()
