"""Security headers on every answer, and whose pages may call from a browser (CORS). Who may call at all is `auth.py`'s.

- A browser takes an answer for what it says it is, shows it in no frame, runs nothing in it, sends no Referer from it
  and keeps no copy. A page that needs more sets its own Content-Security-Policy.
- HTTPS is remembered (HSTS) by answers that came by it. Behind a proxy that is told by X-Forwarded-Proto; whoever makes
  that up tells only himself.
- Pages of other origins may call only when TINYWORKFLOW_CORS_ORIGINS names their origin, and never with cookies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ConfigurationError

VARIABLE = "TINYWORKFLOW_CORS_ORIGINS"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HSTS = "max-age=31536000"
_LOCAL = ("localhost", "127.0.0.1", "::1")


class SecurityHeaders:
    """Adds the headers that an answer has not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        https = came_by_https(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if https:
                    headers.setdefault("Strict-Transport-Security", _HSTS)
            await send(message)

        await self._app(scope, receive, with_headers)


def came_by_https(scope: Scope) -> bool:
    """Whether a browser sent this request over HTTPS, to us or to the proxy before us."""
    forwarded = Headers(scope=scope).get("x-forwarded-proto", "")
    return "https" in (scope.get("scheme"), forwarded.partition(",")[0].strip().lower())


def cors(origins: Sequence[str]) -> list[Middleware]:
    """What lets pages of these origins call. Nothing for none of them."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "If-Match",
                "If-None-Match",
                "Prefer",
                "X-API-Key",
            ],
            expose_headers=["ETag", "Location", "Preference-Applied", "Retry-After"],
            allow_credentials=False,  # keys come in a header that the page has to set itself
        )
    ]


def origins_from_env(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The origins in TINYWORKFLOW_CORS_ORIGINS, comma-separated. Raises ConfigurationError for what is no origin."""
    found = [one for part in environ.get(VARIABLE, "").split(",") if (one := part.strip())]
    for one in found:
        if not _is_origin(one):
            raise ConfigurationError(
                f"{VARIABLE}: {one!r} is no origin; write https://host or https://host:port, one by one "
                "(http:// for this machine alone, and never *)"
            )
    return tuple(found)


def _is_origin(text: str) -> bool:
    try:
        url = urlsplit(text)
        known = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOCAL)
        netloc = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""
        port = "" if url.port is None else f":{url.port}"
    except ValueError:
        return False
    return known and "*" not in netloc and text == f"{url.scheme}://{netloc}{port}" and bool(url.hostname)
