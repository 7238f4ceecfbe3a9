"""A function that does nothing, for first_answer.py: what the platform's server costs by itself."""

from __future__ import annotations

import functions_framework.aio
from starlette.requests import Request


@functions_framework.aio.http
async def empty(request: Request) -> str:
    """Nothing."""
    return "ok"
