"""Asking: how workflow code asks for something and waits for it, one coroutine for each kind of command.

The context is the face of this; here is what happens behind it: values become JSON, the command gets its place in the
journal, the event that ends it becomes a result or an exception, and a cancellation is passed on to what it waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar, cast

from ..errors import ChildFailedError, SerializationError
from ..records import dataclass
from ..registry import ActivityDefinition, WorkflowDefinition
from ..serialization import Codec, Failure
from .commands import (
    Command,
    ExecuteActivity,
    ParentClosePolicy,
    RunSideEffect,
    SendMessage,
    StartChild,
    child_run_id,
)
from .history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ChildEnded,
    Event,
    MessageSent,
    SideEffectRecorded,
)
from .journal import Journal, Pending, Since
from .step import cancel_all

S = TypeVar("S")
R = TypeVar("R")

ActivityCall = tuple[Any, tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compensation:
    """What undoes the step `undoes` (a command's id)."""

    activity: ActivityDefinition[Any, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    undoes: int
    since: Since
    """When it was added."""


class Asking:
    """The commands of one run, asked for and waited for."""

    def __init__(self, journal: Journal, codec: Codec, *, run_id: str, generation: int) -> None:
        self.journal = journal
        self.codec = codec
        self.unreadable: SerializationError | None = None
        """Why a stored value could not be read; nothing may be concluded then."""
        self.compensations: list[Compensation] = []
        """In the order in which the steps were done."""
        self._run_id = run_id
        self._generation = generation

    # --- activities ---------------------------------------------------------------------------

    async def activity(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        command_id: int | None = None,
        group: int | None = None,
    ) -> Any:
        """The result of an activity."""
        definition = activity_definition(fn)
        try:
            text = self.codec.encode_arguments(args, kwargs)
        except SerializationError as error:
            raise SerializationError(f"arguments of activity {definition.name!r}: {error}") from None
        place = command_id or self.journal.next_id()
        digest = self.journal.recorded_digest(place, text) or self.codec.fingerprint(text)
        event: Event | None = None
        cancelled: asyncio.CancelledError | None = None
        if self.journal.meet_at_once is not None:
            event = self.journal.meet_at_once(place, ("activity", definition.name, digest))
        if event is None:
            command = ExecuteActivity(
                id=place, activity=definition, args=args, kwargs=kwargs, input=text, digest=digest, group=group
            )
            event, cancelled = await self._end_of(command)
        if isinstance(event, ActivityCompleted) and (definition.compensate is not None or cancelled is None):
            try:
                result = self.codec.decode(event.result)
            except SerializationError as error:
                result = await self._never(error)
            if definition.compensate is not None:  # also when nobody waited for the result any more: it was done
                self.add_compensation(definition.compensate, (result,), {}, place)
            if cancelled is None:
                return result
        if cancelled is not None:
            raise cancelled
        match event:
            case ActivityFailed(error=failure):
                raise caused_by(await self.raised(failure), place)
            case ActivityCancelled():
                raise asyncio.CancelledError
            case event:
                raise AssertionError(f"{event} does not end an activity")

    def add_compensation(
        self, undo: ActivityDefinition[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], undoes: int
    ) -> None:
        """From now on the step `undoes` is undone by that activity when the run will not succeed."""
        since = self.journal.here
        self.compensations.append(Compensation(activity=undo, args=args, kwargs=kwargs, undoes=undoes, since=since))

    async def parallel(self, calls: Sequence[ActivityCall]) -> list[Any]:
        """The results of several activities, in their order."""
        if not calls:
            return []
        loop = asyncio.get_running_loop()
        ids = [self.journal.next_id() for _ in calls]  # now: other tasks may ask for something before these begin
        tasks = [loop.create_task(self.activity(*call, one, ids[0])) for one, call in zip(ids, calls, strict=True)]
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

    async def side_effect(self, fn: Callable[[], Any]) -> Any:
        """What `fn` gave when it was called."""
        command = RunSideEffect(id=self.journal.next_id(), fn=fn)
        event = await self.ended(command)
        if isinstance(event, SideEffectRecorded) and event.result is not None:
            return await self.read(event.result)
        raise caused_by(await self.raised(cast("Any", event).error), command.id)

    # --- other runs ---------------------------------------------------------------------------

    def child_command(
        self, workflow: Any, input_data: Any, run_id: str | None, policy: str, *, waits_for_start: bool
    ) -> StartChild:
        """The command that starts a child run. Raises TypeError, ValueError and SerializationError."""
        name = workflow if isinstance(workflow, str) else getattr(workflow, "name", None)
        if not isinstance(workflow, str | WorkflowDefinition) or not name:
            raise TypeError(f"{workflow!r} is not a workflow: put @workflow on it, or give its name")
        if policy not in ("cancel", "terminate", "abandon"):
            raise ValueError(f"on_parent_close is 'cancel', 'terminate' or 'abandon', not {policy!r}")
        try:
            text = self.codec.encode(input_data)
        except SerializationError as error:
            raise SerializationError(f"input of child workflow {name!r}: {error}") from None
        command_id = self.journal.next_id()
        return StartChild(
            id=command_id,
            name=name,
            input=text,
            digest=self.codec.fingerprint(text),
            run_id=self._child_run_id(command_id, run_id),
            on_parent_close=cast("ParentClosePolicy", policy),
            waits_for_start=waits_for_start,
        )

    def _child_run_id(self, command_id: int, wanted: str | None) -> str:
        def made(again: int) -> str:
            return child_run_id(self._run_id, self._generation, command_id, again, wanted)

        if wanted is not None:  # one that could not be started has none: its id is as free, or as taken, as before
            return made(self.journal.children_lost.get(command_id, 0))
        if self.journal.is_copied(command_id):
            return made(0)
        void, recorded = self.journal.times_void(command_id), self.journal.recorded_child(command_id)
        return next((one for one in map(made, range(void)) if one == recorded), made(void))

    async def child(self, command: StartChild) -> Any:
        """The result of a child run."""
        return await self.child_result(command, await self.ended(command))

    async def child_result(self, command: StartChild, event: Event) -> Any:
        """What the end of the child means for its parent."""
        assert isinstance(event, ChildEnded)
        if event.result is not None:
            return await self.read(event.result)
        error: Exception
        if event.error is not None:
            error = await self.raised(event.error)
        else:
            message = f"child workflow {command.name!r} ({event.run_id}) was {event.status}"
            error = ChildFailedError(message, run_id=event.run_id, type=event.status)
        raise caused_by(error, command.id)

    async def send(self, target: str, name: str | None, payload: Any) -> None:
        """A signal, or without a name a cancellation, to another run."""
        try:
            text = self.codec.encode(payload)
        except SerializationError as error:
            raise SerializationError(f"payload of signal {name!r}: {error}") from None
        command = SendMessage(
            id=self.journal.next_id(), target=target, name=name, payload=text, digest=self.codec.fingerprint(text)
        )
        event = await self.ended(command)
        if isinstance(event, MessageSent) and event.error is not None:
            raise caused_by(await self.raised(event.error), command.id)

    # --- parts of all -------------------------------------------------------------------------

    async def read(self, text: str) -> Any:
        """A stored value."""
        try:
            return self.codec.decode(text)
        except SerializationError as error:
            return await self._never(error)

    async def raised(self, failure: Failure) -> Exception:
        """A stored exception."""
        try:
            return self.codec.exception(failure)
        except SerializationError as error:
            return await self._never(error)

    async def words(self, text: str | None) -> str | None:
        """What somebody said, stored as free text."""
        try:
            return self.codec.unseal_text(text)
        except SerializationError as error:
            return await self._never(error)

    async def _never(self, error: SerializationError) -> NoReturn:
        # Its class is gone from this deployment. To raise it here would fail the run for what fitting code can read:
        # the workflow is left standing instead, and the run is parked.
        self.unreadable = self.unreadable or error
        while True:
            await asyncio.get_running_loop().create_future()

    async def ended(self, command: Command) -> Event:
        """The event that ends the command. A cancellation is passed on to it and raised again once it has ended."""
        event, cancelled = await self._end_of(command)
        if cancelled is not None:
            raise cancelled
        return cast("Event", event)

    async def _end_of(self, command: Command) -> tuple[Event | None, asyncio.CancelledError | None]:
        """The event that ends the command, and the cancellation that was passed on to it."""
        ended: list[Event | None] = []
        loop = asyncio.get_running_loop()
        wake: asyncio.Future[None] = loop.create_future()

        def settle(event: Event | None) -> None:
            ended.append(event)
            if not wake.done():
                wake.set_result(None)

        self.journal.issue(command, settle)
        cancelled: asyncio.CancelledError | None = None
        while not ended:
            try:
                await wake
            except asyncio.CancelledError as error:
                cancelled = error
                wake = loop.create_future()
                self.journal.withdraw(command.id)
        return ended[0], cancelled

    def issue(self, command: Command, settle: Callable[[Any], None]) -> Pending:
        """Ask for the command without waiting."""
        return self.journal.issue(command, settle)


def activity_definition(fn: Any) -> ActivityDefinition[Any, Any]:
    """The activity that workflow code has named. Raises TypeError for what is none."""
    if isinstance(fn, ActivityDefinition):
        return fn
    name = getattr(fn, "__name__", repr(fn))
    raise TypeError(f"{name} is not an activity: put @activity on it")


def caused_by(error: Exception, command_id: int) -> Exception:
    """The exception, marked with the step that raised it: a retry of the run begins there."""
    try:
        error.__tinyworkflow_step__ = command_id  # type: ignore[attr-defined]  # a mark of ours on a stranger
    except AttributeError:  # a class without room for it: the retry then takes the step for a success
        pass
    return error
