"""Webhooks over HTTP. The part `hooks`: guarded by the sender's signature and by nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from starlette.requests import Request
from typing_extensions import TypedDict

from ..app import App
from ..errors import ConfigurationError
from .answers import Json
from .bodies import lower_headers, read
from .deliveries import deliver, failed
from .operations import Operation, Raw
from .problems import HttpProblem
from .views import Links, links_of, run_path
from .webhooks import Reply, Verified, Webhook, Webhooks


class HookAnswer(TypedDict):
    """What became of an event: the run that it started or signalled, or nothing ("ignored")."""

    status: Literal["accepted", "ignored"]
    run_id: NotRequired[str]
    links: NotRequired[Links]


class HookRoutes:
    """The endpoint, for one App."""

    def __init__(self, app: App, webhooks: Webhooks, max_body_bytes: int) -> None:
        self._app = app
        self._webhooks = webhooks
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """The one there is. Open: nothing happens before the signature is known to be right."""
        return [
            Operation(
                method="POST",
                path="/hooks/{name}",
                endpoint=self.receive,
                summary="Take in an event that a declared sender has signed",
                scope=None,
                body=Raw,
                answers={200: Any, 202: HookAnswer},
                problems=(401, 403, 415),
            )
        ]

    async def receive(self, request: Request) -> Json:
        """Take an event in, and start or signal what its webhook says: once, however often it is delivered."""
        name = request.path_params["name"]
        webhook = self._webhooks.find(name)
        if webhook is None:
            raise HttpProblem(404, f"no webhook {name!r} is declared here", kind="unknown-webhook")
        event = await _verified(webhook, lower_headers(request), await read(request, self._limit))
        if isinstance(event, Reply):
            return Json(event.content)
        done = await deliver(self._app, webhook, event)
        content: HookAnswer = {"status": done.status}
        if done.run_id is None:
            return Json(content, status_code=202)
        content |= {"run_id": done.run_id, "links": links_of(request, done.run_id)}
        return Json(content, status_code=202, headers={"Location": run_path(request, done.run_id)})


async def _verified(webhook: Webhook, headers: Mapping[str, str], body: bytes) -> Verified:
    try:
        event = webhook.verify(headers, body)
        return await event if inspect.isawaitable(event) else event
    except (HttpProblem, ConfigurationError):
        raise
    except Exception as error:
        raise failed(f"the verifier of webhook {webhook.name!r}", error) from None
