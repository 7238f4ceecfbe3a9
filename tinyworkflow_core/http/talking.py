"""Talking to runs over HTTP: signals, queries, updates. The part `api`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request

from ..app import App
from ..clock import fresh_id
from ..errors import InvalidInputError, RunError, UnknownWorkflowError
from .answers import Json
from .bodies import header_of, read_fields, read_json
from .operations import Operation, Scope
from .preferences import message_id, preferred_wait
from .problems import RETRY_SECONDS, HttpProblem, is_known
from .shown import Showing
from .views import Accepted, UpdateAccepted, Value, links_of, run_path

_log = logging.getLogger("tinyworkflow.http")

UPDATE_WAIT_SECONDS = 10
"""How long an update's answer is waited for when the caller does not say."""

T = TypeVar("T")


class TalkingRoutes:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            Operation(
                method="POST",
                path="/v1/runs/{run_id}/signals/{name:path}",
                endpoint=self.signal,
                summary="Send a signal; the body is its payload",
                scope=Scope.SIGNAL,
                body=Any,
                answers={202: Accepted},
                headers={
                    "Idempotency-Key": "The same key is the same signal; webhook-id, or ce-source and ce-id, do too."
                },
                problems=(410,),
            ),
            Operation(
                method="POST",
                path="/v1/runs/{run_id}/queries/{name:path}",
                endpoint=self.query,
                summary="Ask the run's own code; nothing is written",
                scope=Scope.READ,
                body="run_requests.QueryRequest",
                answers={200: Value},
                problems=(409,),
            ),
            Operation(
                method="POST",
                path="/v1/runs/{run_id}/updates/{name:path}",
                endpoint=self.update,
                summary="Have the run do something and wait for what it gives; the body is the payload",
                scope=Scope.SIGNAL,
                body=Any,
                answers={200: Value, 202: UpdateAccepted},
                headers={
                    "Idempotency-Key": "The same key is the same update, and gives the same answer.",
                    "Prefer": f"wait=N: wait up to N seconds for the answer (else {UPDATE_WAIT_SECONDS}).",
                },
                problems=(409, 410),
            ),
        ]

    async def signal(self, request: Request) -> Json:
        """Send a signal; the body is its payload."""
        payload = await read_json(request, self._limit)
        run_id = request.path_params["run_id"]
        await self._app.client.send_signal(run_id, request.path_params["name"], payload, message_id=message_id(request))
        content: Accepted = {"run_id": run_id, "links": links_of(request, run_id)}
        return Json(content, status_code=202, headers={"Location": run_path(request, run_id)})

    async def query(self, request: Request) -> Json:
        """Ask the run's own code."""
        from .run_requests import QueryRequest

        asked = await read_fields(request, QueryRequest, self._limit)
        run_id, name = request.path_params["run_id"], request.path_params["name"]
        value = await _asked("query", name, run_id, lambda: self._app.client.query_workflow(run_id, name, *asked.args))
        return Json(await self._value(request, run_id, value))

    async def update(self, request: Request) -> Json:
        """Have the run do something. Without an answer in time a 202 says under which key to ask again."""
        payload = await read_json(request, self._limit)
        run_id, name = request.path_params["run_id"], request.path_params["name"]
        update_id = header_of(request, "idempotency-key") or fresh_id(32)
        wait = max(preferred_wait(request, default=UPDATE_WAIT_SECONDS), 1)
        client = self._app.client
        late = object()

        async def answer() -> Any:
            try:
                return await client.update_workflow(run_id, name, payload, update_id=update_id, timeout=wait)
            except TimeoutError as error:
                if type(error) is TimeoutError and not error.args:  # the wait's own; a handler's comes with words
                    return late
                raise

        value = await _asked("update", name, run_id, answer)
        if value is not late:
            return Json(await self._value(request, run_id, value))
        content: UpdateAccepted = {"run_id": run_id, "update_id": update_id, "links": links_of(request, run_id)}
        return Json(content, status_code=202, headers={"Retry-After": str(RETRY_SECONDS)})

    async def _value(self, request: Request, run_id: str, value: Any) -> Value:
        run = await self._app.store.get(run_id)
        return {"value": Showing(request, self._app).of("" if run is None else run.name).value(value)}


async def _asked(kind: str, name: str, run_id: str, ask: Callable[[], Awaitable[T]]) -> T:
    """What the run's code answers. What that code raises is the caller's to know: a 422 with its words."""
    try:
        return await ask()
    except (RunError, UnknownWorkflowError, InvalidInputError):
        raise
    except Exception as error:
        if is_known(error):
            raise
        _log.info("%s %r of run %s failed: %s", kind, name, run_id, type(error).__name__)
        detail = f"{kind} {name!r} of run {run_id!r}: {type(error).__name__}: {error}"
        raise HttpProblem(422, detail, kind=f"{kind}-failed", run_id=run_id) from error
