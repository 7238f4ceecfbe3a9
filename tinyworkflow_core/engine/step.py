"""Step: what a context call returns to be awaited, and what workflow code needs around it: cancelling, logging."""

from __future__ import annotations

import asyncio
import collections.abc
import logging
from collections.abc import Coroutine, Generator, MutableMapping
from typing import Any, TypeVar

from .journal import Journal

R = TypeVar("R")


class Step(Coroutine[Any, Any, R]):
    """An awaitable step of a workflow: a coroutine whose hash is its number in the run.

    asyncio.as_completed and user code put awaitables into sets; a plain coroutine's place there depends on its address.
    """

    __slots__ = ("_awaited", "_coro", "_journal", "_number")

    def __init__(self, coro: Coroutine[Any, Any, R], number: int, journal: Journal) -> None:
        self._coro = coro
        self._number = number
        self._journal = journal
        self._awaited = False

    def __hash__(self) -> int:
        return self._number

    def __await__(self) -> Generator[Any, Any, R]:
        self._awaited = True
        return self._coro.__await__()

    def send(self, value: Any) -> Any:
        return self._coro.send(value)

    def throw(self, *args: Any) -> Any:
        return self._coro.throw(*args)

    def close(self) -> None:
        self._coro.close()

    def __del__(self) -> None:
        if self._journal.closed and not self._awaited:  # not forgotten: the run was put away before it came to it
            self._coro.close()


async def cancel_all(tasks: collections.abc.Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait until each has ended, however often the waiting itself is cancelled."""
    left = [one for one in tasks if not one.done()]
    for one in left:
        one.cancel()
    cancelled: asyncio.CancelledError | None = None
    while left := [one for one in left if not one.done()]:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class ReplayLogger(logging.LoggerAdapter[logging.Logger]):
    """Silent while what it would say has been said before."""

    silent = False

    def isEnabledFor(self, level: int) -> bool:
        return not self.silent and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
