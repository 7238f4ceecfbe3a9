"""One schedule whose time has come: which of its times count, what overlap allows, which runs are started.

A run is named after its schedule and its time, so starting it again is no second run: two ticks at once, or one that
dies between the start and the record of it, leave one run per time. Nothing is written here but those runs: the record
as it has to be is given back.

When a schedule fires is cron.py's business, which schedules are looked at ticking.py's, what else can be done with one,
that of schedules.py.
"""

from __future__ import annotations

from dataclasses import field, replace
from datetime import UTC, datetime, timedelta

from .client import WorkflowClient
from .cron import Timing, timing_from_dict
from .engine.context import ScheduleInfo
from .errors import RunClosedError, RunNotFoundError
from .records import dataclass
from .schedule_store import CatchUp, Overlap, Schedule
from .serialization import digest
from .store import Run, Status

ON_TIME = timedelta(seconds=90)
"""So late a time still counts as kept: the ticks of a cloud scheduler are a minute apart. What is later was missed."""

SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=1)
"""How soon a schedule that waits for its last run is looked at again: after as long as it has waited already, within
these."""
MAX_WATCHED = 20
"""Runs whose ends are still to be counted: so many are remembered, the latest ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fired:
    """What was done: the runs of this firing, and the schedule's record as it has to be now (its etag is the old)."""

    run_ids: tuple[str, ...]
    schedule: Schedule
    skipped: bool = False
    """Whether a time was settled without a run: overlap or catch_up said so."""


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


async def start(client: WorkflowClient, schedule: Schedule, at: datetime) -> str:
    """Start the run of that time, or find that it was started."""
    at = at.astimezone(UTC)
    begins = timing_from_dict(schedule.timing).interval_start(at).astimezone(UTC)
    info = ScheduleInfo(id=schedule.id, scheduled_at=at, interval_start=begins, interval_end=at)
    return await _start(client, schedule, info, run_id_of(schedule.id, at))


async def start_now(client: WorkflowClient, schedule: Schedule, now: datetime, *, name: str) -> str:
    """Start a run that stands for no time of the schedule; `name` tells it from others. Its data interval is the last
    one that is over."""
    timing, now = timing_from_dict(schedule.timing), now.astimezone(UTC)
    end = timing.last_until(now)
    begins = now if end is None else timing.interval_start(end)
    info = ScheduleInfo(
        id=schedule.id,
        scheduled_at=now,
        interval_start=begins.astimezone(UTC),
        interval_end=(end or now).astimezone(UTC),
    )
    return await _start(client, schedule, info, f"{schedule.id}@{name}")


async def _start(client: WorkflowClient, schedule: Schedule, info: ScheduleInfo, run_id: str) -> str:
    about = {"schedule_id": schedule.id, "scheduled_for": info.scheduled_at.isoformat()}
    return await client.start_workflow(
        schedule.workflow,
        client.codec.decode(schedule.input),
        run_id=run_id,
        attributes={**schedule.attributes, **about},
        on_conflict="use_existing",
        schedule=info,
    )


def knowing(schedule: Schedule, run_id: str) -> Schedule:
    """The schedule, with this as its last run."""
    watched = schedule.watched
    if schedule.pause_after_failures is not None:
        watched = (*(one for one in watched if one != run_id), run_id)[-MAX_WATCHED:]
    return replace(schedule, last_run_id=run_id, watched=watched)


