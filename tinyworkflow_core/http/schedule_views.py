"""Schedules as JSON data, and the types of that data."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from ..schedule_store import Backfill, Schedule
from .shown import Shown
from .views import Accepted, Links, Mounted, run_path


class CronTiming(TypedDict):
    """At the times that a cron line names."""

    cron: str
    timezone: str


class IntervalTiming(TypedDict):
    """Every so many seconds, from `anchor` on."""

    interval: float
    anchor: str


class OnceTiming(TypedDict):
    """Once."""

    at: str


class BackfillView(TypedDict):
    """How far a backfill has come: `started` of `total` times have their run."""

    id: str
    start: str
    end: str
    state: Literal["running", "done", "cancelled"]
    max_concurrency: int
    total: int
    started: int
    open: int
    failed: int
    next_at: str | None
    created_at: str
    problem: str | None
    links: Links


class ScheduleView(TypedDict):
    """A schedule as it stands. `etag` names this state of it, for If-Match."""

    id: str
    workflow: str
    timing: CronTiming | IntervalTiming | OnceTiming | dict[str, Any]
    input: Any
    overlap: Literal["skip", "queue", "cancel_other", "allow"]
    catch_up: Literal["none", "latest", "all"]
    catch_up_window: float | None
    jitter: float
    pause_after_failures: int | None
    failures: int
    attributes: dict[str, Any]
    paused: bool
    note: str | None
    next_at: str | None
    waiting_since: str | None
    problem: str | None
    last_at: str | None
    last_run_id: str | None
    backfills: list[BackfillView]
    created_at: str
    etag: str
    links: Links


class DamagedView(TypedDict):
    """A stored schedule that cannot be read. It can be deleted, and declared anew."""

    id: str
    problem: str


class SchedulePage(TypedDict):
    """A page of schedules, by id. `next_cursor` asks for the next page; null: there is none."""

    schedules: list[ScheduleView | DamagedView]
    next_cursor: str | None


class Triggered(Accepted):
    """A run that there is now."""


class BackfillAnswer(TypedDict):
    """The times of a backfill, and its id once it has begun (null: it has not)."""

    backfill_id: str | None
    times: list[str]
    links: Links


def schedule_path(request: Mounted, schedule_id: str) -> str:
    """The path of a schedule, below whatever this app is mounted at."""
    return f"{request.scope.get('root_path', '')}/v1/schedules/{quote(schedule_id, safe=':+=~')}"


def schedule_view(request: Mounted, schedule: Schedule, codec: Shown) -> ScheduleView:
    """A schedule as it stands; its note as it is given."""
    path = schedule_path(request, schedule.id)
    links = {"self": path, **{verb: f"{path}/{verb}" for verb in ("pause", "resume", "trigger", "backfill")}}
    if schedule.last_run_id is not None:
        links["last_run"] = run_path(request, schedule.last_run_id)
    return {
        "id": schedule.id,
        "workflow": schedule.workflow,
        "timing": _timing(schedule),
        "input": codec.plain(schedule.input),
        "overlap": schedule.overlap.value,
        "catch_up": schedule.catch_up.value,
        "catch_up_window": schedule.catch_up_window,
        "jitter": schedule.jitter,
        "pause_after_failures": schedule.pause_after_failures,
        "failures": schedule.failures,
        "attributes": codec.attributes(schedule.attributes),
        "paused": schedule.paused,
        "note": schedule.note,
        "next_at": _text(schedule.next_at),
        "waiting_since": _text(schedule.held_since),
        "problem": schedule.problem,
        "last_at": _text(schedule.last_at),
        "last_run_id": schedule.last_run_id,
        "backfills": [_backfill_view(path, one) for one in schedule.backfills],
        "created_at": schedule.created_at.isoformat(),
        "etag": schedule.etag,
        "links": links,
    }


def _backfill_view(path: str, backfill: Backfill) -> BackfillView:
    return {
        "id": backfill.id,
        "start": backfill.start.isoformat(),
        "end": backfill.end.isoformat(),
        "state": backfill.state.value,
        "max_concurrency": backfill.max_concurrency,
        "total": backfill.total,
        "started": backfill.started,
        "open": len(backfill.open_runs),
        "failed": backfill.failed,
        "next_at": _text(backfill.next_at),
        "created_at": backfill.created_at.isoformat(),
        "problem": backfill.problem,
        "links": {"cancel": f"{path}/backfills/{backfill.id}/cancel"},
    }


def _timing(schedule: Schedule) -> CronTiming | IntervalTiming | OnceTiming | dict[str, Any]:
    match schedule.timing:
        case {"kind": "cron", "expression": expression, "timezone": timezone}:
            return CronTiming(cron=expression, timezone=timezone)
        case {"kind": "interval", "every": every, "anchor": anchor}:
            return IntervalTiming(interval=every, anchor=anchor)
        case {"kind": "once", "at": at}:
            return OnceTiming(at=at)
    return dict(schedule.timing)  # of another release


def _text(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()
