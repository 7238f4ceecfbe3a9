"""Every error of the library, in one tree. Standard library only.

`TinyWorkflowError` is what a caller catches. Three classes are deliberately outside of it and derive from
BaseException: `Suspended` and `LeaseLost` end a call without ending the run, `ContinueAsNew` ends a generation, so a
user's `except Exception` inside workflow code must not swallow them. `DeterminismWarning` is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable
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


class DeterminismError(DefinitionError):
    """A workflow's code would not do the same on every replay. `findings` are those of lint.py, in order."""

    def __init__(self, message: str, findings: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class DeterminismWarning(UserWarning):
    """What DeterminismError says, of a workflow that is declared with lint="warn"."""


class UnknownWorkflowError(TinyWorkflowError):
    """No workflow of that name (or version) is registered here."""


class InvalidInputError(TinyWorkflowError):
    """The input does not fit the workflow's annotation, or what was decided does not fit the question. `errors` lists
    `{"loc", "msg", "type"}` per field."""

    def __init__(self, message: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.errors)  # the message alone does not make it again


# --- values --------------------------------------------------------------------------------------


class SerializationError(TinyWorkflowError):
    """A value cannot be stored, or a stored value cannot be read; the message says which part and why."""


class PayloadTooLargeError(SerializationError):
    """An encoded value is larger than one history document may hold."""


# --- runs, as callers see them -------------------------------------------------------------------


class RunError(TinyWorkflowError):
    """Something about one run. `run_id` names it."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.run_id)  # the message alone does not make it again


class RunNotFoundError(RunError):
    """There is no run of that id."""


class RunClosedError(RunError):
    """The run has ended: it takes no messages any more."""


class RunStateError(RunError):
    """The run is not in a state in which that can be done to it."""


class RunExistsError(RunError):
    """That run_id is taken by another start."""


class IdempotencyConflictError(RunError):
    """The same idempotency key was used before with another request."""


class WorkflowFailedError(RunError):
    """A run that was waited for did not complete. The cause is in `__cause__` where it could be rebuilt."""


class WorkflowCancelledError(WorkflowFailedError):
    """A run that was waited for was cancelled."""


class UpdateRejectedError(RunError):
    """The run did not take the update: its validator, or the run's end, refused it. Nothing of it is recorded."""


class QueryError(TinyWorkflowError):
    """A query cannot be answered: nobody answers to that name, or its handler asks for more than an answer."""


class ApprovalNotFoundError(RunError):
    """The run has never asked for that approval."""


class ApprovalConflictError(RunError):
    """That approval is already decided the other way."""


class ApprovalForbiddenError(RunError):
    """That person is none of those who may decide the approval."""


class ApprovalClosedError(RunError):
    """That approval can no longer be decided: it expired, was withdrawn, or the run has ended."""


class LinkInvalidError(TinyWorkflowError):
    """A signed link was not made with one of this service's keys, or was altered."""


class LinkExpiredError(TinyWorkflowError):
    """A signed link is genuine, and its time is over."""


# --- schedules -----------------------------------------------------------------------------------


class ScheduleNotFoundError(TinyWorkflowError):
    """There is no schedule (or no backfill of it) of that id."""


class ScheduleChangedError(TinyWorkflowError):
    """The schedule is no longer in the state that the caller has seen: nothing was changed."""


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


class HttpStatusError(ApplicationError):
    """A service answered a request with a status that is no success.

    `url` is without its query; `details` is the beginning of the body.
    """

    def __init__(self, status: int, url: str, *, details: Any = None, retryable: bool = False) -> None:
        url = url.partition("#")[0].partition("?")[0]
        super().__init__(f"{url} answered {status}", type="HttpStatusError", details=details, retryable=retryable)
        self.status = status
        self.url = url

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.status, self.url)  # the message alone does not make it again


class HttpBusyError(RetryAfter):
    """A service answered a request with 429 or 5xx and said when to come again."""

    def __init__(self, status: int, url: str, delay: float, details: Any = None) -> None:
        self.status = status
        self.url = url.partition("#")[0].partition("?")[0]
        self.details = details
        super().__init__(delay, f"{self.url} answered {status} and asks for {delay:g} s of patience")

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.status, self.url, self.delay, self.details)


class HeartbeatTimeoutError(TinyWorkflowError, TimeoutError):
    """An activity gave no sign of life for longer than its heartbeat_timeout."""


class StepInterruptedError(TinyWorkflowError):
    """An at-most-once step was begun and nobody knows how it ended; it is not begun again. The message names it."""


class ChildFailedError(TinyWorkflowError):
    """A child run failed with an exception that cannot be rebuilt here, was ended by force or could not be started.

    `type` is the short name of the child's own error, where it had one.
    """

    def __init__(self, message: str, run_id: str, type: str = "ChildFailedError") -> None:
        super().__init__(message)
        self.message = message
        self.run_id = run_id
        self.type = type

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.message, self.run_id, self.type)  # the message alone does not make it again


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


class ScheduleDamagedError(StoreError):
    """The stored schedule of that id cannot be read; it can be deleted and made anew."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached just now. Trying again later may help; nothing is lost."""


# --- control flow: not for `except Exception` ----------------------------------------------------


class LeaseLost(BaseException):
    """Somebody else holds the run now: what this holder asked the store to write was refused, whole."""


class ContinueAsNew(BaseException):
    """Ends this generation of the run; the next one begins with `input_data`. Raised by `ctx.continue_as_new`."""

    def __init__(self, input_data: Any = None) -> None:
        super().__init__("the run continues as new")
        self.input_data = input_data


class Suspended(BaseException):
    """Workflow code tried to go on after its execution was put away."""
