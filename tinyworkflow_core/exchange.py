"""One HTTP request and its answer as data: what workflow code says and sees, and what a history keeps of it. Pure.

Here: HttpRequest and HttpResponse, which URLs and headers are taken, what an origin is, how Retry-After is read. Not
here: sending (outbound.py). `HttpResponse` stands in histories under this module's name: it stays here for good.
"""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from .errors import HttpStatusError
from .records import dataclass

MAX_RESPONSE_BYTES = 256 * 1024
"""The longest body unless the call says otherwise: a response has to fit into one event of the history."""

Param = str | int | float | bool | None
"""One value of a query. True and False are written in small letters; None leaves the parameter out."""

_CREDENTIALS = {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token"}
_FRAMING = {"host", "content-length", "transfer-encoding", "connection"}
_REPEATABLE = {"GET", "HEAD", "OPTIONS", "TRACE"}
_LONGEST_WAIT_SECONDS = 30 * 86_400
_EXCERPT_CHARACTERS = 1000

# As text: compiled by the first call that is made, and not by each process that loads this.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEADER_VALUE = r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?"
_ENVIRONMENT_NAME = r"[A-Z_][A-Z0-9_]*"
_NETLOC = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_UNSAFE = "[\x00-\x20\x7f\\\\\ud800-\udfff]"
"""Characters that two readers of a URL may read in two ways, and so see two different hosts in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpResponse:
    """The answer to one request."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """Names in small letters; repeated ones joined by ", ". Set-Cookie is left out: it is a credential."""
    body: str | bytes = ""
    """As the history keeps it: text where it is UTF-8, so that people can read it. See `text` and `content`."""
    url: str = ""
    """Where the answer came from: after redirects not what was asked for."""

    @property
    def ok(self) -> bool:
        """Whether the status is one of 200 to 299."""
        return 200 <= self.status < 300

    @property
    def content(self) -> bytes:
        """The body's bytes, decompressed."""
        return self.body.encode() if isinstance(self.body, str) else self.body

    @property
    def text(self) -> str:
        """The body as text in the charset that it declares, UTF-8 when it declares none; what does not fit is
        replaced."""
        if isinstance(self.body, str):
            return self.body
        try:
            return self.body.decode(charset(self.headers.get("content-type", "")), "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body read as JSON. Raises json.JSONDecodeError, a ValueError, when it is none."""
        return json_text.loads(self.text.removeprefix("\ufeff"))

    @property
    def retry_after(self) -> float | None:
        """The seconds that Retry-After asks for, 30 days at most; None without one that can be read.

        A date counts from the answer's own Date header, so it means the same in every replay and whatever the clocks
        say; without a Date it means nothing.
        """
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(min(int(value[:12]), _LONGEST_WAIT_SECONDS))
        until, sent = _http_date(value), _http_date(self.headers.get("date", ""))
        if until is None or sent is None:
            return None
        return min(max((until - sent).total_seconds(), 0.0), _LONGEST_WAIT_SECONDS)

    @property
    def excerpt(self) -> str:
        """The beginning of the body, for an error's details."""
        return self.text[:_EXCERPT_CHARACTERS]

    def raise_for_status(self) -> HttpResponse:
        """This response again when it is `ok`; else raises HttpStatusError."""
        if not self.ok:
            raise HttpStatusError(self.status, self.url, details=self.excerpt)
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    """One request, checked. Credentials are in it by the names of their environment variables only."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    """Names in small letters."""
    content: str | bytes | None = None
    secret_headers: dict[str, str] = field(default_factory=dict)
    """Header name in small letters -> environment variable that holds the whole value."""
    bearer_from_env: str | None = None
    max_response_bytes: int = MAX_RESPONSE_BYTES

    @classmethod
    def of(
        cls,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Param | Sequence[Param]] | None = None,
        json: Any = None,
        content: str | bytes | None = None,
        bearer_from_env: str | None = None,
        secret_headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> HttpRequest:
        """The request that `ctx.call_http` describes. Raises ValueError or TypeError for what cannot be sent or must
        not stand in a history; no message repeats what may be a secret."""
        if not re.fullmatch(_TOKEN, method):
            raise ValueError(f"not an HTTP method: {method!r}")
        given = _headers(headers or {})
        if json is not None:
            if content is not None:
                raise ValueError("json= and content= are two bodies; give one")
            content = _json(json)
            given.setdefault("content-type", "application/json")
        if not _is_body(content):
            raise TypeError("content= takes text that can be written as UTF-8, or bytes; json= takes everything else")
        if idempotency_key is not None and method.upper() not in _REPEATABLE:
            given.setdefault("idempotency-key", quote(idempotency_key, safe="/:@+=~!$&'()*,;"))
        if type(max_response_bytes) is not int or max_response_bytes < 0:
            raise ValueError(f"max_response_bytes is a whole number of bytes, not {max_response_bytes!r}")
        return cls(
            method=method.upper(),
            url=checked_url(_with_query(url, params or {})),
            headers=given,
            content=content,
            secret_headers=_secret_headers(secret_headers or {}, bearer_from_env, given),
            bearer_from_env=bearer_from_env,
            max_response_bytes=max_response_bytes,
        )

    def arguments(self) -> dict[str, Any]:
        """What is set, beside method and URL, as keyword arguments. What is not set is left out: a history that was
        written before a setting existed still fits."""
        options: dict[str, Any] = {
            name: value
            for name in ("headers", "content", "secret_headers", "bearer_from_env")
            if (value := getattr(self, name))
        }
        if self.max_response_bytes != MAX_RESPONSE_BYTES:
            options["max_response_bytes"] = self.max_response_bytes
        return options

    def moved_to(self, location: str) -> HttpRequest:
        """The same request to another place, `location` being relative to this one. At another origin it has no
        credentials, and does not get them back on the way home. Raises ValueError for no http or https URL."""
        url = checked_url(urljoin(self.url, location))
        if origin(url) == origin(self.url):
            return replace(self, url=url)
        return replace(self, url=url, secret_headers={}, bearer_from_env=None)

    def as_get(self) -> HttpRequest:
        """A GET in its place: without the body, and without the headers that speak of the body."""
        kept = {
            name: value
            for name, value in self.headers.items()
            if not name.startswith("content-") and name != "idempotency-key"
        }
        return replace(self, method="GET", content=None, headers=kept)


# --- URLs --------------------------------------------------------------------------------------------


def checked_url(url: str) -> str:
    """The URL without its fragment. Raises ValueError, without repeating the URL, unless it is an http or https URL
    that names a host, no user, and leaves no room for two readings."""
    if re.search(_UNSAFE, url):
        raise ValueError("the URL holds a space, a backslash or a control character; write it percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("the URL cannot be read: look at its host and port") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("call_http calls URLs that begin with http:// or https://, and no others")
    if "@" in parts.netloc:
        raise ValueError(
            "the URL holds a user or a password, which would stand in the history; use "
            'secret_headers={"Authorization": "NAME_OF_AN_ENVIRONMENT_VARIABLE"}'
        )
    if not re.fullmatch(_NETLOC, parts.netloc) or port == 0:
        raise ValueError("the URL names no host that can be called (one that is not ASCII is written as xn--...)")
    return parts._replace(fragment="").geturl()


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: who gets to see a credential."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _with_query(url: str, params: Mapping[str, Any]) -> str:
    pairs = []
    for name, value in params.items():
        several = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        pairs += [(name, _param(name, one)) for one in several if one is not None]
    if not pairs:
        return url
    url, mark, fragment = url.partition("#")
    joint = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    return f"{url}{joint}{urlencode(pairs)}{mark}{fragment}"


def _param(name: str, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise TypeError(f"params[{name!r}] is a {type(value).__name__}; a query takes text and numbers")
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- headers and bodies ------------------------------------------------------------------------------


def fits_header(value: str) -> bool:
    """Whether a header can have that value: printable ASCII, no line break, no space around it."""
    return re.fullmatch(_HEADER_VALUE, value) is not None


def charset(content_type: str) -> str:
    """The charset that a Content-Type declares; "utf-8" when it declares none."""
    found = re.search(r"""charset\s*=\s*["']?([\w.:+-]+)""", content_type, re.IGNORECASE)
    return found[1].lower() if found else "utf-8"


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    checked = {}
    for name, value in headers.items():
        low = _header_name(name)
        if low in _CREDENTIALS:
            raise ValueError(
                f"the header {name!r} is a credential, and what is passed here stands in the history; put it into an "
                f'environment variable and use secret_headers={{"{name}": "NAME_OF_THE_VARIABLE"}}'
                + (', or bearer_from_env="NAME_OF_THE_VARIABLE"' if low == "authorization" else "")
            )
        if not isinstance(value, str) or not fits_header(value):
            raise ValueError(f"the value of the header {name!r} is not printable ASCII text without spaces around it")
        checked[low] = value
    return checked


def _secret_headers(secret: Mapping[str, str], bearer: str | None, given: Mapping[str, str]) -> dict[str, str]:
    checked = {_header_name(name): variable for name, variable in secret.items()}
    for variable in [*checked.values(), *([] if bearer is None else [bearer])]:
        if not isinstance(variable, str) or not re.fullmatch(_ENVIRONMENT_NAME, variable):
            raise ValueError(
                "bearer_from_env and secret_headers take the NAMES of environment variables, in capitals, never the "
                "secrets themselves"
            )
    if bearer is not None and "authorization" in checked:
        raise ValueError("bearer_from_env is the Authorization header; secret_headers cannot set it as well")
    if twice := sorted(checked.keys() & given.keys()):
        raise ValueError(f"headers and secret_headers both set {', '.join(twice)}")
    return checked


def _header_name(name: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(_TOKEN, name):
        raise ValueError(f"not the name of a header: {name!r}")
    if name.lower() in _FRAMING:
        raise ValueError(f"the header {name!r} follows from the URL and the body; leave it out")
    return name.lower()


def _json(value: Any) -> str:
    try:
        return json_text.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"json= takes plain JSON values ({error}); of a pydantic model pass model_dump(mode='json')"
        ) from None


def _is_body(content: object) -> bool:
    try:
        return isinstance(content, bytes | None) or (isinstance(content, str) and content.encode() is not None)
    except UnicodeEncodeError:
        return False


def _http_date(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # a fifth of what the whole context costs at import

    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else None
