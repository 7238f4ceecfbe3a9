"""A new schedule, made on a page: a form, then its next times to be looked at, and only then it is stored.

The verb is that of `tinyworkflow_core.schedules`, and so is every check. A schedule that exists is not changed here:
the form does not hold all there is of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ...clock import fresh_id
from ...cron import CronSchedule, OneOff, Timing
from ...declaring import ID, MOST_FAILURES, ScheduleOptions, declared, merged
from ...errors import (
    InvalidInputError,
    PayloadTooLargeError,
    ScheduleDamagedError,
    ScheduleNotFoundError,
    SerializationError,
    UnknownWorkflowError,
)
from ...records import dataclass
from ...schedule_store import CatchUp, Overlap, Schedule
from ..bodies import parse_json
from ..form_fields import FormField
from ..operations import Html, Operation, Scope
from ..problems import HttpProblem
from .filling import filled_form, invalid
from .rendering import go_to, render, segment
from .schedule_times import next_times, timing_of, words_of, zone_of
from .sessions import read_form

PATH = "/ui/schedules/_new"
"""No id of a schedule begins with an underscore, and among the routes it comes before the one that takes an id."""
LONGEST = 500
"""Characters of a field, but for the input."""
MOST_WORKFLOWS = 500
"""So many names are offered to choose from."""

_OVERLAPS = {
    Overlap.SKIP: "skip this time",
    Overlap.QUEUE: "wait until it has ended",
    Overlap.CANCEL_OTHER: "cancel it",
    Overlap.ALLOW: "run both",
}
_CATCH_UPS = {
    CatchUp.LATEST: "one run for all of them",
    CatchUp.ALL: "one run for each",
    CatchUp.NONE: "none: wait for the next",
}
_TIMINGS = ("cron", "interval", "at")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What the form says."""

    id: str
    workflow: str
    timing: Timing
    input: Any
    options: ScheduleOptions


