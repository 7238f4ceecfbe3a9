"""The list of runs: what its URL narrows, what it counts, how it goes on to older runs, and acting on several."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import pytest

from tests.http.front import WORKFLOWS, calling, new_app
from tests.http.ui.visitor import HOSTILE, Page, visitors
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.http.ui import runs as runs_module
from tinyworkflow_core.serialization import Failure
from tinyworkflow_core.store import OpenApproval, Run, RunQuery, Status
from tinyworkflow_core.testing import VirtualClock


@workflow(redact=["card"])
async def secretive(ctx: WorkflowContext, value: Any = None) -> None:
    pass


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = App("sqlite:///:memory:", workflows=[*WORKFLOWS, secretive], dispatcher="none", clock=VirtualClock())
    yield app
    await app.close()


async def add(app: App, run_id: str, name: str = "echo", *, age: float = 0, **fields: Any) -> None:
    """A run that stands as it is, made so many seconds ago."""
    made = app.clock.now() - timedelta(seconds=age)
    told: dict[str, Any] = {"workflow_id": run_id, "started_at": made, "version": 1, **fields}
    run = Run(run_id=run_id, name=name, input=app.codec.encode(None), created_at=made, **told)
    assert await app.store.create(run, [])


def listed(answer: httpx.Response) -> list[str]:
    """The runs on the page, as they come."""
    assert answer.status_code == 200, answer.text
    return re.findall(r'<tr data-key="([^"]*)"', answer.text)


def counted(answer: httpx.Response) -> dict[str, str]:
    found = re.findall(r'data-key="(\w+)"><a.*?</span> <span class="count">([^<]*)', answer.text)
    return dict(found)


async def test_each_filter_narrows_the_list_and_stays_in_its_links(app: App, caller: httpx.AsyncClient) -> None:
    await add(app, "r1", "echo", age=50, status=Status.FAILED, attributes={"n": 1, "region": "eu", "vip": True})
    await add(app, "r2", "order", age=4000, status=Status.RUNNING, workflow_id="w", attributes={"n": 1.5, "code": "7"})
    await add(app, "r3", "order", age=90_000, status=Status.FAILED, workflow_id="w")
    await add(app, "w", "echo", age=200_000, status=Status.COMPLETED)
    moment = (app.clock.now() - timedelta(seconds=5000)).strftime("%Y-%m-%dT%H:%M")
    wanted: dict[str, list[str]] = {
        "": ["r1", "r2", "r3", "w"],
        "status=failed": ["r1", "r3"],
        "workflow=order": ["r2", "r3"],
        "workflow=order&status=failed": ["r3"],
        "workflow=none": [],
        "id=r2": ["r2"],
        "id=w": ["r2", "r3", "w"],
        "id=w&status=failed": ["r3"],
        "id=w&workflow=order": ["r2", "r3"],
        "id=+r2+": ["r2"],
        "since=1h": ["r1"],
        "since=24h": ["r1", "r2"],
        f"after={moment}": ["r1", "r2"],
        f"before={moment}": ["r3", "w"],
        f"before={moment}&since=7d": ["r3", "w"],
        f"after={moment}&since=1h": ["r1"],
        f"before={moment}&id=w": ["r3", "w"],
        "attribute=n%3D1": ["r1"],
        "attribute=n%3D1.5": ["r2"],
        "attribute=region%3Deu&attribute=vip%3Dtrue": ["r1"],
        "attribute=region%3Deu&attribute=vip%3Dfalse": [],
        "attribute=code%3D%227%22": ["r2"],
        "attribute=code%3D7": [],
    }
    for query, runs in wanted.items():
        answer = await caller.get(f"/ui/runs?{query}")
        assert listed(answer) == runs, query
        (every,) = re.findall(r'data-key="all"><a href="([^"]*)"', answer.text)
        kept = [(name, value.strip()) for name, value in parse_qsl(query) if name != "status"]
        assert sorted(parse_qsl(urlsplit(unescape(every)).query)) == sorted(kept), query
    assert listed(await caller.get("/ui")) == wanted[""]


async def test_the_beginning_of_an_id_finds_runs_after_those_that_have_it_whole(
    app: App, caller: httpx.AsyncClient
) -> None:
    for age, (run_id, workflow_id) in enumerate(
        [("order-2", "x"), ("p", "order-22"), ("q", "order-2"), ("Order-2", "Y"), ("order", "order"), ("order-3%", "x")]
    ):
        await add(app, run_id, age=age, workflow_id=workflow_id, status=Status.FAILED if age % 2 else Status.PENDING)
    wanted = {
        "order": ["order", "order-2", "p", "q", "order-3%"],
        "order-2": ["order-2", "q", "p"],
        "order-2&status=failed": ["p"],
        "order-2&workflow=none": [],
        "order-3%25": ["order-3%"],
        "%25": [],
        "_rder": [],
        "rder": [],
        quote("' OR 1=1 --\u202e\0<b>"): [],
    }
    for query, runs in wanted.items():
        assert listed(await caller.get(f"/ui/runs?id={query}")) == runs, query


async def test_of_many_ids_that_begin_alike_a_page_is_read_and_said_to_be_some(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        await add(app, f"order-{number:02}", age=number)
    asked = []
    find = app.store.find

    async def counted(prefix: str, **how: Any) -> Any:
        asked.append(how["limit"])
        return await find(prefix, **how)

    monkeypatch.setattr(app.store, "find", counted)
    answer = await caller.get("/ui/runs?id=order&size=25")
    assert len(listed(answer)) == 25
    assert "There are more IDs that begin with this" in answer.text
    assert asked == [26, 26]
    assert "There are more" not in (await caller.get("/ui/runs?id=order-1&size=25")).text


async def test_the_beginning_of_an_id_finds_only_what_the_caller_reaches(app: App) -> None:
    await add(app, "a-1", "echo")
    await add(app, "a-2", "order")
    async with visitors(app, few={"scopes": ["read"], "workflows": ["echo"]}) as by:
        page = await by["few"].see("/ui/runs?id=a-")
    assert "a-1" in page.html
    assert "a-2" not in page.html


async def test_a_filter_that_does_not_fit_is_told_at_its_field_and_asks_nothing(
    app: App, caller: httpx.AsyncClient
) -> None:
    await add(app, "r1")
    for query, words in {
        "status=broken": "There is no such status",
        "since=1y": "Choose one of 1h",
        "after=tomorrow": "Write a day and time",
        "before=99": "Write a day and time",
        "attribute=x": "NAME=VALUE",
        "attribute=%3Dx": "NAME=VALUE",
        "&".join(f"attribute=a{number}%3D1" for number in range(6)): "at most 5 attributes",
        f"id={'x' * 501}": "500 characters",
        f"workflow={'x' * 501}": "500 characters",
    }.items():
        answer = await caller.get(f"/ui/runs?{query}")
        assert answer.status_code == 422, query
        page = Page(422, answer.text)
        assert words in page.words
        assert page.title.startswith("Error: ")
        assert 'data-key="r1"' not in answer.text
        if not query.startswith("status"):
            assert 'aria-invalid="true"' in answer.text
    assert (await caller.get("/ui/runs?cursor=none-of-ours")).status_code == 422
    assert listed(await caller.get("/ui/runs?size=7&nonsense=1")) == ["r1"]


async def test_runs_are_counted_by_status_within_the_other_filters_and_no_further_than_the_cap(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "MOST_COUNTED", 3)
    for number in range(5):
        await add(app, f"f{number}", "order" if number < 2 else "echo", age=number, status=Status.FAILED)
    await add(app, "p", age=9000)
    assert counted(await caller.get("/ui/runs")) == {"failed": "3+", "pending": "1"}
    assert counted(await caller.get("/ui/runs?status=failed")) == {"failed": "3+", "pending": "1"}
    assert counted(await caller.get("/ui/runs?workflow=order")) == {"failed": "2"}
    assert counted(await caller.get("/ui/runs?status=parked&since=1h")) == {"failed": "3+", "parked": "0"}
    assert counted(await caller.get("/ui/runs?attribute=a%3D1")) == {}


async def test_cursors_lead_through_every_run_once_under_all_filters(app: App, caller: httpx.AsyncClient) -> None:
    for number in range(60):
        await add(app, f"r{number:02}", "order" if number % 2 else "echo", age=number)
    found, path, pages = [], "/ui/runs?workflow=order&size=25", 0
    while path:
        answer = await caller.get(path)
        found += listed(answer)
        older = re.findall(r'href="([^"]+)" rel="next"', answer.text)
        path = older[0].replace("&amp;", "&") if older else ""
        assert "workflow=order" in path or not path
        assert (">Newest<" in answer.text) == (pages > 0)
        pages += 1
        if pages == 1:
            await add(app, "new", "order", age=-5)
    assert found == [f"r{number:02}" for number in range(1, 60, 2)]
    assert pages == 2


async def test_text_of_others_stays_text_in_every_cell_and_field(app: App, caller: httpx.AsyncClient) -> None:
    await add(
        app, "r/../" + HOSTILE[:150].replace("\0", ""), HOSTILE, workflow_id=HOSTILE, status=Status.PAUSED,
        attributes={HOSTILE: HOSTILE, "lone": "\ud800"}, retry_count=2,
        open_approvals=(OpenApproval(id=1, key="k", title=app.codec.encode(HOSTILE), requested_at=app.clock.now()),),
    )  # fmt: skip
    failure = Failure(type=HOSTILE, message=HOSTILE)
    await add(app, "failed", status=Status.FAILED, error=failure, custom_status=app.codec.encode(HOSTILE))
    await add(app, "says", custom_status=app.codec.encode({"step": HOSTILE}), age=5)
    await add(app, "parked", status=Status.PARKED, problem=HOSTILE, age=6)
    answer = await caller.get("/ui/runs")
    page = Page(200, answer.text)
    assert len(listed(answer)) == 4
    assert "alert('x')</script>" in page.words
    assert "49" not in page.words
    assert len(answer.text) < 40_000  # of what is long a part is shown
    query = urlencode({"workflow": HOSTILE[:400], "id": HOSTILE[:400], "attribute": f"a={HOSTILE[:300]}"})
    answer = await caller.get(f"/ui/runs?{query}")
    assert Page(200, answer.text).form("/ui/runs").fields["workflow"] == HOSTILE[:400].replace("\0", "\ufffd")


async def test_a_caller_of_some_workflows_sees_their_runs_alone_and_no_count_of_others(app: App) -> None:
    await add(app, "mine", "echo", status=Status.FAILED)
    await add(app, "other", "order", status=Status.FAILED)
    few = {"scopes": ["all"], "workflows": ["ech*", "as*"]}
    async with visitors(app, few=few, one=few | {"workflows": ["echo"]}) as seen:
        for path, has_counts in (("/ui/runs", False), ("/ui/runs?workflow=echo", True), ("/ui/runs?id=mine", False)):
            page = await seen["few"].see(path)
            assert "mine" in page.words
            assert "other" not in page.words.replace("others", "")
            assert ('class="count"' in page.html) is has_counts
        for path in ("/ui/runs?workflow=order", "/ui/runs?id=other"):
            page = await seen["few"].see(path)
            assert 'data-key="other"' not in page.html
            assert 'class="count"' not in page.html
        page = await seen["one"].see("/ui/runs")
        assert 'data-key="mine"' in page.html
        assert 'class="count">1<' in page.html

        page = await seen["few"].see("/ui/runs")
        asked = await seen["few"].post(page.form("/ui/bulk"), action="cancel", run_id="other")
        done = Page(200, asked.text)
        assert "there is no such run" in done.words
        assert not done.form("/ui/bulk/do").names & {"run_id"}
        forged = await seen["few"].post(done.form("/ui/bulk/do"), run_id="other")
        assert "there is no such run" in forged.text
        assert await app.store.inbox("other") == []


async def test_what_a_workflow_hides_is_neither_shown_nor_found_by_a_filter(app: App) -> None:
    await add(app, "r", "secretive", attributes={"card": "4242", "region": "eu"}, error=None)
    async with visitors(app, reader=["read"], revealer=["read", "reveal"]) as seen:
        for path in ("/ui/runs", "/ui/runs?attribute=region%3Deu"):
            page = await seen["reader"].see(path)
            assert 'data-key="r"' in page.html
            assert "4242" not in page.html
            assert "4242" in (await seen["revealer"].see(path)).html
        guess = "/ui/runs?attribute=card%3D%224242%22"
        assert 'data-key="r"' not in (await seen["reader"].see(guess)).html
        assert 'data-key="r"' in (await seen["revealer"].see(guess)).html


# --- acting on several -----------------------------------------------------------------------------------


async def chosen(caller: httpx.AsyncClient, action: str, *run_ids: str, path: str = "/ui/bulk") -> httpx.Response:
    form = Page(200, (await caller.get("/ui/runs")).text).form("/ui/bulk").fields
    data = {"csrf": form["csrf"], "action": action, "run_id": list(run_ids), "back": "/ui/runs?status=failed"}
    return await caller.post(path, data=data)


async def test_several_runs_are_cancelled_only_after_a_page_has_said_which(app: App, caller: httpx.AsyncClient) -> None:
    await add(app, "open")
    await add(app, "also/open?")
    await add(app, "ended", status=Status.COMPLETED)
    asked = await chosen(caller, "cancel", "open", "also/open?", "ended", "none", "open")
    page = Page(200, asked.text)
    assert "Cancel 2 runs?" in page.words
    assert "2 of the 4 chosen runs are left alone" in page.words
    assert "left alone: it is completed" in page.words
    assert await app.store.inbox("open") == []
    assert "/ui/runs?status=failed" in page.links

    sent = re.findall(r'name="run_id" value="([^"]*)"', asked.text)
    assert sent == ["open", "also/open?"]
    form = page.form("/ui/bulk/do").fields | {"reason": " wrong price "}
    for _ in range(2):  # sent again it asks for nothing more
        done = await caller.post("/ui/bulk/do", data=form | {"run_id": sent})
        assert "Cancel: done for 2 of 2 runs" in Page(200, done.text).words
    for run_id in sent:
        (message,) = await app.store.inbox(run_id)
        assert message.kind == "cancel"
        assert app.codec.plain_text(message.body["reason"]) == "wrong price"


async def test_failed_runs_go_on_when_several_are_retried_and_each_is_told_apart() -> None:
    app = new_app(clock=VirtualClock(datetime.fromisoformat("2026-01-01T00:00:00+00:00")), dispatcher="none")
    async with calling(app) as caller:
        for run_id, name in (("b1", "broken"), ("b2", "broken"), ("fine", "echo")):
            await app.client.start_workflow(name, run_id=run_id)
            await app.advance(run_id)
        asked = await chosen(caller, "retry", "b1", "b2", "fine")
        assert "Retry 2 runs?" in Page(200, asked.text).words
        done = await chosen(caller, "retry", "b1", "fine", path="/ui/bulk/do")
        assert "Retry: done for 1 of 2 runs" in Page(200, done.text).words
        states = [await app.store.get(run_id) for run_id in ("b1", "b2", "fine")]
        assert [one.status.value for one in states if one is not None] == ["pending", "failed", "completed"]
    await app.close()


async def test_suspended_and_parked_runs_are_resumed(app: App, caller: httpx.AsyncClient) -> None:
    await add(app, "s", status=Status.SUSPENDED)
    await add(app, "p", status=Status.PARKED, problem="no code")
    await add(app, "w", status=Status.WAITING)
    done = await chosen(caller, "resume", "s", "p", "w", path="/ui/bulk/do")
    assert "Resume: done for 2 of 3 runs" in Page(200, done.text).words
    assert [one.kind for one in await app.store.inbox("p")] == ["resume"]
    assert await app.store.inbox("w") == []


async def test_a_choice_of_nothing_or_of_too_much_or_of_no_known_deed_is_refused(caller: httpx.AsyncClient) -> None:
    for action, run_ids, words in (
        ("cancel", [], "no run was chosen"),
        ("delete", ["r"], "choose what to do"),
        ("cancel", [f"r{number}" for number in range(201)], "at most 200 runs"),
    ):
        for path in ("/ui/bulk", "/ui/bulk/do"):
            answer = await chosen(caller, action, *run_ids, path=path)
            assert answer.status_code == 422
            assert words in Page(422, answer.text).words


# --- many ------------------------------------------------------------------------------------------------


async def test_a_page_reads_a_page_of_runs_and_counts_no_further_than_the_cap(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def watched(verb: str, bound: str) -> None:
        real = getattr(app.store, verb)

        async def call(query: RunQuery, **how: Any) -> Any:
            asked.append(how.get(bound, query.limit))
            return await real(query, **how)

        monkeypatch.setattr(app.store, verb, call)

    watched("list", "limit")
    watched("count", "most")
    for number in range(60):
        await add(app, f"r{number}", age=number)
    for query, size in {"": 50, "?status=pending": 50, "?workflow=echo&since=7d&size=25": 25}.items():
        asked.clear()
        assert len(listed(await caller.get(f"/ui/runs{query}"))) == size, query
        assert sorted(asked) == [size] + [runs_module.MOST_COUNTED + 1] * len(Status), query
    asked.clear()
    await caller.get("/ui/runs?attribute=n%3D7&size=200")
    assert asked == [200], "by an attribute nothing is counted"
