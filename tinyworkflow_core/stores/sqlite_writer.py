"""Threads that own SQLite connections, and the translation of SQLite's errors.

Operations are functions of a connection. While one transaction is written to disk the next operations queue up, and
all that have come in by then share the next transaction and its one fsync (group commit). What the operations do is
`sqlite.py`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..errors import ConfigurationError, StoreError, StoreUnavailableError
from .sqlite_rows import SCHEMA, SCHEMA_NUMBER

BUSY_SECONDS = 10.0
"""How long one process waits for another one's write before StoreUnavailableError."""

_MOST_IN_ONE_TRANSACTION = 500
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_CANTOPEN,
    }
)

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection, list[str]], T]
"""Reads or writes, inside a transaction that is not its own; adds to the list the runs that somebody may wait for."""


@dataclass(slots=True, eq=False)
class _Call:
    operation: Operation[Any] | None
    """None: the last call, after which the thread ends."""
    future: asyncio.Future[Any] | None
    """None: nobody waits for the outcome."""
    result: Any = None
    error: BaseException | None = None
    changed: list[str] = field(default_factory=list)


class ConnectionThread:
    """One daemon thread with one connection, started when it is first needed, in every process that needs it.

    `begin` opens its transactions; `announce(connection, run_ids)` is called in the thread after a transaction that
    changed runs somebody may wait for.
    """

    def __init__(
        self, path: str, *, begin: str, announce: Callable[[sqlite3.Connection, Sequence[str]], None] | None = None
    ) -> None:
        self._path = path
        self._begin = begin
        self._announce = announce
        self._starting = threading.Lock()
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._db: sqlite3.Connection | None = None
        self._inherited: list[Any] = []
        self._pid = 0
        self._closed = False

    async def run(self, operation: Operation[T]) -> T:
        """Carry out the operation: when this returns, it is committed; when this raises, nothing of it was written
        (but for StoreUnavailableError, after which it may have been). May be called from any event loop."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Call(operation, future))
        return await future

    def post(self, operation: Operation[None]) -> None:
        """Carry out the operation some time soon; nobody hears of the outcome."""
        self._put(_Call(operation, None))

    async def close(self) -> None:
        """End the thread after what is queued. Calls that come later raise StoreError."""
        if not self._closed and self._pid == os.getpid():
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._put(_Call(None, ended))
            self._closed = True
            await ended
        self._closed = True

    def _put(self, call: _Call) -> None:
        if self._closed:
            raise StoreError(f"the store {self._path} is closed")
        if self._pid != os.getpid():
            self._start()
        self._calls.put(call)

    def _start(self) -> None:
        with self._starting:
            if self._pid == os.getpid():
                return
            # After a fork the thread is gone, the queue may be locked for ever, and the connection belongs to the
            # parent: even closing it here could undo the parent's locks. So it is kept, and never touched.
            self._inherited.append(self._db)
            self._db, self._calls = None, SimpleQueue()
            self._pid = os.getpid()
            threading.Thread(target=self._work, name=f"sqlite {self._begin} {self._path}", daemon=True).start()

    # --- in the thread -----------------------------------------------------------------------

    def _work(self) -> None:
        calls, last = self._calls, None
        while last is None:
            batch = [calls.get()]
            try:
                while len(batch) < _MOST_IN_ONE_TRANSACTION:
                    batch.append(calls.get_nowait())
            except Empty:
                pass
            if batch[-1].operation is None:  # nothing is put behind it
                last = batch.pop()
            if batch:
                self._transact(batch)
                _answer(batch)
                self._tell(batch)
        if self._db is not None:
            self._db.close()
        _answer([last])

    def _transact(self, batch: list[_Call]) -> None:
        try:
            db = self._db = self._db or connect(self._path)
            db.execute(self._begin)
            if len(batch) == 1:
                self._carry_out(db, batch[0], undo="ROLLBACK")
            else:
                for call in batch:
                    db.execute("SAVEPOINT one")
                    self._carry_out(db, call, undo="ROLLBACK TO one")
                    db.execute("RELEASE one")
            if db.in_transaction:
                db.execute("COMMIT")
        except BaseException as error:
            self._give_up(translated(error, self._path), batch)

    def _carry_out(self, db: sqlite3.Connection, call: _Call, *, undo: str) -> None:
        assert call.operation is not None
        try:
            call.result = call.operation(db, call.changed)
        except BaseException as error:  # LeaseLost is one; whatever it is, it belongs to this caller alone
            if not db.in_transaction:
                raise  # SQLite gave up the whole transaction: the others' work is gone too
            db.execute(undo)
            call.error, call.changed = translated(error, self._path), []

    def _give_up(self, error: BaseException, batch: list[_Call]) -> None:
        for call in batch:
            call.error, call.changed = error, []
        db = self._db
        if db is None:
            return
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if self._path != ":memory:":  # a file is opened afresh by the next call; memory would be lost
                self._db = None
                db.close()
        except sqlite3.Error:
            self._db = None if self._path != ":memory:" else db

    def _tell(self, batch: list[_Call]) -> None:
        changed = [run_id for call in batch for run_id in call.changed]
        if changed and self._announce is not None and self._db is not None:
            # A hint that is lost does no harm: the tick finds what it was about.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._announce(self._db, changed)


def _answer(batch: list[_Call]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[_Call]] = {}
    for call in batch:
        if call.future is not None:
            loops.setdefault(call.future.get_loop(), []).append(call)
    for loop, calls in loops.items():
        with contextlib.suppress(RuntimeError):  # that loop has been closed: nobody is left to hear
            loop.call_soon_threadsafe(_resolve, calls)


def _resolve(calls: list[_Call]) -> None:
    for call in calls:
        if call.future is None or call.future.done():
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)


# --- connections ---------------------------------------------------------------------------------


def connect(path: str) -> sqlite3.Connection:
    """A connection in WAL mode whose commits are on disk when they return, to a file that has the schema."""
    directory = os.path.dirname(path)
    if directory and not os.path.isdir(directory):
        raise ConfigurationError(f"the database {path} cannot be made: there is no directory {directory}")
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=256)
    try:
        _switch_to_wal(db)
        db.execute("PRAGMA synchronous = FULL")
        _have_schema(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _switch_to_wal(db: sqlite3.Connection) -> None:
    # Several processes that open a new file at once: SQLite does not wait here, whatever its timeout says.
    deadline = time.monotonic() + BUSY_SECONDS
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
