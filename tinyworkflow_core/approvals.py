"""Approvals: deciding what a run has asked.

A decision is a message whose id is the question's own, so of any number of deciders one wins and the others learn
what was decided. With a quorum the id is that of the question and the person: everybody has one vote. Who may decide,
and whether the data fits the form, is checked before anything is stored; only here, so that no way leads around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from .approval_forms import check_data
from .client import check_fits
from .clock import Clock
from .dispatcher import Advance, Dispatcher
from .engine.history import ApprovalDecided, ApprovalRequested, ApprovalVoted
from .engine.rewind import effective
from .engine.voting import person, verdict
from .errors import (
    ApprovalClosedError,
    ApprovalConflictError,
    ApprovalForbiddenError,
    ApprovalNotFoundError,
    InvalidInputError,
    RunNotFoundError,
)
from .records import dataclass
from .serialization import Codec, digest
from .store import CastVote, DeliveryOutcome, Message, MessageKind, OpenApproval, Run, RunQuery, RunState, Store

PAGES_LOOKED_AT = 10
"""Pages of runs that one page of open approvals reads at most, looking for those that are wanted."""

QuestionId = tuple[int, int]
"""Generation and id of a question: another one under the same key is another question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What somebody decides about an open approval. `data` is any storable value; `way`, how it came, is kept for the
    audit (None: from code)."""

    approved: bool
    by: str | None = None
    comment: str | None = None
    data: Any = None
    way: Literal["link", "api", "ui"] | None = None


async def decide(
    store: Store,
    dispatcher: Dispatcher,
    run_id: str,
    key: str | None,
    decision: Decision,
    *,
    clock: Clock,
    codec: Codec,
    question: QuestionId | None = None,
) -> str:
    """Decide the approval `key` of a run (None: its only open one), or vote on it. Returns the key. The same decision
    of the same person again is no error.

    - question: only that very one, and not what the run has asked under the same key since.
    - Raises, with nothing stored: RunNotFoundError, PayloadTooLargeError, ApprovalNotFoundError, ApprovalForbiddenError
      (none of its approvers), InvalidInputError (the form, or nobody said who decides), ApprovalConflictError (decided,
      or voted, the other way already) and ApprovalClosedError (expired, withdrawn, or the run has ended).
    """
    run = await store.get(run_id)
    if run is None:
        raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
    now = clock.now()
    asked = _find(run, key)
    if asked is None or question not in (None, (run.generation, asked.id)):
        return await _compare_with_history(store, run, key, decision, now=now, question=question)
    question = (run.generation, asked.id)
    _check_person(run_id, asked, decision, now)
    if _compare_with_own_vote(run_id, asked, decision):
        return asked.key
    _check_form(asked, decision, codec)
    message = _message(run, asked, decision, now=now, codec=codec)
    check_fits(store, message)
    if _has_expired(asked, now):  # what was decided in time may not have been taken up yet
        stored, existing = False, next((one for one in await store.inbox(run_id) if one.id == message.id), None)
    else:
        delivery = await store.deliver(run_id, message)
        stored = delivery.outcome in (DeliveryOutcome.ACCEPTED, DeliveryOutcome.DUPLICATE)
        existing = delivery.existing  # not with every DUPLICATE: the message may have been taken up just now
    if existing is not None:
        _same_or_conflict(run_id, asked.key, bool(existing.body["approved"]), decision)
    else:
        # Somebody's decision may have been taken up between the look and the delivery: then this one came too late.
        still = await _still_asked(store, run_id, question) if stored else None
        if still is None:
            return await _compare_with_history(store, run, asked.key, decision, now=now, question=question)
        _compare_with_own_vote(run_id, still, decision)
    await dispatcher.dispatch(Advance(run_id=run_id))
    return asked.key


def _message(run: Run, asked: OpenApproval, decision: Decision, *, now: datetime, codec: Codec) -> Message:
    body: dict[str, Any] = {
        "id": asked.id,
        "generation": run.generation,
        "key": asked.key,
        "approved": decision.approved,
        "by": decision.by,
        "comment": codec.seal_text(decision.comment),
        "data": codec.encode(decision.data),
    }
    if decision.way is not None:
        body["way"] = decision.way
    message_id = f"approval/{run.generation}/{asked.id}"
    if asked.quorum > 1:
        body["votes"] = True
        message_id += f"/{digest(person(decision.by or ''))}"
    return Message(id=message_id, kind=MessageKind.APPROVAL, received_at=now, body=body)


# --- what is open, and how it stands --------------------------------------------------------------------


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingPage:
    """A page of open approvals, and where the next begins (None: there is no next)."""

    items: list[PendingApproval]
    next_cursor: str | None


async def pending(
    store: Store, *, approver: str | None = None, limit: int = 100, now: datetime | None = None
) -> list[PendingApproval]:
    """At most `limit` open approvals, those of the newest runs first; with `approver` only those that anybody or that
    person may decide (`now`: also by an escalation)."""
    found: list[PendingApproval] = []
    cursor = None
    while True:
        page = await pending_page(store, approver=approver, limit=limit - len(found), now=now, cursor=cursor)
        found, cursor = found + page.items, page.next_cursor
        if cursor is None or len(found) >= limit:
            return found[:limit]


async def pending_page(
    store: Store,
    *,
    approver: str | None = None,
    reaches: Callable[[str], bool] = lambda workflow: True,
    limit: int = 100,
    now: datetime | None = None,
    cursor: str | None = None,
) -> PendingPage:
    """About `limit` open approvals of workflows that `reaches` lets through: more where one run asks several things,
    fewer (even none) where most are not wanted. It reads at most PAGES_LOOKED_AT pages of runs.

    Raises ValueError for a cursor that is none of ours.
    """
    found: list[PendingApproval] = []
    for _ in range(PAGES_LOOKED_AT):
        page = await store.list(RunQuery(open_approvals=True, limit=limit - len(found), cursor=cursor))
        found += [
            PendingApproval(run=run, approval=one)
            for run in page.items
            for one in run.open_approvals
            if reaches(run.name) and (approver is None or may_decide(one, approver, now))
        ]
        cursor = page.next_cursor
        if cursor is None or len(found) >= limit:
            break
    return PendingPage(items=found, next_cursor=cursor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A question, with its votes, and what has come of it. `approved` is None while nobody has decided."""

    run: Run
    approval: OpenApproval
    approved: bool | None
    is_open: bool
    """Whether it can still be decided."""


