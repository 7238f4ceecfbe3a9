"""Several processes that know of runs by their ticks alone: how often they try to take a run in vain, counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.eventually import eventually
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.dispatcher import Task
from tinyworkflow_core.dispatchers.local import LocalDispatcher
from tinyworkflow_core.store import Lease, RunQuery, Status
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import VirtualClock

PROCESSES, ROOM, RUNS = 4, 3, 40


@workflow
async def short(ctx: WorkflowContext) -> None: ...


class Counted:
    """A process whose store counts its takings, and what its ticks were told of."""

    def __init__(self, url: str, counts: Counter[str], clock: VirtualClock) -> None:
        store: Any = open_store(url)
        acquire, due = store.acquire, store.due

        async def taking(*arguments: Any, **named: Any) -> Lease | None:
            lease: Lease | None = await acquire(*arguments, **named)
            counts["got" if lease else "wasted"] += 1
            return lease

        async def finding(**named: Any) -> list[str]:
            found: list[str] = await due(**named)
            counts["found"] += len(found)
            return found

        store.acquire, store.due = taking, finding

        async def call(task: Task) -> None:
            await self.app.carry_out(task)

        self.dispatcher = LocalDispatcher(call, clock=clock, max_calls=ROOM)
        self.app = App(store, workflows=[short], clock=clock, dispatcher=self.dispatcher)

    async def look(self) -> int:
        """How many runs a tick has found, when they have been worked on."""
        found = len((await self.app.tick()).dispatched)
        await eventually(self._is_idle)
        return found

    async def _is_idle(self) -> bool:
        return self.dispatcher.busy == 0


async def test_processes_that_all_see_all_runs_seldom_want_the_same_one_and_lose_none(
    shared_store_factory: StoreFactory,
) -> None:
    url, clock, counts = shared_store_factory.url(), VirtualClock(), Counter[str]()
    starter = App(url, workflows=[short], clock=clock, dispatcher="none")
    for _ in range(RUNS):
        await starter.client.start_workflow(short)
    processes = [Counted(url, counts, clock) for _ in range(PROCESSES)]
    while any(await asyncio.gather(*(process.look() for process in processes))):
        pass  # in step, which is the worst case
    assert counts["got"] == RUNS
    # When everybody tried what everybody found, it was PROCESSES - 1 for each run. By chance it is about 0.5 for each,
    # and PROCESSES - 1 for each of the last few, for which there is room everywhere.
    assert counts["wasted"] < 1.25 * RUNS
    ended = await starter.store.count(RunQuery(status=Status.COMPLETED), most=2 * RUNS)
    assert ended == RUNS
    for app in (starter, *(process.app for process in processes)):
        await app.close()
