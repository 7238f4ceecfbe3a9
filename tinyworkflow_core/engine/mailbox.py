"""Mailbox: signals that have come and those who wait for them, in order. Nothing here is durable; replay rebuilds
it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from ..records import dataclass

Handler = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Letter:
    """One signal: its message id and what it says."""

    message_id: str
    payload: Any


class Mailbox:
    """One run's signals. A signal goes to its handler, else to the longest waiting wait, else it is kept."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, deque[Letter]] = defaultdict(deque)
        self._waits: defaultdict[str, deque[asyncio.Future[Letter]]] = defaultdict(deque)
        self._handlers: dict[str, Handler] = {}

    def receive(self, name: str, letter: Letter) -> Callable[[], Any] | None:
        """A signal has come. Returns the call of its handler when it has one."""
        if handler := self._handlers.get(name):
            return lambda: handler(letter.payload)
        waits = self._waits[name]
        while waits:
            wait = waits.popleft()
            if not wait.done():
                wait.set_result(letter)
                return None
        self._kept[name].append(letter)
        return None

    def handle(self, name: str, handler: Handler) -> list[Callable[[], Any]]:
        """From now on signals of that name go to the handler. Returns the calls for those that came before."""
        self._handlers[name] = handler
        kept, self._kept[name] = self._kept[name], deque()
        return [lambda payload=one.payload: handler(payload) for one in kept]  # type: ignore[misc]  # bound per payload

    def kept(self) -> list[tuple[str, Letter]]:
        """The signals that nobody has taken, first in first out by name."""
        return [(name, letter) for name, letters in self._kept.items() for letter in letters]

    async def wait(self, name: str) -> Any:
        """The payload of the next signal of that name, first in first out."""
        if kept := self._kept[name]:
            return kept.popleft().payload
        wait = asyncio.get_running_loop().create_future()
        self._waits[name].append(wait)
        try:
            return (await wait).payload
        except asyncio.CancelledError:
            # The signal and the cancellation (or timeout) came in the same step: the next wait gets it.
            if wait.done() and not wait.cancelled():
                self._kept[name].appendleft(wait.result())
            raise
        finally:
            if wait in self._waits[name]:
                self._waits[name].remove(wait)
