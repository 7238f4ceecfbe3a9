"""Starting, seeing and reaching runs over HTTP: the right status, the right shape, and nothing twice."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.http.front import assert_problem, ended, seen
from tinyworkflow_core import App
from tinyworkflow_core.errors import StoreUnavailableError

# --- starting ----------------------------------------------------------------------------------------


async def test_a_start_is_accepted_with_the_place_where_the_run_can_be_seen(caller: httpx.AsyncClient) -> None:
    answer = await caller.post("/v1/workflows/echo/runs", json={"input": {"a": [1, None, "ä"]}})
    started = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == started["links"]["self"] == f"/v1/runs/{started['run_id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert started["status"] == "pending"
    view = await ended(caller, started["run_id"])
    assert (view["input"], view["output"], view["status"]) == (
        {"a": [1, None, "ä"]},
        {"a": [1, None, "ä"]},
        "completed",
    )


async def test_a_start_without_a_body_has_no_input(caller: httpx.AsyncClient) -> None:
    started = (await caller.post("/v1/workflows/echo/runs")).json()
    assert (await ended(caller, started["run_id"]))["output"] is None


async def test_a_start_takes_its_id_version_workflow_id_and_attributes(caller: httpx.AsyncClient) -> None:
    body = {"run_id": "mine-1", "workflow_id": "order 7", "version": 1, "attributes": {"a": "x", "n": 1, "b": True}}
    assert (await caller.post("/v1/workflows/echo/runs", json=body)).json()["run_id"] == "mine-1"
    view = await ended(caller, "mine-1")
    assert (view["workflow_id"], view["version"], view["attributes"]) == ("order 7", 1, {"a": "x", "n": 1, "b": True})


async def test_a_delayed_start_waits(caller: httpx.AsyncClient) -> None:
    started = (await caller.post("/v1/workflows/echo/runs", json={"start_delay": "1h"})).json()
    await asyncio.sleep(0.05)  # long enough for a run that does not wait
    answer = await caller.get(f"/v1/runs/{started['run_id']}")
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")


async def test_a_hundred_simultaneous_starts_of_one_run_id_make_one_run(caller: httpx.AsyncClient) -> None:
    starts = [caller.post("/v1/workflows/echo/runs", json={"run_id": "only", "input": n}) for n in range(100)]
    answers = await asyncio.gather(*starts)
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 99
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert assert_problem(refused, 409, "only")["run_id"] == "only"
    assert len((await caller.get("/v1/runs")).json()["runs"]) == 1


async def test_the_same_idempotency_key_gives_the_same_run_and_another_body_is_refused(
    caller: httpx.AsyncClient,
) -> None:
    async def start(value: int, key: str) -> httpx.Response:
        return await caller.post("/v1/workflows/echo/runs", json={"input": value}, headers={"Idempotency-Key": key})

    first, again, other_key = await asyncio.gather(start(1, "k"), start(1, "k"), start(1, "k2"))
    assert first.status_code == again.status_code == 202
    assert first.json()["run_id"] == again.json()["run_id"] != other_key.json()["run_id"]
    assert_problem(await start(2, "k"), 422, "idempotency key")
    other_delay = {"input": 1, "start_delay": 5}
    answer = await caller.post("/v1/workflows/echo/runs", json=other_delay, headers={"Idempotency-Key": "k"})
    assert_problem(answer, 422, "idempotency key")
    assert len((await caller.get("/v1/runs")).json()["runs"]) == 2


async def test_a_start_that_waits_answers_with_the_output_when_the_run_ends_in_time(caller: httpx.AsyncClient) -> None:
    body = {"input": {"item": "tea", "amount": 4}}
    answer = await caller.post("/v1/workflows/order/runs", json=body, headers={"Prefer": "respond-async, wait=5"})
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=5"
    assert answer.json()["output"] == {"item": "tea", "amount": 8}


async def test_a_start_that_waits_answers_202_when_the_run_takes_longer(caller: httpx.AsyncClient) -> None:
    answer = await caller.post("/v1/workflows/listener/runs", headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.json()["status"] == "waiting"


async def test_a_start_that_waits_shows_how_a_run_failed(caller: httpx.AsyncClient) -> None:
    answer = await caller.post("/v1/workflows/broken/runs", headers={"Prefer": "wait=5"})
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["error"]) == (
        "failed",
        {"type": "ValueError", "message": "the secret plan"},
    )


async def test_a_wait_longer_than_allowed_is_cut_and_says_so(caller: httpx.AsyncClient) -> None:
    answer = await caller.post("/v1/workflows/echo/runs", headers={"Prefer": "wait=99999"})
    assert answer.headers["preference-applied"] == "wait=60"


@pytest.mark.parametrize("prefer", ["wait=x", "wait=0", "wait=", "await=5", "", "wait=-1"])
async def test_a_preference_that_makes_no_sense_is_none(caller: httpx.AsyncClient, prefer: str) -> None:
    answer = await caller.post("/v1/workflows/echo/runs", headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


async def test_a_start_names_its_run_even_when_the_store_goes_away_while_it_waits(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(run_id: str) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(app.store, "get", away)
    answer = await caller.post("/v1/workflows/echo/runs", json={"run_id": "there"}, headers={"Prefer": "wait=5"})
    assert (answer.status_code, answer.json()["run_id"]) == (202, "there")


# --- looking -----------------------------------------------------------------------------------------


async def test_what_can_be_started_is_listed_with_the_schema_of_its_input(caller: httpx.AsyncClient) -> None:
    found = {one["name"]: one["versions"] for one in (await caller.get("/v1/workflows")).json()["workflows"]}
    assert set(found) == {"echo", "order", "listener", "asker", "broken", "sleeper", "pair"}
    assert found["order"][0]["version"] == 1
    assert found["order"][0]["input_schema"]["required"] == ["item"]
    assert found["listener"][0]["input_schema"] is None


async def test_a_run_has_every_field_of_the_contract(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/order/runs", json={"run_id": "r", "input": {"item": "tea"}})
    view = await ended(caller, "r")
    assert view.keys() >= {
        "run_id", "workflow", "version", "status", "custom_status", "input", "output", "error", "times",
        "open_approvals", "retry_count", "links",
    }  # fmt: skip
    assert view["input"] == {"item": "tea", "amount": 1}
    times = [datetime.fromisoformat(view["times"][name]) for name in ("created", "started", "ended")]
    assert times == sorted(times)
    assert all(one.tzinfo is not None for one in times)
    assert view["links"]["events"] == "/v1/runs/r/events"


async def test_an_open_run_is_202_with_retry_after_and_an_ended_one_200(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/listener/runs", json={"run_id": "r"})
    still_open = await caller.get("/v1/runs/r")
    assert still_open.status_code == 202
    assert int(still_open.headers["retry-after"]) > 0
    await caller.post("/v1/runs/r/cancel")
    await ended(caller, "r")
    over = await caller.get("/v1/runs/r")
    assert over.status_code == 200
    assert "retry-after" not in over.headers


async def test_a_text_that_utf8_cannot_hold_is_taken_and_shown(caller: httpx.AsyncClient) -> None:
    body = b'{"run_id": "r", "input": "\\ud800"}'
    assert (await caller.post("/v1/workflows/echo/runs", content=body)).status_code == 202
    assert (await ended(caller, "r"))["output"] == "\ud800"


async def test_data_that_looks_like_a_stored_class_stays_data(caller: httpx.AsyncClient) -> None:
    value = {"$": "model", "c": "os:system", "v": {"x": 1}}
    await caller.post("/v1/workflows/echo/runs", json={"run_id": "r", "input": value})
    assert (await ended(caller, "r"))["output"] == value


async def test_runs_are_listed_page_by_page_newest_first_without_their_values(caller: httpx.AsyncClient) -> None:
    for n in range(5):
        await caller.post("/v1/workflows/echo/runs", json={"run_id": f"r{n}", "input": n})
        await ended(caller, f"r{n}")
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await caller.get("/v1/runs", params=params)).json()
        pages.append([run["run_id"] for run in page["runs"]])
        assert all("input" not in run and "output" not in run for run in page["runs"])
        cursor = page["next_cursor"]
    assert pages == [["r4", "r3"], ["r2", "r1"], ["r0"]]


async def test_a_list_is_narrowed_by_each_of_its_parameters(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/echo/runs", json={"run_id": "e", "workflow_id": "one"})
    await caller.post("/v1/workflows/listener/runs", json={"run_id": "l"})
    created = (await ended(caller, "e"))["times"]["created"]
    await seen(caller, "l", lambda view: view["status"] == "waiting")

    async def ids(**params: str) -> set[str]:
        return {run["run_id"] for run in (await caller.get("/v1/runs", params=params)).json()["runs"]}

    assert await ids() == {"e", "l"}
    assert await ids(status="completed") == {"e"}
    assert await ids(workflow="listener") == {"l"}
    assert await ids(workflow_id="one") == {"e"}
    assert await ids(started_before=created) == set()
    assert await ids(started_after=created) == {"e", "l"}


async def test_a_history_is_read_page_by_page_oldest_first(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/order/runs", json={"run_id": "r", "input": {"item": "tea"}})
    await ended(caller, "r")
    whole = (await caller.get("/v1/runs/r/events")).json()
    assert [(one["event_id"], one["type"]) for one in whole["events"]] == [
        (1, "RunStarted"), (2, "ActivityCompleted"), (3, "RunCompleted"),
    ]  # fmt: skip
    assert whole["next_after"] is None
    first = (await caller.get("/v1/runs/r/events", params={"limit": 2})).json()
    rest = (await caller.get("/v1/runs/r/events", params={"after": first["next_after"]})).json()
    assert first["events"] + rest["events"] == whole["events"]
    assert (await caller.get("/v1/runs/r/events", params={"limit": 3})).json()["next_after"] is None


# --- talking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"Idempotency-Key": "m1"}, {"webhook-id": "m1"}, {"ce-id": "m1", "ce-source": "/shop"}],
    ids=lambda headers: next(iter(headers)),
)
async def test_a_signal_that_comes_twice_counts_once(caller: httpx.AsyncClient, headers: dict[str, str]) -> None:
    await caller.post("/v1/workflows/listener/runs", json={"run_id": "r"})
    for _ in range(2):
        answer = await caller.post("/v1/runs/r/signals/word", json="first", headers=headers)
        assert answer.status_code == 202
    await caller.post("/v1/runs/r/signals/word", json={"n": 2})
    assert (await ended(caller, "r"))["output"] == ["first", {"n": 2}]


async def test_events_of_two_sources_with_one_id_are_two_signals(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/listener/runs", json={"run_id": "r"})
    for source in ("/a", "/b"):
        headers = {"ce-id": "1", "ce-source": source}
        await caller.post("/v1/runs/r/signals/word", json=source, headers=headers)
    assert sorted((await ended(caller, "r"))["output"]) == ["/a", "/b"]


async def test_a_signal_without_a_body_has_no_payload(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/listener/runs", json={"run_id": "r"})
    await caller.post("/v1/runs/r/signals/word")
    await caller.post("/v1/runs/r/signals/word")
    assert (await ended(caller, "r"))["output"] == [None, None]


async def test_a_run_is_cancelled_and_takes_no_messages_after(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/sleeper/runs", json={"run_id": "r"})
    answer = await caller.post("/v1/runs/r/cancel", json={"reason": "enough"})
    assert (answer.status_code, answer.json()["run_id"]) == (202, "r")
    assert (await ended(caller, "r"))["status"] == "cancelled"
    for path in ("/v1/runs/r/signals/word", "/v1/runs/r/cancel"):
        problem = assert_problem(await caller.post(path), 410)
        assert problem["type"].endswith(":run-closed")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/runs/none", None),
        ("GET", "/v1/runs/none/events", None),
        ("POST", "/v1/runs/none/signals/word", None),
        ("POST", "/v1/runs/none/cancel", None),
        ("POST", "/v1/runs/none/approvals/key", {"approved": True}),
        ("GET", "/v1/runs/%00%FF%2e%2e", None),
        ("GET", "/v1/runs/" + "x" * 5000, None),
    ],
)
async def test_an_unknown_run_is_404(caller: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    problem = assert_problem(await caller.request(method, path, json=body), 404)
    assert problem["type"] == "urn:tinyworkflow:problem:run-not-found"
    assert problem["run_id"]
