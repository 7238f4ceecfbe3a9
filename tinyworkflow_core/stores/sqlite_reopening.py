"""Opening a run of the SQLite store again that has ended, inside somebody's transaction."""

from __future__ import annotations

import json
import sqlite3

from ..serialization import json_text
from ..store import Status
from .sqlite_commits import DOCUMENT, INSERT_HISTORY, LAST_SEQUENCE

REOPEN = (
    "UPDATE runs SET status = 'pending', closed_at = NULL, output = NULL, notes = ?, sequence = ?, retry_count = ?, "
    "wake_at = ?, due_at = ? WHERE run_id = ?"
)


def reopen(db: sqlite3.Connection, run_id: str, *, sequence: int, document: str, retry_count: int, moment: int) -> bool:
    """See the port. `document` holds the events, `moment` is `now`."""
    row = db.execute("SELECT status, generation, notes FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    if row is None:
        return False
    status, generation, notes = Status(row[0]), row[1], row[2]
    token = f"reopened at {moment} with retry_count {retry_count}"  # no lease's token looks like this
    (last,) = db.execute(LAST_SEQUENCE, (run_id, generation)).fetchone()
    if not status.closed or last != sequence - 1:
        return bool(db.execute(DOCUMENT, (run_id, generation, sequence)).fetchone() == (token, document))
    kept = json_text(json.loads(notes) | {"error": None, "problem": None})
    db.execute(REOPEN, (kept, sequence, retry_count, moment, moment, run_id))
    db.execute(INSERT_HISTORY, (run_id, generation, sequence, token, document))
    return True
