"""Schedules on pages: how they stand, what became of their times, and steering them.

The verbs are those of `tinyworkflow_core.schedules`; what is read of the past, and how much, `schedule_times.py`'s.
A backfill begins only after its times were shown, and only if they are still the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ...backfilling import BACKFILL_LIMIT, MAX_CONCURRENCY
from ...clock import fresh_id
from ...errors import InvalidInputError, ScheduleDamagedError
from ...records import dataclass
from ...schedule_store import DEFAULT_CONCURRENCY, BackfillState, DamagedSchedule, Schedule
from ..callers import caller_of
from ..form_fields import FormField
from ..operations import Endpoint, Html, Operation, Scope
from ..shown import Showing
from ..views import run_summary
from .filling import FilledForm, filled_form, invalid
from .new_schedule import PATH as NEW_PATH
from .rendering import go_to, render, segment
from .schedule_times import LATEST_RUNS, PAST_TIMES, history_of, next_times, timing_of, words_of, zone_of
from .sessions import read_form

PAGE_SIZE = 50
LONGEST_NOTE = 1000
SHOWN_TIMES = 50
"""Of a backfill's times, before it begins."""

_SYMBOLS = {
    "completed": "✓",
    "failed": "✕",
    "cancelled": "/",
    "terminated": "■",
    "running": "▸",
    "pending": "○",
    "waiting": "…",
    "paused": "?",
    "retrying": "↻",
    "suspended": "‖",
    "parked": "!",
}
"""What a status looks like in the grid, so that colour is never all."""

