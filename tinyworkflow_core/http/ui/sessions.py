"""Sessions: how a browser stays known to the dashboard, and how its forms are told from forged ones.

- Whoever has signed in with an API key has a cookie that names the key by its SHA-256, signed with the keys of
  approval links under a salt of its own. The key is looked up at each request: one that was taken away or has expired
  ends its sessions. The cookie counts on /ui/* alone.
- Every form carries `csrf_token(request)` in its hidden field `csrf`, and is read by `read_form`, which wants it back.
  The token is a digest of the session's cookie, or of a cookie made for it where there is no session (a local
  emulation, Identity-Aware Proxy). A form of another origin is refused whatever it carries.

The pages that begin and end a session are in `login.py`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer
from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request
from starlette.responses import Response

from ...approval_links import LinkSettings
from ...clock import Clock, fresh_id, timestamp
from ..access import Access
from ..bodies import read
from ..callers import Caller
from ..problems import HttpProblem
from ..security_headers import came_by_https

SESSION_SECONDS = 12 * 3600
MAX_FORM_FIELDS = 2000
FORM = "application/x-www-form-urlencoded"

_COOKIE = "tinyworkflow_session"
_FORM_COOKIE = "tinyworkflow_form"
_SALT = "tinyworkflow.session"

FormData = ImmutableMultiDict[str, str]


class Sessions:
    """Signs and reads the cookies. `links`: whose keys sign them; without keys there are no sessions."""

    def __init__(self, access: Access, links: LinkSettings, clock: Clock) -> None:
        self._access = access
        self._keys = links.keys
        self._clock = clock

    @property
    def possible(self) -> bool:
        """Whether there is a key to sign cookies with."""
        return bool(self._keys)

    def caller(self, request: Request) -> Caller | None:
        """Whose session this request is of; None when it is of none that still counts."""
        cookie = request.cookies.get(_COOKIE)
        if not cookie or not self._keys:
            return None
        try:
            digest = bytes.fromhex(self._serializer().loads(cookie, max_age=SESSION_SECONDS)["k"])
        except (BadData, KeyError, TypeError, ValueError):
            return None
        found = self._access.by_digest(digest, self._clock.now())
        return found if isinstance(found, Caller) else None

    def begin(self, request: Request, response: Response, key: str) -> bool:
        """Have the browser keep a session of this API key. False, and nothing was done: it is none of ours."""
        digest = hashlib.sha256(key.encode(errors="replace")).digest()
        if not isinstance(self._access.by_digest(digest, self._clock.now()), Caller):
            return False
        # With something of its own, for it is also what this browser's forms are known by.
        cookie = self._serializer().dumps({"k": digest.hex(), "n": fresh_id(32)})
        text = cookie if isinstance(cookie, str) else cookie.decode()
        _set_cookie(request, response, _COOKIE, text, max_age=SESSION_SECONDS)
        return True

    def _serializer(self) -> URLSafeTimedSerializer:
        now = self._clock.now()

        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:  # else it would ask the machine for the time
                return int(timestamp(now))

        # itsdangerous signs with the last of its keys.
        return URLSafeTimedSerializer(
            list(reversed(self._keys)), salt=_SALT, signer=Signer, signer_kwargs={"digest_method": hashlib.sha256}
        )


def has_session(request: Request) -> bool:
    """Whether the browser sent a session's cookie, of whatever worth."""
    return bool(request.cookies.get(_COOKIE))


def end_session(request: Request, response: Response) -> None:
    """Have the browser forget its session."""
    response.delete_cookie(_COOKIE, path=_path(request))


# --- forms -----------------------------------------------------------------------------------------------


def csrf_token(request: Request) -> str:
    """What a form of this browser carries in its field `csrf`; `keep_form_cookie` has to see the response after."""
    secret = request.cookies.get(_COOKIE) or request.cookies.get(_FORM_COOKIE)
    if not secret:
        secret = getattr(request.state, "form_secret", None) or fresh_id(32)
        request.state.form_secret = secret
    return _token(secret)


def keep_form_cookie(request: Request, response: Response) -> None:
    """Send the cookie that `csrf_token` has made for this request, if it has made one."""
    if (secret := getattr(request.state, "form_secret", None)) is not None:
        _set_cookie(request, response, _FORM_COOKIE, secret, max_age=None)


async def read_form(request: Request, limit: int) -> FormData:
    """The form that this browser sent from one of our pages; its line ends are "\\n".

    Raises a 403 for one that comes from elsewhere, a 400 for what is no form, a 413 for more than `limit` bytes.
    """
    _check_origin(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HttpProblem(400, f"a form is sent as {FORM}", kind="not-a-form")
    try:
        pairs = parse_qsl(
            (await read(request, limit)).decode(),
            keep_blank_values=True,
            strict_parsing=False,
            max_num_fields=MAX_FORM_FIELDS,
            errors="strict",
        )
    except ValueError:
        raise HttpProblem(400, "the form cannot be read", kind="not-a-form") from None
    form: FormData = ImmutableMultiDict([(name, value.replace("\r\n", "\n")) for name, value in pairs])
    secret = request.cookies.get(_COOKIE) or request.cookies.get(_FORM_COOKIE) or ""
    sent = form.get("csrf", "").encode(errors="replace")
    if not secret or not hmac.compare_digest(sent, _token(secret).encode()):
        raise _forged("it carries no token of this browser, or an old one: load its page again, then send it")
    return form


def _check_origin(request: Request) -> None:
    """Raises a 403 for a form that a page of another origin has sent."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise _forged("it comes from a page of another origin")
        return
    origin = request.headers.get("origin")
    if origin is None:
        return  # no browser of today: the token decides
    try:
        netloc = urlsplit(origin).netloc.lower()
    except ValueError:
        netloc = ""
    if not netloc or netloc != request.headers.get("host", "").lower():
        raise _forged("it comes from a page of another origin")


def _forged(why: str) -> HttpProblem:
    return HttpProblem(403, f"this form is not taken: {why}", kind="forged-form")


def _token(secret: str) -> str:
    return hashlib.sha256(b"tinyworkflow.form:" + secret.encode(errors="replace")).hexdigest()


def _set_cookie(request: Request, response: Response, name: str, value: str, *, max_age: int | None) -> None:
    # The one for forms also comes along from a link elsewhere: a new one would spoil the forms that are open.
    samesite: Literal["strict", "lax"] = "strict" if name == _COOKIE else "lax"
    secure = came_by_https(request.scope)
    response.set_cookie(
        name, value, max_age=max_age, path=_path(request), secure=secure, httponly=True, samesite=samesite
    )


def _path(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return f"{root}/ui"
