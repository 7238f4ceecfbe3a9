"""Runs over HTTP: starting and seeing them. The part `api`; talking.py and operating.py have the rest of it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..app import App
from ..errors import InvalidInputError, RunNotFoundError, SerializationError, StoreUnavailableError, WorkflowFailedError
from ..store import Run, RunQuery, Status
from .answers import Json
from .bodies import header_of, query_fields, read_fields
from .callers import caller_of, looks_at_caller
from .definition_views import workflow_views
from .operations import Operation, Scope
from .preferences import preferred_wait, unless_seen
from .problems import RETRY_SECONDS
from .shown import Showing
from .views import (
    EventPage,
    RunPage,
    RunView,
    Started,
    WorkflowList,
    links_of,
    run_path,
    run_summary,
    run_view,
)

REST_SECONDS = 10
"""What somebody who polls a run that waits for the world is told to wait."""

_BUSY = (Status.PENDING, Status.RUNNING, Status.RETRYING)


class RunRoutes:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            Operation(
                method="GET",
                path="/v1/workflows",
                endpoint=self.workflows,
                summary="What can be started here",
                scope=Scope.START,
                answers={200: WorkflowList},
            ),
            Operation(
                method="POST",
                path="/v1/workflows/{name}/runs",
                endpoint=self.start,
                summary="Start a run",
                scope=Scope.START,
                body="run_requests.StartRequest",
                answers={200: RunView, 202: Started},
                headers={
                    "Idempotency-Key": "The same key and request give the same run.",
                    "Prefer": "wait=N: hold the answer for up to N seconds.",
                },
                problems=(409,),
            ),
            Operation(
                method="GET",
                path="/v1/runs",
                endpoint=self.runs,
                summary="A page of runs, newest first",
                scope=Scope.READ,
                query="run_requests.ListQuery",
                answers={200: RunPage},
            ),
            Operation(
                method="GET",
                path="/v1/runs/{run_id}",
                endpoint=self.run,
                summary="One run: 202 while it is open, 200 when it has ended",
                scope=Scope.READ,
                answers={200: RunView, 202: RunView, 304: None},
                headers={"If-None-Match": "The ETag of an earlier answer: 304 when nothing has changed."},
            ),
            Operation(
                method="GET",
                path="/v1/runs/{run_id}/events",
                endpoint=self.events,
                summary="A page of a run's history, oldest first",
                scope=Scope.READ,
                query="run_requests.EventsQuery",
                answers={200: EventPage, 304: None},
                headers={"If-None-Match": "The ETag of an earlier answer: 304 when nothing has changed."},
            ),
        ]

    # --- starting -----------------------------------------------------------------------------

    @looks_at_caller
    async def workflows(self, request: Request) -> Json:
        """What can be started here, with the JSON schema of each input (null: anything)."""
        reached = [one for one in self._app.registry.workflows() if caller_of(request).reaches(one.name)]
        content: WorkflowList = {"workflows": workflow_views(reached)}
        return Json(content)

    async def start(self, request: Request) -> Json:
        """Start a run; with `Prefer: wait=N` wait for its end. Once the run exists the answer names it."""
        from .run_requests import StartRequest

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
        wait = preferred_wait(request)
        run = await self._look(run_id, wait) if wait or key is not None else None
        headers = {"Location": run_path(request, run_id)}
        if wait:
            headers["Preference-Applied"] = f"wait={wait}"
        if wait and run is not None and run.status.closed:
            return Json(run_view(request, run, Showing(request, self._app).of(run.name)), headers=headers)
        status = Status.PENDING if run is None else run.status
        headers["Retry-After"] = str(RETRY_SECONDS)
        content: Started = {"run_id": run_id, "status": status.value, "links": links_of(request, run_id)}
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

    @looks_at_caller
    async def runs(self, request: Request) -> Json:
        """A page of runs, newest first. To a caller who is limited to some workflows pages may be short."""
        showing, caller = Showing(request, self._app), caller_of(request)
        try:
            page = await self._app.store.list(_run_query(request, caller.only_workflow))
        except ValueError as error:
            raise InvalidInputError(f"cursor: {error}") from None
        runs = [run_summary(request, one, showing.of(one.name)) for one in page.items if caller.reaches(one.name)]
        content: RunPage = {"runs": runs, "next_cursor": page.next_cursor}
        return Json(content)

    async def run(self, request: Request) -> Response:
        """One run: 202 while it is open, 200 once it has ended."""
        run_id = request.path_params["run_id"]
        run = await self._app.store.get(run_id)
        if run is None:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        view = run_view(request, run, Showing(request, self._app).of(run.name))
        if run.status.closed:
            return unless_seen(request, Json(view))
        again = RETRY_SECONDS if run.status in _BUSY else REST_SECONDS
        return unless_seen(request, Json(view, status_code=202, headers={"Retry-After": str(again)}))

    async def events(self, request: Request) -> Response:
        """A page of a run's history, oldest first; the next one begins after `next_after` (null: there is no more)."""
        from .run_requests import EventsQuery

        asked = query_fields(request, EventsQuery)
        run_id = request.path_params["run_id"]
        state = await self._app.store.load(run_id)
        if state is None:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        end = asked.after + asked.limit
        page = state.history[asked.after : end]
        shown = Showing(request, self._app).of(state.run.name)
        events = [shown.event(number, one) for number, one in enumerate(page, start=asked.after + 1)]
        content: EventPage = {
            "run_id": run_id,
            "events": events,
            "next_after": end if len(state.history) > end else None,
        }
        return unless_seen(request, Json(content))


def _run_query(request: Request, only_workflow: str | None) -> RunQuery:
    """Which runs are asked for."""
    if not request.query_params:  # nothing to check: a process whose first request this is does without a checker
        return RunQuery(name=only_workflow)
    from .run_requests import ListQuery

    asked = query_fields(request, ListQuery)
    return RunQuery(
        status=asked.status,
        name=asked.workflow or only_workflow,
        workflow_id=asked.workflow_id,
        started_after=asked.started_after,
        started_before=asked.started_before,
        limit=asked.limit,
        cursor=asked.cursor,
    )
