"""What only the Firestore store promises: what a verb costs, replies that get lost, errors, odd ids, limits.

Documents are counted, and replies lost, at the client's own requests, below everything that the store does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from tests.stores.records import SECOND, T0, TTL, a_message, a_run, happened, let_go, make, make_waiting, opening, take
from tests.stores.wire import Wire
from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.engine.history import Event, LeaseTaken, RunCompleted, SideEffectRecorded
from tinyworkflow_core.errors import LeaseLost, PayloadTooLargeError, RunExistsError, StoreError, StoreUnavailableError
from tinyworkflow_core.store import (
    GRACE,
    Commit,
    DeliveryOutcome,
    Lease,
    NewRun,
    Release,
    RunQuery,
    RunState,
    Status,
)
from tinyworkflow_core.stores import firestore as firestore_module
from tinyworkflow_core.stores import (
    firestore_blocks,
    firestore_generations,
    firestore_leases,
    firestore_loading,
    firestore_reopening,
)
from tinyworkflow_core.stores.firestore import FirestoreStore
from tinyworkflow_core.stores.firestore_connection import translated
from tinyworkflow_core.stores.firestore_documents import MAX_COMMIT_BYTES, events_text

google_errors: Any = import_module("google.api_core.exceptions")  # untyped: a plain import would not pass mypy
auth_errors: Any = import_module("google.auth.exceptions")

CLOSING = Release(status=Status.COMPLETED, output="1", closed_at=T0)
GOING_ON = Release(status=Status.PENDING, next_generation=(happened(100),))
CHILD = NewRun(run=a_run("child"), events=tuple(opening(a_run("child"))))
ANOTHER = NewRun(run=a_run("another"), events=tuple(opening(a_run("another"))))


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


async def reopen(store: FirestoreStore, sequence: int, *, number: int = 50) -> bool:
    return await store.reopen("run-1", sequence=sequence, events=[happened(number)], retry_count=1, now=T0)


async def field_of(store: FirestoreStore, name: str) -> Any:
    """A field of the record as it stands in Firestore."""
    return (await store._at.record("run-1").get()).get(name)


async def documents_of(store: FirestoreStore) -> set[str]:
    """The paths of all documents of the prefix, whatever the store shows of them."""
    client = store._connection.client()
    groups = [client.collection_group(f"tinyworkflow_{name}") for name in ("runs", "history", "inbox", "result")]
    return {snapshot.reference.path for group in groups for snapshot in await group.get()}


# --- what it costs: (documents written, deleted, read) -------------------------------------------------


async def test_creating_a_run_is_one_write(store: FirestoreStore, wire: Wire) -> None:
    await make(store)

    assert wire.spent() == (1, 0, 0)


async def test_taking_and_reading_a_run_is_one_write_and_three_reads(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    wire.spent()

    await take(store)

    assert wire.spent() == (1, 0, 3)  # the record, and two empty looks: for its history, and its inbox


async def test_taking_and_reading_a_run_of_a_silent_holder_is_two_writes_and_four_reads(
    store: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    await take(store)
    wire.spent()

    await take(store, owner="b", now=T0 + TTL)

    assert wire.spent() == (2, 0, 4)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_taking_that_is_cancelled_while_it_reads_hands_the_run_back(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    await make(store)
    begun = asyncio.Event()

    async def never_ends(*args: Any, **options: Any) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    with monkeypatch.context() as reading:
        reading.setattr(firestore_module, "load", never_ends)
        taking = asyncio.ensure_future(store.acquire("run-1", owner="a", now=T0, ttl=TTL))
        await begun.wait()
        for _ in range(times):
            taking.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await taking

    for _ in range(500):
        run = (await state_of(store)).run
        if run.lease_owner is None:
            break
        await asyncio.sleep(0.01)  # who was cancelled twice does not wait for it
    assert (run.lease_owner, run.status, run.wake_at) == (None, Status.PENDING, T0)


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


async def test_a_run_of_n_steps_costs_n_and_three_writes_and_four_reads_at_most(
    store: FirestoreStore, wire: Wire
) -> None:
    steps = 10

    await make(store)
    lease = await take(store)
    for number in range(1, steps + 1):
        await store.commit(lease, Commit(sequence=number, events=(happened(number),)))
    await store.commit(lease, Commit(sequence=steps + 1, events=(happened(steps + 1),), release=CLOSING))

    written, deleted, read = wire.spent()
    assert (written, deleted) == (steps + 3, 0)
    assert read <= 4
    assert (await state_of(store)).sequence == steps + 1


async def test_going_on_as_the_next_generation_is_one_write_and_a_removal_of_what_was(
    store: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    lease = await take(store)
    for number in (1, 2):
        await store.commit(lease, Commit(sequence=number, events=(happened(number),)))
    wire.spent()

    await store.commit(lease, Commit(sequence=3, events=(happened(3),), release=GOING_ON))
    assert wire.spent() == (1, 2, 2)

    await store.commit(await take(store), Commit(sequence=1, release=GOING_ON))
    assert wire.spent() == (2, 0, 4)  # the taking, and the empty look for what was


async def test_a_commit_that_creates_runs_writes_each_of_them_and_reads_nothing(
    store: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    lease = await take(store)
    wire.spent()

    await store.commit(
        lease,
        Commit(sequence=1, events=(happened(1),), new_runs=(CHILD, ANOTHER), outbox=(("child", a_message()),)),
    )

    assert wire.spent() == (4, 0, 0)


async def test_opening_a_run_again_writes_the_record_the_events_and_the_end(store: FirestoreStore, wire: Wire) -> None:
    await make(store)
    await store.commit(await take(store), Commit(sequence=1, events=(happened(1),), release=CLOSING))
    wire.spent()

    assert await reopen(store, 2)

    assert wire.spent() == (3, 0, 4)
    assert await field_of(store, "closing") is None  # it would be kept twice


async def test_looking_for_what_is_due_reads_nothing_that_is_not(store: FirestoreStore, wire: Wire) -> None:
    for number in range(10):
        await make_waiting(store, f"asleep-{number}", wake_at=T0 + timedelta(days=1))
    await make_waiting(store, "late", wake_at=T0)
    wire.spent()

    assert await store.due(now=T0, limit=10) == ["late"]

    assert wire.spent() == (0, 0, 2)  # the one that is due, and an empty query for messages


# --- long histories --------------------------------------------------------------------------------------


async def steps(store: FirestoreStore, lease: Lease, numbers: Iterable[int]) -> None:
    """So many commits of one event each, which carries its number."""
    for number in numbers:
        await store.commit(lease, Commit(sequence=number, events=(happened(number),)))


async def write_steps(store: FirestoreStore, last: int) -> None:
    """The documents that `steps` would make, 100 in one request."""
    tail, record, writes = firestore_blocks.Tail(last=0), store._at.record("run-1"), []
    for number in range(1, last + 1):
        block = tail.next(number, events_text([happened(number)]))
        tail = tail.followed_by(block)
        writes.append(store._at.event_document(record, 0, block, f"token:{number}"))
        if number % 100 == 0:
            await store._connection.commit(writes)
            writes.clear()


async def covered(store: FirestoreStore) -> dict[int, int]:
    """How many commits each history document of the first generation holds."""
    found = [one.to_dict() for one in await store._at.history(store._at.record("run-1")).get()]
    return {one["sequence"]: one["sequence"] - one.get("first", one["sequence"]) + 1 for one in found}


async def test_a_run_of_1000_steps_is_resumed_by_another_process_with_less_than_twenty_reads(
    store: FirestoreStore, wire: Wire, elsewhere: FirestoreStore
) -> None:
    await make(elsewhere)
    silent = await take(elsewhere, owner="silent")
    await write_steps(elsewhere, 1000)

    taken = await store.acquire("run-1", owner="b", now=silent.until, ttl=TTL)  # the fence is number 1001
    assert taken is not None
    state = taken.state
    assert state is not None
    await steps(store, taken.lease, range(1002, 1024))
    await let_go(store, taken.lease)
    spent = wire.spent()
    print(f"\nresumed after 1,000 steps: {spent[2]} read")

    # The record, its last document for the fence, the fence, the inbox, and 1000 = 3 * 256 + 128 + 64 + 32 + 8.
    assert spent == (2 + 22 + 1, 0, 4 + 3 + 4)
    assert [event.id for event in state.history if isinstance(event, SideEffectRecorded)] == list(range(1, 1001))
    assert state.sequence == 1001
    wire.spent()
    numbers = [one.id for one in (await state_of(store)).history if isinstance(one, SideEffectRecorded)]
    assert numbers == [*range(1, 1001), *range(1002, 1024)]
    assert wire.spent()[2] <= 20


async def test_the_documents_of_a_holder_that_has_loaded_the_run_hold_as_much_as_those_of_the_one_before(
    store: FirestoreStore, elsewhere: FirestoreStore
) -> None:
    expected = {number: number & -number for number in range(1, 25)}
    await make(store)
    for begin in range(1, 25, 6):
        for one, first in ((store, begin), (elsewhere, begin + 3)):
            lease = await take(one)
            await state_of(one)
            await steps(one, lease, range(first, first + 3))
            await let_go(one, lease)

    assert await covered(store) == expected
    assert [one.id for one in (await state_of(store)).history[1:] if isinstance(one, SideEffectRecorded)] == [*expected]


async def test_whoever_knows_nothing_of_the_history_copies_nothing_of_it(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it read anything to find out: a step stays one write."""

    async def out_of_reach(*args: Any, **options: Any) -> None:
        raise StoreUnavailableError("once the lease was taken")

    await make(elsewhere)
    lease = await take(elsewhere)
    await steps(elsewhere, lease, range(1, 4))
    await let_go(elsewhere, lease)
    with monkeypatch.context() as taking:
        taking.setattr(firestore_module, "load", out_of_reach)
        taken = await store.acquire("run-1", owner="a", now=T0, ttl=TTL)
    assert taken is not None
    assert taken.state is None
    await state_of(elsewhere)  # by another process
    wire.spent()

    await steps(store, taken.lease, range(4, 9))

    assert wire.spent() == (5, 0, 0)
    assert await covered(store) == {1: 1, 2: 2, 3: 1, 4: 1, 5: 1, 6: 2, 7: 1, 8: 5}
    assert [one.id for one in (await state_of(store)).history[1:] if isinstance(one, SideEffectRecorded)] == [
        *range(1, 9)
    ]


