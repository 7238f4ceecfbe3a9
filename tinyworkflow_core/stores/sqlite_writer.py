"""Who carries out operations: a thread with a connection of its own, or the thread of the event loop that asks.

Handing a commit to another thread and back takes as long as a fast disk takes to write it. So the operations that one
turn of an event loop has asked for are carried out at its end, right there, in one transaction; and by the thread
where that would hold up the loop: the first ones (they make the file), while another process writes, while the disk is
slow, and whatever may take long by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from ..errors import StoreError
from .sqlite_connections import OwnedConnection, is_taken, owned_connections
from .sqlite_transactions import (
    Call,
    Changes,
    Operation,
    all_failed,
    answer,
    answer_from_elsewhere,
    changed_by,
    put_right,
    transact,
)

SLOW_COMMIT_SECONDS = 0.005
"""A commit that takes longer would be felt in the event loop: for the next SLOW_FOR_SECONDS the thread commits."""
SLOW_FOR_SECONDS = 1.0

_MOST_IN_ONE_TRANSACTION = 500

T = TypeVar("T")


class ConnectionThread(OwnedConnection):
    """One daemon thread with one connection, started when it is first needed, in every process that needs it.

    `begin` opens its transactions; `announce(connection, changes)` is called in the thread after a transaction that
    changed runs somebody may wait for.
    """

    def __init__(
        self, path: str, *, begin: str, announce: Callable[[sqlite3.Connection, Changes], None] | None = None
    ) -> None:
        self.has_opened = False
        """Whether the file is there and has its schema."""
        self._begin = begin
        self._announce = announce
        self._closed = False
        self._not_started()
        super().__init__(path)

    def _not_started(self) -> None:
        self._queueing = threading.Lock()
        self._calls: SimpleQueue[Call] = SimpleQueue()
        self._started = False

    def begin_again(self) -> None:
        super().begin_again()
        self._not_started()  # the thread is the parent's, and what it had to do too

    async def run(self, operation: Operation[T]) -> T:
        """Carry out the operation: when this returns, it is committed; when this raises, nothing of it was written
        (but for StoreUnavailableError, after which it may have been). May be called from any event loop."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.put(Call(operation, future))
        return await future

    async def look(self, operation: Operation[T], *, is_one_statement: bool = False) -> T:
        """Carry out an operation that only reads, and not much. One statement needs no transaction around it."""
        return await self.run(operation)

    def post(self, operation: Operation[None]) -> None:
        """Carry out the operation some time soon; nobody hears of the outcome."""
        self.put(Call(operation, None))

    async def close(self) -> None:
        """End the thread after what is queued. Calls that come later raise StoreError."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._queueing:
            ends = self._started and not self._closed
            self._closed = True
            if ends:
                self._calls.put(Call(None, ended))
        if ends:
            await ended

    def put(self, call: Call) -> None:
        """Queue the call. Raises StoreError once the store is closed."""
        with self._queueing:
            if self._closed:
                raise StoreError(f"the store {self.path} is closed")
            if not self._started:
                name = f"sqlite {self._begin} {self.path}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._started = True
            self._calls.put(call)

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
                with self.lock:
                    self._transact(batch)
                    answer_from_elsewhere(batch)
                    self._tell(changed_by(batch))
        with self.lock:
            self.disconnect()
        answer_from_elsewhere([last])

    def _transact(self, batch: list[Call]) -> None:
        try:
            db = self.connected()
            self.has_opened = True
            transact(db, batch, begin=self._begin, path=self.path)
        except BaseException as error:
            all_failed(batch, error, self.path)
            # A file is opened afresh by the next call; what is in memory would be lost.
            if self.db is not None and (not put_right(self.db) or self.path != ":memory:"):
                self.disconnect()

    def _tell(self, changed: Changes) -> None:
        if changed and self._announce is not None:
            # A hint that is lost does no harm: the tick finds what it was about.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._announce(self.connected(), changed)


class _Place(OwnedConnection):
    """What belongs to one thread: its connection, and the calls of its event loop's present turn."""

    def __init__(self, path: str, owner: object) -> None:
        self.owner = owner
        self.loop: asyncio.AbstractEventLoop | None = None
        self.calls: list[Call] = []
        super().__init__(path, wait=0)

    def begin_again(self) -> None:
        super().begin_again()
        self.calls = []  # the parent carries them out


