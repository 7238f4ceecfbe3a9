"""Commands: what workflow code asks for, as frozen records.

A command's `id` is its position: the n-th command of a generation has id n, in every replay. Its `signature` is what
the journal compares with the history; two commands with equal signatures are the same request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..registry import ActivityDefinition

Signature = tuple[str, ...]

LISTED_INPUT_CHARACTERS = 4096
"""Arguments up to this size are kept in the history for people to read; longer ones only as their digest."""


WITHDRAWN = "withdrawn"
"""The message of the cancellation by which a workflow withdraws an activity, in contrast to a call that is cut off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecuteActivity:
    """Run an activity with its retries until it succeeds, fails for good or is withdrawn."""

    id: int
    activity: ActivityDefinition[Any, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    input: str
    """The arguments as JSON text: `[args]` or `[args, kwargs]`."""
    digest: str
    group: int | None = None

    @property
    def signature(self) -> Signature:
        return ("activity", self.activity.name, self.digest)

    def about(self) -> dict[str, Any]:
        """The fields that every event of this activity has."""
        listed = self.input if len(self.input) <= LISTED_INPUT_CHARACTERS else None
        return {"id": self.id, "name": self.activity.name, "digest": self.digest, "input": listed, "group": self.group}


@dataclass(frozen=True, kw_only=True, slots=True)
class StartTimer:
    """Wake the workflow at `due`."""

    id: int
    due: datetime

    @property
    def signature(self) -> Signature:
        return ("timer", self.due.isoformat())


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestApproval:
    """Ask people for a decision."""

    id: int
    key: str
    title: str | None
    details: str | None
    """JSON text."""
    approvers: tuple[str, ...]
    form: str | None
    """JSON schema text of the data that a decision may carry."""
    expires_at: datetime | None

    @property
    def signature(self) -> Signature:
        return ("approval", self.key)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSideEffect:
    """Call `fn` once and remember what it gave."""

    id: int
    fn: Callable[[], Any]

    @property
    def signature(self) -> Signature:
        return ("side effect",)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityAttempt:
    """One try of an activity that is to be made now. `number` counts from 1."""

    run_id: str
    generation: int
    command: ExecuteActivity
    number: int
    first_started_at: datetime | None = None
    """When the first attempt began; None when this is the first."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step, different for any two steps."""
        return f"{self.run_id}/{self.generation}/{self.command.id}"


Command = ExecuteActivity | StartTimer | RequestApproval | RunSideEffect


def describe(signature: Signature) -> str:
    """The signature in words, for an error message."""
    kind, *rest = signature
    if kind == "activity":
        return f"activity {rest[0]!r} with arguments {rest[1]}"
    if kind == "timer":
        return f"a timer due {rest[0]}"
    if kind == "approval":
        return f"approval {rest[0]!r}"
    return f"a {kind}"
