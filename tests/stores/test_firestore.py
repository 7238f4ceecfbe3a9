"""What only the Firestore store promises: what a verb costs, replies that get lost, errors, odd ids, limits.

Documents are counted, and replies lost, at the client's own requests, below everything that the store does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from tests.stores.records import SECOND, T0, TTL, a_message, a_run, happened, let_go, make, make_waiting, opening, take
from tests.stores.wire import Wire
from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.engine.history import Event, LeaseTaken, RunCompleted
from tinyworkflow_core.errors import LeaseLost, PayloadTooLargeError, StoreError, StoreUnavailableError
from tinyworkflow_core.store import GRACE, Commit, DeliveryOutcome, Lease, Release, RunQuery, RunState, Status
from tinyworkflow_core.stores import firestore as firestore_module
from tinyworkflow_core.stores.firestore import FirestoreStore
from tinyworkflow_core.stores.firestore_connection import translated

google_errors: Any = import_module("google.api_core.exceptions")  # untyped: a plain import would not pass mypy
auth_errors: Any = import_module("google.auth.exceptions")

CLOSING = Release(status=Status.COMPLETED, output="1", closed_at=T0)


@pytest.fixture
def project(firestore_emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database of its own for each test."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_emulator)
    return f"test-{fresh_id()}"


@pytest.fixture
async def store(project: str) -> AsyncIterator[FirestoreStore]:
    store = FirestoreStore(project)
    yield store
    await store.close()


@pytest.fixture
async def elsewhere(project: str) -> AsyncIterator[FirestoreStore]:
    """The same database, as another process sees it."""
    store = FirestoreStore(project)
    yield store
    await store.close()


@pytest.fixture
async def wire(store: FirestoreStore) -> Wire:
    return Wire(store._connection.client()._firestore_api)


async def state_of(store: FirestoreStore, run_id: str = "run-1") -> RunState:
    state = await store.load(run_id)
    assert state is not None
    return state


async def documents_of(store: FirestoreStore) -> set[str]:
    """The paths of all documents of the prefix, whatever the store shows of them."""
    client = store._connection.client()
    groups = [client.collection_group(f"tinyworkflow_{name}") for name in ("runs", "history", "inbox", "result")]
    return {snapshot.reference.path for group in groups for snapshot in await group.get()}


# --- what it costs: (documents written, deleted, read) -------------------------------------------------


async def test_creating_a_run_is_one_write(store: FirestoreStore, wire: Wire) -> None:
    await make(store)

    assert wire.spent() == (1, 0, 0)


async def test_taking_a_run_is_one_write_and_one_read(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    wire.spent()

    await take(store)

    assert wire.spent() == (1, 0, 1)


async def test_taking_a_run_from_a_silent_holder_is_two_writes_and_two_reads(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    await take(store)
    wire.spent()

    await take(store, owner="b", now=T0 + TTL)

    assert wire.spent() == (2, 0, 2)


async def test_a_step_is_exactly_one_write_and_no_read(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    lease = await take(store)
    wire.spent()

    await store.commit(lease, Commit(sequence=1, events=(happened(1),)))
    assert wire.spent() == (1, 0, 0)
    await store.commit(lease, Commit(sequence=2, events=(happened(2),)))
    assert wire.spent() == (1, 0, 0)


async def test_a_step_that_consumes_messages_deletes_them_and_reads_nothing(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    for name in ("m-1", "m-2"):
        await store.deliver("run-1", a_message(name))
    lease = await take(store)
    wire.spent()

    await store.commit(lease, Commit(sequence=1, events=(happened(1),), consumed=("m-1", "m-2")))

    assert wire.spent() == (1, 2, 0)


async def test_closing_a_run_is_one_write_and_no_read(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    lease = await take(store)
    wire.spent()

    await store.commit(lease, Commit(sequence=1, events=(happened(1),), release=CLOSING))

    assert wire.spent() == (1, 0, 0)


@pytest.mark.parametrize(("events", "writes"), [((), 1), ((happened(1),), 2)])
async def test_letting_go_writes_the_record_and_what_happened(
    store: FirestoreStore, wire: Wire, events: tuple[Event, ...], writes: int
) -> None:
    await make(store)
    lease = await take(store)
    wire.spent()

    await store.commit(lease, Commit(sequence=1, events=events, release=Release(status=Status.WAITING)))

    assert wire.spent() == (writes, 0, 0)


async def test_renewing_is_one_write_and_one_read(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    lease = await take(store)
    for number in range(3):
        await store.deliver("run-1", a_message(f"m-{number}"))
    wire.spent()

    await store.renew(lease, now=T0, ttl=TTL)
    assert wire.spent() == (1, 0, 1)
    await store.renew(lease, now=T0, ttl=TTL)
    assert wire.spent() == (1, 0, 1)


async def test_delivering_is_one_read_and_one_write_and_leaves_the_record_alone(
    store: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    lease = await take(store)
    wire.spent()

    await store.deliver("run-1", a_message())
    assert wire.spent() == (1, 0, 1)
    await store.deliver("nobody", a_message())
    assert wire.spent() == (0, 0, 1)

    # The holder's next write to the record meets no conflict: it is no hot document.
    await store.renew(lease, now=T0, ttl=TTL)
    assert wire.spent() == (1, 0, 1)


async def test_sending_to_another_run_reads_its_record_once(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    await make(store, "other")
    lease = await take(store)
    wire.spent()
    outbox = (("other", a_message("m-1")), ("other", a_message("m-2")))

    await store.commit(lease, Commit(sequence=1, events=(happened(1),), outbox=outbox))

    assert wire.spent() == (3, 0, 1)


async def test_a_run_of_n_steps_costs_n_and_three_writes_and_five_reads_at_most(
    store: FirestoreStore, wire: Wire
) -> None:
    steps = 10

    await make(store)
    lease = await take(store)
    await store.load("run-1")
    for number in range(1, steps + 1):
        await store.commit(lease, Commit(sequence=number, events=(happened(number),)))
    await store.commit(lease, Commit(sequence=steps + 1, events=(happened(steps + 1),), release=CLOSING))

    written, deleted, read = wire.spent()
    assert (written, deleted) == (steps + 3, 0)
    assert read <= 5
    assert (await state_of(store)).sequence == steps + 1


async def test_looking_for_what_is_due_reads_nothing_that_is_not(store: FirestoreStore, wire: Wire) -> None:
    for number in range(10):
        await make_waiting(store, f"asleep-{number}", wake_at=T0 + timedelta(days=1))
    await make_waiting(store, "late", wake_at=T0)
    wire.spent()

    assert await store.due(now=T0, limit=10) == ["late"]

    assert wire.spent() == (0, 0, 2)  # the one that is due, and an empty query for messages


# --- replies that get lost -----------------------------------------------------------------------------


async def test_a_create_whose_reply_is_lost_is_told_apart_from_a_run_that_exists(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    run, rival = a_run(), a_run(input="2", created_at=T0 + SECOND)

    wire.lose_the_next_reply(lambda: take(elsewhere))  # and the tick is quick
    assert await store.create(run, opening(run))

    wire.lose_the_next_reply()
    assert not await store.create(rival, opening(rival))
    assert (await state_of(store)).run.input == run.input


@pytest.mark.parametrize("from_a_silent_holder", [False, True])
async def test_a_taking_whose_reply_is_lost_is_told_apart_from_somebody_elses(
    store: FirestoreStore, wire: Wire, from_a_silent_holder: bool
) -> None:
    await make(store)
    if from_a_silent_holder:
        await take(store, owner="silent")
    now = T0 + TTL

    wire.lose_the_next_reply()
    lease = await store.acquire("run-1", owner="a", now=now, ttl=TTL)

    assert lease is not None
    assert await store.acquire("run-1", owner="b", now=now, ttl=TTL) is None
    expected = [LeaseTaken(at=now, owner="a", previous_owner="silent")] if from_a_silent_holder else []
    state = await state_of(store)
    assert list(state.history)[1:] == expected
    await store.commit(lease, Commit(sequence=state.sequence + 1, events=(happened(1),)))
    await store.commit(lease, Commit(sequence=state.sequence + 2, events=(happened(2),), release=CLOSING))


async def test_a_taking_that_somebody_else_was_faster_with_is_refused(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)

    wire.before_commit.append(lambda: take(elsewhere, owner="faster"))

    assert await store.acquire("run-1", owner="a", now=T0, ttl=TTL) is None
    assert (await state_of(store)).run.lease_owner == "faster"


async def test_an_old_holder_that_writes_while_its_run_is_taken_wins_or_loses_whole(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    old = await take(elsewhere, owner="old")
    step = Commit(sequence=1, events=(happened(1),))

    wire.before_commit.append(lambda: elsewhere.commit(old, step))
    new = await take(store, owner="new", now=T0 + TTL)

    taken = LeaseTaken(at=T0 + TTL, owner="new", previous_owner="old")
    state = await state_of(store)
    assert list(state.history)[1:] == [happened(1), taken]
    assert state.sequence == state.run.sequence == 2
    with pytest.raises(LeaseLost):
        await elsewhere.commit(old, Commit(sequence=2, events=(happened(2),)))
    with pytest.raises(LeaseLost):
        await elsewhere.commit(old, Commit(sequence=3, events=(happened(3),)))
    await store.commit(new, Commit(sequence=3, events=(happened(3),)))


@pytest.mark.parametrize(
    "release", [None, Release(status=Status.WAITING), Release(status=Status.PAUSED, keep_lease=True), CLOSING]
)
@pytest.mark.parametrize("events", [(), (happened(1),)])
async def test_a_commit_whose_reply_is_lost_happens_once(
    store: FirestoreStore, wire: Wire, release: Release | None, events: tuple[Event, ...]
) -> None:
    await make(store)
    await make(store, "other")
    await store.deliver("run-1", a_message())
    lease = await take(store)
    commit = Commit(
        sequence=1, events=events, consumed=("m-1",), outbox=(("other", a_message("n-1")),), release=release
    )

    wire.lose_the_next_reply()
    await store.commit(lease, commit)

    state = await state_of(store)
    assert list(state.history)[1:] == list(events)
    assert state.run.status is (release.status if release else Status.RUNNING)
    assert list(await store.inbox("other")) == [a_message("n-1")]
    assert list(state.inbox) == []
    if release is None or release.keep_lease:
        await store.commit(lease, Commit(sequence=state.sequence + 1, events=(happened(2),), release=CLOSING))


@pytest.mark.parametrize("events", [(), (happened(1),)])
async def test_a_release_whose_reply_is_lost_succeeds_also_when_the_run_is_taken_meanwhile(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire, events: tuple[Event, ...]
) -> None:
    await make(store)
    lease = await take(store)

    wire.lose_the_next_reply(lambda: take(elsewhere, owner="b"))
    await store.commit(lease, Commit(sequence=1, events=events, release=Release(status=Status.WAITING)))

    assert (await state_of(store)).run.lease_owner == "b"


async def test_a_release_after_the_run_was_taken_is_refused(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    for commit in (
        Commit(sequence=1, release=Release(status=Status.WAITING)),
        Commit(sequence=1, events=(happened(1),), release=Release(status=Status.WAITING)),
        Commit(sequence=1, events=(happened(1),), release=CLOSING),
        Commit(sequence=1, consumed=("m-1",)),
    ):
        now = T0
        lease = await store.acquire("run-1", owner="a", now=now, ttl=TTL)
        assert lease is not None
        sequence = (await state_of(store)).sequence

        wire.before_commit.append(lambda: take(elsewhere, owner="b", now=T0 + TTL))
        with pytest.raises(LeaseLost):
            await store.commit(lease, replace(commit, sequence=sequence + 1))

        state = await state_of(store)
        assert (state.run.lease_owner, state.run.status) == ("b", Status.RUNNING)
        await store.purge("run-1")
        await make(store)


async def test_a_delivery_whose_reply_is_lost_is_told_apart_from_a_duplicate(store: FirestoreStore, wire: Wire) -> None:
    await make(store)

    wire.lose_the_next_reply()
    assert (await store.deliver("run-1", a_message())).outcome is DeliveryOutcome.ACCEPTED

    wire.lose_the_next_reply()
    again = await store.deliver("run-1", a_message(body={"n": 2}))
    assert (again.outcome, again.existing) == (DeliveryOutcome.DUPLICATE, a_message())


async def test_a_delivery_whose_message_is_consumed_before_its_lost_reply_is_accepted_under_the_same_id(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    lease = await take(elsewhere)
    consume = Commit(sequence=1, events=(happened(1),), consumed=("m-1",))

    wire.lose_the_next_reply(lambda: elsewhere.commit(lease, consume))
    delivery = await store.deliver("run-1", a_message())

    # Firestore takes the second create as a new message, the same by its id: the engine knows it and drops it.
    assert delivery.outcome is DeliveryOutcome.ACCEPTED
    assert [message.id for message in await store.inbox("run-1")] == ["m-1"]


async def test_a_renewal_whose_reply_is_lost_still_holds_the_run(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    lease = await take(store)

    wire.lose_the_next_reply()
    await store.renew(lease, now=T0 + SECOND, ttl=TTL)

    assert (await state_of(store)).run.lease_until == T0 + SECOND + TTL
    await let_go(store, lease)


# --- leases that this process has not taken ------------------------------------------------------------


async def test_a_lease_works_in_a_process_that_did_not_take_it(
    store: FirestoreStore, elsewhere: FirestoreStore
) -> None:
    await make(store)
    lease = await take(store)
    await store.commit(lease, Commit(sequence=1, events=(happened(1),)))

    await elsewhere.renew(lease, now=T0, ttl=TTL)
    await elsewhere.commit(lease, Commit(sequence=2, events=(happened(2),)))
    with pytest.raises(LeaseLost):
        await elsewhere.commit(lease, Commit(sequence=2, events=(happened(9),), release=CLOSING))
    await elsewhere.commit(lease, Commit(sequence=3, events=(happened(3),), release=CLOSING))

    assert list((await state_of(store)).history)[1:] == [happened(1), happened(2), happened(3)]


async def test_a_process_that_did_not_take_the_run_lets_it_go_with_its_last_history_document(
    store: FirestoreStore, elsewhere: FirestoreStore
) -> None:
    await make(store)
    lease = await take(store)
    for number in (1, 2):
        await store.commit(lease, Commit(sequence=number, events=(happened(number),)))

    await let_go(elsewhere, lease)

    assert (await state_of(store)).run.sequence == 2


async def test_a_lease_that_was_let_go_writes_nothing_from_anywhere(
    store: FirestoreStore, elsewhere: FirestoreStore
) -> None:
    await make(store)
    lease = await take(store)
    await let_go(store, lease)
    await take(store, owner="b")
    copy = replace(lease)  # what another process would have

    for one in (store, elsewhere):
        for release in (None, Release(status=Status.WAITING), CLOSING):
            with pytest.raises(LeaseLost):
                await one.commit(copy, Commit(sequence=1, events=(happened(1),), release=release))

    assert (await state_of(store)).run.lease_owner == "b"
    assert (await state_of(store)).sequence == 0


async def test_a_step_that_arrives_after_somebody_elses_closing_changes_nothing(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    """A request may be under way for long: its holder has given up, let go, and the next one has closed the run."""
    await make(store)
    lease = await take(store)
    late = Commit(sequence=1, events=(happened(99),))

    async def meanwhile() -> None:
        await let_go(elsewhere, lease)
        await elsewhere.commit(await take(elsewhere), Commit(sequence=1, events=(happened(1),), release=CLOSING))

    wire.before_commit.append(meanwhile)
    await store.commit(lease, late)

    state = await state_of(store)
    assert (list(state.history)[1:], state.sequence) == ([happened(1)], 1)


async def test_a_holder_from_before_a_purge_writes_nothing(store: FirestoreStore) -> None:
    await make(store)
    old = await take(store, owner="old")
    new = await take(store, owner="new", now=T0 + TTL)
    await let_go(store, new)

    await store.purge("run-1")

    with pytest.raises(LeaseLost):
        await store.commit(old, Commit(sequence=1, events=(happened(1),)))
    assert await documents_of(store) == set()


async def test_a_commit_and_a_renewal_at_the_same_time_both_succeed(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    lease = await take(store)

    wire.before_commit.append(lambda: store.renew(lease, now=T0 + SECOND, ttl=TTL))
    await let_go(store, lease)

    assert (await state_of(store)).run.lease_owner is None


# --- messages ------------------------------------------------------------------------------------------


async def test_a_message_that_races_with_the_closing_is_never_seen_and_is_removed_when_it_is_due(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    lease = await take(elsewhere)
    end = Commit(sequence=1, events=(happened(1),), release=CLOSING)

    wire.before_commit.append(lambda: elsewhere.commit(lease, end))
    assert (await store.deliver("run-1", a_message())).outcome is DeliveryOutcome.ACCEPTED

    assert list(await store.inbox("run-1")) == list((await state_of(store)).inbox) == []
    assert len(await documents_of(store)) == 2
    assert await store.due(now=T0 + GRACE, limit=10) == []
    assert len(await documents_of(store)) == 1


async def test_a_message_that_waits_already_when_a_commit_sends_it_stays_as_it_was(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    await make(store, "other")
    lease = await take(store)
    outbox = (("other", a_message("n-1", body={"n": 2})), ("other", a_message("n-2")))

    wire.before_commit.append(lambda: elsewhere.deliver("other", a_message("n-1", body={"n": 1})))
    await store.commit(lease, Commit(sequence=1, events=(happened(1),), outbox=outbox))

    assert list(await store.inbox("other")) == [a_message("n-1", body={"n": 1}), a_message("n-2")]
    assert (await state_of(store)).sequence == 1


async def test_a_waiting_message_is_found_behind_any_number_of_parked_ones(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firestore_module, "PAGE", 2)
    await make_waiting(store, "parked", Status.PARKED)
    await make_waiting(store, "asleep")
    for number in range(5):
        await store.deliver("parked", a_message(f"m-{number}", at=T0 - timedelta(hours=1)))
    await store.deliver("asleep", a_message())

    assert await store.due(now=T0 + GRACE, limit=1) == ["asleep"]


async def test_two_prefixes_in_one_database_know_nothing_of_each_other(project: str) -> None:
    one, other = FirestoreStore(project, collection="one"), FirestoreStore(project, collection="other")
    await make(one)
    await one.deliver("run-1", a_message())

    assert await other.get("run-1") is None
    assert await other.due(now=T0 + GRACE, limit=10) == []
    assert await one.due(now=T0 + GRACE, limit=10) == ["run-1"]
    await one.close()
    await other.close()


# --- ids, limits, purging ------------------------------------------------------------------------------

ODD_IDS = ["a/b", "a%2Fb", "/", ".", "..", "%.", "__x__", "%5F_x__", "____", "", "%", "ü 日", "\0"]
ODD_IDS += ["x" * 3000, "x" * 3001]


async def test_any_text_may_be_the_id_of_a_run_or_a_message(store: FirestoreStore) -> None:
    for name in ODD_IDS:
        await make(store, name)
        for message_id in ODD_IDS:
            assert (await store.deliver(name, a_message(message_id))).outcome is DeliveryOutcome.ACCEPTED

    for name in ODD_IDS:
        assert (await state_of(store, name)).run.run_id == name
        assert {message.id for message in await store.inbox(name)} == set(ODD_IDS)
    assert {run.run_id for run in (await store.list(RunQuery())).items} == set(ODD_IDS)
    assert set(await store.due(now=T0 + GRACE, limit=100)) == set(ODD_IDS)
    lease = await take(store, "a/b")
    await store.commit(lease, Commit(sequence=1, events=(happened(1),), consumed=tuple(ODD_IDS)))
    assert list(await store.inbox("a/b")) == []


async def test_a_run_may_have_a_large_input_and_a_large_output(store: FirestoreStore, wire: Wire) -> None:
    """Each fits into a document; together, or beside the events that repeat them, they do not."""
    large_input, large_output = '"' + "i" * 900_000 + '"', '"' + "o" * 900_000 + '"'
    run = await make(store, input=large_input)
    lease = await take(store)
    finished = RunCompleted(at=T0, output=large_output)

    wire.lose_the_next_reply()
    release = Release(status=Status.COMPLETED, output=large_output, closed_at=T0)
    await store.commit(lease, Commit(sequence=1, events=(finished,), release=release))

    state = await state_of(store)
    assert list(state.history) == [*opening(run), finished]
    assert (state.run.input, state.run.output, state.sequence) == (large_input, large_output, 1)
    assert await store.get("run-1") == state.run
    assert list((await store.list(RunQuery())).items) == [state.run]
    await store.purge("run-1")
    assert await documents_of(store) == set()


async def test_what_is_over_firestores_limits_is_refused_before_anything_is_sent(
    store: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    await make(store, "other")
    lease = await take(store)
    wire.spent()
    many = tuple(("other", a_message(f"m-{number}", body={"x": "x" * 900_000})) for number in range(5))

    with pytest.raises(PayloadTooLargeError):
        await store.deliver("run-1", a_message(body={"x": "x" * 1_100_000}))
    with pytest.raises(PayloadTooLargeError):
        await store.commit(lease, Commit(sequence=1, events=(happened(1),), outbox=many))
    with pytest.raises(PayloadTooLargeError):
        await make(store, "too-large", input="x" * 1_100_000)

    assert wire.spent()[0] == 0


async def test_a_purge_leaves_no_document_however_many_there_are(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firestore_module, "PAGE", 2)
    await make(store)
    lease = await take(store)
    for number in range(1, 8):
        await store.commit(lease, Commit(sequence=number, events=(happened(number),)))
    for number in range(5):
        await store.deliver("run-1", a_message(f"m-{number}"))
    assert len(await documents_of(store)) == 13

    await store.purge("run-1")

    assert await documents_of(store) == set()


# --- errors and loops ----------------------------------------------------------------------------------


async def test_a_firestore_that_is_out_of_reach_is_said_to_be_so_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    store = FirestoreStore("nowhere")
    run = a_run()
    lease = Lease(run_id="run-1", owner="a", token="t", until=T0, generation=0)
    begun = time.monotonic()

    answers = await asyncio.gather(
        store.create(run, opening(run)),
        store.load("run-1"),
        store.acquire("run-1", owner="a", now=T0, ttl=TTL),
        store.renew(lease, now=T0, ttl=TTL),
        store.commit(lease, Commit(sequence=1, events=(happened(1),))),
        store.deliver("run-1", a_message()),
        store.due(now=T0, limit=1),
        store.list(RunQuery()),
        store.purge("run-1"),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 9
    assert time.monotonic() - begun < 10
    await store.close()


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (google_errors.ServiceUnavailable("x"), StoreUnavailableError),
        (google_errors.DeadlineExceeded("x"), StoreUnavailableError),
        (google_errors.Aborted("x"), StoreUnavailableError),
        (google_errors.ResourceExhausted("x"), StoreUnavailableError),
        (google_errors.InternalServerError("x"), StoreUnavailableError),
        (google_errors.Unknown("x"), StoreUnavailableError),
        (google_errors.RetryError("x", google_errors.ServiceUnavailable("y")), StoreUnavailableError),
        (auth_errors.TransportError("x"), StoreUnavailableError),
        (auth_errors.RefreshError("x"), StoreUnavailableError),
        (google_errors.PermissionDenied("x"), StoreError),
        (google_errors.InvalidArgument("x"), StoreError),
        (google_errors.FailedPrecondition("the query requires an index"), StoreError),
        (google_errors.MethodNotImplemented("x"), StoreError),
        (auth_errors.DefaultCredentialsError("x"), StoreError),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_every_error_of_the_driver_becomes_one_of_ours(error: Exception, ours: type[Exception]) -> None:
    with pytest.raises(StoreError) as caught, translated():
        raise error

    assert type(caught.value) is ours
    assert caught.value.__cause__ is error


def test_a_store_serves_one_event_loop_after_another_also_when_none_was_closed(project: str) -> None:
    store = FirestoreStore(project)
    lease = asyncio.run(_made_and_taken(store))

    asyncio.run(store.commit(lease, Commit(sequence=1, events=(happened(1),))))
    state = asyncio.run(state_of(store))

    assert state.sequence == 1
    assert len(store._connection._clients) == 1  # those of ended loops are let go
    asyncio.run(store.close())


async def _made_and_taken(store: FirestoreStore) -> Lease:
    await make(store)
    return await take(store)


def test_the_module_and_the_store_import_nothing_of_google() -> None:
    code = (
        "import sys; from tinyworkflow_core.stores import open_store; store = open_store('firestore://project');"
        "print([name for name in sys.modules if name.startswith(('google.cloud.f', 'google.a', 'google.p', 'grpc'))])"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
