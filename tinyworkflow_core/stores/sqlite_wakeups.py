"""Wake-ups between the processes that share one SQLite file: a datagram says which runs changed.

Each process that wants to hear has a UDP socket on 127.0.0.1 and a row in the table `listeners`. A datagram is a hint
and nothing more: one that is lost, late or forged makes somebody look at a run too late or for nothing. Reading and
writing runs is not done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from .sqlite_transactions import Changes, Operation

_HOST = "127.0.0.1"
_MOST_IN_ONE_DATAGRAM = 100
_Callback = Callable[[str, bool], None]
_Subscription = tuple[asyncio.AbstractEventLoop, _Callback]


class Wakeups:
    """Who in this process wants to hear of changed runs, and how the other processes are told.

    With `shared=False` nobody outside this process is told. `post` queues an operation on the store's writer.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._subscriptions: dict[str | None, list[_Subscription]] = {}
        """By the run that is listened for; None: every run."""
        self._listener: _Listener | None = None

    def _forget_the_parents(self) -> None:
        if self._pid != os.getpid():  # a fork copies the parent's subscriptions: they are not ours
            self._reset()

    def subscribe(
        self, callback: _Callback, post: Callable[[Operation[None]], None], *, run_id: str | None
    ) -> Callable[[], None]:
        """Call `callback(run_id, has_ended)` in the running event loop for every change; returns what ends that."""
        subscription = (asyncio.get_running_loop(), callback)
        with self._lock:
            self._forget_the_parents()
            self._subscriptions.setdefault(run_id, []).append(subscription)
            if self._shared and self._listener is None:
                self._listener = listener = _Listener(self._tell_here)
                post(lambda db, changed: self._register(listener, db, changed))

        def unsubscribe() -> None:
            with self._lock:
                here = self._subscriptions.get(run_id, [])
                if subscription in here:
                    here.remove(subscription)
                    if not here:
                        del self._subscriptions[run_id]
                    if not self._subscriptions and self._listener is not None:
                        post(self._listener.unregister)
                        self._listener.stop()
                        self._listener = None

        return unsubscribe

    def _register(self, listener: _Listener, db: sqlite3.Connection, changed: Changes) -> None:
        listener.register(db, changed)
        # Who subscribes looks at once, perhaps before this is written, and would not hear of an end in between: so they
        # are told to look again. Without the lock: a fork must not catch the writer holding it.
        changed.update(dict.fromkeys((one for one in list(self._subscriptions) if one is not None), True))

    def close(self, post: Callable[[Operation[None]], None]) -> None:
        """End all subscriptions."""
        with self._lock:
            if self._pid == os.getpid() and self._listener is not None:
                post(self._listener.unregister)
                self._listener.stop()
            self._reset()

    def announce(self, db: sqlite3.Connection, changed: Changes) -> None:
        """Tell everybody. Called after the commit, in the thread that made it."""
        if self._pid != os.getpid():  # asked without the lock: a fork must not catch the writer holding it
            with self._lock:
                self._forget_the_parents()
        self._tell_here(changed)
        if self._shared:
            own = self._listener.port if self._listener is not None else 0
            ports = db.execute("SELECT port FROM listeners WHERE port != ?", (own,)).fetchall()
            if ports:
                _tell_others([port for (port,) in ports], changed)

    def _tell_here(self, changed: Changes) -> None:
        here = asyncio._get_running_loop()
        for run_id, has_ended in changed.items():
            for key in (run_id, None):
                for loop, callback in list(self._subscriptions.get(key, ())):
                    with contextlib.suppress(RuntimeError):  # that loop has been closed
                        (loop.call_soon if loop is here else loop.call_soon_threadsafe)(callback, run_id, has_ended)


class _Listener:
    """The socket of this process and the daemon thread that waits at it."""

    def __init__(self, tell: Callable[[Changes], None]) -> None:
        self._tell = tell
        self._stopped = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((_HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, name=f"sqlite wake-ups {self.port}", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (_HOST, self.port))  # closing a socket does not wake the thread that waits at it

    def register(self, db: sqlite3.Connection, changed: Changes) -> None:
        for port, pid in db.execute("SELECT port, pid FROM listeners").fetchall():
            if _is_dead(pid):
                db.execute("DELETE FROM listeners WHERE port = ?", (port,))
        db.execute("INSERT OR REPLACE INTO listeners VALUES (?, ?)", (self.port, os.getpid()))

    def unregister(self, db: sqlite3.Connection, changed: Changes) -> None:
        db.execute("DELETE FROM listeners WHERE port = ? AND pid = ?", (self.port, os.getpid()))

    def _listen(self) -> None:
        with self._socket:
            while not self._stopped:
                try:
                    datagram = self._socket.recv(65536)
                except OSError:
                    continue
                self._tell(_changes(datagram))


def _tell_others(ports: list[int], changed: Changes) -> None:
    changes = list(changed.items())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for start in range(0, len(changes), _MOST_IN_ONE_DATAGRAM):
            datagram = json.dumps(dict(changes[start : start + _MOST_IN_ONE_DATAGRAM])).encode()
            for port in ports:
                with contextlib.suppress(OSError):  # too busy to be told: a hint may be lost
                    sender.sendto(datagram, (_HOST, port))


def _changes(datagram: bytes) -> Changes:
    try:
        told: Any = json.loads(datagram)
    except (ValueError, RecursionError):
        return {}
    return {run_id: ended is True for run_id, ended in told.items()} if isinstance(told, dict) else {}


def _is_dead(pid: int) -> bool:
    if os.name != "posix":
        return False  # elsewhere os.kill(pid, 0) ends the process instead of asking after it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
