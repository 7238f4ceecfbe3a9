"""Front: the parts put together behind one guard. What a part needs is imported when it is served: a function that
serves one pays for no other, and the dashboard is loaded at its first page."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from typing_extensions import TypedDict

from ..app import App
from ..errors import ConfigurationError
from .access import Access
from .answers import Json
from .auth import Guard
from .bodies import MAX_BODY_BYTES
from .emulation import WorksItself
from .late_pages import Pages
from .openapi import openapi_operation
from .operations import Operation, Routes, routes_of
from .platform_identity import PlatformIdentity
from .problems import Problems, answer_http_exception
from .security_headers import SecurityHeaders, cors
from .settings import HttpSettings
from .webhooks import Webhook, Webhooks

__all__ = ["ALL", "create_app"]


class Health(TypedDict):
    """What a process says of itself."""

    status: str
    version: str
    store: str


ALL = frozenset({"api", "approvals", "worker", "tick", "hooks", "ui"})


def create_app(
    app: App,
    *,
    parts: Collection[str] = ALL,
    emulate: bool = False,
    webhooks: Iterable[Webhook] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    settings: HttpSettings | None = None,
) -> Starlette:
    """An ASGI app with the routes of `parts`.

    - emulate: for one's own machine. Without API keys callers on this machine are let in (otherwise nobody is), and the
      first request makes a process that serves all parts work on runs itself.
    - webhooks: what /hooks/* serves; all that this process has declared unless given.
    - max_body_bytes: a longer body is answered with 413.
    - settings: what the front is told besides; by the environment unless given.

    Raises ConfigurationError for a part that does not exist and for an empty API key.
    """
    if unknown := set(parts) - ALL:
        raise ConfigurationError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(sorted(ALL))}")
    settings = settings or HttpSettings.from_env()
    guard = Guard(
        Access(settings.access, app.api_keys),
        find_run=app.store.get,
        clock=app.clock,
        emulate=emulate,
        platform=PlatformIdentity(settings.platform),
        origins=settings.cors_origins,
    )
    operations = [_healthz(app)]
    for part in sorted(parts):
        made = _routes(part, app, settings, max_body_bytes, webhooks)
        operations += [operation for routes in made for operation in routes.operations()]
    operations.append(openapi_operation(operations))
    routes = routes_of(operations, lambda one: guard.before(one.endpoint, one.scope))
    if "ui" in parts:
        pages = Pages(app, settings, guard, max_body_bytes)
        # GET / leads there, except where the address belongs to others.
        routes += pages.routes(home=emulate or frozenset(parts) == {"ui"})
    middleware = [Middleware(SecurityHeaders), *cors(settings.cors_origins), Middleware(Problems)]
    if emulate and frozenset(parts) == ALL:  # one part alone is a process among others, one of which is the worker
        middleware.append(Middleware(WorksItself, core=app))
    starlette = Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: answer_http_exception}
    )
    starlette.router.redirect_slashes = False  # it would answer with whatever Host the caller has sent
    return starlette


def _routes(
    part: str, app: App, settings: HttpSettings, max_body_bytes: int, webhooks: Iterable[Webhook] | None
) -> list[Routes]:
    """Whose operations are in the OpenAPI document: of all parts but `ui`."""
    match part:
        case "api":
            from .exporting import ExportingRoutes
            from .operating import OperatingRoutes
            from .runs import RunRoutes
            from .schedules import ScheduleRoutes
            from .talking import TalkingRoutes

            return [
                RunRoutes(app, max_body_bytes),
                TalkingRoutes(app, max_body_bytes),
                OperatingRoutes(app, max_body_bytes),
                ScheduleRoutes(app, max_body_bytes),
                ExportingRoutes(app),
            ]
        case "approvals":
            from .approval_page import ApprovalPages
            from .decisions import DecisionRoutes

            return [DecisionRoutes(app, max_body_bytes), ApprovalPages(app, max_body_bytes, settings.links)]
        case "worker" | "tick":
            from .internal import TickRoutes, WorkerRoutes

            return [WorkerRoutes(app, max_body_bytes) if part == "worker" else TickRoutes(app)]
        case "hooks":
            from .hooks import HookRoutes

            return [HookRoutes(app, Webhooks(webhooks), max_body_bytes)]
    return []


def _healthz(app: App) -> Operation:
    # Asked of the package that is loaded, since a checkout need not be installed; importing its face would be going up.
    version = sys.modules[__name__.partition(".")[0]].__version__
    store = type(app.store).__name__.removesuffix("Store").lower()

    async def healthz(request: Request) -> Json:
        content: Health = {"status": "ok", "version": version, "store": store}
        return Json(content)

    return Operation(
        method="GET",
        path="/healthz",
        endpoint=healthz,
        summary="Whether this process answers; the store is not asked",
        scope=None,
        answers={200: Health},
    )
