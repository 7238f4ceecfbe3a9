"""Approvals over HTTP: what is open, and deciding it. The part `approvals`."""

from __future__ import annotations

from starlette.requests import Request

from .. import approvals
from ..app import App
from ..errors import InvalidInputError
from .answers import Json
from .bodies import query_fields, read_fields
from .callers import caller_of, decided_by, looks_at_caller
from .operations import Operation, Scope
from .shown import Showing
from .views import ApprovalList, Decided, approval_view, links_of


class DecisionRoutes:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            Operation(
                method="GET",
                path="/v1/approvals",
                endpoint=self.open,
                summary="Open approvals, those of the newest runs first",
                scope=Scope.READ,
                query="run_requests.OpenQuery",
                answers={200: ApprovalList},
            ),
            Operation(
                method="POST",
                path="/v1/runs/{run_id}/approvals/{key:path}",
                endpoint=self.decide,
                summary="Approve or reject; the same decision again answers the same",
                scope=Scope.APPROVE,
                body="run_requests.DecisionRequest",
                body_required=True,
                answers={200: Decided},
                problems=(409, 410),
            ),
        ]

    @looks_at_caller
    async def open(self, request: Request) -> Json:
        """Open approvals; with `approver` those that this person, or anybody, may decide."""
        from .run_requests import OpenQuery

        asked = query_fields(request, OpenQuery)
        caller, showing = caller_of(request), Showing(request, self._app)
        try:
            page = await approvals.pending_page(
                self._app.store,
                approver=asked.approver,
                reaches=caller.reaches,
                limit=asked.limit,
                now=self._app.clock.now(),
                cursor=asked.cursor,
            )
        except ValueError as error:
            raise InvalidInputError(f"cursor: {error}") from None
        views = [approval_view(request, one.run, one.approval, showing.of(one.run.name)) for one in page.items]
        content: ApprovalList = {"approvals": views, "next_cursor": page.next_cursor}
        return Json(content)

    async def decide(self, request: Request) -> Json:
        """Approve or reject. The same decision again answers the same."""
        from .run_requests import DecisionRequest

        asked = await read_fields(request, DecisionRequest, self._limit)
        run_id, key = request.path_params["run_id"], request.path_params["key"]
        decision = approvals.Decision(
            approved=asked.approved, by=decided_by(request, asked.by), comment=asked.comment, data=asked.data, way="api"
        )
        await self._app.decide(run_id, key, decision)
        content: Decided = {
            "run_id": run_id,
            "key": key,
            "approved": asked.approved,
            "links": links_of(request, run_id),
        }
        return Json(content)