async def fire(client: WorkflowClient, schedule: Schedule, *, now: datetime, limit: int) -> Fired:
    """Start the runs that are due, at most `limit`; when more are, the record that it gives is due at once, after the
    others that are.

    Raises what starting a run raises, and InvalidInputError for a timing that cannot be read.
    """
    timing = timing_from_dict(schedule.timing)
    look = _Look(client)
    schedule = await _with_ends_counted(look, schedule)
    if schedule.paused:
        return Fired(run_ids=(), schedule=schedule)
    run_ids: list[str] = []
    skipped = False
    while schedule.next_at is not None and due_at(schedule, schedule.next_at) <= now:
        if len(run_ids) >= limit:
            return Fired(run_ids=tuple(run_ids), schedule=replace(schedule, due_at=now), skipped=skipped)
        at, last = _choose(schedule, timing, schedule.next_at, now)
        overlap = Overlap.SKIP
        if at is not None:
            overlap = await _resolve_overlap(look, schedule, missed=now - due_at(schedule, at) > ON_TIME)
            if overlap is Overlap.QUEUE:
                return Fired(run_ids=tuple(run_ids), schedule=_held(schedule, now), skipped=skipped)
            if overlap is Overlap.ALLOW:
                run_ids.append(await start(client, schedule, at))
                schedule = replace(knowing(schedule, run_ids[-1]), last_at=at)
        skipped = skipped or overlap is Overlap.SKIP
        schedule = expecting(schedule, timing.next_after(last))
    return Fired(run_ids=tuple(run_ids), schedule=schedule, skipped=skipped)


@dataclass(frozen=True, slots=True)
class _Look:
    """The runs that were looked at during one firing, each read once."""

    client: WorkflowClient
    seen: dict[str, Run | None] = field(default_factory=dict)

    async def at(self, run_id: str) -> Run | None:
        if run_id not in self.seen:
            self.seen[run_id] = await self.client.store.get(run_id)
        return self.seen[run_id]


async def _with_ends_counted(look: _Look, schedule: Schedule) -> Schedule:
    """The schedule, with the runs that have ended since counted, and paused when too many have failed in a row."""
    most, failures = schedule.pause_after_failures, schedule.failures
    if most is None:
        return schedule
    still_open: list[str] = []
    for run_id in schedule.watched:
        run = await look.at(run_id)
        if run is None or run.status in (Status.CANCELLED, Status.TERMINATED):
            continue  # somebody's wish says nothing about the workflow
        if not run.status.closed:
            still_open.append(run_id)
            continue
        failures = failures + 1 if run.status is Status.FAILED else 0
        if failures >= most:
            note = f"paused after {failures} failures in a row; the last one is run {run_id}"
            sealed = look.client.codec.seal_text(note)
            return replace(expecting(schedule, None), paused=True, note=sealed, failures=failures, watched=())
    return replace(schedule, failures=failures, watched=tuple(still_open))


def _choose(schedule: Schedule, timing: Timing, first: datetime, now: datetime) -> tuple[datetime | None, datetime]:
    """Of the times that have come (`first` is one): the one to start a run for, and the last that is settled by it."""
    if schedule.catch_up is CatchUp.ALL:
        if not _is_too_old(schedule, first, now):
            return first, first
        window = timedelta(seconds=(schedule.catch_up_window or 0) + schedule.jitter)
        gone = timing.last_until(now - max(window, ON_TIME))  # surely too old, jitter and all
        return None, max(first, gone or first)
    last = timing.last_until(now) or first
    while last > first and due_at(schedule, last) > now:
        last = timing.last_until(last - timedelta.resolution) or first
    last = max(first, last)
    if _is_too_old(schedule, last, now):
        return None, last
    if schedule.catch_up is CatchUp.LATEST or now - due_at(schedule, last) <= ON_TIME:
        return last, last
    was_in_time = schedule.held_since is not None and schedule.problem is None  # it waits for the last run's end
    return first if was_in_time and not _is_too_old(schedule, first, now) else None, last


def _is_too_old(schedule: Schedule, at: datetime, now: datetime) -> bool:
    if schedule.catch_up_window is None:
        return False
    return now - due_at(schedule, at) > max(timedelta(seconds=schedule.catch_up_window), ON_TIME)


async def _resolve_overlap(look: _Look, schedule: Schedule, *, missed: bool) -> Overlap:
    """What to do now: ALLOW starts, SKIP drops, QUEUE waits."""
    if schedule.overlap is Overlap.ALLOW or schedule.last_run_id is None:
        return Overlap.ALLOW
    last = await look.at(schedule.last_run_id)
    if last is None or last.status.closed:
        return Overlap.ALLOW
    if schedule.overlap is Overlap.CANCEL_OTHER:
        try:
            await look.client.cancel_workflow(last.run_id, f"schedule {schedule.id} starts its next run")
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
