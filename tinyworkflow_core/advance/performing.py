"""Performing: one attempt of an activity as a call of its own (`@activity(run_on="queue")`).

The call does not hold the run: it reads it, makes the attempt, and sends the outcome as a message under an id that is
the attempt's own, so that of two calls for one attempt the first to end counts.
"""

from __future__ import annotations

import logging

from ..dispatcher import Advance, Perform
from ..engine.commands import ActivityAttempt, ExecuteActivity
from ..engine.context import RunFacts
from ..engine.history import ActivityCancelled, ActivityFailed, event_to_dict
from ..errors import PayloadTooLargeError
from ..store import DeliveryOutcome, Message, MessageKind, RunState
from .records import message_fits, outcome_id
from .replayed import Replayed
from .surroundings import Progress, Surroundings
from .work import attempt_of

_log = logging.getLogger("tinyworkflow.advance")


class Performer:
    """Makes attempts that were handed out."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._replayed = Replayed(around.codec)

    def close(self) -> None:
        """Forget the runs that were looked at."""
        self._replayed.close()

    async def perform(self, task: Perform) -> Progress:
        """Make the attempt, if the run still waits for it, and tell the run.

        CLOSED: nobody waits for this attempt (any more). RELEASED: made, and its outcome is in the run's inbox.
        UNKNOWN: there is no such run. Raises StoreError; the run then finds the attempt lost at its deadline.
        """
        state = await self._around.store.load(task.run_id, inbox=False)
        if state is None:
            return Progress.UNKNOWN
        if state.run.status.closed or state.run.generation != task.generation:
            return Progress.CLOSED
        with self._replayed.lock:
            found = self._find(state, task)
        if found is None:
            return Progress.CLOSED
        attempt, message_id = found
        event = await self._around.run_activity(attempt, _ignore, _ignore)
        if isinstance(event, ActivityCancelled):  # this call is cut off: the attempt counts as lost
            return Progress.CLOSED
        now = self._around.clock.now()

        def message(event: object) -> Message:
            body = {"event": event_to_dict(event)}  # type: ignore[arg-type]  # one of the two that end an attempt
            return Message(id=message_id, kind=MessageKind.ACTIVITY, received_at=now, body=body)

        told = message(event)
        if not message_fits(told, self._around.store.max_event_bytes):
            problem = PayloadTooLargeError(
                f"result of activity {attempt.command.activity.name!r} is too large to store"
            )
            failure = self._around.codec.failure(problem)
            told = message(
                ActivityFailed(
                    at=now,
                    attempt=task.attempt,
                    started_at=event.started_at,
                    error=failure,
                    **attempt.command.about(),
                )
            )
        delivery = await self._around.store.deliver(task.run_id, told)
        if delivery.outcome is DeliveryOutcome.CLOSED:
            return Progress.CLOSED
        await self._around.dispatcher.dispatch(Advance(run_id=task.run_id))
        return Progress.RELEASED

    def _find(self, state: RunState, task: Perform) -> tuple[ActivityAttempt, str] | None:
        """The attempt, and the id of the message that its outcome will be, by replaying the run: only its code knows
        the activity with all its options."""
        run = state.run
        facts = RunFacts(
            run_id=run.run_id,
            workflow_id=run.workflow_id,
            name=run.name,
            version=run.version,
            generation=run.generation,
            parent_run_id=run.parent_run_id,
        )
        definition = self._around.registry.workflow(run.name, run.version)
        journal = self._replayed.get(definition, state.history, facts).journal
        pending = journal.open.get(task.activity_id)
        if pending is None or pending.withdrawn or not isinstance(pending.command, ExecuteActivity):
            return None
        if pending.attempt + 1 != task.attempt or pending.deadline is None:
            return None
        attempt = attempt_of(pending, journal, run_id=run.run_id, generation=run.generation)
        return attempt, outcome_id(attempt, journal)


def _ignore(*about: object) -> None:
    pass
