"""App: the composition root. It opens the store, and puts client, advancer, activities and dispatcher together.

Everything else is given what it needs; only this module chooses. Nothing connects, starts a thread or binds to an
event loop before the first call, because a function's module is imported before its server forks.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal

from . import approvals, ticking
from .activities import MAX_CONCURRENT, ActivityRunner
from .advance import Advancer, AdvanceSettings, Performer, Progress, Surroundings
from .client import WorkflowClient
from .clock import Clock, SystemClock, fresh_id, seconds
from .dispatcher import Dispatcher, Perform, Task
from .dispatchers import open_dispatcher
from .dispatchers.local import LocalDispatcher, NoDispatcher
from .encryption import EncryptionCodec
from .errors import ConfigurationError
from .holder import is_gone, new_owner
from .registry import ActivityDefinition, Registry, WorkflowDefinition
from .schedules import Schedules
from .serialization import Codec
from .store import Notifies, Store
from .stores import open_store
from .tracebacks import without_words

_log = logging.getLogger("tinyworkflow.worker")

DEFAULT_DATABASE_URL = "sqlite:///tinyworkflow.db"


class App:
    """One process's TinyWorkflow.

    - store: a store or its URL.
    - workflows: what may run here; all that this process has declared unless given.
    - dispatcher: "local" makes calls in this process, "none" leaves them to others on the same store; or one of
      `dispatchers`, which call a worker elsewhere.
    - settings: times and bounds of a call. request_seconds: the longest that one call may take (None: no bound).
    - api_keys: who may call the HTTP API; without any it answers only to this machine, for local emulation.
    - tick_seconds: how often a worker looks for what is due.
    - replaced_activities, owner, gone: for tests; what to call in place of an activity, by name, and who holds a lease.
    """

    def __init__(
        self,
        store: Store | str = DEFAULT_DATABASE_URL,
        *,
        workflows: Iterable[WorkflowDefinition[Any] | ActivityDefinition[Any, Any]] | None = None,
        dispatcher: Dispatcher | Literal["local", "none"] = "local",
        codec: Codec | None = None,
        clock: Clock | None = None,
        settings: AdvanceSettings | None = None,
        request_seconds: float | None = None,
        max_concurrent_activities: int = MAX_CONCURRENT,
        api_keys: Iterable[str] = (),
        tick_seconds: float = 1.0,
        replaced_activities: Mapping[str, Callable[..., Any]] | None = None,
        owner: Callable[[], str] = new_owner,
        gone: Callable[[str], bool] = is_gone,
    ) -> None:
        self.store = open_store(store) if isinstance(store, str) else store
        self.clock = clock or SystemClock()
        self.codec = codec or Codec()
        self.registry = Registry(workflows)
        self.api_keys = tuple(api_keys)
        self.request_seconds = request_seconds
        self.tick_seconds = tick_seconds
        self._gone = gone
        self.dispatcher = self._dispatcher(dispatcher)
        self.client = WorkflowClient(self.store, self.dispatcher, self.registry, codec=self.codec, clock=self.clock)
        run_activity = ActivityRunner(
            codec=self.codec, clock=self.clock, max_concurrent=max_concurrent_activities, replaced=replaced_activities
        )
        around = Surroundings(
            store=self.store,
            dispatcher=self.dispatcher,
            registry=self.registry,
            codec=self.codec,
            clock=self.clock,
            run_activity=run_activity,
            settings=settings or AdvanceSettings(),
        )
        self._advancer = Advancer(around, new_owner=owner, is_gone=gone)
        self._performer = Performer(around)
        self.schedules = Schedules(self.client)
        self._worker: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **arguments: Any) -> App:
        """An App by the environment; `arguments` win.

        TINYWORKFLOW_DATABASE_URL (default: an SQLite file here), TINYWORKFLOW_API_KEYS (comma-separated),
        TINYWORKFLOW_DISPATCHER (local, none, direct or cloud-tasks; the latter two need more, see
        dispatchers.open_dispatcher), TINYWORKFLOW_LEASE (default 30s), TINYWORKFLOW_REQUEST_TIMEOUT, TINYWORKFLOW_TICK
        (default 1s), TINYWORKFLOW_ENCRYPTION_KEYS (comma-separated, the first one seals). Raises ConfigurationError
        naming the variable that does not fit.
        """
        found: dict[str, Any] = {
            "api_keys": [key for part in environ.get("TINYWORKFLOW_API_KEYS", "").split(",") if (key := part.strip())],
        }
        if "dispatcher" not in arguments:
            found["dispatcher"] = open_dispatcher(environ, clock=arguments.get("clock") or SystemClock())
        if "store" not in arguments:
            try:
                found["store"] = open_store(environ.get("TINYWORKFLOW_DATABASE_URL", DEFAULT_DATABASE_URL))
            except ConfigurationError as error:
                raise ConfigurationError(f"TINYWORKFLOW_DATABASE_URL: {error}") from None
        if "codec" not in arguments:
            found["codec"] = Codec(EncryptionCodec.from_env(environ))
        if (lease := _duration(environ, "TINYWORKFLOW_LEASE")) is not None:
            found["settings"] = AdvanceSettings(lease_seconds=lease)
        if (request := _duration(environ, "TINYWORKFLOW_REQUEST_TIMEOUT")) is not None:
            found["request_seconds"] = request
        if (tick := _duration(environ, "TINYWORKFLOW_TICK")) is not None:
            found["tick_seconds"] = tick
        return cls(**(found | arguments))

    def _dispatcher(self, chosen: Dispatcher | str) -> Dispatcher:
        if chosen == "local":
            return LocalDispatcher(self.carry_out, clock=self.clock)
        if chosen == "none":
            return NoDispatcher()
        if isinstance(chosen, str):
            raise ConfigurationError(
                f"dispatcher {chosen!r} is not known; give 'local', 'none' or a dispatcher of your own"
            )
        return chosen

    async def advance(self, run_id: str) -> Progress:
        """Bring one run as far as it goes within the time that one call may take."""
        deadline = None
        if self.request_seconds is not None:
            deadline = self.clock.now() + timedelta(seconds=self.request_seconds)
        return await self._advancer.advance(run_id, deadline=deadline)

    async def perform(self, task: Perform) -> Progress:
        """Make one attempt of an activity that was handed out as a call of its own."""
        return await self._performer.perform(task)

    async def carry_out(self, task: Task) -> Progress:
        """Make the call that was asked for."""
        return await (self.perform(task) if isinstance(task, Perform) else self.advance(task.run_id))

    async def tick(self, limit: int = ticking.TICK_LIMIT) -> ticking.TickReport:
        """Have everything looked at that is due now, within the time that one call may take."""
        deadline = None
        if self.request_seconds is not None:
            deadline = self.clock.now() + timedelta(seconds=self.request_seconds)
        return await ticking.tick(
            self.store,
            self.dispatcher,
            clock=self.clock,
            is_gone=self._gone,
            limit=limit,
            client=self.client,
            deadline=deadline,
        )

    async def decide(
        self,
        run_id: str,
        key: str | None,
        decision: approvals.Decision,
        *,
        question: approvals.QuestionId | None = None,
    ) -> str:
        """Decide an open approval; see approvals.decide."""
        return await approvals.decide(
            self.store,
            self.dispatcher,
            run_id,
            key,
            decision,
            clock=self.clock,
            codec=self.codec,
            question=question,
        )

    # --- being a worker -----------------------------------------------------------------------

    async def start_worker(self) -> None:
        """From now on this process picks up whatever is due: told by the store where that can, and by its own tick.

        Raises ConfigurationError when the dispatcher does not make calls in this process.
        """
        if self._worker is not None and not self._worker.done():
            return
        if not isinstance(self.dispatcher, LocalDispatcher):
            raise ConfigurationError("a worker makes calls itself: it needs dispatcher='local'")
        if isinstance(self.store, Notifies):
            self._unsubscribe = self.store.subscribe(self.dispatcher.wake)
        self._worker = asyncio.get_running_loop().create_task(self._tick_for_ever(self.dispatcher))

    async def _tick_for_ever(self, dispatcher: LocalDispatcher) -> None:
        while True:
            try:
                await self.tick()
            except Exception as error:  # the store may be away for a while
                _log.error("a tick failed; the next one follows", exc_info=without_words(error))
            # Never in step with the ticks of other processes: what is due would be everybody's at once.
            await dispatcher.rest(self.tick_seconds * (1 - 0.2 * int(fresh_id(4), 16) / 0xFFFF))

    async def stop_worker(self) -> None:
        """Stop picking up work; a store's subscription ends too."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None

    async def close(self) -> None:
        """Stop the worker, let go of the runs in hand, give back the store."""
        await self.stop_worker()
        await self.dispatcher.close()
        self._performer.close()
        await self.store.close()


def _duration(environ: Mapping[str, str], name: str) -> float | None:
    if (text := environ.get(name)) is None:
        return None
    try:
        value = float(text) if text.replace(".", "", 1).isdigit() else seconds(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    if value <= 0:
        raise ConfigurationError(f"{name}: a duration of more than 0 is needed, not {text!r}")
    return value
