"""Eager: a task whose first turn is taken at once, and not in the next turn of the event loop.

Most activities and side effects that are quick come to their end in it, so that a step needs one turn of the loop less.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any


def begin(coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task for the coroutine; it may be done already. Raises what the first turn raises of KeyboardInterrupt and
    SystemExit. A loop with a task factory of its own makes it in its way; in Python 3.11, one that does not let itself
    be looked into begins it in the next turn."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is not None:
        return loop.create_task(coro)
    if sys.version_info >= (3, 12):
        return asyncio.Task(coro, loop=loop, eager_start=True)
    ready = getattr(loop, "_ready", None)
    queued = -1 if ready is None else len(ready)
    task = asyncio.Task(coro, loop=loop)
    if ready is None or len(ready) != queued + 1:
        return task
    first_turn = ready.pop()
    begins: object = getattr(first_turn._callback, "__self__", None)
    if begins is not task:  # another thread has called in between
        ready.append(first_turn)
        return task
    this = asyncio.current_task()
    if this is not None:
        asyncio._leave_task(loop, this)
    try:
        first_turn._run()
    finally:
        if this is not None:
            asyncio._enter_task(loop, this)
    return task
