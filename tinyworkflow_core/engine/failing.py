"""Failing: from where on a run failed, and what a retry of it therefore has to do again.

While the history is applied, it keeps in mind when each step failed or was cancelled and how far the code had come by
then. When the run fails, the cause chain of its error names the steps that brought it down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..clock import seconds
from ..errors import RetryAfter
from ..retry import RetryPolicy
from ..serialization import Failure, digest
from .asking import steps_behind
from .history import ActivityCancelled, ActivityFailed, ChildEnded, Event, RunRetried
from .outcomes import Failed


class Since(NamedTuple):
    """A moment in a run: how many events had been applied, how many commands asked for."""

    length: int
    position: int


@dataclass(slots=True)
class Ending:
    """How the workflow function came to its end, while what follows may still be at work."""

    since: Since
    cancelled: tuple[int, ...]
    """Steps that were cancelled just before: most likely because of what ended it."""
    undone: tuple[int, ...] = ()


class Failing:
    """What has failed in one execution."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._failures: dict[int, Since] = {}
        self._cancellations: list[tuple[int, int]] = []
        self._last_other = 0

    def note(self, event: Event, length: int, position: int) -> None:
        """An event is about to be applied."""
        match event:
            case ActivityCancelled(id=command_id):
                self._cancellations.append((length, command_id))
                return
            case ActivityFailed(id=command_id, retry_at=None) | ChildEnded(id=command_id, result=None):
                self._failures[command_id] = Since(length, position)
        self._last_other = length

    def ends(self, length: int, position: int) -> Ending:
        """The workflow function ends now, if it has not before."""
        if self.ending is None:
            # Not all cancelled steps: the workflow may have cancelled others long before, and on purpose.
            cancelled = tuple(step for applied, step in self._cancellations if applied > self._last_other)
            self.ending = Ending(Since(length, position), cancelled)
        return self.ending

    def outcome(
        self,
        error: BaseException,
        failure: Failure,
        ending: Ending,
        *,
        timed_out: Since | None,
        retry_after: float | None,
    ) -> Failed:
        """The outcome of a run that failed by `error`."""
        behind = steps_behind(error) & self._failures.keys()
        begun = [self._failures[step] for step in behind]
        if timed_out is not None:
            begun.append(timed_out)
        since, cancelled = ending.since, list(ending.cancelled)
        if begun:
            since = min(begun)
            cancelled = [step for applied, step in self._cancellations if applied > since.length]
        position = since.position
        again = {step for step in {*behind, *cancelled, *ending.undone} if step <= position}
        return Failed(
            error=failure,
            failed=tuple(sorted(again)),
            undone=tuple(sorted(again & set(ending.undone))),
            position=position,
            retry_after=retry_after,
        )


def next_delay(
    policy: RetryPolicy, error: BaseException, retries: Sequence[RunRetried], *, chance_of: str
) -> float | None:
    """Seconds until the policy tries the run again; None when it does not. Retries that somebody asked for begin the
    count anew."""
    attempt = 1
    for retry in retries:
        attempt = attempt + 1 if retry.automatic else 1
    chance = int(digest(f"{chance_of}/{len(retries)}")[:8], 16) / 2**32
    delay = policy.delay(attempt, chance=chance)
    if delay is None or not policy.retries(error):
        return None
    return max(float(seconds(error.delay)), 0.0) if isinstance(error, RetryAfter) else delay
