"""Proof of a sender: the secrets of an environment variable, signatures compared with them, times that are fresh.

No error here repeats a secret, a signature or a body.
"""

from __future__ import annotations

import hmac
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from ...clock import Clock, Duration, SystemClock, seconds, timestamp
from ...errors import DefinitionError
from ..bodies import parse_json
from ..problems import HttpProblem
from ..webhooks import Reply, WebhookEvent

TOLERANCE_SECONDS = 300.0
"""How far a sender's clock may be from ours, and how old a request may be, unless told otherwise."""
MAX_ID_CHARACTERS = 255

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_SIGNATURES = 20
"""Of one request so many are looked at: senders that change their secret send two."""


class Verifier(ABC):
    """One scheme. Calling it checks the sender and reads the event."""

    def __call__(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | Reply:
        self.check(headers, body)
        return self.event(headers, body)

    @abstractmethod
    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Returns for a sender who knows the secret. Raises a 401 for one who does not, a 503 without a secret."""

    @abstractmethod
    def event(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | Reply:
        """What a sender who has been checked has sent. Raises a 400 or a 415 for what cannot be read."""


class Secrets:
    """The secrets in the environment variable `variable`, separated by commas: any of them fits, so that a new one can
    be added before the old one is taken away. Read at every request; spaces around them do not count, and an empty one
    is none."""

    def __init__(self, variable: str, argument: str = "secret_env") -> None:
        if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
            raise DefinitionError(
                f"{argument}= takes the NAME of an environment variable, made of letters, digits and _, "
                "never the value itself"
            )
        self.variable = variable

    def all(self) -> list[str]:
        """At least one. Raises a 503 when there is none: an empty key would let everybody sign."""
        found = [one for part in os.environ.get(self.variable, "").split(",") if (one := part.strip())]
        if not found:
            raise self.unusable("is not set")
        return found

    def unusable(self, why: str) -> HttpProblem:
        """The 503 that says what is wrong with the variable."""
        return HttpProblem(503, f"this webhook is not configured: {self.variable} {why}", kind="not-configured")


def expect(sent: Iterable[str], secrets: Iterable[str], sign: Callable[[str], str], missing: str) -> None:
    """Return when one of the signatures that were sent is what one of the secrets makes; else raise a 401 that says
    `missing`. All are compared, in constant time: how long this takes tells nothing about which came close."""
    candidates = [one.encode("latin-1", "replace") for one in list(sent)[:_MAX_SIGNATURES]]
    fitting = 0
    for secret in secrets:
        expected = sign(secret).encode()
        fitting += sum(hmac.compare_digest(one, expected) for one in candidates)
    if not fitting:
        raise HttpProblem(401, missing, kind="bad-signature")


class Freshness:
    """Refuses requests that were signed too long ago, or too far in the future."""

    def __init__(self, tolerance: Duration | None, clock: Clock | None) -> None:
        self._seconds = TOLERANCE_SECONDS if tolerance is None else seconds(tolerance)
        if not self._seconds:
            raise DefinitionError("tolerance= is more than 0 seconds: no two clocks agree")
        self._clock = clock or SystemClock()

    def check(self, sent: str, where: str) -> None:
        """`sent` are the Unix seconds that the sender has signed. Raises a 401 unless they are near to now."""
        if not sent.isascii() or not sent.isdigit() or len(sent) > 12:
            raise HttpProblem(401, f"{where} is missing or no time in seconds", kind="bad-signature")
        late = timestamp(self._clock.now()) - int(sent)
        if abs(late) > self._seconds:
            allowed = timedelta(seconds=self._seconds)
            what = f"is more than {allowed} {'old' if late > 0 else 'ahead of the clock here'}"
            raise HttpProblem(401, f"{where} {what}: send the request again, signed anew", kind="stale-signature")


def json_of(headers: Mapping[str, str], body: bytes, advice: str) -> Any:
    """The body as JSON data. Raises a 415 with the advice for another content type, a 400 for what is not JSON."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise HttpProblem(415, advice, kind="not-json")
    return parse_json(body)


def delivery_id(value: object, where: str) -> str:
    """The value as a delivery's id. Raises a 400 for one that is none."""
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS:
        raise HttpProblem(
            400, f"{where} must be there, with 1 to {MAX_ID_CHARACTERS} characters", kind="invalid-header"
        )
    return value


def field_of(body: Any, path: str) -> Any:
    """The value at a dotted path of JSON objects; None when it is not there."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def text_of(value: object) -> str:
    """The value when it is text, else no text."""
    return value if isinstance(value, str) else ""
