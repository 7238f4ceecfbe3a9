"""Intake: what the messages of a run mean to the call that holds it. Whoever writes that down is `call.py`."""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime

from ..engine.history import ActivityCompleted, ActivityFailed, CancelRequested, Event, UpdateAccepted, UpdateRejected
from ..engine.replay import Execution
from ..errors import StoreUnavailableError, UpdateRejectedError
from ..store import Message, MessageKind
from .holding import Attention, Holding
from .outgoing import Ready
from .records import received
from .surroundings import Surroundings


class Intake:
    """The inbox of a run in hand. `terminate` and `suspend` are the messages that ask for that, once they were met."""

    def __init__(self, around: Surroundings, holding: Holding, attention: Attention) -> None:
        self._around = around
        self._holding = holding
        self._attention = attention
        self.terminate: Message | None = None
        self.suspend: Message | None = None

    def find(self, kind: MessageKind) -> Message | None:
        """The first message of a kind."""
        return next((one for one in self._holding.inbox if one.kind is kind), None)

    async def look(self, *, needed: bool) -> None:
        """Read the inbox. Raises StoreUnavailableError when that is needed now; else there will be another look."""
        self._attention.messages = False
        try:
            self._holding.inbox = list(await self._around.store.inbox(self._holding.run_id))
        except StoreUnavailableError:
            if needed:
                raise
            self._attention.messages = True  # what works goes on; the next look is not far

    def take(self, now: datetime, *, seen: Set[str], execution: Execution | None) -> list[Ready]:
        """What the messages say, up to one that puts the run aside. Before the run has begun (without an execution)
        some mean nothing."""
        inbox, limit = self._holding.inbox, self._around.settings.messages_per_commit
        if not inbox:
            return []
        if (found := self.find(MessageKind.TERMINATE)) is not None:
            self.terminate = found
            return []
        new: set[str] = set()
        ready: list[Ready] = []
        while inbox and len(ready) < limit and self.suspend is None:
            if ready and execution is not None and inbox[0].kind is MessageKind.UPDATE:
                break  # its validator has to see what those before it have led to
            message = inbox.pop(0)
            is_new = message.id not in seen and message.id not in new
            new.add(message.id)
            if is_new and message.kind is MessageKind.SUSPEND:
                self.suspend = message
            else:
                ready.append(Ready(self._event_of(message, now, execution) if is_new else None, message.id))
        return ready

    def heard_of(self, now: datetime, execution: Execution) -> frozenset[int]:
        """The activities whose attempt elsewhere has ended, by what is in the inbox."""
        outcomes = [one for one in self._holding.inbox if one.kind is MessageKind.ACTIVITY]
        events = [self._event_of(one, now, execution) for one in outcomes]
        return frozenset(one.id for one in events if isinstance(one, ActivityCompleted | ActivityFailed))

    def _event_of(self, message: Message, now: datetime, execution: Execution | None) -> Event | None:
        run = self._holding.ledger.run
        journal = None if execution is None else execution.journal
        event = received(message, now=now, generation=run.generation, journal=journal)
        if isinstance(event, CancelRequested) and execution is not None and not execution.heeds_cancel:
            return None  # a retry would find it in the history, and end by it
        if not isinstance(event, UpdateAccepted):
            return event
        try:
            if execution is None:
                raise UpdateRejectedError("the run waits for its time to come", run_id=run.run_id)
            execution.validate_update(event.name, event.payload)
        except Exception as error:
            return UpdateRejected(at=now, message_id=message.id, error=self._around.codec.failure(error))
        return event