class NewSchedulePages:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """The form, and what it is sent to."""
        return [
            Operation(
                method=method,
                path=PATH,
                endpoint=endpoint,
                summary=summary,
                scope=Scope.OPERATE,
                answers={200: Html},
                described=False,
            )
            for method, endpoint, summary in (
                ("GET", self.form, "A form for a new schedule"),
                ("POST", self.declare, "Show the times of a new schedule, then store it"),
            )
        ]

    async def form(self, request: Request) -> Response:
        """The form; `workflow` may be chosen by the URL."""
        given = {one.input_name: one.initial for one in self._fields()}
        return await self._page(request, given | {"workflow": request.query_params.get("workflow", "")})

    async def declare(self, request: Request) -> Response:
        """Show the times that it would have; sent again with `sure`, make it."""
        submitted = dict((await read_form(request, self._limit)).items())
        try:
            asked = self._asked(submitted)
            await self._must_be_new(asked.id)
            wanted = self._wanted(asked)
            if submitted.get("sure") != "yes":
                return await self._page(request, submitted | {"id": asked.id}, wanted=wanted)
            made, _ = await self._app.schedules.declare(
                asked.workflow, asked.timing, asked.input, id=asked.id, **asked.options
            )
        except InvalidInputError as error:
            return await self._page(request, submitted, wrong=_at_its_field(error))
        except UnknownWorkflowError:
            wrong = invalid("workflow", "choose one of those that are there")
            return await self._page(request, submitted, wrong=wrong)
        except (SerializationError, PayloadTooLargeError) as error:
            return await self._page(request, submitted, wrong=invalid("input", str(error)))
        return go_to(request, f"/ui/schedules/{segment(made.id)}?done=declared")

    # --- parts --------------------------------------------------------------------------------

    def _asked(self, submitted: Mapping[str, str]) -> _Asked:
        """What was typed. Raises InvalidInputError."""
        given = {name: text.replace("\r\n", "\n").strip() for name, text in submitted.items()}
        for name, text in given.items():
            if name != "input" and len(text) > LONGEST:
                raise invalid(name, f"must have at most {LONGEST} characters")
        workflow = given.get("workflow", "")
        if not workflow:
            raise invalid("workflow", "is required")
        # The id is settled before the times are shown, so that a form that is sent twice makes one schedule.
        prefix = workflow if ID.fullmatch(workflow) else "schedule"
        failures = given.get("pause_after_failures", "")
        if failures and not (failures.isascii() and failures.isdigit()):
            raise invalid("pause_after_failures", f"must be a whole number from 1 to {MOST_FAILURES}")
        options: ScheduleOptions = {
            "overlap": given.get("overlap", ""),
            "catch_up": given.get("catch_up", ""),
            "catch_up_window": given.get("catch_up_window") or None,
            "jitter": given.get("jitter") or None,
            "pause_after_failures": int(failures) if failures else None,
        }
        return _Asked(
            id=given.get("id") or f"{prefix}_{fresh_id(12)}",
            workflow=workflow,
            timing=self._timing(given),
            input=_input(given.get("input", "")),
            options=options,
        )

    def _timing(self, given: Mapping[str, str]) -> Timing:
        chosen = [name for name in _TIMINGS if given.get(name)]
        if len(chosen) != 1:
            raise invalid(chosen[-1] if chosen else "cron", "fill in one of cron line, every and once")
        zone = given.get("timezone") or "UTC"
        if chosen == ["interval"]:
            return self._app.schedules.interval(given["interval"])
        if chosen == ["cron"]:
            return CronSchedule(given["cron"], zone)
        local = zone_of(CronSchedule("0 0 * * *", zone))  # has the zone checked as those of cron lines are
        try:
            moment = datetime.fromisoformat(given["at"])
            moment = (moment if moment.tzinfo is not None else moment.replace(tzinfo=local)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise invalid("at", "must be a date and time, such as 2026-01-31T09:00") from None
        return OneOff(moment)

    def _wanted(self, asked: _Asked) -> Schedule:
        """The record as it would be. Raises what declaring it raises."""
        client = self._app.client
        wanted = declared(client, asked.workflow, asked.timing, asked.input, asked.id, asked.options)
        return merged(client, wanted, None)

    async def _must_be_new(self, schedule_id: str) -> None:
        try:
            await self._app.schedules.get(schedule_id)
        except ScheduleNotFoundError:
            return
        except ScheduleDamagedError:
            pass
        raise invalid("id", "there is a schedule of this id already; it is changed in code, by the API or not at all")

    def _fields(self) -> list[FormField]:
        names = sorted({one.name for one in self._app.registry.workflows()})[:MOST_WORKFLOWS]
        return [
            _field("workflow", "Workflow", "choice", required=True, choices=tuple((one, one) for one in names)),
            _field("cron", "Cron line", hint="Five fields, such as 0 9 * * 1-5, or @daily."),
            _field("interval", "Every", hint="Such as 90s, 15m, 6h or 1d, from now on."),
            _field("at", "Once, at", hint="Such as 2026-01-31T09:00."),
            _field("timezone", "Time zone of the cron line, or of the one time", required=True, initial="UTC"),
            _field("input", "Input, as JSON", "json", hint="Given to every run. Left empty it is null."),
            _choice("overlap", "While the last run is still open", _OVERLAPS),
            _choice("catch_up", "Of times that were missed", _CATCH_UPS),
            _field("catch_up_window", "Missed times count for", hint="Such as 2d. Left empty, however old they are."),
            _field("jitter", "Each run starts up to so much later", hint="Such as 5m, at most a day."),
            _field("pause_after_failures", "Pause after so many failures in a row", "integer"),
            _field("id", "Schedule ID", hint="Letters, digits and . _ : + = ~ -. Left empty, one is made."),
        ]

    async def _page(
        self,
        request: Request,
        submitted: Mapping[str, str],
        *,
        wrong: InvalidInputError | None = None,
        wanted: Schedule | None = None,
    ) -> Response:
        fields, now = self._fields(), self._app.clock.now()
        timing = None if wanted is None else timing_of(wanted)
        return render(
            request,
            "new_schedule.html",
            status=200 if wrong is None else 422,
            form=filled_form(fields, submitted, wrong),
            address=PATH,
            wanted=wanted,
            timing=words_of(timing),
            zone=str(zone_of(timing)),
            next_times=[] if wanted is None else next_times(wanted, now),
            now=now,
            sent={one.input_name: submitted.get(one.input_name, "") for one in fields},
        )


def _input(text: str) -> Any:
    if not text:
        return None
    try:
        return parse_json(text.encode())
    except (HttpProblem, UnicodeEncodeError) as error:
        raise invalid("input", str(error).replace("the body", "this")) from None


def _at_its_field(error: InvalidInputError) -> InvalidInputError:
    """The error with a place in the form: what checks the options begins its text with the option's name; what checks
    the input says where in it."""
    if error.errors and error.errors[0]["loc"][:1] and error.errors[0]["type"] == "value":
        return error  # it was made here
    if error.errors:
        return InvalidInputError(str(error), [{**one, "loc": ["input", *one["loc"]]} for one in error.errors])
    name, sign, told = str(error).partition(": ")
    return invalid({"timing": "at"}.get(name, name), told) if sign else error


def _field(name: str, label: str, kind: Any = "text", **more: Any) -> FormField:
    attributes = {"inputmode": "numeric"} if kind == "integer" else {}
    return FormField(name=name, input_name=name, label=label, kind=kind, attributes=attributes, **more)


def _choice(name: str, label: str, words: Mapping[Any, str]) -> FormField:
    """The first is what it is unless somebody chooses."""
    choices = tuple((kind.value, told) for kind, told in words.items())
    return _field(name, label, "choice", required=True, choices=choices, initial=choices[0][0])