@pytest.mark.parametrize("last", range(9))
async def test_a_silent_holder_is_refused_at_every_position_after_its_run_was_taken(
    store: FirestoreStore, elsewhere: FirestoreStore, last: int
) -> None:
    await make(store)
    silent = await take(elsewhere, owner="silent")
    await steps(elsewhere, silent, range(1, last + 1))
    lease = await take(store, now=silent.until)
    await state_of(store)
    before = await documents_of(store)

    for number in (last + 1, last + 2, last + 3):
        with pytest.raises(LeaseLost):
            await elsewhere.commit(silent, Commit(sequence=number, events=(happened(99),)))
    assert await documents_of(store) == before

    await steps(store, lease, range(last + 2, 13))
    with pytest.raises(LeaseLost):
        await elsewhere.commit(silent, Commit(sequence=13, events=(happened(99),)))
    taken = LeaseTaken(at=silent.until, owner="a", previous_owner="silent")
    expected = [happened(number) if number != last + 1 else taken for number in range(1, 13)]
    assert list((await state_of(elsewhere)).history)[1:] == expected


@pytest.mark.parametrize("number", range(1, 9))
async def test_a_step_whose_reply_is_lost_is_in_no_copy_twice(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire, number: int
) -> None:
    await make(store)
    lease = await take(store)
    await steps(store, lease, range(1, number))

    wire.lose_the_next_reply()
    await steps(store, lease, [number])
    again = Commit(sequence=number, events=(happened(number),))
    await store.commit(lease, again)
    await elsewhere.commit(lease, again)  # by a process that would have written other copies
    await steps(store, lease, range(number + 1, 17))

    assert list((await state_of(elsewhere)).history)[1:] == [happened(one) for one in range(1, 17)]


