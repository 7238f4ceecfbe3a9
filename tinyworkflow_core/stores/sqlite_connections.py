"""SQLite connections: how one is opened, what file it accepts, who may use it, and what its errors mean to us."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref

from ..errors import ConfigurationError, StoreError, StoreUnavailableError
from .sqlite_rows import SCHEMA, SCHEMA_NUMBER

BUSY_SECONDS = 10.0
"""How long one process waits for another one's write before StoreUnavailableError."""

_TAKEN = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PASSING = _TAKEN | {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_CANTOPEN,
}


def connect(path: str, *, wait: float | None = None) -> sqlite3.Connection:
    """A connection in WAL mode whose commits are on disk when they return, to a file that has the schema.

    It waits `wait` seconds for another process's write (None: BUSY_SECONDS).
    """
    directory = os.path.dirname(path)
    if directory and not os.path.isdir(directory):
        raise ConfigurationError(f"the database {path} cannot be made: there is no directory {directory}")
    timeout = BUSY_SECONDS if wait is None else wait
    # Whoever uses a connection sees to it that only one thread does so at a time.
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, cached_statements=256, check_same_thread=False)
    try:
        _switch_to_wal(db, timeout)
        db.execute("PRAGMA synchronous = FULL")
        _have_schema(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _switch_to_wal(db: sqlite3.Connection, wait: float) -> None:
    # Several processes that open a new file at once: SQLite does not wait here, whatever its timeout says.
    deadline = time.monotonic() + wait
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _have_schema(db: sqlite3.Connection, path: str) -> None:
    if _schema_number(db, path) == SCHEMA_NUMBER:
        return
    db.execute("BEGIN IMMEDIATE")
    for step in SCHEMA[_schema_number(db, path) :]:  # asked again: another process may have been first
        for statement in step:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_NUMBER}")
    db.execute("COMMIT")


def _schema_number(db: sqlite3.Connection, path: str) -> int:
    number = int(db.execute("PRAGMA user_version").fetchone()[0])
    if number > SCHEMA_NUMBER:
        raise StoreError(
            f"{path} was written by a newer release (schema {number}; this one knows {SCHEMA_NUMBER}): "
            "upgrade tinyworkflow-core, or use another file"
        )
    return number


def translated(error: BaseException, path: str) -> BaseException:
    """The error in our tree: what may pass by itself as StoreUnavailableError, other SQLite errors as StoreError."""
    if isinstance(error, sqlite3.Error):
        passing = getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING
        wrapped = (StoreUnavailableError if passing else StoreError)(f"SQLite {path}: {error}")
    elif isinstance(error, UnicodeEncodeError | OverflowError):
        wrapped = StoreError(f"SQLite cannot hold this value: {error}")
    else:
        return error
    wrapped.__cause__ = error
    return wrapped


def is_taken(error: BaseException) -> bool:
    """Whether somebody else is writing at this moment."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _TAKEN


# --- one owner, and forks ------------------------------------------------------------------------------


class OwnedConnection:
    """A connection to the file that is opened when it is needed. Whoever uses it holds `lock` while he does.

    No fork sees it open. SQLite counts a file's locks by process: a child that inherits an open connection takes its
    parent's locks for its own, and what it commits, even by a connection of its own, is lost when the parent closes.
    So it is closed before a fork, and both go on with a new one. (A database in memory has no locks: it stays the
    parent's, and the child begins with an empty one.)
    """

    def __init__(self, path: str, *, wait: float | None = None) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.db: sqlite3.Connection | None = None
        self._wait = wait
        with _forking:
            _owned.add(self)

    def connected(self) -> sqlite3.Connection:
        """The connection. Raises what `connect` raises."""
        if self.db is None:
            self.db = connect(self.path, wait=self._wait)
        return self.db

    def disconnect(self) -> None:
        """Close the connection; `connected` makes a new one."""
        db, self.db = self.db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    __del__ = disconnect

    def begin_again(self) -> None:
        """In a child, after a fork: forget what is the parent's."""
        self.lock = threading.RLock()
        if self.db is not None:  # in memory, or a fork made by something else than Python: not to be touched
            _parents.append(self.db)
            self.db = None


_forking = threading.Lock()
_owned: weakref.WeakSet[OwnedConnection] = weakref.WeakSet()
_locked: list[OwnedConnection] = []
_parents: list[sqlite3.Connection] = []


def owned_connections() -> list[OwnedConnection]:
    """All that there are in this process."""
    with _forking:
        return list(_owned)


def _before_fork() -> None:
    _forking.acquire()
    for one in list(_owned):
        one.lock.acquire()
        _locked.append(one)
        if one.path != ":memory:":
            one.disconnect()


def _after_fork_in_parent() -> None:
    while _locked:
        _locked.pop().lock.release()
    _forking.release()


def _after_fork_in_child() -> None:
    if _forking.locked():  # by the thread that forked, which is the only one here
        _forking.release()
    _locked.clear()
    for one in list(_owned):
        one.begin_again()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
