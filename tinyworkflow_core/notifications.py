"""Notifications: telling somebody else's HTTP service that something has happened, signed by Standard Webhooks.

`notify` is an activity: each attempt is a step's attempt, and the pauses between them are durable. It calls addresses
that others have chosen, so it goes to the public internet only, follows no redirect and keeps nothing of the answer but
the status, and of a refusal a few characters. Requests to services of one's own are `ctx.call_http` (outbound.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from typing_extensions import TypedDict

from .activities import activity_context
from .addresses import EVERYWHERE, Network, addresses_of, allowed_networks
from .clock import SystemClock
from .errors import ApplicationError, HttpBusyError, HttpStatusError
from .exchange import HttpResponse, checked_url, origin
from .outbound import http_client
from .registry import activity
from .retry import RetrySchedule
from .standard_secrets import signing_key

if TYPE_CHECKING:
    import httpx

SCHEDULE = RetrySchedule(delays=("5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h"))
"""The pauses that the specification gives as its example: ten attempts within a bit more than three days."""

ATTEMPT_TIMEOUT_SECONDS = 20.0
EXCERPT_BYTES = 200
"""Of an answer that is no success so much is kept, for people to see why."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EVENT_TYPE = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")
_CLOCK = SystemClock()


class Notified(TypedDict):
    """What a notification comes to once it has been taken: under which id, and with which status of 200 to 299."""

    webhook_id: str
    status: int


@activity(name="tinyworkflow.notify", retry_policy=SCHEDULE, timeout=ATTEMPT_TIMEOUT_SECONDS)
async def notify(
    url: str,
    payload: Any = None,
    *,
    event_type: str,
    secret_env: str,
    occurred_at: datetime | None = None,
    allow_private_addresses: bool = False,
) -> Notified:
    """POST `{"type": event_type, "timestamp": occurred_at, "data": payload}` to `url`, signed by Standard Webhooks.

    - `await ctx.execute_activity(notify, url, {...}, event_type="order.paid", secret_env="PARTNER_SECRET",
      occurred_at=ctx.now())`. The payload is anything that JSON, pydantic or a dataclass can say.
    - webhook-id is the step's idempotency key: all attempts share it, and the receiver tells a repetition by it.
    - secret_env: the NAME of the environment variable with the secrets (`whsec_...`, separated by commas), read where
      the request is sent; every one of them signs, so that a receiver can change over.
    - Anything but 200 to 299 is a failure, redirects too, and tried again by SCHEDULE: at once, then after 5 s, 5 min,
      30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h, give or take a tenth. Retry-After of a 429 or a 503 is obeyed. A 410
      ends it. `notify.options(retry_policy=...)` changes the schedule for a call.
    - The name is resolved once an attempt, all its addresses must be public, and the connection goes to one of those.
      allow_private_addresses=True, or TINYWORKFLOW_ALLOW_PRIVATE_ADDRESSES (true, or networks such as 10.1.0.0/16,
      separated by commas) lets others in. No proxy of the environment is used.

    Raises HttpStatusError, HttpBusyError, ConnectionError and TimeoutError, which are worth another attempt, and
    ApplicationError for what is not: type EndpointGone (410), AddressRefused, MissingCredential, InvalidNotification.
    """
    target = _checked(url, event_type)
    body = _body(event_type, occurred_at, payload)
    webhook_id = _webhook_id(activity_context().idempotency_key)
    headers = {"content-type": "application/json", **_signed(secret_env, webhook_id, body)}
    allowed = EVERYWHERE if allow_private_addresses else allowed_networks()
    answer = await _post(target, body, headers, allowed)
    if answer.ok:
        return {"webhook_id": webhook_id, "status": answer.status}
    raise _failure(answer)


def _checked(url: str, event_type: str) -> str:
    try:
        target = checked_url(url)
    except ValueError as error:
        raise ApplicationError(f"url: {error}", type="InvalidNotification") from None
    if not isinstance(event_type, str) or not _EVENT_TYPE.fullmatch(event_type):
        raise ApplicationError(
            'event_type: write words with full stops between them, such as "order.paid"', type="InvalidNotification"
        )
    return target


