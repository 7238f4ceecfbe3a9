"""Execution: one run's workflow code, brought to where its history says it is.

An execution is a fold over events: each one is applied and the loop drained before the next, so how events were
grouped into commits makes no difference. The outcome after any event is a closed union; who owns the lease, the clock
and the store is not known here.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
import traceback
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..clock import seconds, timestamp
from ..errors import ContinueAsNew, NonDeterminismError, SerializationError, Suspended
from ..registry import WorkflowDefinition
from ..serialization import Codec
from ..tracebacks import without_words
from .beginning import beginning, is_met
from .commands import RequestApproval, Signature, StartTimer
from .context import RunFacts, ScheduleInfo, WorkflowContext
from .failing import Failing, next_delay
from .generations import Border
from .handlers import Answer
from .history import (
    ActivityCompleted,
    ActivityFailed,
    ActivityHeartbeat,
    ActivityScheduled,
    ActivityStarted,
    ApprovalDecided,
    ApprovalRequested,
    ApprovalVoted,
    ApprovalWithdrawn,
    CancelRequested,
    Event,
    LeaseTaken,
    PatchMarked,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunPickedUp,
    RunResumed,
    RunRetried,
    RunStarted,
    RunSuspended,
    RunTerminated,
    RunTimedOut,
    SignalReceived,
    TimerStarted,
    UpdateAccepted,
    UpdateCompleted,
    UpdateRejected,
)
from .journal import Journal, Since, is_users
from .loop import WorkflowLoop
from .mailbox import Letter
from .outcomes import Blocked, Cancelled, Completed, ContinuedAsNew, Failed, Mismatch, Outcome
from .repeating import Repeating
from .rewind import children_lost, effective
from .saga import compensate

__all__ = [
    "ENGINE",
    "PYTHON",
    "Blocked",
    "Cancelled",
    "Completed",
    "ContinuedAsNew",
    "Execution",
    "Failed",
    "Mismatch",
    "Outcome",
    "replay",
]

ENGINE = 1
"""The behaviour number of this engine, recorded in the first event. It changes when the same code and history would no
longer lead to the same commands."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def replay(definition: WorkflowDefinition[Any], history: Sequence[Event], *, facts: RunFacts, codec: Codec) -> Outcome:
    """Where this history leads that code. Runs no activity and leaves nothing behind."""
    execution = Execution(definition, history, facts=facts, codec=codec)
    try:
        return execution.outcome
    finally:
        execution.close()


def _schedule_of(started: RunStarted) -> ScheduleInfo | None:
    if started.schedule_id is None:
        return None
    at, start, end = started.scheduled_at, started.interval_start, started.interval_end
    if at is None or start is None or end is None:
        raise SerializationError(f"the history names schedule {started.schedule_id!r} without its time")
    return ScheduleInfo(id=started.schedule_id, scheduled_at=at, interval_start=start, interval_end=end)


