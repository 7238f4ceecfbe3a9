"""Surroundings: what a call is given, and how it says that it ended."""

from __future__ import annotations

from enum import Enum

from ..clock import Clock
from ..dispatcher import Dispatcher
from ..records import dataclass
from ..registry import Registry
from ..serialization import Codec
from ..store import Store
from .work import RunActivity


class Progress(Enum):
    """How a call ended."""

    CLOSED = "closed"
    """The run has ended, in this call or before."""
    CONTINUED = "continued"
    """The run has become a new generation, which nobody holds yet."""
    RELEASED = "released"
    """The run waits: for a timer, a signal, a decision, a retry, or for a person who must act (parked)."""
    CONTINUES = "continues"
    """The call's time was up; another has been dispatched."""
    BUSY = "busy"
    """Somebody else holds the run, and will see whatever it was called for."""
    LOST = "lost"
    """Somebody else took the run from this call."""
    UNKNOWN = "unknown"
    """There is no such run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdvanceSettings:
    """Times and bounds of a call; durations in seconds."""

    lease_seconds: float = 30.0
    """How long a holder that falls silent keeps a run from the others. Renewed at a third."""
    patience_seconds: float = 1.0
    """A timer or retry due sooner than this is waited for inside the call; for a later one the run is let go."""
    max_takeovers: int = 5
    """So many deaths of its holder in a row, without an event between them, fail the run."""
    parked_retry_seconds: float = 300.0
    """How often a parked run is tried again by itself, for the case that fitting code has been deployed."""
    messages_per_commit: int = 200
    always_replay: bool = False
    """Rebuild the execution from the stored history before every step, as a test of determinism."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a call works with."""

    store: Store
    dispatcher: Dispatcher
    registry: Registry
    codec: Codec
    clock: Clock
    run_activity: RunActivity
    settings: AdvanceSettings
