"""OwnedRun: a LiveRun whose owner is played too: it sends out what is to go out, records ends, and goes on after them.

Each method writes the events that the owner of a run would write then. Nothing is decided here: a test, or chance,
says what happens and when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.engine.history_builder import FACTS, START, LiveRun, codec, defined, picture, started, stored
from tinyworkflow_core.clock import moment
from tinyworkflow_core.engine.commands import ExecuteActivity, SendMessage, StartChild
from tinyworkflow_core.engine.context import RunFacts
from tinyworkflow_core.engine.history import (
    ActivityHeartbeat,
    ActivityScheduled,
    ActivityStarted,
    ChildEnded,
    ChildStarted,
    Event,
    LeaseTaken,
    MessageSent,
    PatchMarked,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunResumed,
    RunRetried,
    RunStarted,
    RunSuspended,
    RunTerminated,
    RunTimedOut,
    SignalReceived,
    UpdateAccepted,
    UpdateCompleted,
    UpdateRejected,
)
from tinyworkflow_core.engine.replay import Cancelled, Completed, ContinuedAsNew, Execution, Failed
from tinyworkflow_core.errors import RunNotFoundError
from tinyworkflow_core.steering import _copied, _retried  # what an operator's retry and fork write
from tinyworkflow_core.store import Run, RunState


class OwnedRun(LiveRun):
    """One run with its owner. `timeout` is in seconds; `history` is what there is of it already."""

    def __init__(
        self,
        code: Any,
        input_data: Any = None,
        *,
        timeout: float | None = None,
        history: Sequence[Event] = (),
        facts: RunFacts = FACTS,
        always_replay: bool = True,
    ) -> None:
        deadline = None if timeout is None else START + timedelta(seconds=timeout)
        beginning = replace(started(input_data), fingerprint=defined(code).fingerprint, deadline=deadline)
        self.beginning: RunStarted = history[0] if history and isinstance(history[0], RunStarted) else beginning
        self.has_ended = False
        self.earlier: list[list[Event]] = []
        """The histories of earlier generations."""
        super().__init__(
            code, input_data, facts=facts, always_replay=always_replay, history=history or [self.beginning]
        )
        self.now = max(event.at for event in self.history)

    # --- children and other runs --------------------------------------------------------------

    @property
    def children(self) -> list[StartChild]:
        return [one for one in self.commands if isinstance(one, StartChild)]

    @property
    def messages(self) -> list[SendMessage]:
        return [one for one in self.commands if isinstance(one, SendMessage)]

    def child_started(self, child: StartChild) -> Event:
        assert not self.open(child.id).recorded
        before = {event.run_id for event in self.history if isinstance(event, ChildStarted)}
        assert child.run_id not in before, f"{child.run_id} was started before"
        return ChildStarted(at=self.now, on_parent_close=child.on_parent_close, **child.about())

    def child_refused(self, child: StartChild, error: Exception) -> Event:
        return ChildEnded(at=self.now, status="failed", error=codec.failure(error), **child.about())

    def child_ended(
        self, child: StartChild, *, result: Any = None, error: Exception | None = None, status: str = "completed"
    ) -> Event:
        return ChildEnded(
            at=self.now,
            status="failed" if error is not None else status,
            message_id=f"child/{self.facts.generation}/{child.id}/{child.run_id}",
            result=codec.encode(result) if status == "completed" and error is None else None,
            error=None if error is None else codec.failure(error),
            **child.about(),
        )

    def sent(self, message: SendMessage, *, reached: bool = True) -> Event:
        error = None if reached else codec.failure(_nobody(message.target))
        return MessageSent(
            at=self.now, id=message.id, target=message.target, name=message.name, digest=message.digest, error=error
        )

    # --- activities that need a record first ---------------------------------------------------

    def begun(self, command: ExecuteActivity) -> Event:
        """The one attempt of an at-most-once activity is about to begin."""
        return ActivityStarted(at=self.now, **command.about())

    def handed_out(self, command: ExecuteActivity) -> Event:
        """The next attempt is a call of its own."""
        attempt, deadline = self.open(command.id).attempt + 1, self.now + timedelta(seconds=60)
        return ActivityScheduled(at=self.now, attempt=attempt, deadline=deadline, **command.about())

    def beaten(self, command: ExecuteActivity, details: Any) -> Event:
        attempt = self.open(command.id).attempt + 1
        return ActivityHeartbeat(at=self.now, id=command.id, attempt=attempt, details=codec.encode(details))

    # --- signals and updates ------------------------------------------------------------------------------

    def signalled(self, name: str, payload: Any = None) -> Event:
        message_id = f"signal/{self._message_id()}"  # by this a next generation knows what it has to remember
        return SignalReceived(at=self.now, message_id=message_id, name=name, payload=codec.encode(payload))

    def updated(self, name: str, payload: Any) -> Event:
        """Somebody sends an update: accepted, or rejected by its validator."""
        message_id, text = f"update/{self._message_id()}", codec.encode(payload)
        try:
            self.execution.validate_update(name, text)
        except Exception as error:
            return UpdateRejected(at=self.now, message_id=message_id, error=codec.failure(error))
        return UpdateAccepted(at=self.now, message_id=message_id, name=name, payload=text)

    def answered(self) -> list[Event]:
        """The answers to updates that are given and not recorded."""
        given = self.execution.answers
        return [
            UpdateCompleted(at=self.now, message_id=one.message_id, result=one.result, error=one.error) for one in given
        ]

    # --- around the code ----------------------------------------------------------------------

    def timed_out(self) -> Event:
        """The run's time is up."""
        assert self.execution.deadline is not None
        self.now = max(self.now, moment(self.execution.deadline))
        return RunTimedOut(at=self.now)

    def suspend_and_resume(self) -> OwnedRun:
        """An operator puts the run aside, and lets it go on later."""
        self.happen(RunSuspended(at=self.now, message_id=self._message_id(), reason="by hand"))
        self.later(100).happen(RunResumed(at=self.now, message_id=self._message_id()))
        return self.taken_up()

    def taken_over(self) -> OwnedRun:
        """The holder died; another goes on from what is stored."""
        self.history.append(LeaseTaken(at=self.now, owner="second", previous_owner="first"))
        return self.taken_up()

    def taken_up(self) -> OwnedRun:
        """The run was let go, and another call goes on from what is stored."""
        self.execution.close()
        self.execution = Execution(self.code, stored(self.history), facts=self.facts, codec=codec)
        self.check_replay()
        return self

    # --- ends ---------------------------------------------------------------------------------

    def end(self) -> OwnedRun:
        """What the code has come to is recorded: the run ends, is to be retried, or goes on as its next generation."""
        last_words = [*(PatchMarked(at=self.now, patch=one) for one in self.execution.take_patches()), *self.answered()]
        match self.outcome:
            case Completed(output=output):
                return self._close(*last_words, RunCompleted(at=self.now, output=output))
            case Cancelled(reason=reason):
                return self._close(*last_words, RunCancelled(at=self.now, reason=reason))
            case Failed(retry_after=None) as failed:
                event = RunFailed(
                    at=self.now,
                    error=failed.error,
                    failed=failed.failed,
                    undone=failed.undone,
                    position=failed.position,
                )
                return self._close(*last_words, event)
            case Failed(retry_after=float() as after) as failed:
                self.history += [*last_words, self._retried_by_policy(failed, after)]
                return self.later(after).taken_up()
            case ContinuedAsNew() as continued:
                return self._continue(continued)
            case other:
                raise AssertionError(picture(other))

    def terminate(self) -> OwnedRun:
        """An operator ends the run by force."""
        return self._close(
            *self.answered(), RunTerminated(at=self.now, message_id=self._message_id(), reason="by force")
        )

    def retry(self) -> OwnedRun:
        """Somebody opens the ended run again, a while later."""
        assert self.has_ended
        self.later(1000)
        run = Run(
            run_id=self.facts.run_id,
            workflow_id="order-1",
            name="under_test",
            version=1,
            input="null",
            created_at=START,
        )
        state = RunState(run=run, history=self.history, sequence=len(self.history), inbox=())
        self.history.append(_retried(state, self.now))
        self.has_ended = False
        return self.taken_up()

    def forked(self, at_event: int, run_id: str, input_data: Any = None) -> OwnedRun:
        """A new run that has lived through the first `at_event` events of this one."""
        opening = replace(
            self.beginning,
            input=self.beginning.input if input_data is None else codec.encode(input_data),
            seed=self.beginning.seed or f"{self.facts.run_id}/{self.facts.generation}",
            seen=(),
            deadline=None,
        )
        copied = _copied(self.history[:at_event])
        fork = RunForked(at=self.now, from_run_id=self.facts.run_id, at_event=at_event)
        facts = replace(self.facts, run_id=run_id, generation=0)
        return OwnedRun(self.code, facts=facts, history=[opening, *copied, fork], always_replay=self.always_replay)

    def _close(self, *events: Event) -> OwnedRun:
        before = picture(self.outcome)
        self.history += events
        self.has_ended = True
        again = Execution(self.code, stored(self.history), facts=self.facts, codec=codec)
        assert picture(again.outcome) == before
        again.close()
        return self

    def _retried_by_policy(self, failed: Failed, after: float) -> Event:
        return RunRetried(
            at=self.now,
            failed_at=self.now,
            due=self.now + timedelta(seconds=after),
            automatic=True,
            error=failed.error,
            forgotten=failed.failed,
            undone=failed.undone,
            position=failed.position,
        )

    def _continue(self, continued: ContinuedAsNew) -> OwnedRun:
        self.earlier.append(self.history)
        self.beginning = replace(
            self.beginning,
            at=self.now,
            input=continued.input,
            seen=continued.seen,
            custom_status=self.execution.custom_status,
        )
        self.history = [self.beginning, *continued.carried]
        self.facts = replace(self.facts, generation=self.facts.generation + 1)
        return self.taken_up()


def _nobody(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