_DONE = {
    "declared": "The schedule is made.",
    "paused": "The schedule is paused: it starts nothing until it is resumed.",
    "resumed": "The schedule goes on with its next time.",
    "backfill": "The backfill has begun.",
    "nothing": "There was nothing to make up for in that window.",
    "cancelled": "The backfill starts nothing more. The runs that it has started go on.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    """What a backfill is asked for."""

    start: datetime
    end: datetime
    max_concurrency: int


class SchedulePages:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them."""
        one = "/ui/schedules/{schedule_id}"
        return [
            _operation("GET", "/ui/schedules", self.page, "Schedules"),
            _operation("GET", one, self.schedule, "One schedule, with what became of its times"),
            _operation("POST", f"{one}/pause", self.pause, "Start nothing until it is resumed"),
            _operation("POST", f"{one}/resume", self.resume, "Go on with the next time from now"),
            _operation("POST", f"{one}/trigger", self.trigger, "Start a run now"),
            _operation("POST", f"{one}/delete", self.delete, "Forget the schedule; its runs stay"),
            _operation("POST", f"{one}/backfill", self.backfill, "Show the times of a backfill, then begin it"),
            _operation(
                "POST", f"{one}/backfills/{{backfill_id}}/cancel", self.cancel_backfill, "Have a backfill start no more"
            ),
        ]

    # --- looking ------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """A page of schedules, by id."""
        after = request.query_params.get("after") or None
        found = await self._app.schedules.list(limit=PAGE_SIZE + 1, after=after)
        shown = [_row(one) for one in found[:PAGE_SIZE]]
        more = shown[-1]["id"] if len(found) > PAGE_SIZE else None
        return self._list(request, shown, after=after, next_after=more)

    async def schedule(self, request: Request) -> Response:
        """One schedule."""
        return await self._page(request)

    # --- steering -----------------------------------------------------------------------------

    async def pause(self, request: Request) -> Response:
        """Start nothing until it is resumed."""
        note = (await self._form(request)).get("note", "").replace("\r\n", "\n").strip()
        if len(note) > LONGEST_NOTE:
            wrong = invalid("note", f"must have at most {LONGEST_NOTE} characters")
            return await self._page(request, note=note, wrong=wrong)
        await self._app.schedules.pause(_schedule_id(request), note or None)
        return _back(request, "paused")

    async def resume(self, request: Request) -> Response:
        """Go on."""
        await self._form(request)
        await self._app.schedules.resume(_schedule_id(request))
        return _back(request, "resumed")

    async def trigger(self, request: Request) -> Response:
        """Start a run now; one form starts one run, however often it is sent."""
        key = (await self._form(request)).get("once") or None
        try:
            run_id = await self._app.schedules.trigger(_schedule_id(request), idempotency_key=key)
        except InvalidInputError as error:
            return await self._page(request, wrong=error)
        return go_to(request, f"/ui/runs/{segment(run_id)}")

    async def delete(self, request: Request) -> Response:
        """Forget it, when whoever asks has said so twice."""
        if (await self._form(request)).get("sure") != "yes":
            return await self._page(request, wrong=invalid("sure", "tick the box: a schedule that is deleted is gone"))
        await self._app.schedules.delete(_schedule_id(request))
        return go_to(request, "/ui/schedules?done=deleted")

    async def backfill(self, request: Request) -> Response:
        """Show the times of the window; with `expected`, the number that was shown, begin it."""
        schedule_id, submitted = _schedule_id(request), await self._form(request)
        schedule = await self._app.schedules.get(schedule_id)
        try:
            asked = _window(submitted, zone_of(timing_of(schedule)))
            plan = await self._app.schedules.backfill(schedule_id, asked.start, asked.end)
            if submitted.get("expected") == str(len(plan.times)):
                plan = await self._app.schedules.backfill(
                    schedule_id, asked.start, asked.end, dry_run=False, max_concurrency=asked.max_concurrency
                )
                return _back(request, "nothing" if plan.id is None else "backfill")
        except InvalidInputError as error:
            return await self._page(request, submitted=submitted, wrong=error)
        zone = zone_of(timing_of(schedule))
        shown = {
            "times": [(one, one.astimezone(zone)) for one in plan.times[:SHOWN_TIMES]],
            "count": len(plan.times),
            "is_future": bool(plan.times) and plan.times[-1] > self._app.clock.now(),
            "max_concurrency": asked.max_concurrency,
            "changed": "expected" in submitted,
        }
        return await self._page(request, submitted=submitted, plan=shown)

    async def cancel_backfill(self, request: Request) -> Response:
        """Have a backfill start nothing more."""
        await self._form(request)
        await self._app.schedules.cancel_backfill(_schedule_id(request), request.path_params["backfill_id"])
        return _back(request, "cancelled")

    # --- parts --------------------------------------------------------------------------------

    async def _form(self, request: Request) -> dict[str, str]:
        return dict((await read_form(request, self._limit)).items())

    def _list(
        self,
        request: Request,
        rows: list[dict[str, Any]],
        *,
        status: int = 200,
        after: str | None = None,
        next_after: str | None = None,
    ) -> Response:
        told = "The schedule is deleted. Its runs are still there." if request.query_params.get("done") else None
        return render(
            request,
            "schedules.html",
            status=status,
            schedules=rows,
            done=told,
            new=NEW_PATH if caller_of(request).may(Scope.OPERATE) else None,
            after=after,
            next_after=next_after,
        )

    async def _page(
        self,
        request: Request,
        *,
        note: str = "",
        submitted: Mapping[str, str] | None = None,
        wrong: InvalidInputError | None = None,
        plan: Mapping[str, Any] | None = None,
    ) -> Response:
        schedule_id = _schedule_id(request)
        try:
            schedule = await self._app.schedules.get(schedule_id)
        except ScheduleDamagedError as error:
            damaged = DamagedSchedule(id=schedule_id, problem=str(error))
            return self._list(request, [_row(damaged)], status=409)
        now, shown = self._app.clock.now(), Showing(request, self._app).of(schedule.workflow)
        history = await history_of(self._app.store, schedule, now)
        form: FilledForm = filled_form(_FORM, submitted or {"max_concurrency": str(DEFAULT_CONCURRENCY)}, wrong)
        return render(
            request,
            "schedule.html",
            status=200 if wrong is None else 422,
            one=_row(schedule),
            input=shown.plain(schedule.input),
            attributes=shown.attributes(schedule.attributes),
            zone=str(zone_of(timing_of(schedule))),
            next_times=next_times(schedule, now),
            now=now,
            history=history,
            others=[run_summary(request, one, shown) for one in history.others],
            symbols=_SYMBOLS,
            most_times=PAST_TIMES,
            most_runs=LATEST_RUNS,
            most_backfilled=BACKFILL_LIMIT,
            form=form,
            note=note,
            once=fresh_id(32),
            plan=plan,
            submitted=submitted or {},
            may_operate=caller_of(request).may(Scope.OPERATE),
            done=_DONE.get(request.query_params.get("done", "")) if wrong is None and plan is None else None,
        )


def _row(schedule: Schedule | DamagedSchedule) -> dict[str, Any]:
    """A schedule as a list shows it: `record` is all there is of it (None: it cannot be read)."""
    if isinstance(schedule, DamagedSchedule):
        return {"id": schedule.id, "record": None, "problem": schedule.problem, "state": "damaged"}
    timing = timing_of(schedule)
    zone = zone_of(timing)
    troubled = [one for one in schedule.backfills if one.problem is not None and one.state is BackfillState.RUNNING]
    if schedule.paused:
        state = "paused"
    elif schedule.problem is not None or troubled:
        state = "failing"
    elif schedule.held_since is not None:
        state = "waiting"
    else:
        state = "active" if schedule.next_at is not None else "over"
    return {
        "id": schedule.id,
        "record": schedule,
        "problem": schedule.problem or next((one.problem for one in troubled), None),
        "state": state,
        "timing": words_of(timing),
        "next_local": None if schedule.next_at is None else schedule.next_at.astimezone(zone),
    }


_FORM = (
    FormField(name="note", input_name="note", label="Why", kind="text"),
    FormField(name="sure", input_name="sure", label="Delete", kind="text"),
    FormField(name="start", input_name="start", label="From", kind="datetime", required=True),
    FormField(name="end", input_name="end", label="Until (not included)", kind="datetime", required=True),
    FormField(
        name="max_concurrency",
        input_name="max_concurrency",
        label=f"Runs at once (1 to {MAX_CONCURRENCY})",
        kind="integer",
        required=True,
        attributes={"inputmode": "numeric"},
    ),
)


def _window(submitted: Mapping[str, str], zone: tzinfo) -> _Window:
    """What the form says. Local times are those of the schedule's zone. Raises InvalidInputError."""
    most = submitted.get("max_concurrency", "").strip()
    if not (most.isascii() and most.isdigit() and 1 <= int(most[:9]) <= MAX_CONCURRENCY):
        raise invalid("max_concurrency", f"must be a whole number from 1 to {MAX_CONCURRENCY}")
    start, end = (_moment(name, submitted.get(name, ""), zone) for name in ("start", "end"))
    if end <= start:
        raise invalid("end", "must be later than the beginning")
    return _Window(start=start, end=end, max_concurrency=int(most))


def _moment(name: str, text: str, zone: tzinfo) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo is not None else found.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(name, "must be a date and time, such as 2026-01-31T09:00") from None


def _back(request: Request, done: str) -> Response:
    """To the schedule's own page, which says what was done; loading it again does nothing twice."""
    return go_to(request, f"/ui/schedules/{segment(_schedule_id(request))}?done={done}")


def _schedule_id(request: Request) -> str:
    schedule_id: str = request.path_params["schedule_id"]
    return schedule_id


def _operation(method: str, path: str, endpoint: Endpoint, summary: str) -> Operation:
    return Operation(
        method=method,
        path=path,
        endpoint=endpoint,
        summary=summary,
        scope=Scope.READ if method == "GET" else Scope.OPERATE,
        answers={200: Html},
        described=False,
    )
