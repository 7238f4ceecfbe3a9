"""The approval page: one question, reached by a signed link, shown to a person and decided by them. Of the part
`approvals`; the link is all that a caller needs.

Looking (GET, HEAD) never decides, so that the mail scanners that follow every link do no harm; only a POST does. The
page needs no script, carries none, and is never cached, framed, indexed or named as a referrer: its URL is the key.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from .. import approvals
from ..app import App
from ..approval_links import LinkClaims, LinkSettings
from ..errors import ApprovalClosedError, ConfigurationError, InvalidInputError, LinkExpiredError, RunNotFoundError
from ..store import OpenApproval
from .answers import Json
from .bodies import check, parse_json, read
from .form_fields import FormField, fields_of, read_data
from .operations import Html, Operation
from .problems import HttpProblem, answer_to
from .shown import Showing

if TYPE_CHECKING:
    from jinja2 import Template

MAX_FORM_FIELDS = 500
FORM = "application/x-www-form-urlencoded"

_TEMPLATES = Path(__file__).parent / "templates"


class LinkDecided(TypedDict):
    """The decision is stored."""

    key: str
    approved: bool


class ApprovalPages:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int, links: LinkSettings) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._links = links

    def operations(self) -> list[Operation]:
        """All of them. The token is looked at here: no key is asked for."""
        return [
            Operation(
                method="GET",
                path="/approvals/{token}",
                endpoint=self.show,
                summary="The page of a question; looking at it decides nothing",
                scope=None,
                answers={200: Html},
                problems=(403, 410),
            ),
            Operation(
                method="POST",
                path="/approvals/{token}",
                endpoint=self.decide,
                summary="Decide by a signed link, as JSON or as the page's form",
                scope=None,
                body="run_requests.LinkDecisionRequest",
                body_required=True,
                answers={200: LinkDecided},
                problems=(403, 409, 410),
            ),
        ]

    async def show(self, request: Request) -> Response:
        """The page. Problems are pages too for a browser."""
        try:
            claims = self._claims(request)
            found = await self._standing(claims)
        except Exception as error:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            return _problem_page(error)
        return self._page(claims, found)

    async def decide(self, request: Request) -> Response:
        """Decide. The same decision again answers the same."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
            return await self._decide_by_form(request)
        from .run_requests import LinkDecisionRequest

        claims = self._claims(request)
        asked = check(LinkDecisionRequest, parse_json(await read(request, self._limit)), "body")
        decision = approvals.Decision(
            approved=asked.approved, by=claims.by or asked.by, comment=asked.comment, data=asked.data, way="link"
        )
        await self._carry_out(claims, decision)
        content: LinkDecided = {"key": claims.key, "approved": asked.approved}
        return Json(content)

    async def _decide_by_form(self, request: Request) -> Response:
        try:
            claims = self._claims(request)
            submitted = _submitted(await read(request, self._limit))
            found = await self._standing(claims)
            fields = _fields(self._form(found))
            try:
                decision = _decision(claims, fields, submitted)
                await self._carry_out(claims, decision)
            except InvalidInputError as error:
                return self._page(claims, found, fields=fields, submitted=submitted, invalid=error)
            done = "approved" if decision.approved else "rejected"
            return self._page(claims, await self._standing(claims), notice=f"Thank you. You have {done} this.")
        except Exception as error:
            return _problem_page(error)

    # --- parts ----------------------------------------------------------------------------------

    def _claims(self, request: Request) -> LinkClaims:
        try:
            return self._links.read(request.path_params["token"], now=self._app.clock.now())
        except ConfigurationError as error:
            raise HttpProblem(503, str(error), kind="not-configured") from None

    async def _standing(self, claims: LinkClaims) -> approvals.Standing:
        found = await approvals.standing(
            self._app.store, claims.run_id, claims.key, now=self._app.clock.now(), question=claims.question
        )
        if found is None:
            raise ApprovalClosedError(
                "this question is not open (any more): its run was deleted, has moved on, or never asked it",
                run_id=claims.run_id,
            )
        return found

    async def _carry_out(self, claims: LinkClaims, decision: approvals.Decision) -> None:
        try:
            await self._app.decide(claims.run_id, claims.key, decision, question=claims.question)
        except RunNotFoundError as error:  # the link is genuine: it was there
            raise ApprovalClosedError("the run that asked was deleted", run_id=error.run_id) from None

    def _form(self, found: approvals.Standing) -> Any:
        form = found.approval.form
        return None if form is None else self._app.codec.plain(form)

    def _page(
        self,
        claims: LinkClaims,
        found: approvals.Standing,
        *,
        fields: list[FormField] | None = None,
        submitted: Mapping[str, str] | None = None,
        invalid: InvalidInputError | None = None,
        notice: str | None = None,
    ) -> Response:
        now, asked, status = self._app.clock.now(), found.approval, 200
        may = claims.by is None or approvals.may_decide(asked, claims.by, now)
        has_voted = claims.by is not None and any(one.by == claims.by for one in asked.votes)
        form = None
        if invalid is not None:
            status = 422
        elif notice is None:
            notice, status = _how_it_stands(found, may=may, has_voted=has_voted)
        if notice is None:
            fields = _fields(self._form(found)) if fields is None else fields
            form = _form_view(claims, asked, fields, submitted, invalid, approvals.deciders(asked, now))
        title = self._app.codec.plain_text(asked.title) or asked.key
        return _html(status, title=title, asked=self._view(found, now), form=form, notice=notice, is_bad=status != 200)

    def _view(self, found: approvals.Standing, now: datetime) -> dict[str, Any]:
        asked, codec = found.approval, self._app.codec
        shown = Showing(None, self._app).of(found.run.name)
        votes = [
            {"by": one.by, "approved": one.approved, "at": one.at, "comment": codec.plain_text(one.comment)}
            for one in asked.votes
        ]
        return {
            "workflow": found.run.name,
            "run_id": found.run.run_id,
            "details": None if asked.details is None else shown.plain(asked.details),
            "requested_at": asked.requested_at,
            "expires_at": asked.expires_at,
            "deciders": approvals.deciders(asked, now),
            "quorum": asked.quorum,
            "approvals": sum(one.approved for one in asked.votes),
            "votes": votes,
        }


