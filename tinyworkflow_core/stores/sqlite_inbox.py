"""The inbox of the SQLite store, inside somebody's transaction: messages come in, and make their run due.

Every function here keeps `runs.due_at` right for the messages that it knows of.
"""

from __future__ import annotations

import sqlite3

from ..store import GRACE, STEERING, DeliveryOutcome, Message, Status
from .sqlite_rows import MICROSECOND, Row, message_of

GRACE_MICROSECONDS = GRACE // MICROSECOND
DRIVEN_BY_STEERING_ALONE = frozenset({Status.PARKED, Status.SUSPENDED})

SELECT_MESSAGES = "SELECT run_id, message_id, received_at, kind, body FROM inbox WHERE run_id = ?"
SELECT_INBOX = f"{SELECT_MESSAGES} ORDER BY received_at, message_id"
"""In the order of the port."""
PUT = "INSERT INTO inbox VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
OLDEST = "SELECT MIN(received_at) FROM inbox WHERE run_id = ?"
OLDEST_STEERING = f"{OLDEST} AND kind IN ({', '.join(repr(kind.value) for kind in sorted(STEERING))})"


def put(db: sqlite3.Connection, letter: Row) -> DeliveryOutcome:
    """Put a message into the inbox of an open run, once per id."""
    run_id, _, received_at, kind, _ = letter
    row = db.execute("SELECT status, lease_owner, due_at FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    if row is None:
        return DeliveryOutcome.UNKNOWN
    status, holder, due_at = Status(row[0]), row[1], row[2]
    if status.closed:
        return DeliveryOutcome.CLOSED
    if db.execute(PUT, letter).rowcount == 0:
        return DeliveryOutcome.DUPLICATE
    if holder is None and (status not in DRIVEN_BY_STEERING_ALONE or kind in STEERING):
        db.execute("UPDATE runs SET due_at = ? WHERE run_id = ?", (_earlier(due_at, received_at), run_id))
    return DeliveryOutcome.ACCEPTED


def due_at_of(db: sqlite3.Connection, run_id: str, status: Status, wake_at: int | None) -> int | None:
    """When somebody must look at a run that is let go like this, its messages considered."""
    (oldest,) = db.execute(OLDEST_STEERING if status in DRIVEN_BY_STEERING_ALONE else OLDEST, (run_id,)).fetchone()
    return _earlier(wake_at, oldest)


def inbox_of(db: sqlite3.Connection, run_id: str) -> list[Message]:
    """The messages that wait, in the order of the port."""
    return [message_of(row) for row in db.execute(SELECT_INBOX, (run_id,)).fetchall()]


def _earlier(due_at: int | None, received_at: int | None) -> int | None:
    """due_at, or the end of the grace of a message that was received then, whichever comes first."""
    if received_at is None:
        return due_at
    grace_ends: int = received_at + GRACE_MICROSECONDS
    return grace_ends if due_at is None else min(due_at, grace_ends)
