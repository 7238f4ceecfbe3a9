"""Crossing: what of a run's next generation goes into its first history document, and what back into its inbox.

The document has a limit, and what goes along has none: signals that nobody takes may come for months.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from ..clock import EPOCH
from ..engine.history import CancelRequested, Event, RunStarted, SignalReceived, UpdateAccepted, event_to_dict
from ..store import Message, MessageKind

_MARGIN = 2_000
"""Bytes of a document besides the events that are counted here."""


def fitted(opening: RunStarted, carried: Sequence[Event], limit: int) -> tuple[list[Event], list[Message]]:
    """The first events of the generation, as far as they fit `limit` bytes, and the rest as messages that will be read
    before any other. The opening itself forgets what it can do without."""
    if _size(opening) > limit - _MARGIN:
        opening = replace(opening, custom_status=None)
    while opening.seen and _size(opening) > limit - _MARGIN:
        opening = replace(opening, seen=opening.seen[len(opening.seen) // 2 + 1 :])
    left = limit - _MARGIN - _size(opening)
    events: list[Event] = [opening]
    for i, event in enumerate(carried):
        left -= _size(event)
        if left < 0:
            return events, list(_messages(carried[i:]))
        events.append(event)
    return events, []


def in_parts(messages: Sequence[Message], limit: int) -> Iterator[list[Message]]:
    """The messages, as many at a time as one write takes."""
    part: list[Message] = []
    size = 0
    for one in messages:
        size += len(json.dumps(dict(one.body)).encode())
        if part and size > limit:
            yield part
            part, size = [], 0
        part.append(one)
    if part:
        yield part


def _size(event: Event) -> int:
    return len(json.dumps(event_to_dict(event), ensure_ascii=False).encode(errors="surrogatepass"))


def _messages(events: Sequence[Event]) -> Iterator[Message]:
    for i, event in enumerate(events):
        at = EPOCH + timedelta(microseconds=i)  # they are older than whatever waits in the inbox
        match event:
            case SignalReceived(message_id=message_id):
                body = {"name": event.name, "payload": event.payload}
                yield Message(id=message_id, kind=MessageKind.SIGNAL, received_at=at, body=body)
            case UpdateAccepted(message_id=message_id):
                body = {"name": event.name, "payload": event.payload}
                yield Message(id=message_id, kind=MessageKind.UPDATE, received_at=at, body=body)
            case CancelRequested(message_id=message_id):
                yield Message(id=message_id, kind=MessageKind.CANCEL, received_at=at, body={"reason": event.reason})
