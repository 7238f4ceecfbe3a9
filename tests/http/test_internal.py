"""What a queue and a scheduler call: the status alone has to tell them what to do next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.http.front import assert_problem, new_app
from tinyworkflow_core import App


@pytest.fixture
async def app() -> AsyncIterator[App]:
    """One that makes no calls itself."""
    app = new_app(dispatcher="none")
    yield app
    await app.close()


async def test_the_worker_brings_a_run_to_its_end(app: App, caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/order/runs", json={"run_id": "r", "input": {"item": "tea"}})
    for _ in range(2):
        answer = await caller.post("/internal/advance", json={"run_id": "r"})
        assert (answer.status_code, answer.json()) == (200, {"run_id": "r", "progress": "closed"})
    assert (await caller.get("/v1/runs/r")).json()["output"]["amount"] == 2


async def test_the_worker_says_that_a_run_waits(app: App, caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/sleeper/runs", json={"run_id": "r"})
    answer = await caller.post("/internal/advance", json={"run_id": "r"})
    assert (answer.status_code, answer.json()["progress"]) == (200, "released")


async def test_a_run_in_other_hands_is_409_with_retry_after(app: App, caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/order/runs", json={"run_id": "r", "input": {"item": "tea"}})
    answers = await asyncio.gather(*[caller.post("/internal/advance", json={"run_id": "r"}) for _ in range(2)])
    done, busy = sorted(answers, key=lambda answer: answer.status_code)
    assert done.json()["progress"] == "closed"
    assert assert_problem(busy, 409)["type"].endswith(":run-busy")
    assert int(busy.headers["retry-after"]) > 0


async def test_a_tick_reports_what_it_had_looked_at(app: App, caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/echo/runs", json={"run_id": "r"})
    answer = await caller.post("/internal/tick", content=b"whatever a scheduler sends")
    assert (answer.status_code, answer.json()) == (200, {"dispatched": ["r"], "more": False})
