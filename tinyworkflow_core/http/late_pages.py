"""Pages: the dashboard's place among the routes. The dashboard itself is loaded when its first page is asked for."""

from __future__ import annotations

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ..app import App
from .auth import Guard
from .operations import routes_of
from .settings import HttpSettings


class Pages:
    """All that is under /ui, as an ASGI app."""

    def __init__(self, app: App, settings: HttpSettings, guard: Guard, max_body_bytes: int) -> None:
        self._given = (app, settings, max_body_bytes)
        self._guard = guard
        self._home = False
        self._made: ASGIApp | None = None

    def routes(self, *, home: bool) -> list[Route]:
        """The addresses that lead here; with `home` / as well."""
        self._home = home
        return [Route(path, self) for path in ("/ui", "/ui/{rest:path}", *(["/"] if home else []))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._made is None:
            self._made = self._make()
        scope["path_params"] = {}  # the page's own route says what of its address is a name and what is data
        await self._made(scope, receive, send)

    def _make(self) -> ASGIApp:
        from . import ui

        pages = ui.UiRoutes(*self._given)
        operations = [*pages.operations(), *([ui.home()] if self._home else [])]
        return Router(routes_of(operations, lambda one: pages.before(self._guard, one)), redirect_slashes=False)
