"""Standard Webhooks, by the standardwebhooks library: the id, the time and the body are signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...clock import Clock, Duration, moment
from ...standard_secrets import signing_key
from ..problems import HttpProblem
from ..webhooks import WebhookEvent
from .proof import Freshness, Secrets, Verifier, delivery_id, expect, json_of, text_of

if TYPE_CHECKING:
    from standardwebhooks.webhooks import Webhook


class StandardWebhooks(Verifier):
    """See `standard_webhooks`."""

    def __init__(self, secret_env: str, tolerance: Duration | None, clock: Clock | None) -> None:
        self._secrets = Secrets(secret_env)
        self._fresh = Freshness(tolerance, clock)

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        # The library's own check asks the machine for the time and stumbles over a header without a comma; its
        # signature is what counts.
        message_id = headers.get("webhook-id", "")
        sent = headers.get("webhook-timestamp", "")
        keys = {secret: self._key(secret) for secret in self._secrets.all()}
        self._fresh.check(sent, "webhook-timestamp")
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise HttpProblem(400, "the body is not UTF-8", kind="not-json") from None
        expect(
            headers.get("webhook-signature", "").split(),
            keys,
            lambda secret: keys[secret].sign(message_id, moment(int(sent)), text),
            "webhook-signature is missing or does not fit webhook-id, webhook-timestamp and the body",
        )

    def event(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        message_id = delivery_id(headers.get("webhook-id"), "webhook-id")
        data = json_of(headers, body, "send the body as application/json")
        kind = text_of(data.get("type")) if isinstance(data, dict) else ""
        return WebhookEvent(type=kind, id=message_id, headers=headers, body=data)

    def _key(self, secret: str) -> Webhook:
        try:
            return signing_key(secret)
        except ValueError:
            raise self._secrets.unusable("holds what is no secret of Standard Webhooks (whsec_ and base64)") from None


def standard_webhooks(
    *, secret_env: str, tolerance: Duration | None = None, clock: Clock | None = None
) -> StandardWebhooks:
    """Senders that sign as Standard Webhooks says (symmetric, v1): webhook-id, webhook-timestamp, webhook-signature.

    - secret_env: the environment variable that holds the secrets (`whsec_...`), separated by commas.
    - tolerance: how old a request may be, and how far ahead of the clock here; five minutes unless given.
    - clock: where now comes from; the machine unless given.

    The event's id is webhook-id, its type the `type` of the body. Needs the extra `webhooks`.
    """
    return StandardWebhooks(secret_env, tolerance, clock)
