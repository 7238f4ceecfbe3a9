"""Cloud Tasks as its clients see it: the real protocol over a real socket, and calls over HTTP.

It refuses a name that it has seen, holds a task until its time (at most 30 days), and makes a call again until it is
answered with 2xx, not before Retry-After. Time is the test's: nothing is delivered but when the test says so.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

import httpx
from google.cloud.tasks_v2 import CloudTasksAsyncClient, CreateTaskRequest, Task
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcAsyncIOTransport

from tinyworkflow_core.testing import VirtualClock

grpc: Any = import_module("grpc")  # untyped
aio: Any = import_module("grpc.aio")

REPLY_LOST = object()
HANGS = object()


@dataclass
class Waiting:
    """A task that the queue still has."""

    name: str
    task: Task
    due: datetime
    calls: int = 0

    @property
    def path(self) -> str:
        return httpx.URL(self.task.http_request.url).path

    @property
    def queue(self) -> str:
        return self.name.split("/")[5]


class CloudTasks:
    """One project's queues, whatever they are called. `token` makes the identity token that a task asks for."""

    def __init__(self, clock: VirtualClock, token: Callable[[str, str], str]) -> None:
        self.clock = clock
        self.worker: httpx.AsyncClient | None = None
        self.waiting: list[Waiting] = []
        self.answers: list[tuple[str, int]] = []
        """Path and status of every call that was made."""
        self.created = 0
        self.refused = 0
        self.troubles: list[Any] = []
        """What happens to the next requests, one for each: a status code, REPLY_LOST, HANGS."""
        self._token = token
        self._names: set[str] = set()
        self._address = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[CloudTasks]:
        """While it answers."""
        server = aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            self._create, request_deserializer=CreateTaskRequest.deserialize, response_serializer=Task.serialize
        )
        service = grpc.method_handlers_generic_handler("google.cloud.tasks.v2.CloudTasks", {"CreateTask": handler})
        server.add_generic_rpc_handlers((service,))
        self._address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    def client(self) -> CloudTasksAsyncClient:
        """A client of the real library."""
        channel = aio.insecure_channel(self._address)
        return CloudTasksAsyncClient(transport=CloudTasksGrpcAsyncIOTransport(channel=channel))

    async def _create(self, request: CreateTaskRequest, context: Any) -> Task:
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is HANGS:
            await import_module("asyncio").sleep(60)
        if isinstance(trouble, grpc.StatusCode):
            await context.abort(trouble, "as the test wants it")
        task, now = request.task, self.clock.now()
        self.created += 1
        name = task.name or f"{request.parent}/tasks/unnamed-{self.created}"
        assert re.fullmatch(re.escape(request.parent) + "/tasks/[A-Za-z0-9_-]{1,500}", name), name
        assert timedelta(seconds=15) <= task.dispatch_deadline <= timedelta(minutes=30)
        if name in self._names:
            self.refused += 1
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "a task of this name exists, or existed recently")
        due = max(now, task.schedule_time or now)
        if due - now > timedelta(days=30):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the schedule time is too far in the future")
        self._names.add(name)
        self.waiting.append(Waiting(name, task, due))
        if trouble is REPLY_LOST:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply was lost")
        return task

    # --- what the test lets happen ------------------------------------------------------------

    @property
    def next(self) -> Waiting:
        """The task that is due first."""
        return min(self.waiting, key=lambda one: one.due)

    def lose_next(self) -> Waiting:
        """That task is gone, and its name stays taken."""
        lost = self.next
        self.waiting.remove(lost)
        return lost

    async def deliver(self, one: Waiting | None = None, *, late: timedelta = timedelta(0)) -> int:
        """Make the call of that task (else of the next one) when it is due, or `late`. Returns the status."""
        one = one or self.next
        self.clock.move_to(one.due + late)
        asked = one.task.http_request
        headers = dict(asked.headers)
        headers["Authorization"] = (
            f"Bearer {self._token(asked.oidc_token.service_account_email, asked.oidc_token.audience)}"
        )
        assert self.worker is not None
        answer = await self.worker.request(asked.http_method.name, asked.url, content=asked.body, headers=headers)
        one.calls += 1
        self.answers.append((one.path, answer.status_code))
        if not answer.is_success:
            one.due = self.clock.now() + timedelta(seconds=max(0.1, float(answer.headers.get("retry-after", 0))))
        elif one in self.waiting:
            self.waiting.remove(one)
        return answer.status_code

    async def deliver_all(self, most: int = 50) -> None:
        """Make calls until nothing waits."""
        for _ in range(most):
            if not self.waiting:
                return
            await self.deliver()
        raise AssertionError(f"still waiting: {self.waiting}")
