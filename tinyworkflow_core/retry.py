"""RetryPolicy and RetrySchedule: which failed attempt is tried again, and after how long. Pure."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY

from .clock import Duration, seconds
from .errors import ApplicationError, RetryAfter, SerializationError
from .records import dataclass

ExceptionTypes = tuple[type[BaseException], ...]


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon a failed attempt is repeated.

    - max_retries: repeats after the first attempt, so `max_retries=3` means at most four attempts.
    - initial_delay, max_delay: durations. No delay is above max_delay, jitter included.
    - backoff_multiplier: each delay is the one before times this.
    - jitter, jitter_factor: spread each delay evenly over plus or minus factor of itself.
    - retry_on, never_on: exception classes; never_on wins.
    - total: no attempt starts later than this after the first one did.

    Raises ValueError or TypeError at construction for values that make no sense.
    """

    max_retries: int = 3
    initial_delay: Duration = 1.0
    max_delay: Duration = 60.0
    backoff_multiplier: float = 2.0
    jitter: bool = True
    jitter_factor: float = 0.1
    _: KW_ONLY
    retry_on: ExceptionTypes = (Exception,)
    never_on: ExceptionTypes = ()
    total: Duration | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.max_retries, int) or self.max_retries < 0:
            raise ValueError(f"max_retries must be a whole number of at least 0, not {self.max_retries!r}")
        for name in ("initial_delay", "max_delay"):
            seconds(getattr(self, name))
        if not 1 <= self.backoff_multiplier < math.inf:
            raise ValueError(
                f"backoff_multiplier must be a finite number of at least 1, not {self.backoff_multiplier!r}"
            )
        if not 0 <= self.jitter_factor <= 1:
            raise ValueError(f"jitter_factor must be between 0 and 1, not {self.jitter_factor!r}")
        if self.total is not None:
            seconds(self.total)
        for name in ("retry_on", "never_on"):
            object.__setattr__(self, name, _exception_types(name, getattr(self, name)))

    def retries(self, error: BaseException) -> bool:
        """Whether this kind of error is worth another attempt at all."""
        if isinstance(error, RetryAfter):
            return True
        if isinstance(error, ApplicationError):
            return error.retryable
        if isinstance(error, (SerializationError, *self.never_on)):
            return False
        return isinstance(error, self.retry_on)

    def delay(self, attempt: int, *, chance: float) -> float | None:
        """Seconds between the failed `attempt` (counted from 1) and the next; None when there is no next.

        `chance` is a number in [0, 1) that decides the jitter; the caller derives it from the attempt's
        position, so that the policy itself stays pure.
        """
        if attempt > self.max_retries:
            return None
        first, longest = seconds(self.initial_delay), seconds(self.max_delay)
        try:
            delay = min(first * self.backoff_multiplier ** (attempt - 1), longest)
        except OverflowError:
            delay = longest if first else 0.0
        if self.jitter:
            delay *= 1 + self.jitter_factor * (2 * chance - 1)
        return min(delay, longest)


@dataclass(frozen=True)
class RetrySchedule(RetryPolicy):
    """A RetryPolicy whose pauses are given one by one, so `delays=("5s", "5m")` means at most three attempts.

    Of the other settings jitter, jitter_factor, retry_on, never_on and total count. A jitter makes a pause longer or
    shorter by up to the factor.
    """

    _: KW_ONLY
    delays: tuple[Duration, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "delays", tuple(self.delays))
        object.__setattr__(self, "max_retries", len(self.delays))
        super().__post_init__()
        for delay in self.delays:
            seconds(delay)

    def delay(self, attempt: int, *, chance: float) -> float | None:
        if attempt > len(self.delays):
            return None
        delay = seconds(self.delays[attempt - 1])
        return delay * (1 + self.jitter_factor * (2 * chance - 1)) if self.jitter else delay


def _exception_types(name: str, value: object) -> ExceptionTypes:
    types = (
        value if isinstance(value, tuple) else tuple(value) if isinstance(value, list | set | frozenset) else (value,)
    )
    for one in types:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(f"{name} takes exception classes, not {one!r}")
    return types
