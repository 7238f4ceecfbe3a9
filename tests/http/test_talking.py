"""Queries and updates over HTTP, and what a caller who polls is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.http.front import assert_problem, calling, seen
from tinyworkflow_core import App, WorkflowContext, workflow


@workflow
async def counter(ctx: WorkflowContext) -> int:
    total = 0

    def add(number: int) -> int:
        nonlocal total
        total += number
        return total

    def positive(number: int) -> None:
        if number <= 0:
            raise ValueError("a number above zero is needed")

    async def never(_: Any) -> None:
        await ctx.wait_for_signal("nobody sends it")

    def fails(_: Any) -> None:
        raise RuntimeError("it does not work")

    ctx.on_query("total", lambda times=1: total * times)
    ctx.on_query("broken", lambda: 1 // 0)
    ctx.on_update("add", add, validator=positive)
    ctx.on_update("never", never)
    ctx.on_update("fails", fails)
    await ctx.wait_for_signal("stop")
    return total


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = App("sqlite:///:memory:", workflows=[counter])
    await app.start_worker()
    yield app
    await app.close()


@pytest.fixture
async def run(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A caller below the path of a run that counts."""
    async with calling(app, base_url="http://127.0.0.1:8080") as caller:
        await caller.post("/v1/workflows/counter/runs", json={"run_id": "c"})
        await seen(caller, "c", lambda view: view["status"] == "waiting")
    async with calling(app, base_url="http://127.0.0.1:8080/v1/runs/c") as caller:
        yield caller


async def test_a_query_is_answered_by_the_runs_own_code(run: httpx.AsyncClient) -> None:
    assert (await run.post("updates/add", json=4)).json() == {"value": 4}
    answer = await run.post("queries/total")
    assert (answer.status_code, answer.json()) == (200, {"value": 4})
    assert (await run.post("queries/total", json={"args": [10]})).json() == {"value": 40}


async def test_a_query_that_cannot_be_answered_is_a_422_with_the_reason(run: httpx.AsyncClient) -> None:
    assert_problem(await run.post("queries/nothing"), 422, "nothing")
    problem = assert_problem(await run.post("queries/broken"), 422, "ZeroDivisionError")
    assert problem["type"].endswith(":query-failed")
    assert_problem(await run.post("queries/total", json=[1]), 422)


async def test_an_update_is_done_once_however_often_it_is_sent_under_one_key(run: httpx.AsyncClient) -> None:
    for _ in range(3):
        answer = await run.post("updates/add", json=5, headers={"Idempotency-Key": "five"})
        assert (answer.status_code, answer.json()) == (200, {"value": 5})
    assert (await run.post("queries/total")).json() == {"value": 5}


async def test_a_refused_update_leaves_no_trace(run: httpx.AsyncClient) -> None:
    before = (await run.get("events")).json()["events"]
    problem = assert_problem(await run.post("updates/add", json=-1), 422, "above zero")
    assert problem["type"].endswith(":update-rejected")
    assert (await run.get("events")).json()["events"] == before


async def test_an_update_that_fails_is_a_422_with_its_words(run: httpx.AsyncClient) -> None:
    problem = assert_problem(await run.post("updates/fails"), 422, "RuntimeError: it does not work")
    assert problem["type"].endswith(":update-failed")


async def test_an_update_without_an_answer_in_time_says_how_to_ask_again(run: httpx.AsyncClient) -> None:
    answer = await run.post("updates/never", headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.headers["retry-after"]
    key = answer.json()["update_id"]
    again = await run.post("updates/never", headers={"Prefer": "wait=1", "Idempotency-Key": key})
    assert (again.status_code, again.json()["update_id"]) == (202, key)
    events = (await run.get("events")).json()["events"]
    assert sum(event["type"] == "UpdateAccepted" for event in events) == 1


async def test_nobody_talks_to_a_run_that_has_ended_or_never_was(run: httpx.AsyncClient, app: App) -> None:
    await run.post("signals/stop")
    async with calling(app) as caller:
        await seen(caller, "c", lambda view: view["times"]["ended"])
        assert_problem(await caller.post("/v1/runs/nobody/queries/total"), 404)
        assert_problem(await caller.post("/v1/runs/nobody/updates/add", json=1), 404)
    assert_problem(await run.post("updates/add", json=1), 410, "ended")
    assert (await run.post("queries/total")).json() == {"value": 0}


async def test_a_caller_who_has_seen_it_all_gets_a_304(run: httpx.AsyncClient, app: App) -> None:
    async with calling(app) as caller:
        for path in ("/v1/runs/c", "/v1/runs/c/events"):
            first = await caller.get(path)
            again = await caller.get(path, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        await run.post("updates/add", json=1)
        assert (await caller.get(path, headers={"If-None-Match": first.headers["etag"]})).status_code == 200
