"""Runs over HTTP: starting them, looking at them, talking to them. The part `api`, without approvals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, StringConstraints, field_validator
from pydantic.errors import PydanticUserError
from starlette.requests import Request
from starlette.routing import Route

from ..app import App
from ..clock import seconds
from ..errors import InvalidInputError, RunNotFoundError, SerializationError, StoreUnavailableError, WorkflowFailedError
from ..registry import WorkflowDefinition
from ..store import Run, RunQuery, Status
from ..timeline import event_view
from .answers import Json
from .auth import Guard
from .bodies import Fields, header_of, query_fields, read_fields, read_json
from .problems import RETRY_SECONDS
from .views import links_of, run_path, run_summary, run_view

MAX_WAIT_SECONDS = 60
"""The longest that `Prefer: wait=N` holds a request."""

MAX_START_DELAY_SECONDS = 10 * 366 * 86400
REST_SECONDS = 10
"""What somebody who polls a run that waits for the world is told to wait."""

_BUSY = (Status.PENDING, Status.RUNNING, Status.RETRYING)
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})(?:$|[,;\s])", re.IGNORECASE)

Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _attribute(value: Any) -> Any:
    match value:
        case bool() | float() if math.isfinite(value):
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case str() if len(value) <= 1000 and value.isprintable():  # a lone surrogate is not
            return value
    raise ValueError("an attribute is a printable text of up to 1000 characters, a number of 64 bits, or a boolean")


Attributes = Annotated[dict[Text, Annotated[Any, AfterValidator(_attribute)]], Field(max_length=50)]


class StartRequest(Fields):
    """POST /v1/workflows/{name}/runs."""

    input: Any = None
    run_id: Text | None = None
    workflow_id: Text | None = None
    version: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    start_delay: float | str | None = None
    attributes: Attributes | None = None

    @field_validator("start_delay")
    @classmethod
    def _a_duration(cls, value: float | str | None) -> float | None:
        if value is None:
            return None
        if (delay := seconds(value)) > MAX_START_DELAY_SECONDS:
            raise ValueError("a start may be delayed by ten years at most")
        return delay


class CancelRequest(Fields):
    """POST /v1/runs/{id}/cancel."""

    reason: Annotated[str, StringConstraints(max_length=1000)] | None = None


class QueryFields(Fields):
    """Parameters of a query string: texts that stand for other types."""

    model_config = ConfigDict(strict=False)


class ListQuery(QueryFields):
    """GET /v1/runs."""

    status: Status | None = None
    workflow: str | None = None
    workflow_id: str | None = None
    started_after: AwareDatetime | None = None
    started_before: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: str | None = None


class EventsQuery(QueryFields):
    """GET /v1/runs/{id}/events."""

    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class RunRoutes:
    """The endpoints, for one App."""

    def __init__(self, app: App, guard: Guard, max_body_bytes: int) -> None:
        self._app = app
        self._guard = guard
        self._limit = max_body_bytes

    def routes(self) -> list[Route]:
        """All of them, guarded."""
        before = self._guard.before
        return [
            Route("/v1/workflows", before(self.workflows), methods=["GET"]),
            Route("/v1/workflows/{name}/runs", before(self.start), methods=["POST"]),
            Route("/v1/runs", before(self.runs), methods=["GET"]),
            Route("/v1/runs/{run_id}", before(self.run), methods=["GET"]),
            Route("/v1/runs/{run_id}/events", before(self.events), methods=["GET"]),
            Route("/v1/runs/{run_id}/signals/{name:path}", before(self.signal), methods=["POST"]),
            Route("/v1/runs/{run_id}/cancel", before(self.cancel), methods=["POST"]),
        ]

    # --- starting -----------------------------------------------------------------------------

    async def workflows(self, request: Request) -> Json:
        """What can be started here, with the JSON schema of each input (null: anything)."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in self._app.registry.workflows():
            found.setdefault(one.name, []).append({"version": one.version, "input_schema": _schema(one)})
        return Json({"workflows": [{"name": name, "versions": versions} for name, versions in found.items()]})

    async def start(self, request: Request) -> Json:
        """Start a run; with `Prefer: wait=N` wait for its end. Once the run exists the answer names it."""
        asked = await read_fields(request, StartRequest, self._limit)
        key = header_of(request, "idempotency-key")
        run_id = await self._app.client.start_workflow(
            request.path_params["name"],
            asked.input,
            asked.workflow_id,
            run_id=asked.run_id,
            idempotency_key=key,
            version=asked.version,
            start_delay=asked.start_delay,
            attributes=asked.attributes,
        )
        wait = _preferred_wait(request)
        run = await self._look(run_id, wait) if wait or key is not None else None
        headers = {"Location": run_path(request, run_id)}
        if wait:
            headers["Preference-Applied"] = f"wait={wait}"
        if wait and run is not None and run.status.closed:
            return Json(run_view(request, run, self._app.codec), headers=headers)
        status = Status.PENDING if run is None else run.status
        headers["Retry-After"] = str(RETRY_SECONDS)
        content = {"run_id": run_id, "status": status.value, "links": links_of(request, run_id)}
        return Json(content, status_code=202, headers=headers)

    async def _look(self, run_id: str, wait: int) -> Run | None:
        """The run, after its end or after so many seconds. None: the store is away, but the run is in it."""
        try:
            if wait:
                try:
                    await self._app.client.get_result(run_id, timeout=wait)
                except (TimeoutError, WorkflowFailedError, SerializationError):
                    pass  # the record says how it ended, and shows a value even when its class is gone
            return await self._app.store.get(run_id)
        except StoreUnavailableError:
            return None

    # --- looking ------------------------------------------------------------------------------

    async def runs(self, request: Request) -> Json:
        """A page of runs, newest first."""
        asked = query_fields(request, ListQuery)
        query = RunQuery(
            status=asked.status,
            name=asked.workflow,
            workflow_id=asked.workflow_id,
            started_after=asked.started_after,
            started_before=asked.started_before,
            limit=asked.limit,
            cursor=asked.cursor,
        )
        try:
            page = await self._app.store.list(query)
        except ValueError as error:
            raise InvalidInputError(f"cursor: {error}") from None
        runs = [run_summary(request, one, self._app.codec) for one in page.items]
        return Json({"runs": runs, "next_cursor": page.next_cursor})

    async def run(self, request: Request) -> Json:
        """One run: 202 while it is open, 200 once it has ended."""
        run_id = request.path_params["run_id"]
        run = await self._app.store.get(run_id)
        if run is None:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        view = run_view(request, run, self._app.codec)
        if run.status.closed:
            return Json(view)
        again = RETRY_SECONDS if run.status in _BUSY else REST_SECONDS
        return Json(view, status_code=202, headers={"Retry-After": str(again)})

    async def events(self, request: Request) -> Json:
        """A page of a run's history, oldest first; the next one begins after `next_after` (null: there is no more)."""
        asked = query_fields(request, EventsQuery)
        run_id = request.path_params["run_id"]
        state = await self._app.store.load(run_id)
        if state is None:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        end = asked.after + asked.limit
        page = state.history[asked.after : end]
        events = [event_view(number, one, self._app.codec) for number, one in enumerate(page, start=asked.after + 1)]
        return Json({"run_id": run_id, "events": events, "next_after": end if len(state.history) > end else None})

    # --- talking ------------------------------------------------------------------------------

    async def signal(self, request: Request) -> Json:
        """Send a signal; the body is its payload."""
        payload = await read_json(request, self._limit)
        run_id = request.path_params["run_id"]
        await self._app.client.send_signal(
            run_id, request.path_params["name"], payload, message_id=_message_id(request)
        )
        return self._accepted(request, run_id)

    async def cancel(self, request: Request) -> Json:
        """Ask the run to end."""
        asked = await read_fields(request, CancelRequest, self._limit)
        run_id = request.path_params["run_id"]
        await self._app.client.cancel_workflow(run_id, asked.reason)
        return self._accepted(request, run_id)

    def _accepted(self, request: Request, run_id: str) -> Json:
        content: Mapping[str, Any] = {"run_id": run_id, "links": links_of(request, run_id)}
        return Json(content, status_code=202, headers={"Location": run_path(request, run_id)})


def _preferred_wait(request: Request) -> int:
    """Seconds by `Prefer: wait=N`, at most MAX_WAIT_SECONDS. 0: none, or one that makes no sense."""
    found = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0


def _message_id(request: Request) -> str | None:
    """What makes this delivery the same as an earlier one."""
    for name in ("idempotency-key", "webhook-id"):
        if (value := header_of(request, name)) is not None:
            return value
    if (event := header_of(request, "ce-id")) is not None:  # an event's id is unique within its source only
        return f"{header_of(request, 'ce-source', most=1000) or ''}#{event}"
    return None


def _schema(definition: WorkflowDefinition[Any]) -> dict[str, Any] | None:
    try:
        return definition.input_schema()
    except PydanticUserError:  # an input type that no JSON schema can describe
        return None
