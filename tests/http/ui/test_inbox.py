"""The inbox: what waits is seen by those who may, and decided by the form that was made for that very question."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from tests.http.front import asker, calling, echo, pair
from tests.http.test_access import ADA, IDENTITIES, SITE
from tests.http.tokens import issuer
from tests.http.ui.visitor import HOSTILE, Page, Visitor, visiting, visitors
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.approvals import Decision
from tinyworkflow_core.http import identity_tokens
from tinyworkflow_core.http.access_document import document_from_env
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.http.ui import inbox
from tinyworkflow_core.store import Status


class Terms(BaseModel):
    amount: int = Field(ge=1, le=100)
    kind: Literal["card", "cash"] = "card"
    urgent: bool = False


@workflow
async def terms(ctx: WorkflowContext) -> Any:
    answer = await ctx.wait_for_approval("terms", title="Which terms?", form=Terms)
    return [answer.approved, answer.by, answer.comment, answer.data]


@workflow
async def twice(ctx: WorkflowContext) -> list[bool]:
    return [(await ctx.wait_for_approval("again")).approved, (await ctx.wait_for_approval("again")).approved]


@workflow
async def asks_anything(ctx: WorkflowContext, text: str) -> Any:
    answer = await ctx.wait_for_approval(text[:300], title=text, details={"a": text, text: 1}, approvers=[text])
    return answer.comment


@workflow(redact=("card",))
async def discreet(ctx: WorkflowContext) -> None:
    await ctx.wait_for_approval("pay", details={"card": "4242", "amount": 7})


KNOWN = (asker, echo, pair, terms, twice, asks_anything, discreet)


@pytest.fixture
async def app() -> AsyncIterator[App]:
    made = App("sqlite:///:memory:", workflows=KNOWN, dispatcher="none")
    yield made
    await made.close()


async def asked(app: App, workflow_name: str, input_data: Any = None) -> str:
    run_id = await app.client.start_workflow(workflow_name, input_data)
    await app.advance(run_id)
    return run_id


async def question_of(visitor: Visitor, run_id: str, key: str) -> Page:
    """Its page, found by the link in the inbox."""
    found = [one for one in (await visitor.see("/ui/approvals")).links if f"/ui/approvals/{run_id}?" in one]
    assert len(found) == 2
    page = await visitor.see(found[0])
    assert page.form(run_id).fields["key"] == key
    return page


async def test_a_question_is_decided_once_by_the_form_that_its_schema_makes(app: App) -> None:
    run_id = await asked(app, "terms")
    async with visiting(app) as visitor:
        page = await question_of(visitor, run_id, "terms")
        assert page.form(run_id).fields["data.kind"] == '"card"'
        wrong = await visitor.send(page, run_id, 422, data__amount="101", comment="see\nyou", approved="true")
        assert "Amount: must be at most 100" in wrong.words
        assert wrong.title.startswith("Error: ")
        assert (wrong.form(run_id).fields["data.amount"], wrong.form(run_id).fields["comment"]) == ("101", "see\nyou")
        assert "choose to approve or to reject" in (await visitor.send(page, run_id, 422, data__amount="1")).words
        assert not await app.store.inbox(run_id), "nothing was decided yet"
        inbox_page = await visitor.send(
            wrong, run_id, data__amount="7", data__kind='"cash"', data__urgent="on", by="me", approved="true"
        )
        assert "You have approved this. It goes on: " + run_id in inbox_page.words
        again = await visitor.send(page, run_id, data__amount="7", approved="true")
        assert "You have approved" in again.words
        late = await visitor.send(page, run_id, 409, approved="false")
        assert "already approved" in late.words
        await app.advance(run_id)
        assert not (await visitor.see(f"/ui/approvals/{run_id}?key=terms")).has_form(run_id)
        assert "Nobody has to decide anything" in (await visitor.see("/ui/approvals")).words
    events = await app.client.get_workflow_events(run_id)
    assert [one["way"] for one in events if one["type"] == "ApprovalDecided"] == ["ui"]
    data = {"amount": 7, "kind": "cash", "urgent": True}
    assert await app.client.get_result(run_id) == [True, "me", "see\nyou", data]


async def test_a_form_answers_the_very_question_that_it_was_made_for(app: App) -> None:
    run_id = await asked(app, "twice")
    async with visiting(app) as visitor:
        first = await question_of(visitor, run_id, "again")
        await visitor.send(first, run_id, approved="true", then="run")
        await app.advance(run_id)
        second = await question_of(visitor, run_id, "again")
        assert second.form(run_id).fields["question"] != first.form(run_id).fields["question"]
        assert "already approved" in (await visitor.send(first, run_id, 409, approved="false")).words
        await visitor.send(first, run_id, 422, question="x", approved="true")
        assert not await app.store.inbox(run_id), "the second question is still open"
        await visitor.send(second, run_id, approved="false")
        await app.advance(run_id)
    assert await app.client.get_result(run_id) == [True, False]


async def test_who_decides_is_chosen_from_those_who_may_and_each_vote_is_told(app: App) -> None:
    run_id = await asked(app, "pair")
    async with visiting(app) as visitor:
        page = await question_of(visitor, run_id, "go")
        assert "is required: who decides?" in (await visitor.send(page, run_id, 422, approved="true")).words
        assert "may not decide" in (await visitor.send(page, run_id, 403, by="eve", approved="true")).words
        await visitor.send(page, run_id, by="ada", comment="fine", approved="true")
        await app.advance(run_id)
        run = await app.store.get(run_id)
        assert run is not None
        assert [vote.way for vote in run.open_approvals[0].votes] == ["ui"]
        page = await question_of(visitor, run_id, "go")
        assert "ada approved" in page.words
        assert "2 approvals; 1 so far" in page.words
        assert "1 of 2 approvals" in (await visitor.see("/ui/approvals?approver=bob")).words
        assert "Nobody has to decide" in (await visitor.see("/ui/approvals?approver=eve")).words


async def test_a_person_decides_by_the_address_that_was_verified_and_by_no_other(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await asked(app, "terms")
    not_mine = await asked(app, "asker")
    settings = HttpSettings(access=document_from_env({"TINYWORKFLOW_ACCESS": json.dumps(IDENTITIES)}))
    with issuer() as google:
        monkeypatch.setattr(identity_tokens, "GOOGLE_CERTIFICATES", google.url)
        headers = {"authorization": f"Bearer {google.token(aud=SITE, email=ADA)}"}
        async with calling(app, parts={"ui"}, emulate=False, base_url=SITE, settings=settings) as caller:
            visitor = Visitor(caller, headers)
            page = await question_of(visitor, mine, "terms")
            assert "by" not in page.form(mine).names
            assert f"You decide as {ADA.lower()}" in page.words
            await visitor.send(page, mine, 403, by="bob@example.com", approved="false")
            await visitor.send(page, mine, approved="false")
            other = await visitor.see(f"/ui/approvals/{not_mine}")
            assert not other.has_form(not_mine)
            assert "may not decide this" in other.words
    await app.advance(mine)
    assert (await app.client.get_result(mine))[:2] == [False, ADA.lower()]


async def test_a_decision_takes_the_scope_approve_and_what_is_shown_the_reach_of_the_caller(app: App) -> None:
    terms_run, asker_run = await asked(app, "terms"), await asked(app, "asker")
    some = {"scopes": ["read", "approve"], "workflows": ["terms"]}
    async with visitors(app, boss=["read", "approve"], reader=["read"], some=some, starter=["start"]) as by:
        page = await by["boss"].see(f"/ui/approvals/{terms_run}")
        seen = await by["reader"].see(f"/ui/approvals/{terms_run}")
        assert not seen.has_form(terms_run)
        await by["reader"].send(page, terms_run, 403, approved="true")
        await by["starter"].see("/ui/approvals", 403)
        listed = await by["some"].see("/ui/approvals")
        assert terms_run in listed.words
        assert asker_run not in listed.words
        await by["some"].see(f"/ui/approvals/{asker_run}", 404)
        await by["some"].send(page, terms_run, approved="false")
        forged = page.form(terms_run)
        forged.fields["csrf"] = "0" * 64
        assert (await by["boss"].post(forged, approved="true")).status_code == 403
    assert [one.body["approved"] for one in await app.store.inbox(terms_run)] == [False]


async def test_texts_of_strangers_stay_texts(app: App) -> None:
    run_id = await asked(app, "asks_anything", HOSTILE)
    async with visiting(app) as visitor:
        assert "<script>alert" in (await visitor.see("/ui/approvals")).words
        page = await question_of(visitor, run_id, HOSTILE[:300].replace("\0", "\ufffd"))
        assert "<script>alert" in page.words
        other = await visitor.see(f"/ui/approvals/{run_id}")
        assert other.form(run_id).fields["question"] == "0.1"
        for name in ("approver", "run", "done"):
            await visitor.see(f"/ui/approvals?done=approved&{name}={'%3Cscript%3E%00' * 99}")
        await visitor.see(f"/ui/approvals/{run_id}?key=%3Cscript%3E", 404)
        await visitor.see("/ui/approvals?cursor=nonsense", 422)
        await visitor.see("/ui/approvals/none?key=a", 404)
        await visitor.send(page, run_id, 422, comment="c" * 10_001, approved="true")
        assert "may not decide" in (await visitor.send(page, run_id, 403, by=HOSTILE, approved="true")).words


async def test_the_inbox_is_read_page_by_page(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PAGE_SIZE", 2)
    runs = [await asked(app, "asker") for _ in range(5)]
    seen: list[str] = []
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/approvals")
        while True:
            seen += [one.split("?")[0].rpartition("/")[2] for one in page.links if "?key=" in one]
            more = [one for one in page.links if "?cursor=" in one]
            if not more:
                break
            page = await visitor.see(more[0])
    assert seen == [one for run_id in reversed(runs) for one in (run_id, run_id)]


async def test_what_is_over_can_be_looked_at_and_not_decided(app: App) -> None:
    run_id = await asked(app, "asker")
    await app.decide(run_id, None, Decision(approved=False, by="ada"))
    await app.advance(run_id)
    run = await app.store.get(run_id)
    assert run is not None
    assert run.status is Status.COMPLETED
    async with visiting(app) as visitor:
        page = await visitor.see(f"/ui/approvals/{run_id}?key=go%2Fno%20go")
        assert "This was rejected" in page.words
        assert not page.has_form(run_id)


async def test_what_a_workflow_hides_is_shown_to_those_alone_who_may_see_it(app: App) -> None:
    run_id = await asked(app, "discreet")
    async with visitors(app, all=["all"], trusted=["read", "reveal"]) as by:
        page = await by["all"].see(f"/ui/approvals/{run_id}")
        assert "card [redacted] amount 7" in page.words
        assert "4242" not in page.html
        assert "card 4242" in (await by["trusted"].see(f"/ui/approvals/{run_id}")).words
