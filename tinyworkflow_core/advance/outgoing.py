"""Outgoing: what a run sends into the world by a commit of its own: child runs, messages to other runs, attempts that
are calls of their own, answers to updates. Each is an event, and what is written or dispatched with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from ..dispatcher import Advance, Perform, Task
from ..engine.commands import ExecuteActivity, SendMessage, StartChild
from ..engine.history import (
    ActivityScheduled,
    ActivityStarted,
    ChildEnded,
    ChildStarted,
    Event,
    MessageSent,
    RunStarted,
    UpdateCompleted,
)
from ..engine.journal import Pending
from ..engine.replay import ENGINE, PYTHON, Execution
from ..errors import (
    InvalidInputError,
    PayloadTooLargeError,
    RunClosedError,
    RunExistsError,
    RunNotFoundError,
    SerializationError,
    UnknownWorkflowError,
)
from ..records import dataclass
from ..serialization import Failure
from ..store import Message, MessageKind, NewRun, Run, Status
from .records import message_fits
from .surroundings import Surroundings

MAX_NEW_RUNS = 100
"""Child runs that one commit creates."""

_LOST_AFTER = timedelta(hours=1)
"""When an attempt that is a call of its own, and has no timeout, is taken for lost."""
_ON_THE_WAY = timedelta(seconds=30)
"""What a call may take to begin and its outcome to come back, besides the attempt's own timeout."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What may be committed: an event, the message that it came from (or one that says nothing new), and what goes out
    in the same write or right after it."""

    event: Event | None
    message_id: str | None = None
    outbox: tuple[tuple[str, Message], ...] = ()
    new_runs: tuple[NewRun, ...] = ()
    calls: tuple[Task, ...] = ()


class Together(NamedTuple):
    """What several of them are in one write."""

    events: list[Event]
    consumed: tuple[str, ...]
    outbox: tuple[tuple[str, Message], ...]
    new_runs: tuple[NewRun, ...]
    calls: tuple[Task, ...]

    @classmethod
    def of(cls, ready: Sequence[Ready]) -> Together:
        """In their order."""
        events: list[Event] = []
        consumed: list[str] = []
        outbox: list[tuple[str, Message]] = []
        new_runs: list[NewRun] = []
        calls: list[Task] = []
        for one in ready:
            if one.event is not None:
                events.append(one.event)
            if one.message_id is not None:
                consumed.append(one.message_id)
            outbox += one.outbox
            new_runs += one.new_runs
            calls += one.calls
        return cls(events, tuple(consumed), tuple(outbox), tuple(new_runs), tuple(calls))


def outgoing(execution: Execution, run: Run, around: Surroundings, now: datetime) -> list[Ready]:
    """What the run's open commands and handlers want sent now, in the order in which they were asked for."""
    if not execution.journal.outward and not execution.answers:
        return []
    return [*_answers(execution, now), *_commands(execution, run, around, now)]


def _answers(execution: Execution, now: datetime) -> Iterator[Ready]:
    for one in execution.answers:
        yield Ready(UpdateCompleted(at=now, message_id=one.message_id, result=one.result, error=one.error))


def _commands(execution: Execution, run: Run, around: Surroundings, now: datetime) -> Iterator[Ready]:
    children: set[str] = set()
    for pending in execution.journal.outward.values():
        match pending.command:
            case StartChild() as command if not pending.recorded and len(children) < MAX_NEW_RUNS:
                if command.run_id in children:
                    continue  # by the next commit that id is taken
                children.add(command.run_id)
                yield _start_child(command, run, around, now)
            case SendMessage() as command:
                yield _send(command, run, execution.journal.times_void(command.id), now)
            case ExecuteActivity() as command if not pending.withdrawn and pending.retry_at is None:
                if command.activity.at_most_once and not pending.begun:
                    yield Ready(ActivityStarted(at=now, **command.about()))
                elif command.activity.run_on == "queue" and pending.deadline is None:
                    yield _hand_out(command, pending, run, now)


# --- child runs --------------------------------------------------------------------------------------


