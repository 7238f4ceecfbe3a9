"""Prints what a run costs as it grows, and a store as it fills: `python -m tests.benchmarks.growth [--quick]`.

Four questions, all of SQLite, each a ratio within this one run of the command: what a step costs in a run of many
steps; what memory such a run takes; what starting, signalling, ticking and listing cost beside many open runs; and what
a tick touches there. `--only`, `--steps`, `--open` and `--passes` ask for less. Linux alone: memory is read in /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from typing import Any

from tests.benchmarks.side_by_side import machine
from tinyworkflow_core import App, TinyWorkflowClient, WorkflowContext, activity, workflow
from tinyworkflow_core.dispatchers.local import NoDispatcher
from tinyworkflow_core.store import RunQuery, Status
from tinyworkflow_core.stores import sqlite_connections
from tinyworkflow_core.stores.sqlite import SqliteStore

MOST_PER_STEP, MOST_MEGABYTES, MOST_BESIDE_OPEN = 1.3, 60.0, 1.5
DUE, AT_ONCE, BESIDE = 10, 1000, 200
Row = tuple[str, str, str, bool | None]
"""What, the figure, the target, and whether it is met (None: there is none)."""


@activity
async def grown(x: int) -> int:
    return x + 1


@workflow(name="growth_steps")
async def steps(ctx: WorkflowContext, count: int) -> int:
    x = 0
    for _ in range(count):
        x = await ctx.execute_activity(grown, x)
    return x


@workflow(name="growth_steps_and_a_wait")
async def steps_and_a_wait(ctx: WorkflowContext, count: int) -> int:
    for x in range(count):
        await ctx.execute_activity(grown, x)
    await ctx.wait_for_signal("go")
    return count


@workflow(name="growth_waits")
async def waits(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_signal("go")


@workflow(name="growth_naps")
async def naps(ctx: WorkflowContext, seconds: float) -> None:
    await ctx.sleep(seconds)


# --- one run that grows --------------------------------------------------------------------------


async def _per_step(client: TinyWorkflowClient, count: int, runs: int) -> tuple[float, float]:
    """CPU and wall microseconds per step."""
    began, worked = time.perf_counter(), time.process_time()
    for _ in range(runs):
        run_id = await client.start_workflow(steps, count)
        assert await client.get_result(run_id) == count
    return tuple(  # type: ignore[return-value]  # two of them
        seconds * 1e6 / (count * runs) for seconds in (time.process_time() - worked, time.perf_counter() - began)
    )


async def cost_per_step(counts: list[int], passes: int) -> Iterator[Row]:
    """Runs of each length, interleaved, about as many steps of each in a pass."""
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        async with TinyWorkflowClient(f"sqlite:///{folder}/runs.db", auto_start_worker=True) as client:
            await _per_step(client, counts[0], 3)
            for _ in range(passes):
                for count in counts:
                    found[count].append(await _per_step(client, count, max(1, min(20, 2000 // count))))
    medians = {
        count: [statistics.median(kind) for kind in zip(*measured, strict=True)] for count, measured in found.items()
    }
    return _per_step_rows(medians)


def _per_step_rows(medians: dict[int, list[float]]) -> Iterator[Row]:
    base = next(iter(medians.values()))
    for count, measured in medians.items():
        for kind, value, first in zip(("CPU", "wall"), measured, base, strict=True):
            figure = f"{value:.0f} us, {value / first:.2f}x"
            target = (f"{MOST_PER_STEP}x", value / first <= MOST_PER_STEP) if measured is not base else ("", None)
            yield f"a step of {count:,}: {kind}", figure, *target


async def _of_one_run(count: int, path: str) -> None:
    """In a process of its own: its memory, in kB, at its highest and at its end. The first process on that file brings
    a run to its wait after so many steps; the next one resumes it."""
    app = _app(path)
    if await app.store.get("grown") is None:
        await app.client.start_workflow(steps_and_a_wait, count, run_id="grown")
        await app.advance("grown")
        run = await app.store.get("grown")
        assert run is not None
        assert run.status is Status.WAITING
    else:
        await app.client.send_signal("grown", "go")
        await app.advance("grown")
        assert await app.client.get_result("grown") == count
    with open("/proc/self/status") as status:  # noqa: ASYNC230  # nothing else runs here
        lines = dict(line.split(":", 1) for line in status)
    print(*(lines[name].split()[0] for name in ("VmHWM", "VmRSS")))
    await app.close()


def _megabytes(count: int) -> list[list[float]]:
    """Making a run of so many steps, and resuming it: at its highest, and at its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.growth", "--memory-of", str(count), f"{folder}/runs.db"]
        done = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in ("made", "resumed")]
    return [[int(number) / 1024 for number in one.stdout.split()] for one in done]


