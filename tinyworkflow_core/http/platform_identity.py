"""PlatformIdentity: whether a caller of /internal/* is the queue or scheduler that it says it is.

Cloud Tasks and Cloud Scheduler bring an identity token (OIDC) that Google has signed for a service account. google-auth
checks signature and times; here is what it leaves to its users: the audience is never optional, the issuer is Google,
the e-mail address is verified and is one of those that are expected. Certificates are kept as long as Google says.

Nothing here looks at API keys, and nothing is let in that brings no such token: that is for `auth.py` to decide.

**A private Cloud Run service never sees the signature.** Cloud Run checks the token against IAM and hands it on with
SIGNATURE_REMOVED_BY_GOOGLE in its place. Such a token proves nothing by itself, since anybody can write one: it counts
only where TINYWORKFLOW_IAM_IN_FRONT says that nobody reaches this service but through that check.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from ..errors import ConfigurationError
from ..records import dataclass
from .problems import HttpProblem

_log = logging.getLogger("tinyworkflow.http")

GOOGLE_CERTIFICATES = "https://www.googleapis.com/oauth2/v1/certs"
ISSUERS = frozenset({"https://accounts.google.com", "accounts.google.com"})
CLOCK_SKEW_SECONDS = 10
"""A token may be so much too early, or too late."""
REFETCH_SECONDS = 10.0
"""Certificates are fetched at most so often, whatever key ids callers make up."""
KEPT_SECONDS = 86_400.0
"""So long those that are out of date go on counting while no newer ones can be had."""
_FETCH_SECONDS = 5.0
_MOST_CHARACTERS = 8192
_SIGNATURE_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"
_OTHER_AUDIENCE = "it is for another audience; TINYWORKFLOW_AUDIENCE has those of this service"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformSettings:
    """Whose tokens are taken. Without audiences and invokers nobody's are."""

    audiences: tuple[str, ...] = ()
    invokers: tuple[str, ...] = ()
    """E-mail addresses of service accounts."""
    iam_in_front: bool = False
    """Whether this is a private Cloud Run service: a token whose signature Cloud Run removed has been checked then."""
    certificates_url: str = GOOGLE_CERTIFICATES

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> PlatformSettings:
        """By TINYWORKFLOW_AUDIENCE and TINYWORKFLOW_INVOKERS (both comma-separated, both or neither), and
        TINYWORKFLOW_IAM_IN_FRONT (true or false). Raises ConfigurationError naming the one that does not fit."""
        audiences, invokers = _list(environ, "TINYWORKFLOW_AUDIENCE"), _list(environ, "TINYWORKFLOW_INVOKERS")
        if bool(audiences) != bool(invokers):
            missing, given = "TINYWORKFLOW_AUDIENCE", "TINYWORKFLOW_INVOKERS"
            if audiences:
                missing, given = given, missing
            raise ConfigurationError(f"{missing} is missing: it goes with {given}, and no token is taken without both")
        for one in invokers:
            if not re.fullmatch(r"[^@\s]+@[^@\s]+", one):
                raise ConfigurationError(f"TINYWORKFLOW_INVOKERS: {one!r} is no e-mail address")
        in_front = environ.get("TINYWORKFLOW_IAM_IN_FRONT", "false")
        if in_front not in ("true", "false"):
            raise ConfigurationError(f"TINYWORKFLOW_IAM_IN_FRONT: 'true' or 'false' is needed, not {in_front!r}")
        if in_front == "true" and not invokers:
            raise ConfigurationError("TINYWORKFLOW_INVOKERS is missing: it goes with TINYWORKFLOW_IAM_IN_FRONT")
        return cls(audiences=audiences, invokers=invokers, iam_in_front=in_front == "true")


