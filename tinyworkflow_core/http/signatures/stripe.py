"""Stripe: Stripe-Signature holds the time (t) and HMAC-SHA256 signatures of time and raw body (v1)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from ...clock import Clock, Duration
from ..webhooks import WebhookEvent
from .proof import Freshness, Secrets, Verifier, delivery_id, expect, field_of, json_of, text_of


class StripeSignature(Verifier):
    """See `stripe_signature`."""

    def __init__(self, secret_env: str, tolerance: Duration | None, clock: Clock | None) -> None:
        self._secrets = Secrets(secret_env)
        self._fresh = Freshness(tolerance, clock)

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        parts = [part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")]
        sent = next((value for name, _, value in parts if name == "t"), "")
        secrets = self._secrets.all()
        self._fresh.check(sent, "the t of Stripe-Signature")
        expect(
            [value for name, _, value in parts if name == "v1"],
            secrets,
            lambda secret: hmac.new(secret.encode(), f"{sent}.".encode() + body, hashlib.sha256).hexdigest(),
            "Stripe-Signature does not fit the body",
        )

    def event(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        data = json_of(headers, body, "send the body as application/json")
        identity = delivery_id(field_of(data, "id"), "the id of the event")
        return WebhookEvent(type=text_of(field_of(data, "type")), id=identity, headers=headers, body=data)


def stripe_signature(
    *, secret_env: str, tolerance: Duration | None = None, clock: Clock | None = None
) -> StripeSignature:
    """Senders that sign as Stripe does.

    - secret_env: the environment variable that holds the endpoint's secrets (`whsec_...`), separated by commas.
    - tolerance: how old a request may be, and how far ahead of the clock here; five minutes unless given.
    - clock: where now comes from; the machine unless given.

    The event's id and type are the body's `id` (evt_...) and `type`.
    """
    return StripeSignature(secret_env, tolerance, clock)
