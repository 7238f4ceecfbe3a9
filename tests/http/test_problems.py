"""Bad requests: each is refused with a problem that says what to mend, and nothing of the inside leaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.http.front import assert_problem
from tinyworkflow_core import App
from tinyworkflow_core.errors import StoreUnavailableError

START = "/v1/workflows/echo/runs"
PASSWORD = "hunter2"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'a': 1}",
        b'{"input": NaN}',
        b'{"input": -Infinity}',
        b'{"input": "\xff"}',
        b"\xff\xfe{\x00}\x00",
        b'{"input": ' + b"9" * 5000 + b"}",
        b'{"input": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"input": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
        b'{"input": ' + b"[" * 101 + b"]" * 101 + b"}",
        b"[" * 500_000,
    ],
    ids=["cut", "quotes", "nan", "infinity", "not utf-8", "utf-16", "digits", "arrays", "objects", "101", "unclosed"],
)
async def test_a_body_that_is_no_proper_json_is_400(caller: httpx.AsyncClient, body: bytes) -> None:
    for path in (START, "/v1/runs/r/signals/word"):
        assert_problem(await caller.post(path, content=body), 400, "body")
    assert (await caller.post(START)).status_code == 202


async def test_a_body_may_be_nested_and_bracketed_within_reason(caller: httpx.AsyncClient) -> None:
    nested = json.loads("[" * 95 + "]" * 95)
    wide: list[Any] = [[{}] for _ in range(1000)]
    for value in (nested, wide, "[" * 1000, {"$": nested}):
        answer = await caller.post(START, json={"input": value}, headers={"Prefer": "wait=5"})
        assert answer.json()["output"] == value


async def test_a_body_over_the_limit_is_413_however_it_comes(caller: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 400_000

    announced = await caller.post(START, content=b'"' + b"x" * 1_100_000 + b'"')
    streamed = await caller.post(START, content=chunks())
    lying = await caller.post(START, content=chunks(), headers={"Content-Length": "2"})
    for answer in (announced, streamed, lying):
        assert_problem(answer, 413, "1048576")
    assert (await caller.post(START)).status_code == 202


async def test_an_input_over_what_the_store_takes_is_413(caller: httpx.AsyncClient) -> None:
    answer = await caller.post(START, json={"input": "x" * 950_000})
    assert assert_problem(answer, 413)["type"].endswith(":payload-too-large")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"inputs": 1}, ["body", "inputs"]),
        ({"input": 1, "run-id": "x"}, ["body", "run-id"]),
        ([], ["body"]),
        ("text", ["body"]),
        ({"run_id": 7}, ["body", "run_id"]),
        ({"workflow_id": ""}, ["body", "workflow_id"]),
        ({"workflow_id": "x" * 201}, ["body", "workflow_id"]),
        ({"workflow_id": "\ud800"}, ["body", "workflow_id"]),
        ({"version": "1"}, ["body", "version"]),
        ({"version": 0}, ["body", "version"]),
        ({"version": True}, ["body", "version"]),
        ({"start_delay": "soon"}, ["body", "start_delay"]),
        ({"start_delay": -1}, ["body", "start_delay"]),
        ({"start_delay": 1e300}, ["body", "start_delay"]),
        ({"start_delay": "99999d"}, ["body", "start_delay"]),
        ({"attributes": {"a": [1]}}, ["body", "attributes", "a"]),
        ({"attributes": {"a": 2**63}}, ["body", "attributes", "a"]),
        ({"attributes": {"a": None}}, ["body", "attributes", "a"]),
        ({"attributes": {"\ud800": 1}}, ["body", "attributes"]),
        ({"attributes": {str(n): n for n in range(51)}}, ["body", "attributes"]),
    ],
    ids=lambda value: json.dumps(value)[:40] if not isinstance(value, list) else "",
)
async def test_a_body_that_does_not_fit_is_422_and_names_the_field(
    caller: httpx.AsyncClient, body: Any, place: list[str]
) -> None:
    problem = assert_problem(await caller.post(START, content=json.dumps(body)), 422, place[-1])
    assert problem["errors"][0]["loc"][: len(place)] == place
    assert (await caller.get("/v1/runs")).json()["runs"] == []


async def test_a_body_that_is_wrong_in_many_places_is_answered_briefly(caller: httpx.AsyncClient) -> None:
    body = {f"{n}{'x' * 5_000}": 1 for n in range(100)}
    answer = await caller.post(START, json=body)
    assert len(assert_problem(answer, 422, "99 more")["errors"]) == 20
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("run_id", ["a/b", "-a", "a b", "ä", "."])
async def test_a_run_id_that_does_not_fit_is_422(caller: httpx.AsyncClient, run_id: str) -> None:
    assert_problem(await caller.post(START, json={"run_id": run_id}), 422, "run_id")


async def test_an_input_that_does_not_fit_is_422_and_names_each_field(caller: httpx.AsyncClient) -> None:
    answer = await caller.post("/v1/workflows/order/runs", json={"input": {"amount": "many"}})
    problem = assert_problem(answer, 422, "item", "1 more")
    assert [error["loc"] for error in problem["errors"]] == [["item"], ["amount"]]
    assert (await caller.get("/v1/runs")).json()["runs"] == []


async def test_an_unknown_workflow_or_version_is_404(caller: httpx.AsyncClient) -> None:
    assert_problem(await caller.post("/v1/workflows/ecco/runs"), 404, "did you mean 'echo'?")
    assert_problem(await caller.post(START, json={"version": 7}), 404, "version 7")


@pytest.mark.parametrize(
    "query",
    [
        "status=done", "limit=0", "limit=1001", "limit=x", "started_after=now", "started_after=2026-01-01T00:00:00",
        "cursor=nonsense", "cursor=W10=", "colour=red",
    ],
)  # fmt: skip
async def test_a_query_that_does_not_fit_is_422_and_names_the_parameter(caller: httpx.AsyncClient, query: str) -> None:
    assert_problem(await caller.get(f"/v1/runs?{query}"), 422, query.partition("=")[0])


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "before=3"])
async def test_a_query_for_events_that_does_not_fit_is_422(caller: httpx.AsyncClient, query: str) -> None:
    assert_problem(await caller.get(f"/v1/runs/r/events?{query}"), 422, query.partition("=")[0])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/runs/r/approvals/k", {}),
        ("/v1/runs/r/approvals/k", {"approved": "yes"}),
        ("/v1/runs/r/approvals/k", {"approved": True, "to": "x"}),
        ("/v1/runs/r/cancel", {"why": "x"}),
        ("/internal/advance", {}),
        ("/internal/advance", {"run_id": "r", "now": True}),
    ],
)
async def test_every_route_with_a_body_refuses_what_it_does_not_know(
    caller: httpx.AsyncClient, path: str, body: Any
) -> None:
    assert_problem(await caller.post(path, json=body), 422)


@pytest.mark.parametrize("value", ["", "x" * 256])
async def test_an_idempotency_key_that_does_not_fit_is_400(caller: httpx.AsyncClient, value: str) -> None:
    for path in (START, "/v1/runs/r/signals/word"):
        assert_problem(await caller.post(path, headers={"Idempotency-Key": value}), 400, "idempotency-key")


async def test_a_path_that_is_not_there_is_404_and_a_method_that_it_has_not_405(caller: httpx.AsyncClient) -> None:
    for path in ("/v1", "/v1/runs/", "/v1/runs/r/else", "/healthz/", "/hooks", "//v1/runs"):
        assert_problem(await caller.get(path), 404)
    refused = await caller.delete("/v1/runs")
    assert_problem(refused, 405)
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert_problem(await caller.get("/hooks/github"), 405)


async def test_a_store_that_is_away_is_503_with_retry_after(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: Any) -> None:
        raise StoreUnavailableError("no route to the database")

    monkeypatch.setattr(app.store, "create", away)
    answer = await caller.post(START)
    assert_problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0


async def test_an_error_inside_is_500_that_says_nothing_and_is_logged(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(*args: Any) -> None:
        raise KeyError(f"password={PASSWORD}")

    monkeypatch.setattr(app.store, "get", bug)
    answer = await caller.get("/v1/runs/r")
    assert_problem(answer, 500)
    assert PASSWORD not in answer.text
    assert "KeyError" not in answer.text
    assert "KeyError" in caplog.text
    assert "in bug" in caplog.text
    assert PASSWORD not in caplog.text
