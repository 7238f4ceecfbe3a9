"""Slack's Events API: X-Slack-Signature is an HMAC-SHA256 of version, time and raw body."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from ...clock import Clock, Duration
from ..webhooks import Reply, WebhookEvent
from .proof import Freshness, Secrets, Verifier, delivery_id, expect, field_of, json_of, text_of


class SlackSignature(Verifier):
    """See `slack_signature`."""

    def __init__(self, secret_env: str, tolerance: Duration | None, clock: Clock | None) -> None:
        self._secrets = Secrets(secret_env)
        self._fresh = Freshness(tolerance, clock)

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        sent = headers.get("x-slack-request-timestamp", "")
        secrets = self._secrets.all()
        self._fresh.check(sent, "X-Slack-Request-Timestamp")
        expect(
            [headers.get("x-slack-signature", "")],
            secrets,
            lambda secret: "v0=" + hmac.new(secret.encode(), f"v0:{sent}:".encode() + body, hashlib.sha256).hexdigest(),
            "X-Slack-Signature is missing or does not fit the body",
        )

    def event(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | Reply:
        data = json_of(headers, body, "only Slack's Events API is understood here, which sends application/json")
        if field_of(data, "type") == "url_verification":
            return Reply({"challenge": text_of(field_of(data, "challenge"))})
        kind = text_of(field_of(data, "event.type")) or text_of(field_of(data, "type"))
        identity = delivery_id(field_of(data, "event_id"), "the event_id")
        return WebhookEvent(type=kind, id=identity, headers=headers, body=data)


def slack_signature(
    *, secret_env: str, tolerance: Duration | None = None, clock: Clock | None = None
) -> SlackSignature:
    """Slack's Events API, by the signing secret (v0) of the Slack app.

    - secret_env: the environment variable that holds the signing secrets, separated by commas.
    - tolerance: how old a request may be, and how far ahead of the clock here; five minutes unless given.
    - clock: where now comes from; the machine unless given.

    The event's id is `event_id`, its type the type of the inner event. Slack's question whether this is the right
    address (url_verification) is answered when it is signed; no code hears of it.
    """
    return SlackSignature(secret_env, tolerance, clock)
