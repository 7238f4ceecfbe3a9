"""Holding: what one call has in hand while it holds a run, and the small things that all its parts do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from ..dispatcher import Task
from ..engine.commands import RequestApproval
from ..engine.context import RunFacts
from ..engine.history import ApprovalWithdrawn, Event, PatchMarked
from ..engine.replay import Execution
from ..store import Lease, Message, OpenApproval, RunState
from .ledger import Ledger
from .records import cast_vote, open_approval
from .surroundings import Surroundings
from .work import Work

_HARDLY = 0.0005
"""Seconds. The same moment, reckoned from two clocks, differs by as much as the reckoning takes."""


class Attention:
    """What wakes a call that waits: an activity's end, or somebody who knows of new messages."""

    def __init__(self) -> None:
        self.messages = False
        self.aside = False
        """The run was put aside: only a message that steers it moves it on."""
        self.unreadable = False
        """The run could not even be read: no message moves it on."""
        self.handed_over = False
        """The run was let go and another call was asked for: that one is not to be turned away."""
        self._was_called = False
        self._waiter: asyncio.Future[None] | None = None
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def call(self) -> None:
        """Something has happened."""
        self._was_called = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def call_for_messages(self) -> None:
        """There may be messages in the inbox."""
        self.messages = True
        self.call()

    async def wait(self, seconds: float) -> None:
        """Until called, or for so long at most."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        if not self._was_called:
            loop = asyncio.get_running_loop()
            self._until = loop.time() + seconds
            self._set_timer(loop)
            self._waiter = loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._was_called = False

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        # One that rings earlier, or hardly later, is left as it is, and set anew then: cheaper than one for every step.
        if self._timer is None or self._timer.when() > self._until + _HARDLY:
            self.rest()
            self._timer = loop.call_at(self._until, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        timer, self._timer = self._timer, None
        if self._waiter is None:
            return  # it was set for a wait that is over
        if timer is not None and timer.when() < self._until - _HARDLY:
            self._set_timer(loop)
        else:
            self.call()

    def rest(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Holding:
    """One holding of one lease: the run as it was read, its execution and its work once they exist."""

    def __init__(
        self, around: Surroundings, lease: Lease, state: RunState, attention: Attention, deadline: datetime | None
    ) -> None:
        self.around = around
        self.attention = attention
        self.deadline = deadline
        self.run_id = state.run.run_id
        self.inbox: list[Message] = list(state.inbox)
        self.ledger = Ledger(
            around.store,
            lease,
            state,
            clock=around.clock,
            codec=around.codec,
            lease_seconds=around.settings.lease_seconds,
        )
        self.execution: Execution | None = None
        self.work: Work | None = None

    def now(self) -> datetime:
        """This moment."""
        return self.around.clock.now()

    def is_over(self, now: datetime) -> bool:
        """Whether the call's time is up."""
        return self.deadline is not None and now >= self.deadline

    def rebuild(self) -> Execution:
        """The run's code, brought to where the history says it is. Raises UnknownWorkflowError, SerializationError."""
        run = self.ledger.run
        definition = self.around.registry.workflow(run.name, run.version)
        facts = RunFacts(
            run_id=run.run_id,
            workflow_id=run.workflow_id,
            name=run.name,
            version=run.version,
            generation=run.generation,
            parent_run_id=run.parent_run_id,
        )
        self.execution = Execution(
            definition,
            self.ledger.history,
            facts=facts,
            codec=self.around.codec,
            now=self.now(),
            taken_at=run.started_at if run.problem is None else None,  # parked until now: no code could begin
        )
        return self.execution

    async def dispatch(self, calls: Iterable[Task]) -> None:
        """Ask for calls to be made as soon as possible."""
        for call in dict.fromkeys(calls):
            await self.around.dispatcher.dispatch(call)

    def marks(self) -> list[Event]:
        """What has to stand in the history before anything that the code did since: its late beginning, its patches."""
        execution = self.execution
        if execution is None or (execution.picked_up is None and not execution.journal.unrecorded_patches):
            return []
        late, now = execution.take_picked_up(), self.now()
        patches = [PatchMarked(at=now, patch=one) for one in execution.take_patches()]
        return [*([] if late is None else [late]), *patches]

    def show_state(self, approvals: tuple[OpenApproval, ...] | None = None) -> None:
        """From the next release on the record shows what the run asks and says of itself now."""
        if self.execution is not None:
            asked = self.open_approvals() if approvals is None else approvals
            self.ledger.show(open_approvals=asked, custom_status=self.execution.custom_status)

    def open_approvals(self) -> tuple[OpenApproval, ...]:
        """The questions that wait for somebody's decision."""
        assert self.execution is not None
        known = {one.id: one for one in self.ledger.run.open_approvals}
        return tuple(
            replace(
                known.get(one.command.id) or open_approval(one.command, one, self.now()),
                votes=tuple(cast_vote(vote) for vote in one.votes),
            )
            for one in self.execution.journal.questions.values()
            if isinstance(one.command, RequestApproval)
        )

    def withdrawn_approvals(self) -> list[Event]:
        """Events for the questions that the workflow no longer asks."""
        if self.execution is None or not self.execution.journal.withdrawn_approvals:
            return []
        journal, now = self.execution.journal, self.now()
        withdrawn, journal.withdrawn_approvals = journal.withdrawn_approvals, []
        return [ApprovalWithdrawn(at=now, id=one.id, key=one.key) for one in withdrawn]

    def with_what_goes_along(self, events: Sequence[Event]) -> list[Event]:
        """The events, after the marks that they depend on, and before what was withdrawn."""
        return [*self.marks(), *events, *self.withdrawn_approvals()]
