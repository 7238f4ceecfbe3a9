"""Call: one holding of one lease, from load to release. It owns the order of writes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..dispatcher import Advance
from ..engine.commands import ExecuteActivity, RequestApproval
from ..engine.context import RunFacts
from ..engine.history import (
    ActivityFailed,
    ApprovalWithdrawn,
    CancelRequested,
    Event,
    RunCancelled,
    RunCompleted,
    RunFailed,
    SignalReceived,
)
from ..engine.replay import Blocked, Cancelled, Completed, Execution, Failed, Mismatch, Outcome
from ..errors import (
    SerializationError,
    StoreUnavailableError,
    TakeoverLimitError,
    UnknownWorkflowError,
)
from ..serialization import Failure
from ..store import Lease, OpenApproval, RunState, Status
from .ledger import Ledger
from .records import asked_for, delayed_start, how_many_fit, open_approval, received, recent_takeovers
from .surroundings import Progress, Surroundings
from .work import Work

_log = logging.getLogger("tinyworkflow.advance")

_CUT_OFF_SHARE = 0.8
"""An attempt that was cut off after this share of the call's time would be cut off every time: it counts as failed."""


class Attention:
    """What wakes a call that waits: an activity's end, or somebody who knows of new messages."""

    def __init__(self) -> None:
        self.messages = False
        self.aside = False
        """The run was put aside: messages do not move it on."""
        self.handed_over = False
        """The run was let go and another call was asked for: that one is not to be turned away."""
        self._event = asyncio.Event()

    def call(self) -> None:
        """Something has happened."""
        self._event.set()

    def call_for_messages(self) -> None:
        """There may be messages in the inbox."""
        self.messages = True
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Until called, or for so long."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        timer = asyncio.get_running_loop().call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()
            self._event.clear()


@dataclass(slots=True)
class _Ready:
    """What may be committed: an event, the message that it came from, or a message that says nothing new."""

    event: Event | None
    message_id: str | None = None


