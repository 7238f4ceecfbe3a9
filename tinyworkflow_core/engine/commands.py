"""Commands: what workflow code asks for, as frozen records.

A command's `id` is its position: the n-th command of a generation has id n, in every replay. Its `signature` is what
the journal compares with the history; two commands with equal signatures are the same request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Literal

from ..records import dataclass
from ..registry import ActivityDefinition
from ..serialization import digest

Signature = tuple[str, ...]
"""Kind, name, and (where there is one) what stands for the arguments."""

ParentClosePolicy = Literal["cancel", "terminate", "abandon"]
"""What becomes of a child that is still open when its parent ends."""

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

    @property
    def goes_out(self) -> bool:
        """Whether it is sent into the world by a commit of its own."""
        return self.activity.at_most_once or self.activity.run_on == "queue"

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
    quorum: int = 1
    """So many have to approve."""
    veto: bool = True
    """Whether one rejection is enough, also with a quorum."""
    escalate_to: tuple[str, ...] = ()
    """Who may decide as well from `escalates_at` on."""
    escalates_at: datetime | None = None

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
class StartChild:
    """Start another run and wait for its end."""

    goes_out: ClassVar[bool] = True

    id: int
    name: str
    input: str
    digest: str
    run_id: str
    on_parent_close: ParentClosePolicy
    waits_for_start: bool
    """Whether the workflow goes on as soon as the child exists."""

    @property
    def signature(self) -> Signature:
        return ("child", self.name, self.digest, self.run_id)

    def about(self) -> dict[str, Any]:
        """The fields that every event of this child has."""
        return {"id": self.id, "name": self.name, "digest": self.digest, "run_id": self.run_id}


@dataclass(frozen=True, kw_only=True, slots=True)
class SendMessage:
    """Send a signal, or (without a name) a cancellation, to another run."""

    goes_out: ClassVar[bool] = True

    id: int
    target: str
    name: str | None
    payload: str
    digest: str

    @property
    def signature(self) -> Signature:
        return ("message", self.name or "", f"{self.target}/{self.digest}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityAttempt:
    """One try of an activity that is to be made now. `number` counts from 1."""

    run_id: str
    generation: int
    command: ExecuteActivity
    number: int
    first_started_at: datetime | None = None
    """When the first attempt began; None when this is the first."""
    heartbeat: str | None = None
    """The last details that an earlier attempt reported, as JSON text."""
    undone: int = 0
    """How often the step had succeeded and was compensated since."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step, different for any two steps; a step that was undone and is done
        anew is another."""
        again = f"/again-{self.undone}" if self.undone else ""
        return f"{self.run_id}/{self.generation}/{self.command.id}{again}"


Command = ExecuteActivity | StartTimer | RequestApproval | RunSideEffect | StartChild | SendMessage


RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=~-]{0,199}")
"""What a run_id may be."""


def child_run_id(parent: str, generation: int, command_id: int, again: int, wanted: str | None) -> str:
    """The id of a child run: the wanted one, or a function of its place in its parent. `again` counts how often a retry
    has made the child of that place void: its id is taken. Raises ValueError for one that does not fit."""
    if wanted is not None and not RUN_ID.fullmatch(wanted):
        raise ValueError(f"run_id: {wanted!r} does not fit; use 1 to 200 letters, digits and . _ : @ + = ~ -")
    made = f"{parent}.{generation}.{command_id}" if wanted is None else wanted
    return _fitting(f"{made}.again-{again}" if again else made)


def restarted(run_id: str, number: int) -> str:
    """The id of a child that is started anew because its parent, which ended before it, was opened again."""
    return _fitting(f"{run_id}.retry-{number}")


def _fitting(made: str) -> str:
    if len(made) <= _LONGEST_RUN_ID:
        return made
    return f"child_{digest(made)}{digest(made[::-1])}"  # as deep as it is nested, it would grow past what a store takes


_LONGEST_RUN_ID = 200


def describe(signature: Signature) -> str:
    """The signature in words, for an error message."""
    kind, *rest = signature
    if kind == "activity":
        return f"activity {rest[0]!r} with arguments {rest[1]}"
    if kind == "timer":
        return f"a timer due {rest[0]}"
    if kind == "approval":
        return f"approval {rest[0]!r}"
    if kind == "child":
        return f"child workflow {rest[0]!r} with input {rest[1]} as run {rest[2]!r}"
    if kind == "message":
        what = f"signal {rest[0]!r}" if rest[0] else "a cancellation"
        return f"{what} to run {rest[1].partition('/')[0]!r}"
    return f"a {kind}"
