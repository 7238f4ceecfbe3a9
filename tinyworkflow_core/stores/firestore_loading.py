"""Reading a run of the Firestore store: its record, its history in few documents, its inbox.

Which documents hold a history is told by `firestore_blocks`. The last one is asked for by a query; those before it are
named by the number that the record shows, at the same time. So there are two round trips, record and history, for
whoever holds the run. There are more where a stretch is covered by less than it could be, and where the run is at work
in other hands: its history is ahead of its record then, and a few documents may be read in vain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from ..engine.history import Event
from ..store import Message, Run, RunState
from .firestore_blocks import Block, Tail, alone, tail_of, way
from .firestore_collections import Collections
from .firestore_documents import block_of, events_of

LOADS = 3
"""How often a load begins anew when it has met a run in the middle of a change."""

MANY = 100
"""Documents that are named in one round. A history that needs more has hardly any copies: it is read in one query."""

Remember = Callable[[str, str, Tail], None]


async def load(
    at: Collections, run_id: str, remember: Remember, *, inbox: bool, known: dict[str, Any] | None = None
) -> RunState | None:
    """See the port. `remember(run_id, token, tail)` gets the end of the history of a run that is held. `known`: the
    fields of the record, by whoever has just written it: then it is not read again."""
    record = at.record(run_id)
    for _ in range(LOADS):
        if known is None:
            [found] = await at.connection.get([record])
            if not found.exists:
                return None
            known = found.to_dict()
        data, known = cast("dict[str, Any]", known), None
        [run] = await at.runs_in([(record, data)])
        reader = _Reader(at, record, run, data)
        wanted = at.inbox(record) if inbox and not run.status.closed else _nothing()
        complete, messages = await asyncio.gather(reader.read(), wanted)
        if complete:
            break  # else the run has gone on as its next generation since the record was read
    else:
        await reader.read_all()
    if data["lease_token"] is not None and complete:
        remember(run_id, data["lease_token"], tail_of(reader.last, way(reader.last, reader.found)[0]))
    return RunState(run=run, history=reader.history(), sequence=reader.sequence, inbox=messages)


class _Reader:
    """The history of one run, of the generation in which its record shows it."""

    def __init__(self, at: Collections, record: Any, run: Run, data: dict[str, Any]) -> None:
        self._at = at
        self._record = record
        self._run = run
        self._opening: str | None = data["opening"]
        self._closing: str | None = data.get("closing") if run.status.closed else None
        self.last = run.sequence if self._closing is None else run.sequence - 1
        """The last history document: of a run that has ended by its record the last one before that. A write that was
        under way for so long that it came after the end counts for nothing."""
        self.found: dict[int, Block] = {}

    @property
    def sequence(self) -> int:
        """The last commit."""
        return self.last if self._closing is None else self._run.sequence

    async def read(self) -> bool:
        """Read what is needed. False: the run is no longer what its record was."""
        _, wanted = way(self.last, {})
        if self._closing is None:
            newest, there = await asyncio.gather(self._read_newest(), self._get(wanted[1:]))
            if newest < self.last or not there:
                return False
            self.last = newest
        if self._opening is None and 0 not in self.found and not await self._get([0]):
            return False
        while wanted := way(self.last, self.found)[1]:
            if len(wanted) > MANY:
                await self.read_all()
                return not way(self.last, self.found)[1]
            if not await self._get(wanted):
                return False
        return True

    async def read_all(self) -> None:
        """Every document, its own events alone."""
        documents = self._at.generation(self._record, self._run.generation).order_by("position")
        found = await self._at.connection.query(documents.select(["sequence", "events"]))
        self.found = {one.get("sequence"): alone(one.get("sequence"), one.get("events")) for one in found}
        if self._closing is None:
            self.last = max(self.found, default=0)

    def history(self) -> Sequence[Event]:
        """The events, in order; where documents are missing, without them."""
        blocks, missing = way(self.last, self.found)
        if missing:
            blocks = [self.found[number] for number in sorted(self.found, reverse=True) if 0 < number <= self.last]
        opening = self.found[0].own if self._opening is None and 0 in self.found else self._opening
        texts = [opening, *(block.events for block in reversed(blocks)), self._closing]
        return [event for text in texts if text is not None for event in events_of(text)]

    async def _read_newest(self) -> int:
        """The number of the last document, at least 0."""
        found = await self._at.connection.query(self._at.newest(self._record, self._run.generation))
        self._take(found)
        return int(found[0].get("sequence")) if found else 0

    async def _get(self, numbers: Sequence[int]) -> bool:
        """Read these documents. False: one is not there."""
        generation = self._run.generation
        found = await self._at.connection.get(
            [self._at.document(self._record, generation, number) for number in numbers]
        )
        self._take(one for one in found if one.exists)
        return all(one.exists for one in found)

    def _take(self, documents: Iterable[Any]) -> None:
        for one in documents:
            self.found[one.get("sequence")] = block_of(one.to_dict())


async def _nothing() -> Sequence[Message]:
    return []
