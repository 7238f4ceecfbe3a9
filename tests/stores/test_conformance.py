"""What the port promises, on every store: each sentence of its docstrings is a test here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any, Literal

import pytest

from tests.stores.conftest import StoreFactory
from tests.stores.records import (
    MICROSECOND,
    SECOND,
    T0,
    TTL,
    a_message,
    a_run,
    happened,
    let_go,
    make,
    make_waiting,
    opening,
    take,
)
from tinyworkflow_core.engine import history
from tinyworkflow_core.engine.history import Event, LeaseTaken
from tinyworkflow_core.errors import LeaseLost, PayloadTooLargeError, RunExistsError
from tinyworkflow_core.serialization import Failure
from tinyworkflow_core.store import (
    CLOSED_STATUSES,
    GRACE,
    STEERING,
    CastVote,
    Commit,
    Delivery,
    DeliveryOutcome,
    Lease,
    MessageKind,
    NewRun,
    OpenApproval,
    Release,
    Run,
    RunQuery,
    RunState,
    Status,
    Store,
)

ODD = '\x01\x7f\u2028 "quoted" \\ {}[]$\'; -- ü 日本 🙂 \\ud800 \t\r\n'
"""Text that has tripped stores before."""

A_FAILURE = Failure(
    type="ValueError",
    message=ODD,
    cls="builtins:ValueError",
    args='["\\ud800"]',
    details="{}",
    traceback="File ...",
    cause=Failure(type="KeyError", message="'k'", cause=Failure(type="OSError", message="disk")),
    members=(Failure(type="A", message="1"), Failure(type="B", message="2")),
)
AN_APPROVAL = OpenApproval(
    id=3,
    key="release",
    requested_at=T0,
    title=ODD,
    details='{"amount":12.5}',
    approvers=("ann", "bob"),
    form='{"type":"object"}',
    expires_at=T0 + timedelta(days=2, microseconds=1),
    quorum=2,
    veto=False,
    escalate_to=("eve",),
    escalates_at=T0 + timedelta(days=1, microseconds=1),
    votes=(CastVote(by="ann", approved=True, at=T0 + timedelta(microseconds=7), comment=ODD, way="link"),),
)


async def state_of(store: Store, run_id: str = "run-1") -> RunState:
    state = await store.load(run_id)
    assert state is not None
    return state


async def record_of(store: Store, run_id: str = "run-1") -> Run:
    run = await store.get(run_id)
    assert run is not None
    return run


def commit_of(number: int, **fields: Any) -> Commit:
    return Commit(sequence=number, events=(happened(number),), **fields)


# --- create --------------------------------------------------------------------------------------


async def test_a_new_run_is_stored_whole_with_its_opening_events(store: Store) -> None:
    run = a_run(
        input='{"text":"\\ud800 ü"}',
        version=7,
        parent_run_id="parent",
        wake_at=T0 + SECOND,
        attributes={"customer": "ü", "amount": 12.5, "count": 3, "urgent": True, "odd": ODD},
        request_digest="0123456789abcdef",
    )

    assert await store.create(run, opening(run))

    assert await store.get("run-1") == run
    assert await store.load("run-1") == RunState(run=run, history=opening(run), sequence=0, inbox=[])


@pytest.mark.parametrize("closed", [False, True])
async def test_a_run_id_that_exists_is_refused_and_nothing_is_written(store: Store, closed: bool) -> None:
    await make(store)
    if closed:
        await let_go(store, await take(store), Status.COMPLETED, output="1", closed_at=T0)
    before = await state_of(store)
    other = a_run(input='{"n":2}', created_at=T0 + SECOND)

    assert not await store.create(other, opening(other))

    assert await state_of(store) == before


async def test_of_fifty_simultaneous_creates_exactly_one_gets_the_run_id(store: Store) -> None:
    runs = [a_run(input=f"{number}", created_at=T0 + number * MICROSECOND) for number in range(50)]

    made = await asyncio.gather(*(store.create(run, opening(run)) for run in runs))

    assert made.count(True) == 1
    winner = runs[made.index(True)]
    assert await state_of(store) == RunState(run=winner, history=opening(winner), sequence=0, inbox=[])


async def test_a_create_that_is_asked_again_succeeds_until_somebody_took_the_run(store: Store) -> None:
    run = a_run()

    assert await store.create(run, opening(run))
    assert await store.create(run, opening(run))
    assert (await state_of(store)).history == opening(run)

    await take(store)
    assert not await store.create(run, opening(run))


async def test_opening_events_over_the_limit_make_no_run(store: Store) -> None:
    run = a_run()

    with pytest.raises(PayloadTooLargeError):
        await store.create(run, [*opening(run), happened(1, "x" * store.max_event_bytes)])

    assert await store.get("run-1") is None


async def test_an_unknown_run_has_no_record_no_state_and_no_messages(store: Store) -> None:
    assert await store.get("nobody") is None
    assert await store.load("nobody") is None
    assert list(await store.inbox("nobody")) == []


# --- acquire and renew ---------------------------------------------------------------------------


async def test_a_run_that_is_held_cannot_be_taken_by_anybody(store: Store) -> None:
    await make(store)
    await take(store, owner="a")
    last = T0 + TTL - MICROSECOND

    assert await store.acquire("run-1", owner="b", now=last, ttl=TTL) is None
    assert await store.acquire("run-1", owner="a", now=last, ttl=TTL) is None


async def test_unknown_and_closed_runs_cannot_be_taken(store: Store) -> None:
    assert await store.acquire("nobody", owner="a", now=T0, ttl=TTL) is None
    for status in sorted(CLOSED_STATUSES):
        await make_waiting(store, status, status=status, closed_at=T0)
        assert await store.acquire(status, owner="a", now=T0 + TTL, ttl=TTL) is None


async def test_of_twenty_simultaneous_takings_at_most_one_succeeds(store: Store) -> None:
    await make(store)

    takings = await asyncio.gather(
        *(store.acquire("run-1", owner=f"o{number}", now=T0, ttl=TTL) for number in range(20))
    )

    won = [taken for taken in takings if taken is not None]
    assert len(won) == 1
    assert (await record_of(store)).lease_owner == won[0].lease.owner


async def test_of_twenty_simultaneous_takings_from_a_silent_holder_at_most_one_succeeds(store: Store) -> None:
    await make(store)
    await take(store, owner="silent")

    takings = await asyncio.gather(
        *(store.acquire("run-1", owner=f"o{number}", now=T0 + TTL, ttl=TTL) for number in range(20))
    )

    assert len([taken for taken in takings if taken is not None]) == 1
    assert [type(event) for event in (await state_of(store)).history][1:] == [LeaseTaken]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_taking_that_is_cancelled_leaves_the_run_to_others(store: Store, turns: int) -> None:
    await make(store)
    taking = asyncio.ensure_future(store.acquire("run-1", owner="a", now=T0, ttl=TTL))
    for _ in range(turns):
        await asyncio.sleep(0)

    if taking.cancel():
        with pytest.raises(asyncio.CancelledError):
            await taking
    else:  # it was quicker
        done = taking.result()
        assert done is not None
        await let_go(store, done.lease)

    for _ in range(500):
        if (taken := await store.acquire("run-1", owner="b", now=T0, ttl=TTL)) is not None:
            break
        await asyncio.sleep(0.01)  # it is handed back by another thread
    assert taken is not None
    state = await state_of(store)
    assert (state.run.lease_owner, state.run.status, len(state.history)) == ("b", Status.RUNNING, 1)
    await store.commit(taken.lease, commit_of(1))


async def test_taking_a_run_shows_on_its_record(store: Store) -> None:
    made = await make(store, wake_at=T0)

    taken = await store.acquire("run-1", owner="a", now=T0 + SECOND, ttl=TTL)

    until = T0 + SECOND + TTL
    assert taken is not None
    assert taken.lease == Lease(run_id="run-1", owner="a", token=taken.lease.token, until=until, generation=0)
    assert await record_of(store) == replace(
        made, status=Status.RUNNING, started_at=T0 + SECOND, wake_at=until, lease_owner="a", lease_until=until
    )


async def test_a_run_is_loaded_without_its_inbox_where_nobody_wants_that(store: Store) -> None:
    await make(store)
    await store.deliver("run-1", a_message())

    state, whole = await store.load("run-1", inbox=False), await store.load("run-1")

    assert state is not None
    assert whole is not None
    assert list(whole.inbox) == [a_message()]
    assert state == replace(whole, inbox=[])


async def test_a_run_that_was_let_go_is_taken_again_without_a_trace_in_its_history(store: Store) -> None:
    await make(store)
    first = await take(store)
    await store.commit(first, commit_of(1, release=Release(status=Status.WAITING)))

    second = await take(store, owner="b", now=T0 + SECOND)

    assert second.token != first.token
    assert (await record_of(store)).started_at == T0
    assert (await state_of(store)).sequence == 1


@pytest.mark.parametrize("status", [status for status in Status if not status.closed])
async def test_every_open_run_can_be_taken(store: Store, status: Status) -> None:
    await make_waiting(store, "run-1", status)

    await take(store)

    assert (await record_of(store)).status is Status.RUNNING


async def test_a_lease_that_is_over_can_be_taken_and_the_taking_is_an_event(store: Store) -> None:
    run = await make(store)
    lease = await take(store, owner="a")
    await store.commit(lease, commit_of(1))

    taken = await store.acquire("run-1", owner="b", now=lease.until, ttl=TTL)

    state = await state_of(store)
    assert taken is not None
    assert taken.state == state
    event = LeaseTaken(at=lease.until, owner="b", previous_owner="a")
    assert list(state.history) == [*opening(run), happened(1), event]
    assert state.sequence == state.run.sequence == 2
    assert state.run.lease_owner == "b"
    assert state.run.lease_until == state.run.wake_at == lease.until + TTL


async def test_the_lease_of_a_dead_owner_can_be_taken_at_once(store: Store) -> None:
    await make(store)
    await take(store, owner="dead")

    assert await store.acquire("run-1", owner="b", now=T0, ttl=TTL, gone=lambda owner: owner == "other") is None
    assert await store.acquire("run-1", owner="b", now=T0, ttl=TTL, gone=lambda owner: owner == "dead") is not None

    assert (await state_of(store)).history[-1] == LeaseTaken(at=T0, owner="b", previous_owner="dead")


async def test_a_holder_whose_run_was_taken_can_write_nothing_any_more(store: Store) -> None:
    await make(store)
    await make(store, "neighbour")
    await store.deliver("run-1", a_message())
    old = await take(store, owner="a")
    await store.commit(old, commit_of(1))
    new = await take(store, owner="b", now=old.until)
    before = await state_of(store)

    letter = ("neighbour", a_message("late"))
    closing = Release(status=Status.COMPLETED, output="1", closed_at=T0)
    for commit in (
        commit_of(2),
        commit_of(2, consumed=("m-1",), outbox=(letter,), release=Release(status=Status.WAITING)),
        commit_of(2, release=closing),
        Commit(sequence=2, release=closing, consumed=("m-1",)),
        Commit(sequence=2, release=Release(status=Status.PAUSED, keep_lease=True)),
    ):
        with pytest.raises(LeaseLost):
            await store.commit(old, commit)
    with pytest.raises(LeaseLost):
        await store.renew(old, now=old.until, ttl=TTL)

    assert await state_of(store) == before
    assert list(await store.inbox("neighbour")) == []
    await store.commit(new, commit_of(3))


async def test_a_holder_sees_everything_that_was_written_before_its_lease(store: Store) -> None:
    run = await make(store)
    first = await take(store)
    for number in range(1, 6):
        await store.commit(first, commit_of(number))
    await store.deliver("run-1", a_message())
    await let_go(store, first)

    await take(store, owner="b")

    state = await state_of(store)
    assert list(state.history) == [*opening(run), *(happened(number) for number in range(1, 6))]
    assert list(state.inbox) == [a_message()]
    assert state.sequence == state.run.sequence == 5


async def test_renewing_holds_the_lease_longer(store: Store) -> None:
    await make(store)
    lease = await take(store)
    later = T0 + timedelta(seconds=10)

    await store.renew(lease, now=later, ttl=TTL)

    run = await record_of(store)
    assert run.lease_until == run.wake_at == later + TTL
    assert await store.acquire("run-1", owner="b", now=lease.until, ttl=TTL) is None
    assert await store.acquire("run-1", owner="b", now=later + TTL, ttl=TTL) is not None


async def test_renewing_tells_whether_messages_wait(store: Store) -> None:
    await make(store)
    lease = await take(store)

    assert not await store.renew(lease, now=T0, ttl=TTL)
    await store.deliver("run-1", a_message())
    assert await store.renew(lease, now=T0, ttl=TTL)
    await store.commit(lease, commit_of(1, consumed=("m-1",)))
    assert not await store.renew(lease, now=T0, ttl=TTL)


async def test_a_lease_that_is_over_and_that_nobody_took_is_still_good(store: Store) -> None:
    await make(store)
    lease = await take(store)
    late = lease.until + timedelta(hours=1)

    await store.commit(lease, commit_of(1))
    await store.renew(lease, now=late, ttl=TTL)

    assert (await record_of(store)).lease_until == late + TTL


async def test_a_lease_that_was_let_go_cannot_be_renewed(store: Store) -> None:
    await make(store)
    lease = await take(store)
    await let_go(store, lease)

    with pytest.raises(LeaseLost):
        await store.renew(lease, now=T0, ttl=TTL)

    assert (await record_of(store)).lease_owner is None


# --- commit --------------------------------------------------------------------------------------


async def test_commits_append_their_events_in_order_and_leave_the_record_alone(store: Store) -> None:
    run = await make(store)
    lease = await take(store)
    before = await record_of(store)

    await store.commit(lease, Commit(sequence=1, events=(happened(1), happened(2))))
    await store.commit(lease, Commit(sequence=2, events=(happened(3),)))

    state = await state_of(store)
    assert list(state.history) == [*opening(run), happened(1), happened(2), happened(3)]
    assert state.sequence == 2
    assert await record_of(store) == before == state.run


async def test_a_history_document_that_exists_is_never_written_again(store: Store) -> None:
    await make(store)
    await store.deliver("run-1", a_message())
    lease = await take(store)
    await store.commit(lease, commit_of(1))
    before = await state_of(store)

    with pytest.raises(LeaseLost):
        await store.commit(lease, Commit(sequence=1, events=(happened(99),), consumed=("m-1",)))
    with pytest.raises(LeaseLost):
        await store.commit(lease, Commit(sequence=0, events=(happened(99),)))

    assert await state_of(store) == before


async def test_equal_events_of_the_next_holder_are_not_taken_for_ones_own(store: Store) -> None:
    await make(store)
    first = await take(store)
    await let_go(store, first)
    await store.commit(await take(store, owner="b"), commit_of(1))

    with pytest.raises(LeaseLost):
        await store.commit(first, commit_of(1))


async def test_of_simultaneous_commits_of_one_sequence_exactly_one_is_kept(store: Store) -> None:
    await make(store)
    lease = await take(store)
    rivals = [Commit(sequence=1, events=(happened(number),)) for number in range(10)]

    outcomes = await asyncio.gather(*(_outcome(store, lease, commit) for commit in rivals))

    assert outcomes.count(True) == 1
    assert (await state_of(store)).history[-1] == happened(outcomes.index(True))


async def _outcome(store: Store, lease: Lease, commit: Commit) -> bool:
    try:
        await store.commit(lease, commit)
    except LeaseLost:
        return False
    return True


async def test_runs_that_commit_at_the_same_time_do_not_disturb_each_other(store: Store) -> None:
    names = [f"run-{number}" for number in range(10)]

    async def work(name: str) -> None:
        await make(store, name)
        lease = await take(store, name)
        for number in range(1, 4):
            await store.commit(lease, commit_of(number))
        with pytest.raises(LeaseLost):
            await store.commit(lease, Commit(sequence=3, events=(happened(99),)))
        await let_go(store, lease)

    await asyncio.gather(*(work(name) for name in names))

    for name in names:
        assert (await state_of(store, name)).history[1:] == [happened(1), happened(2), happened(3)]


@pytest.mark.parametrize("release", [None, Release(status=Status.WAITING), Release(status=Status.FAILED, closed_at=T0)])
async def test_a_commit_that_is_asked_again_happens_once(store: Store, release: Release | None) -> None:
    await make(store)
    await make(store, "neighbour")
    await store.deliver("run-1", a_message())
    lease = await take(store)
    commit = commit_of(1, consumed=("m-1",), outbox=(("neighbour", a_message("n-1")),), release=release)

    await store.commit(lease, commit)
    before = await state_of(store)
    await store.commit(lease, commit)

    assert await state_of(store) == before
    assert list(before.history)[1:] == [happened(1)]
    assert list(before.inbox) == []
    assert list(await store.inbox("neighbour")) == [a_message("n-1")]


async def test_a_release_that_is_asked_again_succeeds_also_when_the_run_has_gone_on(store: Store) -> None:
    await make(store)
    lease = await take(store)
    commit = commit_of(1, release=Release(status=Status.WAITING))
    await store.commit(lease, commit)
    await store.commit(await take(store, owner="b"), commit_of(2))
    before = await state_of(store)

    await store.commit(lease, commit)

    assert await state_of(store) == before


async def test_a_release_without_events_can_be_asked_again(store: Store) -> None:
    await make(store)
    lease = await take(store)

    await let_go(store, lease, custom_status="resting")
    await let_go(store, lease, custom_status="resting")

    run = await record_of(store)
    assert (run.status, run.custom_status, run.lease_owner) == (Status.WAITING, "resting", None)


async def test_every_field_of_a_release_comes_back_as_it_was(store: Store) -> None:
    run = await make(store, attributes={"kept": True})
    lease = await take(store)
    release = Release(
        status=Status.FAILED,
        output='{"text":"\\ud800 ü"}',
        error=A_FAILURE,
        closed_at=T0 + SECOND,
        open_approvals=(AN_APPROVAL, OpenApproval(id=4, key="b", requested_at=T0)),
        custom_status=ODD,
        problem=ODD,
        retry_count=3,
    )

    await store.commit(lease, commit_of(1, release=release))

    assert await record_of(store) == replace(
        run,
        status=Status.FAILED,
        started_at=T0,
        closed_at=T0 + SECOND,
        output=release.output,
        error=A_FAILURE,
        open_approvals=release.open_approvals,
        custom_status=ODD,
        problem=ODD,
        retry_count=3,
        sequence=1,
    )


async def test_a_release_replaces_everything_the_release_before_had_said(store: Store) -> None:
    await make_waiting(
        store,
        "run-1",
        Status.PAUSED,
        wake_at=T0 + SECOND,
        open_approvals=(AN_APPROVAL,),
        problem="p",
        custom_status="c",
    )

    await let_go(store, await take(store), retry_count=1)

    run = await record_of(store)
    assert (run.status, run.wake_at, run.open_approvals) == (Status.WAITING, None, ())
    assert (run.problem, run.custom_status, run.retry_count) == (None, None, 1)


@pytest.mark.parametrize("with_event", [True, False])
async def test_a_released_record_names_its_last_history_document(store: Store, with_event: bool) -> None:
    await make(store)
    lease = await take(store)
    await store.commit(lease, commit_of(1))
    await store.commit(lease, commit_of(2))

    events = (happened(3),) if with_event else ()
    await store.commit(lease, Commit(sequence=3, events=events, release=Release(status=Status.WAITING)))

    assert (await record_of(store)).sequence == (3 if with_event else 2)


async def test_a_record_can_be_changed_without_letting_go(store: Store) -> None:
    await make(store)
    lease = await take(store)
    release = Release(
        status=Status.PAUSED, open_approvals=(AN_APPROVAL,), wake_at=T0 + SECOND, custom_status="c", keep_lease=True
    )

    await store.commit(lease, commit_of(1, release=release))

    run = await record_of(store)
    assert (run.status, run.open_approvals, run.custom_status) == (Status.PAUSED, (AN_APPROVAL,), "c")
    assert (run.lease_owner, run.lease_until, run.wake_at) == ("a", lease.until, lease.until)
    assert await store.acquire("run-1", owner="b", now=T0, ttl=TTL) is None
    assert await store.due(now=T0 + SECOND, limit=10) == []
    assert not await store.renew(lease, now=T0, ttl=TTL)
    await store.commit(lease, commit_of(2, release=Release(status=Status.WAITING)))
    assert (await record_of(store)).open_approvals == ()


async def test_a_closed_run_takes_no_messages_and_drops_those_that_wait(store: Store) -> None:
    for status in sorted(CLOSED_STATUSES):
        await make(store, status)
        await store.deliver(status, a_message())
        await store.commit(await take(store, status), commit_of(1, release=Release(status=status, closed_at=T0)))

        assert list(await store.inbox(status)) == []
        assert await store.deliver(status, a_message("m-2")) == Delivery(outcome=DeliveryOutcome.CLOSED)
        assert list(await store.inbox(status)) == []
        assert (await record_of(store, status)).status is status
    assert await store.due(now=T0 + timedelta(days=365), limit=10) == []


async def test_consumed_messages_leave_with_the_commit_that_consumes_them(store: Store) -> None:
    await make(store)
    for number in range(1, 4):
        await store.deliver("run-1", a_message(f"m-{number}"))
    lease = await take(store)

    await store.commit(lease, commit_of(1, consumed=("m-1", "m-3", "never-there")))
    assert list(await store.inbox("run-1")) == [a_message("m-2")]

    await store.commit(lease, Commit(sequence=2, consumed=("m-2",)))  # a repetition: consumed without an event
    assert list(await store.inbox("run-1")) == []
    assert (await state_of(store)).sequence == 1


async def test_messages_to_other_runs_are_sent_with_the_commit(store: Store) -> None:
    await make(store)
    await make(store, "open")
    await make(store, "closed")
    await let_go(store, await take(store, "closed"), Status.CANCELLED, closed_at=T0)
    await store.deliver("open", a_message("there-before", body={"n": 1}))
    lease = await take(store)
    outbox = (
        ("open", a_message("n-1")),
        ("closed", a_message("n-2")),
        ("nobody", a_message("n-3")),
        ("open", a_message("there-before", body={"n": 2})),
        ("open", a_message("n-4", kind=MessageKind.CANCEL)),
    )

    await store.commit(lease, commit_of(1, outbox=outbox))

    arrived = {message.id: message for message in await store.inbox("open")}
    assert arrived == {
        "n-1": a_message("n-1"),
        "n-4": a_message("n-4", kind=MessageKind.CANCEL),
        "there-before": a_message("there-before", body={"n": 1}),
    }
    assert list(await store.inbox("closed")) == []
    assert list(await store.inbox("nobody")) == []
    assert (await state_of(store)).sequence == 1
    assert await store.due(now=T0 + GRACE, limit=10) == ["open"]


async def test_a_commit_over_the_limit_is_refused_whole(store: Store) -> None:
    await make(store)
    await make(store, "neighbour")
    await store.deliver("run-1", a_message())
    lease = await take(store)
    before = await state_of(store)

    with pytest.raises(PayloadTooLargeError):
        await store.commit(
            lease,
            Commit(
                sequence=1,
                events=(
                    happened(1, "x" * (store.max_event_bytes // 2)),
                    happened(2, "ü" * (store.max_event_bytes // 4)),
                ),
                consumed=("m-1",),
                outbox=(("neighbour", a_message()),),
                release=Release(status=Status.WAITING),
            ),
        )

    assert await state_of(store) == before
    assert list(await store.inbox("neighbour")) == []


async def test_a_large_value_fits_everywhere(store: Store) -> None:
    large = '"' + "ü" * 250_000 + '"'
    run = await make(store, input=large)
    lease = await take(store)

    await store.commit(lease, Commit(sequence=1, events=(happened(1, large),)))
    await store.deliver("run-1", a_message(body={"payload": large}))
    state = await state_of(store)
    assert list(state.history) == [*opening(run), happened(1, large)]
    assert list(state.inbox) == [a_message(body={"payload": large})]

    await make(store, "other")
    await let_go(store, await take(store, "other"), Status.COMPLETED, output=large, closed_at=T0)
    assert (await record_of(store, "other")).output == large


# --- events --------------------------------------------------------------------------------------

_ACTIVITY: dict[str, Any] = {"at": T0, "id": 1, "name": ODD, "digest": "d", "input": ODD, "group": 4}
_CHILD: dict[str, Any] = {"at": T0, "id": 1, "name": ODD, "digest": "d", "run_id": "child"}
EVERY_EVENT: tuple[Event, ...] = (
    history.RunStarted(
        at=T0, name="n", version=2, input=ODD, engine=1, python="3.11", fingerprint="f", parent_run_id="p",
        parent_message="m", deadline=T0 + SECOND, seed="s", seen=("m-1", "m-2"),
    ),
    history.LeaseTaken(at=T0, owner="a", previous_owner="b"),
    history.CancelRequested(at=T0, message_id="m", reason=ODD),
    history.RunTimedOut(at=T0),
    history.RunSuspended(at=T0, message_id="m", reason=ODD),
    history.RunResumed(at=T0, message_id="m"),
    history.RunCompleted(at=T0, output=ODD),
    history.RunFailed(at=T0, error=A_FAILURE, failed=(1, 2), undone=(3,), position=4),
    history.RunCancelled(at=T0, reason=None),
    history.RunTerminated(at=T0, message_id="m", reason=ODD),
    history.RunRetried(
        at=T0, failed_at=T0, due=T0 + SECOND, automatic=True, error=A_FAILURE, forgotten=(1,), undone=(), position=0
    ),
    history.RunForked(at=T0, from_run_id="other", at_event=3),
    history.PatchMarked(at=T0, patch=ODD),
    history.RunPickedUp(at=T0),
    history.ActivityScheduled(**_ACTIVITY, attempt=2, deadline=T0 + SECOND),
    history.ActivityStarted(**_ACTIVITY),
    history.ActivityHeartbeat(at=T0, id=1, attempt=2, details=ODD),
    history.ActivityCompleted(**_ACTIVITY, attempt=2, started_at=T0 - MICROSECOND, result='"\\ud800"'),
    history.ActivityFailed(**_ACTIVITY, attempt=1, started_at=T0, error=A_FAILURE, retry_at=T0 + SECOND, heartbeat="1"),
    history.ActivityCancelled(**_ACTIVITY),
    history.TimerStarted(at=T0, id=1, due=datetime.max.replace(tzinfo=T0.tzinfo)),
    history.TimerFired(at=T0, id=1, due=T0),
    history.SignalReceived(at=T0, message_id="m", name="s", payload=ODD),
    history.ApprovalRequested(
        at=T0, id=1, key="k", title="t", details=ODD, approvers=("a", "b"), form="{}", expires_at=T0 + SECOND
    ),
    history.ApprovalDecided(at=T0, id=1, key="k", message_id="m", approved=False, by="ann", comment=ODD, data="[1]"),
    history.ApprovalVoted(at=T0, id=1, key="k", message_id="m", approved=True, by="ann", comment=ODD, way="link"),
    history.ApprovalWithdrawn(at=T0, id=1, key="k"),
    history.SideEffectRecorded(at=T0, id=1, result=None, error=A_FAILURE),
    history.ChildStarted(**_CHILD, on_parent_close="cancel"),
    history.ChildEnded(**_CHILD, status="failed", message_id="m", error=A_FAILURE),
    history.MessageSent(at=T0, id=1, target="other", name=ODD, digest="d", error=A_FAILURE),
    history.UpdateAccepted(at=T0, message_id="m", name="u", payload=ODD),
    history.UpdateCompleted(at=T0, message_id="m", result=ODD),
    history.UpdateRejected(at=T0, message_id="m", error=A_FAILURE),
)  # fmt: skip


async def test_every_kind_of_event_comes_back_equal(store: Store) -> None:
    kinds = {kind for kind in vars(history).values() if isinstance(kind, type) and issubclass(kind, Event)}
    assert {type(event) for event in EVERY_EVENT} == kinds - {Event, history.ActivityEvent, history.ChildEvent}
    run = await make(store)

    await store.commit(await take(store), Commit(sequence=1, events=EVERY_EVENT))

    assert list((await state_of(store)).history) == [*opening(run), *EVERY_EVENT]


async def test_an_error_with_a_lone_surrogate_in_its_message_is_kept(store: Store) -> None:
    broken = Failure(type="OSError", message="no such file: \udcff ü")
    await make(store)

    await store.commit(
        await take(store),
        Commit(
            sequence=1,
            events=(history.RunFailed(at=T0, error=broken),),
            release=Release(status=Status.FAILED, error=broken, problem="\udcff"),
        ),
    )

    state = await state_of(store)
    assert state.history[-1] == history.RunFailed(at=T0, error=broken)
    assert (state.run.error, state.run.problem) == (broken, "\udcff")


# --- deliver and inbox ---------------------------------------------------------------------------


async def test_a_message_for_an_open_run_waits_in_its_inbox(store: Store) -> None:
    await make(store)
    kinds = [
        a_message(f"m-{kind}", kind=kind, body={"odd": ODD, "deep": [{"n": [1, 2.5, None, True]}]})
        for kind in sorted(MessageKind)
    ]

    for message in kinds:
        assert await store.deliver("run-1", message) == Delivery(outcome=DeliveryOutcome.ACCEPTED)

    assert list(await store.inbox("run-1")) == kinds
    assert list((await state_of(store)).inbox) == kinds


async def test_a_message_that_comes_twice_is_kept_once_and_the_first_is_shown(store: Store) -> None:
    await make(store)
    first = a_message(body={"approved": True})
    await store.deliver("run-1", first)

    again = await store.deliver("run-1", a_message(body={"approved": False}, at=T0 + SECOND))

    assert again == Delivery(outcome=DeliveryOutcome.DUPLICATE, existing=first)
    assert list(await store.inbox("run-1")) == [first]


async def test_of_twenty_simultaneous_deliveries_of_one_message_exactly_one_is_accepted(store: Store) -> None:
    await make(store)

    deliveries = await asyncio.gather(*(store.deliver("run-1", a_message(body={"n": number})) for number in range(20)))

    outcomes = [delivery.outcome for delivery in deliveries]
    assert outcomes.count(DeliveryOutcome.ACCEPTED) == 1
    assert outcomes.count(DeliveryOutcome.DUPLICATE) == 19
    kept = a_message(body={"n": outcomes.index(DeliveryOutcome.ACCEPTED)})
    assert list(await store.inbox("run-1")) == [kept]
    assert {str(delivery.existing) for delivery in deliveries if delivery.existing is not None} == {str(kept)}


async def test_one_message_id_may_go_to_several_runs(store: Store) -> None:
    await make(store)
    await make(store, "run-2")

    assert (await store.deliver("run-1", a_message())).outcome is DeliveryOutcome.ACCEPTED
    assert (await store.deliver("run-2", a_message())).outcome is DeliveryOutcome.ACCEPTED


async def test_a_message_for_an_unknown_run_is_not_stored(store: Store) -> None:
    assert await store.deliver("later", a_message()) == Delivery(outcome=DeliveryOutcome.UNKNOWN)

    await make(store, "later")

    assert list(await store.inbox("later")) == []


async def test_messages_come_in_the_order_of_their_receiving_then_their_ids(store: Store) -> None:
    await make(store)
    for name, number in (("d", 2), ("a", 2), ("z", 1), ("c", 2), ("b", 3)):
        await store.deliver("run-1", a_message(name, at=T0 + number * MICROSECOND))

    assert [message.id for message in await store.inbox("run-1")] == ["z", "a", "c", "d", "b"]
    assert [message.id for message in (await state_of(store)).inbox] == ["z", "a", "c", "d", "b"]


async def test_a_message_that_was_consumed_may_come_again(store: Store) -> None:
    await make(store)
    await store.deliver("run-1", a_message())
    await store.commit(await take(store), commit_of(1, consumed=("m-1",)))

    assert await store.deliver("run-1", a_message()) == Delivery(outcome=DeliveryOutcome.ACCEPTED)


def _interleavings() -> Iterator[tuple[str, ...]]:
    """Every order in which a deliverer and a holder can go on, each of them dying after any of its steps."""
    deliverer, holder = ("deliver", "advance"), ("release", "look")
    for lives in (1, 2):
        for steps in (0, 1, 2):
            for places in combinations(range(lives + steps), lives):
                mine, theirs = iter(deliverer), iter(holder)
                yield tuple(next(mine) if place in places else next(theirs) for place in range(lives + steps))


@pytest.mark.parametrize("steps", sorted(set(_interleavings())), ids="-".join)
async def test_no_order_of_deliver_release_and_crash_strands_a_message(store: Store, steps: tuple[str, ...]) -> None:
    await make(store)
    lease = await take(store, owner="holder")
    seen = False

    for step in steps:
        if step == "deliver":
            assert (await store.deliver("run-1", a_message())).outcome is DeliveryOutcome.ACCEPTED
        elif step == "release":
            await let_go(store, lease)
        elif step == "advance" or await store.inbox("run-1"):
            again = await store.acquire("run-1", owner=step, now=T0, ttl=TTL)
            assert again is None or (again.state is not None and again.state.inbox == (await state_of(store)).inbox)
            seen = seen or (again is not None and a_message() in (await state_of(store)).inbox)

    # Whoever saw the message while holding the run acts on it; otherwise the tick must find the run.
    assert seen or await store.due(now=T0 + max(GRACE, TTL), limit=10) == ["run-1"]
    assert list(await store.inbox("run-1")) == [a_message()]


# --- due -----------------------------------------------------------------------------------------


async def test_due_runs_come_longest_overdue_first_and_no_more_than_asked_for(store: Store) -> None:
    for name, seconds in (("c", 30), ("a", 10), ("later", 61), ("d", 40), ("b", 20), ("now", 60)):
        await make_waiting(store, name, wake_at=T0 + seconds * SECOND)
    await make_waiting(store, "asleep")
    now = T0 + 60 * SECOND

    assert await store.due(now=now, limit=10) == ["a", "b", "c", "d", "now"]
    assert await store.due(now=now, limit=2) == ["a", "b"]
    assert "later" not in await store.due(now=now + SECOND - MICROSECOND, limit=10)
    assert "later" in await store.due(now=now + SECOND, limit=10)


async def test_a_new_run_is_due_when_it_says_so(store: Store) -> None:
    await make(store, "now", wake_at=T0)
    await make(store, "delayed", wake_at=T0 + SECOND)
    await make(store, "never")

    assert await store.due(now=T0, limit=10) == ["now"]
    assert await store.due(now=T0 + SECOND, limit=10) == ["now", "delayed"]


async def test_a_run_that_is_held_is_due_when_its_lease_is_over(store: Store) -> None:
    await make(store, wake_at=T0)
    lease = await take(store)
    await store.deliver("run-1", a_message(at=T0 - timedelta(hours=1)))

    assert await store.due(now=lease.until - MICROSECOND, limit=10) == []
    assert await store.due(now=lease.until, limit=10) == ["run-1"]
    await store.renew(lease, now=lease.until, ttl=TTL)
    assert await store.due(now=lease.until, limit=10) == []
    assert await store.due(now=lease.until + TTL, limit=10) == ["run-1"]


async def test_a_closed_run_is_never_due(store: Store) -> None:
    await make_waiting(store, "run-1", Status.COMPLETED, wake_at=T0, closed_at=T0)

    assert await store.due(now=T0 + timedelta(days=365), limit=10) == []
    assert (await record_of(store)).wake_at is None


async def test_a_message_makes_its_run_due_after_the_grace(store: Store) -> None:
    await make_waiting(store, "asleep")
    await make_waiting(store, "set", wake_at=T0 + timedelta(hours=1))
    for name in ("asleep", "set"):
        await store.deliver(name, a_message())

    assert await store.due(now=T0 + GRACE - MICROSECOND, limit=10) == []
    assert sorted(await store.due(now=T0 + GRACE, limit=10)) == ["asleep", "set"]


async def test_a_message_to_a_run_that_nobody_ever_took_makes_it_due(store: Store) -> None:
    await make(store)
    await store.deliver("run-1", a_message())

    assert await store.due(now=T0 + GRACE, limit=10) == ["run-1"]


async def test_a_message_that_came_during_a_lease_counts_from_its_receiving(store: Store) -> None:
    await make(store)
    lease = await take(store)
    await store.deliver("run-1", a_message("young", at=T0 + 5 * SECOND))
    await store.deliver("run-1", a_message("old", at=T0 + SECOND))
    await let_go(store, lease, wake_at=T0 + timedelta(hours=1))

    assert await store.due(now=T0 + SECOND + GRACE - MICROSECOND, limit=10) == []
    assert await store.due(now=T0 + SECOND + GRACE, limit=10) == ["run-1"]
    assert (await record_of(store)).wake_at == T0 + timedelta(hours=1)


async def test_a_message_that_was_consumed_makes_nothing_due(store: Store) -> None:
    await make_waiting(store, "run-1")
    await store.deliver("run-1", a_message())
    lease = await take(store)

    await store.commit(lease, commit_of(1, consumed=("m-1",), release=Release(status=Status.WAITING)))

    assert await store.due(now=T0 + timedelta(days=365), limit=10) == []


@pytest.mark.parametrize("status", [Status.PARKED, Status.SUSPENDED])
@pytest.mark.parametrize("kind", sorted(set(MessageKind) - STEERING))
async def test_messages_do_not_make_a_parked_or_suspended_run_due(
    store: Store, status: Status, kind: MessageKind
) -> None:
    await make(store)
    lease = await take(store)
    await store.deliver("run-1", a_message("before", kind=kind))
    await let_go(store, lease, status)
    await store.deliver("run-1", a_message("after", kind=kind))

    assert await store.due(now=T0 + timedelta(days=365), limit=10) == []

    await let_go(store, await take(store))  # somebody has let it go on: what waited counts again
    assert await store.due(now=T0 + GRACE, limit=10) == ["run-1"]


@pytest.mark.parametrize("status", [Status.PARKED, Status.SUSPENDED])
@pytest.mark.parametrize("kind", sorted(STEERING))
@pytest.mark.parametrize("comes", ["before the release", "after the release", "from a commit"])
async def test_a_steering_message_makes_even_a_parked_or_suspended_run_due(
    store: Store, status: Status, kind: MessageKind, comes: str
) -> None:
    steering = a_message("s", kind=kind, at=T0 + 5 * SECOND)
    await make(store)
    await make(store, "other")
    lease = await take(store)
    await store.deliver("run-1", a_message("older"))  # counts for nothing here
    if comes == "before the release":
        await store.deliver("run-1", steering)
    await let_go(store, lease, status)
    if comes == "after the release":
        await store.deliver("run-1", steering)
    if comes == "from a commit":
        await store.commit(await take(store, "other"), commit_of(1, outbox=(("run-1", steering),)))
        await store.purge("other")

    assert await store.due(now=steering.received_at + GRACE - MICROSECOND, limit=10) == []
    assert await store.due(now=steering.received_at + GRACE, limit=10) == ["run-1"]

    release = Release(status=status, wake_at=None)
    await store.commit(await take(store), commit_of(1, consumed=("s",), release=release))
    assert await store.due(now=T0 + timedelta(days=365), limit=10) == []


async def test_a_parked_run_wakes_for_its_timer_or_its_steering_message_whichever_comes_first(store: Store) -> None:
    for name, seconds in (("sooner", 5), ("later", 60)):
        await make_waiting(store, name, Status.SUSPENDED, wake_at=T0 + seconds * SECOND)
        await store.deliver(name, a_message(kind=MessageKind.RESUME))

    assert await store.due(now=T0 + 5 * SECOND, limit=10) == ["sooner"]
    assert await store.due(now=T0 + GRACE, limit=10) == ["sooner", "later"]


async def test_waiting_messages_and_timers_are_due_in_one_order(store: Store) -> None:
    await make_waiting(store, "second", wake_at=T0 + timedelta(hours=2))
    await make_waiting(store, "third", wake_at=T0 + timedelta(hours=5))
    await make_waiting(store, "first", wake_at=T0 + timedelta(hours=4))
    await store.deliver("first", a_message(at=T0 + timedelta(hours=1)))
    await store.deliver("third", a_message(at=T0 + timedelta(hours=3)))

    assert await store.due(now=T0 + timedelta(hours=6), limit=10) == ["first", "second", "third"]
    assert await store.due(now=T0 + timedelta(hours=6), limit=2) == ["first", "second"]


# --- runs that a commit creates ------------------------------------------------------------------


def new_run(run_id: str, **fields: Any) -> NewRun:
    run = a_run(run_id, **fields)
    return NewRun(run=run, events=tuple(opening(run)))


async def test_a_commit_creates_runs_as_create_does(store: Store) -> None:
    await make(store)
    child = new_run("child", parent_run_id="run-1", wake_at=T0, attributes={"k": ODD})
    other = new_run("other", created_at=T0 + SECOND, wake_at=T0 + SECOND)

    await store.commit(await take(store), commit_of(1, new_runs=(child, other)))

    assert list((await state_of(store)).history)[1:] == [happened(1)]
    for new in (child, other):
        expected = RunState(run=new.run, history=list(new.events), sequence=0, inbox=[])
        assert await state_of(store, new.run.run_id) == expected
    assert await store.due(now=T0 + SECOND, limit=10) == ["child", "other"]
    await take(store, "child")


@pytest.mark.parametrize("release", [Release(status=Status.WAITING), Release(status=Status.COMPLETED, closed_at=T0)])
async def test_runs_are_created_also_by_the_commit_that_lets_go(store: Store, release: Release) -> None:
    await make(store)

    await store.commit(await take(store), commit_of(1, new_runs=(new_run("child"),), release=release))

    assert (await record_of(store)).status is release.status
    assert await store.get("child") == new_run("child").run


@pytest.mark.parametrize("release", [None, Release(status=Status.WAITING), Release(status=Status.FAILED, closed_at=T0)])
@pytest.mark.parametrize("there", ["open", "equal", "closed", "itself", "twice"])
async def test_a_commit_that_creates_a_run_that_exists_is_refused_whole(
    store: Store, there: str, release: Release | None
) -> None:
    await make(store)
    await make(store, "neighbour")
    await make(store, "open", input="2")
    await make(store, "equal")
    await make_waiting(store, "closed", Status.COMPLETED, closed_at=T0)
    await store.deliver("run-1", a_message())
    lease = await take(store)
    names = {"itself": ("fresh", "run-1"), "twice": ("fresh", "fresh")}.get(there, ("fresh", there))
    before = [await state_of(store, name) for name in ("run-1", "open", "equal", "closed")]

    with pytest.raises(RunExistsError) as caught:
        await store.commit(
            lease,
            commit_of(
                1,
                consumed=("m-1",),
                outbox=(("neighbour", a_message()),),
                new_runs=tuple(new_run(name) for name in names),
                release=release,
            ),
        )

    assert caught.value.run_id == names[1]
    assert [await state_of(store, name) for name in ("run-1", "open", "equal", "closed")] == before
    assert await store.get("fresh") is None
    assert list(await store.inbox("neighbour")) == []
    await store.commit(lease, commit_of(1, new_runs=(new_run("fresh"),)))  # the holder goes on
    assert await store.get("fresh") is not None


@pytest.mark.parametrize("release", [None, Release(status=Status.WAITING), Release(status=Status.FAILED, closed_at=T0)])
@pytest.mark.parametrize("child_is", ["new", "taken", "purged"])
async def test_a_commit_that_creates_runs_and_is_asked_again_happens_once(
    store: Store, child_is: str, release: Release | None
) -> None:
    await make(store)
    lease = await take(store)
    commit = commit_of(1, new_runs=(new_run("child"),), release=release)
    await store.commit(lease, commit)
    if child_is == "taken":
        await store.commit(await take(store, "child"), commit_of(1))
    if child_is == "purged":
        await store.purge("child")
    before = [await store.load(name) for name in ("run-1", "child")]

    await store.commit(lease, commit)

    assert [await store.load(name) for name in ("run-1", "child")] == before


async def test_whoever_lost_the_lease_creates_no_runs(store: Store) -> None:
    await make(store)
    old = await take(store)
    await take(store, owner="b", now=old.until)

    for release in (None, Release(status=Status.WAITING), Release(status=Status.FAILED, closed_at=T0)):
        with pytest.raises(LeaseLost):
            await store.commit(old, commit_of(1, new_runs=(new_run("child"),), release=release))

    assert await store.get("child") is None


async def test_of_simultaneous_commits_that_create_one_run_exactly_one_is_kept(store: Store) -> None:
    leases = []
    for number in range(8):
        await make(store, f"parent-{number}")
        leases.append(await take(store, f"parent-{number}"))
    commits = [commit_of(1, new_runs=(new_run("child", parent_run_id=lease.run_id),)) for lease in leases]

    outcomes = await asyncio.gather(
        *(store.commit(lease, commit) for lease, commit in zip(leases, commits, strict=True)), return_exceptions=True
    )

    won = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert len(won) == 1
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [RunExistsError] * 7
    assert (await record_of(store, "child")).parent_run_id == f"parent-{won[0]}"
    assert [(await state_of(store, lease.run_id)).sequence for lease in leases].count(1) == 1


async def test_a_commit_may_write_to_the_run_that_it_creates(store: Store) -> None:
    await make(store)

    await store.commit(await take(store), commit_of(1, new_runs=(new_run("child"),), outbox=(("child", a_message()),)))

    assert list(await store.inbox("child")) == [a_message()]
    assert await store.due(now=T0 + GRACE, limit=10) == ["child"]


async def test_opening_events_over_the_limit_refuse_the_whole_commit(store: Store) -> None:
    await make(store)
    lease = await take(store)
    large = NewRun(run=a_run("child"), events=(happened(1, "x" * store.max_event_bytes),))

    with pytest.raises(PayloadTooLargeError):
        await store.commit(lease, commit_of(1, new_runs=(large,)))

    assert await store.get("child") is None
    assert (await state_of(store)).sequence == 0


async def test_a_new_run_may_have_a_large_input(store: Store) -> None:
    large = '"' + "i" * 600_000 + '"'
    await make(store)
    child = new_run("child", input=large)

    await store.commit(await take(store), commit_of(1, new_runs=(child,)))

    assert await state_of(store, "child") == RunState(run=child.run, history=list(child.events), sequence=0, inbox=[])


# --- the next generation -------------------------------------------------------------------------


def going_on(*events: Event, status: Status = Status.PENDING, **fields: Any) -> Release:
    return Release(status=status, next_generation=events or (happened(100),), **fields)


@pytest.mark.parametrize("with_events", [False, True])
async def test_a_run_goes_on_as_its_next_generation_with_a_new_history(store: Store, with_events: bool) -> None:
    run = await make(store, input="1", parent_run_id="p", attributes={"k": 1})
    lease = await take(store)
    await store.commit(lease, commit_of(1))
    await store.commit(lease, commit_of(2))
    release = going_on(
        happened(100),
        happened(101),
        wake_at=T0 + SECOND,
        custom_status="c",
        open_approvals=(AN_APPROVAL,),
        retry_count=2,
    )

    events = (happened(3),) if with_events else ()
    await store.commit(lease, Commit(sequence=3, events=events, release=release))

    expected = replace(
        run,
        generation=1,
        started_at=T0,
        wake_at=T0 + SECOND,
        custom_status="c",
        open_approvals=(AN_APPROVAL,),
        retry_count=2,
    )
    assert await state_of(store) == RunState(run=expected, history=[happened(100), happened(101)], sequence=0, inbox=[])
    assert await store.due(now=T0 + SECOND - MICROSECOND, limit=10) == []
    assert await store.due(now=T0 + SECOND, limit=10) == ["run-1"]


async def test_the_next_generation_is_held_and_written_like_every_other(store: Store) -> None:
    await make(store)
    await store.commit(await take(store), Commit(sequence=1, release=going_on()))

    lease = await take(store, owner="b")
    assert lease.generation == 1
    await store.commit(lease, commit_of(1))
    taken = await take(store, owner="c", now=lease.until)
    with pytest.raises(LeaseLost):
        await store.commit(lease, commit_of(2))
    closing = Release(status=Status.COMPLETED, output="1", closed_at=T0)
    await store.commit(taken, commit_of(3, release=closing))

    state = await state_of(store)
    event = LeaseTaken(at=lease.until, owner="c", previous_owner="b")
    assert list(state.history) == [happened(100), happened(1), event, happened(3)]
    assert (state.sequence, state.run.sequence, state.run.generation) == (3, 3, 1)


async def test_messages_wait_across_the_border_of_generations(store: Store) -> None:
    await make(store)
    for name in ("m-1", "m-2"):
        await store.deliver("run-1", a_message(name))
    lease = await take(store)

    await store.commit(lease, Commit(sequence=1, consumed=("m-1",), release=going_on()))

    assert list(await store.inbox("run-1")) == list((await state_of(store)).inbox) == [a_message("m-2")]
    assert await store.due(now=T0 + GRACE - MICROSECOND, limit=10) == []
    assert await store.due(now=T0 + GRACE, limit=10) == ["run-1"]
    assert (await store.deliver("run-1", a_message("m-2"))).outcome is DeliveryOutcome.DUPLICATE
    assert (await store.deliver("run-1", a_message("m-3"))).outcome is DeliveryOutcome.ACCEPTED


async def test_the_commit_into_the_next_generation_sends_and_creates_like_every_other(store: Store) -> None:
    await make(store)
    await make(store, "open")

    commit = commit_of(1, outbox=(("open", a_message()),), new_runs=(new_run("child"),), release=going_on())
    await store.commit(await take(store), commit)

    assert (await record_of(store)).generation == 1
    assert list(await store.inbox("open")) == [a_message()]
    assert await store.get("child") is not None


@pytest.mark.parametrize("with_events", [False, True])
@pytest.mark.parametrize("then", ["nothing", "taken", "worked", "released", "closed"])
async def test_going_on_that_is_asked_again_happens_once(store: Store, then: str, with_events: bool) -> None:
    await make(store)
    lease = await take(store)
    commit = Commit(sequence=1, events=(happened(1),) if with_events else (), release=going_on(wake_at=T0))
    await store.commit(lease, commit)
    if then != "nothing":
        later = await take(store, owner="b")
        if then != "taken":
            await store.commit(later, commit_of(1))
        if then == "released":
            await let_go(store, later)
        if then == "closed":
            await let_go(store, later, Status.COMPLETED, closed_at=T0)
    before = await state_of(store)

    await store.commit(lease, commit)
    with pytest.raises(LeaseLost):
        await store.commit(lease, replace(commit, release=going_on(happened(101), wake_at=T0)))

    assert await state_of(store) == before
    assert before.run.generation == 1


async def test_nobody_from_an_earlier_generation_can_write(store: Store) -> None:
    await make(store)
    await make(store, "neighbour")
    silent = await take(store, owner="silent")
    await store.commit(silent, commit_of(1))
    last = await take(store, owner="last", now=silent.until)
    await store.commit(last, commit_of(3))
    await store.commit(last, Commit(sequence=4, release=going_on()))
    holder = await take(store, owner="holder")
    await store.commit(holder, Commit(sequence=1, release=going_on(happened(200))))
    before = await state_of(store)
    letter = ("neighbour", a_message())

    for lease, sequence in ((silent, 2), (last, 4), (holder, 1)):
        for release in (
            None,
            Release(status=Status.WAITING),
            Release(status=Status.PAUSED, keep_lease=True),
            Release(status=Status.COMPLETED, closed_at=T0),
            going_on(happened(300)),
        ):
            for events in ((happened(9),), ()):
                with pytest.raises(LeaseLost):
                    await store.commit(
                        lease,
                        Commit(
                            sequence=sequence,
                            events=events,
                            outbox=(letter,),
                            new_runs=(new_run("child"),) if events else (),
                            release=release,
                        ),
                    )
        with pytest.raises(LeaseLost):
            await store.renew(lease, now=T0, ttl=TTL)

    assert await state_of(store) == before
    assert list(await store.inbox("neighbour")) == []
    assert await store.get("child") is None


async def test_generations_are_told_apart_past_ten_thousand(store: Store) -> None:
    await make(store, generation=9_997)

    for generation in range(9_997, 10_004):
        lease = await take(store)
        assert lease.generation == generation
        for number in (1, 2):
            await store.commit(lease, Commit(sequence=number, events=(happened(generation * 10 + number),)))
        state = await state_of(store)
        assert list(state.history)[1:] == [happened(generation * 10 + 1), happened(generation * 10 + 2)]
        assert state.sequence == 2
        await store.commit(lease, Commit(sequence=3, release=going_on(happened(generation))))

    state = await state_of(store)
    assert (state.run.generation, list(state.history), state.sequence) == (10_004, [happened(10_003)], 0)


async def test_the_next_generation_may_begin_with_large_events(store: Store) -> None:
    large = '"' + "x" * 600_000 + '"'
    await make(store, input=large)

    for number in (1, 2):
        lease = await take(store)
        await store.commit(lease, Commit(sequence=1, release=going_on(happened(number, large))))
        state = await state_of(store)
        assert (list(state.history), state.sequence) == ([happened(number, large)], 0)

    await store.commit(await take(store), commit_of(1))
    assert (await state_of(store)).sequence == 1


async def test_a_next_generation_over_the_limit_is_refused_whole(store: Store) -> None:
    await make(store)
    await store.deliver("run-1", a_message())
    lease = await take(store)
    before = await state_of(store)

    with pytest.raises(PayloadTooLargeError):
        await store.commit(
            lease,
            Commit(sequence=1, consumed=("m-1",), release=going_on(happened(1, "x" * store.max_event_bytes))),
        )

    assert await state_of(store) == before
    await store.commit(lease, commit_of(1))


# --- opening a run again -------------------------------------------------------------------------


async def make_closed(store: Store, run_id: str = "run-1", **fields: Any) -> RunState:
    """A run of three history documents that has failed."""
    await make(store, run_id, **fields)
    lease = await take(store, run_id)
    await store.commit(lease, commit_of(1))
    release = Release(
        status=Status.FAILED, error=A_FAILURE, output="1", problem="p", custom_status="c", closed_at=T0, retry_count=1
    )
    await store.commit(lease, commit_of(2, release=release))
    return await state_of(store, run_id)


async def reopen(store: Store, sequence: int = 3, run_id: str = "run-1", **fields: Any) -> bool:
    values: dict[str, Any] = {"events": [happened(sequence)], "retry_count": 2, "now": T0 + SECOND}
    return await store.reopen(run_id, sequence=sequence, **(values | fields))


async def test_a_run_that_has_ended_can_be_opened_again(store: Store) -> None:
    closed = await make_closed(store, attributes={"k": 1}, parent_run_id="p")

    assert await reopen(store, events=[happened(3), happened(4)])

    expected = replace(
        closed.run,
        status=Status.PENDING,
        output=None,
        error=None,
        problem=None,
        closed_at=None,
        wake_at=T0 + SECOND,
        retry_count=2,
        sequence=3,
    )
    state = await state_of(store)
    assert state.run == expected == await record_of(store)
    assert expected.custom_status == "c"
    assert list(state.history) == [*closed.history, happened(3), happened(4)]
    assert (state.sequence, list(state.inbox)) == (3, [])
    assert await store.due(now=T0 + SECOND - MICROSECOND, limit=10) == []
    assert await store.due(now=T0 + SECOND, limit=10) == ["run-1"]
    assert await listed(store, status=Status.PENDING) == ["run-1"]


@pytest.mark.parametrize("status", sorted(CLOSED_STATUSES))
@pytest.mark.parametrize("with_event", [True, False])
async def test_every_end_can_be_taken_back(store: Store, status: Status, with_event: bool) -> None:
    await make(store)
    events = (happened(1),) if with_event else ()
    await store.commit(
        await take(store), Commit(sequence=1, events=events, release=Release(status=status, closed_at=T0))
    )
    closed = await state_of(store)

    assert await reopen(store, closed.sequence + 1)

    state = await state_of(store)
    assert list(state.history) == [*closed.history, happened(closed.sequence + 1)]
    assert state.run.status is Status.PENDING


async def test_a_run_that_was_opened_again_is_held_written_and_closed_like_every_other(store: Store) -> None:
    await make_closed(store)

    for sequence in (3, 6):
        assert await reopen(store, sequence)
        lease = await take(store, owner="b")
        state = await state_of(store)
        assert (state.sequence, state.history[-1]) == (sequence, happened(sequence))
        await store.commit(lease, commit_of(sequence + 1))
        assert (await store.deliver("run-1", a_message())).outcome is DeliveryOutcome.ACCEPTED
        closing = Release(status=Status.COMPLETED, output=str(sequence), closed_at=T0 + 2 * SECOND)
        await store.commit(lease, commit_of(sequence + 2, release=closing))

    state = await state_of(store)
    assert list(state.history)[1:] == [happened(number) for number in range(1, 9)]
    assert (state.sequence, state.run.sequence) == (8, 8)
    assert (state.run.status, state.run.output) == (Status.COMPLETED, "6")


async def test_unknown_and_open_runs_cannot_be_opened_again(store: Store) -> None:
    await make(store)
    assert not await reopen(store, 1, "nobody")
    assert not await reopen(store, 1)
    lease = await take(store)
    await store.commit(lease, commit_of(1))
    before = await state_of(store)

    assert not await reopen(store, 2)
    await let_go(store, lease, Status.PARKED)
    assert not await reopen(store, 2)

    assert list((await state_of(store)).history) == list(before.history)
    assert (await record_of(store)).status is Status.PARKED
    assert await store.get("nobody") is None


@pytest.mark.parametrize("sequence", [0, 1, 2, 4])
async def test_a_run_is_opened_again_only_behind_its_last_history_document(store: Store, sequence: int) -> None:
    closed = await make_closed(store)

    assert not await reopen(store, sequence)

    assert await state_of(store) == closed
    assert await store.due(now=T0 + timedelta(days=365), limit=10) == []


async def test_an_opening_that_is_asked_again_happens_once_and_any_other_is_refused(store: Store) -> None:
    await make_closed(store)
    assert await reopen(store)
    before = await state_of(store)

    assert await reopen(store)
    assert not await reopen(store, events=[happened(99)])
    assert not await reopen(store, retry_count=3)
    assert not await reopen(store, now=T0 + 2 * SECOND)
    assert not await reopen(store, 4)

    assert await state_of(store) == before


async def test_of_simultaneous_openings_exactly_one_succeeds(store: Store) -> None:
    closed = await make_closed(store)

    opened = await asyncio.gather(*(reopen(store, events=[happened(number)]) for number in range(10, 20)))

    assert opened.count(True) == 1
    assert list((await state_of(store)).history) == [*closed.history, happened(10 + opened.index(True))]


async def test_what_waited_when_a_run_closed_does_not_come_to_life_when_it_is_opened_again(store: Store) -> None:
    await make(store)
    for number in range(5):
        await store.deliver("run-1", a_message(f"m-{number}", kind=MessageKind.TERMINATE))
    await store.commit(await take(store), commit_of(1, release=Release(status=Status.FAILED, closed_at=T0)))

    assert await reopen(store, 2, now=T0 + timedelta(days=1))

    assert list(await store.inbox("run-1")) == list((await state_of(store)).inbox) == []
    assert await store.due(now=T0 + timedelta(hours=23), limit=10) == []
    assert (await store.deliver("run-1", a_message("m-1"))).outcome is DeliveryOutcome.ACCEPTED
    assert list(await store.inbox("run-1")) == [a_message("m-1")]


async def test_whoever_held_the_run_before_it_was_opened_again_cannot_write(store: Store) -> None:
    await make(store)
    silent = await take(store, owner="silent")
    closer = await take(store, owner="closer", now=silent.until)
    end = commit_of(2, release=Release(status=Status.FAILED, closed_at=T0))
    await store.commit(closer, end)
    assert await reopen(store, 3)
    before = await state_of(store)

    for lease, sequence in ((silent, 1), (closer, 3), (closer, 4)):
        for release in (None, Release(status=Status.WAITING), Release(status=Status.COMPLETED, closed_at=T0)):
            with pytest.raises(LeaseLost):
                await store.commit(lease, Commit(sequence=sequence, events=(happened(9),), release=release))
    await store.commit(closer, end)  # the very commit that is there already

    assert await state_of(store) == before


async def test_an_opening_over_the_limit_changes_nothing(store: Store) -> None:
    closed = await make_closed(store)

    with pytest.raises(PayloadTooLargeError):
        await reopen(store, events=[happened(1, "x" * store.max_event_bytes)])

    assert await state_of(store) == closed


async def test_a_run_with_large_ends_can_be_opened_again(store: Store) -> None:
    large = '"' + "x" * 600_000 + '"'
    run = await make(store, input=large)
    end = history.RunCompleted(at=T0, output=large)
    release = Release(status=Status.COMPLETED, output=large, closed_at=T0)
    await store.commit(await take(store), Commit(sequence=1, events=(end,), release=release))

    assert await reopen(store, 2, events=[happened(2, large)])
    await store.commit(await take(store), Commit(sequence=3, events=(end,), release=release))
    assert await reopen(store, 4)

    state = await state_of(store)
    assert list(state.history) == [*opening(run), end, happened(2, large), end, happened(4)]
    assert (state.run.input, state.run.output) == (large, None)


async def test_a_later_generation_can_be_opened_again(store: Store) -> None:
    await make(store)
    await store.commit(await take(store), commit_of(1, release=going_on()))
    end = commit_of(1, release=Release(status=Status.FAILED, closed_at=T0))
    await store.commit(await take(store), end)

    assert await reopen(store, 2)

    state = await state_of(store)
    assert list(state.history) == [happened(100), happened(1), happened(2)]
    assert (state.run.generation, state.sequence) == (1, 2)
    await store.commit(await take(store), Commit(sequence=3, release=going_on(happened(200))))
    assert list((await state_of(store)).history) == [happened(200)]


# --- list and purge ------------------------------------------------------------------------------


async def listed(store: Store, **fields: Any) -> list[str]:
    return [run.run_id for run in (await store.list(RunQuery(**fields))).items]


async def test_a_list_shows_whole_records_newest_first(store: Store) -> None:
    await make(store, "b", created_at=T0)
    await make(store, "new", created_at=T0 + MICROSECOND, attributes={"k": [1, {"n": None}]})
    await make(store, "a", created_at=T0)
    await make(store, "old", created_at=T0 - MICROSECOND)

    page = await store.list(RunQuery())

    assert [run.run_id for run in page.items] == ["new", "b", "a", "old"]
    assert page.next_cursor is None
    assert page.items[0] == await store.get("new")


async def test_each_filter_narrows_the_list(store: Store) -> None:
    await make(store, "r1", name="order", workflow_id="w1", created_at=T0)
    await make(store, "r2", name="order", workflow_id="w2", created_at=T0 + SECOND)
    await make(store, "r3", name="other", workflow_id="w1", created_at=T0 + 2 * SECOND, parent_run_id="r1")
    await make(store, "r4", name="other", workflow_id="w4", created_at=T0 - SECOND, parent_run_id="r1")
    await let_go(store, await take(store, "r1"), Status.PAUSED, open_approvals=(AN_APPROVAL,))
    await let_go(store, await take(store, "r2"), Status.COMPLETED, closed_at=T0)

    assert await listed(store, status=Status.PAUSED) == ["r1"]
    assert await listed(store, status=Status.PENDING) == ["r3", "r4"]
    assert await listed(store, parent_run_id="r1") == ["r3", "r4"]
    assert await listed(store, parent_run_id="r1", workflow_id="w4") == ["r4"]
    assert await listed(store, parent_run_id="r3") == []
    assert await listed(store, name="order") == ["r2", "r1"]
    assert await listed(store, workflow_id="w1") == ["r3", "r1"]
    assert await listed(store, started_after=T0 + SECOND) == ["r3", "r2"]
    assert await listed(store, started_before=T0 + SECOND) == ["r1", "r4"]
    assert await listed(store, open_approvals=True) == ["r1"]
    assert await listed(store, name="order", workflow_id="w1", status=Status.PAUSED, started_after=T0) == ["r1"]
    assert await listed(store, name="nothing") == []


async def test_runs_are_counted_by_the_filters_of_a_list_and_no_further_than_asked(store: Store) -> None:
    for number in range(5):
        name = "even" if number % 2 == 0 else "odd"
        await make(store, f"r{number}", name=name, created_at=T0 + number * SECOND, attributes={"n": number})
    await let_go(store, await take(store, "r1"), Status.COMPLETED, closed_at=T0)

    assert await store.count(RunQuery(), most=100) == 5
    assert await store.count(RunQuery(limit=1, offset=3), most=4) == 4
    assert await store.count(RunQuery(name="even"), most=100) == 3
    assert await store.count(RunQuery(status=Status.PENDING, started_after=T0 + 2 * SECOND), most=100) == 3
    assert await store.count(RunQuery(status=Status.COMPLETED, name="odd"), most=100) == 1
    assert await store.count(RunQuery(attributes={"n": 3}), most=100) == 1
    assert await store.count(RunQuery(name="none"), most=100) == 0


async def test_runs_are_found_by_how_their_ids_begin_in_the_order_of_the_ids(store: Store) -> None:
    for number, run_id in enumerate(("ab", "a", "ab/c", "ab\U0001f600", "ab%", "b", "ab.", "a\U0010ffff", "A")):
        await make(store, run_id, workflow_id=f"w-{run_id[:2]}", created_at=T0 + number * SECOND)

    async def found(prefix: str, by: Literal["run_id", "workflow_id"] = "run_id", limit: int = 20) -> list[str]:
        return [run.run_id for run in await store.find(prefix, by=by, limit=limit)]

    assert set(await found("ab")) == {"ab", "ab%", "ab.", "ab/c", "ab\U0001f600"}
    assert await found("ab", limit=1) == ["ab"]
    assert (await found("a"))[:2] == ["a", "ab"]
    assert await found("ab/") == ["ab/c"]
    assert await found("ab%") == ["ab%"]
    assert await found("ab.") == ["ab."]
    assert await found("b") == ["b"]
    for nothing in ("c", "..", ".", "__x__", "\U0010ffff", "a'; --", "%"):
        assert await found(nothing) == []
    assert await found("w-ab", "workflow_id") == ["ab.", "ab%", "ab\U0001f600", "ab/c", "ab"]
    assert await found("w-a", "workflow_id", 2) == ["a", "ab."]
    assert await found("w-b", "workflow_id") == ["b"]
    assert await found("ab", "workflow_id") == []
    assert (await store.find("b", by="run_id", limit=1))[0] == await store.get("b")


async def test_attributes_are_compared_by_value(store: Store) -> None:
    await make(store, "r1", attributes={"text": "a'b", "n": 1, "x": 1.5, "flag": True, "odd key.$": "y"})
    await make(store, "r2", attributes={"text": "1", "n": 2, "flag": False})
    await make(store, "r3")

    assert await listed(store, attributes={"text": "a'b"}) == ["r1"]
    assert await listed(store, attributes={"n": 2}) == ["r2"]
    assert await listed(store, attributes={"x": 1.5}) == ["r1"]
    assert await listed(store, attributes={"flag": True}) == ["r1"]
    assert await listed(store, attributes={"flag": False}) == ["r2"]
    assert await listed(store, attributes={"odd key.$": "y"}) == ["r1"]
    assert await listed(store, attributes={"n": 1, "flag": True}) == ["r1"]
    assert await listed(store, attributes={"n": 1, "flag": False}) == []
    assert await listed(store, attributes={"n": "1"}) == []
    assert await listed(store, attributes={"flag": 1}) == []
    assert await listed(store, attributes={"missing": "y"}) == []


async def test_cursors_lead_through_every_run_once_also_when_new_ones_arrive(store: Store) -> None:
    moments = [T0, T0, T0, T0 + SECOND, T0 + SECOND, T0 + 2 * SECOND, T0 + 3 * SECOND]
    for number, moment in enumerate(moments):
        await make(store, f"r{number}", created_at=moment, name="odd" if number % 2 else "even")

    seen: list[str] = []
    cursor: str | None = None
    for number in range(4):
        page = await store.list(RunQuery(limit=2, cursor=cursor))
        seen += [run.run_id for run in page.items]
        cursor = page.next_cursor
        await make(store, f"newer-{number}", created_at=T0 + timedelta(hours=number + 1))

    assert seen == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert cursor is None
    first = await store.list(RunQuery(limit=2, name="even"))
    rest = await store.list(RunQuery(limit=2, name="even", cursor=first.next_cursor))
    assert [run.run_id for run in (*first.items, *rest.items)] == ["r6", "r4", "r2", "r0"]
    assert rest.next_cursor is None


async def test_an_offset_skips_runs(store: Store) -> None:
    for number in range(5):
        await make(store, f"r{number}", created_at=T0 + number * SECOND)

    assert await listed(store, offset=1, limit=2) == ["r3", "r2"]
    assert await listed(store, offset=4, limit=2) == ["r0"]
    assert await listed(store, offset=9) == []


@pytest.mark.parametrize("cursor", ["", "x", "nonsense!", "e30=", "WzEsMl0=", "bnVsbA==", "ü", "\udcff", "W1tbW1s="])
async def test_a_cursor_that_is_none_of_ours_is_refused(store: Store, cursor: str) -> None:
    await make(store)

    with pytest.raises(ValueError, match="cursor"):
        await store.list(RunQuery(cursor=cursor))


async def test_a_purged_run_leaves_nothing_behind(store: Store) -> None:
    await make(store, wake_at=T0)
    await make(store, "neighbour")
    await store.deliver("neighbour", a_message())
    lease = await take(store)
    for number in range(1, 4):
        await store.commit(lease, commit_of(number))
    await store.deliver("run-1", a_message())
    neighbour = await state_of(store, "neighbour")

    await store.purge("run-1")
    await store.purge("run-1")
    await store.purge("nobody")

    assert await store.get("run-1") is None
    assert await store.load("run-1") is None
    assert list(await store.inbox("run-1")) == []
    assert await listed(store) == ["neighbour"]
    assert await store.due(now=T0 + timedelta(days=1), limit=10) == ["neighbour"]
    assert await state_of(store, "neighbour") == neighbour
    fresh = await make(store)
    assert await state_of(store) == RunState(run=fresh, history=opening(fresh), sequence=0, inbox=[])


# --- times, loops --------------------------------------------------------------------------------


async def test_moments_keep_their_microseconds_however_far_away(store: Store) -> None:
    far = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=T0.tzinfo)
    near = datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=T0.tzinfo)
    await make(store, created_at=near)

    await let_go(store, await take(store, now=near), wake_at=far)

    run = await record_of(store)
    assert (run.created_at, run.wake_at) == (near, far)
    assert await store.due(now=far - MICROSECOND, limit=1) == []
    assert await store.due(now=far, limit=1) == ["run-1"]


def test_one_instance_serves_one_event_loop_after_another(store_factory: StoreFactory) -> None:
    store = store_factory()

    async def first() -> None:
        await make(store)

    async def second() -> Run | None:
        await take(store)
        run = await store.get("run-1")
        await store.close()
        return run

    asyncio.run(first())
    run = asyncio.run(second())

    assert run is not None
    assert run.lease_owner == "a"
