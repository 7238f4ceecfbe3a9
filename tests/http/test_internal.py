"""What a queue and a scheduler call: the status alone has to tell them what to do next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from tests.http.front import assert_problem, calling, echo, new_app
from tinyworkflow_core import App, RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.testing import START, VirtualClock


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


async def test_what_is_no_run_id_and_nothing_else_is_refused_before_any_run_is_looked_for(
    app: App, caller: httpx.AsyncClient
) -> None:
    longest = {"run_id": "r" * 200}
    assert (await caller.post("/internal/advance", json=longest)).json() == {**longest, "progress": "unknown"}
    for body in ({}, {"run_id": ""}, {"run_id": "r" * 201}, {"run_id": 1}, {"run_id": "r", "x": 1}, ["run_id"], None):
        problem = assert_problem(await caller.post("/internal/advance", json=body), 422)
        assert problem["errors"][0]["loc"][0] == "body"
    assert_problem(await caller.post("/internal/advance", content=b""), 422, "run_id")


async def test_a_tick_reports_what_it_had_looked_at(app: App, caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/echo/runs", json={"run_id": "r"})
    answer = await caller.post("/internal/tick", content=b"whatever a scheduler sends")
    assert answer.status_code == 200
    nothing: dict[str, list[str]] = {key: [] for key in ("started", "backfilled", "skipped", "waiting", "paused")}
    assert answer.json() == {"dispatched": ["r"], "more": False, "problems": {}, **nothing}


async def test_a_tick_tells_what_schedules_have_started_and_which_could_not() -> None:
    clock = VirtualClock()
    before = new_app(dispatcher="none", clock=clock)
    for name in ("echo", "order"):
        await before.schedules.create_interval(name, "1h", {"item": "tea"}, id=name)
    clock.move_to(START + timedelta(hours=1))
    deployed = App(before.store, workflows=[echo], dispatcher="none", clock=clock)
    async with calling(deployed, parts=["tick"]) as scheduler:
        told = (await scheduler.post("/internal/tick")).json()
    assert [run_id.partition("@")[0] for run_id in told["started"]] == ["echo"]
    assert list(told["problems"]) == ["order"]
    await deployed.close()


@activity(run_on="queue", timeout="1m", retry_policy=RetryPolicy(max_retries=0))
async def measure(number: int) -> int:
    MEASURED.append(number)
    if number < 0:
        raise ValueError("below zero")
    return number * 2


MEASURED: list[int] = []


@workflow
async def measured(ctx: WorkflowContext, number: int) -> int:
    return await ctx.execute_activity(measure, number)


ATTEMPT = {"generation": 0, "activity_id": 1, "attempt": 1}


@pytest.fixture
async def handed_out(app: App, caller: httpx.AsyncClient) -> httpx.AsyncClient:
    """A caller of a front whose runs "r" and "bad" wait for an attempt elsewhere."""
    MEASURED.clear()
    app.registry.add(measured)
    for run_id, number in (("r", 21), ("bad", -1)):
        await caller.post("/v1/workflows/measured/runs", json={"run_id": run_id, "input": number})
        answer = await caller.post("/internal/advance", json={"run_id": run_id})
        assert answer.json() == {"run_id": run_id, "progress": "released"}
    return caller


async def test_an_attempt_is_made_once_for_the_run_that_waits_for_it(handed_out: httpx.AsyncClient) -> None:
    for wanted in ("released", "released"):  # the second before the run has heard of the first: made, and not counted
        answer = await handed_out.post("/internal/activity", json={"run_id": "r", **ATTEMPT})
        assert (answer.status_code, answer.json()) == (200, {"run_id": "r", "progress": wanted})
    await handed_out.post("/internal/advance", json={"run_id": "r"})
    assert (await handed_out.get("/v1/runs/r")).json()["output"] == 42
    answer = await handed_out.post("/internal/activity", json={"run_id": "r", **ATTEMPT})
    assert (answer.status_code, answer.json()["progress"]) == (200, "closed")
    assert MEASURED == [21, 21]


async def test_an_attempt_that_fails_is_a_call_that_succeeds(handed_out: httpx.AsyncClient) -> None:
    answer = await handed_out.post("/internal/activity", json={"run_id": "bad", **ATTEMPT})
    assert (answer.status_code, answer.json()["progress"]) == (200, "released")  # else the queue would make it again
    await handed_out.post("/internal/advance", json={"run_id": "bad"})
    assert (await handed_out.get("/v1/runs/bad")).json()["error"]["type"] == "ValueError"


@pytest.mark.parametrize("other", [{"generation": 1}, {"activity_id": 2}, {"attempt": 2}])
async def test_an_attempt_that_nobody_waits_for_is_not_made(
    handed_out: httpx.AsyncClient, other: dict[str, int]
) -> None:
    answer = await handed_out.post("/internal/activity", json={"run_id": "r", **ATTEMPT, **other})
    assert (answer.status_code, answer.json()["progress"]) == (200, "closed")
    assert MEASURED == []


async def test_a_call_for_a_run_that_is_no_more_is_done_for_a_queue_would_repeat_it(
    handed_out: httpx.AsyncClient,
) -> None:
    for path, body in (("advance", {"run_id": "nobody"}), ("activity", {"run_id": "nobody", **ATTEMPT})):
        answer = await handed_out.post(f"/internal/{path}", json=body)
        assert (answer.status_code, answer.json()) == (200, {"run_id": "nobody", "progress": "unknown"})


async def test_an_attempt_without_its_place_is_refused(handed_out: httpx.AsyncClient) -> None:
    for body in ({"run_id": "r"}, {"run_id": "r", **ATTEMPT, "attempt": "one"}, {"run_id": "r", **ATTEMPT, "x": 1}):
        assert_problem(await handed_out.post("/internal/activity", json=body), 422)
    assert MEASURED == []
