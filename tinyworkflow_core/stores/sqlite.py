"""SqliteStore: runs in one SQLite file, shared by the processes of one machine, or in memory.

Every verb is one operation in one transaction of the writer's (or reader's) thread; see `sqlite_writer.py`. JSON is
made before an operation is queued, so that the writer only writes.

The fence: a history row exists or not, and it is made only where the run's record still carries the lease's token.
The row keeps that token, so that a commit which comes again is told apart from somebody else's.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ..clock import fresh_id
from ..engine.history import Event, LeaseTaken, event_to_dict, history_from_json
from ..errors import LeaseLost, PayloadTooLargeError
from ..store import (
    GRACE,
    Commit,
    Delivery,
    DeliveryOutcome,
    Lease,
    Message,
    Page,
    Release,
    Run,
    RunQuery,
    RunState,
    Status,
    nobody_is_gone,
)
from .sqlite_rows import (
    COLUMNS,
    MICROSECOND,
    Row,
    cursor_after,
    letter_of,
    list_statement,
    message_of,
    microseconds,
    notes_of,
    row_of,
    run_of,
    to_json,
)
from .sqlite_wakeups import Wakeups
from .sqlite_writer import ConnectionThread

RunIds = list[str]  # inside the class, `list` is a verb

GRACE_MICROSECONDS = GRACE // MICROSECOND
NOT_DRIVEN_BY_MESSAGES = frozenset({Status.PARKED, Status.SUSPENDED})

_MARKS = ", ".join("?" * (COLUMNS.count(",") + 1))
SELECT_RUN = f"SELECT {COLUMNS} FROM runs"
INSERT_RUN = f"INSERT INTO runs ({COLUMNS}, due_at) VALUES ({_MARKS}, ?) ON CONFLICT DO NOTHING"
INSERT_HISTORY = "INSERT INTO history VALUES (?, ?, ?, ?, ?)"
APPEND = (
    "INSERT INTO history SELECT ?, ?, ?, ?, ? FROM runs WHERE run_id = ? AND lease_token = ? ON CONFLICT DO NOTHING"
)
SELECT_DUE = "SELECT run_id FROM runs WHERE due_at <= ? ORDER BY due_at, run_id LIMIT ?"
SELECT_HOLDERS = "SELECT DISTINCT lease_owner FROM runs WHERE lease_owner IS NOT NULL"
SELECT_HELD = "SELECT run_id FROM runs WHERE lease_owner = ? AND due_at > ? ORDER BY due_at LIMIT ?"
LAST_SEQUENCE = "SELECT MAX(sequence) FROM history WHERE run_id = ? AND generation = ?"
TAKE = (
    "UPDATE runs SET status = 'running', started_at = COALESCE(started_at, ?), wake_at = ?, due_at = ?, sequence = ?, "
    "lease_owner = ?, lease_until = ?, lease_token = ? WHERE run_id = ?"
)
RENEW = "UPDATE runs SET lease_until = ?, wake_at = ?, due_at = ? WHERE run_id = ? AND lease_token = ?"
CHANGE = (
    "UPDATE runs SET status = ?, closed_at = ?, sequence = ?, retry_count = ?, open_approvals = ?, notes = ?, "
    "output = ? WHERE run_id = ?"
)
LET_GO = (
    "UPDATE runs SET wake_at = ?, due_at = ?, lease_owner = NULL, lease_until = NULL, lease_token = NULL, "
    "released_by = ? WHERE run_id = ?"
)
SELECT_MESSAGES = "SELECT run_id, message_id, received_at, kind, body FROM inbox WHERE run_id = ?"
PUT = "INSERT INTO inbox VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


class SqliteStore:
    """Runs in the SQLite file at `path`, or in memory for ":memory:". Safe between processes of one machine.

    An instance may be used from several event loops, and goes on in a forked process with connections of its own.
    """

    max_event_bytes = 4 * 1024 * 1024

    def __init__(self, path: str) -> None:
        in_memory = path == ":memory:"
        self.path = path if in_memory else os.path.abspath(path)
        self._wakeups = Wakeups(shared=not in_memory)
        self._writer = ConnectionThread(self.path, begin="BEGIN IMMEDIATE", announce=self._wakeups.announce)
        self._reader = self._writer if in_memory else ConnectionThread(self.path, begin="BEGIN")

    # --- one run -----------------------------------------------------------------------------

    async def create(self, run: Run, events: Sequence[Event]) -> bool:
        document = self._document(events)
        row = (*row_of(run), None if run.status.closed else microseconds(run.wake_at))

        def write(db: sqlite3.Connection, changed: list[str]) -> bool:
            if db.execute(INSERT_RUN, row).rowcount == 0:
                there = db.execute(f"{SELECT_RUN} WHERE run_id = ?", (run.run_id,)).fetchone()
                return bool(there == row[:-1])
            db.execute(INSERT_HISTORY, (run.run_id, run.generation, 0, "", document))
            changed.append(run.run_id)
            return True

        return await self._writer.run(write)

    async def get(self, run_id: str) -> Run | None:
        def read(db: sqlite3.Connection, changed: list[str]) -> Run | None:
            row = db.execute(f"{SELECT_RUN} WHERE run_id = ?", (run_id,)).fetchone()
            return None if row is None else run_of(row)

        return await self._reader.run(read)

    async def load(self, run_id: str) -> RunState | None:
        def read(db: sqlite3.Connection, changed: list[str]) -> RunState | None:
            row = db.execute(f"{SELECT_RUN} WHERE run_id = ?", (run_id,)).fetchone()
            if row is None:
                return None
            run = run_of(row)
            documents = db.execute(
                "SELECT sequence, events FROM history WHERE run_id = ? AND generation = ? ORDER BY sequence",
                (run_id, run.generation),
            ).fetchall()
            history = [event for _, document in documents for event in history_from_json(json.loads(document))]
            return RunState(run=run, history=history, sequence=documents[-1][0], inbox=_inbox_of(db, run_id))

        return await self._reader.run(read)

    async def inbox(self, run_id: str) -> Sequence[Message]:
        return await self._reader.run(lambda db, changed: _inbox_of(db, run_id))

    async def purge(self, run_id: str) -> None:
        def write(db: sqlite3.Connection, changed: list[str]) -> None:
            for table in ("runs", "history", "inbox"):
                db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))

        await self._writer.run(write)

    # --- holding a run -----------------------------------------------------------------------

    async def acquire(
        self,
        run_id: str,
        *,
        owner: str,
        now: datetime,
        ttl: timedelta,
        gone: Callable[[str], bool] = nobody_is_gone,
    ) -> Lease | None:
        token, moment, until = fresh_id(32), microseconds(now), microseconds(now + ttl)

        def write(db: sqlite3.Connection, changed: list[str]) -> Lease | None:
            row = db.execute(
                "SELECT status, lease_owner, lease_until, generation, sequence FROM runs WHERE run_id = ?", (run_id,)
            ).fetchone()
            if row is None or Status(row[0]).closed:
                return None
            _, holder, held_until, generation, sequence = row
            if holder is not None:
                if held_until > moment and not gone(holder):
                    return None
                sequence = db.execute(LAST_SEQUENCE, (run_id, generation)).fetchone()[0] + 1
                taken = to_json([event_to_dict(LeaseTaken(at=now, owner=owner, previous_owner=holder))])
                db.execute(INSERT_HISTORY, (run_id, generation, sequence, token, taken))
            db.execute(TAKE, (moment, until, until, sequence, owner, until, token, run_id))
            return Lease(run_id=run_id, owner=owner, token=token, until=now + ttl, generation=generation)

        return await self._writer.run(write)

    async def renew(self, lease: Lease, *, now: datetime, ttl: timedelta) -> bool:
        until = microseconds(now + ttl)

        def write(db: sqlite3.Connection, changed: list[str]) -> bool:
            if db.execute(RENEW, (until, until, until, lease.run_id, lease.token)).rowcount == 0:
                raise LeaseLost(f"run {lease.run_id} is no longer held by {lease.owner}")
            return db.execute("SELECT 1 FROM inbox WHERE run_id = ? LIMIT 1", (lease.run_id,)).fetchone() is not None

        return await self._writer.run(write)

    async def commit(self, lease: Lease, commit: Commit) -> None:
        document = self._document(commit.events) if commit.events else None
        consumed = [(lease.run_id, message_id) for message_id in commit.consumed]
        outbox = [letter_of(target, message) for target, message in commit.outbox]
        release = None if commit.release is None else (commit.release, *notes_of(commit.release))

        def write(db: sqlite3.Connection, changed: list[str]) -> None:
            if document is not None:
                if not _append(db, lease, commit.sequence, document):
                    return  # this very commit is there already, and with it everything below
            elif not _holds(db, lease):
                if release is not None and _released_by(db, lease):
                    return
                raise LeaseLost(f"run {lease.run_id} is no longer held by {lease.owner}")
            if consumed:
                db.executemany("DELETE FROM inbox WHERE run_id = ? AND message_id = ?", consumed)
            # Only an end: whoever wakes for a run that merely waits would take it, let it go, and be woken by that.
            if release is not None and _change(db, lease, *release) and release[0].status.closed:
                changed.append(lease.run_id)
            for letter in outbox:
                if _put(db, letter) is DeliveryOutcome.ACCEPTED:
                    changed.append(letter[0])

        await self._writer.run(write)

    # --- messages and lists ------------------------------------------------------------------

    async def deliver(self, run_id: str, message: Message) -> Delivery:
        letter = letter_of(run_id, message)

        def write(db: sqlite3.Connection, changed: list[str]) -> Delivery:
            outcome = _put(db, letter)
            if outcome is DeliveryOutcome.ACCEPTED:
                changed.append(run_id)
            if outcome is not DeliveryOutcome.DUPLICATE:
                return Delivery(outcome=outcome)
            there = db.execute(f"{SELECT_MESSAGES} AND message_id = ?", (run_id, message.id)).fetchone()
            return Delivery(outcome=outcome, existing=message_of(there))

        return await self._writer.run(write)

    async def due(self, *, now: datetime, limit: int, gone: Callable[[str], bool] = nobody_is_gone) -> RunIds:
        moment = microseconds(now)

        def read(db: sqlite3.Connection, changed: list[str]) -> RunIds:
            found = db.execute(SELECT_DUE, (moment, limit)).fetchall()
            if gone is not nobody_is_gone:
                for (holder,) in db.execute(SELECT_HOLDERS).fetchall():
                    if gone(holder) and len(found) < limit:
                        found += db.execute(SELECT_HELD, (holder, moment, limit - len(found))).fetchall()
            return [run_id for (run_id,) in found]

        return await self._reader.run(read)

    async def list(self, query: RunQuery) -> Page[Run]:
        sql, values = list_statement(query)

        def read(db: sqlite3.Connection, changed: RunIds) -> Page[Run]:
            rows = db.execute(sql, values).fetchall()
            runs = [run_of(row) for row in rows[: query.limit]]
            more = bool(runs) and len(rows) > query.limit
            return Page(items=runs, next_cursor=cursor_after(runs[-1]) if more else None)

        return await self._reader.run(read)

    # --- the process -------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """See `Notifies`. Other processes' changes arrive as datagrams on 127.0.0.1; in memory there are none."""
        return self._wakeups.subscribe(callback, self._writer.post)

    async def close(self) -> None:
        self._wakeups.close(self._writer.post)
        await self._writer.close()
        if self._reader is not self._writer:
            await self._reader.close()

    def _document(self, events: Sequence[Event]) -> str:
        document = to_json([event_to_dict(event) for event in events])
        size = len(document) if document.isascii() else len(document.encode())
        if size > self.max_event_bytes:
            raise PayloadTooLargeError(
                f"the events of one commit take {size} bytes, over the limit of {self.max_event_bytes}; "
                "store large values elsewhere and pass references"
            )
        return document


