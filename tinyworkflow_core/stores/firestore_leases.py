"""Holding a run of the Firestore store: taking it, keeping it, committing to it.

Why it is safe stands in `firestore`; where the documents are, in `firestore_collections`.

What the running process knows of a lease (the record's version, the end of the history) is kept beside the Lease
object. It only saves reads: a lease that this process has not taken is looked up, and its next history document holds
its own commit alone (`firestore_blocks`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from ..clock import fresh_id
from ..engine.history import LeaseTaken
from ..errors import LeaseLost, RunExistsError, StoreUnavailableError
from ..records import dataclass
from ..store import Commit, Lease, Status
from .firestore_blocks import Block, Tail, alone
from .firestore_collections import Collections, is_open
from .firestore_connection import Conflict, Create, Delete, Replace, Update, Write, pause, size_of_batch
from .firestore_documents import (
    MAX_COMMIT_BYTES,
    MAX_DOCUMENT_BYTES,
    commit_key,
    document_id,
    events_text,
    message_fields,
    moment_of,
    release_fields,
    size_of,
)
from .firestore_generations import begin_generation, remove_earlier

TRIES = 12
"""How often a verb starts again after losing to another writer; together about three seconds."""


@dataclass(slots=True)
class _Held:
    """What this process knows about a lease."""

    version: Any
    """The record's update_time."""
    tail: Tail
    """The last history document, and what the next one may copy."""
    size: int
    """Bytes of the record."""
    ended_by: str | None = None
    """The key of the commit that let go; empty when the lease was lost."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A commit on its way."""

    lease: Lease
    commit: Commit
    events: str
    """The events as JSON text."""
    key: str
    outbox: dict[str, Create]
    """The inbox documents to create, by path."""
    new_runs: dict[str, list[Create]]
    """The documents of the runs to create, by run_id; the record is the first."""


