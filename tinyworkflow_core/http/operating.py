"""What operators do to runs over HTTP: cancel, terminate, suspend, resume, retry, fork, delete. The part `api`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..app import App
from .answers import Json
from .bodies import header_of, read_fields
from .operations import Endpoint, Operation, Scope
from .views import Accepted, links_of, run_path


class OperatingRoutes:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._client = app.client
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them."""
        again = {"Idempotency-Key": "The same key counts once."}
        return [
            _verb("cancel", self.cancel, "Ask the run to end; its code may clean up", "Reason"),
            _verb("terminate", self.terminate, "End the run by force; its code is not asked", "Reason"),
            _verb("suspend", self.suspend, "Put the run aside until it is resumed", "Reason", headers=again),
            _verb(
                "resume",
                self.resume,
                "Let a suspended run go on; have a parked one tried again",
                "Nothing",
                headers=again,
            ),
            _verb("retry", self.retry, "Have a failed run go on from the point of failure", "Nothing"),
            _verb("fork", self.fork, "Start a new run from the first events of this one", "ForkRequest"),
            Operation(
                method="DELETE",
                path="/v1/runs/{run_id}",
                endpoint=self.delete,
                summary="Forget a run that has ended: record, history and all",
                scope=Scope.OPERATE,
                answers={204: None},
                problems=(409,),
            ),
        ]

    async def cancel(self, request: Request) -> Json:
        """Ask the run to end."""
        from .run_requests import Reason

        asked = await read_fields(request, Reason, self._limit)
        await self._client.cancel_workflow(_run_id(request), asked.reason)
        return _accepted(request, _run_id(request))

    async def terminate(self, request: Request) -> Json:
        """End the run by force."""
        from .run_requests import Reason

        asked = await read_fields(request, Reason, self._limit)
        await self._client.terminate_workflow(_run_id(request), asked.reason)
        return _accepted(request, _run_id(request))

    async def suspend(self, request: Request) -> Json:
        """Put the run aside."""
        from .run_requests import Reason

        asked = await read_fields(request, Reason, self._limit)
        key = header_of(request, "idempotency-key")
        await self._client.suspend_workflow(_run_id(request), asked.reason, message_id=key)
        return _accepted(request, _run_id(request))

    async def resume(self, request: Request) -> Json:
        """Let it go on."""
        from .run_requests import Nothing

        await read_fields(request, Nothing, self._limit)
        await self._client.resume_workflow(_run_id(request), message_id=header_of(request, "idempotency-key"))
        return _accepted(request, _run_id(request))

    async def retry(self, request: Request) -> Json:
        """Have it go on from the point of failure."""
        from .run_requests import Nothing

        await read_fields(request, Nothing, self._limit)
        await self._client.retry_workflow(_run_id(request))
        return _accepted(request, _run_id(request))

    async def fork(self, request: Request) -> Json:
        """Start a new run from its first events; the answer names the new one."""
        from .run_requests import ForkRequest

        asked = await read_fields(request, ForkRequest, self._limit)
        return _accepted(request, await self._client.fork_workflow(_run_id(request), asked.at_event, asked.input))

    async def delete(self, request: Request) -> Response:
        """Forget it."""
        await self._client.delete_workflow(_run_id(request))
        return Response(status_code=204)


def _verb(
    verb: str, endpoint: Endpoint, summary: str, body: str, *, headers: dict[str, str] | None = None
) -> Operation:
    return Operation(
        method="POST",
        path=f"/v1/runs/{{run_id}}/{verb}",
        endpoint=endpoint,
        summary=summary,
        scope=Scope.OPERATE,
        body=f"run_requests.{body}",
        body_required=body == "ForkRequest",
        answers={202: Accepted},
        headers=headers or {},
        problems=(409, 410),
    )


def _run_id(request: Request) -> str:
    run_id: str = request.path_params["run_id"]
    return run_id


def _accepted(request: Request, run_id: str) -> Json:
    content: Accepted = {"run_id": run_id, "links": links_of(request, run_id)}
    return Json(content, status_code=202, headers={"Location": run_path(request, run_id)})
