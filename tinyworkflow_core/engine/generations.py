"""Generations: what goes with a run that continues as new, besides its input.

Kept are the messages that nobody has taken, the ids of those that were (a message that comes again counts once), and
the latest answers to updates, for whoever waits for one and has not read it yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from ..errors import RunStateError
from ..serialization import Codec
from .handlers import Handlers
from .history import CancelRequested, Event, SignalReceived, UpdateAccepted, UpdateCompleted, UpdateRejected
from .outcomes import ContinuedAsNew

MAX_SEEN = 500
"""Ids of messages that go along, the latest ones."""
MAX_ANSWERS, MAX_ANSWERS_SIZE = 100, 100_000
"""Answers to updates that go along, the latest ones: so many, and so many characters of them."""


class Border:
    """What one generation will leave to the next."""

    def __init__(self) -> None:
        self._late: list[Event] = []
        """Messages that were recorded in one commit with the event that ended the code, after it."""
        self._answers: list[UpdateCompleted | UpdateRejected] = []

    def note_late(self, event: Event) -> None:
        """The history holds an event that the code, which has ended, does not hear of."""
        if isinstance(event, SignalReceived | UpdateAccepted | CancelRequested):
            self._late.append(event)
        else:
            self.note(event)

    def note(self, event: Event) -> None:
        """An event is in the history."""
        if isinstance(event, UpdateCompleted | UpdateRejected):
            self._answers.append(event)

    def continued(
        self, text: str, handlers: Handlers, seen: Iterable[str], *, run_id: str, at: datetime, codec: Codec
    ) -> ContinuedAsNew:
        """The run goes on with `text` as its input. Updates whose handler is still at work are answered with an error:
        it has no next generation."""
        signals = [
            SignalReceived(at=at, message_id=letter.message_id, name=name, payload=codec.encode(letter.payload))
            for name, letter in handlers.mailbox.kept()
        ]
        kept = {one.message_id for one in signals}
        taken = [one for one in seen if one.startswith(("signal/", "update/")) and one not in kept]
        answers = list(self._answers)
        for one in handlers.answers:
            answers.append(UpdateCompleted(at=at, message_id=one.message_id, result=one.result, error=one.error))
        for message_id in handlers.unfinished:
            error = RunStateError(f"run {run_id!r} continued as new before the update was finished", run_id=run_id)
            answers.append(UpdateCompleted(at=at, message_id=message_id, error=codec.failure(error)))
        carried = (*_latest(answers), *signals, *self._late)
        return ContinuedAsNew(input=text, carried=carried, seen=tuple(taken[-MAX_SEEN:]))


def _latest(answers: Sequence[UpdateCompleted | UpdateRejected]) -> Sequence[Event]:
    kept, size = len(answers), 0
    for one in reversed(answers[-MAX_ANSWERS:]):
        size += len(str(one))
        if size > MAX_ANSWERS_SIZE:
            break
        kept -= 1
    return answers[kept:]
