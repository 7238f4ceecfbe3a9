"""Waiting for something that happens elsewhere: another task, thread or process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[object]], *, seconds: float = 30.0) -> None:
    """Return as soon as `condition()` is true; an AssertionError when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"still not so after {seconds:g} s"
        await asyncio.sleep(0.005)
