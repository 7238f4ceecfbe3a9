"""Opening a run of the Firestore store again that has ended.

The closing events stand in the record; with the opening they become a history document, in the same write that makes
the record an open one. So does every message go that stayed in the inbox when the run closed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..engine.history import Event
from ..store import Status
from .firestore_blocks import alone
from .firestore_collections import Collections, is_open
from .firestore_connection import Conflict, Delete, Replace, Update, Write, pause
from .firestore_documents import events_text, history_fields
from .firestore_leases import TRIES, crowded

PAGE = 150
"""Messages that are removed at a time."""


async def reopen(
    at: Collections, run_id: str, *, sequence: int, events: Sequence[Event], retry_count: int, now: datetime
) -> bool:
    """See the port."""
    record, text = at.record(run_id), events_text(events)
    key = _key(sequence, text, retry_count, now)
    for attempt in range(TRIES):
        [found] = await at.connection.get([record])
        if not found.exists:
            return False
        data = found.to_dict()
        document = at.event_document(record, data["generation"], alone(sequence, text), key)
        [there] = await at.connection.get([document.reference], ["key"])
        if there.exists and there.get("key") == key:
            return True
        if is_open(found) or await at.last_sequence(record, data) != sequence - 1:
            return False
        changes = {
            "status": Status.PENDING.value,
            **dict.fromkeys(("closed_at", "output", "error", "problem", "closing")),
            "result_apart": False,
            "retry_count": retry_count,
            "wake_at": now,
            "sequence": sequence,
        }
        writes: list[Write] = [Update(record, changes, found.update_time), document]
        if data.get("closing") is not None:
            writes.append(_closing_document(at, record, data))
        if data["result_apart"]:
            writes.append(Delete(at.result(record)))
        try:
            await at.connection.commit(writes + await _last_messages(at, record))
        except Conflict:
            await pause(attempt)
            continue
        return True
    raise crowded(run_id)


def _closing_document(at: Collections, record: Any, data: dict[str, Any]) -> Replace:
    """The closing events as a history document of the commit that wrote them. Where a write that was under way for so
    long that it came after the end has taken the place, it counts no more than it did."""
    generation, sequence = data["generation"], data["sequence"]
    fields = history_fields(generation, alone(sequence, data["closing"]), data["last_commit"])
    return Replace(at.document(record, generation, sequence), fields)


async def _last_messages(at: Collections, record: Any) -> list[Write]:
    """The removal of what waits in the inbox of the closed run; all but the last page of it is done at once."""
    while True:
        page = await at.connection.query(at.messages(record).select([]).limit(PAGE))
        if len(page) < PAGE:
            return [Delete(one.reference) for one in page]
        await at.connection.commit([Delete(one.reference, one.update_time) for one in page])


def _key(sequence: int, events: str, retry_count: int, now: datetime) -> str:
    """Names this opening: an equal one has the same key, any other has another."""
    text = json.dumps((sequence, events, retry_count, now.isoformat()))
    return f"reopened:{hashlib.sha256(text.encode()).hexdigest()}"
