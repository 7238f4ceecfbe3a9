"""Operations: what this front can be asked for, as data. Routes, guards and the OpenAPI document are all made from it.

An operation says what it takes and answers in the very models that check requests and type the answers, so that the
document cannot say anything else than the code does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..records import dataclass

Endpoint = Callable[[Request], Awaitable[Response]]


class Scope(StrEnum):
    """What a caller may do."""

    START = "start"
    """Start runs and see what can be started."""
    SIGNAL = "signal"
    """Signals and updates."""
    READ = "read"
    """See runs, their histories, approvals and schedules, and ask queries."""
    APPROVE = "approve"
    """Decide what runs ask."""
    OPERATE = "operate"
    """Cancel, terminate, suspend, resume, retry, fork, delete; schedules."""
    PLATFORM = "platform"
    """/internal/*: what a queue and a scheduler call."""
    REVEAL = "reveal"
    """See the fields that a workflow hides. No operation asks for it; it adds to the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    """Starlette's form: `{name}` takes one segment, `{name:path}` the rest."""
    endpoint: Endpoint
    summary: str
    scope: Scope | None
    """What a caller must be allowed to do. None: whoever comes is heard, and the endpoint itself looks at who it is."""
    query: str | None = None
    """The model of the query string, by `module.Class` in this package: it is imported when it is needed."""
    body: Any = None
    """The model of the JSON body in the same way, or Any. None: it has no body. No body stands for the defaults."""
    body_required: bool = False
    answers: Mapping[int, Any] = field(default_factory=dict)
    """Status -> type of the JSON answer; None for one without a body, HTML for a page."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that it knows, and what they mean."""
    problems: tuple[int, ...] = ()
    """Statuses of problems besides those that `documented_problems` adds for all of its kind."""
    described: bool = True
    """False: it is for browsers alone (`ui`), which bring a session and get their problems as pages, and it is not in
    the OpenAPI document."""


class Routes(Protocol):
    """What has operations."""

    def operations(self) -> list[Operation]:
        """All of them."""
        ...


class Html:
    """In `Operation.answers`: a page."""


class Raw:
    """As `Operation.body`: bytes of any kind, which the endpoint reads itself."""


def documented_problems(operation: Operation) -> list[int]:
    """Every status with which it may answer a problem."""
    statuses = {400, 503, *operation.problems}
    statuses |= {401, 403, 429} if operation.scope is not None else set()
    statuses |= {429} if statuses & {401, 403} else set()  # refused too often
    statuses |= {413, 422} if operation.body is not None else set()
    statuses |= {422} if operation.query is not None else set()
    statuses |= {404} if "{" in operation.path else set()
    return sorted(statuses)


def routes_of(operations: Iterable[Operation], before: Callable[[Operation], Endpoint]) -> list[Route]:
    """One route a path, so that a wrong method is told all the right ones. `before` gives the guarded endpoint."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for one in operations:
        methods = by_path.setdefault(one.path, {})
        if one.method in methods:
            raise ValueError(f"{one.method} {one.path} is declared twice")
        methods[one.method] = before(one)
    # `{key:path}` takes whatever follows: longer patterns that end in more come first.
    paths = sorted(by_path, key=lambda path: (":path}" in path, -path.count("/"), path))
    return [Route(path, _by_method(by_path[path]), methods=sorted(by_path[path])) for path in paths]


def _by_method(methods: Mapping[str, Endpoint]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        # A HEAD is asked of the same endpoint as a GET; the server leaves the body out.
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return endpoint
