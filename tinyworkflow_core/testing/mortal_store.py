"""MortalStore: the store as one process sees it. Every write may be the last thing that the process does, and a dead
one reaches nothing any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from ..schedule_store import Schedule, ScheduleStore
from ..store import Commit, Delivery, DeliveryOutcome, Lease, Message, Run, RunState, Store, Taken
from .world import SimulatedCrash, World

T = TypeVar("T")


class MortalStore:
    """The world's store, for one process."""

    def __init__(self, world: World, process: str) -> None:
        self._world = world
        self._process = process
        self.max_event_bytes = world.store.max_event_bytes
        self.schedules: ScheduleStore = _MortalSchedules(self)

    def live(self) -> Store:
        """The store itself. Raises SimulatedCrash for a dead process."""
        if self._process in self._world.dead:
            raise SimulatedCrash
        return self._world.store

    async def written(self, result: Awaitable[T]) -> T:
        """What the write gave, unless the process died of it."""
        value = await result
        self._world.note_write(self._process)
        return value

    def note_schedule(self) -> None:
        """From now on there may be schedules."""
        self._world.has_schedules = True

    # --- the port -----------------------------------------------------------------------------

    async def create(self, run: Run, events: Any) -> bool:
        store = self.live()
        self._world.known.add(run.run_id)
        return await self.written(store.create(run, events))

    async def get(self, run_id: str) -> Run | None:
        return await self.live().get(run_id)

    async def load(self, run_id: str, **options: Any) -> RunState | None:
        return await self.live().load(run_id, **options)

    async def inbox(self, run_id: str) -> Sequence[Message]:
        return await self.live().inbox(run_id)

    async def acquire(self, run_id: str, **options: Any) -> Taken | None:
        taken = await self.live().acquire(run_id, **options)
        if taken is not None:
            self._world.hops[run_id] = self._world.hops.get(run_id, 0) + 1
            self._world.note_write(self._process)
        return taken

    async def renew(self, lease: Lease, **options: Any) -> bool:
        return await self.written(self.live().renew(lease, **options))

    async def commit(self, lease: Lease, commit: Commit) -> None:
        store = self.live()
        self._world.known.update(new.run.run_id for new in commit.new_runs)
        await self.written(store.commit(lease, commit))

    async def reopen(self, run_id: str, **options: Any) -> bool:
        opened = await self.live().reopen(run_id, **options)
        self._world.known.add(run_id)  # only now: while it was closed it might have been struck off again
        self._world.note_write(self._process)
        return opened

    async def deliver(self, run_id: str, message: Message) -> Delivery:
        delivery = await self.live().deliver(run_id, message)
        if delivery.outcome not in (DeliveryOutcome.CLOSED, DeliveryOutcome.UNKNOWN):  # else nothing was written
            self._world.note_write(self._process)
        return delivery

    async def due(self, **options: Any) -> list[str]:
        return await self.live().due(**options)

    async def list(self, query: Any) -> Any:
        return await self.live().list(query)

    async def count(self, query: Any, **options: Any) -> int:
        return await self.live().count(query, **options)

    async def find(self, prefix: str, **options: Any) -> Sequence[Run]:
        return await self.live().find(prefix, **options)

    async def purge(self, run_id: str) -> None:
        await self.written(self.live().purge(run_id))

    async def close(self) -> None:
        """The store outlives the process."""


class _MortalSchedules:
    def __init__(self, owner: MortalStore) -> None:
        self._owner = owner

    async def put(self, schedule: Schedule, *, expected: str | None) -> bool:
        store = self._owner.live()
        self._owner.note_schedule()
        return await self._owner.written(store.schedules.put(schedule, expected=expected))

    async def get(self, schedule_id: str) -> Schedule | None:
        return await self._owner.live().schedules.get(schedule_id)

    async def delete(self, schedule_id: str) -> bool:
        return await self._owner.written(self._owner.live().schedules.delete(schedule_id))

    async def due(self, **options: Any) -> Any:
        return await self._owner.live().schedules.due(**options)

    async def list(self, **options: Any) -> Any:
        return await self._owner.live().schedules.list(**options)
