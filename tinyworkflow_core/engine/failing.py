"""Failing: from where on a run failed, and what a retry of it therefore has to do again.

While the history is applied, it keeps in mind when each step ended badly and how far the code had come by then. When
the run fails, the cause chain of its error tells where that began: at the first of the steps that brought it down, at
the first thing asked for in handling an exception of that chain, or, when steps were undone, where the first of them
was done. What was asked for after that is void, and so are the steps that ended badly since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..clock import seconds
from ..errors import RetryAfter
from ..records import dataclass
from ..retry import RetryPolicy
from ..serialization import Failure, digest
from .asking import Compensation
from .history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ChildEnded,
    Event,
    MessageSent,
    RunRetried,
    SideEffectRecorded,
)
from .journal import Journal, Since
from .outcomes import Failed


@dataclass(slots=True)
class Ending:
    """How the workflow function came to its end, while what follows may still be at work."""

    since: Since
    wound_up: tuple[int, ...]
    """Steps that were withdrawn and ended badly just before: most likely because of what ended it."""
    undone: Sequence[Compensation] = ()


class Failing:
    """What has failed in one execution."""

    def __init__(self, journal: Journal) -> None:
        self.ending: Ending | None = None
        self._journal = journal
        self._bad: dict[int, Since] = {}
        self._wound_up: list[int] = []
        self._once: set[int] = set()
        self._final: set[int] = set()
        """Steps that run at most once, and failed: what a retry begins anew is never one of them. (One that was
        cancelled is interrupted then: that it was begun stays in the history.)"""

    def note_once(self, step: int) -> None:
        """That step runs at most once, and was begun."""
        self._once.add(step)

    def is_final(self, error: BaseException) -> bool:
        """Whether a step that runs at most once has brought the run down: a retry would meet the same again."""
        return any(getattr(one, "__tinyworkflow_step__", None) in self._final for one in _chain(error))

    def note(self, event: Event) -> None:
        """An event is about to be applied."""
        if isinstance(event, ActivityCompleted):  # the most frequent one
            if self._wound_up:
                pending = self._journal.open.get(event.id)
                if not (pending is not None and pending.withdrawn):
                    # The workflow may have withdrawn others long before, and on purpose.
                    self._wound_up.clear()
            return
        step: int | None = getattr(event, "id", None)
        pending = None if step is None else self._journal.open.get(step)
        if step is not None and _ends_badly(event):
            self._bad[step] = self._journal.here
            if isinstance(event, ActivityFailed) and step in self._once:
                self._final.add(step)
            if (pending is not None and pending.withdrawn) or step in self._journal.orphans:
                self._wound_up.append(step)
                return
        self._wound_up.clear()

    def ends(self) -> Ending:
        """The workflow function ends now, if it has not before."""
        if self.ending is None:
            here = self._journal.here
            # One whose end has led to more is not done anew: what it led to stands in the history.
            wound_up = tuple(step for step in self._wound_up if self._bad[step].position == here.position)
            self.ending = Ending(here, wound_up)
        return self.ending

    def outcome(
        self, error: BaseException, failure: Failure, *, timed_out: Since | None, retry_after: float | None
    ) -> Failed:
        """The outcome of a run that failed by `error`."""
        ending = self.ends()
        behind: set[int] = set()
        begun: list[Since | None] = [timed_out, *(one.since for one in ending.undone)]
        for one in _chain(error):
            begun.append(self._journal.handled_since(one))
            step = getattr(one, "__tinyworkflow_step__", None)
            if isinstance(step, int) and step in self._bad:
                behind.add(step)
                begun.append(self._bad[step])
        since = min((one for one in begun if one is not None), default=None)
        again = behind | {one.undoes for one in ending.undone}
        if since is None:
            since = ending.since
            again |= {*ending.wound_up}
        again |= {step for step, ended in self._bad.items() if ended.met > since.met}
        again = {step for step in again - self._final if step <= since.position}
        return Failed(
            error=failure,
            failed=tuple(sorted(again)),
            undone=tuple(sorted(again & {one.undoes for one in ending.undone})),
            position=since.position,
            retry_after=retry_after,
        )


def _ends_badly(event: Event) -> bool:
    match event:
        case ActivityCancelled() | ActivityFailed(retry_at=None) | ChildEnded(result=None):
            return True
        case SideEffectRecorded(result=None):
            return True
        case MessageSent(error=error):
            return error is not None
        case _:
            return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, its causes, and what it was raised in handling of; in groups too."""
    known: set[int] = set()
    rest = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in known:
            continue
        known.add(id(one))
        yield one
        rest += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            rest += one.exceptions


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