# --- parts of an operation ---------------------------------------------------------------------------


def _append(db: sqlite3.Connection, lease: Lease, sequence: int, document: str) -> bool:
    """Make the history document. False: it is there already, made by this very commit."""
    where = (lease.run_id, lease.generation, sequence)
    if db.execute(APPEND, (*where, lease.token, document, lease.run_id, lease.token)).rowcount == 1:
        return True
    there = db.execute(
        "SELECT token, events FROM history WHERE run_id = ? AND generation = ? AND sequence = ?", where
    ).fetchone()
    if there == (lease.token, document):
        return False
    raise LeaseLost(f"run {lease.run_id} is no longer held by {lease.owner}, or has document {sequence} already")


def _holds(db: sqlite3.Connection, lease: Lease) -> bool:
    row = db.execute("SELECT lease_token FROM runs WHERE run_id = ?", (lease.run_id,)).fetchone()
    return bool(row == (lease.token,))


def _released_by(db: sqlite3.Connection, lease: Lease) -> bool:
    row = db.execute("SELECT released_by FROM runs WHERE run_id = ?", (lease.run_id,)).fetchone()
    return bool(row == (lease.token,))


def _change(db: sqlite3.Connection, lease: Lease, release: Release, approvals: str | None, notes: str) -> bool:
    """Change the record. True: and let the run go."""
    status, run_id = release.status, lease.run_id
    (sequence,) = db.execute(LAST_SEQUENCE, (run_id, lease.generation)).fetchone()
    db.execute(
        CHANGE,
        (
            status.value, microseconds(release.closed_at), sequence, release.retry_count, approvals, notes,
            release.output, run_id,
        ),
    )  # fmt: skip
    if release.keep_lease and not status.closed:
        return False
    wake_at = due_at = None if status.closed else microseconds(release.wake_at)
    if status.closed:
        db.execute("DELETE FROM inbox WHERE run_id = ?", (run_id,))
    elif status not in NOT_DRIVEN_BY_MESSAGES:
        (oldest,) = db.execute("SELECT MIN(received_at) FROM inbox WHERE run_id = ?", (run_id,)).fetchone()
        due_at = _earlier(due_at, oldest)
    db.execute(LET_GO, (wake_at, due_at, lease.token, run_id))
    return True


