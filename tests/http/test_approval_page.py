"""The approval page: looking decides nothing, posting decides once, and a link is all that it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from pydantic import BaseModel, Field

from tests.http.front import HERE, assert_problem
from tinyworkflow_core import App, WorkflowContext, create_app, workflow
from tinyworkflow_core.approval_links import LinkSettings, approval_link
from tinyworkflow_core.approvals import Decision
from tinyworkflow_core.engine.approving import ApprovalRequest
from tinyworkflow_core.engine.history import ApprovalDecided
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.testing import START, VirtualClock

OLD, NEW = "o" * 40, "n" * 40
LINKS = LinkSettings(keys=(OLD,), public_url=HERE)
DAY = timedelta(days=1)
NASTY = "<script>alert('x')</script>\"&"


class Terms(BaseModel):
    amount: int = Field(ge=1, le=100, title=f"Amount {NASTY}", description=NASTY)
    kind: Literal["card", "cash"] = "card"
    urgent: bool = False
    note: str = ""


@workflow
async def asks(ctx: WorkflowContext) -> list[Any]:
    answer = await ctx.wait_for_approval(
        "go",
        "2d",
        title=f"Pay? {NASTY}",
        details={"who": NASTY, "list": [1, {"deep": None}]},
        approvers=["ada", "bob"],
        form=Terms,
    )
    await ctx.wait_for_signal("end")
    return [answer.approved, answer.by, answer.comment, answer.data, answer.way]


@workflow
async def asks_anybody(ctx: WorkflowContext) -> list[Any]:
    answer = await ctx.wait_for_approval("go")
    return [answer.approved, answer.by]


@workflow
async def asks_both(ctx: WorkflowContext) -> list[Any]:
    answer = await ctx.wait_for_approval("go", approvers=["ada", "bob", "eve"], quorum=2)
    return [[one.by, one.comment, one.way] for one in answer.votes]


class Page(HTMLParser):
    """What stands in a page: its text, its form's fields with what is in them, and which ids are described as wrong."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def names(self) -> set[str]:
        return {str(attrs["name"]) for tag, attrs in self.tags if tag in _INPUTS and "name" in attrs}

    def field(self, name: str) -> dict[str, str | None]:
        return next(attrs for tag, attrs in self.tags if tag in _INPUTS and attrs.get("name") == name)


_INPUTS = ("input", "select", "textarea")


class Front:
    """An App that makes no calls unless told to, its HTTP front, and a browser that knows only the link."""

    def __init__(self, store: str = "sqlite:///:memory:", links: LinkSettings = LINKS) -> None:
        self.clock = VirtualClock()
        self.app = App(store, workflows=[asks, asks_anybody, asks_both], dispatcher="none", clock=self.clock)
        # As it is deployed: with API keys, of which the caller has none.
        self.app.api_keys = ("k" * 40,)
        front = create_app(self.app, parts={"approvals"}, settings=HttpSettings(links=links))
        self.caller = httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url=HERE)
        self.browser = {"Accept": "text/html,*/*;q=0.8"}

    async def begin(self, which: Any = asks) -> str:
        run_id = await self.app.client.start_workflow(which)
        await self.app.advance(run_id)
        return run_id

    async def link(self, run_id: str, by: str | None = "ada", **more: Any) -> str:
        run = await self.app.store.get(run_id)
        assert run is not None
        (asked,) = run.open_approvals
        request = ApprovalRequest(
            run_id=run_id,
            generation=run.generation,
            approval_id=asked.id,
            workflow=run.name,
            key=asked.key,
            title=None,
            details=None,
            approvers=(),
            requested_at=asked.requested_at,
            expires_at=asked.expires_at,
        )
        return approval_link(request, by=by, clock=self.clock, settings=LINKS, **more)

    async def look(self, link: str) -> httpx.Response:
        return await self.caller.get(link, headers=self.browser)

    async def send(self, link: str, **fields: str) -> httpx.Response:
        return await self.caller.post(link, data={name.replace("__", "."): one for name, one in fields.items()})

    async def end_of(self, run_id: str) -> Any:
        await self.app.advance(run_id)
        return await self.app.client.get_result(run_id)

    async def end(self, run_id: str) -> Any:
        await self.app.advance(run_id)
        await self.app.client.send_signal(run_id, "end")
        await self.app.advance(run_id)
        return await self.app.client.get_result(run_id)


