"""LiveRun: drives one Execution by hand and keeps the history that this makes. Pure: time is virtual, nothing is run.

Every answer becomes an event, exactly as the engine's owner would store it, and after each the whole history so far is
replayed from its JSON form: the replay must stand where the live run stands. So every test that uses this is a test of
replay, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from tinyworkflow_core.engine.commands import (
    Command,
    ExecuteActivity,
    RequestApproval,
    RunSideEffect,
    SendMessage,
    StartChild,
    StartTimer,
)
from tinyworkflow_core.engine.context import RunFacts
from tinyworkflow_core.engine.history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ApprovalDecided,
    ApprovalRequested,
    ApprovalVoted,
    ApprovalWithdrawn,
    CancelRequested,
    Event,
    PatchMarked,
    RunStarted,
    SideEffectRecorded,
    SignalReceived,
    TimerFired,
    TimerStarted,
    history_from_json,
    history_to_json,
)
from tinyworkflow_core.engine.journal import Pending
from tinyworkflow_core.engine.replay import (
    ENGINE,
    PYTHON,
    Blocked,
    Cancelled,
    Completed,
    ContinuedAsNew,
    Execution,
    Failed,
    Mismatch,
    Outcome,
    replay,
)
from tinyworkflow_core.registry import WorkflowDefinition, workflow
from tinyworkflow_core.serialization import Codec, Failure

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
FACTS = RunFacts(run_id="run-1", workflow_id="order-1", name="under_test", version=1)

codec = Codec()


def started(input_data: Any = None, *, at: datetime = START) -> RunStarted:
    """The first event of a run that is given `input_data`."""
    return RunStarted(at=at, name=FACTS.name, version=1, input=codec.encode(input_data), engine=ENGINE, python=PYTHON)


def defined(code: Any) -> WorkflowDefinition[Any]:
    """The code as a definition; a plain `async def` is declared here."""
    return (
        code if isinstance(code, WorkflowDefinition) else workflow(lint="off")(code)
    )  # what it is for: to see what replay makes of it


def stored(history: Sequence[Event]) -> list[Event]:
    """The history as it comes back from a store."""
    return history_from_json(json.loads(json.dumps(history_to_json(history))))


def replayed(code: Any, history: Sequence[Event], *, facts: RunFacts = FACTS) -> Outcome:
    """Where the stored history leads that code."""
    return replay(defined(code), stored(history), facts=facts, codec=codec)


def picture(outcome: Outcome) -> list[Any]:
    """All that an owner can learn from the outcome, as JSON data."""
    match outcome:
        case Blocked(pending=pending):
            return ["blocked", [_pending_picture(one) for one in pending]]
        case Completed(output=output):
            return ["completed", output]
        case Failed(error=error):
            return ["failed", _without_traceback(error)]
        case Cancelled(reason=reason):
            return ["cancelled", reason]
        case Mismatch(error=mismatch):
            return ["mismatch", str(mismatch)]
        case ContinuedAsNew(input=text, carried=carried, seen=seen):
            return ["continued", text, history_to_json(carried), list(seen)]


def _pending_picture(pending: Pending) -> dict[str, Any]:
    command = pending.command
    told: dict[str, Any] = {"id": command.id, "signature": list(command.signature), "recorded": pending.recorded}
    if pending.withdrawn:
        told["withdrawn"] = True
    if pending.attempt:
        told |= {"attempt": pending.attempt, "retry_at": str(pending.retry_at), "since": str(pending.first_started_at)}
    if isinstance(command, ExecuteActivity):
        told |= {"input": command.input, "group": command.group}
    if isinstance(command, StartChild):
        told |= {"run": command.run_id, "on_parent_close": command.on_parent_close, "started": pending.started}
    if isinstance(command, RequestApproval):
        told |= {"title": command.title, "details": command.details, "expires_at": str(command.expires_at)}
    return told


def retry_plan(outcome: Outcome) -> list[Any] | None:
    """What a retry of a run that has failed would do again."""
    if not isinstance(outcome, Failed):
        return None
    return [[*outcome.failed], [*outcome.undone], outcome.position, outcome.retry_after]


def stand(execution: Execution) -> dict[str, Any]:
    """All that a replay has to share with the live run: what an owner can learn, and what the code can."""
    journal, context = execution.journal, execution._context
    outcome = execution.outcome
    return {
        "outcome": picture(outcome),
        "retry": retry_plan(outcome),
        "open": [
            [one.command.id, one.begun, one.deadline, one.heartbeat, one.due, one.delay, one.withdrawn, one.votes]
            for one in journal.open.values()
        ],
        "outward": list(journal.outward),
        "withdrawn": [journal.withdrawn_approvals, sorted(journal.patches), journal.unrecorded_patches],
        "position": [journal.position, journal.last_done],
        "seen": list(execution.seen),
        "answers": list(execution.answers),
        "heeds cancel": execution.heeds_cancel,
        "deadline": execution.deadline,
        "history length": context.history_length,
        "status": execution.custom_status,
        "now": context.now(),
        "chance": [context._random.getstate(), context._uuids.getstate()],
        "numbers given": execution._loop._number,
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Where two stands differ, and how."""
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}


