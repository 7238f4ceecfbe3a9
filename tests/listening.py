"""Who listens to an SQLite file: a process is told of changes from the moment on at which its row is there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def listeners(path: Path) -> int:
    """How many processes would be told of a change now."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=10)) as db:
        try:
            return int(db.execute("SELECT COUNT(*) FROM listeners").fetchone()[0])
        except sqlite3.OperationalError:  # the table is not there yet
            return 0