class Call:
    """One holding of one lease."""

    def __init__(
        self, around: Surroundings, lease: Lease, state: RunState, attention: Attention, deadline: datetime | None
    ) -> None:
        self._around = around
        self._store = around.store
        self._clock = around.clock
        self._settings = around.settings
        self._ledger = Ledger(
            around.store, lease, state, clock=around.clock, lease_seconds=around.settings.lease_seconds
        )
        self._run_id = state.run.run_id
        self._inbox = list(state.inbox)
        self._attention = attention
        self._deadline = deadline
        self._began = self._clock.now()
        self._goes_on_after = timedelta(0)
        self._has_taken = False
        self._patience = around.settings.patience_seconds
        self._execution: Execution
        self._work: Work | None = None

    async def run(self) -> Progress:
        """Until the run ends, waits, or this call's time is up."""
        takeovers = recent_takeovers(self._ledger.history)
        if takeovers > self._settings.max_takeovers:
            message = f"the function died {takeovers} times in a row while it held this run, without finishing a step"
            return await self._close(Failed(error=self._around.codec.failure(TakeoverLimitError(message))))
        starts_at = delayed_start(self._ledger.run, self._ledger.history)
        if starts_at is not None and starts_at > self._began:
            return await self._wait_for_start(starts_at)
        try:
            return await self._run_code()
        except (UnknownWorkflowError, SerializationError) as error:
            return await self._park(str(error))

    async def _run_code(self) -> Progress:
        outcome = self._rebuild()
        self._work = work = Work(
            run_id=self._run_id,
            generation=self._ledger.run.generation,
            journal=self._execution.journal,
            run_activity=self._around.run_activity,
            codec=self._around.codec,
            clock=self._clock,
            on_end=self._attention.call,
        )
        while True:
            match outcome:
                case Completed() | Failed() | Cancelled():
                    return await self._close(outcome)
                case Mismatch(error=error):
                    return await self._park("\n".join([str(error), *getattr(error, "__notes__", ())]))
                case Blocked():
                    work.start_new()
            ready = await self._next(work)
            if ready is None:
                return await self._let_go(work)
            outcome = await self._take(ready, work)

    async def _wait_for_start(self, starts_at: datetime) -> Progress:
        """Somebody woke a run whose start is delayed: note what they said and leave it waiting, unless they cancel
        it."""
        seen = {event.message_id for event in self._ledger.history if isinstance(event, SignalReceived)}
        ready = self._from_inbox(self._clock.now(), seen=seen, position=0)
        events = [one.event for one in ready if one.event is not None]
        consumed = tuple(one.message_id for one in ready if one.message_id is not None)
        cancel = next((event for event in events if isinstance(event, CancelRequested)), None)
        if cancel is not None:
            return await self._close(Cancelled(reason=cancel.reason), before=events, consumed=consumed)
        release = self._ledger.release(Status.PENDING, wake_at=starts_at)
        await self._ledger.write(events, consumed=consumed, release=release)
        await self._around.dispatcher.dispatch(Advance(run_id=self._run_id), at=starts_at)
        return Progress.RELEASED

    def lost(self) -> None:
        """Somebody else holds the run: there is nothing to let go of."""
        self._ledger.closed = True

    def failed(self) -> None:
        """The call broke for a reason of its own: whoever comes next should not come at once."""
        self._goes_on_after = timedelta(seconds=self._settings.lease_seconds)

    async def put_away(self) -> None:
        """End what is still running and drop the execution; a call that was broken off lets go of its lease."""
        if self._work is not None:
            try:
                await self._work.stop()
            finally:
                self._execution.close()
        await self._ledger.give_up(self._clock.now() + self._goes_on_after)

    def _rebuild(self) -> Outcome:
        run = self._ledger.run
        definition = self._around.registry.workflow(run.name, run.version)
        facts = RunFacts(
            run_id=run.run_id,
            workflow_id=run.workflow_id,
            name=run.name,
            version=run.version,
            generation=run.generation,
            parent_run_id=run.parent_run_id,
            retry_count=run.retry_count,
        )
        self._execution = Execution(definition, self._ledger.history, facts=facts, codec=self._around.codec)
        return self._execution.outcome

    # --- waiting ------------------------------------------------------------------------------

    async def _next(self, work: Work) -> list[_Ready] | None:
        """What has happened, as soon as anything has. None: nothing will soon, or the call's time is up."""
        while True:
            now = self._clock.now()
            if await self._ledger.renew_if_due(now):
                self._attention.messages = True
            if self._is_over(now) and self._has_taken:  # whatever else is ready: it would never end under a flood
                return None
            due = work.next_wake()
            # A decision that was accepted before its time ran out has to win over the timer that says so.
            deciding = due is not None and due <= now and bool(self._ledger.run.open_approvals)
            if self._attention.messages or deciding:
                await self._look_into_inbox(needed=deciding or not work.is_running)
            if ready := self._ready(work, now):
                return ready
            if self._is_over(now):
                return None
            due = work.next_wake()
            until_due = None if due is None else (due - now).total_seconds()
            if not work.is_running:
                if until_due is None or until_due > self._patience:
                    return None
                # One sum for the whole call: a run that naps for ever must not keep its place from the others.
                self._patience -= until_due
            await self._show_new_approvals()
            waits = [until_due, self._ledger.seconds_to_renewal(now)]
            if self._deadline is not None:
                waits.append((self._deadline - now).total_seconds())
            await self._attention.wait(min(one for one in waits if one is not None))

    def _is_over(self, now: datetime) -> bool:
        return self._deadline is not None and now >= self._deadline

    async def _look_into_inbox(self, *, needed: bool) -> None:
        self._attention.messages = False
        try:
            self._inbox = list(await self._store.inbox(self._run_id))
        except StoreUnavailableError:
            if needed:
                raise
            self._attention.messages = True  # what works goes on; the next look is not far

    def _ready(self, work: Work, now: datetime) -> list[_Ready]:
        """Messages first, so that a decision made in time wins over the timer that runs out. As many as fit one
        document."""
        if work.broken is not None:
            raise work.broken
        ready = self._from_inbox(now, seen=self._execution.seen, position=self._execution.journal.position)
        work.start_due(now)
        ready += [_Ready(event) for event in work.ended]
        fit = how_many_fit([one.event for one in ready], self._store.max_event_bytes)
        work.ended.clear()
        for one in ready[fit:]:
            if one.message_id is not None:
                self._attention.messages = True  # it is still in the inbox
            elif one.event is not None:
                work.ended.append(one.event)
        return ready[:fit]

    def _from_inbox(self, now: datetime, *, seen: Set[str], position: int) -> list[_Ready]:
        limit = self._settings.messages_per_commit
        taken, self._inbox = self._inbox[:limit], self._inbox[limit:]
        new: set[str] = set()
        ready = []
        for message in taken:
            event = None
            if message.id not in seen and message.id not in new:
                event = received(message, now=now, generation=self._ledger.run.generation, position=position)
            new.add(message.id)
            ready.append(_Ready(event, message.id))
        return ready

    # --- writing ------------------------------------------------------------------------------

    async def _take(self, ready: Sequence[_Ready], work: Work) -> Outcome:
        """Store what has happened, then let the workflow see it."""
        self._has_taken = True
        events = [one.event for one in ready if one.event is not None]
        consumed = tuple(one.message_id for one in ready if one.message_id is not None)
        written = [*events, *self._withdrawn_approvals()]
        await self._ledger.write(written, consumed=consumed, release=self._ledger.approvals_closed_by(written))
        if self._settings.always_replay:
            self._execution.close()
            outcome = self._rebuild()
            work.rebuilt(self._execution.journal)
            return outcome
        outcome = self._execution.step(events)
        for event in events:
            if isinstance(event, ActivityFailed):
                work.retry_later(event)
        return outcome

    async def _show_new_approvals(self) -> None:
        """Show approvals that were asked for, and no longer those that were withdrawn, while activities are still at
        work."""
        pending = self._execution.journal.open.values()
        new = [one for one in pending if isinstance(one.command, RequestApproval) and not one.recorded]
        now, withdrawn = self._clock.now(), self._withdrawn_approvals()
        if not new and not withdrawn:
            return
        events = [*(event for one in new if (event := asked_for(one, now)) is not None), *withdrawn]
        self._ledger.show_approvals(self._open_approvals())
        await self._ledger.write(events, release=self._ledger.release(Status.RUNNING, keep_lease=True))
        self._execution.step(events)

    async def _let_go(self, work: Work) -> Progress:
        """Record what the run waits for, release it, and ask for the call that goes on."""
        cut_off = await work.stop()
        now = self._clock.now()
        if ended := [*work.ended, *self._failed_by_deadline(cut_off, now)]:
            work.ended.clear()
            await self._take([_Ready(event) for event in ended], work)
        waiting = self._inbox or self._attention.messages
        goes_on = bool(cut_off or ended or (self._is_over(now) and waiting))
        pending = list(self._execution.journal.open.values())
        records = [event for one in pending if not one.recorded and (event := asked_for(one, now)) is not None]
        approvals = self._open_approvals()
        retrying = any(one.retry_at is not None for one in pending)
        status = Status.PAUSED if approvals else Status.RETRYING if retrying else Status.WAITING
        wake_at = now if goes_on else work.next_wake()
        self._ledger.show_approvals(approvals)
        release = self._ledger.release(Status.PENDING if goes_on else status, wake_at=wake_at)
        await self._ledger.write([*records, *self._withdrawn_approvals()], release=release)
        self._attention.handed_over = goes_on
        if wake_at is not None:
            await self._around.dispatcher.dispatch(Advance(run_id=self._run_id), at=None if goes_on else wake_at)
        return Progress.CONTINUES if goes_on else Progress.RELEASED

    def _failed_by_deadline(self, cut_off: dict[int, datetime | None], now: datetime) -> list[Event]:
        """Attempts that had nearly all of the call's time and were cut off all the same."""
        events: list[Event] = []
        for command_id, started_at in cut_off.items():
            pending = self._execution.journal.open.get(command_id)
            if started_at is None or pending is None or not isinstance(pending.command, ExecuteActivity):
                continue
            if (now - started_at) < (now - self._began) * _CUT_OFF_SHARE:
                continue
            activity, attempt = pending.command.activity, pending.attempt + 1
            took = (now - started_at).total_seconds()
            error = TimeoutError(
                f"activity {activity.name!r} was cut off after {took:g} s: that is all a call may take here"
            )
            events.append(
                ActivityFailed(
                    at=now,
                    attempt=attempt,
                    started_at=started_at,
                    error=self._around.codec.failure(error),
                    retry_at=now if attempt <= activity.retry_policy.max_retries else None,
                    **pending.command.about(),
                )
            )
        return events

    async def _close(
        self,
        outcome: Completed | Failed | Cancelled,
        *,
        before: Sequence[Event] = (),
        consumed: tuple[str, ...] = (),
    ) -> Progress:
        if self._work is not None:
            await self._work.stop()
        now = self._clock.now()
        event: Event
        output: str | None = None
        error: Failure | None = None
        match outcome:
            case Completed(output=output):
                event, status = RunCompleted(at=now, output=output), Status.COMPLETED
            case Failed(error=error):
                event, status = RunFailed(at=now, error=error), Status.FAILED
            case Cancelled(reason=reason):
                event, status = RunCancelled(at=now, reason=reason), Status.CANCELLED
        self._ledger.show_approvals(())
        release = self._ledger.release(status, output=output, error=error, closed_at=now)
        await self._ledger.write([*before, event], consumed=consumed, release=release)
        return Progress.CLOSED

    async def _park(self, problem: str) -> Progress:
        """Put the run aside, whole, until code that fits is deployed or a person acts."""
        if self._work is not None:
            await self._work.stop()
        run_id = self._run_id
        _log.error("run %s is parked: %s", run_id, problem, extra={"run_id": run_id})
        wake_at = self._clock.now() + timedelta(seconds=self._settings.parked_retry_seconds)
        await self._ledger.write([], release=self._ledger.release(Status.PARKED, wake_at=wake_at, problem=problem))
        self._attention.aside = True
        return Progress.RELEASED

    # --- small parts --------------------------------------------------------------------------

    def _open_approvals(self) -> tuple[OpenApproval, ...]:
        known = {one.id: one for one in self._ledger.run.open_approvals}
        commands = [p.command for p in self._execution.journal.open.values() if isinstance(p.command, RequestApproval)]
        return tuple(known.get(one.id) or open_approval(one, self._clock.now()) for one in commands)

    def _withdrawn_approvals(self) -> list[Event]:
        journal, now = self._execution.journal, self._clock.now()
        withdrawn, journal.withdrawn_approvals = journal.withdrawn_approvals, []
        return [ApprovalWithdrawn(at=now, id=one.id, key=one.key) for one in withdrawn]