def _body(event_type: str, occurred_at: datetime | None, payload: Any) -> bytes:
    from pydantic_core import PydanticSerializationError, to_json

    if occurred_at is not None and occurred_at.tzinfo is None:
        raise ApplicationError("occurred_at: give a time with a zone, such as ctx.now()", type="InvalidNotification")
    message: dict[str, Any] = {"type": event_type}
    if occurred_at is not None:  # never the time of the attempt: what is repeated stays the same
        message["timestamp"] = occurred_at
    message["data"] = payload
    try:
        return to_json(message, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError) as error:
        kind = type(error).__name__
        raise ApplicationError(f"payload: it cannot be written as JSON ({kind})", type="InvalidNotification") from None


def _webhook_id(idempotency_key: str) -> str:
    # A full stop separates the id from what is signed after it, so there must be none in it.
    return quote(idempotency_key, safe="/:@+=~_-").replace(".", "%2E")


def _signed(secret_env: str, webhook_id: str, body: bytes) -> dict[str, str]:
    sent_at = _CLOCK.now()
    text = body.decode()
    signatures = [key.sign(webhook_id, sent_at, text) for key in _keys(secret_env)]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _keys(secret_env: str) -> list[Any]:
    if not isinstance(secret_env, str) or not _VARIABLE.fullmatch(secret_env):
        raise ApplicationError(
            "secret_env: give the NAME of an environment variable. If this was a secret: it now stands in the history; "
            "change it",
            type="MissingCredential",
        )
    secrets = [one for part in os.environ.get(secret_env, "").split(",") if (one := part.strip())]
    if not secrets:
        raise ApplicationError(
            f"the environment variable {secret_env} is not set where this activity runs", type="MissingCredential"
        )
    try:
        return [signing_key(one) for one in secrets]
    except ValueError:
        raise ApplicationError(
            f"the environment variable {secret_env} holds what is no secret of Standard Webhooks (whsec_ and base64)",
            type="MissingCredential",
        ) from None


# --- sending -----------------------------------------------------------------------------------------


async def _post(url: str, body: bytes, headers: Mapping[str, str], allowed: Sequence[Network]) -> HttpResponse:
    """The answer: status, headers and the beginning of the body. Tries one address after the other until one takes the
    connection."""
    import httpx

    place = url.partition("?")[0]
    _, host, port = origin(url)
    addresses = await addresses_of(host, port, allowed=allowed)
    problem = "there is no address"
    async with http_client(trust_env=False) as client:
        for address in addresses:
            try:
                return await _ask(client, url, address, body, headers)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                problem = f"{type(error).__name__}: {error}"
            except httpx.RequestError as error:
                # Not as its cause: whoever reads this history must not need httpx for it.
                raise ConnectionError(f"{place}: {type(error).__name__}: {error}") from None
    raise ConnectionError(f"{place}: {problem}")


async def _ask(
    client: httpx.AsyncClient, url: str, address: str, body: bytes, headers: Mapping[str, str]
) -> HttpResponse:
    import httpx

    parts = urlsplit(url)
    request = client.build_request(
        "POST",
        httpx.URL(url).copy_with(host=address),  # to what was checked, whatever the name stands for by now
        content=body,
        headers={**headers, "host": parts.netloc},
        extensions={"sni_hostname": parts.hostname or ""},  # whose certificate it must be
    )
    answer = await client.send(request, stream=True, follow_redirects=False)
    try:
        kept = bytearray()
        if not answer.is_success:
            async for chunk in answer.aiter_raw():  # as it comes: an answer must not unfold to gigabytes here
                kept += chunk
                if len(kept) >= EXCERPT_BYTES:
                    break
        shown = {name: answer.headers[name] for name in ("retry-after", "date") if name in answer.headers}
        return HttpResponse(status=answer.status_code, headers=shown, body=bytes(kept[:EXCERPT_BYTES]), url=url)
    finally:
        await answer.aclose()


def _failure(answer: HttpResponse) -> Exception:
    if answer.status == 410:
        place = answer.url.partition("?")[0]
        return ApplicationError(f"{place} wants no more notifications (410 Gone)", type="EndpointGone")
    if answer.status in (429, 503) and (delay := answer.retry_after) is not None:
        return HttpBusyError(answer.status, answer.url, delay, answer.excerpt)
    return HttpStatusError(answer.status, answer.url, details=answer.excerpt, retryable=True)
