"""Schedule times: when a schedule fires next, in its own zone, and what came of the times that are past.

The past is read by the ids that runs of a schedule have: one record a time, for so many times and no more. Runs that
stand for no time (started by hand, or by an earlier timing) are looked for among the latest runs of the workflow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import groupby, pairwise
from zoneinfo import ZoneInfo

from ...cron import CronSchedule, IntervalSchedule, Timing, timing_from_dict
from ...errors import InvalidInputError
from ...firing import due_at, run_id_of
from ...records import dataclass
from ...schedule_store import Schedule
from ...store import Run, RunQuery, Status, Store

NEXT_TIMES = 5
PAST_TIMES = 60
"""So many records are read for the grid."""
LATEST_RUNS = 100
"""Among so many runs of the workflow those are looked for that stand for no time."""

_HOUR, _DAY, _WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
_SLACK = timedelta(hours=2)
"""A day may have 23 hours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NextTime:
    """A time that is to come. `local` is it in the schedule's zone."""

    at: datetime
    local: datetime
    starts_at: datetime
    """With its jitter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTime:
    """A time that is past, and the run that it had. None: it had none."""

    at: datetime
    local: datetime
    run_id: str
    status: Status | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRow:
    """Times of one hour, day, week or year, the oldest first."""

    label: str
    times: Sequence[PastTime]


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What came of a schedule's times. `others`: runs that stand for none of them, the newest first."""

    rows: Sequence[GridRow]
    others: Sequence[Run]
    is_cut: bool
    """Whether there are earlier times that were not looked at."""

    @property
    def words(self) -> set[str]:
        """The statuses in the grid."""
        return {one.status.value for row in self.rows for one in row.times if one.status is not None}

    @property
    def has_gaps(self) -> bool:
        """Whether a time had no run."""
        return any(one.status is None for row in self.rows for one in row.times)


def timing_of(schedule: Schedule) -> Timing | None:
    """When it fires. None: another release wrote that."""
    return _timing(json.dumps(dict(schedule.timing), sort_keys=True))


@lru_cache(maxsize=1000)
def _timing(text: str) -> Timing | None:
    # Checking a cron line takes milliseconds, and a list has many of them.
    try:
        return timing_from_dict(json.loads(text))
    except InvalidInputError:
        return None


def zone_of(timing: Timing | None) -> tzinfo:
    """The zone in which its times are meant."""
    return ZoneInfo(timing.timezone) if isinstance(timing, CronSchedule) else UTC


def words_of(timing: Timing | None) -> str:
    """When it fires, in words."""
    match timing:
        case None:
            return "a timing of another release"
        case CronSchedule():
            return f"{timing.expression} ({timing.timezone})"
        case IntervalSchedule():
            return f"every {_words(timing.every)}"
        case _:
            return f"once, at {timing.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def next_times(schedule: Schedule, now: datetime) -> list[NextTime]:
    """The next NEXT_TIMES times: the one that it waits for first, also when that one is overdue. Of a schedule that is
    paused those that it would have."""
    timing = timing_of(schedule)
    if timing is None:
        return []
    at = schedule.next_at if schedule.next_at is not None else timing.next_after(now)
    zone, found = zone_of(timing), list[NextTime]()
    while at is not None and len(found) < NEXT_TIMES:
        found.append(NextTime(at=at, local=at.astimezone(zone), starts_at=due_at(schedule, at)))
        at = timing.next_after(max(at, now))
    return found


async def history_of(store: Store, schedule: Schedule, now: datetime) -> History:
    """What came of its latest PAST_TIMES times. Reads so many records, and one page of runs."""
    timing = timing_of(schedule)
    zone = zone_of(timing)
    first = min([schedule.created_at, *(one.start for one in schedule.backfills)])
    moments = [] if timing is None else _past(timing, first, now)
    ids = [run_id_of(schedule.id, at) for at in moments]
    runs = await asyncio.gather(*(store.get(one) for one in ids[:PAST_TIMES]))
    page = await store.list(RunQuery(name=schedule.workflow, limit=LATEST_RUNS))
    times = [
        PastTime(at=at, local=at.astimezone(zone), run_id=run_id, status=None if run is None else run.status)
        for at, run_id, run in zip(moments, ids, runs, strict=False)
    ]
    others = [one for one in page.items if one.attributes.get("schedule_id") == schedule.id and one.run_id not in ids]
    return History(rows=_rows(times), others=others, is_cut=len(moments) > PAST_TIMES)


def _past(timing: Timing, first: datetime, now: datetime) -> list[datetime]:
    """Times that are over, the newest first; one more than is shown."""
    moments: list[datetime] = []
    at = timing.last_until(now)
    while at is not None and at >= first and len(moments) <= PAST_TIMES:
        moments.append(at)
        at = timing.last_until(at - timedelta.resolution)
    return moments


def _rows(times: Sequence[PastTime]) -> list[GridRow]:
    """The grid, the newest row first: in a row is what is easily compared, by how far the times are apart."""
    apart = sorted(newer.at - older.at for newer, older in pairwise(times))
    usual = apart[len(apart) // 2] if apart else _DAY
    if usual < _HOUR / 2:
        label = "%a %Y-%m-%d %H:00"
    elif usual < _DAY - _SLACK:
        label = "%a %Y-%m-%d"
    elif usual < _WEEK - _SLACK:
        label = "%G week %V"
    else:
        label = "%Y"
    grouped = groupby(times, key=lambda one: one.local.strftime(label))
    return [GridRow(label=name, times=list(some)[::-1]) for name, some in grouped]


def _words(period: timedelta) -> str:
    left, parts = period.total_seconds(), []
    for name, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{int(count)} {name}{'' if count == 1 else 's'}")
    if left:
        parts.append(f"{left:g} second{'' if left == 1 else 's'}")
    return " ".join(parts)
