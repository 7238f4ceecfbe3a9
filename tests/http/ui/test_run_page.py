"""The page of one run: what it shows of histories of every kind, and what it keeps back."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.http.front import calling, ended, paused
from tests.http.ui.run_front import HOSTILE, START, field_of, long_history, made, new_app, page, words
from tinyworkflow_core import App
from tinyworkflow_core.checking import exported
from tinyworkflow_core.engine.history import (
    ActivityCompleted,
    ActivityFailed,
    ApprovalRequested,
    ChildStarted,
    LeaseTaken,
    RunFailed,
    SignalReceived,
)
from tinyworkflow_core.errors import NonDeterminismError, SerializationError
from tinyworkflow_core.http import ALL, auth
from tinyworkflow_core.http.callers import Caller
from tinyworkflow_core.http.operations import Scope
from tinyworkflow_core.http.shown import Shown
from tinyworkflow_core.http.ui import gantt, run_view
from tinyworkflow_core.http.ui.parked import sides
from tinyworkflow_core.http.ui.rows import Kind
from tinyworkflow_core.serialization import Failure
from tinyworkflow_core.store import OpenApproval, Status


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = new_app()
    yield app
    await app.close()


@pytest.fixture
async def caller(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app, parts=ALL - {"tick"}) as caller:  # with all parts it would work on runs by itself
        yield caller


async def start(caller: httpx.AsyncClient, name: str, run_id: str, given: object = None) -> None:
    answer = await caller.post(f"/v1/workflows/{name}/runs", json={"run_id": run_id, "input": given})
    assert answer.status_code == 202, answer.text


async def test_a_failed_run_says_why_with_all_causes_and_which_step_it_was(app: App, caller: httpx.AsyncClient) -> None:
    await app.start_worker()
    await start(caller, "ship", "s", {"weight": -3})
    await ended(caller, "s")
    html = await page(caller, "/ui/runs/s")
    said = words(html)
    assert "ValueError : no weight" in said
    assert "caused by KeyError : 'the scale'" in said
    assert "raise ValueError(" in said, "the traceback"
    assert "Step 1 weigh failed at attempt 2" in said
    assert "failed: ValueError (2 attempts)" in said
    assert "attempt 1 failed: ValueError; waits for attempt 2; attempt 2 failed: ValueError" in said
    assert "Retry from the failure" in said
    assert "Send a signal" not in said, "it has ended"


async def test_the_head_tells_version_times_cost_parent_and_children(app: App, caller: httpx.AsyncClient) -> None:
    taken = LeaseTaken(at=START, owner="b", previous_owner="a")
    heard = SignalReceived(at=START, message_id="1", name="word", payload='"hello"')
    await made(app, "top", [taken, heard])
    await made(app, "below", [], parent_run_id="top")
    said = words(await page(caller, "/ui/runs/top"))
    assert "echo , version 1" in said
    assert "at least 3 document writes and deletes: 1 history document holding 3 events" in said
    assert "1 message written and deleted, 1 take-over" in said
    assert "Estimated: 3 calls, if each wake-up was one" in said, "the first, the take-over, the signal"
    assert "Children (1)" in said
    assert "b took the run from a" in said
    assert '<a href="/ui/runs/below">' in await page(caller, "/ui/runs/top")
    assert '<dt>Parent</dt><dd><a href="/ui/runs/top">' in await page(caller, "/ui/runs/below")


async def test_a_parked_run_shows_both_sides_and_whether_the_code_here_fits(
    app: App, caller: httpx.AsyncClient
) -> None:
    error = NonDeterminismError(step=2, recorded="activity <old>", asked="timer of 5 s", where="/app/flow.py:12")
    await made(app, "p", [], status=Status.PARKED, problem=f"{error}\na note")
    html = await page(caller, "/ui/runs/p")
    assert "The history holds</h3><pre>activity &lt;old&gt;</pre>" in html
    assert "The code asks for</h3><pre>timer of 5 s</pre>" in html
    assert "/app/flow.py:12" in html
    assert "a note" in html
    assert "/p/resume" in html
    assert "fits this history" in await page(caller, "/ui/runs/p?check=1"), "echo asks for nothing"
    # A history of another code, seen by the code that is here.
    await made(app, "q", long_history(1), status=Status.PARKED, problem="no code for version 1")
    html = await page(caller, "/ui/runs/q?check=1")
    assert "<pre>no code for version 1</pre>" in html
    assert "The history holds" in html


@pytest.mark.parametrize("where", ["", "/app/flow.py:3"])
def test_the_two_sides_are_read_from_the_very_text_of_the_error(where: str) -> None:
    found = sides(str(NonDeterminismError(step=7, recorded="a. b", asked="c at d", where=where)))
    assert found is not None
    assert (found.step, found.recorded, found.asked, found.where) == (
        7,
        "a. b",
        "c at d",
        where.replace(" ", "") or None,
    )
    assert sides("the store is away") is None


async def test_nothing_that_people_have_named_becomes_markup(app: App, caller: httpx.AsyncClient) -> None:
    long = HOSTILE + "x" * 10_000
    cause = Failure(type=long, message=HOSTILE)
    failure = Failure(type=HOSTILE, message=long, details='"<script>"', traceback=long, cause=cause)
    events = [
        ActivityCompleted(
            at=START, id=1, name=long, digest="d", attempt=1, started_at=START, result='"</pre><script>"'
        ),
        ActivityFailed(at=START, id=2, name="n", error=failure, digest="d", attempt=1, started_at=START),
        SignalReceived(at=START, message_id=HOSTILE, name=HOSTILE, payload='"<script>"'),
        ApprovalRequested(at=START, id=3, key=HOSTILE, title=HOSTILE),
        ChildStarted(at=START, id=4, name=HOSTILE, digest="d", run_id="c", on_parent_close=HOSTILE),
        LeaseTaken(at=START, owner=HOSTILE, previous_owner=HOSTILE),
        RunFailed(at=START, error=failure, failed=(2,)),
    ]
    question = OpenApproval(id=3, key=HOSTILE, requested_at=START, title=HOSTILE, approvers=(HOSTILE,))
    await made(
        app,
        "h",
        events,
        status=Status.PAUSED,
        name=HOSTILE,
        workflow_id=long,
        error=failure,
        problem=long,
        custom_status='"<script>"',
        attributes={HOSTILE: HOSTILE},
        open_approvals=(question,),
        parent_run_id="x",
        lease_owner=HOSTILE,
    )
    for path in ("/ui/runs/h", "/ui/runs/h?check=1&from=0&to=1", "/ui/diff?a=h&b=h"):
        html = await page(caller, path)
        assert "<script>" not in html
        assert "\0" not in html
        assert "&lt;script&gt;" in html
        assert not [tag for tag in ("style=", "onclick", "javascript:") if tag in html]
    assert len(await page(caller, "/ui/runs/h")) < 200_000


async def test_a_caller_sees_the_values_that_a_workflow_hides_only_when_told_so(
    app: App, caller: httpx.AsyncClient
) -> None:
    await app.start_worker()
    await start(caller, "discreet", "d", {"card": "4242 4242", "note": "in the open"})
    await ended(caller, "d")
    html = await page(caller, "/ui/runs/d")
    assert "4242" not in html
    assert "in the open" in html
    assert field_of(html, "fork-input") == "", "what is hidden cannot be sent back"
    assert (await caller.get("/ui/runs/d/history.json")).status_code == 403
    unknown = Failure(
        type="E", message="4242", traceback="f(4242)", cause=Failure(type="C", message="4242", details='"4242"')
    )
    await made(app, "u", [RunFailed(at=START, error=unknown)], name="not known here", error=unknown, output='"4242"')
    assert "4242" not in await page(caller, "/ui/runs/u")


async def test_a_download_is_what_export_writes(app: App, caller: httpx.AsyncClient) -> None:
    await made(app, "x:1", long_history(3))
    answer = await caller.get("/ui/runs/x:1/history.json")
    state = await app.store.load("x:1")
    assert state is not None
    assert answer.json() == exported(state)
    assert answer.headers["content-disposition"] == 'attachment; filename="x_1.history.json"'


async def test_a_run_that_there_is_not_is_a_page_that_says_so(caller: httpx.AsyncClient) -> None:
    assert "there is no run 'gone'" in words(await page(caller, "/ui/runs/gone", 404))


async def test_a_history_that_cannot_be_read_hides_nothing_else(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(app, "r", [], status=Status.FAILED, error=Failure(type="E", message="the reason"))

    async def load(run_id: str) -> None:
        raise SerializationError("an event of kind 'Future'")

    monkeypatch.setattr(app.store, "load", load)
    said = words(await page(caller, "/ui/runs/r"))
    assert "cannot be read here: an event of kind 'Future'" in said
    assert "the reason" in said


async def test_events_come_in_pages_the_latest_first_to_be_seen_and_each_can_be_linked(
    app: App, caller: httpx.AsyncClient
) -> None:
    await made(app, "l", long_history(119))
    latest = await page(caller, "/ui/runs/l")
    assert 'Events <span class="dim">101 to 120 of 120' in latest
    assert 'id="event-120"' in latest
    first = await page(caller, "/ui/runs/l?after=0")
    assert 'id="event-50"' in first
    assert 'id="event-51"' not in first
    assert "after=50#events" in first.replace("&amp;", "&")
    linked = await page(caller, "/ui/runs/l?event=51")
    assert "51 to 100 of 120" in linked
    assert '<li id="event-51" data-key="event-51">\n<details open>' in linked
    assert linked.count("<details open>") == 1
    assert "101 to 120 of 120" in await page(caller, "/ui/runs/l?after=zzz&from=&to=nan&row=-1")


async def test_buttons_are_there_for_who_may_press_them(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.start_worker()
    await start(caller, "asker", "a")
    await paused(caller, "a")
    html = await page(caller, "/ui/runs/a")
    for action in ("/a/signal", "/a/cancel", "/a/terminate", "/a/suspend", "/a/fork", "/ui/approvals/a"):
        assert f'action="/ui/runs{action}"' in html or f'action="{action}"' in html, action
    assert "/a/retry" not in html
    assert "/a/resume" not in html

    monkeypatch.setattr(auth, "LOCAL", Caller(name="reader", kind="local", scopes=frozenset({Scope.READ})))
    assert 'method="post"' not in await page(caller, "/ui/runs/a")


async def test_of_five_thousand_events_a_bounded_number_is_made_ready_and_shown(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(app, "big", long_history(5_000))
    made_ready: Counter[str] = Counter()

    def counting(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **named: Any) -> Any:
            made_ready[name] += 1
            return real(*args, **named)

        monkeypatch.setattr(owner, name, call)

    counting(Shown, "event")
    counting(Shown, "plain")
    counting(gantt, "_line")
    for query in ("", "?row=4980&after=4950", "?event=2500", "?from=0&to=5000", "?after=0&row=999999999"):
        made_ready.clear()
        html = await page(caller, f"/ui/runs/big{query}")
        assert made_ready["event"] <= run_view.EVENTS, query
        assert made_ready["_line"] <= gantt.ROWS, query
        assert made_ready["plain"] < 120, "values of the events that are shown, and of the run"
        assert html.count('<li id="event-') <= run_view.EVENTS, query
        assert html.count("<tr") <= gantt.ROWS + len(Kind) + 2, query
        assert html.count("<rect") < 1000, query
        assert len(html) < 200_000, query
    assert "60 of 5001 rows" in await page(caller, "/ui/runs/big")
    assert "13 of 13 rows" in await page(caller, "/ui/runs/big?from=4000&to=4010")


async def test_a_long_run_is_drawn_whole_by_kind_and_points_to_what_failed_first(
    app: App, caller: httpx.AsyncClient
) -> None:
    failure = Failure(type=HOSTILE, message=HOSTILE)
    failed = [
        ActivityFailed(at=START, id=step, name=HOSTILE, error=failure, digest="d", attempt=1, started_at=START)
        for step in range(401, 408)
    ]
    await made(app, "long", [*long_history(400), *failed])
    await made(app, "short", long_history(299))
    html = await page(caller, "/ui/runs/long")
    said = words(html)
    assert "all 408 rows by kind" in said
    assert "activity 407 400 done, 7 failed failed: #401 , #402 , #403 , #404 , #405 and 2 more" in said
    assert 'href="/ui/runs/long?event=402#event-402" aria-label="Step 401, event 402"' in html
    assert "<script>alert" not in html
    assert "rows by kind" not in await page(caller, "/ui/runs/short"), "its rows fit on a few pages"