def memory(count: int) -> Iterator[Row]:
    """What a run of so many steps takes above what a run of ten takes, each in a fresh process."""
    for doing, *taken in zip(("making", "resuming"), _megabytes(10), _megabytes(count), strict=True):
        for when, base, full in zip(("at its highest", "at its end"), *taken, strict=True):
            figure = f"{full - base:.0f} MB above {base:.0f}"
            met = full - base < MOST_MEGABYTES
            yield f"memory: {doing} a run of {count:,}, {when}", figure, f"{MOST_MEGABYTES:.0f} MB", met


# --- many open runs ------------------------------------------------------------------------------


async def fill(app: App, count: int) -> None:
    """So many open runs: half of them wait for a signal, half sleep for days. One of each is real, the others are its
    copies under other ids, made through the store."""
    originals = [await app.client.start_workflow(waits), await app.client.start_workflow(naps, 1e6)]
    states = []
    for run_id in originals:
        await app.advance(run_id)
        state = await app.store.load(run_id)
        assert state is not None
        assert state.run.status is Status.WAITING
        states.append(state)
    for start in range(0, count, AT_ONCE):
        copies = []
        for number in range(start, min(start + AT_ONCE, count)):
            state = states[number % 2]
            copy = replace(state.run, run_id=f"open-{number}", workflow_id=f"open-of-{number}")
            copies.append(app.store.create(copy, state.history))
        assert all(await asyncio.gather(*copies))


def _app(path: str) -> App:
    return App(SqliteStore(path), workflows=[waits, naps, steps_and_a_wait, grown], dispatcher=NoDispatcher())


async def _timed(found: list[float], call: Awaitable[Any]) -> Any:
    began = time.perf_counter()
    answer = await call
    found.append(time.perf_counter() - began)
    return answer


async def _once(app: App, number: int, found: dict[str, list[float]]) -> None:
    """One of each, as an application does them: a start and a signal go as far as the run then goes."""

    async def started() -> str:
        run_id = await app.client.start_workflow(waits)
        await app.advance(run_id)
        return run_id

    async def signalled(run_id: str) -> None:
        await app.client.send_signal(run_id, "go", number)
        await app.advance(run_id)

    run_id = await _timed(found.setdefault("start", []), started())
    await _timed(found.setdefault("signal", []), signalled(run_id))
    await _timed(found.setdefault("tick", []), app.tick())
    await _timed(found.setdefault("list", []), app.store.list(RunQuery()))
    await _timed(found.setdefault("list of one status", []), app.store.list(RunQuery(status=Status.WAITING)))
    assert await app.client.get_result(run_id) == number


async def beside_open_runs(count: int, times: int) -> Iterator[Row]:
    """The same calls on a store of `count` open runs and on one of a page of them, by turns."""
    with tempfile.TemporaryDirectory() as folder:
        apps = [_app(f"{folder}/{name}.db") for name in ("empty", "full")]
        began = time.perf_counter()
        await fill(apps[0], 2 * DUE * 10)  # a list of a page costs what the page costs
        await fill(apps[1], count)
        print(f"filling with {count:,} open runs took {time.perf_counter() - began:.0f} s", flush=True)
        found: list[dict[str, list[float]]] = [{}, {}]
        for number in range(-5, times):
            if number == 0:
                found = [{}, {}]
            for app, mine in zip(apps, found, strict=True):
                await _once(app, number, mine)
        ticks = [await _counted_tick(app) for app in apps]
        for app in apps:
            await app.close()
    return _beside_rows(count, found, ticks)


