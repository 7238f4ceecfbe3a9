"""The service that is walked through, and who walks: a real functions-framework over a real file of SQLite, and a real
Chromium. One of each for a module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, StorageState

from tests.browser.person import Person, sit_down
from tests.browser.workflows import nightly, send
from tests.chromium import started
from tests.functions.server import Server, server, until
from tinyworkflow_core import WorkflowContext, workflow
from tinyworkflow_core.cron import CronSchedule
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import WorkflowEnvironment

KEY = "a-key-that-somebody-was-given"


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A service at work. Its `van`, while it is there, can be loaded; what other people do to it goes by `api`."""

    process: Server
    van: Path
    api: httpx.Client

    def start(self, workflow: str, value: Any, run_id: str, until_status: str, **more: Any) -> None:
        """Start a run and wait until it stands like that."""
        body = {"input": value, "run_id": run_id, **more}
        assert self.api.post(f"/v1/workflows/{workflow}/runs", json=body).status_code < 300
        self.wait(run_id, until_status)

    def signal(self, run_id: str, name: str) -> None:
        assert self.api.post(f"/v1/runs/{run_id}/signals/{name}", json=None).status_code < 300

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/v1/runs/{run_id}").json()
        return found

    def wait(self, run_id: str, status: str) -> None:
        until(lambda: self.run(run_id)["status"] == status, message=lambda: f"not {status}: {self.run(run_id)}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """It has run for some hours already, and its code has changed since."""
    folder = tmp_path_factory.mktemp("service")
    database = f"sqlite:///{folder}/runs.db"
    await _earlier_release(database)
    environ = {
        "TINYWORKFLOW_DATABASE_URL": database,
        "TINYWORKFLOW_API_KEYS": KEY,
        "TINYWORKFLOW_LINK_KEYS": "k" * 40,
        "TINYWORKFLOW_TICK": "0.2",
        "BROWSER_VAN": str(folder / "van"),
    }
    headers = {"Authorization": f"Bearer {KEY}"}
    with server("app", environ, source="tests/browser/main.py") as process:
        process.wait_until_up()
        with httpx.Client(base_url=process.url, headers=headers, timeout=20) as api:
            yield Service(process=process, van=folder / "van", api=api)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with started(chromium) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(browser: Browser, service: Service) -> StorageState:
    """The cookies of somebody who has signed in."""
    person = await sit_down(browser, service.process.url)
    await person.go("/ui/login")
    await person.sign_in(KEY)
    await person.page.wait_for_url("**/ui")
    cookies = await person.page.context.storage_state()
    await person.page.context.close()
    return cookies


@pytest_asyncio.fixture(loop_scope="module")
async def person(browser: Browser, service: Service, session: StorageState) -> AsyncIterator[Person]:
    """Somebody who has signed in, at the first page. Whatever the browser found wrong meanwhile fails the test."""
    person = await sit_down(browser, service.process.url, session)
    await person.go("/ui")
    yield person
    await _leave(person, service)


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(browser: Browser, service: Service) -> AsyncIterator[Person]:
    """Somebody who has not."""
    person = await sit_down(browser, service.process.url)
    yield person
    await _leave(person, service)


async def _leave(person: Person, service: Service) -> None:
    await person.page.context.close()
    assert not person.complaints, "\n".join([*person.complaints, "", service.process.printed()])


async def _earlier_release(database: str) -> None:
    @workflow(name="move")
    async def earlier(ctx: WorkflowContext, house: str) -> str:
        sent = await ctx.execute_activity(send, house)
        await ctx.wait_for_signal("go")
        return sent

    begin = datetime.now(UTC) - timedelta(hours=5)
    store = open_store(database)
    async with WorkflowEnvironment([earlier, nightly], store=store, start=begin) as world:
        await world.schedule("nightly", CronSchedule("0 * * * *", timezone="Europe/Berlin"), id="nightly")
        for run_id in ("moving", "moved"):
            await world.start("move", "the old house", run_id=run_id)
        await world.signal("moved", "go")
        await world.advance("4h")
    await store.close()
