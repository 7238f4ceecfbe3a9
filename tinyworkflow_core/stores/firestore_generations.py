"""The generations of a run in the Firestore store: how the next one begins, and how those before it are removed.

A generation begins in the record, in one write. What it leaves behind is removed after that, best effort: whatever a
crash leaves, the next beginning (or a purge) collects.

Fences stay. A holder that fell silent generations ago may still send the one history document that it was about to
write; only what stands there refuses it. A fence goes when it is older than any request can be.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from ..errors import StoreError
from ..store import Lease, Release
from .firestore_blocks import alone
from .firestore_collections import Collections
from .firestore_connection import Conflict, Create, Delete, google
from .firestore_documents import MAX_DOCUMENT_BYTES, events_text, is_fence, position, size_of

DELETES = 400
"""Documents that are removed at a time."""

FENCE_LIFE = timedelta(days=7)
"""For so long a fence keeps out whoever held the run before it."""


def begin_generation(
    at: Collections, lease: Lease, release: Release, key: str, changes: dict[str, Any], *, size: int
) -> Create | None:
    """Add to the `changes` of the record what makes the next generation. Returns the history document to create when
    the opening events do not fit into the record, whose present `size` is told."""
    generation, opening = lease.generation + 1, events_text(release.next_generation)
    changes |= {"generation": generation, "sequence": 0, "opening": opening, "continuation": key}
    if size + size_of(changes) <= MAX_DOCUMENT_BYTES:
        return None
    changes["opening"] = None
    return at.event_document(at.record(lease.run_id), generation, alone(0, opening), key)


async def remove_earlier(at: Collections, run_id: str, generation: int, *, before: Any) -> None:
    """Remove the history of all generations before this one, but for fences; give up without an error when Firestore
    cannot do it now.

    Touches nothing that is younger than the version `before` of the record: should this call be late, a run that was
    purged may have a successor of the same name.
    """
    earlier = google().firestore.FieldFilter("position", "<", position(generation, 0))
    history = at.history(at.record(run_id)).where(filter=earlier).order_by("position")
    history = history.select(["position", "sequence", "key"]).limit(DELETES)
    with suppress(StoreError, Conflict):
        while True:
            page = await at.connection.query(history)
            dead = [one for one in page if one.update_time <= before and not _still_guards(one)]
            if dead:
                await at.connection.commit([Delete(one.reference, one.update_time) for one in dead])
            if len(page) < DELETES:
                return
            history = history.start_after(page[-1])


def _still_guards(one: Any) -> bool:
    young: bool = one.read_time - one.create_time <= FENCE_LIFE
    return young and is_fence(one.to_dict())
