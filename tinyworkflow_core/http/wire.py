"""Wire: what the front and its callers have to agree on: the names and statuses of errors, and how long a request may
wait. The one place that knows which error has which status. No server is needed to read it: the command line does."""

from __future__ import annotations

from ..errors import (
    ApprovalClosedError,
    ApprovalConflictError,
    ApprovalForbiddenError,
    ApprovalNotFoundError,
    IdempotencyConflictError,
    InvalidInputError,
    LinkExpiredError,
    LinkInvalidError,
    NonDeterminismError,
    PayloadTooLargeError,
    QueryError,
    RunClosedError,
    RunExistsError,
    RunNotFoundError,
    RunStateError,
    ScheduleChangedError,
    ScheduleDamagedError,
    ScheduleNotFoundError,
    SerializationError,
    StoreUnavailableError,
    UnknownWorkflowError,
    UpdateRejectedError,
)

MAX_WAIT_SECONDS = 60
"""The longest that `Prefer: wait=N` holds a request."""

STATUS: dict[type[Exception], tuple[int, str]] = {
    ApprovalForbiddenError: (403, "approver-not-allowed"),
    LinkInvalidError: (403, "invalid-link"),
    UnknownWorkflowError: (404, "unknown-workflow"),
    RunNotFoundError: (404, "run-not-found"),
    ApprovalNotFoundError: (404, "approval-not-found"),
    ScheduleNotFoundError: (404, "schedule-not-found"),
    RunExistsError: (409, "run-exists"),
    RunStateError: (409, "run-state"),
    NonDeterminismError: (409, "code-does-not-fit"),
    ScheduleDamagedError: (409, "schedule-damaged"),
    ApprovalConflictError: (409, "approval-conflict"),
    RunClosedError: (410, "run-closed"),
    ApprovalClosedError: (410, "approval-closed"),
    LinkExpiredError: (410, "link-expired"),
    ScheduleChangedError: (412, "schedule-changed"),
    PayloadTooLargeError: (413, "payload-too-large"),
    InvalidInputError: (422, "invalid-input"),
    SerializationError: (422, "not-storable"),
    IdempotencyConflictError: (422, "idempotency-conflict"),
    UpdateRejectedError: (422, "update-rejected"),
    QueryError: (422, "query-failed"),
    StoreUnavailableError: (503, "store-unavailable"),
}
"""Status and name of each error; the nearest class in an error's ancestry counts."""


def error_named(kind: str) -> type[Exception] | None:
    """The library's error that this front tells by that name. None: it has none of that name, or no name for it."""
    return next((cls for cls, (_, name) in STATUS.items() if name == kind), None)
