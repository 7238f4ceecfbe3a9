"""The list of runs in a real browser: it is brought up to date in place, nothing that somebody has begun is lost by it,
and several runs are cancelled by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from playwright.async_api import Page

from tests.chromium import started
from tests.http.front import WORKFLOWS
from tests.http.ui.test_runs_list import add
from tinyworkflow_core import App, create_app
from tinyworkflow_core.http.ui import runs
from tinyworkflow_core.store import Commit, Release, Status


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[App, str]]:
    """An App behind a real server, with more runs than a window holds, and its address."""
    monkeypatch.setattr(runs, "REFRESH_SECONDS", 1)
    app = App("sqlite:///:memory:", workflows=WORKFLOWS, dispatcher="none")
    for number in range(40):
        await add(app, f"r{number:02}", age=100 + number)
    # Not as `emulate` with all parts: nobody may work on the runs meanwhile.
    front = create_app(app, parts={"ui"}, emulate=True)
    server = uvicorn.Server(uvicorn.Config(front, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # it says so in no other way
        await asyncio.sleep(0.01)
    yield app, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving
    await app.close()


@pytest.fixture
async def page(chromium: str) -> AsyncIterator[Page]:
    """A window of an ordinary size."""
    async with started(chromium) as browser:
        yield await browser.new_page(viewport={"width": 1000, "height": 600})


async def test_the_list_is_brought_up_to_date_in_place_and_several_runs_are_cancelled_by_hand(
    served: tuple[App, str], page: Page
) -> None:
    app, address = served
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{address}/ui/runs")

    # Somebody has scrolled down, ticked two runs, opened the filters and begun to type.
    for run_id in ("r20", "r21"):
        await page.get_by_role("checkbox", name=f"Choose {run_id}").check()
    assert await page.get_by_text("2 chosen").is_visible()
    await page.get_by_text("More filters").click()
    await page.get_by_label("Workflow", exact=True).fill("ech")
    row = page.locator('tr[data-key="r20"]')
    await row.scroll_into_view_if_needed()
    await row.evaluate("one => { one.mark = 'the same' }")
    before = await row.bounding_box()

    await add(app, "<b>new</b>")
    taken = await app.store.acquire("r20", owner="o", now=app.clock.now(), ttl=timedelta(seconds=30))
    assert taken is not None
    done = Release(status=Status.COMPLETED, closed_at=app.clock.now())
    await app.store.commit(taken.lease, Commit(sequence=1, release=done))
    await row.get_by_text("completed").wait_for()

    assert await page.get_by_role("link", name="<b>new</b>").count() == 1
    assert await row.evaluate("one => one.mark") == "the same"
    after: Any = await row.bounding_box()
    assert before is not None
    assert abs(after["y"] - before["y"]) <= 1
    assert await page.get_by_role("checkbox", name="Choose r20").is_checked()
    assert await page.get_by_text("2 chosen").is_visible()
    typed = page.get_by_label("Workflow", exact=True)
    assert await typed.input_value() == "ech"
    assert await typed.evaluate("one => one === document.activeElement")
    assert await page.get_by_label("From (UTC)").is_visible()

    await page.get_by_role("button", name="Cancel…").click()
    assert await page.get_by_role("heading", name="Cancel 1 run?").is_visible()
    assert await page.get_by_text("left alone: it is completed").is_visible()
    await page.get_by_role("button", name="Cancel 1 run").click()
    assert await page.get_by_role("heading", name="Cancel: done for 1 of 1 runs").is_visible()
    assert [one.kind for one in await app.store.inbox("r21")] == ["cancel"]
    await page.get_by_role("link", name="Back to the list").click()
    assert await page.get_by_role("heading", name="Runs").is_visible()

    assert complaints == []
    assert [one for one in asked if not one.startswith(address)] == []