class PlatformIdentity:
    """Knows the platform's callers by their tokens. Cheap to make: certificates come with the first token."""

    def __init__(self, settings: PlatformSettings) -> None:
        self._settings = settings
        self._certificates = Certificates(settings.certificates_url)

    @property
    def configured(self) -> bool:
        """Whether anybody's tokens are taken at all."""
        return bool(self._settings.audiences and self._settings.invokers)

    async def admits(self, request: Request) -> bool:
        """True for the platform. False for a caller without an identity token, who may have something else to show,
        and always when nothing is configured.

        Raises a 401 for a token that is not right, a 403 for a right one of somebody else, and a 503 when Google's
        certificates cannot be had.
        """
        token = _bearer(request, "authorization")
        if not self.configured or token.count(".") != 2:
            return False
        if token.endswith(f".{_SIGNATURE_REMOVED}"):
            claims = self._checked_by_iam(request, token)
        else:
            claims = await self._claims(token)
        if str(claims.get("iss")) not in ISSUERS:
            raise _unproven("it was issued by somebody else")
        if claims.get("aud") not in self._settings.audiences:
            raise _unproven(_OTHER_AUDIENCE)
        if claims.get("email_verified") is not True or claims.get("email") not in self._settings.invokers:
            raise HttpProblem(
                403,
                "the token is right, and its bearer may not call this: TINYWORKFLOW_INVOKERS has those who may",
                kind="wrong-caller",
            )
        return True

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """What the token says, once its signature and its times are known to be right."""
        from google.auth import jwt  # with cryptography: a process that is never called this way does without
        from google.auth.exceptions import GoogleAuthError

        decode: Any = jwt.decode  # untyped
        read_header: Any = jwt.decode_header
        try:
            if len(token) > _MOST_CHARACTERS:
                raise ValueError("it is too long")
            header = read_header(token)
            if header.get("alg") != "RS256":  # what Google signs with; never what the token would like
                raise ValueError("it is not signed with RS256")
            key_id = header.get("kid")
            certificate = await self._certificates.find(key_id) if isinstance(key_id, str) else None
            if certificate is None:
                raise ValueError("it is signed with a key that is not Google's")
            claims: Mapping[str, Any] = decode(
                token,
                certs={key_id: certificate},
                audience=list(self._settings.audiences),
                clock_skew_in_seconds=CLOCK_SKEW_SECONDS,
            )
            return claims
        # Claims of other types than google-auth expects end in a TypeError or AttributeError of its own.
        except (GoogleAuthError, ValueError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("an identity token was refused: %s", type(error).__name__)
            raise _unproven(_reason(error)) from None

    def _checked_by_iam(self, request: Request, token: str) -> Mapping[str, Any]:
        """What the token says that Cloud Run has checked, times included."""
        from google.auth import jwt

        if not self._settings.iam_in_front or not os.environ.get("K_SERVICE"):
            raise _unproven(
                "Cloud Run has removed its signature; TINYWORKFLOW_IAM_IN_FRONT=true says that this service is private"
            )
        # With this header Cloud Run checks that token alone, and lets Authorization pass as it was sent.
        if "x-serverless-authorization" in request.headers:
            token = _bearer(request, "x-serverless-authorization")
        decode: Any = jwt.decode
        try:
            claims = decode(token, verify=False)
        except (ValueError, RecursionError) as error:
            raise _unproven(_reason(error)) from None
        return claims if isinstance(claims, Mapping) else {}


class Certificates:
    """An issuer's certificates by key id, fetched when they are needed and kept as long as the answer says.

    A key id that is not known makes them be fetched anew, at most every REFETCH_SECONDS, whether that succeeds or not.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: Mapping[str, str] = {}
        self._good_until = 0.0
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    async def find(self, key_id: str) -> str | None:
        """The certificate of that key; None when there is none. Raises a 503 when none at all can be had."""
        if not self._serves(key_id):
            async with self._turn():
                if not self._serves(key_id) and self._may_try():  # else somebody else has just fetched them
                    await self._fetch()
        if self._fetched_at is None or time.monotonic() - self._fetched_at > KEPT_SECONDS:
            raise HttpProblem(
                503,
                "the certificates by which callers are known cannot be had at the moment",
                kind="identity-unavailable",
                headers={"Retry-After": str(int(REFETCH_SECONDS))},
            )
        return self._known.get(key_id)

    def _serves(self, key_id: str) -> bool:
        return key_id in self._known and time.monotonic() < self._good_until

    def _may_try(self) -> bool:
        return self._tried_at is None or time.monotonic() - self._tried_at >= REFETCH_SECONDS

    def _turn(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock[0] is not loop:
            self._lock = (loop, asyncio.Lock())
        return self._lock[1]

    async def _fetch(self) -> None:
        import httpx  # with what it brings a tenth of a second: only where such a token comes

        self._tried_at = time.monotonic()
        try:
            async with httpx.AsyncClient(timeout=_FETCH_SECONDS) as caller:
                answer = await caller.get(self._url)
            found = answer.raise_for_status().json()
            if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
                raise ValueError("they have another form")
        except (httpx.HTTPError, ValueError) as error:
            _log.warning("certificates could not be fetched from %s: %s: %s", self._url, type(error).__name__, error)
            return
        self._known = found
        self._fetched_at = time.monotonic()
        age = re.search(r"max-age=(\d{1,8})", answer.headers.get("cache-control", ""))
        self._good_until = self._fetched_at + min(max(float(age[1]) if age else 3600.0, 60.0), KEPT_SECONDS)


def _list(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(one for part in environ.get(name, "").split(",") if (one := part.strip()))


def _bearer(request: Request, header: str) -> str:
    """The token, if there is one and no more than one."""
    values = request.headers.getlist(header)
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _reason(error: Exception) -> str:
    """In our words: the library's own quote the token."""
    text = str(error)
    if type(error) is ValueError:
        return text
    if "xpired" in text or "too early" in text:
        return "it is not valid at this time"
    if "audience" in text:
        return _OTHER_AUDIENCE
    return "it is malformed, or its signature is wrong"


def _unproven(why: str) -> HttpProblem:
    return HttpProblem(
        401,
        f"the identity token is refused: {why}",
        kind="invalid-identity",
        headers={"WWW-Authenticate": 'Bearer realm="tinyworkflow", error="invalid_token"'},
    )