def _beside_rows(count: int, found: list[dict[str, list[float]]], ticks: list[Counted]) -> Iterator[Row]:
    for name, empty in found[0].items():
        few, many = statistics.median(empty), statistics.median(found[1][name])
        figure = f"{many * 1e3:.2f} ms, {many / few:.2f}x"
        yield f"{name} beside {count:,} open runs", figure, f"{MOST_BESIDE_OPEN}x", many / few <= MOST_BESIDE_OPEN
    few_steps, many_steps = (tick.steps for tick in ticks)
    dispatched = ticks[1].dispatched
    yield (
        f"a tick with {DUE} due among {count:,}",
        f"{dispatched} runs, {ticks[1].statements} statements, {many_steps} steps of SQLite",
        f"{DUE}, {ticks[0].statements}, {few_steps} as among few",
        dispatched == DUE and ticks[1].statements == ticks[0].statements and many_steps <= few_steps * 1.1,
    )


class Counted:
    """What a tick did: runs dispatched, statements, and steps of SQLite's virtual machine, which rows cost."""

    def __init__(self) -> None:
        self.dispatched = self.statements = self.steps = 0

    def connect(self, path: str, **how: Any) -> sqlite3.Connection:
        db = _connect(path, **how)
        db.set_trace_callback(self._statement)
        db.set_progress_handler(self._step, 1)
        return db

    def _statement(self, sql: str) -> None:
        self.statements += 1

    def _step(self) -> int:
        self.steps += 1
        return 0


_connect = sqlite_connections.connect


@contextlib.contextmanager
def _counting(counted: Counted) -> Iterator[None]:
    sqlite_connections.connect = counted.connect
    try:
        yield
    finally:
        sqlite_connections.connect = _connect


async def _counted_tick(app: App) -> Counted:
    """A tick, through a store of its own on the same file, when DUE runs have just become due."""
    asleep = await app.store.load("open-1")
    assert asleep is not None
    for number in range(DUE):
        due = replace(asleep.run, run_id=f"due-{number}", workflow_id=f"due-{number}", wake_at=app.clock.now())
        await app.store.create(due, asleep.history)
    counted = Counted()
    assert isinstance(app.store, SqliteStore)
    with _counting(counted):
        own = _app(app.store.path)
        await own.tick(limit=0)  # connects
        counted.statements = counted.steps = 0
        report = await own.tick()
        await own.close()
    counted.dispatched = len(report.dispatched)
    return counted


# --- the command ---------------------------------------------------------------------------------


def _print(rows: Iterator[Row]) -> None:
    for what, figure, target, met in rows:
        verdict = "" if met is None else "met" if met else "NOT MET"
        print(f"{what:52} {figure:44} {target:30} {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["steps", "memory", "open"], default=["steps", "memory", "open"])
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 1000, 10_000], help="lengths of a run")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--open", type=int, default=100_000, help="open runs in the store")
    parser.add_argument("--quick", action="store_true", help="2,000 open runs, runs up to 1,000 steps, one pass")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        asyncio.run(_of_one_run(int(options.memory_of[0]), options.memory_of[1]))
        return
    if options.quick:
        options.steps, options.open, options.passes = options.steps[:2], 2000, 1
    with tempfile.TemporaryDirectory() as folder:
        print(machine.described(), machine.state(folder))
    if "steps" in options.only:
        _print(asyncio.run(cost_per_step(options.steps, options.passes)))
    if "memory" in options.only:
        _print(memory(options.steps[-1]))
    if "open" in options.only:
        _print(asyncio.run(beside_open_runs(options.open, BESIDE if not options.quick else 20)))


if __name__ == "__main__":
    main()
