"""Views: runs and approvals as JSON data, and the types of that data. Values are shown plainly, without the classes
that they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, Protocol
from urllib.parse import quote

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from ..store import CastVote, OpenApproval, Run
from .shown import Shown

StatusText = Literal[
    "pending", "running", "waiting", "paused", "retrying", "suspended", "parked",
    "completed", "failed", "cancelled", "terminated",
]  # fmt: skip

Links = dict[str, str]
"""Name -> path, below the server's root."""


class Times(TypedDict):
    """When a run was made, first taken in hand, and ended; ISO 8601 with a zone."""

    created: str
    started: str | None
    ended: str | None


class ErrorView(TypedDict):
    """What brought a run down."""

    type: str
    message: str


class ApprovalLinks(TypedDict):
    """Where the run that asks is seen, and where it is answered."""

    run: str
    decide: str


class VoteView(TypedDict):
    """What one person has said to a question that takes several. `way`: link, api, ui, or null (from code)."""

    by: str | None
    approved: bool
    comment: str | None
    at: str
    way: str | None


class ApprovalView(TypedDict):
    """A question that waits for somebody's decision: `quorum` people have to approve, `votes` have been given. From
    `escalates_at` on `escalate_to` may decide as well."""

    run_id: str
    workflow: str
    key: str
    title: str | None
    details: Any
    approvers: list[str]
    form: Any
    requested_at: str
    expires_at: str | None
    quorum: int
    veto: bool
    escalate_to: list[str]
    escalates_at: str | None
    votes: list[VoteView]
    links: ApprovalLinks


class RunSummary(TypedDict):
    """A run as a list shows it: all but its input and output."""

    run_id: str
    workflow_id: str
    workflow: str
    version: int
    status: StatusText
    custom_status: Any
    error: ErrorView | None
    times: Times
    open_approvals: list[ApprovalView]
    retry_count: int
    parent_run_id: str | None
    attributes: dict[str, Any]
    links: Links
    problem: NotRequired[str]


class RunView(RunSummary):
    """A run with its input and output."""

    input: Any
    output: Any


class Accepted(TypedDict):
    """What was asked for is stored, and will be done."""

    run_id: str
    links: Links


class Started(Accepted):
    """A run that there is now."""

    status: StatusText


class UpdateAccepted(Accepted):
    """An update that the run has not answered yet: ask again with `update_id` as the Idempotency-Key."""

    update_id: str


class Decided(Accepted):
    """An approval that is decided now."""

    key: str
    approved: bool


class RunPage(TypedDict):
    """A page of runs, newest first. `next_cursor` asks for the next page; null: there is none."""

    runs: list[RunSummary]
    next_cursor: str | None


class EventPage(TypedDict):
    """A page of a run's history, oldest first. The next begins after `next_after`; null: there is none."""

    run_id: str
    events: Sequence[dict[str, Any]]
    next_after: int | None


class WorkflowVersion(TypedDict):
    """One version of a workflow; `input_schema` is a JSON schema (null: any input)."""

    version: int
    input_schema: dict[str, Any] | None


class WorkflowView(TypedDict):
    """A workflow that can be started here."""

    name: str
    versions: list[WorkflowVersion]


class WorkflowList(TypedDict):
    """All that can be started here."""

    workflows: list[WorkflowView]


class ApprovalList(TypedDict):
    """About `limit` open approvals, those of the newest runs first. `next_cursor` asks for the next page, which may be
    empty and not the last; null: there is none."""

    approvals: list[ApprovalView]
    next_cursor: str | None


class Value(TypedDict):
    """What a run's own code has answered."""

    value: Any


class Mounted(Protocol):
    """What links are made from: a request, or whatever else says where the front is mounted."""

    @property
    def scope(self) -> Mapping[str, Any]:
        """As ASGI has it; `root_path` is looked at."""
        ...


def links_of(request: Mounted, run_id: str) -> Links:
    """Where a run can be seen and reached."""
    run = run_path(request, run_id)
    return {"self": run, "events": f"{run}/events", "signals": f"{run}/signals/{{name}}", "cancel": f"{run}/cancel"}


def run_path(request: Mounted, run_id: str) -> str:
    """The path of a run, below whatever this app is mounted at."""
    return f"{request.scope.get('root_path', '')}/v1/runs/{quote(run_id, safe=':@+=~')}"


def run_summary(request: Mounted, run: Run, codec: Shown) -> RunSummary:
    """A run as a list shows it: all but its input and output."""
    view: RunSummary = {
        "run_id": run.run_id,
        "workflow_id": run.workflow_id,
        "workflow": run.name,
        "version": run.version,
        "status": run.status.value,
        "custom_status": _plain(run.custom_status, codec),
        "error": _error(run, codec),
        "times": {
            "created": run.created_at.isoformat(),
            "started": _text(run.started_at),
            "ended": _text(run.closed_at),
        },
        "open_approvals": [approval_view(request, run, one, codec) for one in run.open_approvals],
        "retry_count": run.retry_count,
        "parent_run_id": run.parent_run_id,
        "attributes": codec.attributes(run.attributes),
        "links": links_of(request, run.run_id),
    }
    if run.problem is not None:
        view["problem"] = run.problem
    return view


def run_view(request: Mounted, run: Run, codec: Shown) -> RunView:
    """A run with its input and output."""
    return {**run_summary(request, run, codec), "input": codec.plain(run.input), "output": _plain(run.output, codec)}


def approval_view(request: Mounted, run: Run, approval: OpenApproval, codec: Shown) -> ApprovalView:
    """An open approval, and where to decide it."""
    path = run_path(request, run.run_id)
    return {
        "run_id": run.run_id,
        "workflow": run.name,
        "key": approval.key,
        "title": codec.plain_text(approval.title),
        "details": _plain(approval.details, codec),
        "approvers": list(approval.approvers),
        "form": codec.schema(approval.form),
        "requested_at": approval.requested_at.isoformat(),
        "expires_at": _text(approval.expires_at),
        "quorum": approval.quorum,
        "veto": approval.veto,
        "escalate_to": list(approval.escalate_to),
        "escalates_at": _text(approval.escalates_at),
        "votes": [_vote(one, codec) for one in approval.votes],
        "links": {"run": path, "decide": f"{path}/approvals/{quote(approval.key, safe='')}"},
    }


def _vote(vote: CastVote, codec: Shown) -> VoteView:
    return {
        "by": vote.by,
        "approved": vote.approved,
        "comment": codec.plain_text(vote.comment),
        "at": vote.at.isoformat(),
        "way": vote.way,
    }


def _error(run: Run, codec: Shown) -> ErrorView | None:
    if run.error is None:
        return None
    error = codec.opened(run.error)
    return {"type": error.type, "message": error.message}


def _plain(text: str | None, codec: Shown) -> Any:
    return None if text is None else codec.plain(text)


def _text(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()
