"""What the command line asks of a deployment besides: its activities, and a run's history as `check` and tests take it.
The part `api`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from ..app import App
from ..checking import exported
from ..errors import RunNotFoundError
from .answers import Json
from .definition_views import ActivityView, activity_views
from .operations import Operation, Scope
from .preferences import unless_seen
from .problems import HttpProblem
from .shown import Showing


class ActivityList(TypedDict):
    """All of them."""

    activities: list[ActivityView]


class ExportedRun(TypedDict):
    """Which run it is."""

    run_id: str
    workflow_id: str
    name: str
    version: int
    generation: int
    parent_run_id: str | None
    retry_count: int


class ExportedHistory(TypedDict):
    """The history of the run's current generation, with values as they are stored: what is sealed stays sealed."""

    format: int
    run: ExportedRun
    history: list[dict[str, Any]]


class ExportingRoutes:
    """The endpoints, for one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            Operation(
                method="GET",
                path="/v1/activities",
                endpoint=self.activities,
                summary="The activities that are declared here",
                scope=Scope.START,
                answers={200: ActivityList},
            ),
            Operation(
                method="GET",
                path="/v1/runs/{run_id}/history",
                endpoint=self.history,
                summary="A run's history as it is exported, for replaying it elsewhere",
                scope=Scope.READ,
                answers={200: ExportedHistory, 304: None},
                headers={"If-None-Match": "The ETag of an earlier answer: 304 when nothing has changed."},
                problems=(422,),
            ),
        ]

    async def activities(self, request: Request) -> Json:
        """The activities that are declared here."""
        content: ActivityList = {"activities": activity_views(self._app.registry)}
        return Json(content)

    async def history(self, request: Request) -> Response:
        """The stored history. Of a workflow that hides fields only for those who may see them: nothing can be left out
        of what is to be replayed."""
        run_id = request.path_params["run_id"]
        state = await self._app.store.load(run_id)
        if state is None:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        if Showing(request, self._app).hides(state.run.name):
            raise HttpProblem(
                403,
                f"the history of run {run_id!r} has fields that are hidden; this asks for the scope 'reveal'",
                kind="no-scope",
                run_id=run_id,
            )
        return unless_seen(request, Json(exported(state)))
