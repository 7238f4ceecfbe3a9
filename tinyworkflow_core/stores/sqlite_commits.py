"""What a commit does to the SQLite store, inside somebody's transaction; and new runs, which commits make too.

A commit is turned into rows first (`prepared`), so that the writer only writes. Whatever raises in `carry_out` undoes
all of it: the writer sees to that.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

from ..engine.event_text import history_text
from ..engine.history import Event
from ..errors import LeaseLost, PayloadTooLargeError, RunExistsError
from ..records import dataclass
from ..store import Commit, DeliveryOutcome, Lease, Release, Run
from .sqlite_inbox import due_at_of, put
from .sqlite_rows import COLUMNS, Row, letter_of, microseconds, notes_of, row_of
from .sqlite_transactions import Changes

MAX_EVENT_BYTES = 4 * 1024 * 1024

_MARKS = ", ".join("?" * (COLUMNS.count(",") + 1))
INSERT_RUN = f"INSERT INTO runs ({COLUMNS}, due_at) VALUES ({_MARKS}, ?) ON CONFLICT DO NOTHING"
INSERT_HISTORY = "INSERT INTO history VALUES (?, ?, ?, ?, ?)"
APPEND = (
    "INSERT INTO history SELECT ?, ?, ?, ?, ? FROM runs WHERE run_id = ? AND lease_token = ? ON CONFLICT DO NOTHING"
)
DOCUMENT = "SELECT token, events FROM history WHERE run_id = ? AND generation = ? AND sequence = ?"
LAST_SEQUENCE = "SELECT MAX(sequence) FROM history WHERE run_id = ? AND generation = ?"
_CHANGES = "status = ?, closed_at = ?, sequence = ?, retry_count = ?, open_approvals = ?, notes = ?, output = ?"
CHANGE = f"UPDATE runs SET {_CHANGES} WHERE run_id = ?"
LET_GO = (
    f"UPDATE runs SET {_CHANGES}, wake_at = ?, due_at = ?, lease_owner = NULL, lease_until = NULL, lease_token = NULL, "
    "released_by = ? WHERE run_id = ?"
)


# --- new runs ------------------------------------------------------------------------------------------


def document_of(events: Sequence[Event]) -> str:
    """The events of one history document. Raises PayloadTooLargeError over MAX_EVENT_BYTES."""
    document = history_text(events)
    size = len(document) if document.isascii() else len(document.encode())
    if size > MAX_EVENT_BYTES:
        raise PayloadTooLargeError(
            f"the events of one commit take {size} bytes, over the limit of {MAX_EVENT_BYTES}; "
            "store large values elsewhere and pass references"
        )
    return document


def new_run_of(run: Run, events: Sequence[Event]) -> tuple[Row, Row]:
    """A run and its opening events as the rows that `insert_run` takes."""
    due_at = None if run.status.closed else microseconds(run.wake_at)
    return (*row_of(run), due_at), (run.run_id, run.generation, 0, "", document_of(events))


def insert_run(db: sqlite3.Connection, new: tuple[Row, Row]) -> bool:
    """Make a run. False: its id exists already, and nothing was written."""
    run, opening = new
    if db.execute(INSERT_RUN, run).rowcount == 0:
        return False
    db.execute(INSERT_HISTORY, opening)
    return True


# --- commits -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRelease:
    """A release as the columns that it fills."""

    release: Release
    approvals: str | None
    notes: str
    next_opening: str | None
    """History document 0 of the next generation; None: there is no next generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedCommit:
    """A commit as rows."""

    lease: Lease
    key: str
    """Names this commit by this taking of the lease: an equal commit has the same key, any other has another. Only
    commits that change the record have one."""
    sequence: int
    document: str | None
    consumed: Sequence[Row]
    release: PreparedRelease | None
    new_runs: Sequence[tuple[Row, Row]]
    outbox: Sequence[Row]


def prepared(lease: Lease, commit: Commit) -> PreparedCommit:
    """The commit as rows. Raises PayloadTooLargeError."""
    document = document_of(commit.events) if commit.events else None
    consumed = [(lease.run_id, message_id) for message_id in commit.consumed]
    release = None if commit.release is None else _prepared_release(commit.release)
    new_runs = [new_run_of(new.run, new.events) for new in commit.new_runs]
    outbox = [letter_of(target, message) for target, message in commit.outbox]
    key = ""
    if commit.release is not None and release is not None:
        given = commit.release
        parts = (
            None if document is None else commit.sequence, document, consumed, given.status, given.wake_at,
            given.output, given.closed_at, given.retry_count, given.keep_lease, release.approvals, release.notes,
            release.next_opening, new_runs, outbox,
        )  # fmt: skip
        key = f"{lease.token}:{hashlib.sha256(repr(parts).encode()).hexdigest()}"
    return PreparedCommit(
        lease=lease,
        key=key,
        sequence=commit.sequence,
        document=document,
        consumed=consumed,
        release=release,
        new_runs=new_runs,
        outbox=outbox,
    )


