"""A process behind a queue: an HTTP front, and a dispatcher that hands every call to the next process in turn."""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import asdict
from datetime import datetime
from typing import Any

import httpx

from tests.processes import steps  # noqa: F401  # declares the workflows
from tinyworkflow_core import App, create_app
from tinyworkflow_core.clock import SystemClock
from tinyworkflow_core.dispatcher import Perform, Task


class RoundRobin:
    """Posts each call to one of several processes, once: what is lost is lost."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = itertools.cycle(urls)
        self._calls: set[asyncio.Task[None]] = set()
        self._caller = httpx.AsyncClient(timeout=60)

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """See the port."""
        call = asyncio.ensure_future(self._post(next(self._urls), task, at))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _post(self, url: str, task: Task, at: datetime | None) -> None:
        if at is not None:
            await asyncio.sleep((at - SystemClock().now()).total_seconds())
        path = "activity" if isinstance(task, Perform) else "advance"
        await self._caller.post(f"{url}/internal/{path}", json=asdict(task))

    async def close(self) -> None:
        """See the port."""
        for call in self._calls:
            call.cancel()
        await self._caller.aclose()


def front() -> Any:
    """The ASGI application of this process."""
    return create_app(App.from_env(dispatcher=RoundRobin(os.environ["QUEUE"].split(","))), emulate=True)
