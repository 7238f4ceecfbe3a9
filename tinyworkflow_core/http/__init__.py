"""The HTTP front: `create_app` puts the routes of an App together, in parts, so that a function can serve one alone.

- api: starting, seeing and reaching runs. approvals: deciding what runs ask. hooks: webhooks that start runs.
- worker and tick: what a queue and a scheduler call. ui: the dashboard, for browsers.
- GET /healthz is in all of them, and GET /openapi.json, which describes what this very process answers.

Nothing here knows how runs work; that is the App's. Errors are told in one form by `problems.py`.
"""

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
from .approval_page import ApprovalPages
from .auth import Guard
from .bodies import MAX_BODY_BYTES
from .decisions import DecisionRoutes
from .emulation import WorksItself
from .exporting import ExportingRoutes
from .hooks import HookRoutes
from .internal import TickRoutes, WorkerRoutes
from .openapi import openapi_operation
from .operating import OperatingRoutes
from .operations import Operation, Routes, routes_of
from .platform_identity import PlatformIdentity
from .problems import Problems, answer_http_exception
from .runs import RunRoutes
from .schedules import ScheduleRoutes
from .security_headers import SecurityHeaders, cors
from .settings import HttpSettings
from .talking import TalkingRoutes
from .ui import UiRoutes
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
    ui = UiRoutes(app, settings, max_body_bytes)
    made: dict[str, list[Routes]] = {
        "api": [
            RunRoutes(app, max_body_bytes),
            TalkingRoutes(app, max_body_bytes),
            OperatingRoutes(app, max_body_bytes),
            ScheduleRoutes(app, max_body_bytes),
            ExportingRoutes(app),
        ],
        "approvals": [DecisionRoutes(app, max_body_bytes), ApprovalPages(app, max_body_bytes, settings.links)],
        "worker": [WorkerRoutes(app, max_body_bytes)],
        "tick": [TickRoutes(app)],
        "hooks": [HookRoutes(app, Webhooks(webhooks), max_body_bytes)],
        "ui": [ui],
    }
    operations = [_healthz(app)]
    for part in sorted(parts):
        operations += [operation for routes in made[part] for operation in routes.operations()]
    operations.append(openapi_operation([one for one in operations if one.described]))
    routes = routes_of(
        operations, lambda one: guard.before(one.endpoint, one.scope) if one.described else ui.before(guard, one)
    )
    middleware = [Middleware(SecurityHeaders), *cors(settings.cors_origins), Middleware(Problems)]
    if emulate and frozenset(parts) == ALL:  # one part alone is a process among others, one of which is the worker
        middleware.append(Middleware(WorksItself, core=app))
    starlette = Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: answer_http_exception}
    )
    starlette.router.redirect_slashes = False  # it would answer with whatever Host the caller has sent
    return starlette


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
