"""Beginning: what time it is for the code of a run when it begins.

A run that nobody could pick up for an hour would otherwise believe that hour away: `ctx.now()` would tell the time of
its start, and a first `sleep("30m")` would be over before it began. So whoever picks a run up late says so in the
history, before anything that the code asks for, and every replay begins at that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from .history import (
    CancelRequested,
    Event,
    LeaseTaken,
    RunPickedUp,
    RunResumed,
    RunStarted,
    RunSuspended,
    SignalReceived,
    UpdateAccepted,
    UpdateCompleted,
    UpdateRejected,
)

LATE = timedelta(seconds=1)
"""From this delay on it is recorded; a shorter one would only cost an event in every run."""

_BEFORE = (LeaseTaken, RunSuspended, RunResumed)
"""What may happen to a run whose code has not begun, at any time."""
_EARLY = (SignalReceived, UpdateAccepted, UpdateCompleted, UpdateRejected, CancelRequested)
"""Besides, these may have come before its time to begin. Others may bear an earlier time as well: the clocks of two
machines differ, and a fork of a run that waited for its time goes on at once."""


def beginning(
    history: Sequence[Event], *, now: datetime | None, taken_at: datetime | None = None
) -> tuple[datetime, RunPickedUp | None]:
    """When the code of this history (not empty) began, or begins now; and the event that is to be recorded of it.

    - now: the time of the call that is to run the code; None for one that only looks.
    - taken_at: when the run was first taken. Code that begins again, since its process died before it had recorded
      anything, begins at the same time as before: what it asks for is to be the same.
    """
    started = history[0]
    for event in history[1:]:
        if isinstance(event, RunPickedUp):
            return event.at, None
        if is_met(event, started):
            return started.at, None
    if now is None or not isinstance(started, RunStarted):
        return started.at, None
    was_aside = any(isinstance(event, RunSuspended) for event in history)
    begins = taken_at if taken_at is not None and started.at <= taken_at <= now and not was_aside else now
    return (started.at, None) if begins < started.at + LATE else (begins, RunPickedUp(at=begins))


def is_met(event: Event, started: Event) -> bool:
    """Whether it says that the code has begun."""
    return not isinstance(event, _BEFORE) and not (isinstance(event, _EARLY) and event.at < started.at)
