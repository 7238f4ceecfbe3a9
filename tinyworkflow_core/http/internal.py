"""What the platform calls: advancing one run (the part `worker`) and looking for what is due (the part `tick`).

A queue reads the status alone: 2xx is done, 409 with Retry-After says that somebody else has the run in hand, and 5xx
is tried again.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route

from ..advance import Progress
from ..app import App
from ..dispatcher import Perform
from ..errors import RunNotFoundError
from .answers import Json
from .auth import Guard
from .bodies import Fields, read_fields
from .problems import RETRY_SECONDS, HttpProblem
from .runs import Text


class AdvanceRequest(Fields):
    """POST /internal/advance."""

    run_id: Text


class ActivityRequest(Fields):
    """POST /internal/activity."""

    run_id: Text
    generation: int
    activity_id: int
    attempt: int


class WorkerRoutes:
    """The endpoint of the part `worker`, for one App."""

    def __init__(self, app: App, guard: Guard, max_body_bytes: int) -> None:
        self._app = app
        self._guard = guard
        self._limit = max_body_bytes

    def routes(self) -> list[Route]:
        """Those there are, guarded."""
        return [
            Route("/internal/advance", self._guard.before(self.advance), methods=["POST"]),
            Route("/internal/activity", self._guard.before(self.perform), methods=["POST"]),
        ]

    async def perform(self, request: Request) -> Json:
        """Make one attempt of an activity that was handed out as a call of its own."""
        asked = await read_fields(request, ActivityRequest, self._limit)
        call = Perform(
            run_id=asked.run_id, generation=asked.generation, activity_id=asked.activity_id, attempt=asked.attempt
        )
        progress = await self._app.perform(call)
        if progress is Progress.UNKNOWN:
            raise RunNotFoundError(f"there is no run {asked.run_id!r}", run_id=asked.run_id)
        return Json({"run_id": asked.run_id, "progress": progress.value})

    async def advance(self, request: Request) -> Json:
        """Bring the run as far as it goes."""
        run_id = (await read_fields(request, AdvanceRequest, self._limit)).run_id
        progress = await self._app.advance(run_id)
        if progress is Progress.UNKNOWN:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        if progress is Progress.BUSY:
            raise HttpProblem(
                409,
                f"run {run_id!r} is in somebody else's hands",
                kind="run-busy",
                run_id=run_id,
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        return Json({"run_id": run_id, "progress": progress.value})


class TickRoutes:
    """The endpoint of the part `tick`, for one App."""

    def __init__(self, app: App, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    def routes(self) -> list[Route]:
        """The one there is, guarded."""
        return [Route("/internal/tick", self._guard.before(self.tick), methods=["POST"])]

    async def tick(self, request: Request) -> Json:
        """Have everything looked at that is due. Whatever a scheduler sends along as a body is not read."""
        report = await self._app.tick()
        return Json({"dispatched": list(report.dispatched), "more": report.more})
