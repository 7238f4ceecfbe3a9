"""Measuring: how activities have fared in the latest runs, by the attempts that stand in their histories.

There is no index of activities, so histories are read: those of so many runs, as far as their length fits a budget
that is known before anything is read. What was left out is said.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from datetime import datetime

from ...engine.history import ActivityCompleted, ActivityFailed, Event
from ...records import dataclass
from ...store import Run, RunQuery, Store

MOST_RUNS = 200
DEFAULT_RUNS = 50
MOST_DOCUMENTS = 5000
"""Documents of histories that one look reads at most."""
MOST_ACTIVITIES = 200
"""Names that are told apart: they may be made by code, without end."""

_AT_ONCE = 8
"""Histories that are in memory together."""


@dataclass(kw_only=True, slots=True)
class Measured:
    """One activity. Durations are those of attempts, in seconds."""

    name: str
    succeeded: int = 0
    """Steps that have their result."""
    failed: int = 0
    """Steps whose last attempt failed."""
    attempts: int = 0
    durations: list[float] = field(default_factory=list)
    last_error: str | None = None
    """The type of the latest error."""
    last_error_at: datetime | None = None
    last_error_run: str | None = None

    @property
    def success_rate(self) -> float | None:
        """From 0 to 1. None: no step has ended."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None

    @property
    def attempts_per_step(self) -> float | None:
        """How many a step has taken. None: no step has ended."""
        ended = self.succeeded + self.failed
        return self.attempts / ended if ended else None

    def percentile(self, share: float) -> float | None:
        """So long or shorter took that share of the attempts."""
        if not self.durations:
            return None
        return sorted(self.durations)[max(0, math.ceil(share * len(self.durations)) - 1)]

    def add(self, run_id: str, event: ActivityCompleted | ActivityFailed) -> None:
        """Count an attempt that has ended."""
        self.attempts += 1
        self.durations.append(max(0.0, (event.at - event.started_at).total_seconds()))
        if isinstance(event, ActivityCompleted):
            self.succeeded += 1
            return
        self.failed += event.retry_at is None
        if self.last_error_at is None or event.at > self.last_error_at:
            self.last_error, self.last_error_at, self.last_error_run = event.error.type, event.at, run_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What was looked at, and what was seen. Activities by name."""

    activities: Sequence[Measured]
    runs: int
    too_long: int
    """Runs whose history was not read, for it did not fit into the budget."""
    events: int
    oldest: datetime | None
    """When the oldest of the runs was made."""
    unnamed: int
    """Attempts of activities beyond MOST_ACTIVITIES."""


async def measure(
    store: Store,
    *,
    workflow: str | None = None,
    limit: int = DEFAULT_RUNS,
    reaches: Callable[[str], bool] = lambda name: True,
) -> Measurement:
    """How activities have fared in the latest `limit` runs, of one workflow or of all that `reaches` lets through."""
    page = await store.list(RunQuery(name=workflow, limit=min(limit, MOST_RUNS)))
    runs = [one for one in page.items if reaches(one.name)]
    chosen = _within_budget(runs)
    found: dict[str, Measured] = {}
    events = unnamed = 0
    for begin in range(0, len(chosen), _AT_ONCE):
        some = chosen[begin : begin + _AT_ONCE]
        for run, state in zip(some, await asyncio.gather(*(store.load(one.run_id) for one in some)), strict=True):
            history = () if state is None else state.history
            events += len(history)
            unnamed += _count(found, run, history)
        await asyncio.sleep(0)  # others' requests get their turn
    return Measurement(
        activities=[found[name] for name in sorted(found)],
        runs=len(chosen),
        too_long=len(runs) - len(chosen),
        events=events,
        oldest=min((one.created_at for one in runs), default=None),
        unnamed=unnamed,
    )


def _within_budget(runs: Iterable[Run]) -> list[Run]:
    chosen, left = [], MOST_DOCUMENTS
    for one in runs:
        documents = one.sequence + 1
        if documents <= left:
            chosen.append(one)
            left -= documents
    return chosen


def _count(found: dict[str, Measured], run: Run, history: Iterable[Event]) -> int:
    """Count the attempts of one run; gives how many of them had no place any more."""
    unnamed = 0
    for event in history:
        if not isinstance(event, ActivityCompleted | ActivityFailed):
            continue
        if event.name not in found and len(found) >= MOST_ACTIVITIES:
            unnamed += 1
            continue
        found.setdefault(event.name, Measured(name=event.name)).add(run.run_id, event)
    return unnamed
