"""World: what the processes of one environment share: the store, the time, the calls that were asked for, and who is
dead. It knows when something is due next; who acts on it is platform.py's business.
"""

from __future__ import annotations

import heapq
import itertools
from datetime import datetime

from ..clock import fresh_id
from ..dispatcher import Task
from ..schedule_store import Schedule
from ..store import GRACE, STEERING, Run, Status, Store
from .virtual_clock import VirtualClock


class SimulatedCrash(BaseException):
    """The process is dead: nothing after this line of it happens."""


class World:
    """The store, the time, the queue of calls; and the crash that is to come."""

    def __init__(self, store: Store, clock: VirtualClock, *, crash_after: int | None) -> None:
        self.store = store
        self.clock = clock
        self.crash_after = crash_after
        self.writes = 0
        self.crashed = False
        self.dead: set[str] = set()
        self.hops: dict[str, int] = {}
        self.known: set[str] = set()
        """Runs that may be open."""
        self.has_schedules = False
        self.something_lost = False
        """Whether a process died that may have owed somebody a wake-up: then messages may wait unnoticed."""
        self._queue: list[tuple[datetime, int, Task]] = []
        self._numbers = itertools.count()

    # --- processes ----------------------------------------------------------------------------

    def note_write(self, process: str) -> None:
        """That process has written. Raises SimulatedCrash when this was to be its last deed."""
        self.writes += 1
        if self.writes == self.crash_after:
            self.crashed = True
            self.dead.add(process)
            raise SimulatedCrash

    def is_dead(self, owner: str) -> bool:
        """Whether the process of this lease's owner has died."""
        return owner.partition("/")[0] in self.dead

    def message_id(self) -> str:
        """An id for a message, later than those before: it keeps their order while time stands still."""
        return f"{next(self._numbers):09d}-{fresh_id()}"

    # --- calls --------------------------------------------------------------------------------

    def ask_for(self, task: Task, at: datetime) -> None:
        """Have the call made at that moment."""
        if all(other[2] != task or other[0] != at for other in self._queue):
            heapq.heappush(self._queue, (at, next(self._numbers), task))

    def take_due(self) -> list[Task]:
        """The calls that are due now, in the order of their times; they are out of the queue."""
        due = []
        while self._queue and self._queue[0][0] <= self.clock.now():
            due.append(heapq.heappop(self._queue)[2])
        return due

    @property
    def has_due(self) -> bool:
        """Whether a call is due now."""
        return bool(self._queue) and self._queue[0][0] <= self.clock.now()

    def lose_calls(self) -> None:
        """Forget every call that was asked for."""
        self._queue.clear()

    # --- time ---------------------------------------------------------------------------------

    async def next_moment(self) -> datetime | None:
        """When something is due next: a call that was asked for, a run, a schedule, or a message that nobody was told
        of. None: only the test can bring anything about."""
        now = self.clock.now()
        moments = [self._queue[0][0]] if self._queue else []
        waiting = await self._open_runs()
        moments += [run.wake_at for run in waiting if run.wake_at is not None]
        moments += [at for at in await self._times_of_schedules() if at > now]
        if self.something_lost or not moments:  # else everybody who sent a message has had its run called, too
            ends = [at for run in waiting for at in await self._ends_of_grace(run) if at > now]
            self.something_lost = bool(ends)
            moments += ends
        return min(moments, default=None)

    async def _open_runs(self) -> list[Run]:
        found = []
        for run_id in list(self.known):
            run = await self.store.get(run_id)
            if run is not None and run.status.closed:
                self.known.discard(run_id)  # who opens it again makes it known again
            elif run is not None:  # else it is being made in this moment
                found.append(run)
        return found

    async def _times_of_schedules(self) -> list[datetime]:
        if not self.has_schedules:
            return []
        found: list[datetime] = []
        after: str | None = None
        while page := await self.store.schedules.list(after=after):
            found += [one.wake_at for one in page if isinstance(one, Schedule) and one.wake_at is not None]
            after = page[-1].id
        return found

    async def _ends_of_grace(self, run: Run) -> list[datetime]:
        aside = run.status in (Status.PARKED, Status.SUSPENDED)
        inbox = await self.store.inbox(run.run_id)
        return [one.received_at + GRACE for one in inbox if not aside or one.kind in STEERING]
