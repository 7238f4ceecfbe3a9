"""The whole service that a browser walks through, for functions-framework."""

from __future__ import annotations

from typing import Any

import functions_framework.aio
from starlette.requests import Request

from tests.browser.workflows import ALL
from tinyworkflow_core import App, create_app

_front = create_app(App.from_env(workflows=ALL), emulate=True)


@functions_framework.aio.http
async def app(request: Request) -> Any:
    """Everything."""
    return _front
