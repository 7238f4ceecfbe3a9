"""The HTTP front: `create_app` puts the routes of an App together, in parts, so that a function can serve one alone.

- api: starting, seeing and reaching runs. approvals: deciding what runs ask. hooks: webhooks that start runs.
- worker and tick: what a queue and a scheduler call.
- GET /healthz is in all of them.

Nothing here knows how runs work; that is the App's. Errors are told in one form by `problems.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route

from ..app import App
from ..errors import ConfigurationError
from .answers import Json
from .auth import Guard
from .bodies import MAX_BODY_BYTES
from .decisions import DecisionRoutes
from .emulation import WorksItself
from .hooks import HookRoutes
from .internal import TickRoutes, WorkerRoutes
from .problems import Problems, answer_http_exception
from .runs import RunRoutes
from .webhooks import Webhook, Webhooks

__all__ = ["ALL", "create_app"]

ALL = frozenset({"api", "approvals", "worker", "tick", "hooks"})


def create_app(
    app: App,
    *,
    parts: Collection[str] = ALL,
    emulate: bool = False,
    webhooks: Iterable[Webhook] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Starlette:
    """An ASGI app with the routes of `parts`.

    - emulate: for one's own machine. Without API keys callers on this machine are let in (otherwise nobody is), and the
      first request makes this process work on runs itself.
    - webhooks: what /hooks/* serves; all that this process has declared unless given.
    - max_body_bytes: a longer body is answered with 413.

    Raises ConfigurationError for a part that does not exist and for an empty API key.
    """
    if unknown := set(parts) - ALL:
        raise ConfigurationError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(sorted(ALL))}")
    guard = Guard(app.api_keys, emulate=emulate)
    made: dict[str, RunRoutes | DecisionRoutes | WorkerRoutes | TickRoutes | HookRoutes] = {
        "api": RunRoutes(app, guard, max_body_bytes),
        "approvals": DecisionRoutes(app, guard, max_body_bytes),
        "worker": WorkerRoutes(app, guard, max_body_bytes),
        "tick": TickRoutes(app, guard),
        "hooks": HookRoutes(app, Webhooks(webhooks), max_body_bytes),
    }
    routes = [_healthz(app), *(route for part in sorted(parts) for route in made[part].routes())]
    middleware = [Middleware(Problems)]
    if emulate:
        middleware.append(Middleware(WorksItself, core=app))
    starlette = Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: answer_http_exception}
    )
    starlette.router.redirect_slashes = False  # it would answer with whatever Host the caller has sent
    return starlette


def _healthz(app: App) -> Route:
    # Asked of the package that is loaded, since a checkout need not be installed; importing its face would be going up.
    version = sys.modules[__name__.partition(".")[0]].__version__
    store = type(app.store).__name__.removesuffix("Store").lower()

    async def healthz(request: Request) -> Json:
        return Json({"status": "ok", "version": version, "store": store})

    return Route("/healthz", healthz, methods=["GET"])
