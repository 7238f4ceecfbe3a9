"""What the page of a run shows besides its timeline: its events a page at a time, its error with all causes, and what
it has cost as far as the history knows. Values come from `Shown` alone, so that what is hidden stays hidden."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from functools import cache
from typing import Any

from ...engine.history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    Event,
    LeaseTaken,
    RunFailed,
    RunRetried,
    TimerFired,
    event_to_dict,
)
from ...records import dataclass
from ...redaction import REDACTED
from ...serialization import Failure
from ...store import RunState
from ..shown import Shown
from .row_building import void_of

EVENTS = 50
"""Events on a page."""
MAX_SHOWN = 20_000
"""Characters of one value that a page shows."""

MAX_STRUGGLING = 3
"""Steps that are being retried of which the page of an open run tells."""

_MAX_CHAIN = 20
_VALUES = ("input", "output", "result", "payload", "data", "details", "form", "heartbeat", "custom_status")
_WAKES = frozenset({LeaseTaken, TimerFired, ActivityScheduled, RunRetried})
"""Events (besides messages and attempts that are tried again) for which, or after which, another call was needed."""
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
    calls: int
    """An estimate: as many calls of functions as there were, if each thing that woke the run was a call of its own. Of
    what woke it several may have shared one; what found nothing to do left no trace."""


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
class Culprit:
    """A step that has failed. `event`: the number of the event that says so. `retry_at`: when it is tried again."""

    step: int
    name: str
    event: int
    attempt: int
    retry_at: datetime | None = None
    errors: list[Told]


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
    calls = 1
    for event in state.history:
        kind: Any = type(event)
        names, is_from_message = _shape(kind)
        for name in names:
            values += len(getattr(event, name) or "")
        is_message = is_from_message and getattr(event, "message_id", None) is not None
        messages += is_message
        take_overs += kind is LeaseTaken
        calls += is_message or kind in _WAKES or getattr(event, "retry_at", None) is not None
    return Cost(
        documents=state.sequence + 1,
        events=len(state.history),
        values=values,
        messages=messages,
        take_overs=take_overs,
        calls=calls,
    )


@cache
def _shape(cls: type[Any]) -> tuple[tuple[str, ...], bool]:
    """Which fields of an event hold values, and whether it tells the message that it came from."""
    names = [one.name for one in fields(cls)]
    return tuple(name for name in names if name in _VALUES), "message_id" in names


def brought_down_by(history: Sequence[Event]) -> list[Culprit]:
    """The steps whose errors have brought the run down: those that failed for good by an error of its chain. (The
    `failed` of the event is what a retry does again: in a saga also what was undone.)"""
    last = history[-1]
    if not isinstance(last, RunFailed):
        return []
    chain = {(one.type, one.message) for _, one in _chain(last.error, 0)}
    found: dict[int, Culprit] = {}
    for number, event in enumerate(history, start=1):
        step, error = getattr(event, "id", None), getattr(event, "error", None)
        if step is None:
            continue
        found.pop(step, None)  # it was done again, after a retry
        if not isinstance(error, Failure) or getattr(event, "retry_at", None) is not None:
            continue
        if (error.type, error.message) in chain or step in {*last.failed} - {*last.undone}:
            found[step] = _culprit(number, event)
    return [found[step] for step in sorted(found)]


def struggling(history: Sequence[Event], shown: Shown) -> list[Culprit]:
    """The steps whose latest attempt has failed and that are tried again: the latest few, the very latest first."""
    failed: dict[int, tuple[int, ActivityFailed]] = {}
    for number, event in enumerate(history, start=1):
        if isinstance(event, ActivityFailed) and event.retry_at is not None:
            failed[event.id] = (number, event)
        elif isinstance(event, RunRetried):
            failed.clear()
        elif failed and isinstance(event, ActivityCompleted | ActivityFailed | ActivityCancelled):
            failed.pop(event.id, None)
    latest = sorted(failed.values(), key=lambda one: one[0], reverse=True)[:MAX_STRUGGLING]
    return [_culprit(number, event, told(event.error, shown)) for number, event in latest]


def _culprit(number: int, event: Any, errors: Sequence[Told] = ()) -> Culprit:
    return Culprit(
        step=event.id,
        name=str(getattr(event, "name", None) or ""),
        event=number,
        attempt=getattr(event, "attempt", 1),
        retry_at=getattr(event, "retry_at", None),
        errors=list(errors),
    )


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
    void = void_of(history)
    page = history[start : start + EVENTS]
    items = [_item(number, one, shown, is_void=number in void) for number, one in enumerate(page, start=start + 1)]
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
