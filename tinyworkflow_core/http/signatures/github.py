"""GitHub: X-Hub-Signature-256 is an HMAC-SHA256 of the raw body. The event's type and id are not under it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from ..bodies import parse_json
from ..problems import HttpProblem
from ..webhooks import WebhookEvent
from .proof import MAX_ID_CHARACTERS, Secrets, Verifier, expect


class GitHubSignature(Verifier):
    """See `github_signature`."""

    def __init__(self, secret_env: str) -> None:
        self._secrets = Secrets(secret_env)

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        expect(
            [headers.get("x-hub-signature-256", "")],
            self._secrets.all(),
            lambda secret: "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
            "X-Hub-Signature-256 is missing or does not fit the body",
        )

    def event(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise HttpProblem(
                415, "choose the content type application/json in the webhook's settings", kind="not-json"
            )
        event_type, delivery = headers.get("x-github-event"), headers.get("x-github-delivery")
        if not event_type or not delivery or len(delivery) > MAX_ID_CHARACTERS:
            raise HttpProblem(400, "X-GitHub-Event and X-GitHub-Delivery must be there", kind="invalid-header")
        return WebhookEvent(type=event_type, id=delivery, headers=headers, body=parse_json(body))


def github_signature(*, secret_env: str) -> GitHubSignature:
    """Senders that sign as GitHub does: X-Hub-Signature-256 is an HMAC-SHA256 of the raw body under a shared secret.

    The secrets are read from the environment variable `secret_env`, separated by commas, at every request. The event's
    type is X-GitHub-Event, its id X-GitHub-Delivery; neither is under the signature.
    """
    return GitHubSignature(secret_env)
