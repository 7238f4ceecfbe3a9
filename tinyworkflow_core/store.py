"""Port: where runs live. The records, and the verbs that every store has.

One run is a small record plus an append-only history plus an inbox of messages:

- The record is written when a lease is taken and when it is let go, not at every step.
- History: one commit is one document `(run_id, generation, sequence)` holding one or more events. It is created and
  never changed; creating it is the fence that keeps a history linear, whatever the leases do.
- Inbox: one document per message, keyed by the message's id, so a delivery that comes twice is kept once. The commit
  that turns a message into events deletes it, in the same write.

No verb reads a clock: `now` is an argument. Every verb is atomic: it happens whole or not at all. Adapters translate
every driver error into `StoreError` or `StoreUnavailableError`; a verb that raised StoreUnavailableError may have
happened and can be called again with the same arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from .engine.history import Event
from .records import dataclass
from .schedule_store import ScheduleStore
from .serialization import Failure

GRACE = timedelta(seconds=10)
"""A message that still waits this long after it was received makes its run due: whoever should have advanced the run
died, or its wake-up was lost."""

T = TypeVar("T")


class Status(StrEnum):
    """Where a run stands. The last four are final."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    RETRYING = "retrying"
    SUSPENDED = "suspended"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"

    @property
    def closed(self) -> bool:
        """Whether the run has ended."""
        return self in CLOSED_STATUSES


CLOSED_STATUSES = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TERMINATED})


@dataclass(frozen=True, kw_only=True, slots=True)
class CastVote:
    """What one person has said to a question that takes the votes of several."""

    by: str | None
    approved: bool
    at: datetime
    comment: str | None = None
    way: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenApproval:
    """A question that a run has asked and that is not decided. `id` is the command's position in its generation."""

    id: int
    key: str
    requested_at: datetime
    title: str | None = None
    details: str | None = None
    approvers: tuple[str, ...] = ()
    form: str | None = None
    expires_at: datetime | None = None
    quorum: int = 1
    """So many have to approve."""
    veto: bool = True
    """Whether one rejection is enough all the same."""
    escalate_to: tuple[str, ...] = ()
    """Who may decide as well from `escalates_at` on."""
    escalates_at: datetime | None = None
    votes: tuple[CastVote, ...] = ()
    """Those that count so far, oldest first; always empty with a quorum of 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The record of one run: what a list shows and what the tick needs. Values are JSON text made by the Codec."""

    run_id: str
    workflow_id: str
    name: str
    version: int
    input: str
    created_at: datetime
    status: Status = Status.PENDING
    output: str | None = None
    error: Failure | None = None
    started_at: datetime | None = None
    closed_at: datetime | None = None
    parent_run_id: str | None = None
    generation: int = 0
    sequence: int = 0
    """The last history document written when the record was; while a lease is held the history may be ahead of it."""
    wake_at: datetime | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None
    open_approvals: tuple[OpenApproval, ...] = ()
    custom_status: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    retry_count: int = 0
    problem: str | None = None
    """Why a parked run is parked."""
    request_digest: str | None = None
    """Fingerprint of the start request that an idempotency key stands for."""


class MessageKind(StrEnum):
    """What a message asks of the run that receives it."""

    SIGNAL = "signal"
    APPROVAL = "approval"
    UPDATE = "update"
    CANCEL = "cancel"
    TERMINATE = "terminate"
    SUSPEND = "suspend"
    RESUME = "resume"
    ACTIVITY = "activity"
    """How an attempt that was a call of its own has ended."""
    CHILD = "child"
    """How a child run has ended."""