async def test_a_renewal_that_meets_a_lost_reply_forgets_nothing_of_the_history(
    store: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    lease = await take(store)
    await steps(store, lease, range(1, 4))

    wire.lose_the_next_reply()
    await store.renew(lease, now=T0 + SECOND, ttl=TTL)
    await steps(store, lease, [4])

    assert (await covered(store))[4] == 4


async def test_a_load_that_is_slower_than_a_commit_takes_nothing_of_it_back(
    store: FirestoreStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(store)
    lease = await take(store)
    await steps(store, lease, range(1, 4))
    query, late = store._connection.query, [4]

    async def then_commit(wanted: Any) -> list[Any]:
        found = await query(wanted)
        while found and late:  # the inbox is empty
            await steps(store, lease, [late.pop()])
        return found

    with monkeypatch.context() as slow:
        slow.setattr(store._connection, "query", then_commit)
        await state_of(store)
    wire.spent()
    await steps(store, lease, range(5, 9))

    assert wire.spent() == (4, 0, 0)
    assert (await covered(store))[8] == 8


async def test_what_is_read_of_a_run_that_somebody_else_holds_is_not_kept(
    store: FirestoreStore, elsewhere: FirestoreStore
) -> None:
    await make(store)
    lease = await take(elsewhere)
    await steps(elsewhere, lease, range(1, 4))
    await let_go(elsewhere, lease)
    lease = await take(store)
    await let_go(elsewhere, replace(lease))  # by another process, so that this one does not know

    later = await take(elsewhere, owner="b")
    [held] = store._leases._held.values()
    known = held.tail
    await state_of(store)

    assert held.tail is known
    await steps(elsewhere, later, [4])
    with pytest.raises(LeaseLost):
        await steps(store, lease, [4])


async def test_documents_of_an_older_release_are_read_and_copied_like_others(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = firestore_blocks.Tail.next
    with monkeypatch.context() as before:
        before.setattr(firestore_blocks.Tail, "next", lambda _, sequence, text: firestore_blocks.alone(sequence, text))
        await make(elsewhere)
        lease = await take(elsewhere)
        await steps(elsewhere, lease, range(1, 31))
        await let_go(elsewhere, lease)
    assert firestore_blocks.Tail.next is older
    assert set((await covered(elsewhere)).values()) == {1}

    lease = await take(store)
    assert list((await state_of(store)).history)[1:] == [happened(number) for number in range(1, 31)]
    await steps(store, lease, [31, 32])
    await let_go(store, lease)
    assert (await covered(store))[32] == 32
    wire.spent()
    assert list((await state_of(store)).history)[1:] == [happened(number) for number in range(1, 33)]
    assert wire.spent()[2] == 3  # the record, the last document, the inbox


async def test_a_long_history_without_copies_is_read_in_one_query(
    store: FirestoreStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firestore_loading, "MANY", 5)
    monkeypatch.setattr(firestore_blocks.Tail, "next", lambda _, number, text: firestore_blocks.alone(number, text))
    await make(store)
    lease = await take(store)
    await steps(store, lease, range(1, 33))
    await let_go(store, lease)
    wire.spent()

    assert list((await state_of(store)).history)[1:] == [happened(number) for number in range(1, 33)]

    assert wire.spent()[2] == 1 + 1 + 1 + 5 + 32  # the record, the inbox, the last; 31 and four before it; all


async def test_copies_never_make_a_commit_too_large(store: FirestoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(store)
    await make(store, "other")
    lease = await take(store)
    await store.commit(lease, Commit(sequence=1, events=(happened(1, '"' + "x" * 100_000 + '"'),)))
    room = MAX_COMMIT_BYTES - 50_000
    outbox = tuple(("other", a_message(f"m-{number}", body={"x": "x" * (room // 5)})) for number in range(5))

    await store.commit(lease, Commit(sequence=2, events=(happened(2),), outbox=outbox))
    await steps(store, lease, [3, 4])

    assert await covered(store) == {1: 1, 2: 1, 3: 1, 4: 4}
    assert [one.id for one in (await state_of(store)).history[1:] if isinstance(one, SideEffectRecorded)] == [
        1,
        2,
        3,
        4,
    ]


async def test_what_a_process_keeps_of_histories_goes_with_the_lease(store: FirestoreStore) -> None:
    await make(store)
    lease = await take(store)
    await steps(store, lease, range(1, 8))
    [held] = store._leases._held.values()
    assert [part.first for part in held.tail.parts] == [1, 5, 7]

    await let_go(store, lease)
    assert held.tail.parts == ()
    again = await take(store)
    await state_of(store)
    assert [len(one.tail.parts) for one in store._leases._held.values()] == [0, 3]
    await store.purge("run-1")
    assert [len(one.tail.parts) for one in store._leases._held.values()] == [0, 0]
    del lease, again
    assert not store._leases._held


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
    taken = await store.acquire("run-1", owner="a", now=now, ttl=TTL)

    assert taken is not None
    assert await store.acquire("run-1", owner="b", now=now, ttl=TTL) is None
    expected = [LeaseTaken(at=now, owner="a", previous_owner="silent")] if from_a_silent_holder else []
    state = await state_of(store)
    assert list(state.history)[1:] == expected
    await store.commit(taken.lease, Commit(sequence=state.sequence + 1, events=(happened(1),)))
    await store.commit(taken.lease, Commit(sequence=state.sequence + 2, events=(happened(2),), release=CLOSING))


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
        lease = await take(store, now=now)
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


@pytest.mark.parametrize("release", [None, Release(status=Status.WAITING), CLOSING, GOING_ON])
@pytest.mark.parametrize("then", ["nothing", "child taken", "run taken", "child purged"])
async def test_a_commit_that_creates_runs_and_whose_reply_is_lost_happens_once(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire, release: Release | None, then: str
) -> None:
    await make(store)
    lease = await take(store)
    commit = Commit(sequence=1, events=(happened(1),), new_runs=(CHILD, ANOTHER), release=release)

    async def meanwhile() -> None:
        if then == "child taken":
            await elsewhere.commit(await take(elsewhere, "child"), Commit(sequence=1, events=(happened(7),)))
        if then == "run taken" and release is not CLOSING:
            await take(elsewhere, owner="b", now=T0 + TTL)
        if then == "child purged":
            await elsewhere.purge("child")

    wire.lose_the_next_reply(meanwhile)
    await store.commit(lease, commit)

    assert (await state_of(store, "another")).run == ANOTHER.run
    expected = {"child taken": 1, "child purged": None}.get(then, 0)
    child = await store.load("child")
    assert (child.sequence if child else None) == expected
    assert (await state_of(store)).history.count(happened(1)) == (0 if release is GOING_ON else 1)


async def test_a_run_that_somebody_else_creates_in_between_refuses_the_commit(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    lease = await take(store)

    wire.before_commit.append(lambda: make(elsewhere, "another"))
    with pytest.raises(RunExistsError, match="another"):
        await store.commit(lease, Commit(sequence=1, events=(happened(1),), new_runs=(CHILD, ANOTHER)))

    assert await store.get("child") is None
    await store.commit(lease, Commit(sequence=1, events=(happened(1),), new_runs=(CHILD,)))


async def test_a_commit_that_creates_other_runs_is_another_commit(store: FirestoreStore) -> None:
    await make(store)
    lease = await take(store)
    await store.commit(lease, Commit(sequence=1, events=(happened(1),), new_runs=(CHILD,)))

    with pytest.raises(LeaseLost):
        await store.commit(lease, Commit(sequence=1, events=(happened(1),), new_runs=(ANOTHER,)))


@pytest.mark.parametrize("then", ["nothing", "taken", "released", "gone on"])
@pytest.mark.parametrize("events", [(), (happened(1),)])
async def test_going_on_whose_reply_is_lost_happens_once(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire, events: tuple[Event, ...], then: str
) -> None:
    await make(store)
    lease = await take(store)
    await store.commit(lease, Commit(sequence=1, events=(happened(1),)))

    async def meanwhile() -> None:
        if then != "nothing":
            later = await take(elsewhere, owner="b")
            await elsewhere.commit(later, Commit(sequence=1, events=(happened(2),)))
            if then == "released":
                await let_go(elsewhere, later)
            if then == "gone on":
                await elsewhere.commit(later, Commit(sequence=2, release=GOING_ON))

    wire.lose_the_next_reply(meanwhile)
    commit = Commit(sequence=2, events=events, release=GOING_ON)
    if then == "gone on":  # what tells is gone, and whoever is told so has nothing left to do
        with pytest.raises(LeaseLost):
            await store.commit(lease, commit)
    else:
        await store.commit(lease, commit)

    state = await state_of(store)
    assert state.run.generation == (2 if then == "gone on" else 1)
    assert list(state.history) == [happened(100), *([happened(2)] if then in ("taken", "released") else [])]
    generations = {path.rsplit("/", 1)[1].split("-")[0] for path in await documents_of(store) if "_history/" in path}
    assert generations <= {"00000001"}  # the repetition has tidied up


@pytest.mark.parametrize("then", ["nothing", "taken", "closed"])
async def test_an_opening_again_whose_reply_is_lost_happens_once(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire, then: str
) -> None:
    await make(store)
    await store.commit(await take(store), Commit(sequence=1, events=(happened(1),), release=CLOSING))

    async def meanwhile() -> None:
        if then != "nothing":
            later = await take(elsewhere, owner="b")
            if then == "closed":
                await elsewhere.commit(later, Commit(sequence=3, events=(happened(3),), release=CLOSING))

    wire.lose_the_next_reply(meanwhile)
    assert await reopen(store, 2)

    state = await state_of(store)
    expected = [happened(1), happened(50), *([happened(3)] if then == "closed" else [])]
    assert list(state.history)[1:] == expected


async def test_a_rival_that_opens_the_run_first_is_told_apart(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    await store.commit(await take(store), Commit(sequence=1, events=(happened(1),), release=CLOSING))

    wire.before_commit.append(lambda: reopen(elsewhere, 2, number=60))
    assert not await reopen(store, 2)

    assert list((await state_of(store)).history)[1:] == [happened(1), happened(60)]


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


# --- generations and openings ----------------------------------------------------------------------------


def history_in(documents: set[str]) -> list[str]:
    """The positions of the history documents among these."""
    return sorted(path.rsplit("/", 1)[1] for path in documents if "_history/" in path)


async def test_a_run_that_goes_on_for_ever_keeps_no_more_documents_than_one_generation_has(
    store: FirestoreStore,
) -> None:
    await make(store)

    for generation in range(30):
        lease = await take(store)
        for number in (1, 2):
            await store.commit(lease, Commit(sequence=number, events=(happened(generation),)))
        assert len(await documents_of(store)) == 3
        await store.commit(lease, Commit(sequence=3, events=(happened(3),), release=GOING_ON))
        assert len(await documents_of(store)) == 1


async def test_an_old_generation_is_removed_in_portions(
    store: FirestoreStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firestore_generations, "DELETES", 2)
    await make(store)
    lease = await take(store, owner="silent")
    await store.commit(lease, Commit(sequence=1, events=(happened(1),)))
    lease = await take(store, now=lease.until)
    for number in range(3, 9):
        await store.commit(lease, Commit(sequence=number, events=(happened(number),)))
    wire.spent()

    await store.commit(lease, Commit(sequence=9, release=GOING_ON))

    assert wire.spent()[:2] == (1, 7)
    assert history_in(await documents_of(store)) == ["00000000-00000002"]  # the fence


async def test_a_fence_stays_and_refuses_whoever_was_silent_for_generations(
    store: FirestoreStore, elsewhere: FirestoreStore
) -> None:
    await make(store)
    silent = await take(elsewhere, owner="silent")
    await elsewhere.commit(silent, Commit(sequence=1, events=(happened(1),)))
    await store.commit(await take(store, now=silent.until), Commit(sequence=3, release=GOING_ON))
    for _ in range(3):
        await store.commit(await take(store), Commit(sequence=1, release=GOING_ON))
    before = await documents_of(store)
    assert history_in(before) == ["00000000-00000002"]

    step = Commit(sequence=2, events=(happened(2),), new_runs=(CHILD,), outbox=(("run-1", a_message()),))
    with pytest.raises(LeaseLost):
        await elsewhere.commit(silent, step)

    assert await documents_of(store) == before


async def test_a_fence_that_is_older_than_any_request_goes(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(store)
    silent = await take(store, owner="silent")
    lease = await take(store, now=silent.until)

    monkeypatch.setattr(firestore_generations, "FENCE_LIFE", timedelta(seconds=-1))
    await store.commit(lease, Commit(sequence=2, release=GOING_ON))

    assert history_in(await documents_of(store)) == []


async def test_opening_events_that_did_not_fit_into_the_record_go_with_their_generation(store: FirestoreStore) -> None:
    large = '"' + "x" * 600_000 + '"'
    going_on = Release(status=Status.PENDING, next_generation=(happened(1, large),))
    await make(store, input=large)

    for generation in range(1, 4):
        await store.commit(await take(store), Commit(sequence=1, release=going_on))
        assert history_in(await documents_of(store)) == [f"{generation:08d}-00000000"]
    await store.commit(await take(store), Commit(sequence=1, release=GOING_ON))

    assert history_in(await documents_of(store)) == []
    assert list((await state_of(store)).history) == [happened(100)]


async def test_what_a_crash_left_of_a_generation_is_removed_by_the_next_beginning(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out_of_reach(query: Any) -> list[Any]:
        raise StoreUnavailableError("just now")

    await make(store)
    lease = await take(store)
    for number in (1, 2):
        await store.commit(lease, Commit(sequence=number, events=(happened(number),)))
    with monkeypatch.context() as broken:
        broken.setattr(store._connection, "query", out_of_reach)
        await store.commit(lease, Commit(sequence=3, release=GOING_ON))
    assert len(history_in(await documents_of(store))) == 2
    assert list((await state_of(store)).history) == [happened(100)]

    await store.commit(await take(store), Commit(sequence=1, release=GOING_ON))

    assert history_in(await documents_of(store)) == []


async def test_a_step_that_arrives_generations_later_changes_nothing_and_is_removed(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    """A request may be under way for long: its holder has given up, let go, and the next one has gone on."""
    await make(store)
    lease = await take(store)

    async def meanwhile() -> None:
        await let_go(elsewhere, lease)
        await elsewhere.commit(await take(elsewhere), Commit(sequence=1, release=GOING_ON))

    wire.before_commit.append(meanwhile)
    await store.commit(lease, Commit(sequence=1, events=(happened(99),)))

    state = await state_of(store)
    assert (list(state.history), state.sequence) == ([happened(100)], 0)
    await store.commit(await take(store), Commit(sequence=1, release=GOING_ON))
    assert history_in(await documents_of(store)) == []


async def test_a_removal_that_comes_late_spares_the_successor_of_a_purged_run(
    store: FirestoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[tuple[Any, ...]] = []

    async def later(*args: Any, before: Any) -> None:
        late.append((*args, before))

    await make(store)
    lease = await take(store)
    await store.commit(lease, Commit(sequence=1, events=(happened(1),)))
    with monkeypatch.context() as delayed:
        delayed.setattr(firestore_leases, "remove_earlier", later)
        await store.commit(lease, Commit(sequence=2, release=GOING_ON))
    await store.purge("run-1")
    await make(store)
    await store.commit(await take(store), Commit(sequence=1, events=(happened(2),)))
    before = await state_of(store)

    [(at, run_id, generation, version)] = late
    await firestore_generations.remove_earlier(at, run_id, generation, before=version)

    assert await state_of(store) == before


@pytest.mark.parametrize("fence", [True, False])
async def test_whoever_loads_a_run_while_it_goes_on_sees_one_generation_whole(
    store: FirestoreStore, elsewhere: FirestoreStore, monkeypatch: pytest.MonkeyPatch, fence: bool
) -> None:
    monkeypatch.setattr(firestore_generations, "DELETES", 1)
    await make(store)
    earlier = await take(elsewhere, owner="earlier")
    await elsewhere.commit(earlier, Commit(sequence=1, events=(happened(1),)))
    if not fence:  # with it, something stays of what is gone
        await let_go(elsewhere, earlier)
    lease = await take(elsewhere, now=earlier.until)
    query, get = store._connection.query, store._connection.get
    commits, one_by_one = [Commit(sequence=3, release=GOING_ON)], asyncio.Lock()

    async def go_on() -> None:
        async with one_by_one:
            if commits:
                await elsewhere.commit(lease, commits.pop())

    async def query_after_going_on(wanted: Any) -> list[Any]:
        await go_on()
        return await query(wanted)

    async def get_after_going_on(references: Sequence[Any], fields: Sequence[str] | None = None) -> list[Any]:
        if any("_history/" in reference.path for reference in references):
            await go_on()
        return await get(references, fields)

    monkeypatch.setattr(store._connection, "query", query_after_going_on)
    monkeypatch.setattr(store._connection, "get", get_after_going_on)

    state = await state_of(store)
    assert (state.run.generation, list(state.history), state.sequence) == (1, [happened(100)], 0)


async def test_a_message_that_stayed_behind_when_its_run_closed_is_gone_when_it_is_opened_again(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firestore_reopening, "PAGE", 2)
    await make(store)
    lease = await take(elsewhere)
    for number in range(5):
        await store.deliver("run-1", a_message(f"m-{number}"))
    end = Commit(sequence=1, events=(happened(1),), release=CLOSING)
    wire.before_commit.append(lambda: elsewhere.commit(lease, end))
    assert (await store.deliver("run-1", a_message("late"))).outcome is DeliveryOutcome.ACCEPTED

    assert await reopen(store, 2)

    assert list(await store.inbox("run-1")) == list((await state_of(store)).inbox) == []
    assert not [path for path in await documents_of(store) if "_inbox/" in path]


async def test_a_message_to_a_run_that_was_opened_again_is_not_taken_for_one_that_stayed_behind(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    await store.deliver("run-1", a_message())
    await elsewhere.commit(await take(elsewhere), Commit(sequence=1, events=(happened(1),), release=CLOSING))

    async def meanwhile() -> None:
        assert await reopen(elsewhere, 2)
        assert (await elsewhere.deliver("run-1", a_message())).outcome is DeliveryOutcome.ACCEPTED

    wire.before_commit.append(meanwhile)  # between looking at the closed run and removing its message
    await store.due(now=T0 + GRACE, limit=10)

    assert list(await store.inbox("run-1")) == [a_message()]
    assert await store.due(now=T0 + GRACE, limit=10) == ["run-1"]


async def test_a_step_that_arrived_after_the_closing_changes_nothing_when_the_run_is_opened_again(
    store: FirestoreStore, elsewhere: FirestoreStore, wire: Wire
) -> None:
    await make(store)
    lease = await take(store)

    async def meanwhile() -> None:
        await let_go(elsewhere, lease)
        await elsewhere.commit(await take(elsewhere), Commit(sequence=1, events=(happened(1),), release=CLOSING))

    wire.before_commit.append(meanwhile)
    await store.commit(lease, Commit(sequence=1, events=(happened(99),)))

    assert await reopen(store, 2)

    assert list((await state_of(store)).history)[1:] == [happened(1), happened(50)]


async def test_an_end_that_stood_apart_leaves_nothing_behind_when_the_run_is_opened_again(
    store: FirestoreStore,
) -> None:
    large = '"' + "x" * 600_000 + '"'
    await make(store)
    release = Release(status=Status.COMPLETED, output=large, closed_at=T0)
    await store.commit(await take(store), Commit(sequence=1, events=(happened(1, large),), release=release))
    assert len([path for path in await documents_of(store) if "_result/" in path]) == 1

    assert await reopen(store, 2)

    assert not [path for path in await documents_of(store) if "_result/" in path]
    assert history_in(await documents_of(store)) == ["00000000-00000001", "00000000-00000002"]
    assert (await state_of(store)).run.output is None
    assert await field_of(store, "result_apart") is False  # or every later look at the run would read twice


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
        reopen(store, 1),
        store.deliver("run-1", a_message()),
        store.due(now=T0, limit=1),
        store.list(RunQuery()),
        store.purge("run-1"),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 10
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
