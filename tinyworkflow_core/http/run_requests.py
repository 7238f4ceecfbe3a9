"""What requests about runs, and about what they ask, look like: their bodies and queries, checked before anything looks
at them. Schedules have `schedule_requests.py`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator

from ..clock import seconds
from ..store import Status
from .fields import Attributes, Fields, Moment, QueryFields, Text

MAX_START_DELAY_SECONDS = 10 * 366 * 86400


# --- starting and seeing ----------------------------------------------------------------------------------


class StartRequest(Fields):
    """POST /v1/workflows/{name}/runs."""

    input: Any = None
    run_id: Text | None = None
    workflow_id: Text | None = None
    version: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    start_delay: float | str | None = None
    attributes: Attributes | None = None

    @field_validator("start_delay")
    @classmethod
    def _a_duration(cls, value: float | str | None) -> float | None:
        if value is None:
            return None
        if (delay := seconds(value)) > MAX_START_DELAY_SECONDS:
            raise ValueError("a start may be delayed by ten years at most")
        return delay


class ListQuery(QueryFields):
    """GET /v1/runs."""

    status: Status | None = None
    workflow: str | None = None
    workflow_id: str | None = None
    started_after: Moment | None = None
    started_before: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: str | None = None


class EventsQuery(QueryFields):
    """GET /v1/runs/{id}/events."""

    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


# --- talking and operating --------------------------------------------------------------------------------


class QueryRequest(Fields):
    """POST /v1/runs/{id}/queries/{name}."""

    args: Annotated[list[Any], Field(max_length=100, default_factory=list)]


class Reason(Fields):
    """Why, for the history."""

    reason: Annotated[str, StringConstraints(max_length=1000)] | None = None


class Nothing(Fields):
    """A body without fields."""


class ForkRequest(Fields):
    """POST /v1/runs/{id}/fork."""

    at_event: Annotated[int, Field(ge=1, lt=2**31)]
    """The new run has lived through the first `at_event` events."""
    input: Any = None
    """Its input; null: that of the run it comes from."""


# --- deciding ---------------------------------------------------------------------------------------------


class DecisionRequest(Fields):
    """POST /v1/runs/{id}/approvals/{key}."""

    approved: bool
    by: Text | None = None
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    data: Any = None


class LinkDecisionRequest(Fields):
    """POST /approvals/{token} as JSON. `by` counts only where the link itself does not say who decides."""

    approved: bool
    by: Annotated[str, StringConstraints(max_length=255)] | None = None
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    data: Any = None


class OpenQuery(QueryFields):
    """GET /v1/approvals."""

    approver: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: str | None = None


# --- what the platform calls ------------------------------------------------------------------------------


class AdvanceRequest(Fields):
    """POST /internal/advance."""

    run_id: Text


class ActivityRequest(Fields):
    """POST /internal/activity."""

    run_id: Text
    generation: int
    activity_id: int
    attempt: int
