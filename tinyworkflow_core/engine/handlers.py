"""Handlers: what workflow code answers with while it waits: signal handlers, queries, updates, and the conditions of
`wait_until`. Nothing here is durable; replay rebuilds it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ContinueAsNew, QueryError
from ..records import dataclass
from ..serialization import Codec, Failure
from .journal import Journal
from .mailbox import Handler, Letter, Mailbox


@dataclass(frozen=True, slots=True)
class Answer:
    """What the handler of an accepted update gave: JSON text, or how it failed."""

    message_id: str
    result: str | None
    error: Failure | None


@dataclass(frozen=True, slots=True)
class _Update:
    fn: Callable[..., Any]
    validator: Callable[..., Any] | None


class Handlers:
    """One run's handlers, and what of them is at work."""

    def __init__(self, journal: Journal, codec: Codec) -> None:
        self.mailbox = Mailbox()
        self.failure: BaseException | None = None
        """What the first signal handler to fail has raised: the run ends by it."""
        self.answers: list[Answer] = []
        """Of updates, not recorded yet."""
        self.unfinished: dict[str, None] = {}
        """Ids of the updates that were accepted and have no answer yet, oldest first."""
        self._journal = journal
        self._codec = codec
        self._queries: dict[str, Callable[..., Any]] = {}
        self._updates: dict[str, _Update] = {}
        self.predicates: list[tuple[Callable[[], Any], asyncio.Future[None]]] = []
        """The conditions that are waited for, longest first."""
        self._tasks: list[asyncio.Task[Any]] = []

    # --- signals ------------------------------------------------------------------------------

    def receive_signal(self, name: str, letter: Letter) -> None:
        """A signal has come."""
        if call := self.mailbox.receive(name, letter):
            self._spawn(self._run_signal_handler(call))

    def on_signal(self, name: str, handler: Handler) -> None:
        """From now on that handler takes signals of that name, also those that are kept."""
        for call in self.mailbox.handle(name, handler):
            self._spawn(self._run_signal_handler(call))

    async def _run_signal_handler(self, call: Callable[[], Any]) -> None:
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
        except ContinueAsNew:
            self.failure = self.failure or _not_here()
        except Exception as error:
            self.failure = self.failure or error

    # --- queries ------------------------------------------------------------------------------

    def on_query(self, name: str, fn: Callable[..., Any]) -> None:
        """Answer queries of that name with what `fn` returns."""
        self._queries[name] = fn

    def query(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer to a query. Raises QueryError, and what the handler raises."""
        if (fn := self._queries.get(name)) is None:
            raise QueryError(f"there is no query {name!r}; this workflow answers: {_listed(self._queries)}")
        with self._looking_only():
            return _at_once(fn(*args, **kwargs), f"query {name!r}")

    # --- updates ------------------------------------------------------------------------------

    def on_update(self, name: str, fn: Callable[..., Any], validator: Callable[..., Any] | None) -> None:
        """Carry out updates of that name with `fn`, after `validator` (where there is one) has raised nothing."""
        self._updates[name] = _Update(fn, validator)

    def validate(self, name: str, payload: Any) -> None:
        """Raises what speaks against the update."""
        if (update := self._updates.get(name)) is None:
            raise QueryError(f"there is no update {name!r}; this workflow takes: {_listed(self._updates)}")
        if update.validator is not None:
            with self._looking_only():
                _at_once(update.validator(payload), f"the validator of update {name!r}")

    def receive_update(self, message_id: str, name: str, payload: Any) -> None:
        """An update was accepted."""
        self.unfinished[message_id] = None
        self._spawn(self._run_update(message_id, name, payload))

    async def _run_update(self, message_id: str, name: str, payload: Any) -> None:
        try:
            if (update := self._updates.get(name)) is None:
                raise QueryError(f"there is no update {name!r} any more")
            result = update.fn(payload)
            if inspect.isawaitable(result):
                result = await result
            answer = Answer(message_id, self._codec.encode(result), None)
        except ContinueAsNew:
            answer = Answer(message_id, None, self._codec.failure(_not_here()))
        except Exception as error:
            answer = Answer(message_id, None, self._codec.failure(error))
        self.answers.append(answer)
        self.unfinished.pop(message_id, None)

    def note_answered(self, message_id: str) -> None:
        """The history holds that answer."""
        self.answers = [one for one in self.answers if one.message_id != message_id]

    # --- conditions ---------------------------------------------------------------------------

    async def until(self, predicate: Callable[[], Any]) -> None:
        """Return when `predicate()` is true."""
        if predicate():
            return
        wake = asyncio.get_running_loop().create_future()
        entry = (predicate, wake)
        self.predicates.append(entry)
        try:
            await wake
        finally:
            if entry in self.predicates:
                self.predicates.remove(entry)

    def ask_predicates(self) -> None:
        """Wake those whose condition has become true, longest waiting first. Runs when everything else is at rest."""
        for predicate, wake in list(self.predicates):
            try:
                if not wake.done() and predicate():
                    wake.set_result(None)
            except Exception as error:
                wake.set_exception(error)

    # --- parts --------------------------------------------------------------------------------

    def _spawn(self, coro: Any) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    @contextmanager
    def _looking_only(self) -> Iterator[None]:
        self._journal.read_only = True
        try:
            yield
        finally:
            self._journal.read_only = False


def _at_once(value: Any, what: str) -> Any:
    if inspect.isawaitable(value):
        if isinstance(value, Coroutine):
            value.close()
        raise QueryError(f"{what} is answered at once: make it a plain function, not an async one")
    return value


def _not_here() -> RuntimeError:
    return RuntimeError("continue_as_new is called in the workflow function itself, not in a handler")


def _listed(names: dict[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
