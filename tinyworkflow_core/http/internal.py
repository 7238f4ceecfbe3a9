"""What the platform calls: advancing one run (the part `worker`) and looking for what is due (the part `tick`).

A queue reads the status alone: 2xx is done, 409 with Retry-After says that somebody else has the run in hand, and every
other status is tried again. So a call for a run that is no more is done as well: its timer may outlive a run by months.
"""

from __future__ import annotations

import logging

from starlette.requests import Request
from typing_extensions import TypedDict

from ..advance import Progress
from ..app import App
from ..dispatcher import Perform
from .answers import Json
from .bodies import MAX_NAME_CHARACTERS, check, parse_json, read, read_fields
from .operations import Operation, Scope
from .problems import RETRY_SECONDS, HttpProblem

_log = logging.getLogger("tinyworkflow.http")


class ProgressView(TypedDict):
    """How far a call has brought its run; "unknown" when there is none."""

    run_id: str
    progress: str


class TickView(TypedDict):
    """What a tick did: runs that it had looked at; runs that schedules and their backfills started; the schedules that
    skipped a time, wait for a run, were paused, or could not start their run, with the reason. `more` says that it
    stopped at its limit: call again."""

    dispatched: list[str]
    more: bool
    started: list[str]
    backfilled: list[str]
    skipped: list[str]
    waiting: list[str]
    paused: list[str]
    problems: dict[str, str]


class WorkerRoutes:
    """The endpoint of the part `worker`, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """Those there are."""
        return [
            Operation(
                method="POST",
                path="/internal/advance",
                endpoint=self.advance,
                summary="Bring one run as far as it goes",
                scope=Scope.PLATFORM,
                body="run_requests.AdvanceRequest",
                body_required=True,
                answers={200: ProgressView},
                problems=(409,),
            ),
            Operation(
                method="POST",
                path="/internal/activity",
                endpoint=self.perform,
                summary="Make one attempt of an activity that was handed out as a call of its own",
                scope=Scope.PLATFORM,
                body="run_requests.ActivityRequest",
                body_required=True,
                answers={200: ProgressView},
            ),
        ]

    async def perform(self, request: Request) -> Json:
        """Make one attempt of an activity that was handed out as a call of its own."""
        from .run_requests import ActivityRequest

        asked = await read_fields(request, ActivityRequest, self._limit)
        call = Perform(
            run_id=asked.run_id, generation=asked.generation, activity_id=asked.activity_id, attempt=asked.attempt
        )
        return _progress(asked.run_id, await self._app.perform(call))

    async def advance(self, request: Request) -> Json:
        """Bring the run as far as it goes."""
        run_id = await self._run_id(request)
        progress = await self._app.advance(run_id)
        if progress is Progress.BUSY:
            raise HttpProblem(
                409,
                f"run {run_id!r} is in somebody else's hands",
                kind="run-busy",
                run_id=run_id,
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        return _progress(run_id, progress)

    async def _run_id(self, request: Request) -> str:
        body = await read(request, self._limit)
        asked = parse_json(body) if body.strip() else {}
        match asked:
            # What a queue sends. The model would say the same of it, and importing it doubles what a cold start takes.
            case {"run_id": str(run_id)} if (
                len(asked) == 1 and run_id.isprintable() and 0 < len(run_id) <= MAX_NAME_CHARACTERS
            ):
                return run_id
        from .run_requests import AdvanceRequest

        return check(AdvanceRequest, asked, "body").run_id


def _progress(run_id: str, progress: Progress) -> Json:
    if progress is Progress.UNKNOWN:
        _log.warning("a call came for run %s, which is not there", run_id, extra={"run_id": run_id})
    view: ProgressView = {"run_id": run_id, "progress": progress.value}
    return Json(view)


class TickRoutes:
    """The endpoint of the part `tick`, for one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def operations(self) -> list[Operation]:
        """The one there is."""
        return [
            Operation(
                method="POST",
                path="/internal/tick",
                endpoint=self.tick,
                summary="Have everything looked at that is due",
                scope=Scope.PLATFORM,
                answers={200: TickView},
            )
        ]

    async def tick(self, request: Request) -> Json:
        """Have everything looked at that is due. Whatever a scheduler sends along as a body is not read."""
        report = await self._app.tick()
        return Json(report.to_dict())
