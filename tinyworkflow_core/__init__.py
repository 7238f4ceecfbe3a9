"""TinyWorkflow Core: durable workflows in plain Python on stateless functions. The public names, nothing else.

They are loaded on first use: `import tinyworkflow_core` costs nothing, and a function pays only for what it touches.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activities import ActivityContext, activity_context
    from .advance import AdvanceSettings
    from .app import App, TinyWorkflowClient
    from .client import WorkflowClient, WorkflowExecution
    from .engine.context import Approval, WorkflowContext
    from .errors import (
        ActivityError,
        ApplicationError,
        NonDeterminismError,
        RetryAfter,
        RunClosedError,
        RunNotFoundError,
        TinyWorkflowError,
        WorkflowFailedError,
    )
    from .http import create_app
    from .http.webhooks import Start, WebhookEvent, github_signature, webhook
    from .registry import activity, workflow
    from .retry import RetryPolicy

__version__ = "0.2.0.dev0"

_HOMES = {
    "ActivityContext": "activities",
    "ActivityError": "errors",
    "AdvanceSettings": "advance",
    "App": "app",
    "ApplicationError": "errors",
    "Approval": "engine.context",
    "NonDeterminismError": "errors",
    "RetryAfter": "errors",
    "RetryPolicy": "retry",
    "RunClosedError": "errors",
    "RunNotFoundError": "errors",
    "Start": "http.webhooks",
    "TinyWorkflowClient": "app",
    "TinyWorkflowError": "errors",
    "WebhookEvent": "http.webhooks",
    "WorkflowClient": "client",
    "WorkflowContext": "engine.context",
    "WorkflowExecution": "client",
    "WorkflowFailedError": "errors",
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
    "NonDeterminismError",
    "RetryAfter",
    "RetryPolicy",
    "RunClosedError",
    "RunNotFoundError",
    "Start",
    "TinyWorkflowClient",
    "TinyWorkflowError",
    "WebhookEvent",
    "WorkflowClient",
    "WorkflowContext",
    "WorkflowExecution",
    "WorkflowFailedError",
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
