"""FirestoreStore: runs in Firestore, by compare-and-swap batches, never transactions.

(Transactions there are pessimistic: they lock what they read, and an abandoned one keeps its locks for a minute.)

- The record changes under a precondition on its update_time. It carries the token of the lease, so a write whose reply
  was lost, and which then fails its own precondition, is told apart from somebody else's.
- The opening events stand in the record, and so do the closing ones, so that creating, taking and closing a run is one
  document write each. Every commit in between creates one history document and reads nothing. It holds a copy of the
  commits before it as well, so that a long history is read in few documents (`firestore_blocks`).
- Going on as the next generation is one document write too: the record takes the new opening events. The documents of
  the generation before are removed afterwards (`firestore_generations`).
- Closing writes no history document, so nothing would stop a holder that has lost the run without knowing it. That is
  what LeaseTaken is for: taking a run from a holder that did not let go creates a document at the sequence number that
  the old holder must write next. After a clean release nobody else writes, and none is needed.

A message that arrives while its run closes may stay behind in the inbox. Nobody sees it: `due` removes it when it
meets it, and so does opening the run again (`firestore_reopening`).

The holder's verbs: `firestore_leases`. Loading: `firestore_loading`. Documents and indexes: `firestore_documents`.
Errors: `firestore_connection`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Literal

from ..clock import fresh_id
from ..engine.history import Event
from ..errors import StoreUnavailableError
from ..store import (
    GRACE,
    STEERING,
    Commit,
    Delivery,
    DeliveryOutcome,
    Lease,
    Message,
    Page,
    Run,
    RunQuery,
    RunState,
    Status,
    Taken,
    after_prefix,
    hand_back,
    nobody_is_gone,
)
from .firestore_collections import Collections, is_open
from .firestore_connection import Conflict, Connection, Create, Delete, google
from .firestore_documents import (
    LAST_CHARACTER,
    MAX_EVENT_BYTES,
    attribute_key,
    cursor_after,
    cursor_of,
    document_id,
    document_prefix,
    message_fields,
    message_of,
    moment_of,
    run_of,
)
from .firestore_leases import Leases
from .firestore_loading import load
from .firestore_reopening import reopen
from .firestore_schedules import FirestoreSchedules

PAGE = 150
"""Documents that `purge` and `due` take at a time."""

RunIds = list[str]  # inside the class, `list` is a verb


class FirestoreStore:
    """Runs in one Firestore database, in collections whose names begin with `collection`.

    Honours FIRESTORE_EMULATOR_HOST. Connects on first use, once per event loop.
    """

    max_event_bytes = MAX_EVENT_BYTES

    def __init__(self, project: str, database: str = "(default)", collection: str = "tinyworkflow") -> None:
        self._connection = Connection(project, database)
        self._at = Collections(self._connection, collection)
        self._leases = Leases(self._at)
        self.schedules = FirestoreSchedules(self._connection, collection)

    # --- one run -----------------------------------------------------------------------------------

    async def create(self, run: Run, events: Sequence[Event]) -> bool:
        record, token = self._at.record(run.run_id), fresh_id(32)
        try:
            await self._connection.commit(self._at.new_run(run, events, token))
        except Conflict:
            [found] = await self._connection.get([record])
            if not found.exists:
                raise StoreUnavailableError(f"run {run.run_id} was purged while it was created; try again") from None
            return found.get("creation") == token or run_of(found.to_dict()) == run
        return True

    async def get(self, run_id: str) -> Run | None:
        [found] = await self._connection.get([self._at.record(run_id)])
        return (await self._at.runs_of([found]))[0] if found.exists else None

    async def load(self, run_id: str, *, inbox: bool = True) -> RunState | None:
        return await load(self._at, run_id, self._leases.has_read, inbox=inbox)

    async def inbox(self, run_id: str) -> Sequence[Message]:
        record = self._at.record(run_id)
        messages = await self._at.inbox(record)
        if messages:  # seldom: so the record is only read when it matters
            [found] = await self._connection.get([record], ["status"])
            if not is_open(found):
                return []
        return messages

    async def reopen(
        self, run_id: str, *, sequence: int, events: Sequence[Event], retry_count: int, now: datetime
    ) -> bool:
        return await reopen(self._at, run_id, sequence=sequence, events=events, retry_count=retry_count, now=now)

    async def purge(self, run_id: str) -> None:
        """See the port. Up to some 400 documents it is atomic; over that, the record goes last, so that a purge that
        was cut short is found and done again."""
        self._leases.forget(run_id)
        record = self._at.record(run_id)
        parts = [
            part(record).select([]).limit(PAGE) for part in (self._at.history, self._at.messages, self._at.results)
        ]
        done = False
        while not done:
            pages = [await self._connection.query(part) for part in parts]
            done = all(len(page) < PAGE for page in pages)
            rest = [Delete(one.reference) for page in pages for one in page]
            await self._connection.commit([*rest, Delete(record)] if done else rest)

    # --- holding a run -----------------------------------------------------------------------------

    async def acquire(
        self,
        run_id: str,
        *,
        owner: str,
        now: datetime,
        ttl: timedelta,
        gone: Callable[[str], bool] = nobody_is_gone,
    ) -> Taken | None:
        taking = asyncio.ensure_future(self._leases.acquire(run_id, owner=owner, now=now, ttl=ttl, gone=gone))
        try:
            taken = await asyncio.shield(taking)
            if taken is None:
                return None
            lease, record = taken
            state = None
            if record is not None:
                with suppress(Exception):  # whatever is wrong: the lease is taken, and `load` will meet it again
                    state = await load(self._at, run_id, self._leases.has_read, inbox=True, known=record)
            return Taken(lease=lease, state=state)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_up(taking, now))
            raise

    async def _give_up(self, taking: asyncio.Future[tuple[Lease, Any] | None], now: datetime) -> None:
        """A request that is under way takes the run all the same, for nobody: wait for it, and hand the run back."""
        await asyncio.wait([taking])
        with suppress(asyncio.CancelledError, Exception):
            if (taken := taking.result()) is not None:
                await hand_back(self, taken[0], wake_at=now)

    async def renew(self, lease: Lease, *, now: datetime, ttl: timedelta) -> bool:
        return await self._leases.renew(lease, now=now, ttl=ttl)

    async def commit(self, lease: Lease, commit: Commit) -> None:
        await self._leases.commit(lease, commit)

    # --- messages ----------------------------------------------------------------------------------

    async def deliver(self, run_id: str, message: Message) -> Delivery:
        record, attempt = self._at.record(run_id), fresh_id(32)
        [found] = await self._connection.get([record], ["status"])
        if not is_open(found):
            return Delivery(outcome=DeliveryOutcome.CLOSED if found.exists else DeliveryOutcome.UNKNOWN)
        reference = self._at.messages(record).document(document_id(message.id))
        try:
            await self._connection.commit([Create(reference, message_fields(run_id, message, attempt))])
        except Conflict:
            [waiting] = await self._connection.get([reference])
            if not waiting.exists:  # it waited, and its run has taken it out since
                return Delivery(outcome=DeliveryOutcome.DUPLICATE)
            if waiting.get("attempt") != attempt:
                return Delivery(outcome=DeliveryOutcome.DUPLICATE, existing=message_of(waiting.to_dict()))
        return Delivery(outcome=DeliveryOutcome.ACCEPTED)

    # --- what is due -------------------------------------------------------------------------------

    async def due(self, *, now: datetime, limit: int, gone: Callable[[str], bool] = nobody_is_gone) -> RunIds:
        """See the port. A holder that is `gone` is found when its lease ends; wake_at shows it.

        Messages that wait for parked or suspended runs are read again by every call.
        """
        overdue = google().firestore.FieldFilter("wake_at", "<=", now)
        late_runs = self._at.runs().where(filter=overdue).order_by("wake_at").select(["run_id", "wake_at"]).limit(limit)
        late, due = await asyncio.gather(self._connection.query(late_runs), self._due_for_messages(now, limit))
        for one in late:
            moment = moment_of(one.get("wake_at"))
            due[one.get("run_id")] = min(moment, due.get(one.get("run_id"), moment))
        return sorted(due, key=lambda run_id: (due[run_id], run_id))[:limit]

    async def _due_for_messages(self, now: datetime, limit: int) -> dict[str, datetime]:
        """Run -> since when it is due for a message. Removes messages whose run is over."""
        old = google().firestore.FieldFilter("received_at", "<=", now - GRACE)
        old_messages = self._at.every_inbox().where(filter=old).order_by("received_at")
        old_messages = old_messages.select(["run_id", "received_at", "kind"]).limit(PAGE)
        due: dict[str, datetime] = {}
        records: dict[str, Any] = {}
        while True:
            page = await self._connection.query(old_messages)
            new = sorted({one.get("run_id") for one in page} - records.keys())
            found = await self._connection.get([self._at.record(one) for one in new], ["status", "lease_token"])
            records |= dict(zip(new, found, strict=True))
            left_behind = [one for one in page if not is_open(records[one.get("run_id")])]
            if left_behind:
                # By version: the run may be opened again meanwhile, and the same message come to it a second time.
                with suppress(Conflict):
                    await self._connection.commit([Delete(one.reference, one.update_time) for one in left_behind])
            for one in page:
                if _is_driven_by(one.get("kind"), records[one.get("run_id")]):
                    due.setdefault(one.get("run_id"), moment_of(one.get("received_at")) + GRACE)
            if len(page) < PAGE or len(due) >= limit:
                return due
            old_messages = old_messages.start_after(page[-1])

    # --- lists -------------------------------------------------------------------------------------

    async def list(self, query: RunQuery) -> Page[Run]:
        wanted = self._wanted(query)
        found = await self._connection.query(wanted.offset(query.offset).limit(query.limit + 1))
        items = await self._at.runs_of(found[: query.limit])
        more = bool(items) and len(found) > query.limit
        return Page(items=items, next_cursor=cursor_after(items[-1]) if more else None)

    async def count(self, query: RunQuery, *, most: int) -> int:
        # In the order of the lists, so that it is answered by their indexes.
        [[counted]] = await self._connection.query(self._wanted(query).limit(most).count())
        return int(counted.value)

    async def find(self, prefix: str, *, by: Literal["run_id", "workflow_id"], limit: int) -> Sequence[Run]:
        runs, end = self._at.runs(), after_prefix(prefix)
        if by == "run_id":  # the ids of the documents
            if document_id(prefix) != document_prefix(prefix):
                return []  # it is no id of a document, and few are that begin like it
            path: str = "__name__"
            first, last = (runs.document(document_prefix(one)) for one in (prefix, prefix + LAST_CHARACTER))
            wanted = runs.order_by(path)
        else:
            path, first, last = by, prefix, end
            wanted = runs.order_by(path).order_by("created_at", direction="DESCENDING")
            wanted = wanted.order_by("__name__", direction="DESCENDING")
        for operator, value in ((">=", first), ("<", last)):
            if value is not None:
                wanted = wanted.where(filter=google().firestore.FieldFilter(path, operator, value))
        found = await self._at.runs_of(await self._connection.query(wanted.limit(limit)))
        return [run for run in found if getattr(run, by).startswith(prefix)]

    def _wanted(self, query: RunQuery) -> Any:
        runs = self._at.runs()
        wanted = runs
        for path, operator, value in _filters(query):
            wanted = wanted.where(filter=google().firestore.FieldFilter(path, operator, value))
        wanted = wanted.order_by("created_at", direction="DESCENDING").order_by("__name__", direction="DESCENDING")
        if query.cursor is not None:
            created_at, run_id = cursor_of(query.cursor)
            wanted = wanted.start_after({"created_at": created_at, "__name__": runs.document(document_id(run_id))})
        return wanted

    async def close(self) -> None:
        await self._connection.close()


def _is_driven_by(kind: str, found: Any) -> bool:
    """Whether a message that waits makes the run due. A run that is held is found by the end of its lease."""
    if not is_open(found) or found.get("lease_token") is not None:
        return False
    return kind in STEERING or found.get("status") not in (Status.PARKED, Status.SUSPENDED)


def _filters(query: RunQuery) -> Iterator[tuple[str, str, Any]]:
    for name in ("status", "name", "workflow_id", "parent_run_id"):
        if (value := getattr(query, name)) is not None:
            yield name, "==", str(value)
    if query.open_approvals:
        yield "waits_for_approval", "==", True
    for key, value in query.attributes.items():
        yield google().firestore.AsyncClient.field_path("attributes", attribute_key(key)), "==", value
    if query.started_after is not None:
        yield "created_at", ">=", query.started_after
    if query.started_before is not None:
        yield "created_at", "<", query.started_before
