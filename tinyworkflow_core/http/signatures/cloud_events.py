"""CloudEvents over HTTP, by the cloudevents SDK: binary and structured, one event a request.

CloudEvents say nothing about who sends them: another verifier proves that. What a Pub/Sub message brings along as
base64 is unpacked, here and for the events that the platform delivers itself (`deliveries.on_cloud_event`).
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from ...errors import ConfigurationError, DefinitionError
from ..bodies import parse_json
from ..problems import HttpProblem
from ..webhooks import WebhookEvent
from .proof import Verifier

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

Authenticate = Callable[[Mapping[str, str], bytes], object | Awaitable[object]]
"""A verifier, or any function that raises HttpProblem for a stranger; what it returns does not count."""

PUBSUB_TYPE = "google.cloud.pubsub.topic.v1.messagePublished"

_STRUCTURED = "application/cloudevents+json"


class CloudEvents:
    """See `cloud_events`."""

    def __init__(self, verify: Authenticate) -> None:
        if not callable(verify):
            raise DefinitionError(
                "cloud_events(verify=...) says who may send, such as standard_webhooks(secret_env=...): "
                "a CloudEvent itself proves nothing"
            )
        self._authenticate: Authenticate = verify.check if isinstance(verify, Verifier) else verify

    async def __call__(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        proven = self._authenticate(headers, body)
        if inspect.isawaitable(proven):
            await proven
        return event_of(_parsed(headers, body), headers)


def cloud_events(*, verify: Authenticate) -> CloudEvents:
    """Senders of CloudEvents 1.0, one a request, binary (ce-* headers) or structured (application/cloudevents+json).

    - verify: who may send. A signature of this package, of which the check counts and not how it reads events; or a
      function `(headers, raw body)`, async or not, that raises HttpProblem for a stranger. A signature covers the raw
      body: in binary mode the ce-* headers are not under it, in structured mode everything is.

    The event's id is source and id together, its body the data (JSON, text or bytes), its attributes the context
    attributes. The data of a Pub/Sub message is its payload, unpacked; `attributes["message"]` has the rest of it.
    Batches are refused with a 415. Needs the extra `webhooks`.
    """
    return CloudEvents(verify)


def platform_only(headers: Mapping[str, str], body: bytes) -> NoReturn:
    """`verify=` of a webhook that takes no HTTP requests: its events come by way of `on_cloud_event` alone, in a
    function that the platform guards."""
    raise HttpProblem(403, "this webhook takes events from the platform only, not over HTTP", kind="platform-only")


def event_of(event: CloudEvent, headers: Mapping[str, str]) -> WebhookEvent:
    """The CloudEvent as an event of a webhook. Raises a 400 when it lacks what a CloudEvent must have."""
    attributes = {name: value for name, value in event.get_attributes().items() if value is not None}
    found = [attributes.get(name) for name in ("type", "source", "id")]
    if not all(isinstance(one, str) and one for one in found):
        raise _no_event("type, source and id must be texts that are not empty")
    kind, source, identity = map(str, found)
    data = event.get_data()
    if kind == PUBSUB_TYPE:
        data, attributes["message"] = _unpacked(data)
    return WebhookEvent(type=kind, id=f"{source}#{identity}", headers=headers, body=data, attributes=attributes)


def _parsed(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    try:
        from cloudevents.exceptions import GenericException
        from cloudevents.http import from_http
    except ImportError:
        raise ConfigurationError("CloudEvents need a library: pip install 'tinyworkflow-core[webhooks]'") from None

    content_type = headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == _STRUCTURED:
        if not isinstance(parse_json(body), dict):  # bounds its nesting before the SDK reads it
            raise _no_event("the body must be one JSON object")
        # Were both there, the SDK would take the version from one mode and the rest from the other.
        read = {"content-type": media_type}
    elif media_type.startswith("application/cloudevents"):
        raise HttpProblem(
            415,
            f"{media_type} is not taken: send one event a request, in binary mode or as {_STRUCTURED}",
            kind="not-a-cloud-event",
        )
    elif "ce-specversion" in headers:
        read = {name: value for name, value in headers.items() if name.startswith("ce-")}
        read["content-type"] = content_type
    else:
        raise _no_event(f"there are neither ce-* headers nor the content type {_STRUCTURED}")
    is_json = media_type in ("", _STRUCTURED, "application/json") or media_type.endswith("+json")
    try:
        return from_http(read, body, data_unmarshaller=_json if is_json else _plain)
    except GenericException as error:  # its text quotes the body
        raise _no_event(f"the SDK says {type(error).__name__}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _no_event(f"it cannot be read ({type(error).__name__})") from None


def _json(data: str | bytes) -> Any:
    return parse_json(data.encode() if isinstance(data, str) else data) if data else None


def _plain(data: str | bytes) -> Any:
    try:
        return data.decode() if isinstance(data, bytes) else data
    except UnicodeDecodeError:
        return data


def _unpacked(data: Any) -> tuple[Any, dict[str, Any]]:
    """The payload of a Pub/Sub message, and the rest of the message."""
    message = data.get("message") if isinstance(data, dict) else None
    if not isinstance(message, dict):
        raise _no_event("the data of a Pub/Sub event holds a message")
    rest = {name: value for name, value in message.items() if name != "data"}
    try:
        payload = base64.b64decode(message.get("data") or "", validate=True)
    except (ValueError, TypeError):
        raise _no_event("the data of a Pub/Sub message is base64") from None
    if not payload:
        return None, rest
    try:
        return parse_json(payload), rest
    except HttpProblem:  # a message may be anything
        return _plain(payload), rest


def _no_event(why: str) -> HttpProblem:
    return HttpProblem(400, f"this is no CloudEvent: {why}", kind="not-a-cloud-event")