def _how_it_stands(found: approvals.Standing, *, may: bool, has_voted: bool) -> tuple[str | None, int]:
    """What is said in place of the form, and the status; None: it can be decided."""
    if found.approved is not None:
        done = "approved" if found.approved else "rejected"
        return f"This was {done}. There is nothing left to decide.", 410 if found.run.status.closed else 200
    if not found.is_open:
        return "This can no longer be decided: its time is up, it was withdrawn, or the run has ended.", 410
    if has_voted:
        return "You have decided. Others still have to.", 200
    if not may:
        return "You may not decide this, or not yet.", 403
    return None, 200


def _fields(schema: Any) -> list[FormField]:
    return [] if schema is None else fields_of(schema)


def _submitted(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=False, max_num_fields=MAX_FORM_FIELDS, errors="strict"
        )
    except ValueError:
        raise HttpProblem(400, "the form cannot be read", kind="not-a-form") from None
    return dict(pairs)


def _decision(claims: LinkClaims, fields: list[FormField], submitted: Mapping[str, str]) -> approvals.Decision:
    """What the form says. Raises InvalidInputError."""
    answer, comment = submitted.get("approved"), submitted.get("comment", "").replace("\r\n", "\n").strip()
    errors = []
    if answer not in ("true", "false"):
        errors.append({"loc": ["approved"], "msg": "choose to approve or to reject", "type": "missing"})
    if len(comment) > 10_000:
        errors.append({"loc": ["comment"], "msg": "must have at most 10000 characters", "type": "maxLength"})
    if errors:
        raise InvalidInputError("the form is not filled in as it should be", errors)
    approved = answer == "true"
    return approvals.Decision(
        approved=approved,
        by=claims.by or submitted.get("by", "").strip() or None,
        comment=comment or None,
        data=read_data(fields, submitted) if approved and fields else None,
        way="link",
    )


