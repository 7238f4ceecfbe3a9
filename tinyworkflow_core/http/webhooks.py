"""Webhooks, as code declares them: who may call, and what an event starts or signals. Who proves to be a known sender,
and how, is in `signatures/`; what becomes of an event in `deliveries.py`; how they are served in `hooks.py`.

A verifier looks at the raw body before anything parses it, and gives the event that the request stands for. Without its
secret in the environment it refuses everything.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, overload

from ..errors import DefinitionError, DuplicateDefinitionError
from ..records import dataclass
from ..registry import WorkflowDefinition

_declared: weakref.WeakValueDictionary[int, Webhook] = weakref.WeakValueDictionary()
"""What functions declare lives as long as their modules, in the order of declaration."""
_whole: dict[str, Webhook] = {}
"""What is declared without a function, by place: nothing else need hold it."""
_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookEvent:
    """Something that a known sender says has happened. `id` is the delivery's: the same when it is sent again."""

    type: str
    id: str
    headers: Mapping[str, str] = field(repr=False)  # neither they nor the body get into a log by way of the event
    """By lower-cased name."""
    body: Any = field(repr=False)
    """The parsed JSON; of a CloudEvent its data."""
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Of a CloudEvent: its context attributes (source, subject, time and so on); empty for every other scheme."""


@dataclass(frozen=True, slots=True)
class Start:
    """What an event starts. The same delivery starts it once."""

    workflow: str | WorkflowDefinition[Any]
    input_data: Any = None
    workflow_id: str | None = None
    attributes: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """The signal that an event is. The same delivery is heard once."""

    run_id: str
    name: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """In place of an event: the sender asks this address something, and `content` answers it. No code hears of it."""

    content: Any = field(repr=False)


Verified = WebhookEvent | Reply
Verify = Callable[[Mapping[str, str], bytes], Verified | Awaitable[Verified]]
"""(headers by lower-cased name, raw body) -> the event. Raises HttpProblem: 401 for a sender who proves nothing."""

Wanted = Start | Signal | None
Handle = Callable[[WebhookEvent], Wanted | Awaitable[Wanted]]
Pick = Callable[[WebhookEvent], Any]
"""What a function gives besides a `starts=` or a `signals=`: the input, or the run_id."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Webhook:
    """One declared webhook. Calling it calls the plain function."""

    name: str
    verify: Verify
    handle: Pick
    place: str
    """Where it is declared: two places must not claim one name."""
    starts: str | WorkflowDefinition[Any] | None = None
    signals: str | None = None

    def __call__(self, event: WebhookEvent) -> Any:
        return self.handle(event)

    async def wanted(self, event: WebhookEvent) -> Wanted:
        """What the event is to bring about; None: nothing. Raises what the function raises, and DefinitionError when it
        gives what nothing can be made of."""
        value = self.handle(event)
        if inspect.isawaitable(value):
            value = await value
        if value is None or isinstance(value, Start | Signal):
            return value
        if self.starts is not None:
            return Start(self.starts, value)
        if self.signals is not None and isinstance(value, str):
            return Signal(value, self.signals, event.body)
        expected = "a Start, a Signal" if self.signals is None else "a run_id, a Signal"
        raise DefinitionError(
            f"the function of webhook {self.name!r} gives {expected} or None (to ignore the event), "
            f"not {type(value).__name__}"
        )


class WholeWebhook(Webhook):
    """A webhook that needs no function; as a decorator it takes one that says more."""

    @overload
    def __call__(self, event: WebhookEvent) -> Any: ...
    @overload
    def __call__(self, event: Pick) -> Webhook: ...
    def __call__(self, event: WebhookEvent | Pick) -> Any:
        if isinstance(event, WebhookEvent):
            return self.handle(event)
        _whole.pop(self.place, None)
        return _by_function(self.name, self.verify, event, starts=self.starts, signals=self.signals)


@overload
def webhook(name: str, *, verify: Verify) -> Callable[[Handle], Webhook]: ...
@overload
def webhook(name: str, *, verify: Verify, starts: str | WorkflowDefinition[Any]) -> WholeWebhook: ...
@overload
def webhook(name: str, *, verify: Verify, signals: str) -> Callable[[Pick], Webhook]: ...
@overload
def webhook(name: str, *, verify: Verify, signals: tuple[str, Pick]) -> WholeWebhook: ...
def webhook(
    name: str,
    *,
    verify: Verify,
    starts: str | WorkflowDefinition[Any] | None = None,
    signals: str | tuple[str, Pick] | None = None,
) -> Any:
    """Declare what POST /hooks/{name} does with an event of a sender whom `verify` knows.

    - `@webhook("github", verify=...)` on a function: it gets the event and returns a Start, a Signal, or None to ignore
      the event.
    - `hook = webhook("orders", verify=..., starts=fulfil)`, without a function: the event's body is the input. On a
      function, what it returns is the input.
    - `@webhook("paid", verify=..., signals="paid")` on a function: it returns the run_id, and the event's body is the
      payload. `hook = webhook("paid", verify=..., signals=("paid", lambda event: event.body["order"]))` says the same.
    - In each form the function may be async, and return a Start, a Signal or None as well.

    Raises DefinitionError for a name that does not fit into a path, and for both `starts` and `signals`.
    """
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise DefinitionError(f"the name of a webhook is letters, digits, - and _, not {name!r}")
    if not callable(verify):
        raise DefinitionError(f"webhook {name!r}: verify= says who may call, such as github_signature(secret_env=...)")
    if starts is not None and signals is not None:
        raise DefinitionError(f"webhook {name!r}: give starts= or signals=; a function can return either")
    if starts is None and not isinstance(signals, tuple):
        return lambda handle: _by_function(name, verify, handle, signals=signals)
    signal, pick = signals if isinstance(signals, tuple) else (None, lambda event: Start(starts or "", event.body))
    frame = sys._getframe(1)
    place = f"{frame.f_globals.get('__name__')}:{frame.f_lineno}"
    found = WholeWebhook(name=name, verify=verify, handle=pick, place=place, starts=starts, signals=signal)
    _whole[place] = found
    return found


def _by_function(name: str, verify: Verify, handle: Pick, **what: Any) -> Webhook:
    if not callable(handle):
        raise DefinitionError(f"@webhook({name!r}) goes on a function, not on {type(handle).__name__}")
    place = f"{handle.__module__}.{getattr(handle, '__qualname__', type(handle).__qualname__)}"
    found = Webhook(name=name, verify=verify, handle=handle, place=place, **what)
    _declared[next(_numbers)] = found
    return found


class Webhooks:
    """Finds webhooks by name. Without arguments it knows all that this process has declared, now and later."""

    def __init__(self, given: Iterable[Webhook] | None = None) -> None:
        self._given = None if given is None else list(given)
        for one in self._given or ():
            self.find(one.name)

    def find(self, name: str) -> Webhook | None:
        """The webhook of that name. Raises DuplicateDefinitionError when two places claim it."""
        known = [*_declared.values(), *_whole.values()] if self._given is None else self._given
        found = [one for one in known if one.name == name]
        places = {one.place for one in found}
        if len(places) > 1:
            raise DuplicateDefinitionError(f"the webhook {name!r} is declared by {' and by '.join(sorted(places))}")
        return found[-1] if found else None  # the latest: an earlier one is of a module that was since reloaded
