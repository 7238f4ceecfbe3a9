"""DirectDispatcher: posts each call to the worker service itself, in the background of the process that dispatches.

For several processes on one machine or in one network without a queue: a front here, a worker there. It holds nothing:
calls for later are left to the tick, and so is an Advance that the worker could not take. A process that sleeps between
its requests (a function on a managed platform) may never get to it: use a queue there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime

import httpx

from ..clock import Clock
from ..dispatcher import FailedCalls, Task
from ..errors import ConfigurationError
from ..records import dataclass
from .worker import WorkerAddress, body_of

_log = logging.getLogger("tinyworkflow.dispatch")

MAX_CONCURRENT_CALLS = 200
"""Calls under way at a time; the rest wait their turn, and those that are equal are one."""
CONNECT_TRIES = 5
"""Further tries of a connection, after 0, 0.5, 1, 2 and 4 s: a worker that is being started anew is back by then."""
_CONNECT_SECONDS = 5.0


@dataclass(kw_only=True, slots=True)
class _Lane:
    """What belongs to one event loop."""

    client: httpx.AsyncClient
    places: asyncio.Semaphore
    waiting: set[Task] = field(default_factory=set)
    """Calls that have not been sent yet: they will see whatever another one would be made for."""


class DirectDispatcher:
    """Posts calls to `worker`; with `key` as one of its API keys. `transport`: for tests."""

    def __init__(
        self,
        worker: WorkerAddress,
        *,
        clock: Clock,
        key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.worker = worker
        self.failed = FailedCalls()
        self._clock = clock
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            if not (key.isascii() and key.isprintable()) or not worker.is_safe:
                raise ConfigurationError(
                    "TINYWORKFLOW_WORKER_KEY: a key is sent over https:// or to this machine only, and is plain text"
                )
            self._headers["Authorization"] = f"Bearer {key}"
        self._transport = transport
        self._lanes: dict[asyncio.AbstractEventLoop, _Lane] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, clock: Clock) -> DirectDispatcher:
        """By TINYWORKFLOW_WORKER_URL and TINYWORKFLOW_WORKER_KEY. Raises ConfigurationError."""
        key = environ.get("TINYWORKFLOW_WORKER_KEY", "").strip() or None
        return cls(WorkerAddress.from_env(environ), clock=clock, key=key)

    @property
    def busy(self) -> int:
        """How many calls are under way or wait their turn."""
        return len(self._calls)

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """See the port. A call for later is not made."""
        if self._closed or (at is not None and at > self._clock.now()):
            return
        lane = self._lane()
        if task in lane.waiting:
            return
        lane.waiting.add(task)
        call = asyncio.get_running_loop().create_task(self._call(lane, task))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def close(self) -> None:
        """Wait for no more answers. The worker goes on with what has reached it."""
        self._closed = True
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        self._lanes.clear()
        if lane is not None:
            await lane.client.aclose()

    def _lane(self) -> _Lane:
        """That of the running event loop; connections belong to their loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._lanes:
            limits = httpx.Limits(max_connections=MAX_CONCURRENT_CALLS)
            client = httpx.AsyncClient(
                headers=self._headers,
                # An answer comes when the run waits or has ended, and that takes what it takes.
                timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
                transport=self._transport or httpx.AsyncHTTPTransport(retries=CONNECT_TRIES, limits=limits),
                trust_env=False,  # a proxy of the environment is for the outside world
            )
            self._lanes[loop] = _Lane(client=client, places=asyncio.Semaphore(MAX_CONCURRENT_CALLS))
        return self._lanes[loop]

    async def _call(self, lane: _Lane, task: Task) -> None:
        try:
            async with lane.places:
                lane.waiting.discard(task)
                answer = await lane.client.post(self.worker.of(task), content=body_of(task))
        except Exception as error:  # the run is in the store, and the tick brings it back
            self._missed(task, type(error).__name__, f"{type(error).__name__}: {error}")
            return
        # Busy is fine: whoever has the run in hand looks at its inbox before letting it go.
        if not answer.is_success and answer.status_code != httpx.codes.CONFLICT:
            self._missed(task, f"answer {answer.status_code}", f"it answered {answer.status_code}")

    def _missed(self, task: Task, kind: str, why: str) -> None:
        self.failed.add(kind, self._clock.now())
        _log.warning(
            "the worker at %s did not take a call for run %s, it comes late: %s",
            self.worker.url,
            task.run_id,
            why,
            extra={"run_id": task.run_id},
        )
