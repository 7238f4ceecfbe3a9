"""Calls: a queue that makes calls as a platform does, over several instances of an App, and counts how they went.

Each instance has its own store, so that they know of each other only what Firestore tells them. A call that finds its
run in other hands is made again a little later, as Cloud Tasks does with the 409 that such a call is answered with.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from tinyworkflow_core import App
from tinyworkflow_core.advance import Progress
from tinyworkflow_core.clock import Clock, SystemClock
from tinyworkflow_core.dispatcher import Advance, Task
from tinyworkflow_core.http.problems import RETRY_SECONDS
from tinyworkflow_core.store import Store, Taken


class Calls:
    """A dispatcher for all the instances."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.made: Counter[str] = Counter()
        """Calls, by what was to be done and what came of it."""
        self._clock = clock or SystemClock()
        self._queue: list[tuple[datetime, int, Task]] = []
        self._numbers = itertools.count()

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """See the dispatcher port."""
        heapq.heappush(self._queue, (at or self._clock.now(), next(self._numbers), task))

    async def close(self) -> None:
        """See the dispatcher port."""

    async def make(self, apps: Sequence[App], *, at_once: int, until: asyncio.Event) -> float:
        """Make the calls, so many at once on each instance; returns how many seconds it took."""
        began = time.monotonic()
        workers = [asyncio.create_task(self._work(app, until)) for app in apps for _ in range(at_once)]
        await until.wait()
        took = time.monotonic() - began
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return took

    async def _work(self, app: App, until: asyncio.Event) -> None:
        while not until.is_set():
            if not self._queue or self._queue[0][0] > self._clock.now():
                await asyncio.sleep(0.005)  # the queue is polled: it is no part of what is measured
                continue
            task = heapq.heappop(self._queue)[2]
            progress = await app.carry_out(task)
            self.made[f"{type(task).__name__.lower()} {progress.value}"] += 1
            if progress is Progress.BUSY:
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._again, task)
            elif progress is Progress.CLOSED and isinstance(task, Advance):
                until.set()

    def _again(self, task: Task) -> None:
        heapq.heappush(self._queue, (self._clock.now(), next(self._numbers), task))


def count_takings(store: Store, counter: Counter[str]) -> None:
    """From now on each try to take a run is counted as `tried`, and as `got` where it was one."""
    acquire = store.acquire

    async def counted(*args: object, **kwargs: object) -> Taken | None:
        counter["tried"] += 1
        taken: Taken | None = await acquire(*args, **kwargs)  # type: ignore[arg-type]  # handed on as they come
        counter["got"] += taken is not None
        return taken

    store.acquire = counted  # type: ignore[method-assign]  # a store for one benchmark alone
