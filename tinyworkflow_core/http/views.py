"""Views: runs and approvals as JSON data. Values are shown plainly, without the classes that they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request

from ..serialization import Codec
from ..store import OpenApproval, Run


def links_of(request: Request, run_id: str) -> dict[str, str]:
    """Where a run can be seen and reached."""
    run = run_path(request, run_id)
    return {"self": run, "events": f"{run}/events", "signals": f"{run}/signals/{{name}}", "cancel": f"{run}/cancel"}


def run_path(request: Request, run_id: str) -> str:
    """The path of a run, below whatever this app is mounted at."""
    return f"{request.scope.get('root_path', '')}/v1/runs/{quote(run_id, safe=':@+=~')}"


def run_summary(request: Request, run: Run, codec: Codec) -> dict[str, Any]:
    """A run as a list shows it: all but its input and output."""
    view: dict[str, Any] = {
        "run_id": run.run_id,
        "workflow_id": run.workflow_id,
        "workflow": run.name,
        "version": run.version,
        "status": run.status.value,
        "custom_status": _plain(run.custom_status, codec),
        "error": _error(run, codec),
        "times": {"created": _text(run.created_at), "started": _text(run.started_at), "ended": _text(run.closed_at)},
        "open_approvals": [approval_view(request, run, one, codec) for one in run.open_approvals],
        "retry_count": run.retry_count,
        "parent_run_id": run.parent_run_id,
        "attributes": dict(run.attributes),
        "links": links_of(request, run.run_id),
    }
    if run.problem is not None:
        view["problem"] = run.problem
    return view


def run_view(request: Request, run: Run, codec: Codec) -> dict[str, Any]:
    """A run with its input and output."""
    values = {"input": codec.plain(run.input), "output": _plain(run.output, codec)}
    return run_summary(request, run, codec) | values


def approval_view(request: Request, run: Run, approval: OpenApproval, codec: Codec) -> Mapping[str, Any]:
    """An open approval, and where to decide it."""
    path = run_path(request, run.run_id)
    return {
        "run_id": run.run_id,
        "workflow": run.name,
        "key": approval.key,
        "title": codec.plain_text(approval.title),
        "details": _plain(approval.details, codec),
        "approvers": list(approval.approvers),
        "form": _plain(approval.form, codec),
        "requested_at": _text(approval.requested_at),
        "expires_at": _text(approval.expires_at),
        "links": {"run": path, "decide": f"{path}/approvals/{quote(approval.key, safe='')}"},
    }


def _error(run: Run, codec: Codec) -> dict[str, str] | None:
    if run.error is None:
        return None
    error = codec.opened(run.error)
    return {"type": error.type, "message": error.message}


def _plain(text: str | None, codec: Codec) -> Any:
    return None if text is None else codec.plain(text)


def _text(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()
