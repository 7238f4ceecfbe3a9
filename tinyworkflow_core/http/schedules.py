"""Schedules over HTTP: declaring them, seeing how they stand, steering them. The part `api`.

The verbs are those of `tinyworkflow_core.schedules`; here are their requests and answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import Response

from ..app import App
from ..cron import CronSchedule, OneOff, Timing
from ..declaring import ScheduleChanges
from ..errors import ScheduleChangedError
from ..schedule_store import DamagedSchedule, Schedule
from .answers import Json
from .bodies import header_of, query_fields, read_fields
from .operations import Endpoint, Operation, Scope
from .schedule_views import (
    BackfillAnswer,
    DamagedView,
    SchedulePage,
    ScheduleView,
    Triggered,
    schedule_path,
    schedule_view,
)
from .shown import Showing
from .views import links_of, run_path

if TYPE_CHECKING:
    from .schedule_requests import TimingRequest

_ETAG = {"If-Match": "The ETag of an earlier answer: 412 when the schedule has changed since."}
_DECLARED, _BACKFILL = "schedule_requests.ScheduleRequest", "schedule_requests.BackfillRequest"
_NOTHING = "run_requests.Nothing"
_AGAIN = {"Idempotency-Key": "The same key gives the same run."}


class ScheduleRoutes:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._schedules = app.schedules
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them."""
        one = "/v1/schedules/{schedule_id}"
        return [
            _operation("GET", "/v1/schedules", self.page, "A page of schedules, by id", {200: SchedulePage}),
            _operation(
                "POST",
                "/v1/schedules",
                self.declare,
                "Declare a schedule: 201 for a new one, 200 for one that existed and is now like this",
                {200: ScheduleView, 201: ScheduleView},
                _DECLARED,
                problems=(404, 409),
            ),
            _operation("GET", one, self.schedule, "One schedule, with its backfills", {200: ScheduleView}),
            _operation(
                "PATCH",
                one,
                self.change,
                "Change what is given, and nothing else",
                {200: ScheduleView},
                "schedule_requests.ChangeRequest",
                headers=_ETAG,
                problems=(409, 412),
            ),
            _operation("DELETE", one, self.delete, "Forget the schedule; its runs stay", {204: None}),
            _operation(
                "POST",
                f"{one}/pause",
                self.pause,
                "Start nothing until it is resumed",
                {200: ScheduleView},
                "schedule_requests.PauseRequest",
            ),
            _operation(
                "POST", f"{one}/resume", self.resume, "Go on with the next time from now", {200: ScheduleView}, _NOTHING
            ),
            _operation(
                "POST", f"{one}/trigger", self.trigger, "Start a run now", {202: Triggered}, _NOTHING, headers=_AGAIN
            ),
            _operation(
                "POST",
                f"{one}/backfill",
                self.backfill,
                "Make up for a window of times: 200 for a dry run, 202 when it has begun",
                {200: BackfillAnswer, 202: BackfillAnswer},
                _BACKFILL,
            ),
            _operation(
                "POST",
                f"{one}/backfills/{{backfill_id}}/cancel",
                self.cancel_backfill,
                "Have a backfill start nothing more",
                {200: ScheduleView},
                _NOTHING,
            ),
        ]

    # --- looking ------------------------------------------------------------------------------

    async def page(self, request: Request) -> Json:
        """A page of schedules; the next one begins after `next_cursor` (null: there is no more)."""
        from .schedule_requests import ScheduleQuery

        asked = query_fields(request, ScheduleQuery)
        found = await self._schedules.list(limit=asked.limit + 1, after=asked.cursor)
        showing = Showing(request, self._app)
        shown: list[ScheduleView | DamagedView] = []
        for one in found[: asked.limit]:
            if isinstance(one, DamagedSchedule):
                shown.append({"id": one.id, "problem": one.problem})
            else:
                shown.append(schedule_view(request, one, showing.of(one.workflow)))
        more = len(found) > asked.limit
        content: SchedulePage = {"schedules": shown, "next_cursor": shown[-1]["id"] if more else None}
        return Json(content)

    async def schedule(self, request: Request) -> Json:
        """One schedule."""
        return self._answer(request, await self._schedules.get(_schedule_id(request)))

    # --- declaring ----------------------------------------------------------------------------

    async def declare(self, request: Request) -> Json:
        """Make a schedule, or have one that exists be like this."""
        from .schedule_requests import ScheduleRequest

        asked = await read_fields(request, ScheduleRequest, self._limit)
        schedule, is_new = await self._schedules.declare(
            asked.workflow,
            self._timing(asked.timing),
            asked.input,
            id=asked.id,
            overlap=asked.overlap,
            catch_up=asked.catch_up,
            catch_up_window=asked.catch_up_window,
            jitter=asked.jitter,
            pause_after_failures=asked.pause_after_failures,
            attributes=asked.attributes,
        )
        answer = self._answer(request, schedule, status_code=201 if is_new else 200)
        answer.headers["Location"] = schedule_path(request, schedule.id)
        return answer

    async def change(self, request: Request) -> Json:
        """Change what is given."""
        from .schedule_requests import ChangeRequest

        asked = await read_fields(request, ChangeRequest, self._limit)
        changes: dict[str, Any] = {name: getattr(asked, name) for name in asked.model_fields_set}
        if "input" in changes:
            changes["input_data"] = changes.pop("input")
        for name in ("timing", "overlap", "catch_up"):
            if changes.get(name, asked) is None:
                del changes[name]
        if asked.timing is not None:
            changes["timing"] = self._timing(asked.timing)
        schedule_id = _schedule_id(request)
        etag = await self._matching(request, schedule_id)
        return self._answer(
            request, await self._schedules.update(schedule_id, etag=etag, **cast(ScheduleChanges, changes))
        )

    async def _matching(self, request: Request, schedule_id: str) -> str | None:
        """The state that the caller wants changed, by If-Match. None: whichever it is in."""
        given = header_of(request, "if-match", most=1000)
        if given is None or given.strip() == "*":
            return None
        etag = (await self._schedules.get(schedule_id)).etag
        if f'"{etag}"' not in (one.strip() for one in given.split(",")):
            raise ScheduleChangedError(f"schedule {schedule_id!r} is not in the state that If-Match names")
        return etag

    async def delete(self, request: Request) -> Response:
        """Forget it."""
        await self._schedules.delete(_schedule_id(request))
        return Response(status_code=204)

    # --- steering -----------------------------------------------------------------------------

    async def pause(self, request: Request) -> Json:
        """Start nothing until it is resumed."""
        from .schedule_requests import PauseRequest

        asked = await read_fields(request, PauseRequest, self._limit)
        return self._answer(request, await self._schedules.pause(_schedule_id(request), asked.note))

    async def resume(self, request: Request) -> Json:
        """Go on."""
        from .run_requests import Nothing

        await read_fields(request, Nothing, self._limit)
        return self._answer(request, await self._schedules.resume(_schedule_id(request)))

    async def trigger(self, request: Request) -> Json:
        """Start a run now."""
        from .run_requests import Nothing

        await read_fields(request, Nothing, self._limit)
        key = header_of(request, "idempotency-key")
        run_id = await self._schedules.trigger(_schedule_id(request), idempotency_key=key)
        content: Triggered = {"run_id": run_id, "links": links_of(request, run_id)}
        return Json(content, status_code=202, headers={"Location": run_path(request, run_id)})

    async def backfill(self, request: Request) -> Json:
        """Make up for a window of times."""
        from .schedule_requests import BackfillRequest

        asked = await read_fields(request, BackfillRequest, self._limit)
        schedule_id = _schedule_id(request)
        plan = await self._schedules.backfill(
            schedule_id, asked.start, asked.end, dry_run=asked.dry_run, max_concurrency=asked.max_concurrency
        )
        path = schedule_path(request, schedule_id)
        content: BackfillAnswer = {
            "backfill_id": plan.id,
            "times": [one.isoformat() for one in plan.times],
            "links": {"schedule": path},
        }
        if plan.id is None:
            return Json(content)
        content["links"]["cancel"] = f"{path}/backfills/{plan.id}/cancel"
        return Json(content, status_code=202, headers={"Location": path})

    async def cancel_backfill(self, request: Request) -> Json:
        """Have a backfill start nothing more."""
        from .run_requests import Nothing

        await read_fields(request, Nothing, self._limit)
        backfill_id: str = request.path_params["backfill_id"]
        return self._answer(request, await self._schedules.cancel_backfill(_schedule_id(request), backfill_id))

    # --- parts --------------------------------------------------------------------------------

    def _timing(self, asked: TimingRequest) -> Timing:
        from .schedule_requests import CronRequest, IntervalRequest, OnceRequest

        match asked:
            case CronRequest():
                return CronSchedule(asked.cron, asked.timezone)
            case IntervalRequest():
                return self._schedules.interval(asked.interval)
            case OnceRequest():
                return OneOff(asked.at)

    def _answer(self, request: Request, schedule: Schedule, *, status_code: int = 200) -> Json:
        view = schedule_view(request, schedule, Showing(request, self._app).of(schedule.workflow))
        return Json(view, status_code=status_code, headers={"ETag": f'"{view["etag"]}"'})


def _operation(
    method: str,
    path: str,
    endpoint: Endpoint,
    summary: str,
    answers: dict[int, Any],
    body: str | None = None,
    *,
    headers: dict[str, str] | None = None,
    problems: tuple[int, ...] = (409,),
) -> Operation:
    return Operation(
        method=method,
        path=path,
        endpoint=endpoint,
        summary=summary,
        scope=Scope.READ if method == "GET" else Scope.OPERATE,
        query="schedule_requests.ScheduleQuery" if answers == {200: SchedulePage} else None,
        body=body,
        body_required=body in (_DECLARED, _BACKFILL),
        answers=answers,
        headers=headers or {},
        problems=problems,
    )


def _schedule_id(request: Request) -> str:
    schedule_id: str = request.path_params["schedule_id"]
    return schedule_id
