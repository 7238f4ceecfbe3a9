"""CloudTasksDispatcher: makes calls through Google Cloud Tasks, each one task that posts to the worker service.

The queue calls again until a call is answered with 2xx, so a process that dies, a deploy and a worker that is away cost
time and nothing else. What could not be handed to the queue the tick finds.

**Names.** Cloud Tasks refuses a name that it has seen, also when that task is long done: for up to 24 hours. So a name
may only be given to a wake-up that an earlier one of the same name makes needless *even if that one has run*; a wake-up
that is swallowed leaves its run asleep until a tick, one that comes twice is answered in milliseconds.

- A wake-up for later is named by run and moment. A run that waits for a month and gets a signal every minute asks for
  the same moment each time, and has one task. The task of that name has not run when it is asked for again, because it
  does not run before its moment. Only close to the moment might it have: clocks differ, the queue's may be ahead, and
  the worker, finding nothing due, would ask again and be refused. So within CLOSE of its moment a wake-up has no name.
- A wake-up for now has no name. It says "something is new", which is never the same news twice: the run may have been
  looked at, and left, between two signals in one millisecond. It is also the faster request of the two.
- An attempt of an activity has a name of its own, made afresh with each hand-out. The same (run, generation, activity,
  attempt) can rightly be handed out again: after a retry from the point of failure, or for a new run under the id of
  one that was deleted. The name is for the requests of one hand-out: a reply that got lost does not start a second
  attempt.

All names are hashes, as Cloud Tasks wants them spread.

**Far moments.** A task lies at most 30 days. For a later moment the task is due on the 29th day at most; its call finds
nothing due and asks again. Such days are whole days, so that many askers share one task here, too.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import importlib.util
import logging
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any

from ..clock import Clock, fresh_id
from ..dispatcher import FailedCalls, Perform, Task
from ..errors import ConfigurationError
from ..records import dataclass
from .worker import WorkerAddress, body_of

_log = logging.getLogger("tinyworkflow.dispatch")

LONGEST = timedelta(days=29)
"""How far ahead a task may lie; Cloud Tasks takes 30 days."""
CLOSE = timedelta(minutes=1)
"""More than clocks differ."""
DISPATCH_DEADLINE = timedelta(minutes=30)
"""How long the queue waits for an answer, the longest there is: it makes a call again that it no longer waits for."""
CALL_SECONDS = 2.0
"""The longest that one try of handing a task over may take."""
TOTAL_SECONDS = 6.0
"""The longest that all of them may take: a person may wait for the answer meanwhile."""
SHORT_SECONDS = 0.5
"""The same for a while after it failed: a run that starts a hundred others must not wait for a queue that is away a
hundred times."""
SHORT_FOR_SECONDS = 15.0

_QUEUE = re.compile(r"projects/[^/\s]+/locations/[^/\s]+/queues/[A-Za-z0-9-]{1,100}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True, slots=True)
class _Google:
    """The parts of the client library in use."""

    tasks: ModuleType
    errors: ModuleType
    retry: Any
    timeout: Any


@functools.cache
def _google() -> _Google:
    errors: Any = importlib.import_module("google.api_core.exceptions")
    transient = (
        errors.ServiceUnavailable,
        errors.DeadlineExceeded,
        errors.InternalServerError,
        errors.TooManyRequests,
        errors.Aborted,
    )
    return _Google(
        tasks=importlib.import_module("google.cloud.tasks_v2"),
        errors=errors,
        # create_task has no retry by itself.
        retry=importlib.import_module("google.api_core.retry_async").AsyncRetry(
            predicate=importlib.import_module("google.api_core.retry").if_exception_type(*transient),
            initial=0.1,
            maximum=1.0,
            multiplier=2.0,
            timeout=TOTAL_SECONDS,
        ),
        # For each try; a number would be taken for the time of all tries together.
        timeout=importlib.import_module("google.api_core.timeout").ConstantTimeout(CALL_SECONDS),
    )


class CloudTasksDispatcher:
    """Hands every call to a queue.

    - queue: `projects/P/locations/L/queues/Q`, for runs. activity_queue: for attempts that are calls of their own, so
      that they do not stand in the way of runs, and may have limits of their own; the same queue unless given.
    - worker: the service that is called; tasks carry an OIDC token for it (its URL is the audience).
    - invoker: e-mail of the service account that the token is for. The account of whoever dispatches needs
      roles/cloudtasks.enqueuer, and roles/iam.serviceAccountUser on the invoker.
    - client: makes a CloudTasksAsyncClient, in the event loop that will use it; for emulators and tests.

    Nothing connects before the first dispatch, and each event loop has a client of its own. Raises ConfigurationError
    naming the environment variable of a value that does not fit, and when google-cloud-tasks is not installed.
    """

    def __init__(
        self,
        *,
        queue: str,
        worker: WorkerAddress,
        invoker: str,
        clock: Clock,
        activity_queue: str | None = None,
        client: Callable[[], Any] | None = None,
    ) -> None:
        self.queue = _queue("TINYWORKFLOW_QUEUE", queue)
        self.activity_queue = _queue("TINYWORKFLOW_ACTIVITY_QUEUE", activity_queue or queue)
        if not worker.is_safe:
            raise ConfigurationError("TINYWORKFLOW_WORKER_URL: tasks carry a token, so the worker's URL is https://…")
        if not _EMAIL.fullmatch(invoker):
            raise ConfigurationError("TINYWORKFLOW_INVOKER: the e-mail address of a service account is needed")
        if not _is_installed():
            raise ConfigurationError(
                "TINYWORKFLOW_DISPATCHER=cloud-tasks needs google-cloud-tasks: pip install 'tinyworkflow-core[gcp]'"
            )
        self.worker = worker
        self.failed = FailedCalls()
        self.invoker = invoker
        self._clock = clock
        self._new_client = client or _client
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._short_until = 0.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, clock: Clock) -> CloudTasksDispatcher:
        """By TINYWORKFLOW_QUEUE, TINYWORKFLOW_ACTIVITY_QUEUE, TINYWORKFLOW_WORKER_URL and TINYWORKFLOW_INVOKER.
        Raises ConfigurationError."""
        return cls(
            queue=environ.get("TINYWORKFLOW_QUEUE", "").strip(),
            activity_queue=environ.get("TINYWORKFLOW_ACTIVITY_QUEUE", "").strip() or None,
            worker=WorkerAddress.from_env(environ),
            invoker=environ.get("TINYWORKFLOW_INVOKER", "").strip(),
            clock=clock,
        )

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """See the port. Returns when the queue has the task, after TOTAL_SECONDS at the latest."""
        try:
            client = self._client()  # not under the timeout: the first import takes its time
            failed_lately = time.monotonic() < self._short_until
            async with asyncio.timeout(SHORT_SECONDS if failed_lately else TOTAL_SECONDS):
                await self._create(client, self._parent(task), self._task(task, at, self._clock.now()))
            self._short_until = 0.0
        except Exception as error:  # the port's promise: nobody who dispatches fails by it
            self._short_until = time.monotonic() + SHORT_FOR_SECONDS
            self.failed.add(type(error).__name__, self._clock.now())
            _log.error(
                "a call for run %s could not be handed to %s, it comes late: %s: %s",
                task.run_id,
                self._parent(task),
                type(error).__name__,
                error,
                extra={"run_id": task.run_id},
            )

    async def close(self) -> None:
        """Give back the connections. What the queue has it carries out."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        self._clients.clear()  # those of other loops can be closed by nobody else's
        if client is not None:
            await client.transport.close()

    async def _create(self, client: Any, queue: str, content: dict[str, Any]) -> None:
        google = _google()
        try:
            await client.create_task(
                request={"parent": queue, "task": content}, retry=google.retry, timeout=google.timeout
            )
        except google.errors.AlreadyExists:
            pass  # the call is asked for: by somebody else, or by a try of ours whose reply was lost

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for old in [one for one in self._clients if one.is_closed()]:
                self._clients.pop(old, None)
            self._clients[loop] = self._new_client()
        return self._clients[loop]

    def _parent(self, task: Task) -> str:
        return self.activity_queue if isinstance(task, Perform) else self.queue

    def _task(self, task: Task, at: datetime | None, now: datetime) -> dict[str, Any]:
        """The task as Cloud Tasks takes it."""
        content: dict[str, Any] = {
            "http_request": {
                "http_method": "POST",
                "url": self.worker.of(task),
                "headers": {"Content-Type": "application/json"},
                "body": body_of(task),
                "oidc_token": {"service_account_email": self.invoker, "audience": self.worker.url},
            },
            "dispatch_deadline": DISPATCH_DEADLINE,
        }
        when = None if at is None or at <= now else _within_reach(at, now)
        if when is not None:
            content["schedule_time"] = when
        if (name := _name(task, at, when, now)) is not None:
            content["name"] = f"{self._parent(task)}/tasks/{name}"
        return content


def _within_reach(at: datetime, now: datetime) -> datetime:
    """That moment, or a midnight on the way to it, the same for all who ask on one day."""
    if at - now <= LONGEST:
        return at
    return (now + LONGEST).replace(hour=0, minute=0, second=0, microsecond=0)


def _name(task: Task, at: datetime | None, when: datetime | None, now: datetime) -> str | None:
    """The name that the module's docstring speaks of; None leaves it to Cloud Tasks."""
    if isinstance(task, Perform):
        return fresh_id(32)
    if at is None or when is None or when - now <= CLOSE:
        return None
    text = f"{task.run_id}\n{at.isoformat()}\n{when.isoformat()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _queue(variable: str, name: str) -> str:
    if not _QUEUE.fullmatch(name):
        raise ConfigurationError(f"{variable}: projects/PROJECT/locations/PLACE/queues/QUEUE is needed, not {name!r}")
    return name


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("google.cloud.tasks_v2") is not None
    except ModuleNotFoundError:  # not even its parent is there
        return False


def _client() -> Any:
    return _google().tasks.CloudTasksAsyncClient()
