"""The indexes of infra/firestore.tf against what the Firestore store really asks and writes, recorded on the emulator.

The emulator answers every query without an index, so one that is missing would be seen in production and nowhere else.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests.infra.terraform import Plan
from tests.stores.records import SECOND, T0, a_message, a_run, happened, let_go, make, opening, take
from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.schedule_store import Schedule
from tinyworkflow_core.serialization import Failure
from tinyworkflow_core.store import Commit, Release, RunQuery, Status
from tinyworkflow_core.stores import firestore, firestore_loading
from tinyworkflow_core.stores.firestore import FirestoreStore
from tinyworkflow_core.stores.firestore_connection import Connection

STORES = Path(firestore.__file__).parent
NAME = "__name__"


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a query needs an index for."""

    collection: str
    scope: str
    equal: frozenset[str]
    sorted_by: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, asked: Any) -> Query:
        """Of Firestore's own message; a name at the end sorts every index anyway."""
        [source] = asked.from_
        filters = [one.field_filter for one in asked.where.composite_filter.filters] or [asked.where.field_filter]
        given = {one.field.field_path: one.op.name for one in filters if one.field.field_path}
        order = [(one.field.field_path, one.direction.name) for one in asked.order_by]
        assert set(given.values()) <= {"EQUAL", "LESS_THAN", "LESS_THAN_OR_EQUAL", "GREATER_THAN_OR_EQUAL"}
        ranges = {path for path, op in given.items() if op != "EQUAL"}
        assert ranges <= {path for path, _ in order[:1]}, "say here which index a range on another field needs"
        return cls(
            collection=source.collection_id,
            scope="COLLECTION_GROUP" if source.all_descendants else "COLLECTION",
            equal=frozenset(path for path, op in given.items() if op == "EQUAL"),
            sorted_by=tuple(one for one in order if one[0] != NAME),
        )


@dataclass
class Recorded:
    """All that the store asked and wrote."""

    queries: set[Query] = field(default_factory=set)
    asked_at: set[tuple[str, int]] = field(default_factory=set)
    written: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Collection -> top-level fields."""


@pytest.fixture
async def recorded(firestore_emulator: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Recorded]:
    """A store that is made to do everything that it can do."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_emulator)
    log = Recorded()
    ask = Connection.query

    def query(self: Connection, asked: Any) -> Coroutine[Any, Any, list[Any]]:
        caller = sys._getframe(1)
        log.asked_at.add((Path(caller.f_code.co_filename).name, caller.f_lineno))
        counted = getattr(asked, "_nested_query", asked)
        whole = getattr(counted, "_query", lambda: counted)()  # a bare collection makes its query late
        log.queries.add(Query.of(whole._to_protobuf()))
        return ask(self, asked)

    monkeypatch.setattr(Connection, "query", query)
    store = FirestoreStore(f"test-{fresh_id()}")
    await store.get("nobody")  # connects
    api = store._connection.client()._firestore_api
    send = api.commit

    async def commit(*, request: dict[str, Any], **kwargs: Any) -> Any:
        for write in request["writes"]:
            document = write["update"] if isinstance(write, dict) else write.update
            if document.name:
                log.written[document.name.split("/")[-2]].update(document.fields)
        return await send(request=request, **kwargs)

    api.commit = commit
    await _do_everything(store)
    yield log
    await store.close()


async def _do_everything(store: FirestoreStore) -> None:
    run = a_run("run-1", parent_run_id="parent", attributes={"customer": "ada"})
    assert await store.create(run, opening(run))
    lease = await take(store)
    await store.deliver("run-1", a_message())
    await store.renew(lease, now=T0, ttl=10 * SECOND)
    await store.commit(lease, Commit(sequence=1, events=(happened(1),), consumed=("m-1",)))
    await store.commit(lease, Commit(sequence=2, events=(happened(2),)))  # with a copy of the first
    later = T0 + timedelta(hours=1)
    again = await store.acquire("run-1", owner="b", now=later, ttl=10 * SECOND)  # from a silent holder
    assert again is not None
    await store.commit(
        again.lease, Commit(sequence=0, release=Release(status=Status.PENDING, next_generation=(happened(2),)))
    )
    lease = await take(store, now=later)
    failure, large = Failure(type="ValueError", message="no"), '"' + "x" * 600_000 + '"'
    ended = Release(status=Status.FAILED, closed_at=later, output=large, error=failure)
    await store.commit(lease, Commit(sequence=1, events=(happened(3, large),), release=ended))
    await store.load("run-1")
    await store.inbox("run-1")
    assert await store.reopen("run-1", sequence=2, events=(happened(4),), retry_count=1, now=later)
    with patch.object(firestore_loading, "MANY", 0):
        await store.load("run-1")
    await make(store, "run-2")
    await let_go(store, await take(store, "run-2"), wake_at=T0)
    await store.deliver("run-2", a_message())
    assert await store.due(now=later, limit=10)
    for query in _all_lists():
        await store.list(query)
        await store.count(query, most=10)
    await store.find("run", by="run_id", limit=10)
    await store.find("of", by="workflow_id", limit=10)
    await store.purge("run-2")
    schedule = Schedule(id="s", workflow="w", timing={"kind": "interval"}, created_at=T0, etag="1", due_at=T0)
    await store.schedules.put(schedule, expected=None)
    await store.schedules.due(now=T0, limit=10)
    await store.schedules.list(after="a")


