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
    from .client import WorkflowClient
    from .embedded import TinyWorkflowClient
    from .encryption import EncryptionCodec
    from .engine.batch import BatchResult
    from .engine.children import ChildHandle
    from .engine.context import Approval, WorkflowContext
    from .errors import (
        ActivityError,
        ApplicationError,
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
        StepInterruptedError,
        TinyWorkflowError,
        UnknownWorkflowError,
        UpdateRejectedError,
        WorkflowCancelledError,
        WorkflowFailedError,
    )
    from .exchange import HttpResponse
    from .http import create_app
    from .http.webhooks import Start, WebhookEvent, github_signature, webhook
    from .registry import activity, workflow
    from .retry import RetryPolicy
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
    "Approval": "engine.context",
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
    "RunClosedError": "errors",
    "RunExistsError": "errors",
    "RunNotFoundError": "errors",
    "RunStateError": "errors",
    "Start": "http.webhooks",
    "StepInterruptedError": "errors",
    "TinyWorkflowClient": "embedded",
    "TinyWorkflowError": "errors",
    "UnknownWorkflowError": "errors",
    "UpdateRejectedError": "errors",
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
    "create_app": "http",
    "github_signature": "http.webhooks",
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
    "RunClosedError",
    "RunExistsError",
    "RunNotFoundError",
    "RunStateError",
    "Start",
    "StepInterruptedError",
    "TinyWorkflowClient",
    "TinyWorkflowError",
    "UnknownWorkflowError",
    "UpdateRejectedError",
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
    "create_app",
    "github_signature",
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
