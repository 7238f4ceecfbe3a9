"""Approvals: deciding what a run has asked.

A decision is a message whose id is the question's own, so of any number of deciders one wins and the others learn
what was decided.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .client import check_fits
from .clock import Clock
from .dispatcher import Advance, Dispatcher
from .engine.history import ApprovalDecided, ApprovalRequested
from .errors import ApprovalClosedError, ApprovalConflictError, ApprovalNotFoundError, RunNotFoundError
from .serialization import Codec
from .store import DeliveryOutcome, Message, MessageKind, OpenApproval, Run, RunQuery, Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What somebody decides about an open approval. `data` is any storable value."""

    approved: bool
    by: str | None = None
    comment: str | None = None
    data: Any = None


async def decide(
    store: Store,
    dispatcher: Dispatcher,
    run_id: str,
    key: str | None,
    decision: Decision,
    *,
    clock: Clock,
    codec: Codec,
) -> str:
    """Decide the approval `key` of a run (None: its only open one). Returns the key. The same decision again is no
    error.

    Raises RunNotFoundError, PayloadTooLargeError, ApprovalNotFoundError, ApprovalConflictError (decided the other way
    already) and ApprovalClosedError (expired, withdrawn, or the run has ended).
    """
    run = await store.get(run_id)
    if run is None:
        raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
    now = clock.now()
    asked = _find(run, key)
    if asked is None:
        return await _compare_with_history(store, run, key, decision, now=now)
    message = Message(
        id=f"approval/{run.generation}/{asked.id}",
        kind=MessageKind.APPROVAL,
        received_at=now,
        body={
            "id": asked.id,
            "generation": run.generation,
            "key": asked.key,
            "approved": decision.approved,
            "by": decision.by,
            "comment": codec.seal_text(decision.comment),
            "data": codec.encode(decision.data),
        },
    )
    check_fits(store, message)
    if _has_expired(asked, now):  # what was decided in time may not have been taken up yet
        stored, existing = False, next((one for one in await store.inbox(run_id) if one.id == message.id), None)
    else:
        delivery = await store.deliver(run_id, message)
        stored = delivery.outcome in (DeliveryOutcome.ACCEPTED, DeliveryOutcome.DUPLICATE)
        existing = delivery.existing  # not with every DUPLICATE: the message may have been taken up just now
    if existing is not None:
        _same_or_conflict(run_id, asked.key, bool(existing.body["approved"]), decision)
    elif not (stored and await _still_asks(store, run, asked)):
        # Somebody's decision may have been taken up between the look and the delivery: then this one came too late.
        return await _compare_with_history(store, run, asked.key, decision, now=now, asked=asked)
    await dispatcher.dispatch(Advance(run_id=run_id))
    return asked.key


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingApproval:
    """An open approval and the run that asks."""

    run: Run
    approval: OpenApproval

    @property
    def run_id(self) -> str:
        """The run that asks."""
        return self.run.run_id

    @property
    def workflow_name(self) -> str:
        """Its workflow."""
        return self.run.name

    @property
    def approval_required(self) -> str:
        """The approval's key, as the 0.1 library called it."""
        return self.approval.key

    @property
    def created_at(self) -> datetime:
        """When it was asked."""
        return self.approval.requested_at


async def pending(store: Store, *, approver: str | None = None, limit: int = 100) -> list[PendingApproval]:
    """At most `limit` open approvals, those of the newest runs first; with `approver` only those that anybody or that
    person may decide."""
    found: list[PendingApproval] = []
    query = RunQuery(open_approvals=True, limit=limit)
    while True:
        page = await store.list(query)
        found += [
            PendingApproval(run=run, approval=one)
            for run in page.items
            for one in run.open_approvals
            if approver is None or not one.approvers or approver in one.approvers
        ]
        if page.next_cursor is None or len(found) >= limit:
            return found[:limit]
        query = replace(query, cursor=page.next_cursor)


def _find(run: Run, key: str | None) -> OpenApproval | None:
    if key is not None:
        return next((one for one in run.open_approvals if one.key == key), None)
    if len(run.open_approvals) > 1:
        keys = ", ".join(repr(one.key) for one in run.open_approvals)
        raise ApprovalNotFoundError(
            f"run {run.run_id!r} has several open approvals, name one of {keys}", run_id=run.run_id
        )
    return run.open_approvals[0] if run.open_approvals else None


async def _still_asks(store: Store, run: Run, asked: OpenApproval) -> bool:
    latest = await store.get(run.run_id)
    return (
        latest is not None
        and latest.generation == run.generation
        and any(one.id == asked.id for one in latest.open_approvals)
    )


async def _compare_with_history(
    store: Store, run: Run, key: str | None, decision: Decision, *, now: datetime, asked: OpenApproval | None = None
) -> str:
    """The approval is not open: say whether it was decided so, decided otherwise, closed, or never asked.

    With `asked` it is that very question: the run may have asked again under the same key since.
    """
    run_id = run.run_id
    state = await store.load(run_id)
    known = state is not None and (asked is None or state.run.generation == run.generation)
    for event in reversed(state.history if state is not None and known else ()):
        if not isinstance(event, ApprovalDecided | ApprovalRequested) or key not in (None, event.key):
            continue
        if asked is not None and event.id != asked.id:
            continue
        if isinstance(event, ApprovalDecided):
            _same_or_conflict(run_id, event.key, event.approved, decision)
            return event.key
        why = "has expired" if _has_expired(event, now) else "is no longer open"
        raise ApprovalClosedError(f"approval {event.key!r} of run {run_id!r} {why}", run_id=run_id)
    if state is None or state.run.status.closed:
        raise ApprovalClosedError(f"run {run_id!r} has ended", run_id=run_id)
    if asked is not None:
        raise ApprovalClosedError(f"approval {asked.key!r} of run {run_id!r} is no longer open", run_id=run_id)
    what = "an approval" if key is None else f"the approval {key!r}"
    raise ApprovalNotFoundError(f"run {run_id!r} has not asked for {what}", run_id=run_id)


def _has_expired(asked: OpenApproval | ApprovalRequested, now: datetime) -> bool:
    return asked.expires_at is not None and asked.expires_at <= now


def _same_or_conflict(run_id: str, key: str, approved: bool, decision: Decision) -> None:
    if approved is not decision.approved:
        was = "approved" if approved else "rejected"
        raise ApprovalConflictError(f"approval {key!r} of run {run_id!r} is already {was}", run_id=run_id)
