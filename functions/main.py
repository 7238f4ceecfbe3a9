"""The functions, each a target of functions-framework: `api`, `approvals`, `hooks`, `worker`, `tick`, `ui`; and `app`,
all of them in one, for local emulation and for a deployment as one service.

What is imported here is what runs here. Nothing connects at import: the server forks after it.
"""

from __future__ import annotations

import gc

gc.disable()  # what is loaded stays: looking through it again and again is a tenth of a start

import os
from functools import cache
from typing import Any

import functions_framework.aio
from starlette.applications import Starlette
from starlette.requests import Request

import workflows  # noqa: F401  # declares the workflows and webhooks
from tinyworkflow_core import App, create_app
from tinyworkflow_core.http.emulation import is_local, wake_after_fork

_core = App.from_env()
_PARTS = ("api", "approvals", "hooks", "worker", "tick", "ui")


@cache
def _front(part: str) -> Starlette:
    return (
        create_app(_core, emulate=is_local()) if part == "app" else create_app(_core, parts=[part], emulate=is_local())
    )


# The one that is served is made before the fork: what is wrong with the environment stops the start, not a request.
if (_target := os.environ.get("FUNCTION_TARGET")) in (*_PARTS, "app"):
    _front(_target)
if _target == "app":
    wake_after_fork()
gc.enable()
gc.freeze()


@functions_framework.aio.http
async def api(request: Request) -> Any:
    """Starting, seeing and reaching runs."""
    return _front("api")


@functions_framework.aio.http
async def approvals(request: Request) -> Any:
    """Deciding what runs ask."""
    return _front("approvals")


@functions_framework.aio.http
async def hooks(request: Request) -> Any:
    """Webhooks that start runs."""
    return _front("hooks")


@functions_framework.aio.http
async def worker(request: Request) -> Any:
    """Advancing one run; called by a queue."""
    return _front("worker")


@functions_framework.aio.http
async def tick(request: Request) -> Any:
    """Looking for what is due; called by a scheduler."""
    return _front("tick")


@functions_framework.aio.http
async def ui(request: Request) -> Any:
    """The dashboard."""
    return _front("ui")


@functions_framework.aio.http
async def app(request: Request) -> Any:
    """Everything."""
    return _front("app")
