"""Execution: one run's workflow code, brought to where its history says it is.

An execution is a fold over events: each one is applied and the loop drained before the next, so how events were
grouped into commits makes no difference. The outcome after any event is a closed union; who owns the lease, the clock
and the store is not known here.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..clock import timestamp
from ..errors import NonDeterminismError, SerializationError
from ..registry import WorkflowDefinition
from ..serialization import Codec, Failure
from .context import RunFacts, WorkflowContext
from .history import (
    ActivityFailed,
    ActivityScheduled,
    ApprovalDecided,
    ApprovalRequested,
    ApprovalWithdrawn,
    CancelRequested,
    Event,
    LeaseTaken,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    SignalReceived,
    TimerStarted,
)
from .journal import Journal, Pending, is_users
from .loop import WorkflowLoop

ENGINE = 1
"""The behaviour number of this engine, recorded in the first event. It changes when the same code and history would no
longer lead to the same commands."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """The workflow returned; `output` is JSON text."""

    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The workflow raised."""

    error: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """A cancellation was asked for and the workflow ended by it."""

    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocked:
    """The workflow waits. `pending` are its open commands in the order in which it asked for them (a live view)."""

    pending: Collection[Pending]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mismatch:
    """Code and history differ: nothing may be concluded from this execution."""

    error: NonDeterminismError


Outcome = Completed | Failed | Cancelled | Blocked | Mismatch


def replay(definition: WorkflowDefinition[Any], history: Sequence[Event], *, facts: RunFacts, codec: Codec) -> Outcome:
    """Where this history leads that code. Runs no activity and leaves nothing behind."""
    execution = Execution(definition, history, facts=facts, codec=codec)
    try:
        return execution.outcome
    finally:
        execution.close()


class Execution:
    """Workflow code that is alive. Build it from a stored history, `step` it with new events, `close` it when done."""

    def __init__(
        self, definition: WorkflowDefinition[Any], history: Sequence[Event], *, facts: RunFacts, codec: Codec
    ) -> None:
        started = history[0] if history else None
        if not isinstance(started, RunStarted):
            raise SerializationError(f"the history of {facts.run_id!r} does not begin with RunStarted")
        self.seen: set[str] = set()
        """Ids of all messages that the history holds."""
        self._codec = codec
        self._started = started
        self._cancel: CancelRequested | None = None
        self.journal = Journal(history)
        self._loop = WorkflowLoop(  # type: ignore[abstract]  # loop.py puts the methods that it forbids in by name
            self.journal, now=timestamp(started.at), on_error=self._log_unhandled
        )
        self._context = WorkflowContext(
            facts,
            codec.decode(started.input),
            journal=self.journal,
            codec=codec,
            clock=self._loop.time,
            next_number=self._loop.next_number,
        )
        self._spun: BaseException | None = None
        self._function = definition.fn
        try:
            self._replay(definition, history)
        except BaseException:
            self.close()
            raise

    def _replay(self, definition: WorkflowDefinition[Any], history: Sequence[Event]) -> None:
        # What the code says after the last event that moved it has not been said before, unless the run was let go
        # since.
        moving = [i for i, event in enumerate(history) if not isinstance(event, _NOTED)]
        self._context.logger.silent = moving[-1] != 0 or len(history) > 1
        with self._loop.running():
            root = definition.call(self._context, self._context.input_data)
            self._root = self._loop.create_task(root, name="workflow")
            self._drain()
            for i, event in enumerate(history[1:], start=1):
                if i == len(history) - 1 and i == moving[-1]:
                    self._context.logger.silent = False
                self._apply(event)
        self._context.logger.silent = False
        self.outcome = self._conclude()

    def step(self, events: Iterable[Event]) -> Outcome:
        """Apply events that have just been stored. Returns the new outcome."""
        with self._loop.running():
            for event in events:
                self._apply(event)
        self.outcome = self._conclude()
        return self.outcome

    def close(self) -> None:
        """Put the code away as if it had never been woken: whatever its `finally` blocks ask for is thrown away."""
        self._context.logger.silent = True
        self._loop.close()

    # --- the fold -----------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        if self._root.done() or self.journal.mismatch is not None:
            return
        if isinstance(event, _NOTED):
            if not isinstance(event, LeaseTaken):
                self.journal.apply(event)
            return
        # Never backwards, whatever the clocks of the functions that recorded the events.
        self._loop.now = max(self._loop.now, timestamp(event.at))
        match event:
            case SignalReceived():
                self.seen.add(event.message_id)
                self._context._receive(event)
            case CancelRequested():
                self.seen.add(event.message_id)
                if self._cancel is None:  # a second one would interrupt the cleanup that the first has led to
                    self._cancel = event
                    self._root.cancel(event.reason)
            case RunCompleted():
                self.journal.note_unfinished()
            case RunFailed() | RunCancelled():
                return  # perhaps from outside, while the code waited
            case _:
                if isinstance(event, ApprovalDecided):
                    self.seen.add(event.message_id)
                self.journal.apply(event)
        if not (isinstance(event, ActivityFailed) and event.retry_at is not None):
            self._drain()

    def _drain(self) -> None:
        try:
            self._loop.drain(self._when_at_rest)
        except (Exception, SystemExit) as error:
            self._spun = error

    def _when_at_rest(self) -> None:
        if not self._root.done():
            self._context._ask_predicates()

    def _conclude(self) -> Outcome:
        if self._context._unreadable is not None:
            raise self._context._unreadable
        if self.journal.mismatch is None and self._root.done():
            self.journal.check_left_over()
        if self.journal.mismatch is not None:
            return Mismatch(error=self._explain(self.journal.mismatch))
        if (broken := self._spun or self._context._failure) is not None:
            return Failed(error=self._codec.failure(broken))
        if not self._root.done():
            return Blocked(pending=self.journal.open.values())
        if self._root.cancelled():
            if self._cancel is not None:
                return Cancelled(reason=self._cancel.reason)
            return Failed(error=self._codec.failure(asyncio.CancelledError("the workflow cancelled itself")))
        if (error := self._root.exception()) is not None:
            return Failed(error=self._codec.failure(error))
        try:
            return Completed(output=self._codec.encode(self._root.result()))
        except SerializationError as unstorable:
            return Failed(error=self._codec.failure(SerializationError(f"result of the workflow: {unstorable}")))

    def _explain(self, error: NonDeterminismError) -> NonDeterminismError:
        if not error.where:
            place = self._place()
            error = NonDeterminismError(step=error.step, recorded=error.recorded, asked=error.asked, where=place)
            self.journal.mismatch = error
        if self._started.python != PYTHON and not hasattr(error, "__notes__"):
            error.add_note(f"The run was started on Python {self._started.python}; this is {PYTHON}.")
        return error

    def _place(self) -> str:
        """file:line where the workflow function, or what it calls, waits; where it is defined once it has ended."""
        code = inspect.unwrap(self._function).__code__
        place = f"{code.co_filename}:{code.co_firstlineno}"
        waiting: Any = None if self._root.done() else self._root.get_coro()
        while frame := getattr(waiting, "cr_frame", None):
            if is_users(frame):
                place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            waiting = waiting.cr_await
        return place

    def _log_unhandled(self, context: dict[str, Any]) -> None:
        self._context.logger.error(
            "%s", context.get("message", "unhandled error in workflow code"), exc_info=context.get("exception")
        )


_NOTED = (LeaseTaken, ActivityScheduled, TimerStarted, ApprovalRequested, ApprovalWithdrawn)
"""Events that record what the code asked for, or what happened around it: they do not move it."""
