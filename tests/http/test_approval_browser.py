"""The approval page in a real browser: it can be used by hand, on a narrow screen, without script, and under its own
policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from playwright.async_api import Page

from tests.chromium import started
from tests.http.test_approval_page import LINKS, asks
from tinyworkflow_core import App, create_app
from tinyworkflow_core.approval_links import LinkSettings, approval_link
from tinyworkflow_core.http.settings import HttpSettings


@pytest.fixture
async def served() -> AsyncIterator[tuple[App, str]]:
    """An App behind a real server, and its address."""
    app = App("sqlite:///:memory:", workflows=[asks], dispatcher="none")
    front = create_app(app, parts={"approvals"}, settings=HttpSettings(links=LINKS))
    server = uvicorn.Server(uvicorn.Config(front, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # it says so in no other way
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield app, f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving
    await app.close()


@pytest.fixture
async def page(chromium: str) -> AsyncIterator[Page]:
    """A narrow window without script."""
    async with started(chromium) as browser:
        yield await browser.new_page(
            java_script_enabled=False, viewport={"width": 320, "height": 640}, color_scheme="dark"
        )


async def test_a_person_decides_with_keyboard_and_mouse_after_mending_a_mistake(
    served: tuple[App, str], page: Page
) -> None:
    app, address = served
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    run_id = await app.client.start_workflow(asks)
    await app.advance(run_id)
    link = approval_link(run_id, "go", by="ada", settings=LinkSettings(keys=LINKS.keys, public_url=address))

    for _ in range(2):
        answer = await page.goto(link)
        assert answer is not None
        assert answer.status == 200
    assert await app.store.inbox(run_id) == []
    assert await page.get_by_role("heading", level=1).count() == 1
    body = page.locator("body")
    box = await page.locator("main").bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 320
    # The page's own style is let in by its policy.
    assert await page.locator("fieldset").first.evaluate("one => getComputedStyle(one).borderTopStyle") == "solid"

    await page.get_by_role("radio", name="Approve").check()
    await page.get_by_label("Amount").fill("many")
    await page.get_by_label("Note").fill("kept")
    await page.get_by_label("Amount").press("Enter")
    assert await page.get_by_role("alert").is_visible()
    assert "must be a whole number" in await body.inner_text()
    assert await page.get_by_label("Note").input_value() == "kept"
    assert await page.get_by_role("radio", name="Approve").is_checked()
    assert await app.store.inbox(run_id) == []

    await page.get_by_role("alert").get_by_role("link").click()
    await page.get_by_label("Amount").fill("7")
    await page.get_by_label("Urgent").check()
    await page.get_by_label("Comment").fill("fine by me")
    await page.get_by_role("button", name="Send decision").click()
    assert "Thank you. You have approved this." in await page.get_by_role("status").inner_text()
    assert [one for one in complaints if "favicon" not in one and "422" not in one] == []

    await app.advance(run_id)
    await app.client.send_signal(run_id, "end")
    await app.advance(run_id)
    data = {"amount": 7, "kind": "card", "urgent": True, "note": "kept"}
    assert await app.client.get_result(run_id) == [True, "ada", "fine by me", data, "link"]
