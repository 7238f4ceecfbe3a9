"""Journal: matches what the code asks for with what its history records, by position.

It hands out command ids, keeps the commands that are open, and is the one place that notices when code and history
differ: a command whose signature is not the recorded one, an event for a command that was never asked for, or recorded
commands that are left over at the end. From the first difference on the execution is void: `mismatch` is set and no
request is ever answered, so that the code stands still and no handler in it can talk its way past.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import PurePath
from types import FrameType
from typing import Any, NamedTuple, cast

from ..errors import NonDeterminismError, QueryError, Suspended
from ..records import dataclass
from .commands import (
    Command,
    ExecuteActivity,
    RequestApproval,
    RunSideEffect,
    SendMessage,
    Signature,
    StartChild,
    StartTimer,
    describe,
    restarted,
)
from .history import (
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
    ChildEnded,
    ChildEvent,
    ChildStarted,
    Event,
    MessageSent,
    PatchMarked,
    RunForked,
    RunRetried,
    SideEffectRecorded,
    TimerFired,
    TimerStarted,
)
from .rewind import times_redone, times_void
from .voting import verdict


class Since(NamedTuple):
    """A moment in a run: how many events the code had met, how many commands it had asked for."""

    met: int
    position: int


@dataclass(slots=True, eq=False)
class Pending:
    """A command that has not ended. `attempt` counts the attempts that have failed; the next is due at `retry_at`."""

    command: Command
    settle: Callable[[Any], None]
    recorded: bool = False
    """Whether the history mentions it already."""
    withdrawn: bool = False
    """The workflow wants it to end; an activity stays open until it has."""
    attempt: int = 0
    retry_at: datetime | None = None
    first_started_at: datetime | None = None
    heartbeat: str | None = None
    """The last details that an attempt has reported, as JSON text."""
    begun: bool = False
    """An at-most-once activity whose one attempt was begun."""
    deadline: datetime | None = None
    """When the attempt that was handed out as a call of its own is given up."""
    delay: timedelta = timedelta()
    """How much later than its command says this timer or approval is due: by how long the run lay failed while it was
    open, and by what a call lagged that asked for a timer."""
    started: bool = False
    """Whether the child run exists."""
    on_start: Callable[[], None] | None = None
    """Called when a child run has been started."""
    votes: tuple[ApprovalVoted, ...] = ()
    """Those that count, of a question with a quorum."""

    @property
    def due(self) -> datetime | None:
        """When a timer is to fire; None for other commands."""
        return self.command.due + self.delay if isinstance(self.command, StartTimer) else None


class Journal:
    """The commands of one execution. `history` is all that is stored of this generation, without what is void."""

    def __init__(self, history: Sequence[Event] = (), children_lost: Mapping[int, int] | None = None) -> None:
        self.children_lost = children_lost or {}
        """How many child runs of a command a retry has made void."""
        self.open: dict[int, Pending] = {}
        self.outward: dict[int, Pending] = {}
        """Those of them that are sent into the world by a commit of their own, once or more."""
        self.questions: dict[int, Pending] = {}
        """Those of them that ask people."""
        self.withdrawn: list[int] = []
        """Ids of activities, side effects and children that the workflow wants ended, for whoever runs them to take
        out."""
        self.withdrawn_approvals: list[RequestApproval] = []
        self.orphans: dict[int, ChildStarted] = {}
        """Children that were started although an event of the same commit, before it, had made the workflow withdraw
        them: they are to be told."""
        self.mismatch: NonDeterminismError | None = None
        self.meet_at_once: Callable[[int, Signature], ActivityCompleted | None] | None = None
        """While code repeats itself: gives the end of an activity that it need not be put to sleep for, and counts it
        as met."""
        self.closed = False
        self.met = 1
        """How many events the code has met."""
        self.last_done = 0
        """The activity or child that was the latest to end."""
        self.outside: BaseException | None = None
        """What whoever drives this execution is handling: none of its own."""
        self._handled: dict[int, tuple[BaseException, Since]] = {}
        self._refused = 0
        self._last_id = 0
        self._ended: set[int] = set()
        self._signatures: dict[int, Signature] = {}
        self._activities: dict[int, ActivityEvent] = {}
        self._copied: set[int] = set()
        """Commands that were recorded before the run was forked off: their arguments may be the other run's."""
        self.patches: set[str] = set()
        """Patches that this run takes, recorded or to be."""
        self.unrecorded_patches: list[str] = []
        self.read_only = False
        """Whether a query is being answered: nothing may be asked for."""
        self._retries: list[RunRetried] = []
        self._forks_ahead = 0
        for event in history:
            if isinstance(event, ActivityEvent):  # most are
                self._signatures.setdefault(event.id, ("activity", event.name, event.digest))
                self._activities[event.id] = event
            elif (signature := recorded_signature(event)) is not None:
                self._signatures.setdefault(event.id, signature)  # type: ignore[attr-defined]  # only events with ids have one
            elif isinstance(event, RunForked):
                self._copied.update(self._signatures)
                self._forks_ahead += 1
            elif isinstance(event, PatchMarked):
                self.patches.add(event.patch)
            elif isinstance(event, RunRetried):
                self._retries.append(event)
        self._last_recorded = max(self._signatures, default=0)

    @property
    def position(self) -> int:
        """How many commands have been asked for."""
        return self._last_id

    @property
    def here(self) -> Since:
        """How far the code has come."""
        return Since(self.met, self._last_id)

    @property
    def is_behind(self) -> bool:
        """Whether the history records commands that have not been asked for yet."""
        return self._last_recorded > self._last_id

    def is_copied(self, command_id: int) -> bool:
        """Whether the run that this one was forked off had recorded the command."""
        return command_id in self._copied

    def times_void(self, command_id: int) -> int:
        """How often what was recorded of this command was made void by a retry."""
        return times_void(self._retries, command_id)

    def times_redone(self, command_id: int) -> int:
        """How often this command became another step than before."""
        return times_redone(self._retries, command_id) if self._retries else 0

    def recorded_digest(self, command_id: int, text: str) -> str | None:
        """The fingerprint of an activity's arguments, where the history has this very text of them at that place."""
        recorded = self._activities.get(command_id)
        return recorded.digest if recorded is not None and recorded.input == text else None

    def records(self, command_id: int, signature: Signature) -> bool:
        """Whether the history has this very command at that place, and no difference was found before it."""
        return self.mismatch is None and not self.closed and self._signatures.get(command_id) == signature

    def note_completed(self, command_id: int) -> None:
        """This activity has ended without having been open."""
        self._ended.add(command_id)
        self.last_done = command_id

    def recorded_child(self, command_id: int) -> str | None:
        """The run_id that the history records for the first child of that place."""
        kind, *rest = self._signatures.get(command_id, ("",))
        return rest[-1] if kind == "child" else None

    def next_id(self) -> int:
        """Take the id of the next command. Raises Suspended when this execution was put away."""
        if self.closed or self.read_only:
            self.refuse_when_closed()
            self.refuse_when_looking()
        if not self.closed:
            if (error := sys.exception()) is not None:
                self._note_handling(error)
            self._last_id += 1
        return self._last_id

    def _note_handling(self, error: BaseException) -> None:
        if isinstance(error, Exception) and error is not self.outside:
            self._handled.setdefault(id(error), (error, self.here))

    def handled_since(self, error: BaseException) -> Since | None:
        """When the code, in handling this exception (`except`, `finally`), first asked for something; None: never."""
        found = self._handled.get(id(error))
        return None if found is None else found[1]

    def refuse_when_looking(self) -> None:
        """Raise QueryError while a query or a validator is asked."""
        if self.read_only:
            raise QueryError("a query or a validator may only look: it cannot ask the workflow to do anything")

    def refuse_when_closed(self) -> None:
        """Raise Suspended when this execution was put away. Code that goes on asking all the same is left waiting."""
        if self.closed and self._refused < _REFUSALS:
            self._refused += 1
            raise Suspended

    def issue(self, command: Command, settle: Callable[[Any], None]) -> Pending:
        """Ask for the command; `settle(event)` is called with the event that ends it.

        Never, when the history records something else at this position (see `mismatch`).
        """
        recorded = self._signatures.get(command.id)
        if recorded is not None and command.signature != recorded and not self._fits_roughly(command, recorded):
            self._differ(command.id, describe(recorded), describe(command.signature), user_line())
        pending = Pending(command, settle, recorded=recorded is not None)
        if self.mismatch is None and not self.closed:
            self.open[command.id] = pending
            if isinstance(command, (ExecuteActivity, StartChild, SendMessage)):
                if command.goes_out:
                    self.outward[command.id] = pending
            elif isinstance(command, RequestApproval):
                self.questions[command.id] = pending
        return pending

    def withdraw(self, command_id: int) -> None:
        """The workflow no longer wants this command. An activity or a child that runs stays open until an event says
        that it has ended."""
        pending = self.open.get(command_id)
        if pending is None or self.closed:
            return
        if _ends_by_itself(pending):
            if not pending.withdrawn:
                self.withdrawn.append(command_id)
            pending.withdrawn = True
            return
        self._end(command_id)
        if isinstance(pending.command, RequestApproval) and pending.recorded:
            self.withdrawn_approvals.append(pending.command)
        elif isinstance(pending.command, StartChild | SendMessage):
            pending.settle(None)

    def apply(self, event: Event) -> None:
        """Take note of an event that belongs to a command: note the attempt, or settle the command."""
        command_id: int = event.id  # type: ignore[attr-defined]  # the caller passes only events with an id
        pending = self.open.get(command_id)
        if pending is None:
            self._apply_late(command_id, event)
            return
        if isinstance(event, ActivityCompleted):  # the most frequent one
            self._end(command_id)
            self.last_done = command_id
            pending.settle(event)
        elif isinstance(event, ActivityCancelled) and not pending.withdrawn and self._retries:
            # What made the workflow withdraw it is void: the step is to be done after all.
            pending.attempt, pending.retry_at, pending.first_started_at, pending.heartbeat = 0, None, None, None
            pending.deadline = None
        elif isinstance(event, _OPENING):
            pending.recorded = True
            self._note_under_way(pending, event)
        elif isinstance(event, ActivityFailed) and event.retry_at is not None:
            pending.recorded = True
            pending.attempt, pending.retry_at, pending.deadline = event.attempt, event.retry_at, None
            pending.heartbeat = event.heartbeat
            pending.first_started_at = pending.first_started_at or event.started_at
        elif isinstance(event, ApprovalVoted):
            self._count(pending, event)
        elif not isinstance(event, ApprovalWithdrawn):
            self._end(command_id)
            if isinstance(event, ChildEnded):
                self.last_done = command_id
            pending.settle(event)

    def _count(self, pending: Pending, vote: ApprovalVoted) -> None:
        pending.votes += (vote,)
        if verdict(cast("RequestApproval", pending.command), pending.votes) is not None:
            self._end(vote.id)
            pending.settle(vote)

    def _note_under_way(self, pending: Pending, event: Event) -> None:
        if isinstance(event, ActivityScheduled):
            pending.deadline = event.deadline
            if event.deadline is not None:  # a call of its own, which begins about now
                pending.retry_at, pending.first_started_at = None, pending.first_started_at or event.at
        elif isinstance(event, ApprovalRequested):
            asked = cast("RequestApproval", pending.command)
            if max(event.quorum, asked.quorum) > 1:  # the votes were counted by the rule that was in force then
                pending.command = replace(
                    asked,
                    quorum=event.quorum,
                    veto=event.veto,
                    approvers=event.approvers,
                    escalate_to=event.escalate_to,
                )
        elif isinstance(event, TimerStarted):
            if event.wakes_at is not None:
                pending.delay = event.wakes_at - event.due
        elif isinstance(event, ActivityStarted):
            pending.begun = True
        elif isinstance(event, ActivityHeartbeat):
            pending.heartbeat = event.details
        elif isinstance(event, ChildStarted):
            pending.started = True
            if not self._forks_ahead and isinstance(pending.command, StartChild):
                pending.command = replace(pending.command, run_id=event.run_id)
            if pending.on_start is not None:
                pending.on_start()

    def restart_children(self, retried: RunRetried, number: int) -> None:
        """The run goes on, for the `number`-th time. The children whose end is void are to be started anew; and where
        somebody has opened it again, those that it still waits for: when it ended, they were told to end too."""
        self.orphans.clear()
        for command, pending in self._children():
            told = pending.started and not retried.automatic and command.on_parent_close != "abandon"
            if told or (command.id in retried.forgotten and (pending.started or self.is_copied(command.id))):
                self._begin_anew(pending, restarted(command.run_id, number))

    def leave_children(self) -> None:
        """The run was forked off here: the children of the other run are none of its own."""
        self._forks_ahead -= 1
        self.orphans.clear()
        for command, pending in self._children():
            if pending.started:
                self._begin_anew(pending, command.run_id)

    def _children(self) -> list[tuple[StartChild, Pending]]:
        return [(one.command, one) for one in self.outward.values() if isinstance(one.command, StartChild)]

    def _begin_anew(self, pending: Pending, run_id: str) -> None:
        command = cast("StartChild", pending.command)
        if pending.withdrawn:  # it has ended, or was told to, and nobody will say so again
            self._end(command.id)
            pending.settle(None)
        else:
            pending.command = replace(command, run_id=run_id)
            pending.recorded = pending.started = False

    def _apply_late(self, command_id: int, event: Event) -> None:
        if command_id not in self._ended:
            self._differ(command_id, describe(recorded_signature(event) or ("command",)), "nothing at that point", "")
        elif isinstance(event, ApprovalWithdrawn):
            self.withdrawn_approvals = [one for one in self.withdrawn_approvals if one.id != command_id]
        elif isinstance(event, ChildStarted) and event.on_parent_close != "abandon":
            self.orphans[command_id] = event
        elif isinstance(event, ChildEnded):
            self.orphans.pop(command_id, None)
        # Anything else ended by a withdrawal that an earlier event of the same commit brought about.

    def note_unfinished(self) -> None:
        """The history says that the code has returned, but it has not: sets `mismatch`."""
        self._differ(self._last_id + 1, "the end of the workflow", "more", "")

    def check_left_over(self, how: str) -> None:
        """The code has `how` ("ended", "raised ValueError"): sets `mismatch` when the history records commands that it
        never asked for."""
        left = [i for i in self._signatures if i > self._last_id]
        if left and self.mismatch is None:
            first = min(left)
            self._differ(first, describe(self._signatures[first]), f"nothing more: it has {how}", "")

    def deny_patch(self, patch: str, where: str) -> None:
        """The code has dropped the branch that this run took: sets `mismatch`."""
        self._differ(self._last_id + 1, f"nothing of patch {patch!r}", "only the branch that came with it", where)

    def _fits_roughly(self, command: Command, recorded: Signature) -> bool:
        return command.id in self._copied and command.signature[:2] == recorded[:2]

    def _end(self, command_id: int) -> None:
        del self.open[command_id]
        if self.outward:
            self.outward.pop(command_id, None)
        if self.questions:
            self.questions.pop(command_id, None)
        self._ended.add(command_id)

    def _differ(self, step: int, recorded: str, asked: str, where: str) -> None:
        if self.mismatch is None:
            self.mismatch = NonDeterminismError(step=step, recorded=recorded, asked=asked, where=where)


