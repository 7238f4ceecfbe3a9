"""tick: one bounded call that finds what must be looked at now and has it looked at.

Timers that are due, runs whose function died, wake-ups that were lost, messages nobody acted on: all of them show as
`due` in the store, and so do schedules whose time has come. The tick reads those and nothing else; of open runs it
looks at those alone that a schedule which is due has started last.

Where the dispatcher makes the calls itself, in this process, a tick takes no more than there is room for, nothing that
is in hand here already, and of more than that a choice of its own: other processes look at the same runs at the same
time, and whatever two of them want to take is one taking for nothing. What it leaves is found by the next tick.

What one schedule does is firing.py's and backfilling.py's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, field, replace
from datetime import datetime, timedelta
from typing import Any

from .backfilling import advance_backfills
from .client import WorkflowClient
from .clock import Clock, fresh_id
from .dispatcher import Advance, Dispatcher, MakesCalls
from .errors import StoreError, StoreUnavailableError
from .firing import fire, knowing
from .records import dataclass
from .schedule_store import DamagedSchedule, Schedule, ScheduleStore
from .store import Store
from .tracebacks import without_words

_log = logging.getLogger("tinyworkflow.schedules")

TICK_LIMIT = 1000
"""Runs that one tick dispatches, and runs that it starts; the rest is due at the next one, longest overdue first."""
SPREAD = 4
"""A tick that finds more than it has room for chooses from so many times that, the longest overdue. More would be read
by every process for nothing; with less they would want to take the same ones more often."""
SHARE = 100
"""Of the runs that a tick starts at most so many are one schedule's, and as many its backfills': then it is others'
turn, and its own again after theirs."""
SHORTEST_DELAY = timedelta(seconds=5)
LONGEST_DELAY = timedelta(minutes=5)
"""How soon a schedule that cannot start its run is tried again: after as long as that has lasted already, within
these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TickReport:
    """What a tick did. `more` says that it stopped at its limit, or where this process had no room for more calls: call
    again."""

    dispatched: tuple[str, ...]
    more: bool
    started: tuple[str, ...] = ()
    """Runs whose time had come; of two ticks at once both may name a run that was started once."""
    backfilled: tuple[str, ...] = ()
    """Runs that backfills have started, or found."""
    skipped: tuple[str, ...] = ()
    """Schedules of which a time has come that gets no run: overlap or catch_up says so."""
    waiting: tuple[str, ...] = ()
    """Schedules whose next run is started when their last one has ended."""
    paused: tuple[str, ...] = ()
    """Schedules that were paused, because too many of their runs have failed in a row."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Schedule -> why no run could be started."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


async def tick(
    store: Store,
    dispatcher: Dispatcher,
    *,
    clock: Clock,
    is_gone: Callable[[str], bool],
    limit: int = TICK_LIMIT,
    client: WorkflowClient | None = None,
    deadline: datetime | None = None,
) -> TickReport:
    """Dispatch every run that is due and that there is room for, and with a `client` start the runs of every schedule
    that is due, each up to `limit`, and nothing more after `deadline`. Safe to call from anywhere, at any time, by
    several at once.

    What it did not come to is due at the next call. Raises StoreUnavailableError.
    """
    due, more = await _due(store, dispatcher, now=clock.now(), is_gone=is_gone, limit=limit)
    dispatched: list[str] = []
    for run_id in due:
        if deadline is not None and clock.now() >= deadline:
            return TickReport(dispatched=tuple(dispatched), more=True)
        await dispatcher.dispatch(Advance(run_id=run_id))
        dispatched.append(run_id)
    firing = _Firing(limit)
    if client is not None:
        await firing.go(client, deadline)
    return firing.report(dispatched, more=firing.more or more)


async def _due(
    store: Store, dispatcher: Dispatcher, *, now: datetime, is_gone: Callable[[str], bool], limit: int
) -> tuple[list[str], bool]:
    """The runs to dispatch, longest overdue first, and whether there may be more."""
    if not isinstance(dispatcher, MakesCalls):
        due = await store.due(now=now, limit=limit, gone=is_gone)
        return due, len(due) >= limit
    room = dispatcher.room
    if not room:
        return [], True
    # Beside what is in hand, which may be due still: it must not stand in the way of the rest.
    page = limit if room >= limit else min(limit, SPREAD * room + len(dispatcher.in_hand()))
    due = await store.due(now=now, limit=page, gone=is_gone)
    in_hand = dispatcher.in_hand()
    others = [run_id for run_id in due if run_id not in in_hand]
    chosen = _some(others, min(limit, dispatcher.room))
    return chosen, len(due) >= page or len(chosen) < len(others)


def _some(run_ids: list[str], count: int) -> list[str]:
    """So many of them at most, in their order, and not the same ones everywhere."""
    if len(run_ids) <= count:
        return run_ids
    chosen = set(sorted(run_ids, key=lambda _: fresh_id(8))[:count])
    return [run_id for run_id in run_ids if run_id in chosen]


class _Firing:
    """The schedules' part of one tick."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.more = False
        self._started: list[str] = []
        self._backfilled: list[str] = []
        self._skipped: list[str] = []
        self._waiting: list[str] = []
        self._paused: list[str] = []
        self._problems: dict[str, str] = {}

    def report(self, dispatched: list[str], *, more: bool) -> TickReport:
        return TickReport(
            dispatched=tuple(dispatched),
            more=more,
            started=tuple(self._started),
            backfilled=tuple(self._backfilled),
            skipped=tuple(self._skipped),
            waiting=tuple(self._waiting),
            paused=tuple(self._paused),
            problems=self._problems,
        )

    @property
    def _left(self) -> int:
        return self._limit - len(self._started) - len(self._backfilled)

    async def go(self, client: WorkflowClient, deadline: datetime | None) -> None:
        """Start the runs whose time has come. A schedule that cannot start its run is reported, and the others go on;
        it keeps its time and is tried again, ever more seldom."""
        schedules, now = client.store.schedules, client.clock.now()
        found = await schedules.due(now=now, limit=self._limit)
        self.more = len(found) >= self._limit
        for schedule in found:
            if isinstance(schedule, DamagedSchedule):
                self._problems[schedule.id] = schedule.problem
                continue
            if self._left <= 0 or (deadline is not None and client.clock.now() >= deadline):
                self.more = True
                return
            after = await self._look_at(client, schedule, now)
            self.more = self.more or (after.wake_at is not None and after.wake_at <= now)
            try:
                await _record(schedules, schedule, after)
            except StoreUnavailableError:
                raise
            except StoreError as error:  # it is reported, and found again by the next call
                self._problems[schedule.id] = f"{type(error).__name__}: {error}"
                _log.error("schedule %s cannot be written", schedule.id, exc_info=without_words(error))
        self.more = self.more or self._left <= 0

    async def _look_at(self, client: WorkflowClient, schedule: Schedule, now: datetime) -> Schedule:
        after = schedule
        if schedule.due_at is not None and schedule.due_at <= now:
            try:
                fired = await fire(client, schedule, now=now, limit=min(self._left, SHARE))
            except StoreUnavailableError:
                raise
            except Exception as error:  # an unknown workflow, an input that fits no more, a record that makes no sense
                self._problems[schedule.id] = f"{type(error).__name__}: {error}"
                after = _put_off(schedule, self._problems[schedule.id], now)
            else:
                after = fired.schedule
                self._started += fired.run_ids
                self._note(schedule.id, after, skipped=fired.skipped)
        run_ids, after = await advance_backfills(client, after, now=now, limit=min(self._left, SHARE))
        self._backfilled += run_ids
        for one in after.backfills:
            if one.problem is not None and one not in schedule.backfills:
                self._problems.setdefault(schedule.id, f"backfill {one.id}: {one.problem}")
        return after

    def _note(self, schedule_id: str, after: Schedule, *, skipped: bool) -> None:
        if skipped:
            self._skipped.append(schedule_id)
        if after.held_since is not None:
            self._waiting.append(schedule_id)
        if after.paused:
            self._paused.append(schedule_id)
            _log.warning("schedule %s is paused: %d of its runs failed in a row", schedule_id, after.failures)


async def _record(schedules: ScheduleStore, before: Schedule, after: Schedule) -> None:
    if await schedules.put(replace(after, etag=fresh_id(32)), expected=before.etag):
        return
    # Another tick was faster, or a person. What it wrote stands, but for a run that it does not know of: the next time
    # has to see that this one is open.
    current = await schedules.get(before.id)
    if current is None or after.last_at is None or after.last_run_id in (None, before.last_run_id):
        return
    if current.last_at is None or current.last_at < after.last_at:
        told = replace(knowing(current, after.last_run_id or ""), last_at=after.last_at, etag=fresh_id(32))
        await schedules.put(told, expected=current.etag)


def _put_off(schedule: Schedule, problem: str, now: datetime) -> Schedule:
    """The schedule, to be tried again later."""
    if schedule.problem != problem:
        # Its class alone: what a validator says may quote the input.
        _log.warning("schedule %s cannot start its run: %s", schedule.id, problem.partition(":")[0])
    since = schedule.held_since if schedule.held_since is not None and schedule.problem is not None else now
    wait = min(max(now - since, SHORTEST_DELAY), LONGEST_DELAY)
    return replace(schedule, due_at=now + wait, held_since=since, problem=problem)
