"""LocalDispatcher: makes calls inside this process, as asyncio tasks in the loop that dispatches.

It is what a laptop, a worker process and local emulation use. Calls for a later moment wait in a heap with one timer;
they are lost with the process, and the tick of any process finds them again.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Set
from datetime import datetime, timedelta

from ..clock import Clock
from ..dispatcher import Advance, FailedCalls, Task
from ..tracebacks import without_words

_log = logging.getLogger("tinyworkflow.dispatch")

MAX_CONCURRENT_CALLS = 200
"""How many runs one process brings forward at a time; the rest wait their turn in order of arrival."""

_MAX_TIMER_SECONDS = 3600.0
_EARLY = timedelta(milliseconds=100)
"""A call for a later moment is made so much earlier: then the run is read and replayed when its time comes, and has
waited inside the call for the rest (its patience, see AdvanceSettings)."""
_LEFT_ALONE = timedelta(seconds=5)
"""So long no tick takes a run whose call has failed, and looks at what is due behind it instead."""
_FAR = timedelta(seconds=1)
"""Not a moment nearer than this: a call without patience would ask for the next one again and again."""


class LocalDispatcher:
    """Calls `handler(task)` for every task, soon or at its time. Equal tasks that wait are one; a request that comes
    during a call reaches the handler as well, since only it can tell whether that call has seen everything."""

    def __init__(
        self, handler: Callable[[Task], Awaitable[object]], *, clock: Clock, max_calls: int = MAX_CONCURRENT_CALLS
    ) -> None:
        self.failed = FailedCalls()
        self._handler = handler
        self._clock = clock
        self._max_calls = max_calls
        self._calls: dict[asyncio.Task[bool], Task] = {}
        self._failed_until: dict[str, datetime] = {}
        self._queue: deque[Task] = deque()
        self._queued: set[Task] = set()
        """Those in the queue, and those whose call has not begun yet."""
        self._later: list[tuple[datetime, int, Task]] = []
        self._later_at: dict[Task, datetime] = {}
        """The earliest of each task's later calls: that call asks for the next one itself."""
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._letting_go = False
        self._was_full = False
        self._has_emptied = False
        self._resting: asyncio.Future[None] | None = None

    @property
    def busy(self) -> int:
        """How many calls are under way or queued."""
        return len(self._calls) + len(self._queue)

    @property
    def room(self) -> int:
        """How many more calls would begin at once."""
        return 0 if self._closed or self._letting_go else max(0, self._max_calls - self.busy)

    def in_hand(self) -> Set[str]:
        """The runs whose Advance is under way, waits its turn, or has just failed: it would fail again."""
        now = self._clock.now()
        for run_id in [one for one, until in self._failed_until.items() if until <= now]:
            del self._failed_until[run_id]
        here = (task.run_id for task in (*self._queue, *self._calls.values()) if isinstance(task, Advance))
        return {*here, *self._failed_until}

    async def rest(self, seconds: float) -> None:
        """For so long; or until half of the calls that filled it have ended, so that there is room for others."""
        if not self._has_emptied:
            self._resting = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._resting], timeout=seconds)
            self._resting = None
        self._has_emptied = False

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """See the port."""
        if self._closed or self._letting_go:
            return
        self._loop = asyncio.get_running_loop()
        now = self._clock.now()
        if at is not None and at > now:
            at -= _EARLY if at - now >= _FAR else timedelta()
            known = self._later_at.get(task)
            if known is None or at < known:
                self._later_at[task] = at
                heapq.heappush(self._later, (at, next(self._numbers), task))
                if len(self._later) > 2 * len(self._later_at) + 64:  # most have been replaced by earlier ones
                    self._later = [(when, next(self._numbers), one) for one, when in self._later_at.items()]
                    heapq.heapify(self._later)
                self._set_timer()
        else:
            self._enqueue(task)

    def wake(self, run_id: str, has_ended: bool = False) -> None:
        """Like dispatch of an Advance, for callbacks in the dispatcher's own loop. A run that has ended needs none."""
        if has_ended:
            return
        if not (self._closed or self._letting_go):
            self._loop = asyncio.get_running_loop()
            self._enqueue(Advance(run_id=run_id))

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

    def _enqueue(self, task: Task) -> None:
        if task in self._queued:
            return
        self._queued.add(task)
        self._queue.append(task)
        self._pump()

    def _pump(self) -> None:
        while self._queue and len(self._calls) < self._max_calls and not self._closed:
            task = self._queue.popleft()
            assert self._loop is not None
            call = self._loop.create_task(self._call(task))
            self._calls[call] = task
            call.add_done_callback(self._ended)
        self._was_full = self._was_full or len(self._calls) >= self._max_calls

    def _ended(self, call: asyncio.Task[bool]) -> None:
        task = self._calls.pop(call)
        went_well = not call.cancelled() and call.exception() is None and call.result()
        if call.cancelled() and all(one != task for one in self._queue):
            self._queued.discard(task)  # it may never have begun
        self._pump()
        if went_well and self._was_full and 2 * self.busy <= self._max_calls:
            self._was_full, self._has_emptied = False, True
            if self._resting is not None and not self._resting.done():
                self._resting.set_result(None)

    async def _call(self, task: Task) -> bool:
        """Whether it went well."""
        self._queued.discard(task)  # not before it begins: until then it will see whatever it is asked for
        try:
            await self._handler(task)
            return True
        except Exception as error:  # the run is in the store, and the tick brings it back
            now = self._clock.now()
            self.failed.add(type(error).__name__, now)
            if isinstance(task, Advance):
                self._failed_until[task.run_id] = now + _LEFT_ALONE
            _log.error(
                "a call for run %s failed", task.run_id, exc_info=without_words(error), extra={"run_id": task.run_id}
            )
            return False

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
            at, _, task = heapq.heappop(self._later)
            if self._later_at.get(task) == at:  # else an earlier one has taken its place
                del self._later_at[task]
                self._enqueue(task)
        self._set_timer()


class NoDispatcher:
    """Dispatches nothing: somebody else (another process on the same store, or the tick) makes the calls."""

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """See the port."""

    async def close(self) -> None:
        """See the port."""
