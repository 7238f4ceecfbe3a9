"""Port: how one part of the system asks for another call to be made, now or later.

Dispatching is at-least-once and allowed to fail: a call may come twice, late, or never. Nothing depends on it,
because the tick finds by `wake_at` whatever was not dispatched; it only makes things happen soon.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime
from typing import Protocol, runtime_checkable

from .records import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Advance:
    """Pick this run up and bring it as far as it goes."""

    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Perform:
    """Make one attempt of an activity of that run (`@activity(run_on="queue")`) and send its outcome to the run."""

    run_id: str
    generation: int
    activity_id: int
    attempt: int


Task = Advance | Perform
"""A call that is to be made."""


@dataclass(kw_only=True, slots=True)
class FailedCalls:
    """How many calls one process has asked for, or made, in vain since it began. Nothing of it is stored, and no words
    of errors are in it: they may hold addresses and values."""

    count: int = 0
    last_error: str | None = None
    """What kind of error the latest was, such as ConnectError."""
    last_at: datetime | None = None

    def add(self, kind: str, at: datetime) -> None:
        """One more."""
        self.count += 1
        self.last_error, self.last_at = kind, at


class Dispatcher(Protocol):
    """Something that makes calls happen."""

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """Ask for `task` to be carried out at `at`, or as soon as possible.

        - Returns when the request is handed over, not when it is carried out.
        - The same task may be carried out more than once, and by another process.
        - Raises nothing for a request that could not be handed over: it logs, and the tick repairs it.
        """
        ...

    async def close(self) -> None:
        """Stop making calls; what is under way is let go."""
        ...


@runtime_checkable
class MakesCalls(Protocol):
    """What a dispatcher can do besides that makes the calls itself: tell how much it could begin with now."""

    @property
    def room(self) -> int:
        """How many more calls would begin at once, without waiting their turn."""
        ...

    def in_hand(self) -> Set[str]:
        """The runs whose Advance is under way or waits its turn."""
        ...


@runtime_checkable
class CountsFailures(Protocol):
    """What a dispatcher can do besides: tell how many of its calls have failed."""

    @property
    def failed(self) -> FailedCalls:
        """Those of this process."""
        ...
