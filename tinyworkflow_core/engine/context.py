"""WorkflowContext: what workflow code may call.

Everything here is a function of the run's history, so it gives the same answer in every replay. Whatever touches the
world is a command for the journal; waiting is waiting for the event that ends it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random  # noqa: TID251  # only random.Random with a seed, which is the same in every replay
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, cast, overload
from uuid import UUID

from ..clock import Duration, moment, seconds, timestamp
from ..errors import SerializationError
from ..registry import ActivityDefinition
from ..serialization import Codec, digest
from .commands import Command, ExecuteActivity, RequestApproval, RunSideEffect
from .history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ApprovalDecided,
    Event,
    SideEffectRecorded,
    SignalReceived,
)
from .journal import Journal
from .mailbox import Mailbox
from .step import ReplayLogger, Step, cancel_all

P = ParamSpec("P")
R = TypeVar("R")
AsyncActivity = Callable[P, Coroutine[Any, Any, R]]

_log = logging.getLogger("tinyworkflow.workflow")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What a run knows about itself from the start."""

    run_id: str
    workflow_id: str
    name: str
    version: int
    generation: int = 0
    parent_run_id: str | None = None
    retry_count: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """Somebody's decision. Truthy when approved."""

    approved: bool
    by: str | None
    comment: str | None
    data: Any
    at: datetime

    def __bool__(self) -> bool:
        return self.approved


