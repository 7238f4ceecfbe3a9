"""Callers: who makes a request, as far as that was proven, and what they may do. Who decides that is in `auth.py`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import field
from functools import cached_property
from typing import Any, Literal, TypeVar

from starlette.requests import Request

from ..records import dataclass
from .operations import Scope
from .problems import HttpProblem
from .rate_limit import Rate

E = TypeVar("E", bound=Callable[..., Awaitable[Any]])

ALL_SCOPES = frozenset(Scope) - {Scope.REVEAL}
"""What `all` stands for: everything but seeing what a workflow hides, which has to be named."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody who calls. `name` is for logs and rate limits; it is no secret."""

    name: str
    kind: Literal["key", "person", "service", "platform", "local", "nobody"]
    """service: a service account. platform: what calls /internal/*. local: on this machine, of a local emulation."""
    scopes: frozenset[Scope] = frozenset()
    workflows: tuple[str, ...] | None = None
    """Patterns of workflow names, with * for any characters; None: all workflows."""
    email: str | None = None
    """Verified."""
    rate: Rate | None = field(default=None, repr=False)

    def may(self, scope: Scope) -> bool:
        """Whether this is allowed to them, for the workflows that they reach."""
        return scope in self.scopes

    def reaches(self, workflow: str) -> bool:
        """Whether they may start this workflow, and see and touch its runs."""
        return self._reach is None or self._reach.fullmatch(workflow) is not None

    @property
    def only_workflow(self) -> str | None:
        """The one workflow that they reach, where it is one and named in full."""
        only = self.workflows[0] if self.workflows is not None and len(self.workflows) == 1 else None
        return None if only is None or "*" in only else only

    @cached_property
    def _reach(self) -> re.Pattern[str] | None:
        if self.workflows is None:
            return None
        patterns = (".*".join(map(re.escape, one.split("*"))) for one in self.workflows)
        return re.compile("|".join(patterns), re.DOTALL)


NOBODY = Caller(name="nobody", kind="nobody")


def caller_of(request: Request) -> Caller:
    """Who makes this request; NOBODY where no guard has looked, as on routes that anybody may call."""
    caller: Caller = getattr(request.state, "caller", NOBODY)
    return caller


def decided_by(request: Request, by: str | None) -> str | None:
    """Whose decision this is: a person's own whose e-mail was verified, else whose the caller says it is.

    Raises a 403 for a person who decides in somebody else's name.
    """
    caller = caller_of(request)
    if caller.kind != "person":
        return by
    if by is not None and by.casefold() != (caller.email or "").casefold():
        raise HttpProblem(403, "you decide in your own name: leave `by` out", kind="not-yourself")
    return caller.email


def looks_at_caller(endpoint: E) -> E:
    """Mark an endpoint that itself shows a caller only what they reach. Callers who are limited to some workflows are
    let in nowhere else, but for what names a run or a workflow in its path."""
    endpoint.looks_at_caller = True  # type: ignore[attr-defined]  # a function takes any attribute
    return endpoint
