"""Timeline: a history as rows of bars and marks over time, in words and moments. Pure: knows no clock, codec or page.

A row is one step with all its attempts, or all signals of one name, or what happened to the run itself. What a history
does not record is not drawn: the work of an attempt shows once it has ended, or was handed out as a call of its own.
Only names, moments and the types of errors go in, never a value. How rows are placed and cut is in `gantt.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ...engine.history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityEvent,
    ActivityFailed,
    ActivityHeartbeat,
    ActivityScheduled,
    ActivityStarted,
    ApprovalDecided,
    ApprovalRequested,
    ApprovalVoted,
    ApprovalWithdrawn,
    CancelRequested,
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
    RunPickedUp,
    RunResumed,
    RunRetried,
    RunStarted,
    RunSuspended,
    RunTerminated,
    RunTimedOut,
    SideEffectRecorded,
    SignalReceived,
    TimerFired,
    TimerStarted,
    UpdateAccepted,
    UpdateCompleted,
    UpdateRejected,
)
from .row_building import RowBuilding, void_of
from .rows import Kind, Row, Timeline, Tone


def timeline(history: Sequence[Event], *, now: datetime, undo_of: Mapping[str, str] | None = None) -> Timeline:
    """The timeline of a history that is not empty. `undo_of`: the name of an activity -> of what compensates it."""
    void = void_of(history)
    building = _Building(undo_of or {})
    for number, event in enumerate(history, start=1):
        building.add(number, event, void=number in void)
    is_open = not building.closed
    rows = building.finished()
    begin = min([row.begin for row in rows])
    ends = [row.end for row in rows]
    latest = max([event.at for event in history])
    end = max(one for one in (latest, now if is_open else latest, *ends) if one is not None)
    return Timeline(rows=rows, begin=begin, end=end, latest=latest, is_open=is_open)


class _Building(RowBuilding):
    """One `_...` method for each family of events."""

    def __init__(self, undo_of: Mapping[str, str]) -> None:
        super().__init__()
        self._undo_of = undo_of
        self._undoing: set[str] = set()
        self._done: list[Row] = []
        """Rows of activities, in the order in which they were done."""
        self.closed = False

    def add(self, number: int, event: Event, *, void: bool) -> None:
        self._number, self._event, self._void = number, event, void
        match event:
            case ActivityEvent() | ActivityHeartbeat():
                self._activity(event)
            case TimerStarted() | TimerFired():
                self._timer(event)
            case ApprovalRequested() | ApprovalDecided() | ApprovalVoted() | ApprovalWithdrawn():
                self._approval(event)
            case ChildStarted() | ChildEnded():
                self._child(event)
            case UpdateAccepted() | UpdateCompleted() | UpdateRejected():
                self._update(event)
            case LeaseTaken(owner=owner, previous_owner=previous):
                row = self._row("holder", Kind.HOLDER, "Take-overs")
                self._mark(row, Tone.FAILED, f"{owner} took the run from {previous}, which had died or fallen silent")
                row.state = _times(len(row.marks))
            case SignalReceived(name=name):
                row = self._row(("signal", name), Kind.SIGNAL, name)
                self._mark(row, Tone.DONE, "received")
                row.state = _times(len(row.marks))
            case MessageSent(id=step, target=target, name=name, error=error):
                row = self._row(step, Kind.MESSAGE, f"{name or 'cancel'} → {target}", step)
                row.state = "sent" if error is None else f"failed: {error.type}"
                self._mark(row, Tone.DONE if error is None else Tone.FAILED, row.state)
            case SideEffectRecorded(id=step, error=error):
                row = self._row(step, Kind.SIDE_EFFECT, "side effect", step)
                row.state = "recorded" if error is None else f"failed: {error.type}"
                self._mark(row, Tone.DONE if error is None else Tone.FAILED, row.state)
            case PatchMarked(patch=patch):
                row = self._row(("patch", patch), Kind.PATCH, patch)
                row.state = "new branch"
                self._mark(row, Tone.DONE, "this run takes the new branch")
            case _:
                self._run(event)

    # --- the steps ------------------------------------------------------------------------------

    def _activity(self, event: ActivityEvent | ActivityHeartbeat) -> None:
        if isinstance(event, ActivityHeartbeat):
            row = self._at.get(event.id)
            if row is not None:
                self._mark(row, Tone.OPEN, f"heartbeat of attempt {event.attempt}")
            return
        kind = Kind.COMPENSATION if event.name in self._undoing else Kind.ACTIVITY
        row = self._row(event.id, kind, event.name, event.id)
        row.attempts = max(row.attempts, getattr(event, "attempt", 1))
        match event:
            case ActivityScheduled(attempt=attempt):
                self._close(row, event.at)
                self._open(row, Tone.OPEN, f"attempt {attempt} is handed out or at work")
                row.state = "at work"
            case ActivityStarted():
                self._close(row, event.at)
                self._open(row, Tone.OPEN, "its one attempt has begun")
                row.state = "at work"
            case ActivityCompleted(attempt=attempt, started_at=started_at):
                self._attempt(row, started_at, Tone.DONE, f"attempt {attempt} done")
                row.state = "done"
                self._done.append(row)
                if event.name in self._undo_of:
                    self._undoing.add(self._undo_of[event.name])
            case ActivityFailed(attempt=attempt, started_at=started_at, error=error, retry_at=retry_at):
                self._attempt(row, started_at, Tone.FAILED, f"attempt {attempt} failed: {error.type}")
                row.state = f"failed: {error.type}"
                if retry_at is not None:
                    row.state = f"to be retried: {error.type}"
                    self._open(row, Tone.WAIT, f"waits for attempt {attempt + 1}")
            case ActivityCancelled():
                row.state = "cancelled"
                if not self._close(row, event.at, Tone.CANCELLED, "cancelled"):
                    self._mark(row, Tone.CANCELLED, "cancelled")

    def _attempt(self, row: Row, started_at: datetime, tone: Tone, words: str) -> None:
        if row.since is not None and started_at > row.since.begin:
            waited = row.since.words if row.since.tone is Tone.WAIT else "waits to be begun"
            self._close(row, started_at, Tone.WAIT, waited)
        row.since = None
        self._bar(row, started_at, self._event.at, tone, words)

    def _timer(self, event: TimerStarted | TimerFired) -> None:
        row = self._row(event.id, Kind.TIMER, "timer", event.id)
        if isinstance(event, TimerStarted):
            self._open(row, Tone.WAIT, f"until {(event.wakes_at or event.due).isoformat(timespec='seconds')}")
            row.state = "waiting"
        else:
            row.state = "fired"
            self._close(row, event.at, Tone.WAIT, "waited")
            self._mark(row, Tone.DONE, "fired")

    def _approval(self, event: ApprovalRequested | ApprovalDecided | ApprovalVoted | ApprovalWithdrawn) -> None:
        row = self._row(event.id, Kind.APPROVAL, event.key, event.id)
        match event:
            case ApprovalRequested():
                self._open(row, Tone.WAIT, "waits for a decision")
                row.state = "open"
            case ApprovalVoted(approved=approved, by=by):
                self._mark(row, Tone.DONE if approved else Tone.FAILED, f"{by} {'approves' if approved else 'rejects'}")
                row.state = f"{len(row.marks)} voted"
            case ApprovalDecided(approved=approved, by=by):
                row.state = "approved" if approved else "rejected"
                words = f"{row.state} by {by}" if by else row.state
                self._close(row, event.at)
                self._mark(row, Tone.DONE if approved else Tone.FAILED, words)
            case ApprovalWithdrawn():
                row.state = "withdrawn"
                self._close(row, event.at, Tone.CANCELLED, "no longer waited for")

    def _child(self, event: ChildStarted | ChildEnded) -> None:
        row = self._row(event.id, Kind.CHILD, event.name, event.id)
        row.run_id = event.run_id
        if isinstance(event, ChildStarted):
            self._open(row, Tone.OPEN, "at work")
            row.state = "open"
            return
        row.state = event.status
        tone = _CHILD_TONES.get(event.status, Tone.FAILED)
        if not self._close(row, event.at, tone, event.status):
            self._mark(row, tone, event.status)

    def _update(self, event: UpdateAccepted | UpdateCompleted | UpdateRejected) -> None:
        name = event.name if isinstance(event, UpdateAccepted) else "update"
        key = ("update", event.message_id)
        row = self._at.get(key) or self._row(key, Kind.UPDATE, name)
        match event:
            case UpdateAccepted():
                self._open(row, Tone.OPEN, "accepted")
                row.state = "accepted"
            case UpdateCompleted(error=error):
                row.state = "answered" if error is None else f"failed: {error.type}"
                self._close(row, event.at, Tone.DONE if error is None else Tone.FAILED, row.state)
            case UpdateRejected():
                row.state = "rejected"
                self._mark(row, Tone.FAILED, "rejected")

    # --- the run itself -------------------------------------------------------------------------

    def _run(self, event: Event) -> None:
        row = self._row("run", Kind.RUN, "Run")
        match event:
            case RunStarted():
                self._open(row, Tone.OPEN, "open")
                row.state = "open"
            case RunPickedUp():
                self._mark(row, Tone.OPEN, "its code began only now")
            case CancelRequested() | RunTimedOut() | RunForked():
                self._mark(row, Tone.CANCELLED, _RUN_WORDS[type(event)])
            case RunSuspended():
                self._close(row, event.at)
                self._open(row, Tone.WAIT, "suspended")
                row.state = "suspended"
            case RunResumed():
                self._close(row, event.at)
                self._open(row, Tone.OPEN, "open")
                row.state = "open"
            case RunRetried():
                self._retried(row, event)
            case RunCompleted() | RunFailed() | RunCancelled() | RunTerminated():
                self._ended(row, event)

    def _retried(self, row: Row, event: RunRetried) -> None:
        self._name_compensations(len(event.undone) if event.automatic else 0)
        if event.automatic:
            self._close(row, event.failed_at, Tone.FAILED, "failed")
        self._bar(row, event.failed_at, event.due, Tone.WAIT, "had failed, to be retried")
        self._mark(row, Tone.OPEN, "retried by its own policy" if event.automatic else "retried by an operator")
        for other in self._rows:  # all that is void has ended now
            if other.since is not None and other.since.void:
                self._close(other, event.at, Tone.CANCELLED, "given up")
        self.closed = False
        self._open(row, Tone.OPEN, "open", max(event.at, event.due))
        row.state = "open"

    def _ended(self, row: Row, event: Event) -> None:
        if isinstance(event, RunFailed):
            self._name_compensations(len(event.undone))
        self.closed = True
        row.state, tone = _ENDS[type(event)]
        if not self._close(row, event.at, tone, row.state):
            self._mark(row, tone, row.state)
        for other in self._rows:
            if other.since is None:
                continue
            if other.kind is Kind.CHILD:
                self._close(other, event.at, None, "cut short by the run's end")
            elif other.kind is Kind.TIMER:  # the limit of something that was in time: nothing went wrong
                other.state = "not needed"
                self._close(other, event.at, None, "ran when the run ended")
            else:
                other.state = "cut short"
                self._close(other, event.at, Tone.CANCELLED, "cut short by the run's end")

    def _name_compensations(self, count: int) -> None:
        """The last so many activities that were done are what has undone others: nothing else runs by then."""
        for row in self._done[len(self._done) - count :]:
            row.kind = Kind.COMPENSATION


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


_RUN_WORDS: dict[type[Event], str] = {
    CancelRequested: "asked to cancel",
    RunTimedOut: "its time was up",
    RunForked: "forked: what is before was copied from another run",
}
_ENDS: dict[type[Event], tuple[str, Tone]] = {
    RunCompleted: ("completed", Tone.DONE),
    RunFailed: ("failed", Tone.FAILED),
    RunCancelled: ("cancelled", Tone.CANCELLED),
    RunTerminated: ("terminated", Tone.CANCELLED),
}
_CHILD_TONES = {"completed": Tone.DONE, "cancelled": Tone.CANCELLED, "terminated": Tone.CANCELLED}
