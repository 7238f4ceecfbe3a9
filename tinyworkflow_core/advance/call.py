"""Call: one holding of one lease, from load to release. It owns the order of writes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime, timedelta

from ..clock import moment
from ..dispatcher import Advance
from ..engine.history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    CancelRequested,
    Event,
    MessageSent,
    PatchMarked,
    RunResumed,
    RunTimedOut,
    SideEffectRecorded,
    TimerFired,
)
from ..engine.replay import Blocked, Cancelled, Completed, ContinuedAsNew, Execution, Failed, Mismatch, Outcome
from ..errors import (
    RunExistsError,
    SerializationError,
    TakeoverLimitError,
    UnknownWorkflowError,
)
from ..store import Lease, MessageKind, RunState, Status
from ..tracebacks import told
from .endings import close, continue_as_new, park, stay_suspended, suspend, terminate
from .holding import Attention, Holding
from .intake import Intake
from .outgoing import Ready, Together, cancellation, outgoing, refused, unreachable
from .records import (
    asked_for,
    begins_at,
    how_many_fit,
    is_suspended,
    messages_seen,
    recent_takeovers,
    size_of_new_runs,
)
from .surroundings import Progress, Surroundings
from .unheard import ends_missed, failed_by_deadline
from .work import Work

_SOON = 0.15
"""Seconds. A dispatcher may make the call for a moment a little before it: that is waited for inside the call."""

_FROM_WORK = (ActivityCompleted, ActivityFailed, ActivityCancelled, TimerFired, SideEffectRecorded)


class Call:
    """One holding of one lease."""

    def __init__(
        self, around: Surroundings, lease: Lease, state: RunState, attention: Attention, deadline: datetime | None
    ) -> None:
        self._holding = Holding(around, lease, state, attention, deadline)
        self._intake = Intake(around, self._holding, attention)
        self._around = around
        self._settings = around.settings
        self._ledger = self._holding.ledger
        self._attention = attention
        self._began = self._holding.now()
        self._goes_on_after = timedelta(0)
        self._has_taken = False
        self._patience = around.settings.patience_seconds
        self._heartbeats_at = lease.until - 2 * self._ledger.renewed_every  # with the renewals
        self._execution: Execution
        self._told: set[str] = set()
        """Children that were told that nobody waits for them any more."""

    async def run(self) -> Progress:
        """Until the run ends, waits, or this call's time is up."""
        holding = self._holding
        if (message := self._intake.find(MessageKind.TERMINATE)) is not None:
            return await terminate(holding, message)
        takeovers = recent_takeovers(self._ledger.history)
        if takeovers > self._settings.max_takeovers:
            text = f"the function died {takeovers} times in a row while it held this run, without finishing a step"
            return await close(holding, Failed(error=self._around.codec.failure(TakeoverLimitError(text))))
        await self._resume()
        if is_suspended(self._ledger.history):
            return await stay_suspended(holding)
        begins = begins_at(self._ledger.run, self._ledger.history)
        try:
            if begins is not None and begins > await self._waited_for(begins):
                progress = await self._wait_until(begins)
                if progress is not None:
                    return progress
            return await self._run_code()
        except (UnknownWorkflowError, SerializationError) as error:
            return await park(holding, str(error), logged=told(error))

    async def _run_code(self) -> Progress:
        outcome = self._rebuild()
        holding, around = self._holding, self._around
        holding.work = work = Work(
            run_id=holding.run_id,
            generation=self._ledger.run.generation,
            journal=self._execution.journal,
            run_activity=around.run_activity,
            codec=around.codec,
            clock=around.clock,
            on_end=self._attention.call,
        )
        if missed := await ends_missed(self._ledger.history, self._ledger.run, self._execution, around, holding.now()):
            outcome = await self._take(missed, work)
        while True:
            match outcome:
                case Completed() | Failed() | Cancelled():
                    return await close(holding, outcome)
                case ContinuedAsNew():
                    return await continue_as_new(holding, outcome)
                case Mismatch(error=error):
                    return await park(holding, "\n".join([str(error), *getattr(error, "__notes__", ())]))
                case Blocked():
                    work.start_new()
            ready = await self._next(work)
            if self._intake.terminate is not None:
                return await terminate(holding, self._intake.terminate)
            if self._intake.suspend is not None:
                return await suspend(holding, self._intake.suspend, await self._let_work_end(work))
            if ready is None:
                return await self._let_go(work)
            outcome = await self._take(ready, work)

    # --- before the code is asked --------------------------------------------------------------

    async def _resume(self) -> None:
        """Take note that somebody wants the run to go on, if it was suspended; else the wish is granted already."""
        inbox = self._holding.inbox
        asked = [i for i, one in enumerate(inbox) if one.kind is MessageKind.RESUME]
        if not asked:
            return
        # A suspension that was asked for before is over with it; one that came later is still to come.
        done = [one for one in inbox[: asked[-1] + 1] if one.kind in (MessageKind.RESUME, MessageKind.SUSPEND)]
        events = [RunResumed(at=self._began, message_id=inbox[asked[-1]].id)]
        consumed = tuple(one.id for one in done)
        await self._ledger.write(events if is_suspended(self._ledger.history) else [], consumed=consumed)
        self._holding.inbox = [one for one in inbox if one not in done]

    async def _waited_for(self, begins: datetime) -> datetime:
        """This moment, once the run's time has come, if that is soon; or somebody has something to say to it."""
        while (left := (begins - (now := self._holding.now())).total_seconds()) > 0:
            if (
                left > min(_SOON, self._patience)
                or self._holding.inbox
                or self._attention.messages
                or self._holding.is_over(now)
            ):
                break
            await self._wait(left, now)
        return now

    async def _wait_until(self, begins: datetime) -> Progress | None:
        """Somebody woke a run whose time has not come: note what they said and leave it waiting. None when they cancel
        a run that has begun before: its code has to hear of it now."""
        run, history = self._ledger.run, self._ledger.history
        has_begun = run.retry_count > 0
        if has_begun and self._holding.inbox and isinstance(mismatch := self._rebuild(), Mismatch):
            return await park(self._holding, str(mismatch.error))
        execution, self._holding.execution = self._holding.execution, None
        ready = self._intake.take(self._began, seen=messages_seen(history), execution=execution)
        if execution is not None:
            execution.close()
        if self._intake.suspend is not None:
            await self._write(ready)
            return await suspend(self._holding, self._intake.suspend, ())
        cancelled = next((one.event for one in ready if isinstance(one.event, CancelRequested)), None)
        if cancelled is not None and not has_begun:
            events = [one.event for one in ready if one.event is not None]
            consumed = tuple(one.message_id for one in ready if one.message_id is not None)
            return await close(self._holding, Cancelled(reason=cancelled.reason), before=events, consumed=consumed)
        if cancelled is not None:
            await self._write(ready)
            return None
        status = Status.RETRYING if has_begun else Status.PENDING
        events = [one.event for one in ready if one.event is not None]
        consumed = tuple(one.message_id for one in ready if one.message_id is not None)
        release = self._ledger.release(status, wake_at=begins, error=run.error)
        await self._ledger.write(events, consumed=consumed, release=release)
        await self._around.dispatcher.dispatch(Advance(run_id=run.run_id), at=begins)
        return Progress.RELEASED

    # --- the end of the call -------------------------------------------------------------------

    def lost(self) -> None:
        """Somebody else holds the run: there is nothing to let go of."""
        self._ledger.closed = True

    def failed(self) -> None:
        """The call broke for a reason of its own: whoever comes next should not come at once."""
        self._goes_on_after = timedelta(seconds=self._settings.lease_seconds)

    async def put_away(self) -> None:
        """End what is still running and drop the execution; a call that was broken off lets go of its lease."""
        if self._holding.work is not None:
            try:
                await self._holding.work.stop()
            finally:
                self._execution.close()
        await self._ledger.give_up(self._holding.now() + self._goes_on_after)

    def _rebuild(self) -> Outcome:
        self._execution = self._holding.rebuild()
        return self._execution.outcome

    # --- waiting ------------------------------------------------------------------------------

    async def _next(self, work: Work) -> list[Ready] | None:
        """What has happened, as soon as anything has. None: nothing will soon, the call's time is up, or the run is to
        be put aside."""
        while True:
            now = self._holding.now()
            if await self._ledger.renew_if_due(now):
                self._attention.messages = True
            if self._holding.is_over(now) and self._has_taken:  # whatever else is ready: it would never end in a flood
                return None
            due = self._next_wake(work)
            # What was accepted before its time ran out (a decision, an attempt's outcome) has to win over that time.
            deciding = due is not None and due <= now and (bool(self._ledger.run.open_approvals) or work.gives_up(now))
            if self._attention.messages or deciding:
                await self._intake.look(needed=deciding or not work.is_running)
            ready = self._ready(work, now, due)
            if self._intake.terminate is not None:
                return None
            if ready:
                return ready
            if self._intake.suspend is not None or self._holding.is_over(now):
                return None
            if due is not None and due <= now:
                due = self._next_wake(work)
            until_due = None if due is None else (due - now).total_seconds()
            if not work.is_running and (until_due is None or until_due > self._patience):
                return None
            journal = self._execution.journal
            if journal.questions or journal.withdrawn_approvals:
                await self._show_new_approvals()
            idle = not work.is_running
            await self._wait(until_due, now)
            if idle:
                # One sum for the whole call: a run that naps for ever must not keep its place from the others.
                self._patience -= (self._holding.now() - now).total_seconds()

    async def _wait(self, until_due: float | None, now: datetime) -> None:
        longest = self._ledger.seconds_to_renewal(now)
        if until_due is not None and until_due < longest:
            longest = until_due
        if self._holding.deadline is not None:
            longest = min(longest, (self._holding.deadline - now).total_seconds())
        await self._attention.wait(longest)

    def _next_wake(self, work: Work) -> datetime | None:
        """When a timer, a retry, an attempt elsewhere or the run itself is due."""
        due, deadline = work.next_wake(), self._run_deadline()
        return deadline if due is None or (deadline is not None and deadline < due) else due

    def _run_deadline(self) -> datetime | None:
        deadline = self._execution.deadline
        return None if deadline is None else moment(deadline)

    async def _let_work_end(self, work: Work) -> list[Event]:
        """Let what is running come to its end, within the call's time; nothing new begins."""
        while work.is_running and not self._holding.is_over(now := self._holding.now()):
            await self._ledger.renew_if_due(now)
            await self._wait(None, now)
        await work.stop()
        ended = [*work.take_heartbeats(), *work.ended]
        work.ended.clear()
        return ended

    def _is_quiet(self, work: Work, now: datetime, due: datetime | None) -> bool:
        """Whether nothing can have happened but that activities have ended: mostly so."""
        if work.unwanted or work.broken is not None or self._holding.inbox:
            return False
        if (due is not None and due <= now) or now >= self._heartbeats_at:
            return False
        journal = self._execution.journal
        return not (journal.outward or journal.orphans or self._execution.answers)

    def _ready(self, work: Work, now: datetime, due: datetime | None) -> list[Ready]:
        """Messages first, so that a decision made in time wins over the timer that runs out; and what the code asked to
        be sent out before what has ended since, which may make it take that back. As many as fit one document."""
        if self._is_quiet(work, now, due):
            return self._fitting(_taken(work)) if work.ended else []
        if work.broken is not None:
            raise work.broken
        heard_of = self._intake.heard_of(now, self._execution) if work.gives_up(now) else frozenset()
        ready = self._intake.take(now, seen=self._execution.seen.keys(), execution=self._execution)
        if self._intake.suspend is None:
            work.start_due(now, heard_of)
            ready += outgoing(self._execution, self._ledger.run, self._around, now)
            ready += _taken(work)
            ready += self._due_with_the_run(work, now)
        return self._fitting(ready)

    def _fitting(self, ready: list[Ready]) -> list[Ready]:
        fit = self._how_many_fit(ready)
        for one in ready[fit:]:
            if one.message_id is not None:
                self._attention.messages = True  # it is still in the inbox
            elif isinstance(one.event, _FROM_WORK) and self._holding.work is not None:
                self._holding.work.ended.append(one.event)
        return ready[:fit]

    def _due_with_the_run(self, work: Work, now: datetime) -> list[Ready]:
        """What else goes out, and what the run itself has to hear of."""
        run, ready = self._ledger.run, list[Ready]()
        orphans = self._execution.journal.orphans.values()
        for child in [one.run_id for one in work.unwanted] + [one.run_id for one in orphans]:
            if child not in self._told:
                letter = cancellation(run, child, now)
                ready.append(Ready(None, outbox=(letter,), calls=(Advance(run_id=child),)))
        if (deadline := self._run_deadline()) is not None and deadline <= now:
            ready.append(Ready(RunTimedOut(at=now)))
        if now >= self._heartbeats_at:
            self._heartbeats_at = now + self._ledger.renewed_every
            ready += [Ready(beat) for beat in work.take_heartbeats()]
        return ready

    def _how_many_fit(self, ready: Sequence[Ready]) -> int:
        if len(ready) <= 1:
            return len(ready)
        limit = self._around.store.max_event_bytes
        # Marks go first. Were a document to follow, what the others create would stand before its event.
        marks: list[Event] = [
            PatchMarked(at=self._began, patch=one) for one in self._execution.journal.unrecorded_patches
        ]
        if self._execution.picked_up is not None:
            marks.append(self._execution.picked_up)
        fit = max(how_many_fit([*marks, *(one.event for one in ready)], limit) - len(marks), min(1, len(ready)))
        size = 0
        for i, one in enumerate(ready[:fit]):
            size += size_of_new_runs(one.new_runs)
            if i and size > limit:
                return i
        return fit

    # --- writing ------------------------------------------------------------------------------

    async def _take(self, ready: Sequence[Ready], work: Work) -> Outcome:
        """Store what has happened, then let the workflow see it."""
        self._has_taken = True
        if any(isinstance(one.event, MessageSent) for one in ready):
            ready = await self._check_targets(ready)
        events, before, after = await self._write(ready)
        for one in ready:
            if one.event is None:
                self._told.update(target for target, _ in one.outbox)
            elif isinstance(one.event, ActivityStarted):
                work.begin(one.event.id)
        if self._settings.always_replay:
            self._execution.close()
            outcome = self._rebuild()
            work.rebuilt(self._execution.journal)
            return outcome
        self._execution.skip(before)
        outcome = self._execution.step(events, self._holding.now())
        self._execution.skip(after)
        for event in events:
            if isinstance(event, ActivityFailed):
                work.retry_later(event)
            elif isinstance(event, ActivityStarted):
                work.start(event.id)
            elif isinstance(event, ActivityScheduled):
                work.expect(event.id)
        return outcome

    async def _check_targets(self, ready: Sequence[Ready]) -> Sequence[Ready]:
        """Find the signals whose run is unknown or has ended: the workflow is to hear of it."""
        begun = {new.run.run_id for one in ready for new in one.new_runs}  # by the very write that sends the signal
        return [await self._checked(one, begun) for one in ready]

    async def _checked(self, ready: Ready, begun: Set[str]) -> Ready:
        if not isinstance(ready.event, MessageSent) or ready.event.name is None or ready.event.target in begun:
            return ready
        target = await self._around.store.get(ready.event.target)
        if target is not None and not target.status.closed:
            return ready
        return unreachable(ready, known=target is not None, around=self._around)

    async def _write(self, ready: Sequence[Ready]) -> tuple[list[Event], int, int]:
        """Commit it, and have what goes out dispatched. Returns the events, and how many others stand before and after
        them."""
        marks, withdrawn = self._holding.marks(), self._holding.withdrawn_approvals()
        status = self._execution.custom_status if self._holding.execution else self._ledger.run.custom_status
        together = Together.of(ready)
        shown = self._ledger.changes_shown([*together.events, *withdrawn], status, self._holding.now)
        while True:
            try:
                await self._ledger.write(
                    [*marks, *together.events, *withdrawn],
                    consumed=together.consumed,
                    release=shown,
                    outbox=together.outbox,
                    new_runs=together.new_runs,
                )
                break
            except RunExistsError as taken:
                ready = [refused(one, taken.run_id, self._around) for one in ready]
                together = Together.of(ready)
        if together.calls:
            await self._holding.dispatch(together.calls)
        return together.events, len(marks), len(withdrawn)

    async def _show_new_approvals(self) -> None:
        """Show approvals that were asked for, and no longer those that were withdrawn, while activities are still at
        work."""
        holding, journal = self._holding, self._execution.journal
        new = [one for one in journal.questions.values() if not one.recorded]
        now, withdrawn = holding.now(), holding.withdrawn_approvals()
        if not new and not withdrawn:
            return
        events = [*(event for one in new if (event := asked_for(one, now)) is not None), *withdrawn]
        marks = holding.marks()
        holding.show_state()
        release = self._ledger.release(Status.RUNNING, keep_lease=True)
        await self._ledger.write([*marks, *events], release=release)
        self._execution.skip(len(marks))
        self._execution.step(events, now)

    async def _let_go(self, work: Work) -> Progress:
        """Record what the run waits for, release it, and ask for the call that goes on."""
        holding, around = self._holding, self._around
        cut_off = await work.stop()
        now = holding.now()
        beats = work.take_heartbeats()  # of those that were cut off: the next attempt goes on from there
        if ended := [
            *beats,
            *work.ended,
            *failed_by_deadline(self._execution, around, self._began, now, cut_off, beats),
        ]:
            work.ended.clear()
            await self._take([Ready(event) for event in ended], work)
        waiting = holding.inbox or self._attention.messages
        goes_on = bool(cut_off or ended or (holding.is_over(now) and waiting))
        pending = list(self._execution.journal.open.values())
        records = [event for one in pending if not one.recorded and (event := asked_for(one, now)) is not None]
        holding.show_state()
        retrying = any(one.retry_at is not None for one in pending)
        status = Status.PAUSED if self._ledger.run.open_approvals else Status.RETRYING if retrying else Status.WAITING
        wake_at = now if goes_on else self._next_wake(work)
        release = self._ledger.release(Status.PENDING if goes_on else status, wake_at=wake_at)
        await self._ledger.write(holding.with_what_goes_along(records), release=release)
        self._attention.handed_over = goes_on
        if wake_at is not None:
            await around.dispatcher.dispatch(Advance(run_id=holding.run_id), at=None if goes_on else wake_at)
        return Progress.CONTINUES if goes_on else Progress.RELEASED


def _taken(work: Work) -> list[Ready]:
    """What of the work has ended since the last look."""
    ready = [Ready(event) for event in work.ended]
    work.ended.clear()
    return ready
