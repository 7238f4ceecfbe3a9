"""WorkflowClient: starting runs, looking at them, and talking to them. It writes to the store and asks a dispatcher
for the rest.

Nothing here runs a workflow. `TinyWorkflowClient` (app.py) is this client with a store by URL and a worker of its own.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from . import steering, talking
from .clock import Clock, Duration, fresh_id, seconds
from .dispatcher import Advance, Dispatcher
from .engine.commands import RUN_ID
from .engine.context import ScheduleInfo
from .engine.history import RunStarted
from .engine.replay import ENGINE, PYTHON
from .errors import (
    IdempotencyConflictError,
    InvalidInputError,
    PayloadTooLargeError,
    RunClosedError,
    RunExistsError,
    RunNotFoundError,
    RunStateError,
    SerializationError,
    WorkflowCancelledError,
    WorkflowFailedError,
)
from .registry import Registry, WorkflowDefinition
from .serialization import Codec, Failure, digest
from .store import DeliveryOutcome, Message, MessageKind, Notifies, Run, RunQuery, RunState, Status, Store
from .talking import POLL_SECONDS
from .timeline import WorkflowEvent, WorkflowExecution, event_view, run_view

_EVENT_OVERHEAD = 1000
"""Bytes of a history document besides what a message brings."""


class WorkflowClient:
    """A client of one store. Safe for any number of concurrent calls in one event loop."""

    def __init__(self, store: Store, dispatcher: Dispatcher, registry: Registry, *, codec: Codec, clock: Clock) -> None:
        self.store = store
        self._notifies = store if isinstance(store, Notifies) else None  # asking takes as long as to read a run
        self.dispatcher = dispatcher
        self.registry = registry
        self.codec = codec
        self.clock = clock

    # --- starting -----------------------------------------------------------------------------

    async def start_workflow(
        self,
        workflow_name: str | WorkflowDefinition[Any],
        input_data: Any = None,
        workflow_id: str | None = None,
        wait: bool = False,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        version: int | None = None,
        start_delay: Duration | None = None,
        attributes: Mapping[str, Any] | None = None,
        on_conflict: Literal["fail", "use_existing"] = "fail",
        schedule: ScheduleInfo | None = None,
    ) -> str:
        """Start a run and return its run_id. With `wait` it returns when the run has completed.

        - The run exists, whole, when this returns; before that nothing is stored.
        - idempotency_key: the same key and request give the same run; the same key with another request raises
          IdempotencyConflictError.
        - run_id: raises RunExistsError when it is taken, unless on_conflict="use_existing". It is a key of its own, so
          it and idempotency_key exclude each other.
        - schedule: what the run finds in `ctx.schedule`; schedules give it.
        - Raises UnknownWorkflowError, InvalidInputError, SerializationError, and with `wait` WorkflowFailedError.
        """
        name = workflow_name if isinstance(workflow_name, str) else workflow_name.name
        definition = self.registry.workflow(name, version)
        text = self.codec.encode(definition.validate(input_data))
        delay = None if start_delay is None else seconds(start_delay)
        request = None
        if idempotency_key is not None:
            said = [name, version, self.codec.plaintext(text), workflow_id, dict(attributes or {}), delay]
            request = self.codec.fingerprint(self.codec.encode(said))
        elif workflow_id is not None or attributes:
            self.codec.encode([workflow_id, dict(attributes or {})])  # raises for what cannot be stored
        run_id = _run_id(name, run_id, idempotency_key)
        now = self.clock.now()
        starts_at = now if delay is None else now + timedelta(seconds=delay)
        run = Run(
            run_id=run_id,
            workflow_id=workflow_id or run_id,
            name=name,
            version=definition.version,
            input=text,
            created_at=now,
            wake_at=starts_at,
            attributes=_attributes(attributes),
            request_digest=request,
        )
        started = RunStarted(
            at=starts_at,
            name=name,
            version=definition.version,
            input=text,
            engine=ENGINE,
            python=PYTHON,
            fingerprint=definition.fingerprint,
            deadline=None if definition.timeout is None else starts_at + timedelta(seconds=definition.timeout),
            schedule_id=None if schedule is None else schedule.id,
            scheduled_at=None if schedule is None else schedule.scheduled_at,
            interval_start=None if schedule is None else schedule.interval_start,
            interval_end=None if schedule is None else schedule.interval_end,
        )
        if not await self.store.create(run, [started]):
            await self._check_existing(run, idempotency_key, on_conflict)
        await self.dispatcher.dispatch(Advance(run_id=run_id), at=starts_at if start_delay is not None else None)
        if wait:
            await self.get_result(run_id)
        return run_id

    async def _check_existing(self, run: Run, idempotency_key: str | None, on_conflict: str) -> None:
        if idempotency_key is not None:
            existing = await self.store.get(run.run_id)
            if existing is not None and existing.request_digest != run.request_digest:
                raise IdempotencyConflictError(
                    "this idempotency key was used for another request; take a new key for a new request",
                    run_id=run.run_id,
                )
        elif on_conflict != "use_existing":
            raise RunExistsError(f"run_id {run.run_id!r} is taken", run_id=run.run_id)

    # --- looking ------------------------------------------------------------------------------

    async def get_result(self, run_id: str, timeout: Duration | None = None) -> Any:
        """Wait until the run has ended and return what its workflow returned.

        Raises WorkflowFailedError (its cause is the workflow's own exception where that can be rebuilt),
        WorkflowCancelledError, RunNotFoundError, and TimeoutError after `timeout`.
        """
        if timeout is None:
            run = await self._wait_closed(run_id)
        else:
            async with asyncio.timeout(seconds(timeout)):
                run = await self._wait_closed(run_id)
        if run.status is Status.COMPLETED:
            return self.codec.decode(run.output or "null")
        if run.status is Status.CANCELLED:
            raise WorkflowCancelledError(f"run {run_id!r} was cancelled", run_id=run_id)
        stored = run.error or Failure(type="Terminated", message="terminated by an operator")
        failure = self.codec.opened(stored)
        try:
            cause: Exception = self.codec.exception(stored)
        except SerializationError as unreadable:
            cause = unreadable
        raise WorkflowFailedError(
            f"run {run_id!r} {run.status}: {failure.type}: {failure.message}", run_id=run_id
        ) from cause

    async def _wait_closed(self, run_id: str) -> Run:
        changed = asyncio.Event()
        unsubscribe = None
        if self._notifies is not None:
            unsubscribe = self._notifies.subscribe(lambda _, ended: changed.set() if ended else None, run_id=run_id)
        try:
            looks = 0
            while True:
                changed.clear()
                run = await self._run(run_id)
                if run.status.closed:
                    return run
                pause = POLL_SECONDS[-1 if unsubscribe else min(looks, len(POLL_SECONDS) - 1)]
                looks += 1
                timer = asyncio.get_running_loop().call_later(pause, changed.set)
                await changed.wait()
                timer.cancel()
        finally:
            if unsubscribe is not None:
                unsubscribe()

    async def get_workflow_status(self, run_id: str) -> WorkflowExecution:
        """The run as it stands. Raises RunNotFoundError."""
        return self._view(await self._run(run_id))

    async def list_workflow_executions(
        self,
        status: str | None = None,
        workflow_name: str | None = None,
        limit: int = 100,
        offset: int = 0,
        *,
        workflow_id: str | None = None,
        parent_run_id: str | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        attributes: Mapping[str, Any] | None = None,
        cursor: str | None = None,
    ) -> list[WorkflowExecution]:
        """Runs that fit, newest first."""
        query = RunQuery(
            status=None if status is None else Status(status),
            name=workflow_name,
            workflow_id=workflow_id,
            parent_run_id=parent_run_id,
            started_after=started_after,
            started_before=started_before,
            attributes=attributes or {},
            limit=limit,
            offset=offset,
            cursor=cursor,
        )
        return [self._view(run) for run in (await self.store.list(query)).items]

    async def get_workflow_events(self, run_id: str, limit: int | None = None) -> list[WorkflowEvent]:
        """The run's history, oldest first, as plain data: `event_id` from 1, `type`, `at`, and what the event says."""
        state = await self._load(run_id)
        return [event_view(i, event, self.codec) for i, event in enumerate(state.history[:limit], start=1)]

    def list_registered_workflows(self) -> list[str]:
        """Names of the workflows that can be started here."""
        return sorted({one.name for one in self.registry.workflows()})

    def list_registered_activities(self) -> list[str]:
        """Names of the activities declared here."""
        return [one.name for one in self.registry.activities()]

    # --- talking ------------------------------------------------------------------------------

    async def send_signal(self, run_id: str, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        """Send a signal. The same message_id twice counts once. Raises RunNotFoundError, RunClosedError,
        PayloadTooLargeError."""
        if not name:
            raise InvalidInputError("name: a signal needs a name")
        body = {"name": name, "payload": self.codec.encode(payload)}
        await self._deliver(run_id, MessageKind.SIGNAL, f"signal/{message_id or fresh_id(32)}", body)

    async def cancel_workflow(self, run_id: str, reason: str | None = None) -> None:
        """Ask the run to end: its workflow meets asyncio.CancelledError and may clean up. A second request is a no-op.

        Raises RunNotFoundError, RunClosedError, PayloadTooLargeError.
        """
        await self._deliver(run_id, MessageKind.CANCEL, "cancel", self._reason(reason))

    async def query_workflow(self, run_id: str, name: str, *args: Any, **kwargs: Any) -> Any:
        """Ask the run's own code, by replaying it here: nothing is written, and the run need not be awake. Also for
        runs that have ended, as far as their history is kept.

        Raises RunNotFoundError, UnknownWorkflowError, QueryError, NonDeterminismError, and what the handler raises.
        """
        return talking.query(await self._load(run_id), self.registry, self.codec, name, args, kwargs)

    async def update_workflow(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        update_id: str | None = None,
        timeout: Duration | None = None,
    ) -> Any:
        """Have the run do something, and wait for what its handler gives.

        - The update's validator is asked first, here; one that it refuses raises UpdateRejectedError and is nowhere
          recorded. The run asks it again when the update's turn comes.
        - The same update_id twice counts once, and gives the same answer for as long as the history holds it.
        - Raises RunNotFoundError, RunClosedError (also when the run ends before it answers), TimeoutError, and what the
          handler raises.
        """
        message_id = f"update/{update_id or fresh_id(32)}"
        state = await self._load(run_id)
        answer = talking.answer_of(state, message_id)
        if answer is None:
            text = self.codec.encode(payload)
            if not state.run.status.closed and not talking.is_in_hand(state, message_id):
                talking.check_update(state, self.registry, self.codec, name, text)
            await self._deliver(run_id, MessageKind.UPDATE, message_id, {"name": name, "payload": text})
            async with asyncio.timeout(None if timeout is None else seconds(timeout)):
                answer = await talking.wait_answered(self.store, run_id, message_id)
        return talking.value_of(answer, self.codec, run_id=run_id, name=name)

    # --- steering -----------------------------------------------------------------------------

    async def suspend_workflow(self, run_id: str, reason: str | None = None, *, message_id: str | None = None) -> None:
        """Put the run aside: it takes no further step until it is resumed. Activities at work come to their end;
        messages wait. The same message_id twice counts once. Raises RunNotFoundError, RunClosedError."""
        await self._deliver(run_id, MessageKind.SUSPEND, _steering_id(message_id, "suspend"), self._reason(reason))

    async def resume_workflow(self, run_id: str, *, message_id: str | None = None) -> None:
        """Let a suspended run go on, or have a parked one tried again. The same message_id twice counts once. Raises
        RunNotFoundError, RunClosedError."""
        await self._deliver(run_id, MessageKind.RESUME, _steering_id(message_id, "resume"), {})

    async def terminate_workflow(self, run_id: str, reason: str | None = None) -> None:
        """End the run by force: its code is not asked, nothing is compensated, children follow their on_parent_close.
        Works for parked and suspended runs too. Raises RunNotFoundError, RunClosedError."""
        await self._deliver(run_id, MessageKind.TERMINATE, "terminate", self._reason(reason))

    async def retry_workflow(self, run_id: str) -> None:
        """Have a failed (or terminated) run go on from the point of failure: what has completed is not run again, the
        steps whose errors brought it down are, with fresh attempts. See steering.retry."""
        await steering.retry(self.store, self.dispatcher, run_id, clock=self.clock)

    async def fork_workflow(
        self, run_id: str, at_event: int, input_data: Any = None, *, token: str | None = None
    ) -> str:
        """Start a new run from the first `at_event` events of another; returns its run_id. See steering.fork."""
        return await steering.fork(
            self.store,
            self.dispatcher,
            self.registry,
            run_id,
            at_event,
            input_data,
            clock=self.clock,
            codec=self.codec,
            token=token,
        )

    async def delete_workflow(self, run_id: str) -> None:
        """Forget a run that has ended: record, history and all. Raises RunNotFoundError, RunStateError while it is
        open."""
        run = await self._run(run_id)
        if not run.status.closed:
            raise RunStateError(
                f"run {run_id!r} is {run.status}: only one that has ended can be deleted", run_id=run_id
            )
        await self.store.purge(run_id)

    async def cleanup_old_workflows(self, days: float = 30) -> int:
        """Forget the runs that ended more than so many days ago: record, history and all. Returns how many."""
        return await steering.forget_old(self.store, before=self.clock.now() - timedelta(days=days))

    async def _deliver(self, run_id: str, kind: MessageKind, message_id: str, body: Mapping[str, Any]) -> None:
        message = Message(id=message_id, kind=kind, received_at=self.clock.now(), body=body)
        check_fits(self.store, message)
        delivery = await self.store.deliver(run_id, message)
        if delivery.outcome is DeliveryOutcome.UNKNOWN:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        if delivery.outcome is DeliveryOutcome.CLOSED:
            raise RunClosedError(f"run {run_id!r} has ended", run_id=run_id)
        await self.dispatcher.dispatch(Advance(run_id=run_id))

    # --- small parts --------------------------------------------------------------------------

    def _reason(self, reason: str | None) -> dict[str, str | None]:
        return {"reason": self.codec.seal_text(reason)}

    async def _load(self, run_id: str) -> RunState:
        state = await self.store.load(run_id)
        if state is None:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        return state

    async def _run(self, run_id: str) -> Run:
        run = await self.store.get(run_id)
        if run is None:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        return run

    def _view(self, run: Run) -> WorkflowExecution:
        return run_view(run, self.registry, self.codec)


def check_fits(store: Store, message: Message) -> None:
    """Raise PayloadTooLargeError for a message whose event no history could take: it would hold up its run for ever."""
    text = message.id + json.dumps(dict(message.body), ensure_ascii=False)
    size, limit = len(text.encode(errors="surrogatepass")), store.max_event_bytes - _EVENT_OVERHEAD
    if size > limit:
        raise PayloadTooLargeError(f"the message takes {size} bytes, over the limit of {limit}")


def _steering_id(message_id: str | None, kind: str) -> str:
    # The kind comes last: messages of one moment are read in the order of their ids, and whoever names them by rising
    # numbers wants a resumption after the suspension that it follows.
    return f"steer/{message_id or fresh_id(32)}/{kind}"


def _run_id(name: str, run_id: str | None, idempotency_key: str | None) -> str:
    if run_id is None:
        return f"{name}_{fresh_id(12) if idempotency_key is None else _hash(name, idempotency_key)}"
    if idempotency_key is not None:
        raise InvalidInputError("run_id, idempotency_key: give one of them; each by itself makes a start unrepeatable")
    if not RUN_ID.fullmatch(run_id):
        raise InvalidInputError(
            f"run_id: {run_id!r} does not fit; use 1 to 200 letters, digits and . _ : @ + = ~ -, "
            "beginning with a letter or digit"
        )
    return run_id


def _hash(name: str, idempotency_key: str) -> str:
    return digest(f"{name}\0{idempotency_key}") + digest(f"{idempotency_key}\0{name}")


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    for key, value in (attributes or {}).items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | bool):
            raise InvalidInputError(f"attributes: {key!r} must be text, with a text, number or boolean as its value")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInputError(f"attributes: {key!r} is {value}, which no store can search for")
    return dict(attributes or {})
