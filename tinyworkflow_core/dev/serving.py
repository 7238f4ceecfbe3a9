"""Serving: one process that serves what was loaded, on a socket that somebody has opened.

It works on runs from its start on, as local emulation does, and lets go of those in hand when it is told to stop. Code
that does not load is told on the terminal; then every request is answered with 503 until the process is replaced.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http.answers import ProblemJson
from ..http.emulation import let_go
from . import trying
from .listening import url_of
from .served import EXAMPLES_PREFIX, Manner, Served, load, why_it_does_not_load

Say = Callable[[str], None]


def serve_loaded(app: ASGIApp, served: Served, sock: socket.socket, manner: Manner, *, say: Say, ready: Say) -> None:
    """Serve until SIGINT or SIGTERM comes. `ready` is called when it answers, with what is served."""

    async def begin(caller: httpx.AsyncClient) -> None:
        await caller.get("/healthz")  # a local emulation works on runs from its first request on
        listed = await _workflows(caller, say)
        if served.examples and manner.greet:
            await _start_examples(caller, say)
        own = [one for one in listed if not one["name"].startswith(EXAMPLES_PREFIX)]
        names = ", ".join(one["name"] for one in own or listed) or "no workflows"
        if not manner.quiet:
            say(f"Serving {served.named or 'the examples'}: {names}")
        if manner.greet and listed and not manner.quiet:
            say(f"Try\n\n    {trying.curl(url_of(sock), own or listed, with_key=bool(_key()))}\n")
        ready(names)

    _run(_Front(app, url_of(sock), begin), sock, manner)


def serve_or_wait(served: Served, sock: socket.socket, manner: Manner, *, say: Say, ready: Say) -> None:
    """Load and serve; where the code does not load, say why and answer 503 until SIGINT or SIGTERM comes."""
    try:
        app = load(served)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        say(f"{why_it_does_not_load(error)}\n\nThis code does not load. Mend and save it: the next try follows.")
        told = "the code does not load: the terminal says why, and the next save is tried"
        _run(_Front(_unavailable(told), url_of(sock), None), sock, manner)
    else:
        serve_loaded(app, served, sock, manner, say=say, ready=ready)


def log_to_terminal() -> None:
    """Have what the user's code logs printed from INFO on; of the libraries below only what is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Requests that are cut off when the process is to end are answered by _Front.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not str(record.msg).startswith("Cancel %s running"))


def _run(front: ASGIApp, sock: socket.socket, manner: Manner) -> None:
    config = uvicorn.Config(
        front,
        lifespan="on",
        log_config=None,
        access_log=manner.access_log,
        server_header=False,
        proxy_headers=False,  # the guard judges by who really calls
        timeout_graceful_shutdown=max(1, round(manner.patience_seconds)),
    )
    uvicorn.Server(config).run(sockets=[sock])


class _Front:
    """The app, with a beginning and an end of its own: functions-framework passes neither on."""

    def __init__(self, app: ASGIApp, url: str, begin: Callable[[httpx.AsyncClient], Awaitable[None]] | None) -> None:
        self._app = app
        self._url = url
        self._begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._answer(scope, receive, send)
            return
        await receive()
        if self._begin is not None:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            key = {"X-API-Key": found} if (found := _key()) else {}
            async with httpx.AsyncClient(transport=transport, base_url=self._url, headers=key) as caller:
                await self._begin(caller)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await let_go()
        except TimeoutError:
            pass  # some code does not end when it is cancelled: the next process takes its run over
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:  # the process ends before the answer is there
            if begun:
                raise
            await _unavailable("the process that had this request was told to end: ask again")(scope, receive, send)


def _unavailable(detail: str) -> ProblemJson:
    content = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": detail}
    return ProblemJson(content, status_code=503, headers={"Retry-After": "1"})


def _key() -> str:
    """The first of the keys that the functions themselves are configured with, to call them from within."""
    return next((key.strip() for key in os.environ.get("TINYWORKFLOW_API_KEYS", "").split(",") if key.strip()), "")


async def _workflows(caller: httpx.AsyncClient, say: Say) -> Sequence[Mapping[str, Any]]:
    answer = await caller.get("/v1/workflows")
    if answer.status_code != 200:
        say(f"GET /v1/workflows answers {answer.status_code}")
        return []
    listed: Sequence[Mapping[str, Any]] = answer.json()["workflows"]
    return listed


async def _start_examples(caller: httpx.AsyncClient, say: Say) -> None:
    from .examples import RUNS, SCHEDULE  # importing it declares them

    asked = [(f"/v1/workflows/{name}/runs", body) for name, body in RUNS]
    for path, body in [*asked, ("/v1/schedules", SCHEDULE)]:
        answer = await caller.post(path, json=body)
        if answer.status_code not in (200, 201, 202, 409):  # 409: it was started before
            say(f"the example at {path} was not started: {answer.status_code} {answer.text[:300]}")
