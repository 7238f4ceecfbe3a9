"""What requests about schedules look like: their bodies and queries, checked before anything looks at them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from ..backfilling import MAX_CONCURRENCY
from ..declaring import MOST_FAILURES
from ..schedule_store import DEFAULT_CONCURRENCY
from .fields import Attributes, Fields, Moment, QueryFields, Text

OverlapText = Literal["skip", "queue", "cancel_other", "allow"]
CatchUpText = Literal["none", "latest", "all"]


class CronRequest(Fields):
    """At the times that a cron line names."""

    cron: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "UTC"


class IntervalRequest(Fields):
    """Every so often from now on."""

    interval: float | str


class OnceRequest(Fields):
    """Once, at that moment."""

    at: Moment


def _kind(value: Any) -> str | None:
    return next((kind for kind in ("cron", "interval", "at") if isinstance(value, dict) and kind in value), None)


TimingRequest = Annotated[
    Annotated[CronRequest, Tag("cron")]
    | Annotated[IntervalRequest, Tag("interval")]
    | Annotated[OnceRequest, Tag("at")],
    Discriminator(
        _kind,
        custom_error_type="no_timing",
        custom_error_message="give one of {cron, timezone?}, {interval} and {at}",
    ),
]


class ScheduleRequest(Fields):
    """POST /v1/schedules."""

    workflow: Text
    timing: TimingRequest
    id: Text | None = None
    """An id; one that exists is changed."""
    input: Any = None
    overlap: OverlapText = "skip"
    catch_up: CatchUpText = "latest"
    catch_up_window: float | str | None = None
    jitter: float | str | None = None
    pause_after_failures: Annotated[int, Field(ge=1, le=MOST_FAILURES)] | None = None
    attributes: Attributes | None = None


class ChangeRequest(Fields):
    """PATCH /v1/schedules/{id}: what is left out stays as it is."""

    timing: TimingRequest | None = None
    """null: as it is."""
    input: Any = None
    overlap: OverlapText | None = None
    """null: as it is."""
    catch_up: CatchUpText | None = None
    """null: as it is."""
    catch_up_window: float | str | None = None
    jitter: float | str | None = None
    pause_after_failures: Annotated[int, Field(ge=1, le=MOST_FAILURES)] | None = None
    attributes: Attributes | None = None


class PauseRequest(Fields):
    """POST /v1/schedules/{id}/pause."""

    note: Annotated[str, StringConstraints(max_length=1000)] | None = None


class BackfillRequest(Fields):
    """POST /v1/schedules/{id}/backfill."""

    start: Moment
    end: Moment
    dry_run: bool = True
    """Only say which times there are."""
    max_concurrency: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)] = DEFAULT_CONCURRENCY


class ScheduleQuery(QueryFields):
    """GET /v1/schedules."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, StringConstraints(max_length=200)] | None = None
