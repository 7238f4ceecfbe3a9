"""Outcomes: where a run's code has come to, as a closed union of frozen records."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import NonDeterminismError
from ..records import dataclass
from ..serialization import Failure
from .history import Event
from .journal import Pending


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """The workflow returned; `output` is JSON text."""

    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The workflow raised. The rest is what a retry has to know: see `RunFailed`; `retry_after` is in seconds when the
    workflow's own policy retries it."""

    error: Failure
    failed: tuple[int, ...] = ()
    undone: tuple[int, ...] = ()
    position: int | None = None
    retry_after: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """A cancellation was asked for and the workflow ended by it."""

    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinuedAsNew:
    """The workflow goes on as its next generation, with this input (JSON text). `carried` are the messages that nobody
    has taken, and the latest answers to updates: the next history begins with them."""

    input: str
    carried: tuple[Event, ...]
    seen: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocked:
    """The workflow waits. `pending` are its open commands in the order in which it asked for them (a live view)."""

    pending: Collection[Pending]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mismatch:
    """Code and history differ: nothing may be concluded from this execution."""

    error: NonDeterminismError


Outcome = Completed | Failed | Cancelled | ContinuedAsNew | Blocked | Mismatch
