"""Approving: a question to people, whoever tells them of it, and their answer. Built on `asking` alone.

Telling, reminding and escalating are ordinary steps beside the wait: activities and durable timers, which a replay
repeats. Who may decide, and whether the votes are enough, is judged where a decision comes in (approvals.py) and where
votes are counted (voting.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from ..clock import Duration, moment, seconds, timestamp
from ..records import dataclass
from ..tracebacks import told
from .asking import Asking
from .commands import RequestApproval
from .history import ApprovalDecided, ApprovalVoted, Event
from .step import ReplayLogger, cancel_all
from .voting import distinct, verdict

Decided = ApprovalDecided | ApprovalVoted


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """What one person said, when, and by which way: "link", "api", "ui" (the dashboard), or None (from code)."""

    by: str | None
    approved: bool
    comment: str | None
    data: Any
    at: datetime
    way: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """The decision. Truthy when approved. With a quorum `by`, `comment`, `data`, `at` and `way` are those of the vote
    that decided."""

    approved: bool
    by: str | None
    comment: str | None
    data: Any
    at: datetime
    way: str | None = None
    votes: tuple[Vote, ...] = ()
    """Everybody's, oldest first; without a quorum the one that decided."""

    def __bool__(self) -> bool:
        return self.approved


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalRequest:
    """What a `notify` activity is given: the question, and why people are told of it now."""

    run_id: str
    generation: int
    approval_id: int
    workflow: str
    key: str
    title: str | None
    details: Any
    approvers: tuple[str, ...]
    """Who may decide now: once it is escalated, also those whom it was escalated to."""
    requested_at: datetime
    expires_at: datetime | None
    reminder: int = 0
    """0 when it is asked, then 1, 2, ..."""
    escalated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """The arguments of `wait_for_approval`. Raises ValueError for what makes no sense."""

    key: str
    timeout: Duration | None
    title: str | None
    details: Any
    approvers: Sequence[str] | None
    form: Any
    quorum: int
    veto: bool
    notify: Any
    remind_every: Duration | None
    max_reminders: int | None
    escalate_after: Duration | None
    escalate_to: Sequence[str] | None
    must_notify: bool

    def __post_init__(self) -> None:
        for name in ("approvers", "escalate_to"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        about = f"approval {self.key!r}"
        if type(self.quorum) is not int or self.quorum < 1:
            raise ValueError(f"{about}: quorum is a whole number from 1, not {self.quorum!r}")
        people = distinct([*(self.approvers or ()), *(self.escalate_to or ())])
        if self.approvers and self.quorum > len(people):
            raise ValueError(f"{about}: a quorum of {self.quorum} is more than the {len(people)} who may decide")
        if not self.veto and not self.approvers:
            raise ValueError(f"{about}: veto=False needs approvers: among anybody enough are always left")
        if self.escalate_to and not (self.approvers and self.escalate_after is not None):
            raise ValueError(f"{about}: escalate_to needs approvers (else anybody may decide) and escalate_after")
        if self.escalate_after is not None and not (self.escalate_to or self.notify):
            raise ValueError(f"{about}: escalate_after needs escalate_to, or a notify activity to tell")
        if self.notify is None and (self.remind_every is not None or self.max_reminders is not None):
            raise ValueError(f"{about}: remind_every and max_reminders need a notify activity that reminds")
        if self.remind_every is not None and not seconds(self.remind_every) > 0:
            raise ValueError(f"{about}: remind_every must be more than 0")
        if self.max_reminders is not None and (type(self.max_reminders) is not int or self.max_reminders < 0):
            raise ValueError(f"{about}: max_reminders is a whole number from 0, not {self.max_reminders!r}")


class Approving:
    """The questions of one run."""

    def __init__(self, asking: Asking, *, run_id: str, generation: int, workflow: str, logger: ReplayLogger) -> None:
        self._asking = asking
        self._run_id = run_id
        self._generation = generation
        self._workflow = workflow
        self._logger = logger

    async def ask(self, question: Question) -> Approval:
        """The answer. Raises TimeoutError when nobody has given it in time, and what `notify` raised if it must not
        fail."""
        command = self._command(question)
        approved, events = await self._answer(question, command)
        votes = [await self._vote(one) for one in events]
        last = votes[-1]
        return Approval(
            approved=approved,
            by=last.by,
            comment=last.comment,
            data=last.data,
            at=last.at,
            way=last.way,
            votes=tuple(votes),
        )

    def _command(self, question: Question) -> RequestApproval:
        asking, key = self._asking, question.key
        open_keys = (p.command.key for p in asking.journal.open.values() if isinstance(p.command, RequestApproval))
        if key in open_keys:
            raise ValueError(f"an approval {key!r} is already open in this run; give each its own key")
        now, codec, form = moment(asyncio.get_running_loop().time()), asking.codec, question.form

        def later(duration: Duration | None) -> datetime | None:
            return None if duration is None else now + timedelta(seconds=seconds(duration))

        return RequestApproval(
            id=asking.journal.next_id(),
            key=key,
            title=codec.seal_text(question.title),
            details=None if question.details is None else codec.encode(question.details),
            approvers=tuple(question.approvers or ()),
            form=None if form is None else codec.encode(form.model_json_schema()),
            expires_at=later(question.timeout),
            quorum=question.quorum,
            veto=question.veto,
            escalate_to=tuple(question.escalate_to or ()),
            escalates_at=later(question.escalate_after) if question.escalate_to else None,
        )

    async def _answer(self, question: Question, command: RequestApproval) -> tuple[bool, Sequence[Decided]]:
        if question.notify is None:
            return await self._in_time(question, command)
        loop = asyncio.get_running_loop()
        deciding = loop.create_task(self._in_time(question, command))
        telling = loop.create_task(self._tell(question, command))
        try:
            await asyncio.wait([deciding, telling], return_when=asyncio.FIRST_COMPLETED)
            if not deciding.done():
                telling.result()  # raises when it had to succeed
                await asyncio.wait([deciding])
        finally:
            await cancel_all([deciding, telling])
            if not telling.cancelled():
                telling.exception()  # it was decided in the same moment: nobody has to hear of it
        return deciding.result()

    async def _in_time(self, question: Question, command: RequestApproval) -> tuple[bool, Sequence[Decided]]:
        # Not around the telling: a decision that came in time holds, however long the telling takes to end.
        if question.timeout is None:
            return await self._decided(command)
        async with asyncio.timeout(seconds(question.timeout)):
            return await self._decided(command)

    async def _decided(self, command: RequestApproval) -> tuple[bool, Sequence[Decided]]:
        """Whether it was approved, and all votes; the question is withdrawn when the wait ends without a decision."""
        wake: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()

        def settle(event: Event) -> None:
            if not wake.done() and isinstance(event, ApprovalDecided | ApprovalVoted):
                wake.set_result(event)

        journal = self._asking.journal
        pending = journal.issue(command, settle)
        try:
            event = await wake
        finally:
            journal.withdraw(command.id)
        if isinstance(event, ApprovalDecided):
            return event.approved, [event]
        rule = cast("RequestApproval", pending.command)  # as it was recorded: the code may ask for another by now
        return bool(verdict(rule, pending.votes)), pending.votes

    async def _vote(self, event: Decided) -> Vote:
        return Vote(
            by=event.by,
            approved=event.approved,
            comment=await self._asking.words(event.comment),
            data=await self._asking.read(event.data),
            at=event.at,
            way=event.way,
        )

    # --- telling people -----------------------------------------------------------------------

    async def _tell(self, question: Question, command: RequestApproval) -> None:
        loop = asyncio.get_running_loop()
        opened = last = loop.time()
        every = None if question.remind_every is None else seconds(question.remind_every)
        escalation = None if question.escalate_after is None else opened + seconds(question.escalate_after)
        expiry = None if command.expires_at is None else timestamp(command.expires_at)
        reminders, escalated = 0, False
        while True:
            await self._notify(question, command, moment(opened), reminders, escalated)
            moments = [] if escalation is None or escalated else [escalation]
            if every is not None and (question.max_reminders is None or reminders < question.max_reminders):
                moments.append(last + every)
            if not moments or (expiry is not None and min(moments) >= expiry):
                return
            await asyncio.sleep(max(0.0, min(moments) - loop.time()))
            last = loop.time()
            if escalation is not None and not escalated and escalation <= last:
                escalated = True  # a reminder that is due in the same moment would say the same
            else:
                reminders += 1

    async def _notify(
        self, question: Question, command: RequestApproval, opened: datetime, reminder: int, escalated: bool
    ) -> None:
        request = ApprovalRequest(
            run_id=self._run_id,
            generation=self._generation,
            workflow=self._workflow,
            approval_id=command.id,
            key=question.key,
            title=question.title,
            details=question.details,
            approvers=(*command.approvers, *(command.escalate_to if escalated else ())),
            requested_at=opened,
            expires_at=command.expires_at,
            reminder=reminder,
            escalated=escalated,
        )
        try:
            await self._asking.activity(question.notify, (request,), {})
        except Exception as error:
            if question.must_notify:
                raise
            self._logger.warning("approval %r goes on, but telling people of it failed: %s", question.key, told(error))


def _names(what: str, given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given or ())
    if not all(isinstance(one, str) and one.strip() for one in names):
        raise ValueError(f"{what}: names of people are needed, none of them empty, not {given!r}")
    return names
