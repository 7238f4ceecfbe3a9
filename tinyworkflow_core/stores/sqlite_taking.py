"""Taking a run of the SQLite store, and reading one whole, inside somebody's transaction.

What was read is turned into records by `state_of`, when the transaction is over.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

from ..engine.history import LeaseTaken, history_from_json
from ..serialization import json_text
from ..store import Lease, RunState, Status
from .sqlite_commits import INSERT_HISTORY, LAST_SEQUENCE, document_of
from .sqlite_inbox import SELECT_INBOX
from .sqlite_rows import COLUMN, COLUMNS, Row, message_of, microseconds, run_of, status_of, with_columns
from .sqlite_transactions import Changes

SELECT_RUN = f"SELECT {COLUMNS} FROM runs"
SELECT_HISTORY = "SELECT sequence, events FROM history WHERE run_id = ? AND generation = ? ORDER BY sequence"
TAKE = (
    "UPDATE runs SET status = 'running', started_at = ?, wake_at = ?, due_at = ?, sequence = ?, "
    "lease_owner = ?, lease_until = ?, lease_token = ? WHERE run_id = ?"
)
UNTAKE = (
    "UPDATE runs SET status = 'pending', wake_at = ?, due_at = ?, notes = ?, lease_owner = NULL, lease_until = NULL, "
    "lease_token = NULL WHERE run_id = ?"
)

MOST_READ_AT_ONCE = 100_000
"""Characters of history that are read in the event loop's own thread: a few milliseconds."""

_held = itemgetter(
    *(COLUMN[name] for name in ("status", "lease_owner", "lease_until", "generation", "sequence", "started_at"))
)


class Read(NamedTuple):
    """A run as it was read."""

    run: Row
    documents: Sequence[tuple[int, str]]
    """Sequence and events of each history document. Empty: together they are too long to be read here."""
    messages: Sequence[Row]


def read(db: sqlite3.Connection, run_id: str, *, most: int | None, inbox: bool) -> Read | None:
    """The run with at most so many characters of history. None: unknown run."""
    row = db.execute(f"{SELECT_RUN} WHERE run_id = ?", (run_id,)).fetchone()
    return None if row is None else _whole(db, row, most, inbox)


def take(db: sqlite3.Connection, lease: Lease, now: datetime, gone: Callable[[str], bool]) -> tuple[Lease, Read] | None:
    """Take the run as the lease says, but for its generation. None: it is unknown or closed, or somebody has it."""
    run_id, moment, until = lease.run_id, microseconds(now), microseconds(lease.until)
    row = db.execute(f"{SELECT_RUN} WHERE run_id = ?", (run_id,)).fetchone()
    if row is None:
        return None
    status, holder, held_until, generation, sequence, started_at = _held(row)
    if status_of(status).closed or (holder is not None and held_until > moment and not gone(holder)):
        return None
    if holder is not None:
        sequence = db.execute(LAST_SEQUENCE, (run_id, generation)).fetchone()[0] + 1
        fence = document_of([LeaseTaken(at=now, owner=lease.owner, previous_owner=holder)])
        db.execute(INSERT_HISTORY, (run_id, generation, sequence, lease.token, fence))
    started_at = moment if started_at is None else started_at
    db.execute(TAKE, (started_at, until, until, sequence, lease.owner, until, lease.token, run_id))
    row = with_columns(
        row,
        status=Status.RUNNING.value,
        started_at=started_at,
        wake_at=until,
        sequence=sequence,
        lease_owner=lease.owner,
        lease_until=until,
    )
    taken = Lease(run_id=run_id, owner=lease.owner, token=lease.token, until=lease.until, generation=generation)
    return taken, _whole(db, row, MOST_READ_AT_ONCE, inbox=True)


def untake(db: sqlite3.Connection, lease: Lease, now: datetime, changed: Changes) -> None:
    """Hand back what was taken by this lease, if it was. A run that was parked is tried anew, and has no problem."""
    held = (lease.run_id, lease.token)
    row = db.execute("SELECT notes FROM runs WHERE run_id = ? AND lease_token = ?", held).fetchone()
    if row is not None:
        moment, notes = microseconds(now), json_text(json.loads(row[0]) | {"problem": None})
        db.execute(UNTAKE, (moment, moment, notes, lease.run_id))
        changed[lease.run_id] = False


def state_of(found: Read) -> RunState:
    """What was read as records. Raises SerializationError for a history that this release cannot read."""
    # Parsed in one go: thousands of small documents would take twice as long one by one.
    commits = json.loads(f"[{','.join(document for _, document in found.documents)}]")
    return RunState(
        run=run_of(found.run),
        history=history_from_json(event for commit in commits for event in commit),
        sequence=found.documents[-1][0],
        inbox=[message_of(row) for row in found.messages],
    )


def _whole(db: sqlite3.Connection, row: Row, most: int | None, inbox: bool) -> Read:
    run_id, documents, length = row[COLUMN["run_id"]], [], 0
    for document in db.execute(SELECT_HISTORY, (run_id, row[COLUMN["generation"]])):
        documents.append(document)
        length += len(document[1])
        if most is not None and length > most:
            return Read(row, (), ())
    return Read(row, documents, db.execute(SELECT_INBOX, (run_id,)).fetchall() if inbox else ())