class Leases:
    """The verbs of a holder: see the port for what they promise."""

    def __init__(self, collections: Collections) -> None:
        self._at = collections
        self._connection = collections.connection
        self._held: WeakKeyDictionary[Lease, _Held] = WeakKeyDictionary()

    async def acquire(
        self,
        run_id: str,
        *,
        owner: str,
        now: datetime,
        ttl: timedelta,
        gone: Callable[[str], bool],
    ) -> tuple[Lease, dict[str, Any] | None] | None:
        """The lease, and the fields of the record as it is now, unless an earlier try has written it."""
        record, token, until = self._at.record(run_id), fresh_id(32), now + ttl
        for attempt in range(TRIES):
            [found] = await self._connection.get([record])
            if not is_open(found):
                return None
            data = found.to_dict()
            lease = Lease(run_id=run_id, owner=owner, token=token, until=until, generation=data["generation"])
            if data["lease_token"] == token:  # an earlier try of ours, whose reply was lost
                self._held[lease] = _Held(found.update_time, Tail(last=data["sequence"]), size_of(data))
                return lease, None
            holder = data["lease_owner"] if data["lease_token"] is not None else None
            if holder is not None and moment_of(data["lease_until"]) > now and not gone(holder):
                return None
            changes = {
                "status": Status.RUNNING.value,
                "started_at": data["started_at"] or now,
                "wake_at": until,
                "lease_owner": owner,
                "lease_until": until,
                "lease_token": token,
                "sequence": data["sequence"],
            }
            writes: list[Write] = [Update(record, changes, found.update_time)]
            if holder is not None:
                taken = events_text([LeaseTaken(at=now, owner=owner, previous_owner=holder)])
                changes["sequence"] = await self._at.last_sequence(record, data) + 1
                fence = alone(changes["sequence"], taken)
                writes.append(self._at.event_document(record, data["generation"], fence, token))
            try:
                versions = await self._connection.commit(writes)
            except Conflict:
                await pause(attempt)
                continue
            data |= changes
            self._held[lease] = _Held(versions[0], Tail(last=changes["sequence"]), size_of(data))
            return lease, data
        raise crowded(run_id)

    async def renew(self, lease: Lease, *, now: datetime, ttl: timedelta) -> bool:
        record, until = self._at.record(lease.run_id), now + ttl
        held = self._held.get(lease)
        for attempt in range(TRIES):
            if held is None:
                [found] = await self._connection.get([record])
                held = await self._still_held(lease, found)
            if held.ended_by is not None:
                raise self._lost(lease)
            try:
                change = Update(record, {"lease_until": until, "wake_at": until}, held.version)
                [held.version] = await self._connection.commit([change])
            except Conflict:
                await pause(attempt)
                held = None
                continue
            return bool(await self._connection.query(self._at.messages(record).select([]).limit(1)))
        raise crowded(lease.run_id)

    async def commit(self, lease: Lease, commit: Commit) -> None:
        version = await self._commit(lease, commit)
        if version is not None and commit.release is not None and commit.release.next_generation:
            await remove_earlier(self._at, lease.run_id, lease.generation + 1, before=version)

    async def _commit(self, lease: Lease, commit: Commit) -> Any:
        """The record's version after a write to it, where that is known."""
        events = events_text(commit.events)
        key = commit_key(lease, commit, events)
        held = self._held.get(lease)
        if held is not None and held.ended_by is not None:
            if held.ended_by == key:
                return None
            raise self._lost(lease)
        new_runs = self._new_runs(lease, commit, key)
        pending = _Pending(lease, commit, events, key, await self._outbox(lease, commit), new_runs)
        for attempt in range(TRIES):
            if held is None or (commit.events and commit.sequence != held.tail.last + 1):
                held, done_at = await self._look(pending)
                if held is None:
                    return done_at
            block, writes = self._batch(pending, held)
            try:
                versions = await self._connection.commit(writes)
            except Conflict:
                await pause(attempt)
                held = None
                continue
            if _lets_go(commit):
                held.ended_by, held.tail = key, Tail(last=0)
            elif commit.events:
                held.tail = held.tail.followed_by(block)
            if commit.release is not None or not commit.events:
                held.version = versions[0]
            return held.version
        raise crowded(lease.run_id)

    def _batch(self, pending: _Pending, held: _Held) -> tuple[Block, list[Write]]:
        """What the history document is to hold, and the batch. Copies never make a commit too large that would else
        be none."""
        block = held.tail.next(pending.commit.sequence, pending.events)
        writes = self._writes(pending, held, block)
        if block.copied is None or size_of_batch(writes) <= MAX_COMMIT_BYTES:
            return block, writes
        block = alone(pending.commit.sequence, pending.events)
        return block, self._writes(pending, held, block)

    def _writes(self, pending: _Pending, held: _Held, block: Block) -> list[Write]:
        """The batch. When it writes to the record, that comes first."""
        lease, commit, events, key = pending.lease, pending.commit, pending.events, pending.key
        record = self._at.record(lease.run_id)
        writes: list[Write] = []
        document = None
        if commit.events:
            document = self._at.event_document(record, lease.generation, block, key)
        if commit.release is not None:
            changes = release_fields(commit.release, lets_go=_lets_go(commit))
            changes |= {"sequence": commit.sequence if commit.events else held.tail.last, "last_commit": key}
            writes.append(Update(record, changes, held.version))
            if commit.release.status.closed:
                changes["closing"] = events if document else None
                if held.size + size_of(changes) <= MAX_DOCUMENT_BYTES:
                    document = None
                else:
                    large = {name: changes.pop(name) for name in ("output", "error")}
                    changes |= {"closing": None, "result_apart": True}
                    writes.append(Replace(self._at.result(record), large))
            elif commit.release.next_generation:
                document = begin_generation(self._at, lease, commit.release, key, changes, size=held.size)
        elif document is None:
            writes.append(Update(record, {"last_commit": key}, held.version))  # only to make sure of the lease
        if document is not None:
            writes.append(document)
        inbox = self._at.messages(record)
        writes += [Delete(inbox.document(document_id(message_id))) for message_id in dict.fromkeys(commit.consumed)]
        writes += pending.outbox.values()
        return writes + [create for creates in pending.new_runs.values() for create in creates]

    async def _look(self, pending: _Pending) -> tuple[_Held | None, Any]:
        """Read back where a commit stands: the lease as it is now; or None when the commit is done, and the version
        of the record. Raises LeaseLost and RunExistsError.

        Takes out of the outbox what waits at its target already.
        """
        lease, commit, key, outbox = pending.lease, pending.commit, pending.key, pending.outbox
        record = self._at.record(lease.run_id)
        own = self._at.document(record, lease.generation, commit.sequence)
        news = [creates[0].reference for creates in pending.new_runs.values()]
        [found, document, *others] = await self._connection.get(
            [record, own, *(create.reference for create in outbox.values()), *news]
        )
        data = found.to_dict() if found.exists else {}
        written = commit.events and document.exists and document.get("key") == key
        if written or key in (data.get("last_commit"), data.get("continuation")):
            if _lets_go(commit):
                self._end(lease, key)
            else:
                self._held.pop(lease, None)
            return None, found.update_time
        held = await self._still_held(lease, found)
        if commit.events and (document.exists or commit.sequence <= held.tail.last):
            raise LeaseLost(f"run {lease.run_id}: history document {commit.sequence} is there and not by this commit")
        for one in others:
            if one.exists and one.reference.path in outbox:
                del outbox[one.reference.path]
            elif one.exists:
                raise _exists(one.get("run_id"))
        return held, None

    async def _still_held(self, lease: Lease, found: Any) -> _Held:
        """The lease as the record shows it. Raises LeaseLost, and keeps in mind that it is lost."""
        data = found.to_dict() if found.exists else {}
        if data.get("lease_token") != lease.token:
            raise self._lost(lease)
        last, known = await self._at.last_sequence(found.reference, data), self._held.get(lease)
        tail = known.tail if known is not None and known.tail.last == last else Tail(last=last)
        held = self._held[lease] = _Held(found.update_time, tail, size_of(data))
        return held

    def has_read(self, run_id: str, token: str, tail: Tail) -> None:
        """The history was read while the record showed this token: its holder's next documents may copy the end."""
        for lease, held in self._held.items():
            if (lease.run_id, lease.token) == (run_id, token) and held.ended_by is None and held.tail.last == tail.last:
                held.tail = tail

    def forget(self, run_id: str) -> None:
        """A purge takes the fence away with the history: leases of this process are over by being known to be."""
        for lease in [one for one in self._held if one.run_id == run_id]:
            self._end(lease, "")

    def _end(self, lease: Lease, key: str) -> None:
        """Keep in mind that this lease writes no more. The commit that let go stays known: it may come again."""
        held = self._held.get(lease)
        if held is None or held.ended_by is None:
            self._held[lease] = _Held(None, Tail(last=0), 0, ended_by=key)

    def _lost(self, lease: Lease) -> LeaseLost:
        self._end(lease, "")
        return LeaseLost(f"run {lease.run_id} is no longer held by {lease.owner}")

    def _new_runs(self, lease: Lease, commit: Commit, key: str) -> dict[str, list[Create]]:
        """The documents of the runs to create. Raises RunExistsError for what no batch could hold."""
        writes: dict[str, list[Create]] = {}
        for new in commit.new_runs:
            run_id = new.run.run_id
            if run_id in writes or run_id == lease.run_id:
                raise _exists(run_id)
            writes[run_id] = self._at.new_run(new.run, new.events, key)
        return writes

    async def _outbox(self, lease: Lease, commit: Commit) -> dict[str, Create]:
        """The inbox documents to create, by path: one per message and open run."""
        created = {new.run.run_id for new in commit.new_runs}
        targets = sorted({run_id for run_id, _ in commit.outbox} - created)
        records = await self._connection.get([self._at.record(run_id) for run_id in targets], ["status"])
        reachable = created | {run_id for run_id, found in zip(targets, records, strict=True) if is_open(found)}
        writes: dict[str, Create] = {}
        for run_id, message in commit.outbox:
            if run_id in reachable:
                reference = self._at.messages(self._at.record(run_id)).document(document_id(message.id))
                writes.setdefault(reference.path, Create(reference, message_fields(run_id, message, lease.token)))
        return writes


def _lets_go(commit: Commit) -> bool:
    return commit.release is not None and (commit.release.status.closed or not commit.release.keep_lease)


def _exists(run_id: str) -> RunExistsError:
    return RunExistsError(f"run {run_id} exists already", run_id=run_id)


def crowded(run_id: str) -> StoreUnavailableError:
    """The error for a verb that has lost to other writers too often."""
    return StoreUnavailableError(f"run {run_id}: other writers were faster {TRIES} times; try again")