async def standing(
    store: Store, run_id: str, key: str, *, now: datetime, question: QuestionId | None = None
) -> Standing | None:
    """How the question stands; None when it is not known (any more): the run was deleted, or is a generation on."""
    run = await store.get(run_id)
    if run is None:
        return None
    asked = _find(run, key)
    if asked is not None and question in (None, (run.generation, asked.id)):
        return Standing(run=run, approval=asked, approved=None, is_open=not _has_expired(asked, now))
    state = await store.load(run_id)
    return None if state is None else _in_history(state, key, question)


def may_decide(asked: OpenApproval, by: str, now: datetime | None) -> bool:
    """Whether that person may decide it: anybody when it names no approvers, else they and, once it is escalated,
    those whom it was escalated to."""
    return not asked.approvers or person(by) in {person(one) for one in deciders(asked, now)}


def deciders(asked: OpenApproval, now: datetime | None) -> Sequence[str]:
    """Who may decide it now; empty: anybody."""
    escalated = asked.escalates_at is not None and now is not None and asked.escalates_at <= now
    return (*asked.approvers, *asked.escalate_to) if escalated else asked.approvers


# --- checks ------------------------------------------------------------------------------------------------


def _check_person(run_id: str, asked: OpenApproval, decision: Decision, now: datetime) -> None:
    if not asked.approvers and asked.quorum == 1:
        return
    if not (decision.by or "").strip():
        errors = [{"loc": ["by"], "msg": "is required: who decides?", "type": "missing"}]
        raise InvalidInputError(f"approval {asked.key!r} of run {run_id!r} has to be told who decides (`by`)", errors)
    if not may_decide(asked, decision.by or "", now):
        raise ApprovalForbiddenError(f"{decision.by!r} may not decide approval {asked.key!r}", run_id=run_id)


def _check_form(asked: OpenApproval, decision: Decision, codec: Codec) -> None:
    """The data of an approval has to fit the form; that of a rejection, if there is any."""
    if asked.form is None or (decision.data is None and not decision.approved):
        return
    check_data(codec.decode(asked.form), {} if decision.data is None else codec.plain(codec.encode(decision.data)))


def _find(run: Run, key: str | None) -> OpenApproval | None:
    if key is not None:
        return next((one for one in run.open_approvals if one.key == key), None)
    if len(run.open_approvals) > 1:
        keys = ", ".join(repr(one.key) for one in run.open_approvals)
        raise ApprovalNotFoundError(
            f"run {run.run_id!r} has several open approvals, name one of {keys}", run_id=run.run_id
        )
    return run.open_approvals[0] if run.open_approvals else None


