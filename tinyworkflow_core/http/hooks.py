"""Webhooks over HTTP. The part `hooks`: guarded by the sender's signature and by nothing else."""

from __future__ import annotations

import inspect

from starlette.requests import Request
from starlette.routing import Route

from ..app import App
from .answers import Json
from .bodies import lower_headers, read
from .problems import HttpProblem
from .views import links_of, run_path
from .webhooks import Webhooks


class HookRoutes:
    """The endpoint, for one App."""

    def __init__(self, app: App, webhooks: Webhooks, max_body_bytes: int) -> None:
        self._app = app
        self._webhooks = webhooks
        self._limit = max_body_bytes

    def routes(self) -> list[Route]:
        """The one there is. Not guarded: nothing happens before the signature is known to be right."""
        return [Route("/hooks/{name}", self.receive, methods=["POST"])]

    async def receive(self, request: Request) -> Json:
        """Take an event in, and start what its webhook says: once, however often it is delivered."""
        name = request.path_params["name"]
        webhook = self._webhooks.find(name)
        if webhook is None:
            raise HttpProblem(404, f"no webhook {name!r} is declared here", kind="unknown-webhook")
        event = webhook.verify(lower_headers(request), await read(request, self._limit))
        start = webhook.handle(event)
        if inspect.isawaitable(start):
            start = await start
        if start is None:
            return Json({"status": "ignored"}, status_code=202)
        run_id = await self._app.client.start_workflow(
            start.workflow,
            start.input_data,
            start.workflow_id,
            attributes=start.attributes,
            idempotency_key=f"{name}/{event.id}",
        )
        content = {"run_id": run_id, "status": "accepted", "links": links_of(request, run_id)}
        return Json(content, status_code=202, headers={"Location": run_path(request, run_id)})
