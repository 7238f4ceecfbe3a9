"""Every page of the dashboard, as a real Chromium shows it: wide and narrow, light and dark, folded and unfolded.
Nothing sticks out sideways, axe finds nothing serious, nothing is on the console, and nothing leaves the host."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, StorageState

from tests.browser.conftest import Service
from tests.browser.person import Person, sit_down
from tests.browser.workflows import ALL
from tinyworkflow_core import App
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.http.ui import UiRoutes

LONG = "order-" + "w" * 120
PAGES = [
    ("/ui/login", "/ui/login?next=%2Fui%2Fhealth"),
    ("/ui", "/ui"),
    ("/ui/runs", f"/ui/runs?workflow=order&attribute=colour%3D{'deep-blue-' * 12}"),
    ("/ui/runs", "/ui/runs?after=noon&attribute=noon"),
    ("/ui/runs/{run_id}", f"/ui/runs/{LONG}?event=1"),
    ("/ui/runs/{run_id}", "/ui/runs/failing?event=3"),
    ("/ui/runs/{run_id}", "/ui/runs/moving?check=1"),
    ("/ui/runs/{run_id}", "/ui/runs/parent"),
    ("/ui/diff", f"/ui/diff?a={LONG}&b=paid"),
    ("/ui/approvals", "/ui/approvals"),
    ("/ui/approvals/{run_id}", "/ui/approvals/asking?key=journey"),
    ("/ui/schedules", "/ui/schedules"),
    ("/ui/schedules/_new", "/ui/schedules/_new"),
    ("/ui/schedules/{schedule_id}", "/ui/schedules/nightly"),
    ("/ui/workflows", "/ui/workflows"),
    ("/ui/workflows/{name}", "/ui/workflows/order"),
    ("/ui/activities", "/ui/activities"),
    ("/ui/health", "/ui/health"),
    ("/ui/{rest:path}", "/ui/nowhere"),
]
MOST_VARIED = {"/ui", "/ui/runs/failing?event=3", "/ui/approvals/asking?key=journey"}
NO_PAGES = {"/ui/", "/ui/static/{name}", "/ui/runs/{run_id}/history.json"}
"""What is got there is no page, or that of another address."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(service: Service) -> Service:
    """There is something on every page: runs that wait, ask, failed, were parked, ended, and have children."""
    long = {"item": "W" * 300, "amount": 9}
    service.start("order", long, LONG, "waiting", attributes={"colour": "deep-blue-" * 12, "n": 7})
    service.start("order", {"item": "lamp"}, "paid", "waiting")
    service.signal("paid", "paid")
    service.start("delivery", "piano", "failing", "failed")
    service.start("journey", "Oslo", "asking", "paused")
    service.start("journey", "Bergen", "parent", "paused")
    decision = {"approved": True, "by": "ada", "data": {"hotel": "Nord", "nights": 2}}
    assert service.api.post("/v1/runs/parent/approvals/journey", json=decision).status_code < 300
    service.start("expense", 2000, "expense", "paused")
    service.signal("moving", "go")
    service.wait("moving", "parked")
    service.wait("paid", "completed")
    service.wait("parent", "waiting")
    return service


def test_no_page_is_left_out() -> None:
    app = App("sqlite:///:memory:", workflows=ALL, dispatcher="none")
    routes = UiRoutes(app, HttpSettings(), max_body_bytes=1000)
    got = {operation.path for operation in routes.operations() if operation.method == "GET"}
    assert {path for path, _ in PAGES} == got - NO_PAGES


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader(browser: Browser, filled: Service, session: StorageState) -> AsyncIterator[Person]:
    """Somebody who has signed in and opens one page after the other: a new window for each takes as long as a look."""
    reader = await sit_down(browser, filled.process.url, session)
    yield reader
    await reader.page.context.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def passer_by(browser: Browser, filled: Service) -> AsyncIterator[Person]:
    """Somebody who has not."""
    passer_by = await sit_down(browser, filled.process.url)
    yield passer_by
    await passer_by.page.context.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", [address for _, address in PAGES], ids=lambda address: address[:40])
async def test_nothing_is_wrong_with_the_page_in_any_look(
    address: str, reader: Person, passer_by: Person, filled: Service
) -> None:
    who = passer_by if address.startswith("/ui/login") else reader
    await who.begin_anew()
    who.expect(*((404,) if address == "/ui/nowhere" else (422,) if "noon" in address else ()))
    await who.go(address)
    assert who.page.url == f"{who.address}{address}"
    await who.look(thoroughly=address in MOST_VARIED)
    assert not who.complaints, "\n".join([*who.complaints, "", filled.process.printed()])


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_page_does_not_bring_itself_neither_runs_nor_is_asked_for(person: Person, filled: Service) -> None:
    await person.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          const styled = document.createElement("p");
          styled.setAttribute("style", "color: red");
          const picture = document.createElement("img");
          picture.src = "https://elsewhere.example/picture.png";
          document.body.append(script, styled, picture);
        }"""
    )
    assert await person.page.evaluate("() => window.ran") is None
    told = " ".join(person.complaints)
    for directive in ("script-src", "style-src", "img-src"):
        assert directive in told
    person.complaints.clear()