@asynccontextmanager
async def serving(*args: Any, **kwargs: Any) -> AsyncIterator[Front]:
    front = Front(*args, **kwargs)
    try:
        yield front
    finally:
        await front.caller.aclose()
        await front.app.close()


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    async with serving() as front:
        yield front


async def test_looking_never_decides_however_often_and_by_whatever_way(front: Front) -> None:
    run_id = await front.begin()
    link = await front.link(run_id)
    before = await front.app.store.load(run_id)
    for method in ("GET", "GET", "HEAD", "GET"):
        answer = await front.caller.request(method, f"{link}?approved=true", headers=front.browser)
        assert answer.status_code == 200
    assert (await front.caller.options(link)).status_code == 405
    await front.app.advance(run_id)
    after = await front.app.store.load(run_id)
    assert before is not None
    assert after is not None
    assert (after.history, after.inbox) == (before.history, before.inbox)
    assert [one.key for one in after.run.open_approvals] == ["go"]


async def test_the_page_shows_the_question_and_a_form_and_nothing_of_it_can_be_run(front: Front) -> None:
    answer = await front.look(await front.link(await front.begin()))
    page = Page(answer.text)
    for words in (f"Pay? {NASTY}", NASTY, "deep", "2026", "ada, bob", "You decide as", f"Amount {NASTY}"):
        assert words in page.text
    assert "<script" not in answer.text
    assert page.names() == {"approved", "data.amount", "data.kind", "data.urgent", "data.note", "comment"}
    tags = {tag for tag, _ in page.tags}
    assert {"main", "h1", "h2", "form", "label", "fieldset", "legend"} <= tags
    assert ("html", {"lang": "en"}) in page.tags
    labelled = {attrs["for"] for tag, attrs in page.tags if tag == "label" and "for" in attrs}
    assert {page.field(name)["id"] for name in page.names() - {"approved"}} <= labelled
    assert "checked" not in [name for tag, attrs in page.tags if attrs.get("name") == "approved" for name in attrs]


async def test_the_page_is_guarded_by_its_headers(front: Front) -> None:
    run_id = await front.begin()
    link = await front.link(run_id)
    looked = [await front.look(link), await front.look(link + "x")]
    pages = [*looked, await front.send(link, comment=""), await front.send(link + "x", comment="")]
    assert [one.status_code for one in pages] == [200, 403, 422, 403]
    for answer in pages:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = dict(one.split(" ", 1) for one in answer.headers["content-security-policy"].split("; "))
        assert policy.keys() == {"default-src", "style-src", "form-action", "base-uri", "frame-ancestors"}
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["style-src"].startswith("'sha256-")


async def test_a_form_that_is_sent_decides_as_the_person_of_the_link(front: Front) -> None:
    run_id = await front.begin()
    link = await front.link(run_id)
    for _ in range(2):
        answer = await front.send(
            link, approved="true", by="mallory", comment=" fine\r\nby me ", data__amount="5", data__urgent="on"
        )
        assert answer.status_code == 200
        assert "Thank you. You have approved this." in answer.text
    assert await front.end(run_id) == [
        True, "ada", "fine\nby me", {"amount": 5, "urgent": True}, "link",
    ]  # fmt: skip


async def test_a_rejection_needs_no_form_to_be_filled_in(front: Front) -> None:
    run_id = await front.begin()
    assert (await front.send(await front.link(run_id), approved="false", data__amount="x")).status_code == 200
    assert await front.end(run_id) == [False, "ada", None, None, "link"]


