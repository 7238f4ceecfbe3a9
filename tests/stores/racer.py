"""One of the processes that fight for a run: `python -m tests.stores.racer URL RUN_ID OWNER TOTAL`.

Takes the run, appends the next number to its history and lets go, until the history holds TOTAL numbers. After every
twentieth number it forgets to let go, as a process that died would. Prints the numbers that the store has acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta

from tests.stores.records import happened
from tinyworkflow_core.clock import SystemClock
from tinyworkflow_core.engine.history import SideEffectRecorded
from tinyworkflow_core.errors import LeaseLost
from tinyworkflow_core.store import Commit, Release, Status, Store
from tinyworkflow_core.stores import open_store

TTL = timedelta(seconds=0.3)


async def race(url: str, run_id: str, owner: str, total: int) -> list[int]:
    """Fight until the history is full; returns the numbers that are ours."""
    store = open_store(url)
    clock = SystemClock()
    ours: list[int] = []
    try:
        while True:
            taken = await store.acquire(run_id, owner=owner, now=clock.now(), ttl=TTL)
            if taken is None:
                if await count_of(store, run_id) == total:
                    return ours
                await asyncio.sleep(0.002)  # somebody else is at work
                continue
            state = taken.state or await store.load(run_id)
            assert state is not None
            number = sum(isinstance(event, SideEffectRecorded) for event in state.history) + 1
            events = (happened(number),) if number <= total else ()
            release = None if number % 20 == 0 and events else Release(status=Status.WAITING)
            try:
                await store.commit(taken.lease, Commit(sequence=state.sequence + 1, events=events, release=release))
            except LeaseLost:
                continue  # this process was slower than its lease
            if not events:
                return ours
            ours.append(number)
    finally:
        await store.close()


async def count_of(store: Store, run_id: str) -> int:
    """How many numbers the history holds."""
    state = await store.load(run_id)
    assert state is not None
    return sum(isinstance(event, SideEffectRecorded) for event in state.history)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(race(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))))
