"""Prints where the time of a step goes, by SQLite: `python -m tests.benchmarks.profile [--runs 20] [--steps 100]`.

Runs of sequential steps, one after another, under cProfile: each function's own time, grouped by the part of the house
that it belongs to. What belongs to no part (json, contextlib, built-in functions) counts for those who called it. The
profile makes everything slower, Python more than SQLite: the shares tell what to look at, not what it takes. Commits
stay in the loop's thread, which is the only one that is profiled, however slow the disk is.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tinyworkflow_core
from tests.benchmarks.growth import steps
from tinyworkflow_core import TinyWorkflowClient
from tinyworkflow_core.stores import sqlite_writer
from tinyworkflow_core.stores.sqlite_transactions import transact

Function = tuple[str, int, str]
_PACKAGE = str(Path(tinyworkflow_core.__file__).parent)
_PARTS = (
    ("engine/", "engine"),
    ("serialization.py", "codec"),
    ("values.py", "codec"),
    ("encryption.py", "codec"),
    ("sealing.py", "codec"),
    ("stores/", "store: our code"),
    ("advance/", "advance"),
    ("activities.py", "activity"),
    ("", "the rest of the package"),
)
_WAITING = "waiting"


def part_of(function: Function) -> str | None:
    """The part of the house that a function is of. None: it counts for its callers."""
    file, _, name = function
    if "sqlite3." in name and file == "~":
        return "store: SQLite and the disk"
    if "select.epoll" in name or "select.kqueue" in name or "select.select" in name:
        return _WAITING
    if file.startswith(_PACKAGE):
        inside = file[len(_PACKAGE) + 1 :]
        return next(part for beginning, part in _PARTS if inside.startswith(beginning))
    if "/asyncio/" in file or file.endswith("/selectors.py") or "_asyncio." in name or "_contextvars." in name:
        return "event loop"
    if file.endswith("benchmarks/growth.py"):
        return "workflow and activity code"
    return None


def grouped(stats: dict[Function, tuple[int, int, float, float, dict[Function, Any]]]) -> dict[str, float]:
    """Seconds of own time by part."""
    seconds: dict[str, float] = defaultdict(float)

    def count(function: Function, own: float, seen: tuple[Function, ...]) -> None:
        part = part_of(function)
        callers = stats[function][4] if function in stats else {}
        weights = {caller: said[2] for caller, said in callers.items() if caller not in seen}
        whole = sum(weights.values())
        if part is not None or whole == 0 or len(seen) > 8:
            seconds[part or "elsewhere"] += own
            return
        for caller, weight in weights.items():
            count(caller, own * weight / whole, (*seen, function))

    for function, (_, _, own, _, _) in stats.items():
        count(function, own, ())
    return seconds


class _Disk:
    """How long the commits take, counted while `counts`."""

    counts = False
    seconds = 0.0

    def transact(self, *given: Any, **named: Any) -> float:
        """What sqlite_transactions.transact does."""
        taken = transact(*given, **named)
        self.seconds += taken if self.counts else 0.0
        return taken


async def _work(path: str, runs: int, count: int, profile: cProfile.Profile | None, disk: _Disk) -> tuple[float, float]:
    """CPU and wall seconds of the runs."""
    async with TinyWorkflowClient(f"sqlite:///{path}", auto_start_worker=True) as client:
        await client.get_result(await client.start_workflow(steps, count))
        began, worked = time.perf_counter(), time.process_time()
        if profile is not None:
            disk.counts = True
            profile.enable()
        for _ in range(runs):
            await client.get_result(await client.start_workflow(steps, count))
        if profile is not None:
            profile.disable()
            disk.counts = False
        return time.process_time() - worked, time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--functions", type=int, default=0, help="also print the functions with most own time")
    options = parser.parse_args(arguments)
    done, disk, profile = options.runs * options.steps, _Disk(), cProfile.Profile()
    sqlite_writer.SLOW_COMMIT_SECONDS = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        bare = asyncio.run(_work(f"{folder}/bare.db", options.runs, options.steps, None, disk))
        vars(sqlite_writer)["transact"] = disk.transact
        slow = asyncio.run(_work(f"{folder}/runs.db", options.runs, options.steps, profile, disk))
    cpu, wall, profiled = (value / done * 1e6 for value in (*bare, slow[1]))
    print(f"{options.runs} runs of {options.steps} steps; a step takes {cpu:.0f} us of CPU and {wall:.0f} us in all; "
          f"under the profile {profiled:.0f} us")  # fmt: skip
    seconds = grouped(pstats.Stats(profile).stats)  # type: ignore[attr-defined]  # it has them; the stubs do not
    waited = seconds.pop(_WAITING, 0.0)
    whole = sum(seconds.values())
    for part, own in sorted(seconds.items(), key=lambda one: -one[1]):
        print(f"{part:28} {own / whole:6.1%} {own / done * 1e6:8.0f} us a step")
        if part.startswith("store: SQLite"):
            print(f"{'  of which COMMIT':28} {disk.seconds / whole:6.1%} {disk.seconds / done * 1e6:8.0f} us a step")
    print(f"waiting, beside that: {waited / done * 1e6:.0f} us a step")
    if options.functions:
        pstats.Stats(profile).sort_stats("tottime").print_stats(options.functions)


if __name__ == "__main__":
    main()
