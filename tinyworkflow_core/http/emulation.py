"""Local emulation: what a platform of functions does besides calling them, done by the process itself.

On the platform a scheduler ticks and a queue calls the worker. On one's own machine the process works on runs itself,
from its first request on; and a server process that was just forked makes that request itself, to its /healthz.
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from ..app import App
from ..dispatchers.local import LocalDispatcher

DEFAULT_PORT = 8080
_GIVE_UP_SECONDS = 60.0
_PAUSE_SECONDS = 0.05


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
        if os.getppid() == parent:  # and not something that the server's own child forks
            threading.Thread(target=_call_healthz, args=(port_of(sys.argv),), name="wake", daemon=True).start()

    os.register_at_fork(after_in_child=in_child)


def port_of(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """The port that the server was told to listen at: by --port, else by PORT."""
    text = environ.get("PORT", "")
    for name, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if name == "--port":
            text = value
        elif name.startswith("--port="):
            text = name.partition("=")[2]
    return int(text) if text.isdigit() else DEFAULT_PORT


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