def _without_traceback(error: Failure) -> dict[str, Any]:
    """Line numbers differ from one Python, and one checkout, to the next."""
    data = error.to_dict()
    data.pop("traceback", None)
    if error.cause is not None:
        data["cause"] = _without_traceback(error.cause)
    if error.members:
        data["members"] = [_without_traceback(one) for one in error.members]
    return data


class LiveRun:
    """One run: its live execution, its history so far and the answers that a test gives."""

    def __init__(
        self,
        code: Any,
        input_data: Any = None,
        *,
        facts: RunFacts = FACTS,
        always_replay: bool = True,
        history: Sequence[Event] = (),
    ) -> None:
        self.code = defined(code)
        self.facts = facts
        self.always_replay = always_replay
        self.now = START
        self.history: list[Event] = [*history] or [started(input_data)]
        self.execution = Execution(self.code, stored(self.history), facts=facts, codec=codec)
        self._messages = 0
        self.check_replay()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Put the execution away."""
        self.execution.close()

    # --- looking ------------------------------------------------------------------------------

    @property
    def outcome(self) -> Outcome:
        return self.execution.outcome

    @property
    def pending(self) -> list[Pending]:
        """The open commands. Fails when the run is not blocked."""
        assert isinstance(self.outcome, Blocked), picture(self.outcome)
        return list(self.outcome.pending)

    @property
    def commands(self) -> list[Command]:
        return [one.command for one in self.pending]

    @property
    def activities(self) -> list[ExecuteActivity]:
        """Those of the open commands that are activities and not withdrawn."""
        return [p.command for p in self.pending if isinstance(p.command, ExecuteActivity) and not p.withdrawn]

    @property
    def withdrawn(self) -> list[ExecuteActivity]:
        return [p.command for p in self.pending if isinstance(p.command, ExecuteActivity) and p.withdrawn]

    @property
    def timers(self) -> list[StartTimer]:
        return [one for one in self.commands if isinstance(one, StartTimer)]

    @property
    def approvals(self) -> list[RequestApproval]:
        return [one for one in self.commands if isinstance(one, RequestApproval)]

    @property
    def result(self) -> Any:
        """What the workflow returned. Fails when it has not."""
        assert isinstance(self.outcome, Completed), picture(self.outcome)
        return codec.decode(self.outcome.output)

    @property
    def error(self) -> Failure:
        """What the workflow raised. Fails when it has not."""
        assert isinstance(self.outcome, Failed), picture(self.outcome)
        return self.outcome.error

    def open(self, command_id: int) -> Pending:
        return self.execution.journal.open[command_id]

    # --- answering ----------------------------------------------------------------------------

    def later(self, seconds: float) -> Self:
        """Time passes; nothing happens."""
        self.now += timedelta(seconds=seconds)
        return self

    def happen(self, *events: Event) -> Self:
        """The events are stored in one commit, after the marks of patches, and shown to the execution."""
        marks = [PatchMarked(at=self.now, patch=one) for one in self.execution.take_patches()]
        self.history.extend([*marks, *events])
        self.execution.skip(len(marks))
        self.execution.step(stored(events))
        self.check_replay()
        return self

    def complete(self, command: ExecuteActivity, result: Any = None) -> Self:
        return self.happen(self.completed(command, result))

    def completed(self, command: ExecuteActivity, result: Any = None) -> Event:
        attempt = self.open(command.id).attempt + 1
        return ActivityCompleted(
            at=self.now, **command.about(), attempt=attempt, started_at=self.now, result=codec.encode(result)
        )

    def fail(self, command: ExecuteActivity, error: BaseException, *, retry_in: float | None = None) -> Self:
        """One attempt failed: for good, or to be tried again."""
        return self.happen(self.failed(command, error, retry_in=retry_in))

    def failed(self, command: ExecuteActivity, error: BaseException, *, retry_in: float | None = None) -> Event:
        return ActivityFailed(
            at=self.now,
            **command.about(),
            attempt=self.open(command.id).attempt + 1,
            started_at=self.now,
            error=codec.failure(error),
            retry_at=None if retry_in is None else self.now + timedelta(seconds=retry_in),
        )

    def end_withdrawn(self, *commands: ExecuteActivity) -> Self:
        """What was running of these withdrawn activities (all, unless named) has ended."""
        ended = commands or tuple(self.withdrawn)
        return self.happen(*(ActivityCancelled(at=self.now, **one.about()) for one in ended))

    def fire(self, timer: StartTimer) -> Self:
        """The timer is due; the time is at least that now."""
        return self.happen(self.fired(timer))

    def fired(self, timer: StartTimer) -> Event:
        self.now = max(self.now, timer.due)
        return TimerFired(at=self.now, id=timer.id, due=timer.due)

    def signal(self, name: str, payload: Any = None) -> Self:
        return self.happen(self.signalled(name, payload))

    def signalled(self, name: str, payload: Any = None) -> Event:
        return SignalReceived(at=self.now, message_id=self._message_id(), name=name, payload=codec.encode(payload))

    def cancel(self, reason: str | None = None) -> Self:
        return self.happen(self.cancel_requested(reason))

    def cancel_requested(self, reason: str | None = None) -> Event:
        return CancelRequested(at=self.now, message_id=self._message_id(), reason=reason)

    def decide(
        self, key: str, approved: bool = True, *, by: str | None = None, comment: str | None = None, data: Any = None
    ) -> Self:
        """Somebody decides the open approval of that key."""
        (command,) = (one for one in self.approvals if one.key == key)
        return self.happen(
            ApprovalDecided(
                at=self.now,
                id=command.id,
                key=key,
                message_id=self._message_id(),
                approved=approved,
                by=by,
                comment=comment,
                data=codec.encode(data),
            )
        )

    def vote(self, key: str, by: str, approved: bool = True, **said: Any) -> Self:
        """Somebody votes on the open approval of that key."""
        (command,) = (one for one in self.approvals if one.key == key)
        return self.happen(self.voted(command, by, approved, **said))

    def voted(
        self, command: RequestApproval, by: str, approved: bool = True, *, comment: str | None = None, data: Any = None
    ) -> Event:
        return ApprovalVoted(
            at=self.now,
            id=command.id,
            key=command.key,
            message_id=self._message_id(),
            approved=approved,
            by=by,
            comment=comment,
            data=codec.encode(data),
        )

    def record_side_effect(self, command: RunSideEffect) -> Self:
        """The function is called and what it gave or raised is stored."""
        try:
            event = SideEffectRecorded(at=self.now, id=command.id, result=codec.encode(command.fn()))
        except Exception as error:
            event = SideEffectRecorded(at=self.now, id=command.id, error=codec.failure(error.with_traceback(None)))
        return self.happen(event)

    def let_go(self) -> Self:
        """The owner writes down what the run waits for, as it does before it lets go of it."""
        journal = self.execution.journal
        withdrawn, journal.withdrawn_approvals = journal.withdrawn_approvals, []
        events: list[Event] = [ApprovalWithdrawn(at=self.now, id=one.id, key=one.key) for one in withdrawn]
        events += [event for one in self.pending if not one.recorded if (event := self._asked_for(one.command))]
        return self.happen(*events)

    def _asked_for(self, command: Command) -> Event | None:
        match command:
            case StartTimer():
                return TimerStarted(at=self.now, id=command.id, due=command.due)
            case ExecuteActivity():
                return ActivityScheduled(at=self.now, **command.about())
            case RequestApproval():
                return ApprovalRequested(
                    at=self.now,
                    id=command.id,
                    key=command.key,
                    expires_at=command.expires_at,
                    approvers=command.approvers if command.quorum > 1 else (),
                    quorum=command.quorum,
                    veto=command.veto,
                    escalate_to=command.escalate_to,
                    escalates_at=command.escalates_at,
                )
            case RunSideEffect() | StartChild() | SendMessage():
                return None

    def _message_id(self) -> str:
        self._messages += 1
        return f"message-{self._messages}"

    # --- replaying ----------------------------------------------------------------------------

    def check_replay(self) -> None:
        """The history so far, replayed, must stand where the live run stands."""
        if not self.always_replay:
            return
        again = Execution(self.code, stored(self.history), facts=self.facts, codec=codec)
        try:
            different = differences(stand(again), stand(self.execution))
            assert not different, different
        finally:
            again.close()


Begin = Callable[..., LiveRun]
"""The fixture `begin`: begin(workflow, input) -> LiveRun, put away when the test ends."""
