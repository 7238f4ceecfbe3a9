"""Journal: matches what the code asks for with what its history records, by position.

It hands out command ids, keeps the commands that are open, and is the one place that notices when code and history
differ: a command whose signature is not the recorded one, an event for a command that was never asked for, or recorded
commands that are left over at the end. From the first difference on the execution is void: `mismatch` is set and no
request is ever answered, so that the code stands still and no handler in it can talk its way past.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from types import FrameType
from typing import Any

from ..errors import NonDeterminismError, Suspended
from .commands import Command, ExecuteActivity, RequestApproval, RunSideEffect, Signature, describe
from .history import (
    ActivityEvent,
    ActivityFailed,
    ActivityScheduled,
    ApprovalDecided,
    ApprovalRequested,
    ApprovalWithdrawn,
    Event,
    SideEffectRecorded,
    TimerFired,
    TimerStarted,
)


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


class Journal:
    """The commands of one execution. `history` is all that is stored of this generation."""

    def __init__(self, history: Iterable[Event] = ()) -> None:
        self.open: dict[int, Pending] = {}
        self.withdrawn: list[int] = []
        """Ids of activities and side effects that the workflow wants ended, for whoever runs them to take out."""
        self.withdrawn_approvals: list[RequestApproval] = []
        self.mismatch: NonDeterminismError | None = None
        self.closed = False
        self._refused = 0
        self._last_id = 0
        self._ended: set[int] = set()
        self._signatures: dict[int, Signature] = {}
        for event in history:
            if (signature := recorded_signature(event)) is not None:
                self._signatures.setdefault(event.id, signature)  # type: ignore[attr-defined]  # only events with ids have one

    @property
    def position(self) -> int:
        """How many commands have been asked for."""
        return self._last_id

    def next_id(self) -> int:
        """Take the id of the next command. Raises Suspended when this execution was put away."""
        self.refuse_when_closed()
        if not self.closed:
            self._last_id += 1
        return self._last_id

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
        if recorded is not None and recorded != command.signature:
            self._differ(command.id, describe(recorded), describe(command.signature), _user_line())
        pending = Pending(command, settle, recorded=recorded is not None)
        if self.mismatch is None and not self.closed:
            self.open[command.id] = pending
        return pending

    def withdraw(self, command_id: int) -> None:
        """The workflow no longer wants this command. An activity stays open until an event says that it has ended."""
        pending = self.open.get(command_id)
        if pending is None or self.closed:
            return
        if isinstance(pending.command, ExecuteActivity | RunSideEffect):
            if not pending.withdrawn:
                self.withdrawn.append(command_id)
            pending.withdrawn = True
            return
        self._end(command_id)
        if isinstance(pending.command, RequestApproval) and pending.recorded:
            self.withdrawn_approvals.append(pending.command)

    def apply(self, event: Event) -> None:
        """Take note of an event that belongs to a command: note the attempt, or settle the command."""
        command_id: int = event.id  # type: ignore[attr-defined]  # the caller passes only events with an id
        pending = self.open.get(command_id)
        if pending is None:
            self._apply_late(command_id, event)
            return
        if isinstance(event, TimerStarted | ApprovalRequested | ActivityScheduled):
            pending.recorded = True
        elif isinstance(event, ActivityFailed) and event.retry_at is not None:
            pending.recorded = True
            pending.attempt, pending.retry_at = event.attempt, event.retry_at
            pending.first_started_at = pending.first_started_at or event.started_at
        elif not isinstance(event, ApprovalWithdrawn):
            self._end(command_id)
            pending.settle(event)

    def _apply_late(self, command_id: int, event: Event) -> None:
        if command_id not in self._ended:
            self._differ(command_id, describe(recorded_signature(event) or ("command",)), "nothing at that point", "")
        elif isinstance(event, ApprovalWithdrawn):
            self.withdrawn_approvals = [one for one in self.withdrawn_approvals if one.id != command_id]
        # Anything else ended by a withdrawal that an earlier event of the same commit brought about.

    def note_unfinished(self) -> None:
        """The history says that the code has returned, but it has not: sets `mismatch`."""
        self._differ(self._last_id + 1, "the end of the workflow", "more", "")

    def check_left_over(self) -> None:
        """The code has ended: sets `mismatch` when the history records commands that it never asked for."""
        left = [i for i in self._signatures if i > self._last_id]
        if left and self.mismatch is None:
            first = min(left)
            self._differ(first, describe(self._signatures[first]), "nothing more: it has ended", "")

    def _end(self, command_id: int) -> None:
        del self.open[command_id]
        self._ended.add(command_id)

    def _differ(self, step: int, recorded: str, asked: str, where: str) -> None:
        if self.mismatch is None:
            self.mismatch = NonDeterminismError(step=step, recorded=recorded, asked=asked, where=where)


def recorded_signature(event: Event) -> Signature | None:
    """What the event says about the command that it belongs to; None for events of no command."""
    match event:
        case ActivityEvent():
            return ("activity", event.name, event.digest)
        case TimerStarted() | TimerFired():
            return ("timer", event.due.isoformat())
        case ApprovalRequested() | ApprovalDecided() | ApprovalWithdrawn():
            return ("approval", event.key)
        case SideEffectRecorded():
            return ("side effect",)
        case _:
            return None


_REFUSALS = 100
"""Code that has swallowed so many Suspended would do so for ever."""

_LIBRARY = (str(PurePath(__file__).parent.parent / "_")[:-1], str(PurePath(asyncio.__file__).parent / "_")[:-1])
_CALLBACK = asyncio.Handle._run.__code__


def is_users(frame: FrameType) -> bool:
    """Whether the frame is neither this package's nor asyncio's."""
    return not frame.f_code.co_filename.startswith(_LIBRARY)


def _user_line() -> str:
    """file:line of the code that is asking: the nearest frame of the user's; empty for a step run as a task."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _CALLBACK:
        if is_users(frame):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
