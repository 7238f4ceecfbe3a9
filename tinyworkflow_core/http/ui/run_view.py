"""What the page of a run shows besides its timeline: its events a page at a time, its error with all causes, and what
it has cost as far as the history knows. Values come from `Shown` alone, so that what is hidden stays hidden."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any

from ...engine.history import Event, LeaseTaken, RunFailed, event_to_dict
from ...engine.rewind import effective
from ...redaction import REDACTED
from ...serialization import Failure
from ...store import RunState
from ..shown import Shown

EVENTS = 50
"""Events on a page."""
MAX_SHOWN = 20_000
"""Characters of one value that a page shows."""

_MAX_CHAIN = 20
_VALUES = ("input", "output", "result", "payload", "data", "details", "form", "heartbeat", "custom_status")
_NOT_SAID = ("event_id", "type", "at", "name", "key", "id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What the history knows of a run's cost. `documents`: history documents, each written once; `values`: characters
    of the values in it, as they are stored; `messages`: each was written to the inbox and deleted again."""

    documents: int
    events: int
    values: int
    messages: int
    take_overs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One error of a chain. `depth`: 0 is what brought the run down, 1 its cause; members of a group stand deeper,
    too."""

    depth: int
    type: str
    message: str
    cls: str
    details: str | None
    traceback: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EventItem:
    """One event as it is listed. `about`: whom it concerns, in a word. `size`: bytes as stored, nearly."""

    number: int
    type: str
    about: str
    step: int | None
    at: datetime
    size: int
    is_void: bool
    text: str
    is_cut: bool
    errors: list[Told]


@dataclass(frozen=True, kw_only=True, slots=True)
class EventsPage:
    """A page of the history, oldest first. `after`: how many events come before it. `links`: (words, `after`)."""

    items: list[EventItem]
    after: int
    total: int
    links: list[tuple[str, int]]


def cost_of(state: RunState) -> Cost:
    """What is known of the current generation."""
    values = messages = take_overs = 0
    for event in state.history:
        kind: Any = type(event)
        names, is_from_message = _shape(kind)
        for name in names:
            values += len(getattr(event, name) or "")
        messages += is_from_message and getattr(event, "message_id", None) is not None
        take_overs += isinstance(event, LeaseTaken)
    return Cost(
        documents=state.sequence + 1,
        events=len(state.history),
        values=values,
        messages=messages,
        take_overs=take_overs,
    )


@cache
def _shape(cls: type[Any]) -> tuple[tuple[str, ...], bool]:
    """Which fields of an event hold values, and whether it tells the message that it came from."""
    names = [one.name for one in fields(cls)]
    return tuple(name for name in names if name in _VALUES), "message_id" in names


def brought_down_by(history: Sequence[Event]) -> list[tuple[int, str, int]]:
    """The steps whose errors have brought the run down: (position, name, number of the last event of it) each."""
    last = history[-1]
    if not isinstance(last, RunFailed):
        return []
    found: dict[int, tuple[str, int]] = {}
    for number, event in enumerate(history, start=1):
        step = getattr(event, "id", None)
        if step in last.failed:
            found[step] = (str(getattr(event, "name", "")), number)
    return [(step, name, number) for step, (name, number) in sorted(found.items())]


def told(failure: Failure, shown: Shown) -> list[Told]:
    """The error and its causes, from the outside in."""
    chain: list[Told] = []
    for depth, one in _chain(shown.opened(failure), 0):
        if len(chain) == _MAX_CHAIN:
            break
        seen = shown.opened(one)
        is_hidden = seen.message == REDACTED
        details = None if seen.details is None else pretty(shown.plain(seen.details))[0]
        chain.append(
            Told(
                depth=depth,
                type=seen.type,
                message=seen.message,
                cls=seen.cls.replace(":", "."),
                details=details,
                traceback="" if is_hidden else seen.traceback,  # lines of code, which may quote what is hidden
            )
        )
    return chain


def _chain(failure: Failure, depth: int) -> Iterator[tuple[int, Failure]]:
    yield depth, failure
    for member in failure.members:
        yield from _chain(member, depth + 1)
    if failure.cause is not None:
        yield from _chain(failure.cause, depth + 1)


def events_page(history: Sequence[Event], after: int | None, shown: Shown) -> EventsPage:
    """The page that begins after so many events (None: the last page)."""
    total = len(history)
    last = max(total - 1, 0) // EVENTS * EVENTS
    start = last if after is None else min(max(after, 0), max(total - 1, 0))
    kept = {id(one) for one in effective(history)}
    page = history[start : start + EVENTS]
    items = [_item(number, one, shown, is_void=id(one) not in kept) for number, one in enumerate(page, start=start + 1)]
    links = [("First", 0), ("Before", max(start - EVENTS, 0))] if start > 0 else []
    if start + EVENTS < total:
        links += [("After", start + EVENTS), ("Latest", last)]
    return EventsPage(items=items, after=start, total=total, links=links)


def _item(number: int, event: Event, shown: Shown, *, is_void: bool) -> EventItem:
    view = shown.event(number, event)
    text, is_cut = pretty({name: value for name, value in view.items() if name not in _NOT_SAID})
    error = getattr(event, "error", None)
    about = next((str(view[name]) for name in ("name", "key", "patch", "owner") if view.get(name) is not None), "")
    return EventItem(
        number=number,
        type=re.sub(r"(?<!^)(?=[A-Z])", " ", str(view["type"])).capitalize(),
        about=about,
        step=getattr(event, "id", None),
        at=event.at,
        size=_size(event),
        is_void=is_void,
        text="" if text == "{}" else text,
        is_cut=is_cut,
        errors=told(error, shown) if isinstance(error, Failure) else [],
    )


def _size(event: Event) -> int:
    return len(json.dumps(event_to_dict(event), ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))


def pretty(value: Any) -> tuple[str, bool]:
    """The value as JSON to be read by people, and whether it was cut short."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return (text, False) if len(text) <= MAX_SHOWN else (text[:MAX_SHOWN], True)
