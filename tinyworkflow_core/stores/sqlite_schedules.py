"""SqliteSchedules: schedules in a table of their own, in the file (and the threads) of a SqliteStore.

The record is JSON; what is asked for by value has a column. The table is made on first use, so a file of an older
release gets it too.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from ..errors import ScheduleDamagedError
from ..schedule_store import DamagedSchedule, Schedule
from ..serialization import json_text
from .sqlite_rows import microseconds
from .sqlite_transactions import Changes
from .sqlite_writer import ConnectionThread, LoopConnection

TABLE = (
    """CREATE TABLE IF NOT EXISTS schedules (
        id TEXT NOT NULL PRIMARY KEY,
        due_at INTEGER,
        etag TEXT NOT NULL,
        record TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS schedules_due ON schedules (due_at, id) WHERE due_at IS NOT NULL",
)
INSERT = "INSERT INTO schedules VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
REPLACE = "UPDATE schedules SET due_at = ?, etag = ?, record = ? WHERE id = ? AND etag = ?"
SELECT_DUE = "SELECT id, record FROM schedules WHERE due_at <= ? ORDER BY due_at, id LIMIT ?"
SELECT_PAGE = "SELECT id, record FROM schedules WHERE id > ? ORDER BY id LIMIT ?"

Schedules = Sequence[Schedule | DamagedSchedule]  # inside the class, `list` is a verb


class SqliteSchedules:
    """See `ScheduleStore`. It owns neither of its threads."""

    def __init__(self, writer: ConnectionThread | LoopConnection, reader: ConnectionThread) -> None:
        self._writer = writer
        self._reader = reader
        self._has_table = False

    async def put(self, schedule: Schedule, *, expected: str | None) -> bool:
        await self._have_table()
        record, due_at = json_text(schedule.to_dict()), microseconds(schedule.wake_at)

        def write(db: sqlite3.Connection, changed: Changes) -> bool:
            if expected is None:
                done = db.execute(INSERT, (schedule.id, due_at, schedule.etag, record))
            else:
                done = db.execute(REPLACE, (due_at, schedule.etag, record, schedule.id, expected))
            if done.rowcount == 1:
                return True
            there = db.execute("SELECT etag FROM schedules WHERE id = ?", (schedule.id,)).fetchone()
            return bool(there == (schedule.etag,))

        return await self._writer.run(write)

    async def get(self, schedule_id: str) -> Schedule | None:
        await self._have_table()

        def read(db: sqlite3.Connection, changed: Changes) -> Schedule | None:
            row = db.execute("SELECT id, record FROM schedules WHERE id = ?", (schedule_id,)).fetchone()
            found = None if row is None else _schedule_of(*row)
            if isinstance(found, DamagedSchedule):
                raise ScheduleDamagedError(found.problem)
            return found

        return await self._reader.run(read)

    async def delete(self, schedule_id: str) -> bool:
        await self._have_table()

        def write(db: sqlite3.Connection, changed: Changes) -> bool:
            return db.execute("DELETE FROM schedules WHERE id = ?", (schedule_id,)).rowcount == 1

        return await self._writer.run(write)

    async def due(self, *, now: datetime, limit: int) -> Schedules:
        return await self._select(SELECT_DUE, (microseconds(now), limit))

    async def list(self, *, limit: int = 100, after: str | None = None) -> Schedules:
        return await self._select(SELECT_PAGE, (after or "", limit))

    async def _select(self, sql: str, values: tuple[object, ...]) -> Schedules:
        await self._have_table()

        def read(db: sqlite3.Connection, changed: Changes) -> Schedules:
            return [_schedule_of(*row) for row in db.execute(sql, values).fetchall()]

        return await self._reader.run(read)

    async def _have_table(self) -> None:
        if not self._has_table:
            await self._writer.run(_make_table)
            self._has_table = True


def _make_table(db: sqlite3.Connection, changed: Changes) -> None:
    for statement in TABLE:
        db.execute(statement)


def _schedule_of(schedule_id: str, record: str) -> Schedule | DamagedSchedule:
    try:
        return Schedule.from_dict(json.loads(record))
    except ValueError as error:
        return DamagedSchedule(id=schedule_id, problem=f"the stored schedule cannot be read: {error}")
