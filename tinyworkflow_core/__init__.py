"""TinyWorkflow Core: durable workflows in plain Python on stateless functions. The public names, nothing else.

They are loaded on first use: `import tinyworkflow_core` costs nothing, and a function pays only for what it touches.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activities import ActivityContext, activity_context
    from .advance import AdvanceSettings
    from .app import App
    from .approval_links import approval_link
    from .client import WorkflowClient
    from .embedded import TinyWorkflowClient
    from .encryption import EncryptionCodec
    from .engine.approving import Approval, ApprovalRequest, Vote
    from .engine.batch import BatchResult
    from .engine.children import ChildHandle
    from .engine.context import ScheduleInfo, WorkflowContext
    from .errors import (
        ActivityError,
        ApplicationError,
        ApprovalClosedError,
        ApprovalConflictError,
        ApprovalForbiddenError,
        ApprovalNotFoundError,
        ChildFailedError,
        DefinitionError,
        DeterminismError,
        DeterminismWarning,
        HeartbeatTimeoutError,
        HttpStatusError,
        InvalidInputError,
        NonDeterminismError,
        QueryError,
        RetryAfter,
        RunClosedError,
        RunExistsError,
        RunNotFoundError,
        RunStateError,
        ScheduleChangedError,
        ScheduleNotFoundError,
        StepInterruptedError,
        TinyWorkflowError,
        UnknownWorkflowError,
        UpdateRejectedError,
        WorkflowCancelledError,
        WorkflowFailedError,
    )
    from .exchange import HttpResponse
    from .http.deliveries import on_cloud_event
    from .http.front import create_app
    from .http.signatures import (
        cloud_events,
        github_signature,
        google_identity,
        hmac_signature,
        platform_only,
        slack_signature,
        standard_webhooks,
        stripe_signature,
    )
    from .http.webhooks import Signal, Start, WebhookEvent, webhook
    from .notifications import notify
    from .registry import activity, workflow
    from .retry import RetryPolicy, RetrySchedule
    from .sealing import PayloadCodec
    from .serialization import Codec
    from .timeline import WorkflowEvent, WorkflowExecution, WorkflowStatus

__version__ = "0.2.0.dev0"

_HOMES = {
    "ActivityContext": "activities",
    "ActivityError": "errors",
    "AdvanceSettings": "advance",
    "App": "app",
    "ApplicationError": "errors",
    "Approval": "engine.approving",
    "ApprovalClosedError": "errors",
    "ApprovalConflictError": "errors",
    "ApprovalForbiddenError": "errors",
    "ApprovalNotFoundError": "errors",
    "ApprovalRequest": "engine.approving",
    "BatchResult": "engine.batch",
    "ChildFailedError": "errors",
    "ChildHandle": "engine.children",
    "Codec": "serialization",
    "DefinitionError": "errors",
    "DeterminismError": "errors",
    "DeterminismWarning": "errors",
    "EncryptionCodec": "encryption",
    "HeartbeatTimeoutError": "errors",
    "HttpResponse": "exchange",
    "HttpStatusError": "errors",
    "InvalidInputError": "errors",
    "NonDeterminismError": "errors",
    "PayloadCodec": "sealing",
    "QueryError": "errors",
    "RetryAfter": "errors",
    "RetryPolicy": "retry",
    "RetrySchedule": "retry",
    "RunClosedError": "errors",
    "RunExistsError": "errors",
    "RunNotFoundError": "errors",
    "RunStateError": "errors",
    "ScheduleChangedError": "errors",
    "ScheduleInfo": "engine.context",
    "ScheduleNotFoundError": "errors",
    "Signal": "http.webhooks",
    "Start": "http.webhooks",
    "StepInterruptedError": "errors",
    "TinyWorkflowClient": "embedded",
    "TinyWorkflowError": "errors",
    "UnknownWorkflowError": "errors",
    "UpdateRejectedError": "errors",
    "Vote": "engine.approving",
    "WebhookEvent": "http.webhooks",
    "WorkflowCancelledError": "errors",
    "WorkflowClient": "client",
    "WorkflowContext": "engine.context",
    "WorkflowEvent": "timeline",
    "WorkflowExecution": "timeline",
    "WorkflowFailedError": "errors",
    "WorkflowStatus": "timeline",
    "activity": "registry",
    "activity_context": "activities",
    "approval_link": "approval_links",
    "cloud_events": "http.signatures",
    "create_app": "http.front",
    "github_signature": "http.signatures",
    "google_identity": "http.signatures",
    "hmac_signature": "http.signatures",
    "notify": "notifications",
    "on_cloud_event": "http.deliveries",
    "platform_only": "http.signatures",
    "slack_signature": "http.signatures",
    "standard_webhooks": "http.signatures",
    "stripe_signature": "http.signatures",
    "webhook": "http.webhooks",
    "workflow": "registry",
}

__all__ = [
    "ActivityContext",
    "ActivityError",
    "AdvanceSettings",
    "App",
    "ApplicationError",
    "Approval",
    "ApprovalClosedError",
    "ApprovalConflictError",
    "ApprovalForbiddenError",
    "ApprovalNotFoundError",
    "ApprovalRequest",
    "BatchResult",
    "ChildFailedError",
    "ChildHandle",
    "Codec",
    "DefinitionError",
    "DeterminismError",
    "DeterminismWarning",
    "EncryptionCodec",
    "HeartbeatTimeoutError",
    "HttpResponse",
    "HttpStatusError",
    "InvalidInputError",
    "NonDeterminismError",
    "PayloadCodec",
    "QueryError",
    "RetryAfter",
    "RetryPolicy",
    "RetrySchedule",
    "RunClosedError",
    "RunExistsError",
    "RunNotFoundError",
    "RunStateError",
    "ScheduleChangedError",
    "ScheduleInfo",
    "ScheduleNotFoundError",
    "Signal",
    "Start",
    "StepInterruptedError",
    "TinyWorkflowClient",
    "TinyWorkflowError",
    "UnknownWorkflowError",
    "UpdateRejectedError",
    "Vote",
    "WebhookEvent",
    "WorkflowCancelledError",
    "WorkflowClient",
    "WorkflowContext",
    "WorkflowEvent",
    "WorkflowExecution",
    "WorkflowFailedError",
    "WorkflowStatus",
    "activity",
    "activity_context",
    "approval_link",
    "cloud_events",
    "create_app",
    "github_signature",
    "google_identity",
    "hmac_signature",
    "notify",
    "on_cloud_event",
    "platform_only",
    "slack_signature",
    "standard_webhooks",
    "stripe_signature",
    "webhook",
    "workflow",
]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
