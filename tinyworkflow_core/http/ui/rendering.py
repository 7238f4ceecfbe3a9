"""Rendering: a template and what it shows, as a page. The one place where HTML of the dashboard is made.

- Everything is escaped by jinja2; a name that a template does not know is an error. Pages extend base.html.
- Every template is given: `root` (what comes before /ui in links), `caller` (with `may(scope)`, named as in
  `{% if caller.may("operate") %}`), `csrf` (the value of a form's hidden field), `place` (the path that was asked for),
  `asset(name)` (the address of a static file), `signed_in`. Filters: `when`, `ago(now)`, `duration`, `size`, `json`,
  `short(characters)`, `segment` (text as one segment of a path).
- No page runs or loads anything that is not our own file: script and style are in static/, never in a page.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..callers import caller_of
from .sessions import csrf_token, has_session, keep_form_cookie

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_HERE = Path(__file__).parent
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # With none at all a browser sends our own forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "X-Robots-Tag": "noindex, nofollow",
}
_NOTHING = "\u2013"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def render(
    request: Request, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any
) -> Response:
    """The page that `template` makes of `context`."""
    root = request.scope.get("root_path", "")
    text = (
        _environment()
        .get_template(template)
        .render(
            root=root,
            caller=caller_of(request),
            csrf=csrf_token(request),
            place=request.scope["path"].removeprefix(root),
            asset=lambda name: f"{root}/ui/static/{_addresses()[name]}",
            signed_in=has_session(request),
            **context,
        )
    )
    response = Response(
        text.replace("\0", "\ufffd").encode(errors="replace"),  # a stored text may hold both NUL and lone surrogates
        status_code=status,
        media_type="text/html",
        headers={**_HEADERS, **(headers or {})},
    )
    keep_form_cookie(request, response)
    return response


def go_to(request: Request, path: str) -> Response:
    """Send the browser to `path`, which begins with /ui, to GET it."""
    return RedirectResponse(request.scope.get("root_path", "") + path, status_code=303)


def own_path(text: str) -> str:
    """Where to go on: `text` where it is a path of the dashboard, whatever somebody has put into a link; else /ui."""
    inside = text == "/ui" or text.startswith(("/ui/", "/ui?"))
    plain = text.isascii() and text.isprintable() and "\\" not in text and len(text) < 4000
    return text if inside and plain and not text.startswith(("/ui/login", "/ui/logout")) else "/ui"


def static_file(name: str) -> tuple[bytes, str] | None:
    """The static file at that address and its media type. None: there is none."""
    return _files().get(name)


# --- filters ---------------------------------------------------------------------------------------------


def when(moment: datetime | str | None) -> Markup | str:
    """A moment, in UTC and to the second."""
    if moment is None:
        return _NOTHING
    return _time(_aware(moment), f"{_aware(moment):%Y-%m-%d %H:%M:%S}")


def ago(moment: datetime | str | None, now: datetime) -> Markup | str:
    """How long ago a moment was, or in how long it will be."""
    if moment is None:
        return _NOTHING
    at = _aware(moment)
    passed = (now - at).total_seconds()
    words = "now" if abs(passed) < 1 else f"{_rough(passed)} ago" if passed > 0 else f"in {_rough(-passed)}"
    return _time(at, words)


def duration(length: timedelta | float | None) -> str:
    """A length of time, in its two largest units."""
    if length is None:
        return _NOTHING
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for unit, larger, smaller, lower in ((86400, "d", "h", 3600), (3600, "h", "min", 60), (60, "min", "s", 1)):
        if whole >= unit:
            rest = whole % unit // lower
            return f"{whole // unit} {larger} {rest} {smaller}" if rest else f"{whole // unit} {larger}"
    return f"{whole} s"


def size(count: int) -> str:
    """A number of bytes."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def pretty(value: Any) -> str:
    """JSON data, to be read by people."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def short(text: str, characters: int = 80) -> str:
    """The text, or as much of it as fits."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def segment(text: str) -> str:
    """The text as one segment of a path."""
    quoted = quote(text, safe="", errors="replace")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted


def _time(at: datetime, words: str) -> Markup:
    from markupsafe import Markup

    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), f"{at:%Y-%m-%d %H:%M:%S}", words
    )


def _aware(moment: datetime | str) -> datetime:
    return (datetime.fromisoformat(moment) if isinstance(moment, str) else moment).astimezone(UTC)


def _rough(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"


# --- files -----------------------------------------------------------------------------------------------


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only where a page is shown

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "when": when,
        "ago": ago,
        "duration": duration,
        "size": size,
        "json": pretty,
        "short": short,
        "segment": segment,
    }
    return environment


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """Address -> content and media type. An address changes with its content, so that it can be kept for ever."""
    found = {}
    for path in sorted((_HERE / "static").iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            found[f"{path.stem}.{digest}{path.suffix}"] = (content, _TYPES[path.suffix])
    return found


@cache
def _addresses() -> dict[str, str]:
    """Name of a file -> its address."""
    named = {}
    for address in _files():
        stem, _, suffix = address.rsplit(".", 2)
        named[f"{stem}.{suffix}"] = address
    return named