def _prepared_release(release: Release) -> PreparedRelease:
    approvals, notes = notes_of(release)
    next_opening = document_of(release.next_generation) if release.next_generation else None
    return PreparedRelease(release=release, approvals=approvals, notes=notes, next_opening=next_opening)


def carry_out(db: sqlite3.Connection, commit: PreparedCommit, changed: Changes) -> None:
    """All of the commit. Raises LeaseLost and RunExistsError; then none of it may stay."""
    lease, release = commit.lease, commit.release
    if _is_there(db, commit):
        return
    if commit.consumed:
        db.executemany("DELETE FROM inbox WHERE run_id = ? AND message_id = ?", commit.consumed)
    # Only an end: whoever wakes for a run that merely waits would take it, let it go, and be woken by that.
    if release is not None and _change(db, commit, release) and release.release.status.closed:
        changed[lease.run_id] = True
    for new in commit.new_runs:
        run_id = new[0][0]
        if not insert_run(db, new):
            raise RunExistsError(f"run {run_id} exists already", run_id=run_id)
        changed[run_id] = False
    for letter in commit.outbox:
        if put(db, letter) is DeliveryOutcome.ACCEPTED:
            changed[letter[0]] = False


def _is_there(db: sqlite3.Connection, commit: PreparedCommit) -> bool:
    """Make sure of the lease and append the events. True: this very commit is there already, the whole of it."""
    lease, release = commit.lease, commit.release
    if release is not None and release.next_opening is not None:
        # Its own history document is gone by now, and so may be its name on the record; the opening stays.
        row = db.execute(DOCUMENT, (lease.run_id, lease.generation + 1, 0)).fetchone()
        if row is not None and row[0] == commit.key:
            return True
    if commit.document is not None:
        return not append(db, lease, commit.sequence, commit.document)
    row = db.execute("SELECT lease_token, released_by FROM runs WHERE run_id = ?", (lease.run_id,)).fetchone()
    if row is not None and row[0] == lease.token:
        return False
    if row is not None and release is not None and row[1] == commit.key:
        return True
    raise LeaseLost(f"run {lease.run_id} is no longer held by {lease.owner}")


def append(db: sqlite3.Connection, lease: Lease, sequence: int, document: str) -> bool:
    """Make the history document. False: it is there already, made by this very commit. Raises LeaseLost."""
    where = (lease.run_id, lease.generation, sequence)
    if db.execute(APPEND, (*where, lease.token, document, lease.run_id, lease.token)).rowcount == 1:
        return True
    if db.execute(DOCUMENT, where).fetchone() == (lease.token, document):
        return False
    raise LeaseLost(f"run {lease.run_id} is no longer held by {lease.owner}, or has document {sequence} already")


def _change(db: sqlite3.Connection, commit: PreparedCommit, prepared: PreparedRelease) -> bool:
    """Change the record. True: and let the run go."""
    lease, release, run_id = commit.lease, prepared.release, commit.lease.run_id
    status, sequence = release.status, commit.sequence
    if commit.document is None:  # then the commit's number is that of none
        (sequence,) = db.execute(LAST_SEQUENCE, (run_id, lease.generation)).fetchone()
    changes = (
        status.value, microseconds(release.closed_at), sequence, release.retry_count, prepared.approvals,
        prepared.notes, release.output,
    )  # fmt: skip
    if release.keep_lease and not status.closed:
        db.execute(CHANGE, (*changes, run_id))
        return False
    wake_at = due_at = None
    if status.closed:
        db.execute("DELETE FROM inbox WHERE run_id = ?", (run_id,))
    else:
        wake_at = microseconds(release.wake_at)
        due_at = due_at_of(db, run_id, status, wake_at)
    db.execute(LET_GO, (*changes, wake_at, due_at, commit.key, run_id))
    if prepared.next_opening is not None:
        _begin_generation(db, lease, prepared.next_opening, commit.key)
    return True


def _begin_generation(db: sqlite3.Connection, lease: Lease, opening: str, key: str) -> None:
    """Go on with an empty history. No fence has to stay: whoever appends must hold the lease in this very moment."""
    run_id, generation = lease.run_id, lease.generation + 1
    db.execute("UPDATE runs SET generation = ?, sequence = 0 WHERE run_id = ?", (generation, run_id))
    db.execute("DELETE FROM history WHERE run_id = ?", (run_id,))
    db.execute(INSERT_HISTORY, (run_id, generation, 0, key, opening))
