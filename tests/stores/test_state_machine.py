"""Every store against a model that fits on one page, under whatever order of calls Hypothesis can think of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.stores.conftest import StoreFactory
from tests.stores.records import MICROSECOND, SECOND, T0, TTL, a_message, a_run, happened, opening
from tinyworkflow_core.engine.history import Event, LeaseTaken
from tinyworkflow_core.errors import LeaseLost, RunExistsError
from tinyworkflow_core.store import (
    CLOSED_STATUSES,
    GRACE,
    STEERING,
    Commit,
    DeliveryOutcome,
    Lease,
    Message,
    MessageKind,
    NewRun,
    OpenApproval,
    Release,
    Run,
    RunState,
    Status,
)

T = TypeVar("T")

PUT_ASIDE = frozenset({Status.PARKED, Status.SUSPENDED})

EXAMPLES = {"sqlite-memory": 50, "sqlite-file": 10, "firestore": 4}
RUN_IDS = st.sampled_from(["r1", "r2", "r3"])
MESSAGE_IDS = st.sampled_from(["m1", "m2", "m3"])
KINDS = st.sampled_from([MessageKind.SIGNAL, MessageKind.SUSPEND, MessageKind.RESUME, MessageKind.TERMINATE])
OWNERS = st.sampled_from(["a", "b"])
MOMENTS_TO_WAKE = st.sampled_from([None, 0, 5, 15, 60])
RELEASES = st.builds(
    Release,
    status=st.sampled_from([status for status in Status if status is not Status.RUNNING]),
    custom_status=st.sampled_from([None, "c"]),
    open_approvals=st.sampled_from([(), (OpenApproval(id=1, key="k", requested_at=T0),)]),
    retry_count=st.integers(0, 2),
)


@dataclass
class Modelled:
    """One run as it should be."""

    run: Run
    documents: list[tuple[Event, ...]]
    inbox: dict[str, Message] = field(default_factory=dict)
    token: str | None = None

    @property
    def state(self) -> RunState:
        return RunState(
            run=self.run,
            history=[event for document in self.documents for event in document],
            sequence=len(self.documents) - 1,
            inbox=sorted(self.inbox.values(), key=lambda message: (message.received_at, message.id)),
        )

    @property
    def due_at(self) -> datetime | None:
        """The first moment at which somebody must look at it."""
        if self.run.status.closed:
            return None
        moments = [self.run.wake_at] if self.run.wake_at is not None else []
        if self.token is None:
            driving = [one for one in self.inbox.values() if one.kind in STEERING or not self.is_put_aside]
            moments += [message.received_at + GRACE for message in driving]
        return min(moments, default=None)

    @property
    def is_free(self) -> bool:
        return self.token is None and not self.run.status.closed

    @property
    def is_put_aside(self) -> bool:
        return self.token is None and self.run.status in PUT_ASIDE

    def deliver(self, message: Message) -> DeliveryOutcome:
        if self.run.status.closed:
            return DeliveryOutcome.CLOSED
        known = message.id in self.inbox
        self.inbox.setdefault(message.id, message)
        return DeliveryOutcome.DUPLICATE if known else DeliveryOutcome.ACCEPTED

    def change(self, release: Release) -> None:
        apart = ("keep_lease", "wake_at", "next_generation")
        fields = {name: getattr(release, name) for name in Release.__slots__ if name not in apart}
        self.run = replace(self.run, sequence=len(self.documents) - 1, **fields)
        if release.keep_lease:
            return
        self.token = None
        closed = release.status.closed
        self.run = replace(self.run, wake_at=None if closed else release.wake_at, lease_owner=None, lease_until=None)
        if closed:
            self.inbox.clear()
        if release.next_generation:
            self.documents = [release.next_generation]
            self.run = replace(self.run, generation=self.run.generation + 1, sequence=0)


@dataclass
class Holder:
    """Somebody who holds a run, or believes so."""

    lease: Lease
    sequence: int
    of: Modelled
    last: Commit | None = None
    generation: int = 0
    """The run's, since the last commit."""