def _is_last_of_turn(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nothing else runs in this turn of the loop, so that nobody would share the transaction. False where the
    loop does not let itself be looked into."""
    return not getattr(loop, "_ready", True)


def _let_others_run() -> None:
    """As long as it is queued, nobody is the last of the turn: a second commit waits for the turn's end, like any."""


class LoopConnection:
    """Carries out operations in the event loop's own thread where that is quick, and has `thread` do the others.

    Its verbs promise what ConnectionThread's do. Not for a database in memory, which is one connection's.
    """

    def __init__(
        self, path: str, thread: ConnectionThread, *, announce: Callable[[sqlite3.Connection, Changes], None]
    ) -> None:
        self._path = path
        self._thread = thread
        self._announce = announce
        self._mine = threading.local()
        self._key = object()
        self._slow_until = 0.0
        self._closed = False
        self.post = thread.post

    async def run(self, operation: Operation[T]) -> T:
        """See ConnectionThread.run."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        call = Call(operation, future)
        place = self._place()
        with place.lock:
            if self._closed or not self._thread.has_opened or time.monotonic() < self._slow_until:
                self._thread.put(call)
            else:
                is_first = place.loop is not loop or not place.calls
                if is_first:
                    self._hand_over(place)  # what a loop that was stopped in its turn has left
                    place.loop = loop
                place.calls.append(call)
                if is_first and _is_last_of_turn(loop):
                    self._carry_out(place)
                    loop.call_soon(_let_others_run)
                elif is_first:
                    loop.call_soon(self._flush, place)
        return await future

    async def look(self, operation: Operation[T], *, is_one_statement: bool = False) -> T:
        """See ConnectionThread.look."""
        await asyncio.sleep(0)  # whoever asks again and again must let the others run
        place = self._place()
        with place.lock:
            if self._thread.has_opened and not self._closed:
                try:
                    db = place.connected()
                    if is_one_statement:
                        return operation(db, {})
                    db.execute("BEGIN")
                    try:
                        return operation(db, {})
                    finally:
                        db.execute("ROLLBACK")
                except Exception:  # whatever it is, the thread will tell
                    place.disconnect()
        return await self._thread.run(operation)

    async def close(self) -> None:
        """End the thread after what is queued, and close all connections. Calls that come later raise StoreError."""
        self._closed = True
        for place in owned_connections():
            if isinstance(place, _Place) and place.owner is self._key:
                with place.lock:
                    self._hand_over(place)
                    place.disconnect()
        await self._thread.close()

    def _place(self) -> _Place:
        place: _Place | None = getattr(self._mine, "place", None)
        if place is None:
            place = self._mine.place = _Place(self._path, self._key)
        return place

    def _hand_over(self, place: _Place) -> None:
        calls, place.calls = place.calls, []
        for call in calls:
            self._thread.put(call)

    def _flush(self, place: _Place) -> None:
        with place.lock:
            if place.calls:
                self._carry_out(place)

    def _carry_out(self, place: _Place) -> None:
        calls = place.calls
        try:
            took = transact(place.connected(), calls, begin="BEGIN IMMEDIATE", path=self._path)
        except BaseException as error:
            if place.db is not None and (not put_right(place.db) or not is_taken(error)):
                place.disconnect()
            if is_taken(error):  # nothing was written: the thread can wait for whoever is writing
                for call in calls:
                    call.error, call.changed = None, {}
                self._hand_over(place)
                return
            all_failed(calls, error, self._path)
        else:
            if took > SLOW_COMMIT_SECONDS:
                self._slow_until = time.monotonic() + SLOW_FOR_SECONDS
        place.calls = []
        answer(calls)
        if changed := changed_by(calls):
            # A hint that is lost does no harm: the tick finds what it was about.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._announce(place.connected(), changed)
