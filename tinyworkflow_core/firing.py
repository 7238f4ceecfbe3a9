"""Schedules whose time has come: which of their times count, what overlap allows, which runs are started.

A run is named after its schedule and its time, so starting it again is no second run: two ticks at once, or one that
dies between the start and the record of it, leave one run per time.

When a schedule fires is cron.py's business, what else can be done with it, that of schedules.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from .client import WorkflowClient
from .clock import fresh_id
from .cron import Timing, timing_from_dict
from .errors import RunClosedError, RunNotFoundError, StoreError, StoreUnavailableError
from .schedule_store import CatchUp, DamagedSchedule, Overlap, Schedule, ScheduleStore
from .serialization import digest

_log = logging.getLogger("tinyworkflow.schedules")

ON_TIME = timedelta(seconds=90)
"""So late a time still counts as kept: the ticks of a cloud scheduler are a minute apart. What is later was missed."""

SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=1)
"""How soon a schedule that waits for its last run is looked at again: after as long as it has waited already, within
these."""
SHORTEST_DELAY = timedelta(seconds=5)
LONGEST_DELAY = timedelta(minutes=5)
"""The same for one that cannot start its run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Firings:
    """What was done for the schedules that were due: the runs whose time had come, why other schedules could start none
    (schedule -> reason), and whether it stopped at its limit."""

    run_ids: tuple[str, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    more: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Fired:
    """What was done: the runs of this firing, and the schedule's record as it has to be now (its etag is the old)."""

    run_ids: tuple[str, ...]
    schedule: Schedule


def run_id_of(schedule_id: str, at: datetime) -> str:
    """The run of that time. Times of one schedule are at least a second apart."""
    return f"{schedule_id}@{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def due_at(schedule: Schedule, at: datetime) -> datetime:
    """When the run of that time is started: `at` and a part of the jitter that is the same for ever."""
    return at + timedelta(seconds=schedule.jitter * int(digest(run_id_of(schedule.id, at)), 16) / 16**16)


def expecting(schedule: Schedule, at: datetime | None) -> Schedule:
    """The schedule, with `at` as the next time to fire."""
    due = None if at is None else due_at(schedule, at)
    return replace(schedule, next_at=at, due_at=due, held_since=None, problem=None)


async def start(client: WorkflowClient, schedule: Schedule, at: datetime, *, suffix: str = "") -> str:
    """Start the run of that time, or find that it was started. `suffix` makes it another one."""
    about = {"schedule_id": schedule.id, "scheduled_for": at.astimezone(UTC).isoformat()}
    return await client.start_workflow(
        schedule.workflow,
        client.codec.decode(schedule.input),
        run_id=run_id_of(schedule.id, at) + suffix,
        attributes={**schedule.attributes, **about},
        on_conflict="use_existing",
    )


async def fire_due(client: WorkflowClient, *, limit: int) -> Firings:
    """Start the runs whose time has come, up to `limit`; the rest is due at the next call.

    A schedule that cannot start its run is reported, and the others go on; it keeps its time and is tried again, ever
    more seldom. Raises StoreUnavailableError; the next call goes on where this one stopped.
    """
    schedules, now = client.store.schedules, client.clock.now()
    found = await schedules.due(now=now, limit=limit)
    run_ids: list[str] = []
    problems: dict[str, str] = {}
    for schedule in found:
        if isinstance(schedule, DamagedSchedule):
            problems[schedule.id] = schedule.problem
            continue
        if len(run_ids) >= limit:
            break
        try:
            fired = await fire(client, schedule, now=now, limit=limit - len(run_ids))
            run_ids += fired.run_ids
            await _record(schedules, schedule, fired.schedule)
        except StoreUnavailableError:
            raise
        except Exception as error:  # an unknown workflow, an input that fits no more, a record that makes no sense
            problems[schedule.id] = f"{type(error).__name__}: {error}"
            await _put_off(schedules, schedule, problems[schedule.id], now)
    return Firings(run_ids=tuple(run_ids), problems=problems, more=len(found) >= limit or len(run_ids) >= limit)


async def fire(client: WorkflowClient, schedule: Schedule, *, now: datetime, limit: int) -> Fired:
    """Start the runs that are due, at most `limit`; when more are, the record that it gives is due at once.

    Raises what starting a run raises, and InvalidInputError for a timing that cannot be read.
    """
    timing = timing_from_dict(schedule.timing)
    run_ids: list[str] = []
    while schedule.next_at is not None and due_at(schedule, schedule.next_at) <= now and len(run_ids) < limit:
        at, last = _choose(schedule, timing, schedule.next_at, now)
        if at is not None:
            overlap = await _resolve_overlap(client, schedule, missed=now - due_at(schedule, at) > ON_TIME)
            if overlap is Overlap.QUEUE:
                return Fired(run_ids=tuple(run_ids), schedule=_held(schedule, now))
            if overlap is Overlap.ALLOW:
                run_ids.append(await start(client, schedule, at))
                schedule = replace(schedule, last_at=at, last_run_id=run_ids[-1])
        schedule = expecting(schedule, timing.next_after(last))
    return Fired(run_ids=tuple(run_ids), schedule=schedule)


def _choose(schedule: Schedule, timing: Timing, first: datetime, now: datetime) -> tuple[datetime | None, datetime]:
    """Of the times that have come (`first` is one): the one to start a run for, and the last that is settled by it."""
    if schedule.catch_up is CatchUp.ALL:
        return first, first
    last = timing.last_until(now) or first
    while last > first and due_at(schedule, last) > now:
        last = timing.last_until(last - timedelta.resolution) or first
    last = max(first, last)
    if schedule.catch_up is CatchUp.LATEST or now - due_at(schedule, last) <= ON_TIME:
        return last, last
    was_in_time = schedule.held_since is not None and schedule.problem is None  # it waits for the last run's end
    return first if was_in_time else None, last


async def _resolve_overlap(client: WorkflowClient, schedule: Schedule, *, missed: bool) -> Overlap:
    """What to do now: ALLOW starts, SKIP drops, QUEUE waits."""
    if schedule.overlap is Overlap.ALLOW or schedule.last_run_id is None:
        return Overlap.ALLOW
    last = await client.store.get(schedule.last_run_id)
    if last is None or last.status.closed:
        return Overlap.ALLOW
    if schedule.overlap is Overlap.CANCEL_OTHER:
        try:
            await client.cancel_workflow(last.run_id, f"schedule {schedule.id} starts its next run")
        except (RunClosedError, RunNotFoundError):  # it has ended by itself
            pass
        return Overlap.ALLOW
    if schedule.overlap is Overlap.SKIP and missed and schedule.catch_up is CatchUp.ALL:
        return Overlap.QUEUE  # those that were missed come all at once, and each is to be made up for
    return schedule.overlap


def _held(schedule: Schedule, now: datetime) -> Schedule:
    """The schedule, waiting for the end of its last run."""
    since = schedule.held_since if schedule.held_since is not None and schedule.problem is None else now
    wait = min(max(now - since, SHORTEST_WAIT), LONGEST_WAIT)
    return replace(schedule, due_at=now + wait, held_since=since, problem=None)


async def _record(schedules: ScheduleStore, before: Schedule, after: Schedule) -> None:
    if await schedules.put(replace(after, etag=fresh_id(32)), expected=before.etag):
        return
    # Another tick was faster, or a person. What it wrote stands, but for a run that it does not know of: the next time
    # has to see that this one is open.
    current = await schedules.get(before.id)
    if current is None or after.last_at is None or after.last_run_id == before.last_run_id:
        return
    if current.last_at is None or current.last_at < after.last_at:
        told = replace(current, last_at=after.last_at, last_run_id=after.last_run_id, etag=fresh_id(32))
        await schedules.put(told, expected=current.etag)


async def _put_off(schedules: ScheduleStore, schedule: Schedule, problem: str, now: datetime) -> None:
    if schedule.problem != problem:
        _log.warning("schedule %s cannot start its run: %s", schedule.id, problem)
    since = schedule.held_since if schedule.held_since is not None and schedule.problem is not None else now
    wait = min(max(now - since, SHORTEST_DELAY), LONGEST_DELAY)
    held = replace(schedule, due_at=now + wait, held_since=since, problem=problem, etag=fresh_id(32))
    try:
        await schedules.put(held, expected=schedule.etag)
    except StoreUnavailableError:
        raise
    except StoreError:  # a record that cannot be written: it is reported, and found again by the next call
        _log.exception("schedule %s cannot be put off", schedule.id)
