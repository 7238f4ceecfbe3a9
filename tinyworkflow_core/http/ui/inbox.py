"""The inbox: questions that wait for somebody's decision, and the page on which one of them is decided.

What may be decided by whom is said by `approvals.py`, whatever a form here sends. A form names the very question that
it was made for, so that it cannot answer another one that the run has asked under the same key since.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ... import approvals
from ...app import App
from ...engine.voting import person
from ...errors import (
    ApprovalClosedError,
    ApprovalConflictError,
    ApprovalForbiddenError,
    ApprovalNotFoundError,
    InvalidInputError,
    RunNotFoundError,
)
from ..callers import Caller, caller_of, decided_by, looks_at_caller
from ..form_fields import FormField, fields_of, read_data
from ..operations import Html, Operation, Scope
from ..problems import status_of
from ..shown import Showing
from ..views import approval_view
from .filling import filled_form, invalid
from .rendering import go_to, render, segment
from .sessions import read_form

PAGE_SIZE = 50
LONGEST_COMMENT = 10_000

_REFUSED = (ApprovalClosedError, ApprovalConflictError, ApprovalForbiddenError)
_QUESTION = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})", re.ASCII)


class InboxPages:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them. The key of a question may hold anything: it is no part of a path."""
        one = "/ui/approvals/{run_id}"
        return [
            _operation("GET", "/ui/approvals", self.page, "Open questions", Scope.READ),
            _operation("GET", one, self.question, "One question of a run", Scope.READ),
            _operation("POST", one, self.decide, "Decide a question", Scope.APPROVE),
        ]

    # --- looking ------------------------------------------------------------------------------

    @looks_at_caller
    async def page(self, request: Request) -> Response:
        """A page of open questions, those of the newest runs first; with `approver` those that this person may
        decide."""
        asked, caller, now = request.query_params, caller_of(request), self._app.clock.now()
        approver = asked.get("approver", "").strip() or None
        try:
            page = await approvals.pending_page(
                self._app.store,
                approver=approver,
                reaches=caller.reaches,
                limit=PAGE_SIZE,
                now=now,
                cursor=asked.get("cursor") or None,
            )
        except ValueError as error:
            raise InvalidInputError(f"cursor: {error}") from None
        showing = Showing(request, self._app)
        return render(
            request,
            "inbox.html",
            questions=[self._row(request, one, showing, now) for one in page.items],
            next_cursor=page.next_cursor,
            approver=approver,
            own=caller.email,
            may_decide=caller.may(Scope.APPROVE),
            done={"approved": "approved", "rejected": "rejected"}.get(asked.get("done", "")),
            done_run=asked.get("run", ""),
        )

    async def question(self, request: Request) -> Response:
        """One question, and the form to decide it."""
        key = request.query_params.get("key")
        return await self._page(request, request.path_params["run_id"], key, None)

    # --- deciding -----------------------------------------------------------------------------

    async def decide(self, request: Request) -> Response:
        """Approve or reject. The same decision again is no error."""
        run_id: str = request.path_params["run_id"]
        submitted = dict((await read_form(request, self._limit)).items())
        question = _question(submitted.get("question", ""))
        key = await self._key(run_id, question, submitted.get("key", ""))
        found = await self._standing(run_id, key, question)
        try:
            decision = self._decision(request, found, submitted)
            await self._app.decide(run_id, key, decision, question=question)
        except InvalidInputError as error:
            return await self._page(request, run_id, key, question, submitted=submitted, refused=error)
        except _REFUSED as error:
            return await self._page(request, run_id, key, question, refused=error)
        if submitted.get("then") == "run":
            return go_to(request, f"/ui/runs/{segment(run_id)}")
        done = "approved" if decision.approved else "rejected"
        return go_to(request, f"/ui/approvals?done={done}&run={segment(run_id)}")

    # --- parts --------------------------------------------------------------------------------

    async def _key(self, run_id: str, question: approvals.QuestionId, sent: str) -> str:
        """The key of the question: a form cannot carry every text that a key may be."""
        run = await self._app.store.get(run_id)
        if run is None or run.generation != question[0]:
            return sent
        return next((one.key for one in run.open_approvals if one.id == question[1]), sent)

    async def _standing(
        self, run_id: str, key: str | None, question: approvals.QuestionId | None
    ) -> approvals.Standing:
        if key is None:
            run = await self._app.store.get(run_id)
            if run is None:
                raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
            key = run.open_approvals[0].key if len(run.open_approvals) == 1 else ""
        now = self._app.clock.now()
        found = await approvals.standing(self._app.store, run_id, key, now=now, question=question)
        if found is None:
            raise ApprovalNotFoundError(
                f"run {run_id!r} has no question {key[:200]!r} (any more): it has moved on, or never asked it",
                run_id=run_id,
            )
        return found

    def _decision(
        self, request: Request, found: approvals.Standing, submitted: Mapping[str, str]
    ) -> approvals.Decision:
        answer, comment = submitted.get("approved"), submitted.get("comment", "").replace("\r\n", "\n").strip()
        if answer not in ("true", "false"):
            raise invalid("approved", "choose to approve or to reject")
        if len(comment) > LONGEST_COMMENT:
            raise invalid("comment", f"must have at most {LONGEST_COMMENT} characters")
        fields = self._data_fields(found)
        return approvals.Decision(
            approved=answer == "true",
            by=decided_by(request, submitted.get("by", "").strip()[:255] or None),
            comment=comment or None,
            data=read_data(fields, submitted) if answer == "true" and fields else None,
            way="ui",
        )

    def _data_fields(self, found: approvals.Standing) -> list[FormField]:
        form = found.approval.form
        return [] if form is None else fields_of(self._app.codec.plain(form))

    async def _page(
        self,
        request: Request,
        run_id: str,
        key: str | None,
        question: approvals.QuestionId | None,
        *,
        submitted: Mapping[str, str] | None = None,
        refused: Exception | None = None,
    ) -> Response:
        found = await self._standing(run_id, key, question)
        caller, now = caller_of(request), self._app.clock.now()
        told = str(refused) if isinstance(refused, _REFUSED) else None
        notice = told or _how_it_stands(found, caller, now)
        form = None
        if notice is None and caller.may(Scope.APPROVE):
            wrong = refused if isinstance(refused, InvalidInputError) else None
            form = filled_form(self._fields(found, caller, now), submitted, wrong)
        row = self._row(
            request, approvals.PendingApproval(run=found.run, approval=found.approval), Showing(request, self._app), now
        )
        return render(
            request,
            "question.html",
            status=200 if refused is None else status_of(refused),
            one=row,
            notice=notice,
            is_refused=told is not None,
            form=form,
            own=caller.email,
            question=f"{found.run.generation}.{found.approval.id}",
        )

    def _fields(self, found: approvals.Standing, caller: Caller, now: Any) -> list[FormField]:
        who = approvals.deciders(found.approval, now)
        by = FormField(
            name="by",
            input_name="by",
            label="Who are you?",
            kind="choice" if who else "text",
            required=bool(who) or found.approval.quorum > 1,
            choices=tuple((one, one) for one in who),
        )
        comment = FormField(name="comment", input_name="comment", label="Comment", kind="longtext")
        own = [] if caller.kind == "person" else [by]
        return [*own, *self._data_fields(found), comment]

    def _row(self, request: Request, one: approvals.PendingApproval, showing: Showing, now: Any) -> dict[str, Any]:
        view = approval_view(request, one.run, one.approval, showing.of(one.run.name))
        return {
            **view,
            "name": view["title"] or view["key"] or "(no key)",
            "deciders": list(approvals.deciders(one.approval, now)),
            "approvals": sum(vote.approved for vote in one.approval.votes),
            "is_expired": one.approval.expires_at is not None and one.approval.expires_at <= now,
        }


def _how_it_stands(found: approvals.Standing, caller: Caller, now: Any) -> str | None:
    """What is said in place of the form; None: it can be decided."""
    if found.approved is not None:
        done = "approved" if found.approved else "rejected"
        return f"This was {done}. There is nothing left to decide."
    if not found.is_open:
        return "This can no longer be decided: its time is up, it was withdrawn, or the run has ended."
    if caller.kind != "person":
        return None
    own = caller.email or ""
    if any(one.by is not None and person(one.by) == person(own) for one in found.approval.votes):
        return "You have decided. Others still have to."
    if not approvals.may_decide(found.approval, own, now):
        return f"You ({own}) may not decide this, or not yet."
    return None


def _question(text: str) -> approvals.QuestionId:
    found = _QUESTION.fullmatch(text)
    if found is None:
        raise invalid("question", "is not what this form has sent: load the page again")
    return int(found[1]), int(found[2])


def _operation(method: str, path: str, endpoint: Any, summary: str, scope: Scope) -> Operation:
    return Operation(
        method=method, path=path, endpoint=endpoint, summary=summary, scope=scope, answers={200: Html}, described=False
    )
