"""Problems: every error as application/problem+json (RFC 9457). Which error has which status is in `wire.py`.

What is not in the table is a 500 that says nothing about the inside; the log has the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..tracebacks import told, without_words
from .answers import ProblemJson
from .wire import STATUS

_log = logging.getLogger("tinyworkflow.http")

RETRY_SECONDS = 1
"""What a caller is told to wait before it asks again."""


def status_of(error: Exception) -> int:
    """The status with which this front answers the error."""
    return _problem(error).status


def is_known(error: Exception) -> bool:
    """Whether this front has an answer of its own for the error, other than a 500."""
    return isinstance(error, HttpProblem | HTTPException) or any(cls in STATUS for cls in type(error).__mro__)


class HttpProblem(Exception):
    """An error that only this front has. `kind` names it for programs; without one the status says all."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        run_id: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.run_id = run_id
        self.errors = errors
        self.headers = dict(headers or {})


def answer_to(error: Exception, path: str) -> Response:
    """The error as a response; `path` is what was asked for."""
    problem = _problem(error)
    phrase = HTTPStatus(problem.status).phrase
    content: dict[str, Any] = {
        "type": "about:blank" if problem.kind is None else f"urn:tinyworkflow:problem:{problem.kind}",
        "title": phrase if problem.kind is None else problem.kind.replace("-", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        "instance": quote(path, safe="/:@!$&'()*+,;=~"),
    }
    if problem.run_id is not None:
        content["run_id"] = problem.run_id
    if problem.errors:
        content["errors"] = list(problem.errors)
    return ProblemJson(content, status_code=problem.status, headers=problem.headers)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """For the framework's own errors: an unknown path, a method that a path does not have."""
    return answer_to(error, request.scope["path"])  # its url would be made with whatever Host was sent


def _problem(error: Exception) -> HttpProblem:
    if isinstance(error, HttpProblem):
        return error
    if isinstance(error, HTTPException):
        known = {404: "there is nothing at this path", 405: "this path does not take that method"}
        detail = known.get(error.status_code, error.detail)
        return HttpProblem(error.status_code, detail, headers=error.headers)
    for cls in type(error).__mro__:
        if cls in STATUS:
            status, kind = STATUS[cls]
            return HttpProblem(
                status,
                str(error),
                kind=kind,
                run_id=getattr(error, "run_id", None),
                errors=getattr(error, "errors", ()),
                headers={"Retry-After": str(RETRY_SECONDS)} if status == 503 else None,
            )
    return HttpProblem(500, "something went wrong inside; the log of this service says what")


_LOGGED = frozenset({"run_id"})
"""Parameters of a path that may be in a log. A link's token may not."""


def _place(scope: Scope) -> str:
    """The path for a log: of its parameters only those that are no secret."""
    path: str = scope["path"]
    parameters = scope.get("path_params")
    if parameters is None:  # nothing has looked at it yet
        return f"/{path.split('/')[1]}/..."
    for name, value in parameters.items():
        if name not in _LOGGED and value:
            path = path.replace(str(value), f"{{{name}}}")
    return path


def log(error: Exception, status: int, scope: Scope) -> None:
    """Tell the log of an error that it is for: one of ours, and a store that is away."""
    if status == 500:
        _log.error("%s %s failed", scope["method"], _place(scope), exc_info=without_words(error))
    elif status == 503:
        said = error.detail if isinstance(error, HttpProblem) else told(error)
        _log.warning("%s %s: %s", scope["method"], _place(scope), said)


class Problems:
    """Outermost: turns whatever is raised inside into an answer. Nothing passes on to the server below."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            pass  # nobody is left to be answered
        except Exception as error:
            answer = answer_to(error, scope["path"])
            log(error, answer.status_code, scope)
            if started:
                raise  # half an answer is out: the server has to break the connection
            await answer(scope, receive, send)
