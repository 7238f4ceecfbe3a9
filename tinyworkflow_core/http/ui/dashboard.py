"""Dashboard: all pages put together, behind the guard that browsers need."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ..access import Access
from ..auth import Guard
from ..callers import looks_at_caller
from ..operations import Endpoint, Operation, Routes, Scope
from ..problems import HttpProblem
from ..settings import HttpSettings
from .activities import ActivityPages
from .bulk import BulkPages
from .diff import DiffPages
from .health import HealthPages
from .inbox import InboxPages
from .login import LoginPages
from .new_schedule import NewSchedulePages
from .rendering import go_to, static_file
from .run import RunPages
from .run_actions import RunActions
from .runs import RunListPages
from .schedules import SchedulePages
from .sessions import Sessions
from .workflows import WorkflowPages

__all__ = ["UiRoutes", "home"]


class UiRoutes:
    """All pages, for one App."""

    def __init__(self, app: App, settings: HttpSettings, max_body_bytes: int) -> None:
        access = Access(settings.access, app.api_keys)
        self._sessions = Sessions(access, settings.links, app.clock)
        self._login = LoginPages(access, self._sessions)
        run_pages = RunPages(app)
        self._pages: list[Routes] = [
            self._login,
            RunListPages(app),
            run_pages,
            RunActions(app, max_body_bytes, run_pages),
            DiffPages(app),
            BulkPages(app, max_body_bytes),
            InboxPages(app, max_body_bytes),
            NewSchedulePages(app, max_body_bytes),
            SchedulePages(app, max_body_bytes),
            WorkflowPages(app, max_body_bytes),
            ActivityPages(app),
            HealthPages(app),
        ]

    def operations(self) -> list[Operation]:
        """Those of all pages, and their static files."""
        static = Operation(
            method="GET",
            path="/ui/static/{name}",
            endpoint=_static,
            summary="Style, script and pictures of the pages",
            scope=None,
            answers={200: None},
            described=False,
        )
        nothing = Operation(
            method="GET",
            path="/ui/{rest:path}",
            endpoint=_nothing,
            summary="A page that there is not",
            scope=Scope.READ,
            described=False,
        )
        return [static, nothing, *(operation for pages in self._pages for operation in pages.operations())]

    def before(self, guard: Guard, operation: Operation) -> Endpoint:
        """The operation's endpoint behind the guard, as a browser needs it: sessions count, problems are pages."""
        return self._login.paged(guard.before(operation.endpoint, operation.scope, known=self._sessions.caller))


def home() -> Operation:
    """GET /, which sends a browser to the dashboard."""
    return Operation(method="GET", path="/", endpoint=_home, summary="To the dashboard", scope=None, described=False)


async def _home(request: Request) -> Response:
    return go_to(request, "/ui")


@looks_at_caller
async def _nothing(request: Request) -> Response:
    raise HttpProblem(404, "there is no page at this address")


async def _static(request: Request) -> Response:
    found = static_file(request.path_params["name"])
    if found is None:
        raise HttpProblem(404, "there is no such file")
    content, media_type = found
    return Response(content, media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"})