def _earlier(due_at: int | None, received_at: int | None) -> int | None:
    """due_at, or the end of the grace of a message that was received then, whichever comes first."""
    if received_at is None:
        return due_at
    grace_ends = received_at + GRACE_MICROSECONDS
    return grace_ends if due_at is None else min(due_at, grace_ends)


def _put(db: sqlite3.Connection, letter: Row) -> DeliveryOutcome:
    run_id, _, received_at, _, _ = letter
    row = db.execute("SELECT status, lease_owner, due_at FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    if row is None:
        return DeliveryOutcome.UNKNOWN
    status, holder, due_at = Status(row[0]), row[1], row[2]
    if status.closed:
        return DeliveryOutcome.CLOSED
    if db.execute(PUT, letter).rowcount == 0:
        return DeliveryOutcome.DUPLICATE
    if holder is None and status not in NOT_DRIVEN_BY_MESSAGES:
        db.execute("UPDATE runs SET due_at = ? WHERE run_id = ?", (_earlier(due_at, received_at), run_id))
    return DeliveryOutcome.ACCEPTED


def _inbox_of(db: sqlite3.Connection, run_id: str) -> list[Message]:
    rows = db.execute(f"{SELECT_MESSAGES} ORDER BY received_at, message_id", (run_id,)).fetchall()
    return [message_of(row) for row in rows]