STEERING = frozenset({MessageKind.TERMINATE, MessageKind.RESUME})
"""Messages that make even a suspended or parked run due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """Something for a run's inbox. `id` makes it the same message however often it is delivered; `body` is JSON
    data."""

    id: str
    kind: MessageKind
    received_at: datetime
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to write to one run until `until`. `token` tells this taking of the lease from every other."""

    run_id: str
    owner: str
    token: str
    until: datetime
    generation: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """All there is of one run. `history` and `sequence` are of the current generation, oldest event first."""

    run: Run
    history: Sequence[Event]
    sequence: int
    """The last history document; the next commit writes `sequence + 1`."""
    inbox: Sequence[Message]
    """In the order of `received_at`, then id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """A run that was taken, and what was read of it by the way."""

    lease: Lease
    state: RunState | None
    """All that `load` would show its holder now. None: it has to be loaded, since it is long, or cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What became of a message."""

    outcome: DeliveryOutcome
    existing: Message | None = None
    """With DUPLICATE: the message that already waits under this id, unless it has been consumed in this very moment."""


class DeliveryOutcome(StrEnum):
    """ACCEPTED and DUPLICATE: it waits in the inbox of an open run. CLOSED, UNKNOWN: nothing was stored."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CLOSED = "closed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """How a run is let go: the parts of its record that change. A closed status ends the run for good."""

    status: Status
    wake_at: datetime | None = None
    output: str | None = None
    error: Failure | None = None
    closed_at: datetime | None = None
    open_approvals: tuple[OpenApproval, ...] = ()
    custom_status: str | None = None
    problem: str | None = None
    retry_count: int = 0
    keep_lease: bool = False
    """True changes the record without letting go, so that a new approval shows while an activity is still at work: the
    lease stays, and wake_at stays the lease's end."""
    next_generation: tuple[Event, ...] = ()
    """When not empty, the run goes on as its next generation: these events are history document 0 of `generation + 1`,
    the record's generation rises by one and its sequence is 0. The history of earlier generations is removed, in this
    write or soon after; the inbox stays. Never together with a closed status or keep_lease."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run that a commit creates, and its opening events."""

    run: Run
    events: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """One atomic write by the holder of a lease."""

    sequence: int
    """The history document that it creates; ignored when `events` is empty."""
    events: tuple[Event, ...] = ()
    consumed: tuple[str, ...] = ()
    """Ids of the inbox messages that these events came from, or that were found to be repetitions."""
    release: Release | None = None
    """None keeps the lease and leaves the record alone."""
    outbox: tuple[tuple[str, Message], ...] = ()
    """Messages to other runs, (run_id, message) each; one to a closed or unknown run is dropped."""
    new_runs: tuple[NewRun, ...] = ()
    """Runs to create, each as `Store.create` does. Only together with events."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunQuery:
    """Which runs to list, newest first. Every field narrows; None does not."""

    status: Status | None = None
    name: str | None = None
    workflow_id: str | None = None
    started_after: datetime | None = None
    """created_at >= this."""
    started_before: datetime | None = None
    """created_at < this."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Equality of top-level attributes (str, int, float or bool)."""
    open_approvals: bool = False
    """Only runs that wait for somebody's decision."""
    parent_run_id: str | None = None
    limit: int = 100
    offset: int = 0
    cursor: str | None = None
    """`next_cursor` of the page before. Raises ValueError when it is none of ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page(Generic[T]):
    """One page of a list, and where the next begins (None: there is no next)."""

    items: Sequence[T]
    next_cursor: str | None = None


def after_prefix(prefix: str) -> str | None:
    """The first text after all that begin with `prefix`, in the order of code points. None: there is none."""
    for end in range(len(prefix), 0, -1):
        if (last := ord(prefix[end - 1])) < sys.maxunicode:
            # Surrogates are no characters, so no text in UTF-8 lies among them.
            return prefix[: end - 1] + chr(0xE000 if 0xD7FF <= last < 0xE000 else last + 1)
    return None


def nobody_is_gone(owner: str) -> bool:
    """The default of `gone`: a holder counts as alive until its lease ends."""
    return False


async def hand_back(
    store: Store, lease: Lease, *, wake_at: datetime, status: Status = Status.PENDING, problem: str | None = None
) -> None:
    """Let go of a run that was taken and not worked on: its record shows what it showed, but for these. Raises what
    `commit` raises."""
    run = await store.get(lease.run_id)
    if run is not None:
        release = Release(
            status=status,
            wake_at=wake_at,
            problem=problem,
            open_approvals=run.open_approvals,
            custom_status=run.custom_status,
            retry_count=run.retry_count,
        )
        await store.commit(lease, Commit(sequence=run.sequence, release=release))


class Store(Protocol):
    """Where runs live. One instance serves one process; it connects on first use, in the loop that uses it."""

    max_event_bytes: int
    """The most that the events of one commit may take as JSON; `Commit` over it raises PayloadTooLargeError."""

    @property
    def schedules(self) -> ScheduleStore:
        """Where the schedules of these runs live."""
        ...

    async def create(self, run: Run, events: Sequence[Event]) -> bool:
        """Make a new run.

        - Atomic: record and opening events (history document 0) appear together.
        - False: that run_id exists already, whatever its state, and nothing was written.
        - Of any number of simultaneous creates of one run_id exactly one gets True. One whose answer was lost and that
          is called again with an equal run gets True again as long as nobody took the run.
        """
        ...

    async def get(self, run_id: str) -> Run | None:
        """The record alone: one document read. None: unknown run."""
        ...

    async def load(self, run_id: str, *, inbox: bool = True) -> RunState | None:
        """The record, the history of its current generation, and the inbox (empty when it is not wanted: of a run that
        gathers a thousand outcomes it is long). None: unknown run.

        Called by a holder it shows everything that was written before its lease was taken.
        """
        ...

    async def inbox(self, run_id: str) -> Sequence[Message]:
        """The messages that wait, in the order of `received_at`, then id."""
        ...

    async def acquire(
        self,
        run_id: str,
        *,
        owner: str,
        now: datetime,
        ttl: timedelta,
        gone: Callable[[str], bool] = nobody_is_gone,
    ) -> Taken | None:
        """Take the run for `ttl`, and read it: in one go, which is cheaper than to load it afterwards.

        - None: the run is unknown or closed, or somebody else holds a lease that is neither over (`until <= now`) nor
          of a dead owner (`gone(owner)`).
        - Of any number of simultaneous calls at most one gets the lease.
        - Sets status RUNNING, started_at on the first taking, wake_at to the lease's end.
        - After StoreUnavailableError the lease may be taken all the same; then nobody gets it before its time is over.
        - Cancelled meanwhile, it hands back what it may have taken, soon after (where it can: else the lease runs out).
        - Taking it from a holder that did not let go also appends a `LeaseTaken` event as a history document of its
          own, in the same write. That is the fence: the old holder's next commit is refused.
        """
        ...

    async def renew(self, lease: Lease, *, now: datetime, ttl: timedelta) -> bool:
        """Hold the lease until now + ttl. True: messages are waiting. Raises LeaseLost when somebody else holds it."""
        ...

    async def commit(self, lease: Lease, commit: Commit) -> None:
        """Append events, delete consumed messages, send the outbox and let go: all or nothing.

        - Raises LeaseLost when the lease was taken by somebody else, or when history document `sequence` exists and was
          not written by this very commit; then nothing is written.
        - Called again with an equal commit after StoreUnavailableError it succeeds whether or not the first call did.
        - Raises RunExistsError, its `run_id` set, when one of `new_runs` exists already and was not created by this
          very commit; then nothing is written.
        - A commit that keeps the lease writes one history document and nothing on the record.
        - A release with a closed status drops whatever waits in the inbox.
        """
        ...

    async def reopen(
        self, run_id: str, *, sequence: int, events: Sequence[Event], retry_count: int, now: datetime
    ) -> bool:
        """Open a run again that has ended: append `events` as history document `sequence`, all or nothing.

        - False, and nothing was written: the run is unknown, is not closed, or its last history document is not
          `sequence - 1` (somebody else opened it again).
        - Sets status PENDING and wake_at `now`; closed_at, output, error and problem become None.
        - Called again with equal arguments after StoreUnavailableError it gives True whether or not the first call did,
          as long as nobody took the run.
        - The run is announced like a new one (`Notifies`).
        """
        ...

    async def deliver(self, run_id: str, message: Message) -> Delivery:
        """Put a message into the run's inbox, once per message id. One of a STEERING kind makes the run due even when
        it is suspended or parked."""
        ...

    async def due(self, *, now: datetime, limit: int, gone: Callable[[str], bool] = nobody_is_gone) -> list[str]:
        """Runs somebody must look at, longest overdue first: open with `wake_at <= now`, or with a message older than
        GRACE while nobody holds a lease and the run is neither parked nor suspended (for a STEERING message: also
        then), or (where the store can tell cheaply) held by an owner that is `gone`.

        Reads what is due and nothing else: its cost does not grow with the number of open runs.
        """
        ...

    async def list(self, query: RunQuery) -> Page[Run]:
        """Runs that fit, newest first (created_at, then run_id, both falling)."""
        ...

    async def count(self, query: RunQuery, *, most: int) -> int:
        """How many runs fit, counted up to `most`. Of the query its limit and offset do not matter. Reads no record."""
        ...

    async def find(self, prefix: str, *, by: Literal["run_id", "workflow_id"], limit: int) -> Sequence[Run]:
        """Runs whose id of that kind begins with `prefix`, which is not empty: a range of an index, at most `limit`.

        - By run_id in its order; by workflow_id in its order, and of one workflow_id the newest first. Ids are in the
          order of their characters' code points.
        - Runs whose run_id a store cannot keep as it is (such as one of over 1,000 characters) may be missing.
        """
        ...

    async def purge(self, run_id: str) -> None:
        """Forget a run: record, history of all generations, inbox. Unknown runs are no error."""
        ...

    async def close(self) -> None:
        """Give back connections and threads. The store may not be used after."""
        ...


@runtime_checkable
class Notifies(Protocol):
    """What a store can do besides, when processes share it on one machine: say at once that something changed."""

    def subscribe(self, callback: Callable[[str, bool], None], *, run_id: str | None = None) -> Callable[[], None]:
        """Call `callback(run_id, has_ended)` in the current event loop, soon after any process created that run,
        delivered to it, or ended it; with `run_id` for that run alone. Calls may be spurious, merged or (when a process
        dies) missing. Returns what ends the subscription."""
        ...