class WorkflowContext:
    """Given to every workflow function as its first argument."""

    def __init__(
        self,
        facts: RunFacts,
        input_data: Any,
        *,
        journal: Journal,
        codec: Codec,
        clock: Callable[[], float],
        next_number: Callable[[], int],
    ) -> None:
        self.run_id = facts.run_id
        self.workflow_id = facts.workflow_id
        self.workflow_name = facts.name
        self.version = facts.version
        self.generation = facts.generation
        self.parent_run_id = facts.parent_run_id
        self.retry_count = facts.retry_count
        self.input_data = input_data
        self.logger = ReplayLogger(_log, {"run_id": facts.run_id, "workflow": facts.name})
        self._journal = journal
        self._codec = codec
        self._clock = clock
        self._next_number = next_number
        self._mailbox = Mailbox()
        self._predicates: list[tuple[Callable[[], Any], asyncio.Future[None]]] = []
        self._handler_tasks: list[asyncio.Task[Any]] = []
        self._failure: BaseException | None = None
        self._unreadable: SerializationError | None = None
        seed = f"{facts.run_id}/{facts.generation}"
        self._random = random.Random(seed)
        self._uuids = random.Random(f"{seed}/uuid")

    # --- facts --------------------------------------------------------------------------------

    def get_input(self, key: str, default: Any = None) -> Any:
        """One entry of the input: an item of a mapping, an attribute of anything else."""
        if isinstance(self.input_data, Mapping):
            return self.input_data.get(key, default)
        return getattr(self.input_data, key, default)

    def now(self) -> datetime:
        """The workflow's time: the moment of the last event, the same in every replay. Aware, UTC."""
        return moment(self._clock())

    def uuid4(self) -> UUID:
        """A random UUID that is the same in every replay."""
        return UUID(int=self._uuids.getrandbits(128), version=4)

    def random(self) -> random.Random:
        """This run's random numbers: seeded by its id, the same in every replay."""
        return self._random

    # --- activities ---------------------------------------------------------------------------

    @overload
    def execute_activity(
        self, fn: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> Step[R]: ...
    @overload
    def execute_activity(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Step[R]: ...
    def execute_activity(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Step[Any]:
        """One durable step: the activity's result, stored before it is seen here, so that it is never run again.

        Raises what the activity raised once its retries are used up; asyncio.CancelledError when the step is cancelled,
        after what was running has ended.
        """
        return self._step(self._activity(fn, args, kwargs))

    def execute_parallel(self, *calls: tuple[Any, ...]) -> Step[list[Any]]:
        """Several activities at once: `(fn, args, kwargs)` each (args and kwargs may be left out). Results in
        argument order.

        The first failure is raised after the others have been cancelled and have ended.
        """
        return self._step(self._parallel([_call(one) for one in calls]))

    async def _activity(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        command_id: int | None = None,
        group: int | None = None,
    ) -> Any:
        definition = _definition(fn)
        try:
            text = self._codec.encode([list(args), kwargs] if kwargs else [list(args)])
        except SerializationError as error:
            raise SerializationError(f"arguments of activity {definition.name!r}: {error}") from None
        command = ExecuteActivity(
            id=command_id or self._journal.next_id(),
            activity=definition,
            args=args,
            kwargs=kwargs,
            input=text,
            digest=digest(text),
            group=group,
        )
        match await self._ended(command):
            case ActivityCompleted(result=result):
                return await self._read(result)
            case ActivityFailed(error=failure):
                raise self._codec.exception(failure)
            case ActivityCancelled():
                raise asyncio.CancelledError
            case event:
                raise AssertionError(f"{event} does not end an activity")

    async def _parallel(self, calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        if not calls:
            return []
        loop = asyncio.get_running_loop()
        ids = [self._journal.next_id() for _ in calls]  # now: other tasks may ask for something before these begin
        tasks = [loop.create_task(self._activity(*call, one, ids[0])) for one, call in zip(ids, calls, strict=True)]
        try:
            _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = [one for one in tasks if one.done() and (one.cancelled() or one.exception())]
        except asyncio.CancelledError:
            await cancel_all(tasks)
            raise
        if not failed:
            return [one.result() for one in tasks]
        await cancel_all(pending)
        return [failed[0].result()]  # raises

    def side_effect(self, fn: Callable[[], Any]) -> Step[Any]:
        """Call `fn` (sync or async, quick) once, and give what it gave, or raise what it raised, in every replay."""
        return self._step(self._side_effect(fn))

    async def _side_effect(self, fn: Callable[[], Any]) -> Any:
        event = await self._ended(RunSideEffect(id=self._journal.next_id(), fn=fn))
        if isinstance(event, SideEffectRecorded) and event.result is not None:
            return await self._read(event.result)
        raise self._codec.exception(cast("Any", event).error)

    async def _read(self, text: str) -> Any:
        try:
            return self._codec.decode(text)
        except SerializationError as error:
            # Its class is gone from this deployment. To raise it here would fail the run for what fitting code can
            # read: the workflow is left standing instead, and the run is parked.
            self._unreadable = self._unreadable or error
            return await asyncio.get_running_loop().create_future()

    async def _ended(self, command: Command) -> Event:
        """The event that ends the command. A cancellation is passed on to it and raised again once it has ended."""
        ended: list[Event] = []
        loop = asyncio.get_running_loop()
        wake: asyncio.Future[None] = loop.create_future()

        def settle(event: Event) -> None:
            ended.append(event)
            if not wake.done():
                wake.set_result(None)

        self._journal.issue(command, settle)
        cancelled: asyncio.CancelledError | None = None
        while not ended:
            try:
                await wake
            except asyncio.CancelledError as error:
                cancelled = error
                self._journal.withdraw(command.id)
                wake = loop.create_future()
        if cancelled is not None:
            raise cancelled
        return ended[0]

    # --- timers -------------------------------------------------------------------------------

    def sleep(self, duration: Duration) -> Step[None]:
        """Wait durably; no process is needed meanwhile. `asyncio.sleep(seconds)` is the same."""
        return self._step(asyncio.sleep(seconds(duration)))

    def sleep_until(self, when: datetime) -> Step[None]:
        """Wait durably until `when` (aware). Returns at once when that has passed."""
        if when.tzinfo is None:
            raise ValueError("sleep_until takes an aware datetime, such as ctx.now() + timedelta(days=1)")
        return self._step(self._sleep_until(timestamp(when)))

    async def _sleep_until(self, when: float) -> None:
        loop = asyncio.get_running_loop()
        wake = loop.create_future()
        handle = loop.call_at(when, _wake, wake)
        try:
            await wake
        finally:
            handle.cancel()

    # --- signals ------------------------------------------------------------------------------

    def wait_for_signal(self, name: str, timeout: Duration | None = None) -> Step[Any]:
        """The payload of the next signal of that name, first in first out; one that came early is kept.

        Raises TimeoutError when none has come within `timeout`.
        """
        return self._step(self._within(timeout, self._mailbox.wait, name))

    def on_signal(self, name: str, handler: Callable[[Any], Any]) -> None:
        """Call `handler(payload)` for every signal of that name, also for those that came before. An async handler runs
        as a task of its own; an exception in a handler fails the run."""
        for call in self._mailbox.handle(name, handler):
            self._run_handler(call)

    def wait_until(self, predicate: Callable[[], Any], timeout: Duration | None = None) -> Step[None]:
        """Wait until `predicate()` is true; it is asked again after every event. TimeoutError after `timeout`."""
        return self._step(self._within(timeout, self._until, predicate))

    async def _until(self, predicate: Callable[[], Any]) -> None:
        if predicate():
            return
        wake = asyncio.get_running_loop().create_future()
        entry = (predicate, wake)
        self._predicates.append(entry)
        try:
            await wake
        finally:
            if entry in self._predicates:
                self._predicates.remove(entry)

    # --- approvals ----------------------------------------------------------------------------

    def wait_for_approval(
        self,
        key: str,
        timeout: Duration | None = None,
        *,
        title: str | None = None,
        details: Any = None,
        approvers: list[str] | tuple[str, ...] | None = None,
        form: Any = None,
    ) -> Step[Approval]:
        """Ask people for a decision under `key`; the run is paused meanwhile and costs nothing.

        - title, details (any storable value) and approvers are shown to those who decide.
        - form: a pydantic model class; its JSON schema describes the `data` of a decision.
        - Raises TimeoutError when nobody has decided within `timeout`; a later decision is then refused.
        """
        return self._step(self._approval(key, timeout, title, details, tuple(approvers or ()), form))

    async def _approval(
        self, key: str, timeout: Duration | None, title: str | None, details: Any, approvers: tuple[str, ...], form: Any
    ) -> Approval:
        open_keys = (p.command.key for p in self._journal.open.values() if isinstance(p.command, RequestApproval))
        if key in open_keys:
            raise ValueError(f"an approval {key!r} is already open in this run; give each its own key")
        command = RequestApproval(
            id=self._journal.next_id(),
            key=key,
            title=title,
            details=None if details is None else self._codec.encode(details),
            approvers=approvers,
            form=None if form is None else self._codec.encode(form.model_json_schema()),
            expires_at=None if timeout is None else self.now() + timedelta(seconds=seconds(timeout)),
        )
        event = await self._within(timeout, self._decided, command)
        data = await self._read(event.data)
        return Approval(approved=event.approved, by=event.by, comment=event.comment, data=data, at=event.at)

    async def _decided(self, command: RequestApproval) -> ApprovalDecided:
        wake = asyncio.get_running_loop().create_future()

        def settle(event: Event) -> None:
            if not wake.done():
                wake.set_result(event)

        self._journal.issue(command, settle)
        try:
            return cast("ApprovalDecided", await wake)
        finally:
            self._journal.withdraw(command.id)

    # --- for the execution --------------------------------------------------------------------

    def _receive(self, event: SignalReceived) -> None:
        if call := self._mailbox.receive(event.name, self._codec.decode(event.payload)):
            self._run_handler(call)

    def _run_handler(self, call: Callable[[], Any]) -> None:
        loop = asyncio.get_running_loop()

        async def run() -> None:
            try:
                result = call()
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                self._failure = self._failure or error

        task = loop.create_task(run())
        self._handler_tasks.append(task)
        task.add_done_callback(self._handler_tasks.remove)

    def _ask_predicates(self) -> None:
        """Wake those whose condition has become true, longest waiting first. Runs when everything else is at rest."""
        for predicate, wake in list(self._predicates):
            try:
                if not wake.done() and predicate():
                    wake.set_result(None)
            except Exception as error:
                wake.set_exception(error)

    def _step(self, coro: Coroutine[Any, Any, R]) -> Step[R]:
        return Step(coro, self._next_number(), self._journal)

    async def _within(self, timeout: Duration | None, wait: Callable[..., Coroutine[Any, Any, R]], *args: Any) -> R:
        if timeout is None:
            return await wait(*args)
        async with asyncio.timeout(seconds(timeout)):
            return await wait(*args)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _definition(fn: Any) -> ActivityDefinition[Any, Any]:
    if isinstance(fn, ActivityDefinition):
        return fn
    name = getattr(fn, "__name__", repr(fn))
    raise TypeError(f"{name} is not an activity: put @activity on it")


def _call(call: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    match call:
        case (fn, args, kwargs):
            return fn, tuple(args), dict(kwargs)
        case (fn, args):
            return fn, tuple(args), {}
        case (fn,):
            return fn, (), {}
        case _:
            raise TypeError(f"execute_parallel takes (activity, args, kwargs) tuples, not {call!r}")
