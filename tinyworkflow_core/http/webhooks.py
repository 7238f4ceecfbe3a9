"""Webhooks, as code declares them: who may call, and what an event starts. How they are served is in `hooks.py`.

A verifier looks at the raw body before anything parses it, and gives the event that the request stands for. Without its
secret in the environment it refuses everything.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DefinitionError, DuplicateDefinitionError
from ..registry import WorkflowDefinition
from .bodies import parse_json
from .problems import HttpProblem

_declared: weakref.WeakSet[Webhook] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookEvent:
    """Something that a known sender says has happened. `id` is the delivery's: the same when it is sent again."""

    type: str
    id: str
    headers: Mapping[str, str]
    """By lower-cased name."""
    body: Any
    """The parsed JSON."""


@dataclass(frozen=True, slots=True)
class Start:
    """What an event starts. The same delivery starts it once."""

    workflow: str | WorkflowDefinition[Any]
    input_data: Any = None
    workflow_id: str | None = None
    attributes: Mapping[str, Any] | None = None


Verify = Callable[[Mapping[str, str], bytes], WebhookEvent]
"""(headers by lower-cased name, raw body) -> the event. Raises HttpProblem: 401 for a sender who proves nothing."""

Handle = Callable[[WebhookEvent], Start | Awaitable[Start | None] | None]


@dataclass(frozen=True, eq=False)
class Webhook:
    """One declared webhook. Calling it calls the plain function."""

    name: str
    verify: Verify
    handle: Handle

    def __post_init__(self) -> None:
        _declared.add(self)

    def __call__(self, event: WebhookEvent) -> Start | Awaitable[Start | None] | None:
        return self.handle(event)


def webhook(name: str, *, verify: Verify) -> Callable[[Handle], Webhook]:
    """Declare what POST /hooks/{name} does: the function gets the event and returns a Start, or None to ignore it.

    It may be async. Raises DefinitionError for a name that does not fit into a path.
    """
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise DefinitionError(f"the name of a webhook is letters, digits, - and _, not {name!r}")
    return lambda handle: Webhook(name=name, verify=verify, handle=handle)


class Webhooks:
    """Finds webhooks by name. Without arguments it knows all that this process has declared, now and later."""

    def __init__(self, given: Iterable[Webhook] | None = None) -> None:
        self._given = None if given is None else list(given)
        for one in self._given or ():
            self.find(one.name)

    def find(self, name: str) -> Webhook | None:
        """The webhook of that name. Raises DuplicateDefinitionError when two functions claim it."""
        found = [one for one in (_declared if self._given is None else self._given) if one.name == name]
        places = {f"{one.handle.__module__}.{one.handle.__qualname__}" for one in found}
        if len(places) > 1:
            raise DuplicateDefinitionError(f"the webhook {name!r} is declared by {' and by '.join(sorted(places))}")
        return found[0] if found else None


def github_signature(*, secret_env: str) -> Verify:
    """Senders that sign as GitHub does: X-Hub-Signature-256 is an HMAC-SHA256 of the raw body under a shared secret.

    The secret is read from the environment variable `secret_env` at every request. The event's type is X-GitHub-Event,
    its id X-GitHub-Delivery; neither is under the signature.
    """

    def verify(headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        expected = "sha256=" + hmac.new(_secret(secret_env), body, hashlib.sha256).hexdigest()
        signature = headers.get("x-hub-signature-256", "")
        if not hmac.compare_digest(signature.encode("latin-1", "replace"), expected.encode()):
            raise HttpProblem(401, "X-Hub-Signature-256 is missing or does not fit the body", kind="bad-signature")
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise HttpProblem(
                415, "choose the content type application/json in the webhook's settings", kind="not-json"
            )
        event_type, delivery = headers.get("x-github-event"), headers.get("x-github-delivery")
        if not event_type or not delivery or len(delivery) > 255:
            raise HttpProblem(400, "X-GitHub-Event and X-GitHub-Delivery must be there", kind="invalid-header")
        return WebhookEvent(type=event_type, id=delivery, headers=headers, body=parse_json(body))

    return verify


def _secret(variable: str) -> bytes:
    secret = os.environ.get(variable, "")
    if not secret.strip():  # an empty key would let everybody sign
        raise HttpProblem(503, f"this webhook is not configured: {variable} is not set", kind="not-configured")
    return secret.encode()
