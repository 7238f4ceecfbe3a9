"""WorkflowClient: starting runs, looking at them, and talking to them. It writes to the store and asks a dispatcher
for the rest.

Nothing here runs a workflow. `TinyWorkflowClient` (app.py) is this client with a store by URL and a worker of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from . import steering
from .clock import Clock, Duration, fresh_id, seconds
from .dispatcher import Advance, Dispatcher
from .engine.commands import RUN_ID
from .engine.context import RunFacts
from .engine.history import RunStarted, UpdateCompleted, UpdateRejected
from .engine.replay import ENGINE, PYTHON, Execution, Mismatch
from .errors import (
    IdempotencyConflictError,
    InvalidInputError,
    PayloadTooLargeError,
    RunClosedError,
    RunExistsError,
    RunNotFoundError,
    SerializationError,
    UnknownWorkflowError,
    UpdateRejectedError,
    WorkflowCancelledError,
    WorkflowFailedError,
)
from .registry import Registry, WorkflowDefinition
from .serialization import Codec, Failure, digest
from .store import DeliveryOutcome, Message, MessageKind, Notifies, OpenApproval, Run, RunQuery, RunState, Status, Store
from .timeline import WorkflowEvent, event_view

_POLL_SECONDS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""How soon a waiting caller looks again; the last one repeats. Only a fall-back where the store says itself what
changes."""
_EVENT_OVERHEAD = 1000
"""Bytes of a history document besides what a message brings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowExecution:
    """One run as callers see it. `output_data` is `{"result": value}` once completed; `status` is text."""

    run_id: str
    workflow_id: str
    workflow_name: str
    version: int
    status: str
    input_data: Any
    output_data: dict[str, Any] | None
    error: str | None
    error_type: str | None
    problem: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    parent_run_id: str | None
    generation: int
    retry_count: int
    max_retries: int
    custom_status: Any
    attributes: Mapping[str, Any]
    open_approvals: tuple[OpenApproval, ...]

    @property
    def approval_required(self) -> str | None:
        """The key of the oldest open approval."""
        return self.open_approvals[0].key if self.open_approvals else None


class WorkflowClient:
    """A client of one store. Safe for any number of concurrent calls in one event loop."""

    def __init__(self, store: Store, dispatcher: Dispatcher, registry: Registry, *, codec: Codec, clock: Clock) -> None:
        self.store = store
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
    ) -> str:
        """Start a run and return its run_id. With `wait` it returns when the run has completed.

        - The run exists, whole, when this returns; before that nothing is stored.
        - idempotency_key: the same key and request give the same run; the same key with another request raises
          IdempotencyConflictError.
        - run_id: raises RunExistsError when it is taken, unless on_conflict="use_existing". It is a key of its own, so
          it and idempotency_key exclude each other.
        - Raises UnknownWorkflowError, InvalidInputError, SerializationError, and with `wait` WorkflowFailedError.
        """
        name = workflow_name if isinstance(workflow_name, str) else workflow_name.name
        definition = self.registry.workflow(name, version)
        text = self.codec.encode(definition.validate(input_data))
        delay = None if start_delay is None else seconds(start_delay)
        request = self.codec.fingerprint(
            self.codec.encode([name, version, self.codec.plaintext(text), workflow_id, dict(attributes or {}), delay])
        )
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
            request_digest=request if idempotency_key is not None else None,
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
        async with asyncio.timeout(None if timeout is None else seconds(timeout)):
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
        if isinstance(self.store, Notifies):
            unsubscribe = self.store.subscribe(lambda changed_id: changed.set() if changed_id == run_id else None)
        try:
            looks = 0
            while True:
                changed.clear()
                run = await self._run(run_id)
                if run.status.closed:
                    return run
                pause = _POLL_SECONDS[-1 if unsubscribe else min(looks, len(_POLL_SECONDS) - 1)]
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
        """Ask the run's own code, by replaying it here: nothing is written, and the run need not be awake. Also for runs
        that have ended, as far as their history is kept.

        Raises RunNotFoundError, UnknownWorkflowError, QueryError, NonDeterminismError, and what the handler raises.
        """
        execution = self._replayed(await self._load(run_id))
        try:
            return self.codec.decode(execution.query(name, args, kwargs))
        finally:
            execution.close()

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
        if (answer := _answer_of(state, message_id)) is None:
            text = self.codec.encode(payload)
            if not state.run.status.closed:
                self._check_update(state, name, text)
            await self._deliver(run_id, MessageKind.UPDATE, message_id, {"name": name, "payload": text})
            async with asyncio.timeout(None if timeout is None else seconds(timeout)):
                answer = await self._wait_answered(run_id, message_id)
        if isinstance(answer, UpdateCompleted) and answer.result is not None:
            return self.codec.decode(answer.result)
        error = self.codec.exception(cast("Failure", answer.error))
        if isinstance(answer, UpdateRejected):
            raise UpdateRejectedError(f"update {name!r} of run {run_id!r}: {error}", run_id=run_id) from error
        raise error

    def _check_update(self, state: RunState, name: str, payload: str) -> None:
        execution = self._replayed(state)
        try:
            execution.validate_update(name, payload)
        except Exception as error:
            run_id = state.run.run_id
            raise UpdateRejectedError(f"update {name!r} of run {run_id!r}: {error}", run_id=run_id) from error
        finally:
            execution.close()

    async def _wait_answered(self, run_id: str, message_id: str) -> UpdateCompleted | UpdateRejected:
        for pause in itertools.chain(_POLL_SECONDS, itertools.repeat(_POLL_SECONDS[-1])):
            # Reading the whole history is what costs: not while the message has not even been taken up.
            if all(one.id != message_id for one in await self.store.inbox(run_id)):
                state = await self._load(run_id)
                if (answer := _answer_of(state, message_id)) is not None:
                    return answer
                if state.run.status.closed:
                    raise RunClosedError(f"run {run_id!r} ended before it answered the update", run_id=run_id)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _replayed(self, state: RunState) -> Execution:
        run = state.run
        facts = RunFacts(
            run_id=run.run_id,
            workflow_id=run.workflow_id,
            name=run.name,
            version=run.version,
            generation=run.generation,
            parent_run_id=run.parent_run_id,
        )
        execution = Execution(
            self.registry.workflow(run.name, run.version), state.history, facts=facts, codec=self.codec
        )
        if isinstance(execution.outcome, Mismatch):
            execution.close()
            raise execution.outcome.error
        return execution

    # --- steering -----------------------------------------------------------------------------

    async def suspend_workflow(self, run_id: str, reason: str | None = None) -> None:
        """Put the run aside: it takes no further step until it is resumed. Activities at work come to their end;
        messages wait. Raises RunNotFoundError, RunClosedError."""
        await self._deliver(run_id, MessageKind.SUSPEND, f"suspend/{fresh_id(32)}", self._reason(reason))

    async def resume_workflow(self, run_id: str) -> None:
        """Let a suspended run go on, or have a parked one tried again. Raises RunNotFoundError, RunClosedError."""
        await self._deliver(run_id, MessageKind.RESUME, f"resume/{fresh_id(32)}", {})

    async def terminate_workflow(self, run_id: str, reason: str | None = None) -> None:
        """End the run by force: its code is not asked, nothing is compensated, children follow their on_parent_close.
        Works for parked and suspended runs too. Raises RunNotFoundError, RunClosedError."""
        await self._deliver(run_id, MessageKind.TERMINATE, "terminate", self._reason(reason))

    async def retry_workflow(self, run_id: str) -> None:
        """Have a failed (or terminated) run go on from the point of failure: what has completed is not run again, the
        steps whose errors brought it down are, with fresh attempts. See steering.retry."""
        await steering.retry(self.store, self.dispatcher, run_id, clock=self.clock)

    async def fork_workflow(self, run_id: str, at_event: int, input_data: Any = None) -> str:
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
        )

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

    def _shown(self, text: str) -> Any:
        try:
            return self.codec.decode(text)
        except SerializationError:  # its class is gone: one old run must not take the whole list with it
            return self.codec.plain(text)

    def _max_retries(self, run: Run) -> int:
        try:
            policy = self.registry.workflow(run.name, run.version).retry_policy
        except UnknownWorkflowError:  # its code is elsewhere
            return 0
        return 0 if policy is None else policy.max_retries

    def _view(self, run: Run) -> WorkflowExecution:
        return WorkflowExecution(
            run_id=run.run_id,
            workflow_id=run.workflow_id,
            workflow_name=run.name,
            version=run.version,
            status=run.status.value,
            input_data=self._shown(run.input),
            output_data=None if run.output is None else {"result": self._shown(run.output)},
            error=self.codec.opened(run.error).message if run.error else None,
            error_type=run.error.type if run.error else None,
            problem=run.problem,
            created_at=run.created_at,
            started_at=run.started_at,
            completed_at=run.closed_at,
            parent_run_id=run.parent_run_id,
            generation=run.generation,
            retry_count=run.retry_count,
            max_retries=self._max_retries(run),
            custom_status=None if run.custom_status is None else self._shown(run.custom_status),
            attributes=run.attributes,
            open_approvals=tuple(replace(one, title=self.codec.plain_text(one.title)) for one in run.open_approvals),
        )


def check_fits(store: Store, message: Message) -> None:
    """Raise PayloadTooLargeError for a message whose event no history could take: it would hold up its run for ever."""
    text = message.id + json.dumps(dict(message.body), ensure_ascii=False)
    size, limit = len(text.encode(errors="surrogatepass")), store.max_event_bytes - _EVENT_OVERHEAD
    if size > limit:
        raise PayloadTooLargeError(f"the message takes {size} bytes, over the limit of {limit}")


def _answer_of(state: RunState, message_id: str) -> UpdateCompleted | UpdateRejected | None:
    answers = (event for event in state.history if isinstance(event, UpdateCompleted | UpdateRejected))
    return next((one for one in answers if one.message_id == message_id), None)


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
