"""Limits: how long one attempt of an activity may take, and how long it may go without a heartbeat.

While an attempt runs, time is the event loop's own; what is left of `total_timeout` when it begins is by the clock that
`started_at` comes from. When another attempt is due is no matter of this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from .engine.commands import ActivityAttempt
from .errors import HeartbeatTimeoutError


class Limits:
    """How long an attempt may take, and be silent: `async with` it around the call."""

    def __init__(self, attempt: ActivityAttempt, started_at: datetime, *, alive_at: Callable[[], float]) -> None:
        """`alive_at` gives the moment of the latest heartbeat (or of the beginning) in the event loop's time."""
        self._activity = attempt.command.activity
        self._alive_at = alive_at
        self._longest = self._activity.timeout
        self._is_total = False
        if (total := self._activity.total_timeout) is not None:
            left = total - max(0.0, (started_at - (attempt.first_started_at or started_at)).total_seconds())
            if self._longest is None or left <= self._longest:
                self._longest, self._is_total = left, True
        is_bounded = self._longest is not None or self._activity.heartbeat_timeout is not None
        self._scope = asyncio.timeout(self._longest) if is_bounded else None
        self._timer: asyncio.TimerHandle | None = None
        self._is_silent = False
        self.total_is_spent = False
        """Whether the attempt was ended because the whole step's time is up."""

    async def __aenter__(self) -> None:
        if self._scope is None:
            return
        if self._is_total and self._longest is not None and self._longest <= 0:
            self.total_is_spent = True
            raise self._error()
        await self._scope.__aenter__()
        if self._activity.heartbeat_timeout is not None:
            self._look_again_in(self._activity.heartbeat_timeout)

    async def __aexit__(self, *raised: Any) -> None:
        if self._scope is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.total_is_spent = self._is_total and not self._is_silent and self._scope.expired()
        try:
            await self._scope.__aexit__(*raised)
        except TimeoutError:
            raise self._error() from None

    def _look_again_in(self, delay: float) -> None:
        # One timer, moved on only when it fires: a heartbeat costs no more than noting the time.
        self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if (left := self._alive_at() + (self._activity.heartbeat_timeout or 0) - now) > 0:
            self._look_again_in(left)
        elif self._scope is not None and not self._scope.expired():
            self._is_silent = True
            self._scope.reschedule(now)

    def _error(self) -> TimeoutError:
        activity = self._activity
        if self._is_silent:
            return HeartbeatTimeoutError(
                f"activity {activity.name!r} gave no heartbeat for {activity.heartbeat_timeout:g} s (heartbeat_timeout)"
            )
        if self._is_total:
            return TimeoutError(
                f"activity {activity.name!r} timed out: its total_timeout of {activity.total_timeout:g} s, "
                "all attempts and pauses together, is up"
            )
        return TimeoutError(f"activity {activity.name!r} timed out after {activity.timeout:g} s")
