"""The dashboard over the showcase, as a function. What is there stays as it was made: this process works on nothing."""

from __future__ import annotations

from typing import Any

import functions_framework.aio
from starlette.requests import Request

from tests.showcase.workflows import ALL
from tinyworkflow_core import App, create_app

_core = App.from_env(workflows=ALL, dispatcher="none")
_front = create_app(_core, parts=("ui", "approvals", "api"), emulate=not _core.api_keys)


@functions_framework.aio.http
async def app(request: Request) -> Any:
    """The pages."""
    return _front
