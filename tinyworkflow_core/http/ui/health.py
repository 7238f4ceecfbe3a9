"""Health on a page: whether anything waits that should not, and what this process is made of.

Everything is a range of an index, read up to a cap. A schedule that cannot start its run, or cannot be read, is tried
again within minutes: so the ones with a problem are among those that are due by then.
"""

from __future__ import annotations

import platform
import sys
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ... import backfilling, ticking
from ...app import App
from ...dispatcher import CountsFailures, FailedCalls
from ...records import dataclass
from ...schedule_store import DamagedSchedule, Schedule
from ...store import Run, RunQuery, Status
from ..operations import Html, Operation, Scope
from ..shown import Showing
from ..views import run_summary
from .rendering import render

MOST_DUE = 100
MOST_PARKED = 50
MOST_SCHEDULES = 200

LATE = timedelta(minutes=2)
"""What is due for longer is overdue: the ticks of a cloud scheduler are a minute apart."""

LATELY = timedelta(minutes=15)
"""A call that failed within this time is worth a look."""

_AGAIN = max(ticking.LONGEST_DELAY, backfilling.LONGEST_DELAY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Troubled:
    """A schedule with a problem."""

    id: str
    problem: str
    since: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """How things stand. What `is_cut` is more than the cap."""

    due: int
    is_due_cut: bool
    oldest: Run | None
    """The run that is due for longest."""
    oldest_since: datetime | None
    """Since when; None while nothing is due, and for a run that only has a message waiting."""
    parked: list[Run]
    is_parked_cut: bool
    schedules_due: int
    schedules_since: datetime | None
    """Since when the one is due that is due for longest."""
    are_schedules_cut: bool
    troubled: list[Troubled]

    def is_late(self, now: datetime) -> bool:
        """Whether something waits for longer than it should."""
        return any(one is not None and now - one > LATE for one in (self.oldest_since, self.schedules_since))


class HealthPages:
    """The endpoints, for one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def operations(self) -> list[Operation]:
        """The one that there is."""
        return [
            Operation(
                method="GET",
                path="/ui/health",
                endpoint=self.page,
                summary="Whether anything waits that should not",
                scope=Scope.READ,
                answers={200: Html},
                described=False,
            )
        ]

    async def page(self, request: Request) -> Response:
        """How things stand."""
        now = self._app.clock.now()
        state = await look(self._app, now)
        showing = Showing(request, self._app)
        failed = _failed(self._app)
        return render(
            request,
            "health.html",
            now=now,
            state=state,
            is_late=state.is_late(now),
            late=LATE,
            failed=failed,
            fails_lately=failed is not None and failed.last_at is not None and now - failed.last_at <= LATELY,
            oldest=None if state.oldest is None else run_summary(request, state.oldest, showing.of(state.oldest.name)),
            parked=[run_summary(request, one, showing.of(one.name)) for one in state.parked],
            made_of=_made_of(self._app),
        )


async def look(app: App, now: datetime) -> State:
    """How things stand: four queries and one record, one after the other."""
    due = await app.store.due(now=now, limit=MOST_DUE + 1)
    oldest = await app.store.get(due[0]) if due else None
    parked = await app.store.list(RunQuery(status=Status.PARKED, limit=MOST_PARKED))
    schedules = await app.store.schedules.due(now=now + _AGAIN, limit=MOST_SCHEDULES + 1)
    woken = [one.wake_at for one in schedules if isinstance(one, Schedule) and one.wake_at is not None]
    late = sorted(one for one in woken if one <= now)
    since = oldest.wake_at if oldest is not None else None
    return State(
        due=min(len(due), MOST_DUE),
        is_due_cut=len(due) > MOST_DUE,
        oldest=oldest,
        oldest_since=since if since is not None and since <= now else None,
        parked=list(parked.items),
        is_parked_cut=parked.next_cursor is not None,
        schedules_due=min(len(late), MOST_SCHEDULES),
        schedules_since=late[0] if late else None,
        are_schedules_cut=len(schedules) > MOST_SCHEDULES,
        troubled=[one for schedule in schedules for one in _troubles(schedule)],
    )


def _troubles(schedule: Schedule | DamagedSchedule) -> list[Troubled]:
    if isinstance(schedule, DamagedSchedule):
        return [Troubled(id=schedule.id, problem=schedule.problem, since=None)]
    found = [] if schedule.problem is None else [(schedule.problem, schedule.held_since)]
    found += [(f"backfill {one.id}: {one.problem}", one.held_since) for one in schedule.backfills if one.problem]
    return [Troubled(id=schedule.id, problem=problem, since=since) for problem, since in found]


def _failed(app: App) -> FailedCalls | None:
    """The calls of this process that failed. None: its dispatcher makes none, or does not count them."""
    return app.dispatcher.failed if isinstance(app.dispatcher, CountsFailures) else None


def _made_of(app: App) -> dict[str, Any]:
    """What this process is made of, by what it is called."""
    # Asked of the package that is loaded, since a checkout need not be installed; importing its face would be going up.
    version = sys.modules[__name__.partition(".")[0]].__version__
    dispatcher = type(app.dispatcher).__name__.removesuffix("Dispatcher")
    return {
        "Version": version,
        "Store": type(app.store).__name__.removesuffix("Store").lower(),
        "Dispatcher": "none" if dispatcher == "No" else dispatcher.lower(),
        "Python": platform.python_version(),
        "Workflows": len({one.name for one in app.registry.workflows()}),
        "Activities": len(app.registry.activities()),
    }