def _all_lists() -> Sequence[RunQuery]:
    """Every filter alone, and every two of them."""
    values: Mapping[str, Any] = {
        "status": Status.FAILED,
        "name": "order",
        "workflow_id": "of-run-1",
        "started_after": T0,
        "started_before": T0,
        "attributes": {"customer": "ada"},
        "open_approvals": True,
        "parent_run_id": "parent",
    }
    assert values.keys() == {one.name for one in fields(RunQuery)} - {"limit", "offset", "cursor"}
    pairs = [*combinations(values, 1), *combinations(values, 2)]
    return [RunQuery(), *(RunQuery(**{name: values[name] for name in pair}) for pair in pairs)]


@dataclass
class Indexes:
    """What infra/ declares."""

    single: dict[tuple[str, str], set[tuple[str, str]]]
    """(collection, field) -> (scope, order); what is not here has what Firestore makes by itself."""
    composite: set[tuple[str, str, tuple[tuple[str, str], ...]]]

    @classmethod
    def of(cls, plan: Plan) -> Indexes:
        single: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for one in plan.all("google_firestore_field"):
            [config] = one.values["index_config"]
            declared = {(index["query_scope"], index["order"]) for index in config["indexes"]}
            single[one.values["collection"], one.values["field"]] = declared
        composite = {
            (one.values["collection"], one.values["query_scope"],
             tuple((part["field_path"], part["order"]) for part in one.values["fields"]))
            for one in plan.all("google_firestore_index")
        }  # fmt: skip
        return cls(single, composite)

    def serve(self, query: Query) -> bool:
        """Whether the query has its index. Several equalities are merged from one index each."""
        if query.equal:
            return all(
                (query.collection, query.scope, ((path, "ASCENDING"), *query.sorted_by)) in self.composite
                for path in query.equal
            )
        if not query.sorted_by:
            return query.scope == "COLLECTION"  # by the names of the documents
        if len(query.sorted_by) > 1:
            return (query.collection, query.scope, query.sorted_by) in self.composite
        [(path, order)] = query.sorted_by
        by_itself = {("COLLECTION", "ASCENDING"), ("COLLECTION", "DESCENDING")}
        return (query.scope, order) in self.single.get((query.collection, path), by_itself)

    def used(self, query: Query) -> set[Any]:
        """The declared indexes that this query is served from."""
        if query.equal:
            return {(query.collection, query.scope, ((path, "ASCENDING"), *query.sorted_by)) for path in query.equal}
        if len(query.sorted_by) > 1:
            return {(query.collection, query.scope, query.sorted_by)}
        return {(query.collection, path, query.scope, order) for path, order in query.sorted_by}


async def test_every_query_has_its_index_and_every_index_its_query(recorded: Recorded, plan: Plan) -> None:
    declared = Indexes.of(plan)
    assert [query for query in recorded.queries if not declared.serve(query)] == []
    used = {index for query in recorded.queries for index in declared.used(query)}
    single = {(*place, *index) for place, indexes in declared.single.items() for index in indexes}
    assert (declared.composite | single) - used == set(), "each makes writes slower and larger"


async def test_no_query_of_the_store_went_unseen(recorded: Recorded) -> None:
    asking = {
        (file.name, number)
        for file in STORES.glob("firestore*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"connection\.query\(", line)
    }
    assert asking - recorded.asked_at == set(), "make _do_everything ask these, too"


async def test_what_no_query_asks_for_has_no_index(recorded: Recorded, plan: Plan) -> None:
    declared = Indexes.of(plan)
    stored = {(collection, name) for collection, names in recorded.written.items() for name in names}
    assert {collection.removeprefix("tinyworkflow_") for collection in recorded.written} == {
        "runs", "history", "inbox", "result", "schedules",
    }  # fmt: skip
    assert sorted(stored - declared.single.keys()) == [], "index or exempt them in infra/firestore.tf"
    assert sorted(declared.single.keys() - stored) == [], "nothing stores them"


def test_nothing_that_is_stored_is_removed_by_a_time_to_live(plan: Plan) -> None:
    """No field is a moment at which its document may go: `closed_at` would take every run a day after its end."""
    assert [one.values["field"] for one in plan.all("google_firestore_field") if one.values["ttl_config"]] == []
