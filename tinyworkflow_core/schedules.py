"""tick: one bounded call that finds what must be looked at now and has it looked at.

Timers that are due, runs whose function died, wake-ups that were lost, messages nobody acted on: all of them show as
`due` in the store, so the tick reads those and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .clock import Clock
from .dispatcher import Advance, Dispatcher
from .store import Store

TICK_LIMIT = 1000
"""Runs that one tick dispatches; what is left is due at the next one, longest overdue first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TickReport:
    """What a tick did. `more` says that it stopped at its limit: call again."""

    dispatched: tuple[str, ...]
    more: bool


async def tick(
    store: Store, dispatcher: Dispatcher, *, clock: Clock, is_gone: Callable[[str], bool], limit: int = TICK_LIMIT
) -> TickReport:
    """Dispatch every run that is due, up to `limit`. Safe to call from anywhere, at any time, by several at once."""
    due = await store.due(now=clock.now(), limit=limit, gone=is_gone)
    for run_id in due:
        await dispatcher.dispatch(Advance(run_id=run_id))
    return TickReport(dispatched=tuple(due), more=len(due) >= limit)