async def _still_asked(store: Store, run_id: str, question: QuestionId) -> OpenApproval | None:
    latest = await store.get(run_id)
    if latest is None or latest.generation != question[0]:
        return None
    return next((one for one in latest.open_approvals if one.id == question[1]), None)


async def _compare_with_history(
    store: Store, run: Run, key: str | None, decision: Decision, *, now: datetime, question: QuestionId | None
) -> str:
    """The approval is not open: say whether it was decided so, decided otherwise, closed, or never asked.

    With `question` it is that very one: the run may have asked again under the same key since.
    """
    run_id = run.run_id
    state = await store.load(run_id)
    found = None if state is None else _in_history(state, key, question)
    if found is not None:
        asked = found.approval
        if found.approved is None:
            why = "has expired" if _has_expired(asked, now) else "is no longer open"
            raise ApprovalClosedError(f"approval {asked.key!r} of run {run_id!r} {why}", run_id=run_id)
        if not (asked.quorum > 1 and _compare_with_own_vote(run_id, asked, decision)):
            _same_or_conflict(run_id, asked.key, found.approved, decision)
        return asked.key
    if state is None or state.run.status.closed:
        raise ApprovalClosedError(f"run {run_id!r} has ended", run_id=run_id)
    if question is not None:
        raise ApprovalClosedError(f"approval {key!r} of run {run_id!r} is no longer open", run_id=run_id)
    what = "an approval" if key is None else f"the approval {key!r}"
    raise ApprovalNotFoundError(f"run {run_id!r} has not asked for {what}", run_id=run_id)


def _in_history(state: RunState, key: str | None, question: QuestionId | None) -> Standing | None:
    """The latest question under that key, or that very one, as the history tells it."""
    if question is not None and question[0] != state.run.generation:
        return None
    history = [one for one in effective(state.history) if isinstance(one, _ABOUT) and key in (None, one.key)]
    wanted = history[-1].id if history and question is None else None if question is None else question[1]
    of_it = [one for one in history if one.id == wanted]
    asked = next((one for one in of_it if isinstance(one, ApprovalRequested)), None)
    if asked is None:
        return None
    answers = [one for one in of_it if isinstance(one, ApprovalDecided | ApprovalVoted)]
    return _told(state.run, asked, answers)


def _told(run: Run, asked: ApprovalRequested, answers: Sequence[ApprovalDecided | ApprovalVoted]) -> Standing:
    votes: list[CastVote] = []
    approved: bool | None = None
    for one in answers:
        if approved is None:  # what came after the decision is in the history, and counts for nothing
            votes.append(CastVote(by=one.by, approved=one.approved, at=one.at, comment=one.comment, way=one.way))
            approved = one.approved if isinstance(one, ApprovalDecided) else verdict(asked, votes)
    approval = OpenApproval(
        id=asked.id,
        key=asked.key,
        requested_at=asked.at,
        title=asked.title,
        details=asked.details,
        approvers=asked.approvers,
        form=asked.form,
        expires_at=asked.expires_at,
        quorum=asked.quorum,
        veto=asked.veto,
        escalate_to=asked.escalate_to,
        escalates_at=asked.escalates_at,
        votes=tuple(votes),
    )
    return Standing(run=run, approval=approval, approved=approved, is_open=False)


_ABOUT = (ApprovalRequested, ApprovalDecided, ApprovalVoted)


def _has_expired(asked: OpenApproval, now: datetime) -> bool:
    return asked.expires_at is not None and asked.expires_at <= now


def _compare_with_own_vote(run_id: str, asked: OpenApproval, decision: Decision) -> bool:
    """Whether that person has voted so already. Raises ApprovalConflictError when they have voted otherwise."""
    who = person(decision.by or "")
    own = next((one for one in asked.votes if one.by is not None and person(one.by) == who), None)
    if own is not None and own.approved is not decision.approved:
        what = "approve" if own.approved else "reject"
        raise ApprovalConflictError(
            f"{decision.by!r} has voted to {what} approval {asked.key!r} of run {run_id!r} already", run_id=run_id
        )
    return own is not None


def _same_or_conflict(run_id: str, key: str, approved: bool, decision: Decision) -> None:
    if approved is not decision.approved:
        was = "approved" if approved else "rejected"
        raise ApprovalConflictError(f"approval {key!r} of run {run_id!r} is already {was}", run_id=run_id)