def _form_view(
    claims: LinkClaims,
    asked: OpenApproval,
    fields: list[FormField],
    submitted: Mapping[str, str] | None,
    invalid: InvalidInputError | None,
    deciders: Any,
) -> dict[str, Any]:
    who = None
    if claims.by is None:
        names = tuple((one, one) for one in deciders)
        who = FormField(
            name="by",
            input_name="by",
            label="Who are you?",
            kind="choice" if names else "text",
            required=bool(names) or asked.quorum > 1,
            choices=names,
        )
    targets = {one.input_name: f"data-{number}" for number, one in enumerate(fields, 1)}
    labels = {one.input_name: one.label for one in fields} | {"approved": "Decision", "by": "Who are you?"}
    messages: defaultdict[str, list[str]] = defaultdict(list)
    listed = []
    for one in invalid.errors if invalid is not None else ():
        name, place = _place(one["loc"], targets)
        said = f"{place}: {one['msg']}" if place else str(one["msg"])
        messages[name].append(said)
        text = f"{labels.get(name, name.capitalize())}: {said}" if name else said
        listed.append({"name": name, "target": targets.get(name, name), "text": text})
    values = {one.input_name: one.initial for one in fields} if submitted is None else submitted
    order = ["by", "approved", *(one.input_name for one in fields), "comment"]
    listed.sort(key=lambda one: order.index(one["name"]) if one["name"] in order else -1)
    return {
        "by": claims.by,
        "who": who,
        "fields": fields,
        "given": defaultdict(str, values),
        "messages": messages,
        "errors": listed,
    }


def _place(loc: list[Any], targets: Mapping[str, str]) -> tuple[str, str]:
    """The name of the field that an error is about, and where inside it."""
    if loc[0] != "data":
        return str(loc[0]), ""
    name = f"data.{loc[1]}" if len(loc) > 1 and f"data.{loc[1]}" in targets else "data" if "data" in targets else ""
    inside = loc[2:] if name.startswith("data.") else loc[1:]
    return name, ".".join(str(part) for part in inside)


# --- HTML ------------------------------------------------------------------------------------------------


def _problem_page(error: Exception) -> Response:
    """The error as a page; what this front has no answer for goes on to where it is logged."""
    answer = answer_to(error, "")
    if answer.status_code == 500:
        raise error
    title = {403: "This link does not work", 410: "This can no longer be decided", 409: "This is decided already"}
    if isinstance(error, LinkExpiredError):
        title[410] = "This link has expired"
    said = str(error)
    return _html(
        answer.status_code,
        headers={name: answer.headers[name] for name in ("Retry-After",) if name in answer.headers},
        title=title.get(answer.status_code, "This did not work"),
        asked=None,
        form=None,
        notice=said[:1].upper() + said[1:] + ".",
        is_bad=True,
    )


def _html(status: int, *, headers: Mapping[str, str] | None = None, **content: Any) -> Response:
    template, css, policy = _template()
    return Response(
        template.render(css=css, **content).encode(errors="replace"),  # a stored text may hold lone surrogates
        status_code=status,
        media_type="text/html",
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "X-Robots-Tag": "noindex, nofollow",
            **(headers or {}),
        },
    )


@cache
def _template() -> tuple[Template, Any, str]:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only where a page is shown
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["pretty"] = _pretty
    environment.filters["when"] = lambda moment: f"{moment:%Y-%m-%d %H:%M} UTC"
    css = (_TEMPLATES / "approval.css").read_text(encoding="utf-8")
    allowed = b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{allowed}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return environment.get_template("approval.html"), Markup(css), policy  # the style is our own file


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
