"""Backfills: a window of a schedule's times that is made up for, a few runs at a time, over as many ticks as it takes.

A backfill is part of its schedule's record, so it survives whoever has begun it, ends with the schedule, and costs a
tick no query of its own. It goes by its own concurrency, whatever overlap, catch_up and pause say. Its runs have the
ids of their times: one that was started before, by whomever, is found and not started again.

Nothing is written here but runs: records as they have to be are given back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from .client import WorkflowClient
from .clock import fresh_id
from .cron import Timing, checked_moment, timing_from_dict
from .errors import InvalidInputError, ScheduleNotFoundError, StoreUnavailableError
from .firing import LONGEST_WAIT, SHORTEST_WAIT, start
from .records import dataclass
from .schedule_store import Backfill, BackfillState, Schedule
from .store import Status

_log = logging.getLogger("tinyworkflow.schedules")

BACKFILL_LIMIT = 1000
"""Times of one backfill."""
MAX_CONCURRENCY = 100
MAX_RUNNING = 5
"""Backfills of one schedule that run at once."""
MAX_KEPT = 5
"""Backfills that are over and still shown."""
SHORTEST_DELAY = timedelta(seconds=5)
LONGEST_DELAY = timedelta(minutes=5)
"""How soon one that cannot start its runs is tried again: after as long as that has lasted already, within these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillPlan:
    """What a backfill does: its times, and its id once it has begun (None: a dry run, or there is nothing to do)."""

    times: tuple[datetime, ...]
    id: str | None = None


def times_of(timing: Timing, start_at: datetime, end_at: datetime) -> tuple[datetime, ...]:
    """The times in `start_at <= time < end_at`. Raises InvalidInputError for more than BACKFILL_LIMIT."""
    checked_moment("start", start_at)
    checked_moment("end", end_at)
    times: list[datetime] = []
    at = timing.next_after(start_at - timedelta.resolution)
    while at is not None and at < end_at:
        if len(times) == BACKFILL_LIMIT:
            raise InvalidInputError(f"backfill: there are more than {BACKFILL_LIMIT} times in it: narrow the window")
        times.append(at)
        at = timing.next_after(at)
    return tuple(times)


def new_backfill(
    times: Sequence[datetime], start_at: datetime, end_at: datetime, *, max_concurrency: int, now: datetime
) -> Backfill:
    """A backfill of these times (one at least) that has not begun. Raises InvalidInputError."""
    if not 1 <= max_concurrency <= MAX_CONCURRENCY:
        raise InvalidInputError(f"max_concurrency: {max_concurrency} is not between 1 and {MAX_CONCURRENCY}")
    if times[-1] > now:
        raise InvalidInputError("backfill: the window reaches into the future; only a dry run may")
    return Backfill(
        id=fresh_id(12),
        start=start_at,
        end=end_at,
        max_concurrency=max_concurrency,
        total=len(times),
        created_at=now,
        next_at=times[0],
        look_at=now,
    )


def having(schedule: Schedule, backfill: Backfill) -> Schedule:
    """The schedule with a backfill more. Raises InvalidInputError when enough are running."""
    running = [one for one in schedule.backfills if one.state is BackfillState.RUNNING]
    if len(running) >= MAX_RUNNING:
        raise InvalidInputError(f"backfill: {MAX_RUNNING} of this schedule are running: wait for one, or cancel one")
    over = [one for one in schedule.backfills if one.state is not BackfillState.RUNNING]
    kept = {one.id for one in (*running, *over[-MAX_KEPT:])}
    return replace(schedule, backfills=(*(one for one in schedule.backfills if one.id in kept), backfill))


def found_in(schedule: Schedule, backfill_id: str) -> Backfill:
    """The backfill of that id. Raises ScheduleNotFoundError."""
    for one in schedule.backfills:
        if one.id == backfill_id:
            return one
    raise ScheduleNotFoundError(f"schedule {schedule.id!r} has no backfill {backfill_id!r}")


def without(schedule: Schedule, backfill_id: str) -> Schedule:
    """The schedule with that backfill cancelled, unless it is over. Raises ScheduleNotFoundError."""
    found = found_in(schedule, backfill_id)
    if found.state is not BackfillState.RUNNING:
        return schedule
    ended = replace(found, state=BackfillState.CANCELLED, look_at=None, held_since=None, open_runs=())
    return with_backfill(schedule, ended)


