"""Every error of the library, in one tree. Standard library only.

`TinyWorkflowError` is what a caller catches. Two classes are deliberately outside of it and derive from
BaseException: `Suspended` and `LeaseLost` end a call without ending the run, so a user's
`except Exception` inside workflow code must not swallow them.
"""

from __future__ import annotations

from typing import Any


class TinyWorkflowError(Exception):
    """Base of all errors that this library raises on purpose."""


# --- definitions and configuration -------------------------------------------------------------


class ConfigurationError(TinyWorkflowError):
    """A setting is missing, malformed or not supported here; the message names it and the way out."""


class DefinitionError(TinyWorkflowError):
    """A workflow or an activity is declared in a way that cannot work."""


class DuplicateDefinitionError(DefinitionError):
    """The same (name, version) is registered from two different places."""


class UnknownWorkflowError(TinyWorkflowError):
    """No workflow of that name (or version) is registered here."""


class InvalidInputError(TinyWorkflowError):
    """The input does not fit the workflow's annotation. `errors` lists `{"loc", "msg", "type"}` per field."""

    def __init__(self, message: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []


# --- values --------------------------------------------------------------------------------------


class SerializationError(TinyWorkflowError):
    """A value cannot be stored, or a stored value cannot be read; the message says which part and why."""


class PayloadTooLargeError(SerializationError):
    """An encoded value is larger than one history document may hold."""


# --- runs, as callers see them -------------------------------------------------------------------


class RunError(TinyWorkflowError):
    """Something about one run. `run_id` names it."""

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunNotFoundError(RunError):
    """There is no run of that id."""


class RunClosedError(RunError):
    """The run has ended: it takes no messages any more."""


class RunExistsError(RunError):
    """That run_id is taken by another start."""


class IdempotencyConflictError(RunError):
    """The same idempotency key was used before with another request."""


class WorkflowFailedError(RunError):
    """A run that was waited for did not complete. The cause is in `__cause__` where it could be rebuilt."""


class WorkflowCancelledError(WorkflowFailedError):
    """A run that was waited for was cancelled."""


class ApprovalNotFoundError(RunError):
    """The run has never asked for that approval."""


class ApprovalConflictError(RunError):
    """That approval is already decided the other way."""


class ApprovalClosedError(RunError):
    """That approval can no longer be decided: it expired, was withdrawn, or the run has ended."""


# --- what workflow code may see ------------------------------------------------------------------


class ActivityError(TinyWorkflowError):
    """An activity failed with an exception whose Python type could not be rebuilt here."""

    def __init__(self, message: str, *, type: str = "ActivityError", details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.details = details


class ApplicationError(TinyWorkflowError):
    """Raised by user code: carries a type name and details through the store; not retried unless it says so."""

    def __init__(
        self, message: str, *, type: str = "ApplicationError", details: Any = None, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.details = details
        self.retryable = retryable


class RetryAfter(TinyWorkflowError):
    """Raised by an activity: fail this attempt and try again after `delay` seconds, whatever the policy's delay."""

    def __init__(self, delay: float, message: str = "") -> None:
        super().__init__(message or f"retry after {delay} s")
        self.delay = delay

    def __reduce__(self) -> tuple[type[RetryAfter], tuple[float, str]]:
        return type(self), (self.delay, str(self))  # the arguments that make it again: the message alone does not


class TakeoverLimitError(TinyWorkflowError):
    """The function died too often in a row while it held this run; the run is failed so that it harms no others."""


class NotInWorkflowError(TinyWorkflowError):
    """Workflow code asked asyncio for something that cannot be replayed; the message says what to use instead."""


class NonDeterminismError(TinyWorkflowError):
    """The code does not ask for what its history records. Parks the run; never fails it.

    `step` is the command's position, `recorded` and `asked` describe both sides, `where` is the code's
    file:line (where it waits, or is defined, when it asked for nothing).
    """

    def __init__(self, *, step: int, recorded: str, asked: str, where: str = "") -> None:
        self.step, self.recorded, self.asked, self.where = step, recorded, asked, where
        at = f" at {where}" if where else ""
        super().__init__(
            f"step {step}: the history records {recorded}, but the code asks for {asked}{at}. "
            "Deploy code that fits the history (or guard the change with a new version) and the run goes on."
        )


# --- stores --------------------------------------------------------------------------------------


class StoreError(TinyWorkflowError):
    """The store refused or broke; the driver's error is the cause."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached just now. Trying again later may help; nothing is lost."""


# --- control flow: not for `except Exception` ----------------------------------------------------


class LeaseLost(BaseException):
    """Somebody else holds the run now: what this holder asked the store to write was refused, whole."""


class Suspended(BaseException):
    """Workflow code tried to go on after its execution was put away."""
