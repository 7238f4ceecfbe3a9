"""Prints what a start costs: `python -m tests.benchmarks.cold_start [--times N] [--peer PYTHON CODE] [--no-server]`.

Fresh processes that take turns, so that all meet the same machine: bare Python; the import of the package; the import
of the names that a workflow needs; a first run; the command line (`--help`, and `list` on a small SQLite file); and how
soon a function's process answers, an empty one and ours. Of each the median wall time, the CPU time (steadier on a busy
machine), the highest memory and the number of modules. Byte code is kept in a folder of this run and made before
anything is measured, as an installed package has it.

A peer is measured by its own interpreter: `--peer /venv/bin/python "from durabletask import task, worker, client"`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import first_answer

ROOT = Path(__file__).parents[2]
NAMES = "from tinyworkflow_core import RetryPolicy, TinyWorkflowClient, WorkflowContext, activity, workflow"
FIRST_RUN = f"""
import asyncio
{NAMES}
@activity
async def add(a: int, b: int) -> int:
    return a + b
@workflow
async def sums(ctx: WorkflowContext) -> int:
    return await ctx.execute_activity(add, 1, 2)
async def main() -> None:
    client = TinyWorkflowClient("sqlite:///:memory:")
    run_id = await client.start_workflow("sums", wait=True)
    assert await client.get_result(run_id) == 3
    await client.close()
asyncio.run(main())
"""
_REPORT = """
import atexit, json, sys
def tell():
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM:"))
    print("\\n" + json.dumps([int(peak.split()[1]) / 1024, len(sys.modules)]), flush=True)
atexit.register(tell)
"""


@dataclass(kw_only=True)
class Start:
    """One kind of start, and what it took each time."""

    python: str
    code: str
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    modules: int = 0

    def go(self, environ: Mapping[str, str]) -> None:
        """Start it once more."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [self.python, "-c", _REPORT + self.code], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        self.wall_ms.append(took * 1000)
        self.cpu_ms.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000)
        self.peak_mb, self.modules = json.loads(done.stdout.splitlines()[-1])


def command(*words: str) -> str:
    """Code that is the `tinyworkflow` command with these words."""
    return f"sys.argv = ['tinyworkflow', *{list(words)!r}]\nfrom tinyworkflow_core.cli import main\nmain()"


def measured(times: int, peer: tuple[str, str] | None, database_url: str) -> dict[str, Start]:
    """All kinds of start, each so many times, in turns."""
    own = sys.executable
    starts = {
        "bare python": Start(python=own, code=""),
        "import tinyworkflow_core": Start(python=own, code="import tinyworkflow_core"),
        "import of its names": Start(python=own, code=NAMES),
        "first run, SQLite": Start(python=own, code=FIRST_RUN),
        "tinyworkflow --help": Start(python=own, code=command("--help")),
        "tinyworkflow list --db": Start(python=own, code=command("--db", database_url, "list")),
    }
    if peer is not None:
        starts["the peer's import"] = Start(python=peer[0], code=peer[1])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TINYWORKFLOW_")}
    for one in starts.values():
        Start(python=one.python, code=one.code).go(environ)  # compiles, and warms the page cache
    for _ in range(times):
        for one in starts.values():
            one.go(environ)
    return starts


def show(starts: Mapping[str, Start]) -> None:
    """A table; with a peer the ratios to it."""
    print(f"{'':26}{'wall ms':>9}{'CPU ms':>9}{'peak MB':>9}{'modules':>9}")
    for name, one in starts.items():
        wall, cpu = statistics.median(one.wall_ms), statistics.median(one.cpu_ms)
        print(f"{name:26}{wall:9.0f}{cpu:9.0f}{one.peak_mb:9.1f}{one.modules:9}")
    if (peer := starts.get("the peer's import")) is None:
        return
    for name in ("import tinyworkflow_core", "import of its names", "first run, SQLite"):
        wall = statistics.median(starts[name].wall_ms) / statistics.median(peer.wall_ms)
        cpu = statistics.median(starts[name].cpu_ms) / statistics.median(peer.cpu_ms)
        print(f"{name} to the peer's import: wall {wall:.2f}, CPU {cpu:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a start costs.")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "STATEMENT"))
    parser.add_argument("--no-server", action="store_true", help="without the function processes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        peer = None if asked.peer is None else (asked.peer[0], asked.peer[1])
        show(measured(asked.times, peer, f"sqlite:///{folder}/runs.db"))
        if not asked.no_server:
            first_answer.main(asked.times)


if __name__ == "__main__":
    main()
