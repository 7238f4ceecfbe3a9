"""Prints what several processes make of many runs on one Firestore: `python -m tests.benchmarks.instances [runs]`.

Runs of three steps on the emulator, once by one process and once by several, twice over: `started` by the processes
themselves, each its share; and `found` by the ticks of all of them, the worst case, in which every process sees every
run. A taking is wasted when it was tried and not got. Beside it: how many runs the ticks were told of, each of them a
document read.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any

from tests.benchmarks.calls import count_takings
from tests.emulator import firestore_emulator
from tests.scenarios.costing import one, sequence
from tinyworkflow_core import App
from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.store import Commit, Lease
from tinyworkflow_core.stores.firestore import FirestoreStore

STEPS, PROCESSES = 3, 4
STARTS_AT_ONCE = 16


def _app(project: str) -> App:
    return App(FirestoreStore(project), workflows=[sequence, one])


# --- one process -----------------------------------------------------------------------------------------


async def work(project: str, share: int) -> None:
    """Prints a line when it is ready, one for each run that it has brought to its end, and what it counted when it is
    told to stop; works from the first line that it reads to the second."""
    app, takings = _app(project), Counter[str]()
    write = app.store.commit

    async def told(lease: Lease, commit: Commit) -> None:
        await write(lease, commit)
        if commit.release is not None and commit.release.status.closed:
            print(flush=True)

    app.store.commit = told  # type: ignore[method-assign]  # a store for one benchmark alone
    count_takings(app.store, takings)
    due = app.store.due

    async def counted(**arguments: Any) -> list[str]:
        found = await due(**arguments)
        takings["found"] += len(found)
        return found

    app.store.due = counted  # type: ignore[method-assign]  # as above
    await app.store.get("nobody")  # connects
    print("ready", flush=True)
    lines = asyncio.Queue[str]()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: lines.put_nowait(sys.stdin.readline()))
    await lines.get()
    await app.start_worker()
    await start(app, share)
    await lines.get()
    print(json.dumps(takings), flush=True)
    await app.close()


async def start(app: App, count: int) -> None:
    """Start so many runs."""
    slots = asyncio.Semaphore(STARTS_AT_ONCE)

    async def start_one() -> None:
        async with slots:
            await app.client.start_workflow(sequence, STEPS)

    await asyncio.gather(*(start_one() for _ in range(count)))


# --- all of them -----------------------------------------------------------------------------------------


async def measure(runs: int, processes: int, *, found: bool) -> tuple[float, Counter[str]]:
    """Seconds until all runs have ended, and the takings of all processes."""
    project = f"bench-{fresh_id()}"
    if found:
        app = App(FirestoreStore(project), workflows=[sequence, one], dispatcher="none")
        await start(app, runs)
        await app.close()
    shares = [0 if found else runs // processes + (number < runs % processes) for number in range(processes)]
    workers = [await _spawn(project, share) for share in shares]
    for worker in workers:
        assert await worker.stdout.readline() == b"ready\n"
    began = time.monotonic()
    for worker in workers:
        worker.stdin.write(b"go\n")
    closed = asyncio.Semaphore(0)
    readers = [asyncio.create_task(_count(worker, closed)) for worker in workers]
    for _ in range(runs):
        await closed.acquire()
    took = time.monotonic() - began
    for worker in workers:
        worker.stdin.write(b"stop\n")
    takings = Counter[str]()
    for reader, worker in zip(readers, workers, strict=True):
        takings.update(json.loads(await reader))
        assert await worker.wait() == 0
    return took, takings


async def _spawn(project: str, share: int) -> Any:
    command = [sys.executable, "-m", "tests.benchmarks.instances", "--work", project, str(share)]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)


async def _count(worker: Any, closed: asyncio.Semaphore) -> str:
    """The line that comes after those of the runs."""
    while (line := (await worker.stdout.readline()).decode()) == "\n":
        closed.release()
    return str(line)


async def main(runs: int = 1000, processes: int = PROCESSES) -> None:
    for found in (False, True):
        alone = 0.0
        for number in (1, processes):
            took, takings = await measure(runs, number, found=found)
            alone = alone or took
            wasted = takings["tried"] - takings["got"]
            how = "found by ticks" if found else "started there"
            print(
                f"{how}: {runs} runs of {STEPS} steps by {number} process{'es' if number > 1 else ''}: "
                f"{runs / took:6.1f} runs/s, {alone / took:.2f} of one process; "
                f"takings {takings['got'] / runs:.2f} got and {wasted / runs:.2f} wasted for each run, "
                f"{takings['found'] / runs:.1f} found",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        asyncio.run(work(sys.argv[2], int(sys.argv[3])))
    else:
        with firestore_emulator() as host:
            os.environ["FIRESTORE_EMULATOR_HOST"] = host
            asyncio.run(main(*map(int, sys.argv[1:])))