async def advance_backfills(
    client: WorkflowClient, schedule: Schedule, *, now: datetime, limit: int
) -> tuple[tuple[str, ...], Schedule]:
    """Start what may be started of the schedule's backfills that are to be looked at, at most `limit` runs. Gives those
    runs, and the schedule as it has to be. One that cannot start its run says so in its record and is tried again.

    Raises StoreUnavailableError; the next call finds the runs that this one has started.
    """
    run_ids: list[str] = []
    for one in schedule.backfills:
        if one.look_at is not None and one.look_at <= now and len(run_ids) < limit:
            started, after = await advance(client, schedule, one, now=now, limit=limit - len(run_ids))
            run_ids += started
            schedule = with_backfill(schedule, after)
    return tuple(run_ids), schedule


async def advance(
    client: WorkflowClient, schedule: Schedule, backfill: Backfill, *, now: datetime, limit: int
) -> tuple[list[str], Backfill]:
    """One look at one backfill. Reads each of its open runs once, and each that it starts once."""
    before, run_ids, fresh = backfill, list[str](), backfill.open_runs
    backfill = replace(backfill, open_runs=())
    try:
        while True:
            backfill = await _with_ends_counted(client, backfill, fresh)
            free = min(backfill.max_concurrency - len(backfill.open_runs), limit - len(run_ids))
            fresh, backfill = await _start_some(client, schedule, backfill, free)
            run_ids += fresh
            if not fresh:
                break
    except StoreUnavailableError:
        raise
    except Exception as error:  # an unknown workflow, an input that fits no more
        # As it was: what was started meanwhile is found by the next look.
        return run_ids, _troubled(schedule, before, f"{type(error).__name__}: {error}", now)
    if backfill.next_at is None and not backfill.open_runs:
        return run_ids, replace(backfill, state=BackfillState.DONE, look_at=None, held_since=None, problem=None)
    if backfill.next_at is not None and len(backfill.open_runs) < backfill.max_concurrency:
        return run_ids, replace(backfill, look_at=now, held_since=None, problem=None)  # the call's limit stopped it
    moved = before.held_since is None or before.problem is not None or backfill.open_runs != before.open_runs
    since = now if moved or before.held_since is None else before.held_since
    wait = min(max(now - since, SHORTEST_WAIT), LONGEST_WAIT)
    return run_ids, replace(backfill, look_at=now + wait, held_since=since, problem=None)


async def _start_some(
    client: WorkflowClient, schedule: Schedule, backfill: Backfill, most: int
) -> tuple[tuple[str, ...], Backfill]:
    timing = timing_from_dict(schedule.timing)
    run_ids: list[str] = []
    at = backfill.next_at
    while at is not None and len(run_ids) < most:
        run_ids.append(await start(client, schedule, at))
        following = timing.next_after(at)
        at = following if following is not None and following < backfill.end else None
    return tuple(run_ids), replace(backfill, next_at=at, started=backfill.started + len(run_ids))


async def _with_ends_counted(client: WorkflowClient, backfill: Backfill, run_ids: Sequence[str]) -> Backfill:
    still_open, failed = list(backfill.open_runs), backfill.failed
    for run_id in run_ids:
        run = await client.store.get(run_id)
        if run is not None and not run.status.closed:
            still_open.append(run_id)
        failed += run is not None and run.status is Status.FAILED
    return replace(backfill, open_runs=tuple(still_open), failed=failed)


def _troubled(schedule: Schedule, backfill: Backfill, problem: str, now: datetime) -> Backfill:
    if backfill.problem != problem:
        kind = problem.partition(":")[0]  # and not the words: what a validator says may quote the input
        _log.warning("backfill %s of schedule %s cannot start its run: %s", backfill.id, schedule.id, kind)
    is_old = backfill.problem is not None and backfill.held_since is not None
    since = backfill.held_since if is_old and backfill.held_since is not None else now
    wait = min(max(now - since, SHORTEST_DELAY), LONGEST_DELAY)
    return replace(backfill, look_at=now + wait, held_since=since, problem=problem)


def with_backfill(schedule: Schedule, backfill: Backfill) -> Schedule:
    """The schedule, with that state of one of its backfills."""
    return replace(schedule, backfills=tuple(backfill if one.id == backfill.id else one for one in schedule.backfills))