def _start_child(command: StartChild, run: Run, around: Surroundings, now: datetime) -> Ready:
    codec = around.codec
    try:
        definition = around.registry.workflow(command.name)
        text = codec.encode(definition.validate(codec.decode(command.input)))
    except (UnknownWorkflowError, InvalidInputError, SerializationError) as error:
        failure = codec.failure(error)
        return Ready(ChildEnded(at=now, status="failed", error=failure, **command.about()))
    child = Run(
        run_id=command.run_id,
        workflow_id=command.run_id,
        name=command.name,
        version=definition.version,
        input=text,
        created_at=now,
        wake_at=now,
        parent_run_id=run.run_id,
    )
    started = RunStarted(
        at=now,
        name=command.name,
        version=definition.version,
        input=text,
        engine=ENGINE,
        python=PYTHON,
        fingerprint=definition.fingerprint,
        parent_run_id=run.run_id,
        parent_message=word_of_end_id(run.generation, command),
        deadline=None if definition.timeout is None else now + timedelta(seconds=definition.timeout),
    )
    return Ready(
        ChildStarted(at=now, on_parent_close=command.on_parent_close, **command.about()),
        new_runs=(NewRun(run=child, events=(started,)),),
        calls=(Advance(run_id=command.run_id),),
    )


def word_of_end_id(generation: int, command: StartChild) -> str:
    """The id of the message that tells a run of that generation how its child has ended."""
    return f"child/{generation}/{command.id}/{command.run_id}"


def word_of_end(
    message_id: str, status: Status, output: str | None, error: Failure | None, now: datetime, around: Surroundings
) -> Message:
    """The message that tells a parent how its child has ended."""

    def message(status: Status, output: str | None, error: Failure | None) -> Message:
        body = {"status": status.value, "result": output, "error": None if error is None else error.to_dict()}
        return Message(id=message_id, kind=MessageKind.CHILD, received_at=now, body=body)

    told = message(status, output, error)
    if not message_fits(told, around.store.max_event_bytes):
        problem = PayloadTooLargeError("what the child run ended with is too large to be sent to its parent")
        told = message(Status.FAILED, None, around.codec.failure(problem))
    return told


def refused(ready: Ready, run_id: str, around: Surroundings) -> Ready:
    """The same, after the store has said that a run of that id exists: a child of that id is not started."""
    event = ready.event
    if not isinstance(event, ChildStarted) or event.run_id != run_id:
        return ready
    error = around.codec.failure(RunExistsError(f"run_id {run_id!r} is taken", run_id=run_id))
    ended = ChildEnded(
        at=event.at, id=event.id, name=event.name, digest=event.digest, run_id=run_id, status="failed", error=error
    )
    return replace(ready, event=ended, new_runs=(), calls=())


def cancellation(run: Run, child: str, now: datetime) -> tuple[str, Message]:
    """The message that asks a child to end because nobody waits for it any more."""
    reason = f"its parent {run.run_id} no longer waits for it"
    return child, Message(id="cancel", kind=MessageKind.CANCEL, received_at=now, body={"reason": reason})


# --- messages and calls ------------------------------------------------------------------------------


def _send(command: SendMessage, run: Run, again: int, now: datetime) -> Ready:
    if command.name is None:
        reason = f"asked for by its parent {run.run_id}"
        message = Message(id="cancel", kind=MessageKind.CANCEL, received_at=now, body={"reason": reason})
    else:
        # Of one moment they are read in the order of their ids. After a retry the same place says something anew.
        message = Message(
            id=f"signal/{run.run_id}/{run.generation:06}/{again:04}/{command.id:08}",
            kind=MessageKind.SIGNAL,
            received_at=now,
            body={"name": command.name, "payload": command.payload},
        )
    event = MessageSent(at=now, id=command.id, target=command.target, name=command.name, digest=command.digest)
    return Ready(event, outbox=((command.target, message),), calls=(Advance(run_id=command.target),))


def unreachable(ready: Ready, *, known: bool, around: Surroundings) -> Ready:
    """The same, after the store has said that nobody can receive the signal."""
    assert isinstance(ready.event, MessageSent)
    target = ready.event.target
    error: Exception = RunNotFoundError(f"there is no run {target!r}", run_id=target)
    if known:
        error = RunClosedError(f"run {target!r} has ended", run_id=target)
    return Ready(replace(ready.event, error=around.codec.failure(error)))


def _hand_out(command: ExecuteActivity, pending: Pending, run: Run, now: datetime) -> Ready:
    longest, total = command.activity.timeout, command.activity.total_timeout
    if total is not None:
        left = max(0.0, total - (now - (pending.first_started_at or now)).total_seconds())
        longest = left if longest is None else min(longest, left)
    deadline = now + (_LOST_AFTER if longest is None else timedelta(seconds=longest) + _ON_THE_WAY)
    number = pending.attempt + 1
    call = Perform(run_id=run.run_id, generation=run.generation, activity_id=command.id, attempt=number)
    event = ActivityScheduled(at=now, attempt=number, deadline=deadline, **command.about())
    return Ready(event, calls=(call,))
