"""FirestoreSchedules: schedules in a collection of their own, `{prefix}_schedules`, by compare-and-swap.

The record is JSON text; what a query filters or orders by is a field of its own. Both indexes, on `due_at` and on `id`,
are made by themselves; exempt `record` from indexing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..errors import ScheduleDamagedError, StoreUnavailableError
from ..schedule_store import DamagedSchedule, Schedule
from ..serialization import json_text
from .firestore_connection import Conflict, Connection, Create, Delete, Update, Write, google, pause
from .firestore_documents import document_id

TRIES = 12
"""How often `put` looks again after losing to another writer that left the expected state."""

Schedules = Sequence[Schedule | DamagedSchedule]  # inside the class, `list` is a verb


class FirestoreSchedules:
    """See `ScheduleStore`. It does not own its connection."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._name = f"{prefix}_schedules"

    async def put(self, schedule: Schedule, *, expected: str | None) -> bool:
        reference = self._reference(schedule.id)
        data = {
            "id": schedule.id,
            "due_at": schedule.wake_at,
            "etag": schedule.etag,
            "record": json_text(schedule.to_dict()),
        }
        for attempt in range(TRIES):
            write: Write = Create(reference, data)
            if expected is not None or attempt:
                [found] = await self._connection.get([reference], ["etag"])
                etag = found.get("etag") if found.exists else None
                if etag == schedule.etag:  # an earlier try of ours, whose reply was lost
                    return True
                if etag != expected:
                    return False
                if found.exists:
                    write = Update(reference, data, found.update_time)
            try:
                await self._connection.commit([write])
            except Conflict:
                await pause(attempt)
                continue
            return True
        raise StoreUnavailableError(f"schedule {schedule.id}: other writers were faster {TRIES} times; try again")

    async def get(self, schedule_id: str) -> Schedule | None:
        [found] = await self._connection.get([self._reference(schedule_id)])
        schedule = _schedule_of(found.to_dict()) if found.exists else None
        if isinstance(schedule, DamagedSchedule):
            raise ScheduleDamagedError(schedule.problem)
        return schedule

    async def delete(self, schedule_id: str) -> bool:
        reference = self._reference(schedule_id)
        [found] = await self._connection.get([reference], ["id"])
        if found.exists:
            await self._connection.commit([Delete(reference)])
        return bool(found.exists)

    async def due(self, *, now: datetime, limit: int) -> Schedules:
        overdue = google().firestore.FieldFilter("due_at", "<=", now)
        return await self._select(self._all().where(filter=overdue).order_by("due_at").order_by("__name__"), limit)

    async def list(self, *, limit: int = 100, after: str | None = None) -> Schedules:
        query = self._all().order_by("id")
        return await self._select(query if after is None else query.start_after({"id": after}), limit)

    async def _select(self, query: Any, limit: int) -> Schedules:
        return [_schedule_of(one.to_dict()) for one in await self._connection.query(query.limit(limit))]

    def _all(self) -> Any:
        return self._connection.client().collection(self._name)

    def _reference(self, schedule_id: str) -> Any:
        return self._all().document(document_id(schedule_id))


def _schedule_of(data: dict[str, Any]) -> Schedule | DamagedSchedule:
    try:
        return Schedule.from_dict(json.loads(data["record"]))
    except ValueError as error:
        return DamagedSchedule(id=data["id"], problem=f"the stored schedule cannot be read: {error}")
