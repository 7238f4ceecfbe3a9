"""ChildHandle: a child run that its parent has started and goes on beside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from .asking import Asking
from .commands import StartChild
from .history import Event
from .step import Step

R = TypeVar("R")


class ChildHandle:
    """A child run. What is left of it when the parent ends is settled by `on_parent_close`."""

    def __init__(
        self, asking: Asking, command: StartChild, step: Callable[[Coroutine[Any, Any, Any]], Step[Any]]
    ) -> None:
        self._asking = asking
        self._command = command
        self._step = step
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[Event] = loop.create_future()
        self._pending = asking.issue(command, self._settle)
        self._pending.on_start = self._note_start

    @property
    def run_id(self) -> str:
        """The child's run_id; another one after a retry of the parent that had to start it anew."""
        return cast("StartChild", self._pending.command).run_id

    def result(self) -> Step[Any]:
        """Wait for the child's result, or raise what it failed with. Cancelling the wait leaves the child alone."""
        return self._step(self._result())

    def signal(self, name: str, payload: Any = None) -> Step[None]:
        """Send the child a signal."""
        return self._step(self._asking.send(self.run_id, name, payload))

    def cancel(self) -> Step[None]:
        """Ask the child to end; `result()` then raises ChildFailedError."""
        return self._step(self._asking.send(self.run_id, None, None))

    async def started(self) -> ChildHandle:
        """Return once the child exists. Raises RunExistsError and what else kept it from starting."""
        try:
            await self._started
        except asyncio.CancelledError:
            self._asking.journal.withdraw(self._command.id)  # it does not exist yet, and nobody would know of it
            raise
        if self._ended.done():
            await self._result()
        return self

    async def _result(self) -> Any:
        return await self._asking.child_result(self._command, await asyncio.shield(self._ended))

    def _note_start(self) -> None:
        if not self._started.done():
            self._started.set_result(None)

    def _settle(self, event: Event | None) -> None:
        if event is not None and not self._ended.done():
            self._ended.set_result(event)
        self._note_start()
