"""Where the documents of the Firestore store are, and the reads and writes that more than one verb needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..engine.history import Event
from ..store import Message, Run, Status
from .firestore_blocks import Block, alone
from .firestore_connection import Connection, Create, google
from .firestore_documents import (
    MAX_DOCUMENT_BYTES,
    document_id,
    events_text,
    history_fields,
    message_of,
    position,
    record_fields,
    run_of,
    size_of,
)


class Collections:
    """The collections whose names begin with `prefix`."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self.connection = connection
        self._prefix = prefix

    def runs(self) -> Any:
        """All records."""
        return self.connection.client().collection(f"{self._prefix}_runs")

    def record(self, run_id: str) -> Any:
        """The record of one run."""
        return self.runs().document(document_id(run_id))

    def history(self, record: Any) -> Any:
        """The history documents of a run, of all generations."""
        return record.collection(f"{self._prefix}_history")

    def document(self, record: Any, generation: int, sequence: int) -> Any:
        """One history document."""
        return self.history(record).document(position(generation, sequence))

    def messages(self, record: Any) -> Any:
        """The inbox of a run."""
        return record.collection(f"{self._prefix}_inbox")

    def every_inbox(self) -> Any:
        """The messages of all runs, as a collection group."""
        return self.connection.client().collection_group(f"{self._prefix}_inbox")

    def results(self, record: Any) -> Any:
        """Where `result` stands."""
        return record.collection(f"{self._prefix}_result")

    def result(self, record: Any) -> Any:
        """Output and error that did not fit into the record."""
        return self.results(record).document("result")

    def event_document(self, record: Any, generation: int, block: Block, key: str) -> Create:
        """The write of one history document."""
        return Create(self.document(record, generation, block.last), history_fields(generation, block, key))

    def new_run(self, run: Run, events: Sequence[Event], key: str) -> list[Create]:
        """The writes that make a run, its record first. `key` says who made it."""
        record, opening = self.record(run.run_id), events_text(events)
        data = record_fields(run) | {"creation": key, "lease_token": None, "opening": opening}
        if size_of(data) <= MAX_DOCUMENT_BYTES:
            return [Create(record, data)]
        data["opening"] = None
        return [Create(record, data), self.event_document(record, run.generation, alone(0, opening), key)]

    def generation(self, record: Any, generation: int) -> Any:
        """The history documents of one generation. By a field and not by name: names have no falling index."""
        field = google().firestore.FieldFilter
        begin, end = position(generation, 0), position(generation + 1, 0)
        return (
            self.history(record).where(filter=field("position", ">=", begin)).where(filter=field("position", "<", end))
        )

    def newest(self, record: Any, generation: int) -> Any:
        """The last history document of one generation."""
        return self.generation(record, generation).order_by("position", direction="DESCENDING").limit(1)

    async def last_sequence(self, record: Any, data: dict[str, Any]) -> int:
        """The highest sequence number of the record's generation. One read."""
        found = await self.connection.query(self.newest(record, data["generation"]).select(["sequence"]))
        return max([int(data["sequence"]), *(int(one.get("sequence")) for one in found)])

    async def inbox(self, record: Any) -> Sequence[Message]:
        """The messages that wait, in the order of the port."""
        found = await self.connection.query(self.messages(record))
        return sorted((message_of(one.to_dict()) for one in found), key=lambda one: (one.received_at, one.id))

    async def runs_of(self, snapshots: Iterable[Any]) -> Sequence[Run]:
        """The runs, with the results that stand in documents of their own."""
        return await self.runs_in([(one.reference, one.to_dict()) for one in snapshots])

    async def runs_in(self, rows: Sequence[tuple[Any, dict[str, Any]]]) -> Sequence[Run]:
        """The same of records that were read: where each is, and its fields."""
        apart = [row for row in rows if row[1]["result_apart"]]
        results = await self.connection.get([self.result(record) for record, _ in apart])
        for (_, data), result in zip(apart, results, strict=True):
            data.update(result.to_dict() or {})
        return [run_of(data) for _, data in rows]


def is_open(found: Any) -> bool:
    """Whether this snapshot of a record is there and shows a run that has not ended."""
    return bool(found.exists) and not Status(found.get("status")).closed
