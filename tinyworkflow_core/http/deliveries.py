"""Deliveries: what becomes of an event once its sender is known, however it came: over HTTP (`hooks.py`) or as a
CloudEvent that the platform hands to a function (`on_cloud_event`).

Nothing that is logged or raised here repeats what the event says.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from ..app import App
from ..errors import DefinitionError, IdempotencyConflictError, InvalidInputError, RunClosedError, RunNotFoundError
from ..records import dataclass
from ..tracebacks import without_words
from .problems import HttpProblem
from .signatures.cloud_events import event_of
from .webhooks import Signal, Start, Webhook, WebhookEvent, Webhooks

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

_log = logging.getLogger("tinyworkflow.webhooks")

_MAX_ID_CHARACTERS = 255
_MAX_RUN_ID_CHARACTERS = 500
"""More than any run_id has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """What an event brought about."""

    status: Literal["accepted", "ignored"]
    run_id: str | None = None


async def deliver(app: App, webhook: Webhook, event: WebhookEvent) -> Delivered:
    """Start or signal what the webhook says: once for each event, by its sender's id and the webhook's name.

    - An event that was delivered before starts nothing, whatever the webhook says today, and names its run.
    - A signal for a run that is not there raises RunNotFoundError: whoever sends may be faster than whoever starts, so
      it is right to send it again.
    - A signal for a run that has ended is ignored: no repetition would help, and a sender that is always refused stops
      sending.

    Raises what starting raises, and an HttpProblem (500) when the webhook's own function fails.
    """
    wanted = await _wanted(webhook, event)
    delivery = f"{webhook.name}/{_short(event.id)}"
    if isinstance(wanted, Start):
        return Delivered(status="accepted", run_id=await _start(app, wanted, delivery))
    if isinstance(wanted, Signal):
        return await _signal(app, wanted, delivery)
    return Delivered(status="ignored")


async def on_cloud_event(app: App, name: str, event: CloudEvent, *, webhooks: Iterable[Webhook] | None = None) -> None:
    """Hand a CloudEvent that the platform delivered (Eventarc, Pub/Sub) to the webhook of that name.

    For a functions-framework target with the signature `cloudevent`. Nobody's signature is checked here: the platform's
    IAM decides who may call the function, so deploy it without public access. Raises whatever kept the event from being
    taken, so that the platform delivers it again; ConfigurationError, DefinitionError for a name that is not declared.
    """
    webhook = Webhooks(webhooks).find(name)
    if webhook is None:
        raise DefinitionError(f"no webhook {name!r} is declared here: import the module that declares it")
    try:
        done = await deliver(app, webhook, event_of(event, {}))
    except InvalidInputError as error:  # functions-framework prints the words of whatever is raised
        kinds = ", ".join(sorted({one["type"] for one in error.errors}))
        raise HttpProblem(422, f"the workflow of webhook {name!r} does not take such an input: {kinds}") from None
    _log.info("webhook %s: %s %s", name, done.status, done.run_id or "")


async def _wanted(webhook: Webhook, event: WebhookEvent) -> Start | Signal | None:
    try:
        return await webhook.wanted(event)
    except (HttpProblem, DefinitionError):
        raise
    except Exception as error:
        raise failed(f"the function of webhook {webhook.name!r}", error) from None


def failed(what: str, error: Exception) -> HttpProblem:
    """The 500 for code of the webhook that failed. The log has where and with which class of error, and not its words:
    they may quote the body."""
    _log.error("%s failed", what, exc_info=without_words(error))
    return HttpProblem(500, "something went wrong inside; the log of this service says what")


async def _start(app: App, start: Start, delivery: str) -> str:
    try:
        return await app.client.start_workflow(
            start.workflow,
            start.input_data,
            start.workflow_id,
            attributes=start.attributes,
            idempotency_key=delivery,
        )
    except IdempotencyConflictError as known:
        # The sender's id decides what is the same event. That the code makes something else of it today, after a
        # deployment say, must neither start it again nor have the sender repeat it for ever.
        _log.warning("webhook event %s was delivered again and now asks for something else; it is ignored", delivery)
        return known.run_id


async def _signal(app: App, signal: Signal, delivery: str) -> Delivered:
    if not 0 < len(signal.run_id) <= _MAX_RUN_ID_CHARACTERS or not signal.run_id.isprintable():
        raise RunNotFoundError("the run_id that the event names is none", run_id=signal.run_id)
    try:
        await app.client.send_signal(signal.run_id, signal.name, signal.payload, message_id=delivery)
    except RunClosedError:
        _log.info("webhook event %s is for run %s, which has ended; it is ignored", delivery, signal.run_id)
        return Delivered(status="ignored", run_id=signal.run_id)
    return Delivered(status="accepted", run_id=signal.run_id)


def _short(identity: str) -> str:
    """The sender's id as a part of keys: what is long, or not printable, by its digest."""
    if len(identity) <= _MAX_ID_CHARACTERS and identity.isprintable():
        return identity
    return "sha256:" + hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()
