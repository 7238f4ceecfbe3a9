"""Prints what the pages of the dashboard cost: `python -m tests.benchmarks.dashboard [--runs 20000] [--events 5000]`.

A SQLite file with so many runs, and two more with a history of so many events: activities with retries, timers and
signals, stored commit by commit as a holder would. The pages are asked for through the whole front, in this process,
one after the other and in turns, so that what else the machine does falls on all of them alike.

For each page: median and 95 % of the wall clock, median of the CPU of all threads, its size, and what memory rises by
while it is made (peak) and after it was made several times (kept; list and run: `--times` times), by tracemalloc in a
pass of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.http.front import WORKFLOWS, calling
from tinyworkflow_core import App
from tinyworkflow_core.engine.history import (
    ActivityCompleted,
    ActivityFailed,
    Event,
    RunStarted,
    SignalReceived,
    TimerFired,
    TimerStarted,
)
from tinyworkflow_core.serialization import Failure
from tinyworkflow_core.store import Commit, Release, Run, Status, Store
from tinyworkflow_core.testing import VirtualClock

START = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LONG = "long"
AT_ONCE = 500
"""Writes that are on their way together: they share a transaction."""


def activities(app: App, count: int) -> Iterator[Event]:
    """Events of a run after its first, `count` of them: mostly activities, each second one of them with a retry."""
    encode, failed = app.codec.encode, Failure(type="TimeoutError", message="the service said nothing", traceback="x\n")
    made, step, at = 0, 0, START
    while made < count:
        step, at = step + 1, at + SECOND
        about: dict[str, Any] = {"id": step, "name": f"work {step % 7}", "digest": "0123456789abcdef"}
        about["input"] = encode([step, "two"])
        if step % 20 == 0:
            some: list[Event] = [TimerStarted(at=at, id=step, due=at + SECOND)]
            some += [TimerFired(at=at + SECOND, id=step, due=at + SECOND)]
        elif step % 25 == 1:
            some = [SignalReceived(at=at, message_id=f"m{step}", name=f"word {step % 3}", payload=encode({"n": step}))]
        else:
            done = encode({"total": step, "lines": ["a", "b"]})
            retried = step % 2 == 0
            some = [
                ActivityFailed(
                    at=at, attempt=1, started_at=at - SECOND / 2, error=failed, retry_at=at + SECOND / 4, **about
                )
            ] * retried
            some += [
                ActivityCompleted(
                    at=at + SECOND / 2, attempt=1 + retried, started_at=at + SECOND / 4, result=done, **about
                )
            ]
        yield from some[: count - made]
        made += len(some)


async def fill(app: App, runs: int, events: int) -> None:
    """So many runs, and one more with so many events."""
    names = [one.name for one in WORKFLOWS]
    statuses = list(Status)
    encode = app.codec.encode

    async def add(number: int) -> None:
        status, at = statuses[number % len(statuses)], START - number * SECOND
        error = Failure(type="ValueError", message=f"no such order: {number}") if status is Status.FAILED else None
        run = Run(
            run_id=f"order_{number:012x}",
            workflow_id=f"customer-{number % 1000}",
            name=names[number % len(names)],
            version=1,
            input=encode({"order": number}),
            created_at=at,
            started_at=at,
            closed_at=at + SECOND if status.closed else None,
            status=status,
            error=error,
            wake_at=None if status.closed else START + timedelta(days=1),
            problem="there is no code of version 1" if status is Status.PARKED else None,
            attributes={"region": "eu" if number % 2 else "us", "n": number},
        )
        opening = RunStarted(at=at, name=run.name, version=1, input=run.input, engine=1, python="3.12")
        assert await app.store.create(run, [opening])

    for first in range(0, runs, AT_ONCE):
        await asyncio.gather(*(add(number) for number in range(first, min(first + AT_ONCE, runs))))
    for run_id in (LONG, f"{LONG}-too"):
        await tell(app, app.store, run_id, events)


async def tell(app: App, store: Store, run_id: str, events: int) -> None:
    """A run with so many events, two of them a commit."""
    given = app.codec.encode({"order": 1})
    run = Run(run_id=run_id, workflow_id=run_id, name="echo", version=1, input=given, created_at=START)
    assert await store.create(run, [RunStarted(at=START, name="echo", version=1, input=given, engine=1, python="3.12")])
    taken = await store.acquire(run_id, owner="benchmark", now=START, ttl=timedelta(days=1))
    assert taken is not None
    lease = taken.lease
    rest = list(activities(app, events - 1))
    commits = [
        Commit(sequence=number, events=tuple(rest[at : at + 2]))
        for number, at in enumerate(range(0, len(rest), 2), start=1)
    ]
    for first in range(0, len(commits), AT_ONCE):
        await asyncio.gather(*(store.commit(lease, one) for one in commits[first : first + AT_ONCE]))
    done = Release(status=Status.WAITING, wake_at=START + timedelta(days=1))
    await store.commit(lease, Commit(sequence=0, release=done))


def pages(events: int) -> dict[str, str]:
    """What is asked for, by what it is called."""
    return {
        "list": "/ui/runs",
        "list, one status": "/ui/runs?status=failed",
        "list, 200 a page": "/ui/runs?size=200",
        "list, by id": "/ui/runs?id=order_0000000001",
        "run": f"/ui/runs/{LONG}",
        "run, last rows": f"/ui/runs/{LONG}?row={events // 2}&after={events - 50}",
        "run, zoomed": f"/ui/runs/{LONG}?from=100&to=400",
        "run, small": "/ui/runs/order_000000000001",
        "diff of two": f"/ui/diff?a={LONG}&b={LONG}-too",
        "activities": "/ui/activities",
        "health": "/ui/health",
        "approvals": "/ui/approvals",
    }


async def ask(caller: httpx.AsyncClient, path: str) -> int:
    """Bytes of the page."""
    answer = await caller.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return len(answer.content)


async def measure(caller: httpx.AsyncClient, asked: dict[str, str], times: int) -> None:
    """Print a line for each page."""
    sizes = {name: await ask(caller, path) for name, path in asked.items()}
    wall: dict[str, list[float]] = {name: [] for name in asked}
    cpu: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(times):
        for name, path in asked.items():
            began, worked = time.perf_counter(), time.process_time()
            await ask(caller, path)
            wall[name].append((time.perf_counter() - began) * 1000)
            cpu[name].append((time.process_time() - worked) * 1000)
    print(f"{'page':18} {'median ms':>9} {'95 % ms':>9} {'CPU ms':>9} {'kB':>6} {'peak MB':>8} {'kept MB':>8}")
    for name, path in asked.items():
        peak, kept = await memory(caller, path, times if name in ("list", "run") else 2)
        taken = sorted(wall[name])
        print(
            f"{name:18} {statistics.median(taken):9.1f} {taken[int(len(taken) * 0.95)]:9.1f} "
            f"{statistics.median(cpu[name]):9.1f} {sizes[name] / 1000:6.0f} {peak / 1e6:8.1f} {kept / 1e6:8.2f}"
        )


async def memory(caller: httpx.AsyncClient, path: str, times: int) -> tuple[int, int]:
    """By how many bytes memory rises while the page is made, and by how many after it was made so many times."""
    gc.collect()
    tracemalloc.start()
    try:
        await ask(caller, path)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(times):
            await ask(caller, path)
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before, after - before


async def main(runs: int, events: int, times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'runs.db'}"
        app = App(url, workflows=WORKFLOWS, dispatcher="none", clock=VirtualClock(START + timedelta(hours=2)))
        try:
            await fill(app, runs, events)
            print(f"{runs} runs, and two of {events} events; each page {times} times")
            async with calling(app, parts={"ui"}) as caller:
                await measure(caller, pages(events), times)
        finally:
            await app.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the pages of the dashboard cost.")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    asyncio.run(main(given.runs, given.events, given.times))
