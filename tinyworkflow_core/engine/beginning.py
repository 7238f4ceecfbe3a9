"""Beginning: what time it is for the code of a run when it begins.

A run that nobody could pick up for an hour would otherwise believe that hour away: `ctx.now()` would tell the time of
its start, and a first `sleep("30m")` would be over before it began. So whoever picks a run up late says so in the
history, before anything that the code asks for, and every replay begins at that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from .history import Event, LeaseTaken, RunPickedUp, RunResumed, RunStarted, RunSuspended

LATE = timedelta(seconds=1)
"""From this delay on it is recorded; a shorter one would only cost an event in every run."""

_BEFORE = (LeaseTaken, RunSuspended, RunResumed)
"""What may happen to a run that nobody has picked up. Besides, messages may have come before its time to begin."""


def beginning(history: Sequence[Event], now: datetime | None) -> tuple[datetime, RunPickedUp | None]:
    """When the code of this history (not empty) began, or begins now; and the event that is to be recorded of it.

    `now`: the time of the call that is to run the code; None for one that only looks.
    """
    started = history[0]
    for event in history[1:]:
        if isinstance(event, RunPickedUp):
            return event.at, None
        if not isinstance(event, _BEFORE) and event.at >= started.at:
            return started.at, None
    if now is None or now < started.at + LATE or not isinstance(started, RunStarted):
        return started.at, None
    return now, RunPickedUp(at=now)