async def test_what_does_not_fit_is_told_at_its_field_with_what_was_typed_kept_and_nothing_is_stored(
    front: Front,
) -> None:
    run_id = await front.begin()
    link = await front.link(run_id)
    answer = await front.send(link, comment=NASTY, data__amount="many", data__note="kept", data__kind='"cheque"')
    page = Page(answer.text)
    assert answer.status_code == 422
    assert "Decision: choose to approve or to reject" in page.text
    answer = await front.send(
        link, approved="true", comment=NASTY, data__amount="many", data__note="kept", data__kind='"cheque"'
    )
    page = Page(answer.text)
    assert (answer.status_code, "<script" in answer.text) == (422, False)
    assert "must be a whole number" in page.text
    assert "Kind: must be one of card, cash" in page.text
    amount = page.field("data.amount")
    assert (amount["value"], amount["aria-invalid"]) == ("many", "true")
    assert any(attrs.get("id") in str(amount["aria-describedby"]).split() for tag, attrs in page.tags if tag == "p")
    assert page.field("data.note").get("aria-invalid") is None
    assert (page.field("data.note")["value"], page.text.count(NASTY) > 1) == ("kept", True)
    assert ("a", {"href": f"#{amount['id']}"}) in page.tags
    assert await front.app.store.inbox(run_id) == []


async def test_json_decides_too_and_is_told_its_errors_as_problems(front: Front) -> None:
    run_id = await front.begin()
    link = await front.link(run_id)

    async def post(content: Any) -> httpx.Response:
        return await front.caller.post(link, json=content)

    problem = assert_problem(await post({"approved": True, "data": {"amount": 0}}), 422, "data.amount")
    assert problem["errors"] == [{"loc": ["data", "amount"], "msg": "must be at least 1", "type": "minimum"}]
    assert_problem(await post({"approved": "yes"}), 422, "body.approved")
    assert_problem(await post({}), 422)
    assert_problem(await front.caller.post(link, content=b"{"), 400)
    assert await front.app.store.inbox(run_id) == []
    answer = await post({"approved": True, "by": "mallory", "data": {"amount": 1}})
    assert (answer.status_code, answer.json()) == (200, {"key": "go", "approved": True})
    assert_problem(await post({"approved": False}), 409, "already approved")
    assert (await front.end(run_id))[1] == "ada"


async def test_a_forged_altered_or_foreign_link_is_403_and_an_expired_one_410(front: Front) -> None:
    run_id = await front.begin()
    link = await front.link(run_id, expires_in="1h")
    foreign = approval_link(run_id, "go", clock=front.clock, settings=LinkSettings(keys=(NEW,), public_url=HERE))
    for wrong in (f"{HERE}/approvals/x", link[:-3], link.replace("approvals/", "approvals/A"), foreign):
        assert_problem(await front.caller.get(wrong), 403, "not genuine")
        assert_problem(await front.caller.post(wrong, json={"approved": True}), 403, "not genuine")
        assert (await front.look(wrong)).status_code == 403
    front.clock.move_to(START + timedelta(hours=1))
    assert_problem(await front.caller.get(link), 410, "could be used until")
    assert_problem(await front.caller.post(link, json={"approved": True}), 410, "could be used until")
    answer = await front.send(link, approved="true")
    assert (answer.status_code, "This link has expired" in answer.text) == (410, True)
    assert await front.app.store.inbox(run_id) == []


