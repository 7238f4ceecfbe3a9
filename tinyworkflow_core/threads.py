"""Threads: where sync activities run, never on the event loop. They come when needed and never hold up a process.

What a call means, how long it may take and what becomes of its outcome is known to activities.py alone.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from .engine.commands import WITHDRAWN

_IDLE_THREAD_SECONDS = 30.0


class Threads:
    """Threads that come when needed, leave when idle, and never hold up the end of the process.

    The pool of concurrent.futures waits at exit for its threads, so one activity that hangs would hang the process.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    async def run(self, fn: Callable[[], Any], *, on_cancel: Callable[[], None]) -> Any:
        """Call `fn` in a thread, in a copy of the current context.

        A thread cannot be stopped. When the call is withdrawn, `on_cancel` tells the function and its end is waited
        for; any other cancellation (timeout, end of the process) leaves the thread to itself.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def call() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = context.run(fn)
            except (StopIteration, GeneratorExit) as stop:  # neither can be passed on through an await
                error = RuntimeError(f"the activity raised {type(stop).__name__}: {stop}")
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(_end, ended, result, error)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        if self._pid != os.getpid():  # a fork copies the marks of idle threads, but not the threads
            self._begin()
        self._calls.put(call)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._work, name="tinyworkflow-activity", daemon=True).start()
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError as cancelled:
            on_cancel()
            if cancelled.args == (WITHDRAWN,):
                await asyncio.wait([ended])
            raise
        finally:
            ended.add_done_callback(_ignore)

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=_IDLE_THREAD_SECONDS)
            except queue.Empty:
                # Whoever counted on this thread has taken its idle mark already: look once more.
                if self._idle.acquire(blocking=False):
                    return
                continue
            call()
            self._idle.release()


def _ignore(future: asyncio.Future[Any]) -> None:
    # The outcome of a call that nobody waits for any more is not worth a warning.
    if not future.cancelled():
        future.exception()


def _end(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
