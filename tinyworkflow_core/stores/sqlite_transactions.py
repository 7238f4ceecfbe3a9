"""Operations on a SQLite connection, several in one transaction and so with one fsync (group commit).

Operations are functions of a connection; what they do is `sqlite.py`'s business, and who owns the connection
`sqlite_writer.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, TypeVar

from ..records import dataclass
from .sqlite_connections import translated

T = TypeVar("T")
Changes = dict[str, bool]
"""Runs that somebody may wait for, and whether each has ended."""
Operation = Callable[[sqlite3.Connection, Changes], T]
"""Reads or writes, inside a transaction that is not its own; notes the runs that somebody may wait for. It may be
carried out a second time when what shared its transaction was undone."""


@dataclass(slots=True, eq=False)
class Call:
    """An operation, and who waits for it."""

    operation: Operation[Any] | None
    """None: the last call, after which a thread ends."""
    future: asyncio.Future[Any] | None
    """None: nobody waits for the outcome."""
    result: Any = None
    error: BaseException | None = None
    changed: Changes = field(default_factory=dict)


def transact(db: sqlite3.Connection, calls: Sequence[Call], *, begin: str, path: str) -> float:
    """Carry out the calls in one transaction; each has its result or its own error afterwards. Returns the seconds
    that the disk took.

    Raises what SQLite says of the transaction as a whole: then nothing was written, unless it was said of the COMMIT.
    """
    db.execute(begin)
    if not _all_succeed(db, calls):
        db.execute("ROLLBACK")
        db.execute(begin)
        for call in calls:
            db.execute("SAVEPOINT one")
            _carry_out(db, call, path)
            db.execute("RELEASE one")
    began = time.perf_counter()
    db.execute("COMMIT")
    return time.perf_counter() - began


def _all_succeed(db: sqlite3.Connection, calls: Sequence[Call]) -> bool:
    """Nearly always so: then no savepoints are needed."""
    try:
        for call in calls:
            assert call.operation is not None
            call.result = call.operation(db, call.changed)
    except BaseException:
        if not db.in_transaction:
            raise  # SQLite gave up the whole transaction
        for call in calls:
            call.result, call.changed = None, {}
        return False
    return True


def _carry_out(db: sqlite3.Connection, call: Call, path: str) -> None:
    assert call.operation is not None
    try:
        call.result = call.operation(db, call.changed)
    except BaseException as error:  # LeaseLost is one; whatever it is, it belongs to this caller alone
        if not db.in_transaction:
            raise
        db.execute("ROLLBACK TO one")
        call.error, call.changed = translated(error, path), {}


def all_failed(calls: Sequence[Call], error: BaseException, path: str) -> None:
    """Nothing of the calls was written, or it is not known."""
    for call in calls:
        call.error, call.changed = translated(error, path), {}


def put_right(db: sqlite3.Connection) -> bool:
    """Undo what a transaction that broke has left open. False: the connection is of no use any more."""
    try:
        if db.in_transaction:
            db.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True


def changed_by(calls: Sequence[Call]) -> Changes:
    """The runs that somebody may wait for."""
    changed: Changes = {}
    for call in calls:
        for run_id, has_ended in call.changed.items():
            changed[run_id] = changed.get(run_id, False) or has_ended
    return changed


def answer(calls: Sequence[Call]) -> None:
    """Give everybody his result; in the thread of his event loop."""
    for call in calls:
        if call.future is None or call.future.done():
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)


def answer_from_elsewhere(calls: Sequence[Call]) -> None:
    """The same, from another thread."""
    loops: dict[asyncio.AbstractEventLoop, list[Call]] = {}
    for call in calls:
        if call.future is not None:
            loops.setdefault(call.future.get_loop(), []).append(call)
    for loop, of_loop in loops.items():
        with contextlib.suppress(RuntimeError):  # that loop has been closed: nobody is left to hear
            loop.call_soon_threadsafe(answer, of_loop)