async def test_a_link_is_as_good_after_a_deployment_and_a_rotation_of_its_key(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    async with serving(store) as before:
        run_id = await before.begin()
        link = await before.link(run_id)
    async with serving(store, links=LinkSettings(keys=(NEW, OLD), public_url=HERE)) as after:
        assert (await after.look(link)).status_code == 200
        assert (await after.send(link, approved="false")).status_code == 200
        assert (await after.end(run_id))[:2] == [False, "ada"]


async def test_without_a_key_the_page_says_what_is_missing() -> None:
    async with serving(links=LinkSettings()) as front:
        link = await front.link(await front.begin())
        for answer in (await front.caller.get(link), await front.caller.post(link, json={"approved": True})):
            assert assert_problem(answer, 503, "TINYWORKFLOW_LINK_KEYS is not set")["type"].endswith("not-configured")
        assert "TINYWORKFLOW_LINK_KEYS is not set" in (await front.look(link)).text


End = Callable[[Front, str], Awaitable[None]]


async def decided(front: Front, run_id: str) -> None:
    await front.app.decide(run_id, "go", Decision(approved=False, by="bob"))
    await front.app.advance(run_id)


async def decided_and_ended(front: Front, run_id: str) -> None:
    await decided(front, run_id)
    await front.end(run_id)


async def cancelled(front: Front, run_id: str) -> None:
    await front.app.client.cancel_workflow(run_id)
    await front.app.advance(run_id)


async def deleted(front: Front, run_id: str) -> None:
    await cancelled(front, run_id)
    await front.app.store.purge(run_id)


async def late(front: Front, run_id: str) -> None:
    front.clock.move_to(START + 2 * DAY)


@pytest.mark.parametrize(
    ("end", "seen", "approving", "rejecting"),
    [
        (decided, 200, 409, 200),
        (decided_and_ended, 410, 409, 200),
        (cancelled, 410, 410, 410),
        (deleted, 410, 410, 410),
        (late, 410, 410, 410),
    ],
)
async def test_a_question_that_is_decided_or_closed_says_so(
    front: Front, end: End, seen: int, approving: int, rejecting: int
) -> None:
    run_id = await front.begin()
    link = await front.link(run_id)
    await end(front, run_id)
    answer = await front.look(link)
    assert (answer.status_code, Page(answer.text).names()) == (seen, set())
    for approved, status in ((True, approving), (False, rejecting)):
        sent = {"approved": approved, "data": {"amount": 1}}
        assert (await front.caller.post(link, json=sent)).status_code == status
        by_form = await front.send(link, approved=str(approved).lower(), data__amount="1")
        assert (by_form.status_code, "<form" in by_form.text) == (status, False)
    if end is decided:
        assert "This was rejected." in answer.text
        assert "bob" in Page(answer.text).text


async def test_a_link_without_a_person_asks_who_decides_and_believes_only_those_who_may(front: Front) -> None:
    run_id = await front.begin()
    link = await front.link(run_id, by=None)
    page = Page((await front.look(link)).text)
    assert "by" in page.names()
    assert [attrs["value"] for tag, attrs in page.tags if tag == "option"][:3] == ["", "ada", "bob"]
    missing = await front.send(link, approved="false")
    assert (missing.status_code, Page(missing.text).field("by").get("aria-invalid")) == (422, "true")
    assert (await front.send(link, approved="false", by="mallory")).status_code == 403
    assert (await front.send(link, approved="false", by="bob")).status_code == 200
    assert (await front.end(run_id))[:2] == [False, "bob"]

    run_id = await front.begin(asks_anybody)
    assert (await front.send(await front.link(run_id, by=None), approved="true")).status_code == 200
    assert await front.end_of(run_id) == [True, None]


async def test_a_link_of_somebody_who_may_not_decide_shows_the_question_and_takes_no_decision(front: Front) -> None:
    link = await front.link(await front.begin(), by="mallory")
    answer = await front.look(link)
    assert (answer.status_code, "You may not decide this" in answer.text, "<form" in answer.text) == (403, True, False)
    assert_problem(await front.caller.post(link, json={"approved": False}), 403, "'mallory' may not decide")


async def test_votes_by_link_are_shown_to_the_others_and_each_person_has_one(front: Front) -> None:
    run_id = await front.begin(asks_both)
    ada, bob = await front.link(run_id, "ada"), await front.link(run_id, "bob")
    assert "2 approvals; 0 so far" in (await front.look(bob)).text
    assert (await front.send(ada, approved="true", comment="yes & <b>")).status_code == 200
    await front.app.advance(run_id)
    page = Page((await front.look(bob)).text)
    assert "2 approvals; 1 so far" in page.text
    assert "ada approved on 2026" in page.text
    assert "yes & <b>" in page.text
    again = await front.look(ada)
    assert ("You have decided." in again.text, "<form" in again.text) == (True, False)
    assert (await front.send(ada, approved="true")).status_code == 200
    assert (await front.send(ada, approved="false")).status_code == 409
    assert (await front.send(bob, approved="true")).status_code == 200
    assert await front.end_of(run_id) == [["ada", "yes & <b>", "link"], ["bob", None, "link"]]


async def test_the_history_tells_who_decided_when_and_by_which_way(front: Front) -> None:
    run_id = await front.begin()
    front.clock.move_to(START + timedelta(minutes=5))
    await front.send(await front.link(run_id), approved="false", comment="too much")
    await front.app.advance(run_id)
    state = await front.app.store.load(run_id)
    assert state is not None
    (event,) = (one for one in state.history if isinstance(one, ApprovalDecided))
    assert (event.by, event.comment, event.way) == ("ada", "too much", "link")
    assert event.at == START + timedelta(minutes=5)
