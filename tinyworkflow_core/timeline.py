"""Timeline: a run and its events as people see them, and HTTP, and the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from .engine.history import Event, event_to_dict
from .errors import SerializationError, UnknownWorkflowError
from .records import dataclass
from .registry import Registry
from .serialization import Codec, Failure
from .store import OpenApproval, Run, Status

_ENCODED = ("input", "output", "result", "payload", "data", "details", "form", "heartbeat", "custom_status")
_WORDS = ("title", "comment", "reason")

WorkflowStatus = Status
"""The statuses, which are text as well, by the name that callers know."""


class WorkflowEvent(dict[str, Any]):
    """One event as plain data. `event_type`, `event_data` and `timestamp` are what the 0.1 library called its parts."""

    @property
    def event_type(self) -> str:
        """The type in words, such as "activity_completed"."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", str(self["type"])).lower()

    @property
    def event_data(self) -> dict[str, Any]:
        """What the event says, without its number, type and time."""
        return {name: value for name, value in self.items() if name not in ("event_id", "type", "at")}

    @property
    def timestamp(self) -> datetime:
        """When it was recorded."""
        return datetime.fromisoformat(self["at"])


def event_view(number: int, event: Event, codec: Codec) -> WorkflowEvent:
    """One event: `event_id` (from 1), `type`, `at` (ISO text), and its fields with values as plain JSON."""
    data = event_to_dict(event)
    view = WorkflowEvent(event_id=number, type=data.pop("kind"), at=data.pop("at"))
    for name, value in data.items():
        if not isinstance(value, str):
            view[name] = value
        elif name in _ENCODED:
            view[name] = codec.plain(value)
        else:
            view[name] = codec.plain_text(value) if name in _WORDS else value
    if "error" in view:
        error = codec.opened(Failure.from_dict(view["error"]))
        view["error"] = {"type": error.type, "message": error.message}
    return view


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowExecution:
    """One run as callers see it. `output_data` is `{"result": value}` once completed; `status` is text."""

    run_id: str
    workflow_id: str
    workflow_name: str
    version: int
    status: str
    input_data: Any
    output_data: dict[str, Any] | None
    error: str | None
    error_type: str | None
    problem: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    parent_run_id: str | None
    generation: int
    retry_count: int
    max_retries: int
    custom_status: Any
    attributes: Mapping[str, Any]
    open_approvals: tuple[OpenApproval, ...]

    @property
    def approval_required(self) -> str | None:
        """The key of the oldest open approval."""
        return self.open_approvals[0].key if self.open_approvals else None


def run_view(run: Run, registry: Registry, codec: Codec) -> WorkflowExecution:
    """The run as callers see it; values whose classes are gone, or whose key is missing, as plain data."""

    def shown(text: str) -> Any:
        try:
            return codec.decode(text)
        except SerializationError:  # one old run must not take the whole list with it
            return codec.plain(text)

    return WorkflowExecution(
        run_id=run.run_id,
        workflow_id=run.workflow_id,
        workflow_name=run.name,
        version=run.version,
        status=run.status.value,
        input_data=shown(run.input),
        output_data=None if run.output is None else {"result": shown(run.output)},
        error=codec.opened(run.error).message if run.error else None,
        error_type=run.error.type if run.error else None,
        problem=run.problem,
        created_at=run.created_at,
        started_at=run.started_at,
        completed_at=run.closed_at,
        parent_run_id=run.parent_run_id,
        generation=run.generation,
        retry_count=run.retry_count,
        max_retries=_max_retries(run, registry),
        custom_status=None if run.custom_status is None else shown(run.custom_status),
        attributes=run.attributes,
        open_approvals=tuple(replace(one, title=codec.plain_text(one.title)) for one in run.open_approvals),
    )


def _max_retries(run: Run, registry: Registry) -> int:
    try:
        policy = registry.workflow(run.name, run.version).retry_policy
    except UnknownWorkflowError:  # its code is elsewhere
        return 0
    return 0 if policy is None else policy.max_retries