class Execution:
    """Workflow code that is alive. Build it from a stored history, `step` it with new events, `close` it when done.

    `now`: the time at which this happens, by which code begins that has not begun, and waits are measured. Without it
    the code's own time stands for it. `taken_at`: when the run was first taken; see `beginning`.
    """

    def __init__(
        self,
        definition: WorkflowDefinition[Any],
        history: Sequence[Event],
        *,
        facts: RunFacts,
        codec: Codec,
        now: datetime | None = None,
        taken_at: datetime | None = None,
    ) -> None:
        started = history[0] if history else None
        if not isinstance(started, RunStarted):
            raise SerializationError(f"the history of {facts.run_id!r} does not begin with RunStarted")
        self.seen: dict[str, None] = dict.fromkeys(started.seen)
        """Ids of all messages that the history holds, oldest first."""
        self._codec = codec
        self._started = started
        self._definition = definition
        self._retries = [event for event in history if isinstance(event, RunRetried)]
        given = (retry.deadline for retry in reversed(self._retries) if retry.deadline is not None)
        self.latest_deadline = next(given, started.deadline)
        """When the run's time is, or was, up: a retry by hand gives it its time anew."""
        self._cancel: CancelRequested | None = None
        self._is_time_up = False
        self._timed_out: Since | None = None
        self._latest = started.at
        begins_at, self.picked_up = beginning(history, now=now, taken_at=taken_at)
        live = None if now is None else timestamp(now)
        whole = history
        if self._retries:
            history = effective(whole)
        self.journal = Journal(history, children_lost=children_lost(whole) if self._retries else None)
        self._failing = Failing(self.journal)
        self._loop = WorkflowLoop(  # type: ignore[abstract]  # loop.py puts the methods that it forbids in by name
            self.journal, now=timestamp(begins_at), on_error=self._log_unhandled
        )
        self._context = WorkflowContext(
            facts,
            codec.decode(started.input),
            journal=self.journal,
            codec=codec,
            clock=self._loop.time,
            next_number=self._loop.next_number,
            seed=started.seed,
            schedule=_schedule_of(started),
        )
        self._context._custom_status = started.custom_status
        self._context.retry_count = len(self._retries)
        self._handlers = self._context._handlers
        self._is_retried_in: float | None = None
        """Decided once, when the code ends: seconds until its own policy tries it again."""
        self._spun: BaseException | None = None
        self._border = Border()
        try:
            self._replay(history, whole, live)
        except BaseException:
            self.close()
            raise

    def _replay(self, history: Sequence[Event], whole: Sequence[Event], live: float | None) -> None:
        # What the code says after the last event that moved it has not been said before, unless the run was let go
        # since.
        moving = [i for i, event in enumerate(history) if type(event) not in _NOTED]
        begins = self._first_met(history)
        self._context.logger.silent = len(history) > begins
        # Code that is the same as when the run was started cannot have been past a patch without asking for it.
        changed = self._started.fingerprint != self._definition.fingerprint
        self._context._patches.is_replaying = changed and moving[-1] >= begins
        self._context.history_length = 1
        self._repeating = repeating = Repeating(whole, history, moving[-1])
        begins_now = not any(is_met(event, self._started) for event in whole[1:])
        with self._loop.running():
            self._root = self._loop.create_task(self._main(), name="workflow")
            self._loop.live = live if begins_now else None
            self.journal.meet_at_once = self._meet_at_once
            self._drain()
            while (taken := repeating.take()) is not None:
                event, counts = taken
                if repeating.is_last:
                    self._loop.live = live
                if not counts:
                    self._pass_over(event)
                    continue
                if repeating.is_last_to_move:
                    self._context._patches.is_replaying = False
                    self._context.logger.silent = event is not history[-1]
                self._apply(event)
        self.journal.meet_at_once = None
        self._context.logger.silent = False
        self.outcome = self._conclude()

    def _first_met(self, history: Sequence[Event]) -> int:
        """The place of the first event that the code may have met already: before it stand signals that were there
        when the run, or this generation of it, began."""
        early = (isinstance(event, _EARLY) and event.at < self._started.at for event in history[1:])
        return next((i for i, is_early in enumerate(early, start=1) if not is_early), len(history))

    async def _main(self) -> Any:
        context = self._context
        try:
            self._loop.user_code = self._definition.call(context, context.input_data)
            result = await self._loop.user_code
            try:
                return self._codec.encode(result)
            except SerializationError as unstorable:
                raise SerializationError(f"result of the workflow: {unstorable}") from None
        except (ContinueAsNew, Suspended, GeneratorExit):  # no ends
            raise
        except BaseException as raised:
            error = self._handlers.failure or raised
            ending = self._failing.ends()
            # What is recorded after the end is how it was compensated: so it was decided then, whatever holds now.
            self._is_retried_in = None if self.journal.is_behind else self._retry_after(error)
            if self._is_retried_in is None:
                ending.undone = await compensate(context._asking, context.logger)
            if error is not raised:
                raise error from None
            raise

    def step(self, events: Iterable[Event], now: datetime | None = None) -> Outcome:
        """Apply events that have just been stored, `now`. Returns the new outcome."""
        self._loop.live = None if now is None else timestamp(now)
        self._loop.most_lag = math.inf  # it was at work all the time
        with self._loop.running():
            for event in events:
                self._apply(event)
        self.outcome = self._conclude()
        return self.outcome

    def skip(self, events: int) -> None:
        """So many events have been stored of which the code hears nothing."""
        self._context.history_length += events

    def close(self) -> None:
        """Put the code away as if it had never been woken: whatever its `finally` blocks ask for is thrown away."""
        self._context.logger.silent = True
        self._loop.close()

    @property
    def heeds_cancel(self) -> bool:
        """Whether a cancellation would still make a difference: not once the code is at an end of its own."""
        return self._cancel is None and self._timed_out is None and self._failing.ending is None

    # --- what may be asked of it ---------------------------------------------------------------

    @property
    def custom_status(self) -> str | None:
        """What the workflow shows of itself, as JSON text."""
        return self._context._custom_status

    @property
    def answers(self) -> Sequence[Answer]:
        """Of updates: given, and not recorded yet."""
        return self._handlers.answers

    def take_picked_up(self) -> RunPickedUp | None:
        """That the code began late, if that is to be recorded: before patches. It counts as recorded from now on."""
        taken, self.picked_up = self.picked_up, None
        return taken

    def take_patches(self) -> list[str]:
        """The patches that are to be recorded before anything else is. They count as recorded from now on."""
        taken, self.journal.unrecorded_patches = self.journal.unrecorded_patches, []
        return taken

    def query(self, name: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> str:
        """The answer to a query, as JSON text. Raises QueryError, SerializationError, and what the handler raises."""
        with self._loop.running():
            return self._codec.encode(self._handlers.query(name, args, kwargs or {}))

    def validate_update(self, name: str, payload: str) -> None:
        """Raises what speaks against the update: QueryError when there is none of that name, else what its validator
        raises."""
        with self._loop.running():
            self._handlers.validate(name, self._codec.decode(payload))

    # --- the fold -----------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        latest = self._latest
        self._count(event)
        if type(event) is ActivityCompleted and self.journal.mismatch is None and not self._root.done():  # most are
            self._note_completed(event)
            self.journal.apply(event)
            self._drain()
            return
        is_noted = type(event) in _NOTED
        if not is_noted:
            self._failing.note(event)
        if self._root.done() or self.journal.mismatch is not None:
            self._border.note_late(event)
            if isinstance(event, UpdateCompleted):
                self._handlers.note_answered(event.message_id)
            return
        if is_noted:
            self._note(event)
            return
        # Never backwards, whatever the clocks of the functions that recorded the events.
        when = event.due if isinstance(event, RunRetried) else event.at
        self._loop.now = max(self._loop.now, timestamp(when))
        match event:
            case RunForked():
                self._put_off(event.at - latest)
                self.journal.leave_children()
            case RunCompleted():
                self.journal.note_unfinished()
            case RunFailed() | RunCancelled() | RunTerminated():
                return  # perhaps from outside, while the code waited
            case _:
                self._meet(event)
        if not (isinstance(event, ActivityFailed) and event.retry_at is not None):
            self._drain()

    def _count(self, event: Event) -> None:
        self._context.history_length += 1
        self.journal.met += 1
        self._latest = max(self._latest, event.at)

    def _note_completed(self, event: ActivityCompleted) -> None:
        self._failing.note(event)
        if (moved := event.at.timestamp()) > self._loop.now:
            self._loop.now = moved

    def _meet_at_once(self, command_id: int, signature: Signature) -> ActivityCompleted | None:
        """The event that ends this command, which the code is about to wait for. None where something else would come
        first, or might: another callback or event, a condition, a cancellation, the end, a difference to be found."""
        event = self._repeating.completed(command_id)
        if (
            event is None
            or not self._loop.is_alone
            or self._handlers.predicates
            or self._handlers.failure is not None
            or self._root.done()
            or not self.journal.records(command_id, signature)
        ):
            return None
        self._repeating.take()
        self._loop.turns = 0
        self._loop.next_number()  # of the future that it would have waited for
        self._count(event)
        self._note_completed(event)
        self.journal.note_completed(command_id)
        return event

    def _pass_over(self, event: Event) -> None:
        """An event that is void: the code hears nothing of it, but what it made of time and length stays so. What was
        asked for afterwards, and counts, was asked for with these."""
        self._context.history_length += 1
        if type(event) not in _NOTED:
            self._loop.now = max(self._loop.now, timestamp(event.at))

    def _meet(self, event: Event) -> None:
        """Let the code see the event as soon as it runs."""
        match event:
            case SignalReceived():
                self.seen[event.message_id] = None
                letter = Letter(event.message_id, self._codec.decode(event.payload))
                self._handlers.receive_signal(event.name, letter)
            case UpdateAccepted():
                self.seen[event.message_id] = None
                self._handlers.receive_update(event.message_id, event.name, self._codec.decode(event.payload))
            case CancelRequested():
                self.seen[event.message_id] = None
                if self.heeds_cancel:  # else it would interrupt the cleanup
                    self._cancel = event
                    self._root.cancel(self._codec.unseal_text(event.reason))
            case RunTimedOut():
                self._is_time_up = True
                if self._cancel is None and self._failing.ending is None:
                    self._timed_out = self.journal.here
                    self._root.cancel("the run's time is up")
            case RunRetried():
                self._put_off(event.due - event.failed_at)
                self.journal.restart_children(event, self._retries.index(event) + 1)
            case _:
                if isinstance(event, ApprovalDecided | ApprovalVoted):
                    self.seen[event.message_id] = None
                self.journal.apply(event)

    def _note(self, event: Event) -> None:
        """An event that does not move the code."""
        match event:
            case RunSuspended() | RunResumed():
                self.seen[event.message_id] = None
            case UpdateRejected():
                self.seen[event.message_id] = None
                self._border.note(event)
            case UpdateCompleted():
                self._handlers.note_answered(event.message_id)
                self._border.note(event)
            case LeaseTaken() | PatchMarked() | RunPickedUp():
                pass
            case ActivityStarted():
                self._failing.note_once(event.id)
                self.journal.apply(event)
            case _:
                self.journal.apply(event)

    def _put_off(self, by: timedelta) -> None:
        """The time that the run lay failed, or before it was forked off, does not count: whatever it waits for is due
        so much later."""
        for pending in self.journal.open.values():
            if isinstance(pending.command, StartTimer | RequestApproval):
                pending.delay += max(by, timedelta())

    def _drain(self) -> None:
        try:
            self._loop.drain(self._when_at_rest)
            if self._handlers.failure is not None and self._failing.ending is None and not self._root.done():
                self._root.cancel("a signal handler has failed")
                self._loop.drain(self._when_at_rest)
        except (Exception, SystemExit) as error:
            self._spun = error

    def _when_at_rest(self) -> None:
        if self._handlers.predicates and not self._root.done():
            self._handlers.ask_predicates()

    # --- the outcome --------------------------------------------------------------------------

    def _conclude(self) -> Outcome:
        if self._context._asking.unreadable is not None:
            raise self._context._asking.unreadable
        if self.journal.mismatch is None and self._root.done():
            raised = self._raised()
            self.journal.check_left_over(f"raised {type(raised).__name__}" if raised is not None else "ended")
        if self.journal.mismatch is not None:
            return Mismatch(error=self._explain(self.journal.mismatch))
        if self._spun is not None:
            return self._failed(self._spun)
        if not self._root.done():
            return Blocked(pending=self.journal.open.values())
        if self._root.cancelled():
            if self._timed_out is not None:
                return self._failed(TimeoutError("the run's time is up"))
            if self._cancel is not None:
                return Cancelled(reason=self._cancel.reason)
            return self._failed(asyncio.CancelledError("the workflow cancelled itself"))
        error = self._root.exception()
        try:
            if isinstance(error, ContinueAsNew):
                return self._continued(error)
            if error is not None:
                return self._failed(error)
            return Completed(output=self._root.result())
        except SerializationError as unstorable:
            return self._failed(SerializationError(f"input of the next generation: {unstorable}"))

    def _failed(self, error: BaseException) -> Failed:
        return self._failing.outcome(
            error,
            self._codec.failure(error),
            timed_out=self._timed_out,
            retry_after=self._is_retried_in,
        )

    def _retry_after(self, error: BaseException) -> float | None:
        """How long the workflow's policy waits before it tries again; None when it does not. A function of the history
        alone."""
        policy = self._definition.retry_policy
        if policy is None or self._cancel is not None or self._is_time_up or self._spun is not None:
            return None
        if self._failing.is_final(error):
            return None
        delay = next_delay(policy, error, self._retries, chance_of=self._context.run_id)
        if delay is None:
            return None
        goes_on, limits = self._loop.now + delay, [self.deadline]
        if policy.total is not None:
            limits.append(timestamp(self._started.at) + seconds(policy.total))
        return delay if all(limit is None or goes_on < limit for limit in limits) else None

    @property
    def deadline(self) -> float | None:
        """When the run's time is up, in seconds since the epoch; None: never, or it is up already."""
        latest = None if self._is_time_up else self.latest_deadline
        return None if latest is None else timestamp(latest)

    def _continued(self, request: ContinueAsNew) -> ContinuedAsNew:
        if self._failing.ending is not None:  # raised by what came after the end
            return ContinuedAsNew(input=self._codec.encode(request.input_data), carried=(), seen=())
        text = self._codec.encode(request.input_data)
        run_id, at = self._context.run_id, self._started.at
        return self._border.continued(text, self._handlers, self.seen, run_id=run_id, at=at, codec=self._codec)

    def _explain(self, error: NonDeterminismError) -> NonDeterminismError:
        if not error.where:
            place = self._place()
            error = NonDeterminismError(step=error.step, recorded=error.recorded, asked=error.asked, where=place)
            self.journal.mismatch = error
        if self._started.python != PYTHON and not hasattr(error, "__notes__"):
            error.add_note(f"The run was started on Python {self._started.python}; this is {PYTHON}.")
        return error

    def _place(self) -> str:
        """file:line where the workflow function, or what it calls, waits or has raised; else where it is defined."""
        code = inspect.unwrap(self._definition.fn).__code__
        lines = list(traceback.walk_tb(getattr(self._raised(), "__traceback__", None)))
        waiting: Any = None if self._root.done() else self._root.get_coro()
        while frame := getattr(waiting, "cr_frame", None):
            lines.append((frame, frame.f_lineno))
            waiting = waiting.cr_await
        users = [f"{frame.f_code.co_filename}:{line}" for frame, line in lines if is_users(frame)]
        return users[-1] if users else f"{code.co_filename}:{code.co_firstlineno}"

    def _raised(self) -> BaseException | None:
        """What has ended the workflow, unless it returned, was cancelled, or continues as new."""
        if not self._root.done() or self._root.cancelled():
            return None
        error = self._root.exception()
        return None if isinstance(error, ContinueAsNew) else error

    def _log_unhandled(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._context.logger.error(
            "%s",
            context.get("message", "unhandled error in workflow code"),
            exc_info=None if error is None else without_words(error),
        )


_EARLY = (SignalReceived, UpdateAccepted, UpdateCompleted, UpdateRejected)
"""Events that a generation may begin with."""

_NOTED: frozenset[type[Event]] = frozenset({
    LeaseTaken, ActivityScheduled, ActivityStarted, ActivityHeartbeat, TimerStarted, ApprovalRequested,
    ApprovalWithdrawn, RunSuspended, RunResumed, PatchMarked, RunPickedUp, UpdateCompleted, UpdateRejected,
})  # fmt: skip
"""Events that record what the code asked for, or what happened around it: they do not move it."""
