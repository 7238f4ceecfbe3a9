"""LocalDispatcher: makes calls inside this process, as asyncio tasks in the loop that dispatches.

It is what a laptop, a worker process and local emulation use. Calls for a later moment wait in a heap with one timer;
they are lost with the process, and the tick of any process finds them again.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime

from ..clock import Clock
from ..dispatcher import Advance

_log = logging.getLogger("tinyworkflow.dispatch")

MAX_CONCURRENT_CALLS = 200
"""How many runs one process brings forward at a time; the rest wait their turn in order of arrival."""

_MAX_TIMER_SECONDS = 3600.0


class LocalDispatcher:
    """Calls `handler(run_id)` for every task, soon or at its time. One call per run at a time; a request that comes
    during a call reaches the handler as well, since only it can tell whether that call has seen everything."""

    def __init__(
        self, handler: Callable[[str], Awaitable[object]], *, clock: Clock, max_calls: int = MAX_CONCURRENT_CALLS
    ) -> None:
        self._handler = handler
        self._clock = clock
        self._max_calls = max_calls
        self._calls: set[asyncio.Task[None]] = set()
        self._queue: deque[str] = deque()
        self._queued: set[str] = set()
        self._later: list[tuple[datetime, str]] = []
        self._later_at: dict[str, datetime] = {}
        """The earliest of each run's later calls: that call asks for the next one itself."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._letting_go = False

    @property
    def busy(self) -> int:
        """How many calls are under way or queued."""
        return len(self._calls) + len(self._queue)

    async def dispatch(self, task: Advance, at: datetime | None = None) -> None:
        """See the port."""
        if self._closed or self._letting_go:
            return
        self._loop = asyncio.get_running_loop()
        if at is not None and at > self._clock.now():
            known = self._later_at.get(task.run_id)
            if known is None or at < known:
                self._later_at[task.run_id] = at
                heapq.heappush(self._later, (at, task.run_id))
                if len(self._later) > 2 * len(self._later_at) + 64:  # most have been replaced by earlier ones
                    self._later = [(when, run_id) for run_id, when in self._later_at.items()]
                    heapq.heapify(self._later)
                self._set_timer()
        else:
            self._enqueue(task.run_id)

    def wake(self, run_id: str) -> None:
        """Like dispatch, for callbacks in the dispatcher's own loop."""
        if not (self._closed or self._letting_go):
            self._loop = asyncio.get_running_loop()
            self._enqueue(run_id)

    async def let_go(self) -> None:
        """Forget what was asked for and cancel the calls under way; they end by letting go of their runs."""
        self._letting_go = True
        self._queue.clear()
        self._queued.clear()
        self._later.clear()
        self._later_at.clear()
        self._set_timer()
        try:
            while calls := list(self._calls):
                for call in calls:
                    call.cancel()
                await asyncio.wait(calls)
        finally:
            self._letting_go = False

    async def close(self) -> None:
        """Let go of everything, for good."""
        self._closed = True
        await self.let_go()

    def _enqueue(self, run_id: str) -> None:
        if run_id in self._queued:
            return
        self._queued.add(run_id)
        self._queue.append(run_id)
        self._pump()

    def _pump(self) -> None:
        while self._queue and len(self._calls) < self._max_calls and not self._closed:
            run_id = self._queue.popleft()
            self._queued.discard(run_id)
            assert self._loop is not None
            call = self._loop.create_task(self._call(run_id))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._pump()

    async def _call(self, run_id: str) -> None:
        try:
            await self._handler(run_id)
        except Exception:  # the run is in the store, and the tick brings it back
            _log.exception("a call for run %s failed", run_id, extra={"run_id": run_id})

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later and self._loop is not None:
            wait = (self._later[0][0] - self._clock.now()).total_seconds()
            self._timer = self._loop.call_later(min(max(wait, 0), _MAX_TIMER_SECONDS), self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._clock.now()
        while self._later and self._later[0][0] <= now:
            at, run_id = heapq.heappop(self._later)
            if self._later_at.get(run_id) == at:  # else an earlier one has taken its place
                del self._later_at[run_id]
                self._enqueue(run_id)
        self._set_timer()


class NoDispatcher:
    """Dispatches nothing: somebody else (another process on the same store, or the tick) makes the calls."""

    async def dispatch(self, task: Advance, at: datetime | None = None) -> None:
        """See the port."""

    async def close(self) -> None:
        """See the port."""
