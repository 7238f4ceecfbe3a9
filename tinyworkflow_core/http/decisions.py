"""Approvals over HTTP: what is open, and deciding it. The part `approvals`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.routing import Route

from .. import approvals
from ..app import App
from .answers import Json
from .auth import Guard
from .bodies import Fields, query_fields, read_fields
from .runs import QueryFields, Text
from .views import approval_view, links_of


class DecisionRequest(Fields):
    """POST /v1/runs/{id}/approvals/{key}."""

    approved: bool
    by: Text | None = None
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    data: Any = None


class OpenQuery(QueryFields):
    """GET /v1/approvals."""

    approver: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class DecisionRoutes:
    """The endpoints, for one App."""

    def __init__(self, app: App, guard: Guard, max_body_bytes: int) -> None:
        self._app = app
        self._guard = guard
        self._limit = max_body_bytes

    def routes(self) -> list[Route]:
        """All of them, guarded."""
        before = self._guard.before
        return [
            Route("/v1/approvals", before(self.open), methods=["GET"]),
            Route("/v1/runs/{run_id}/approvals/{key:path}", before(self.decide), methods=["POST"]),
        ]

    async def open(self, request: Request) -> Json:
        """Open approvals; with `approver` those that this person, or anybody, may decide."""
        asked = query_fields(request, OpenQuery)
        found = await approvals.pending(self._app.store, approver=asked.approver, limit=asked.limit)
        return Json({"approvals": [approval_view(request, one.run, one.approval, self._app.codec) for one in found]})

    async def decide(self, request: Request) -> Json:
        """Approve or reject. The same decision again answers the same."""
        asked = await read_fields(request, DecisionRequest, self._limit)
        run_id, key = request.path_params["run_id"], request.path_params["key"]
        decision = approvals.Decision(approved=asked.approved, by=asked.by, comment=asked.comment, data=asked.data)
        await self._app.decide(run_id, key, decision)
        return Json({"run_id": run_id, "key": key, "approved": asked.approved, "links": links_of(request, run_id)})