def _ends_by_itself(pending: Pending) -> bool:
    """Whether a withdrawn command stays open until an event says that it has ended."""
    command = pending.command
    if isinstance(command, StartChild):
        # Not `recorded`: in a replay the whole history is known already, and the code has to go on as it once did.
        return pending.started and command.on_parent_close != "abandon"  # else nobody is to be told
    return isinstance(command, ExecuteActivity | RunSideEffect)


def recorded_signature(event: Event) -> Signature | None:
    """What the event says about the command that it belongs to; None for events of no command."""
    match event:
        case ActivityEvent():
            return ("activity", event.name, event.digest)
        case TimerStarted() | TimerFired():
            return ("timer", event.due.isoformat())
        case ApprovalRequested() | ApprovalDecided() | ApprovalVoted() | ApprovalWithdrawn():
            return ("approval", event.key)
        case SideEffectRecorded():
            return ("side effect",)
        case ChildEvent():
            return ("child", event.name, event.digest, event.run_id)
        case MessageSent():
            return ("message", event.name or "", f"{event.target}/{event.digest}")
        case _:
            return None


_OPENING = (TimerStarted, ApprovalRequested, ActivityScheduled, ActivityStarted, ActivityHeartbeat, ChildStarted)
"""Events that say that a command is under way."""

_REFUSALS = 100
"""Code that has swallowed so many Suspended would do so for ever."""

_LIBRARY = (str(PurePath(__file__).parent.parent / "_")[:-1], str(PurePath(asyncio.__file__).parent / "_")[:-1])
_CALLBACK = asyncio.Handle._run.__code__


def is_users(frame: FrameType) -> bool:
    """Whether the frame is neither this package's nor asyncio's."""
    return not frame.f_code.co_filename.startswith(_LIBRARY)


def user_line() -> str:
    """file:line of the code that is asking: the nearest frame of the user's; empty for a step run as a task."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _CALLBACK:
        if is_users(frame):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
