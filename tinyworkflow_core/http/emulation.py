"""Local emulation: what a platform of functions does besides calling them, done by the process itself.

On the platform a scheduler ticks and a queue calls the worker. On one's own machine the process works on runs itself,
from its first request on; and a server process that was just forked makes that request itself, to its /healthz. When it
is told to stop it first lets go of the runs in hand. (A server that knows when it ends calls `let_go` itself.)
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from ..app import App
from ..dispatchers.local import LocalDispatcher

DEFAULT_PORT = 8080
_GIVE_UP_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_LET_GO_SECONDS = 5.0
_at_work: weakref.WeakSet[App] = weakref.WeakSet()
"""The Apps whose workers were started here."""
_forked = False
"""Whether this process is a server's own child, whose signals may be ours to handle."""


def is_local(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is somebody's own machine, and not the managed platform."""
    return not environ.get("K_SERVICE")


class WorksItself:
    """Starts the App's worker with the first request, in the event loop that serves it."""

    def __init__(self, app: ASGIApp, *, core: App) -> None:
        self._app = app
        self._core = core
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._started and is_local():
            if isinstance(self._core.dispatcher, LocalDispatcher):
                await self._core.start_worker()
                _at_work.add(self._core)
                if _forked:
                    _let_go_at_sigterm(self._core)
            self._started = True
        await self._app(scope, receive, send)


def wake_after_fork() -> None:
    """From now on each process that is forked from this one calls its own /healthz until that answers.

    So a restarted server goes on with its runs without waiting for a request. Does nothing on the managed platform.
    """
    if not is_local():
        return
    parent = os.getpid()

    def in_child() -> None:
        global _forked  # noqa: PLW0603  # a fork has no other place for what is true of a process
        _forked = os.getppid() == parent  # and not something that the server's own child forks
        if _forked:
            threading.Thread(target=_call_healthz, args=(port_of(sys.argv),), name="wake", daemon=True).start()

    os.register_at_fork(after_in_child=in_child)


def port_of(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """The port that the server was told to listen at: by --port, else by PORT."""
    text = environ.get("PORT", "")
    for position, argument in enumerate(arguments):
        if argument == "--port":
            text = "".join(arguments[position + 1 : position + 2])
        elif argument.startswith("--port="):
            text = argument.partition("=")[2]
    return int(text) if text.isdigit() else DEFAULT_PORT


async def let_go() -> None:
    """Let go of the runs in hand, for good, before the process ends. Raises TimeoutError when that takes too long."""
    async with asyncio.timeout(_LET_GO_SECONDS):
        for core in list(_at_work):
            await _let_go_of(core)
            _at_work.discard(core)


async def _let_go_of(core: App) -> None:
    await core.stop_worker()
    await core.dispatcher.close()


def _let_go_at_sigterm(core: App) -> None:
    """At SIGTERM let go of the runs in hand, then pass the signal on: by that the server ends the process."""
    loop = asyncio.get_running_loop()
    servers_own = signal.getsignal(signal.SIGTERM)

    async def stop_in_order() -> None:
        try:
            async with asyncio.timeout(_LET_GO_SECONDS):
                await _let_go_of(core)
        finally:
            signal.raise_signal(signal.SIGTERM)

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, servers_own)
        asyncio.run_coroutine_threadsafe(stop_in_order(), loop)

    signal.signal(signal.SIGTERM, stop)


def _call_healthz(port: int) -> None:
    give_up = time.monotonic() + _GIVE_UP_SECONDS
    while time.monotonic() < give_up:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass  # it does not listen yet
        finally:
            connection.close()
        time.sleep(_PAUSE_SECONDS)
