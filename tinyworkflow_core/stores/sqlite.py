"""SqliteStore: runs in one SQLite file, shared by the processes of one machine, or in memory.

Every verb is one operation in one transaction; who carries it out, and when, is `sqlite_writer.py`'s business. JSON is
made before an operation is queued and read after it, so that it holds up nobody.

The fence: a history row exists or not, and it is made only where the run's record still carries the lease's token.
The row keeps that token, so that a commit which comes again is told apart from somebody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from ..clock import fresh_id
from ..engine.history import Event
from ..errors import LeaseLost, StoreError
from ..store import (
    Commit,
    Delivery,
    DeliveryOutcome,
    Lease,
    Message,
    Page,
    Run,
    RunQuery,
    RunState,
    Taken,
    nobody_is_gone,
)
from .sqlite_commits import (
    MAX_EVENT_BYTES,
    append,
    carry_out,
    document_of,
    insert_run,
    new_run_of,
    prepared,
)
from .sqlite_inbox import SELECT_MESSAGES, inbox_of, put
from .sqlite_reopening import reopen
from .sqlite_rows import (
    count_statement,
    cursor_after,
    find_statement,
    letter_of,
    list_statement,
    message_of,
    microseconds,
    run_of,
)
from .sqlite_schedules import SqliteSchedules
from .sqlite_taking import MOST_READ_AT_ONCE, SELECT_RUN, Read, read, state_of, take, untake
from .sqlite_transactions import Changes
from .sqlite_wakeups import Wakeups
from .sqlite_writer import ConnectionThread, LoopConnection

RunIds = list[str]  # inside the class, `list` is a verb

SELECT_DUE = "SELECT run_id FROM runs WHERE due_at <= ? ORDER BY due_at, run_id LIMIT ?"
SELECT_HOLDERS = "SELECT DISTINCT lease_owner FROM runs WHERE lease_owner IS NOT NULL"
SELECT_HELD = "SELECT run_id FROM runs WHERE lease_owner = ? AND due_at > ? ORDER BY due_at LIMIT ?"
RENEW = "UPDATE runs SET lease_until = ?, wake_at = ?, due_at = ? WHERE run_id = ? AND lease_token = ?"


class SqliteStore:
    """Runs in the SQLite file at `path`, or in memory for ":memory:". Safe between processes of one machine.

    An instance may be used from several event loops, and goes on in a forked process with connections of its own; calls
    that wait while it forks are the parent's alone.
    """

    max_event_bytes = MAX_EVENT_BYTES

    def __init__(self, path: str) -> None:
        in_memory = path == ":memory:"
        self.path = path if in_memory else os.path.abspath(path)
        self._wakeups = Wakeups(shared=not in_memory)
        announce = self._wakeups.announce
        thread = ConnectionThread(self.path, begin="BEGIN IMMEDIATE", announce=announce)
        self._thread = thread
        self._writer = thread if in_memory else LoopConnection(self.path, thread, announce=announce)
        self._reader = thread if in_memory else ConnectionThread(self.path, begin="BEGIN")
        self.schedules = SqliteSchedules(self._writer, self._reader)

    # --- one run -----------------------------------------------------------------------------

    async def create(self, run: Run, events: Sequence[Event]) -> bool:
        new = new_run_of(run, events)

        def write(db: sqlite3.Connection, changed: Changes) -> bool:
            if not insert_run(db, new):
                there = db.execute(f"{SELECT_RUN} WHERE run_id = ?", (run.run_id,)).fetchone()
                return bool(there == new[0][:-1])
            changed[run.run_id] = False
            return True

        return await self._writer.run(write)

    async def get(self, run_id: str) -> Run | None:
        def read(db: sqlite3.Connection, changed: Changes) -> Run | None:
            row = db.execute(f"{SELECT_RUN} WHERE run_id = ?", (run_id,)).fetchone()
            return None if row is None else run_of(row)

        return await self._writer.look(read, is_one_statement=True)

    async def load(self, run_id: str, *, inbox: bool = True) -> RunState | None:
        most = None if self._reader is self._thread else MOST_READ_AT_ONCE  # in memory there is but one thread
        found = await self._writer.look(lambda db, changed: read(db, run_id, most=most, inbox=inbox))
        if found is not None and not found.documents:  # reading it here would hold up the event loop
            found = await self._reader.run(lambda db, changed: read(db, run_id, most=None, inbox=inbox))
        return None if found is None else state_of(found)

    async def inbox(self, run_id: str) -> Sequence[Message]:
        return await self._writer.look(lambda db, changed: inbox_of(db, run_id), is_one_statement=True)

    async def reopen(
        self, run_id: str, *, sequence: int, events: Sequence[Event], retry_count: int, now: datetime
    ) -> bool:
        document, moment = document_of(events), microseconds(now)

        def write(db: sqlite3.Connection, changed: Changes) -> bool:
            opened = reopen(db, run_id, sequence=sequence, document=document, retry_count=retry_count, moment=moment)
            if opened:
                changed[run_id] = False
            return opened

        return await self._writer.run(write)

    async def purge(self, run_id: str) -> None:
        def write(db: sqlite3.Connection, changed: Changes) -> None:
            for table in ("runs", "history", "inbox"):
                db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))

        await self._thread.run(write)  # a long history takes its time

    # --- holding a run -----------------------------------------------------------------------

    async def acquire(
        self,
        run_id: str,
        *,
        owner: str,
        now: datetime,
        ttl: timedelta,
        gone: Callable[[str], bool] = nobody_is_gone,
    ) -> Taken | None:
        wanted = Lease(run_id=run_id, owner=owner, token=fresh_id(32), until=now + ttl, generation=0)
        is_cancelled, process = False, os.getpid()

        def write(db: sqlite3.Connection, changed: Changes) -> tuple[Lease, Read] | None:
            return None if is_cancelled else take(db, wanted, now, gone)

        try:
            taken = await self._writer.run(write)
        except asyncio.CancelledError:
            is_cancelled = True
            if process == os.getpid():  # else this is the copy of a call that is our parent's
                await self._untake(wanted, now)
            raise
        if taken is None:
            return None
        lease, found = taken
        state = None
        if found.documents:
            with contextlib.suppress(Exception):  # whatever is wrong: the lease is taken, and `load` will meet it again
                state = state_of(found)
        return Taken(lease=lease, state=state)

    async def _untake(self, lease: Lease, now: datetime) -> None:
        # The taking may have been carried out, or be under way: in the thread this comes after it.
        undoing = asyncio.ensure_future(self._thread.run(lambda db, changed: untake(db, lease, now, changed)))
        undoing.add_done_callback(lambda done: done.cancelled() or done.exception())  # where nobody waits for it
        with contextlib.suppress(StoreError):
            await asyncio.shield(undoing)

    async def renew(self, lease: Lease, *, now: datetime, ttl: timedelta) -> bool:
        until = microseconds(now + ttl)

        def write(db: sqlite3.Connection, changed: Changes) -> bool:
            if db.execute(RENEW, (until, until, until, lease.run_id, lease.token)).rowcount == 0:
                raise LeaseLost(f"run {lease.run_id} is no longer held by {lease.owner}")
            return db.execute("SELECT 1 FROM inbox WHERE run_id = ? LIMIT 1", (lease.run_id,)).fetchone() is not None

        return await self._writer.run(write)

    async def commit(self, lease: Lease, commit: Commit) -> None:
        if commit.events and commit.release is None and not (commit.consumed or commit.outbox or commit.new_runs):
            document = document_of(commit.events)  # a step: most are
            await self._writer.run(lambda db, changed: append(db, lease, commit.sequence, document))
            return
        ready = prepared(lease, commit)
        await self._writer.run(lambda db, changed: carry_out(db, ready, changed))

    # --- messages and lists ------------------------------------------------------------------

    async def deliver(self, run_id: str, message: Message) -> Delivery:
        letter = letter_of(run_id, message)

        def write(db: sqlite3.Connection, changed: Changes) -> Delivery:
            outcome = put(db, letter)
            if outcome is DeliveryOutcome.ACCEPTED:
                changed[run_id] = False
            if outcome is not DeliveryOutcome.DUPLICATE:
                return Delivery(outcome=outcome)
            there = db.execute(f"{SELECT_MESSAGES} AND message_id = ?", (run_id, message.id)).fetchone()
            return Delivery(outcome=outcome, existing=message_of(there))

        return await self._writer.run(write)

    async def due(self, *, now: datetime, limit: int, gone: Callable[[str], bool] = nobody_is_gone) -> RunIds:
        moment = microseconds(now)

        def read(db: sqlite3.Connection, changed: Changes) -> RunIds:
            found = db.execute(SELECT_DUE, (moment, limit)).fetchall()
            if gone is not nobody_is_gone:
                for (holder,) in db.execute(SELECT_HOLDERS).fetchall():
                    if gone(holder) and len(found) < limit:
                        found += db.execute(SELECT_HELD, (holder, moment, limit - len(found))).fetchall()
            return [run_id for (run_id,) in found]

        return await self._reader.run(read)

    async def list(self, query: RunQuery) -> Page[Run]:
        sql, values = list_statement(query)

        def read(db: sqlite3.Connection, changed: Changes) -> Page[Run]:
            rows = db.execute(sql, values).fetchall()
            runs = [run_of(row) for row in rows[: query.limit]]
            more = bool(runs) and len(rows) > query.limit
            return Page(items=runs, next_cursor=cursor_after(runs[-1]) if more else None)

        return await self._reader.run(read)

    async def count(self, query: RunQuery, *, most: int) -> int:
        sql, values = count_statement(query, most)

        def read(db: sqlite3.Connection, changed: Changes) -> int:
            found: int = db.execute(sql, values).fetchone()[0]
            return found

        return await self._reader.run(read)

    async def find(self, prefix: str, *, by: Literal["run_id", "workflow_id"], limit: int) -> Sequence[Run]:
        sql, values = find_statement(prefix, by, limit)
        return await self._reader.run(lambda db, changed: [run_of(row) for row in db.execute(sql, values)])

    # --- the process -------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[str, bool], None], *, run_id: str | None = None) -> Callable[[], None]:
        """See `Notifies`. Other processes' changes arrive as datagrams on 127.0.0.1; in memory there are none."""
        return self._wakeups.subscribe(callback, self._writer.post, run_id=run_id)

    async def close(self) -> None:
        self._wakeups.close(self._writer.post)
        await self._writer.close()
        if self._reader is not self._writer:
            await self._reader.close()
