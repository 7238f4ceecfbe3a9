"""Approval links: signed links by which a person decides one question, without an account and for a limited time.

A link holds the question, until when it may be used and (best) for whom it is; the signature makes it a capability:
whoever has it may decide as that person. Nothing of it is stored, so it is as good after a deployment as before.
Signing is itsdangerous', with a salt of this purpose: a token that was made for anything else is no link.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer

from .activities import activity_context
from .clock import Clock, Duration, SystemClock, moment, seconds, timestamp
from .engine.approving import ApprovalRequest
from .errors import ConfigurationError, LinkExpiredError, LinkInvalidError
from .records import dataclass

KEYS, URL = "TINYWORKFLOW_LINK_KEYS", "TINYWORKFLOW_PUBLIC_URL"
MIN_KEY_LENGTH = 32
EXPIRES_IN: Duration = "7d"
"""How long a link may be used unless told otherwise; never longer than the question is open."""

_SALT = "tinyworkflow/approval-link/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkClaims:
    """What a link says. Without `generation` and `approval_id` it is for whatever the run asks under `key`."""

    run_id: str
    key: str
    expires_at: datetime
    generation: int | None = None
    approval_id: int | None = None
    by: str | None = None
    """Who decides with it; None: whoever has it says who they are."""

    @property
    def question(self) -> tuple[int, int] | None:
        """The very question, when the link names it."""
        return None if self.generation is None or self.approval_id is None else (self.generation, self.approval_id)


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """The keys (the first one signs, every one verifies) and where the approvals part is reached from outside. Raises
    ConfigurationError for a key that is too short and for a URL that does not fit."""

    keys: tuple[str, ...] = ()
    public_url: str | None = None

    def __post_init__(self) -> None:
        for number, key in enumerate(self.keys, 1):
            if len(key) < MIN_KEY_LENGTH:
                raise ConfigurationError(
                    f"{KEYS}: key {number} has {len(key)} characters; at least {MIN_KEY_LENGTH} are needed, such as "
                    'those of `python -c "import secrets; print(secrets.token_urlsafe(32))"`'
                )
        if self.public_url is not None:
            _check_url(self.public_url)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> LinkSettings:
        """By TINYWORKFLOW_LINK_KEYS (comma-separated) and TINYWORKFLOW_PUBLIC_URL."""
        keys = tuple(key for part in environ.get(KEYS, "").split(",") if (key := part.strip()))
        return cls(keys=keys, public_url=environ.get(URL, "").strip().rstrip("/") or None)

    def __repr__(self) -> str:
        return f"LinkSettings({len(self.keys)} keys, public_url={self.public_url!r})"

    def sign(self, claims: LinkClaims, *, now: datetime) -> str:
        """The token of a link. Raises ConfigurationError when there is no key."""
        if not self.keys:
            raise ConfigurationError(f"{KEYS} is not set: no approval link can be made or read")
        token = self._serializer(now).dumps(
            {
                "r": claims.run_id,
                "k": claims.key,
                "e": timestamp(claims.expires_at),
                "g": claims.generation,
                "i": claims.approval_id,
                "b": claims.by,
            }
        )
        return token if isinstance(token, str) else token.decode()

    def read(self, token: str, *, now: datetime) -> LinkClaims:
        """What the link says. Raises ConfigurationError without a key, LinkInvalidError and LinkExpiredError."""
        if not self.keys:
            raise ConfigurationError(f"{KEYS} is not set: no approval link can be made or read")
        try:
            told: dict[str, Any] = self._serializer(now).loads(token)
            claims = LinkClaims(
                run_id=told["r"],
                key=told["k"],
                expires_at=moment(told["e"]),
                generation=told["g"],
                approval_id=told["i"],
                by=told["b"],
            )
        except (BadData, KeyError, TypeError, ValueError):
            raise LinkInvalidError("this link is not genuine: it was altered, cut off, or made elsewhere") from None
        if claims.expires_at <= now:
            raise LinkExpiredError(f"this link could be used until {claims.expires_at:%Y-%m-%d %H:%M} UTC")
        return claims

    def _serializer(self, now: datetime) -> URLSafeTimedSerializer:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:  # else it would ask the machine for the time
                return int(timestamp(now))

        # itsdangerous signs with the last of its keys.
        return URLSafeTimedSerializer(
            list(reversed(self.keys)), salt=_SALT, signer=Signer, signer_kwargs={"digest_method": hashlib.sha256}
        )


def approval_link(
    asked: ApprovalRequest | str,
    key: str | None = None,
    *,
    by: str | None = None,
    expires_in: Duration | None = None,
    clock: Clock | None = None,
    settings: LinkSettings | None = None,
) -> str:
    """The absolute URL of the page on which `asked` is decided.

    - asked: what a `notify` activity was given; or a run_id, with the question's `key`.
    - by: for whom it is: the page and the history then know who decides, whatever they say. Make one for each person.
    - expires_in: EXPIRES_IN unless given; a link never outlasts its question.
    - clock: the activity's inside one, else the machine's. settings: by the environment.

    Raises ConfigurationError when keys or the public URL are not set, ValueError for a `by` who may not decide.
    """
    settings = settings or LinkSettings.from_env()
    if settings.public_url is None:
        raise ConfigurationError(
            f"{URL} is not set: say where people reach this service, as https://approve.example.org"
        )
    now = (clock or _clock()).now()
    expires_at = now + timedelta(seconds=seconds(EXPIRES_IN if expires_in is None else expires_in))
    if isinstance(asked, str):
        if not key:
            raise ValueError("approval_link takes what a notify activity was given, or a run_id and the approval's key")
        claims = LinkClaims(run_id=asked, key=key, expires_at=expires_at, by=by)
    else:
        if by is not None and asked.approvers and by not in asked.approvers:
            raise ValueError(f"{by!r} may not decide approval {asked.key!r}: the link would never work")
        claims = LinkClaims(
            run_id=asked.run_id,
            key=asked.key,
            expires_at=min(expires_at, asked.expires_at or expires_at),
            generation=asked.generation,
            approval_id=asked.approval_id,
            by=by,
        )
    return f"{settings.public_url}/approvals/{settings.sign(claims, now=now)}"


def _clock() -> Clock:
    try:
        return activity_context().clock
    except ConfigurationError:
        return SystemClock()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
        raise ConfigurationError(f"{URL}: {url!r} does not fit; it is like https://approve.example.org")
    if parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigurationError(f"{URL}: {url!r} would carry links in the clear; use https (http only for localhost)")