class StoreMachine(RuleBasedStateMachine):
    """Calls the store and the model alike, and compares."""

    holders: Bundle[Holder] = Bundle("holders")
    former: Bundle[Holder] = Bundle("former")

    def __init__(self, factory: StoreFactory) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = factory()
        self.now = T0
        self.count = 0
        self.runs: dict[str, Modelled] = {}

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        self.call(self.store.close())
        self.loop.close()

    def moment(self) -> datetime:
        """A moment that no other record carries, so that every order is settled."""
        self.count += 1
        return self.now + self.count * MICROSECOND

    # --- rules -------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        for run_id in ("r1", "r2"):
            self.create(run_id, 0)

    @precondition(lambda self: len(self.runs) < 3 or self.count % 4 == 0)
    @rule(run_id=RUN_IDS, wake=MOMENTS_TO_WAKE)
    def start(self, run_id: str, wake: int | None) -> None:
        self.create(run_id, wake)

    def create(self, run_id: str, wake: int | None) -> None:
        moment = self.moment()
        run = a_run(run_id, created_at=moment, wake_at=None if wake is None else moment + wake * SECOND)
        made = self.call(self.store.create(run, opening(run)))
        assert made is (run_id not in self.runs)
        if made:
            self.runs[run_id] = Modelled(run=run, documents=[tuple(opening(run))])

    @rule(run_id=RUN_IDS)
    def create_again(self, run_id: str) -> None:
        if there := self.runs.get(run_id):
            untouched = there.run.started_at is None
            assert self.call(self.store.create(there.run, there.documents[0])) or not untouched

    @rule(run_id=RUN_IDS, message_id=MESSAGE_IDS, age=st.sampled_from([0, 3, 20]), kind=KINDS)
    def message(self, run_id: str, message_id: str, age: int, kind: MessageKind) -> None:
        self.deliver(run_id, message_id, age, kind)

    def deliver(self, run_id: str, message_id: str, age: int, kind: MessageKind) -> None:
        message = a_message(message_id, at=self.moment() - age * SECOND, kind=kind, body={"n": self.count})
        there = self.runs.get(run_id)
        before = there.inbox.get(message_id) if there else None
        delivery = self.call(self.store.deliver(run_id, message))
        assert delivery.outcome is (there.deliver(message) if there else DeliveryOutcome.UNKNOWN)
        assert delivery.existing == (before if delivery.outcome is DeliveryOutcome.DUPLICATE else None)

    @precondition(lambda self: any(there.is_put_aside for there in self.runs.values()))
    @rule(data=st.data(), message_id=MESSAGE_IDS, kind=st.sampled_from(sorted(STEERING)))
    def steer(self, data: st.DataObject, message_id: str, kind: MessageKind) -> None:
        aside = sorted(run_id for run_id, there in self.runs.items() if there.is_put_aside)
        self.deliver(data.draw(st.sampled_from(aside)), message_id, 20, kind)

    @precondition(lambda self: any(there.is_free for there in self.runs.values()))
    @rule(target=holders, data=st.data(), owner=OWNERS)
    def take(self, data: st.DataObject, owner: str) -> Any:
        free = sorted(run_id for run_id, there in self.runs.items() if there.is_free)
        return self.acquire(data.draw(st.sampled_from(free)), owner, "")

    @precondition(lambda self: not all(there.is_free for there in self.runs.values()))
    @rule(target=holders, run_id=RUN_IDS, owner=OWNERS, dead=st.sampled_from(["", "a", "b"]))
    def try_to_take(self, run_id: str, owner: str, dead: str) -> Any:
        return self.acquire(run_id, owner, dead)

    def acquire(self, run_id: str, owner: str, dead: str) -> Any:
        now = self.moment()
        taken = self.call(self.store.acquire(run_id, owner=owner, now=now, ttl=TTL, gone=lambda holder: holder == dead))
        there = self.runs.get(run_id)
        run = there.run if there else None
        held = run is not None and run.lease_until is not None and run.lease_until > now and run.lease_owner != dead
        if there is None or there.run.status.closed or held:
            assert taken is None
            return multiple()
        assert taken is not None
        assert taken.state == self.call(self.store.load(run_id))
        if there.run.lease_owner is not None:
            there.documents.append((LeaseTaken(at=now, owner=owner, previous_owner=there.run.lease_owner),))
        there.token = taken.lease.token
        there.run = replace(
            there.run,
            status=Status.RUNNING,
            started_at=there.run.started_at or now,
            wake_at=now + TTL,
            lease_owner=owner,
            lease_until=now + TTL,
            sequence=len(there.documents) - 1,
        )
        return Holder(lease=taken.lease, sequence=len(there.documents) - 1, of=there)

    @rule(
        holder=holders,
        events=st.integers(0, 2),
        consumed=st.sets(MESSAGE_IDS),
        outbox=st.lists(st.tuples(RUN_IDS, MESSAGE_IDS), max_size=2, unique=True),
        new=st.none() | RUN_IDS,
        changes=st.none() | RELEASES,
    )
    def commit(
        self,
        *,
        holder: Holder,
        events: int,
        consumed: set[str],
        outbox: list[tuple[str, str]],
        new: str | None,
        changes: Release | None,
    ) -> None:
        release = replace(changes, keep_lease=True) if changes and not changes.status.closed else None
        self.write(holder, events, consumed, outbox, new, release)

    @rule(
        target=former,
        holder=consumes(holders),
        events=st.integers(0, 2),
        consumed=st.sets(MESSAGE_IDS),
        outbox=st.lists(st.tuples(RUN_IDS, MESSAGE_IDS), max_size=2, unique=True),
        new=st.none() | RUN_IDS,
        release=RELEASES,
        wake=MOMENTS_TO_WAKE,
        goes_on=st.booleans(),
        twice=st.booleans(),
    )
    def release(
        self,
        *,
        holder: Holder,
        events: int,
        consumed: set[str],
        outbox: list[tuple[str, str]],
        new: str | None,
        release: Release,
        wake: int | None,
        goes_on: bool,
        twice: bool,
    ) -> Holder:
        wake_at = None if wake is None else self.moment() + wake * SECOND
        closed_at = self.moment() if release.status.closed else None
        opening = (happened(self.count * 10 + 9),) if goes_on and not release.status.closed else ()
        full = replace(release, wake_at=wake_at, closed_at=closed_at, next_generation=opening)
        self.write(holder, events, consumed, outbox, new, full)
        if twice:
            self.write_the_same_again(holder)
        return holder

    @rule(target=former, holder=consumes(holders), status=st.sampled_from(sorted(CLOSED_STATUSES)))
    def end(self, holder: Holder, status: Status) -> Holder:
        self.write(holder, 1, set(), [], None, Release(status=status, closed_at=self.moment()))
        return holder

    @rule(target=former, holder=consumes(holders), status=st.sampled_from(sorted(PUT_ASIDE)))
    def put_aside(self, holder: Holder, status: Status) -> Holder:
        self.write(holder, 0, set(), [], None, Release(status=status))
        return holder

    def write(
        self,
        holder: Holder,
        events: int,
        consumed: set[str],
        outbox: list[tuple[str, str]],
        new: str | None,
        release: Release | None,
    ) -> None:
        run_id = holder.lease.run_id
        others = [target for target in outbox if target[0] != run_id]
        commit = Commit(
            sequence=holder.sequence + 1,
            events=tuple(happened(self.count * 10 + number) for number in range(events)),
            consumed=tuple(sorted(consumed)),
            release=release,
            outbox=tuple((target, a_message(message_id, at=self.moment())) for target, message_id in others),
            new_runs=() if new is None or not events else (self.new_run(new),),
        )
        self.count += 1  # so that no other commit carries equal events
        there = self.runs.get(run_id)
        if there is None or there.token != holder.lease.token:
            self.refused(self.store.commit(holder.lease, commit), also=RunExistsError)  # whichever is met first
            return
        if any(one.run.run_id in self.runs for one in commit.new_runs):
            self.refused(self.store.commit(holder.lease, commit), RunExistsError)
            return
        self.call(self.store.commit(holder.lease, commit))
        holder.last = commit
        if commit.events:
            holder.sequence += 1
            there.documents.append(commit.events)
        for message_id in consumed:
            there.inbox.pop(message_id, None)
        if release is not None:
            there.change(release)
        holder.generation = there.run.generation
        for one in commit.new_runs:
            self.runs[one.run.run_id] = Modelled(run=one.run, documents=[one.events])
        for target, message in commit.outbox:
            if target in self.runs:
                self.runs[target].deliver(message)

    def new_run(self, run_id: str) -> NewRun:
        run = a_run(run_id, created_at=self.moment(), wake_at=self.moment(), parent_run_id="p")
        return NewRun(run=run, events=tuple(opening(run)))

    def refused(
        self,
        coroutine: Coroutine[Any, Any, object],
        error: type[BaseException] = LeaseLost,
        also: type[BaseException] | None = None,
    ) -> None:
        try:
            self.call(coroutine)
        except BaseException as raised:
            if not isinstance(raised, (error, also or error)):
                raise
            return
        raise AssertionError("a write was allowed that had to be refused")

    @rule(holder=holders | former)
    def commit_the_same_again(self, holder: Holder) -> None:
        self.write_the_same_again(holder)

    def write_the_same_again(self, holder: Holder) -> None:
        last, there = holder.last, self.runs.get(holder.lease.run_id)
        if last is None or there is not holder.of or there.run.generation != holder.generation:
            return  # what tells that it was written is gone
        if last.events or (last.release is not None and last.release.next_generation):
            self.call(self.store.commit(holder.lease, last))

    @precondition(lambda self: any(there.run.status.closed for there in self.runs.values()))
    @rule(data=st.data(), twice=st.booleans())
    def reopen(self, data: st.DataObject, twice: bool) -> None:
        ended = sorted(run_id for run_id, there in self.runs.items() if there.run.status.closed)
        run_id = data.draw(st.sampled_from(ended))
        there, now, event = self.runs[run_id], self.moment(), happened(self.count * 10)
        sequence = len(there.documents)
        for _ in range(1 + twice):
            opened = self.store.reopen(run_id, sequence=sequence, events=[event], retry_count=self.count, now=now)
            assert self.call(opened)
        there.documents.append((event,))
        changes: dict[str, Any] = dict.fromkeys(("closed_at", "output", "error", "problem"))
        changes |= {"status": Status.PENDING, "wake_at": now, "retry_count": self.count, "sequence": sequence}
        there.run = replace(there.run, **changes)

    @rule(run_id=RUN_IDS, offset=st.sampled_from([-1, 0, 1]))
    def reopen_in_vain(self, run_id: str, offset: int) -> None:
        there = self.runs.get(run_id)
        if there is None or offset != 0 or not there.run.status.closed:
            sequence = (len(there.documents) if there else 1) + offset
            opened = self.store.reopen(run_id, sequence=sequence, events=[happened(0)], retry_count=9, now=self.now)
            assert not self.call(opened)

    @rule(holder=holders | former)
    def renew(self, holder: Holder) -> None:
        now = self.moment()
        there = self.runs.get(holder.lease.run_id)
        if there is None or there.token != holder.lease.token:
            self.refused(self.store.renew(holder.lease, now=now, ttl=TTL))
            return
        assert self.call(self.store.renew(holder.lease, now=now, ttl=TTL)) is bool(there.inbox)
        there.run = replace(there.run, lease_until=now + TTL, wake_at=now + TTL)

    @rule(holder=consumes(holders))
    def crash(self, holder: Holder) -> None:
        """The holder forgets: nobody lets the run go."""

    @rule(seconds=st.sampled_from([1, 5, 15, 31]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: any(there.token is None for there in self.runs.values()))
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(name for name, there in self.runs.items() if there.token is None)))
        self.call(self.store.purge(run_id))
        del self.runs[run_id]

    # --- what always holds -------------------------------------------------------------------

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        for run_id in ("r1", "r2", "r3"):
            there = self.runs.get(run_id)
            assert self.call(self.store.load(run_id)) == (there.state if there else None)
            assert self.call(self.store.get(run_id)) == (there.run if there else None)
            assert list(self.call(self.store.inbox(run_id))) == (list(there.state.inbox) if there else [])

    @invariant()
    def the_same_runs_are_due(self) -> None:
        now = self.now + self.count * MICROSECOND
        moments = {run_id: there.due_at for run_id, there in self.runs.items()}
        expected = sorted((moment, run_id) for run_id, moment in moments.items() if moment and moment <= now)
        assert self.call(self.store.due(now=now, limit=10)) == [run_id for _, run_id in expected]


def test_the_store_does_what_the_model_does(store_factory: StoreFactory) -> None:
    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(store_factory)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES[store_factory.kind],
            stateful_step_count=40,
            deadline=None,  # a store's speed is not its meaning
            derandomize=True,  # the same examples everywhere: a red build can be repeated
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
