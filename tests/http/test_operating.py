"""What operators do to runs over HTTP."""

from __future__ import annotations

import httpx
import pytest

from tests.http.front import assert_problem, ended, paused, seen
from tinyworkflow_core import App


@pytest.fixture(autouse=True)
async def working(app: App) -> None:
    """Runs go on by themselves."""
    await app.start_worker()


async def started(caller: httpx.AsyncClient, name: str, run_id: str) -> str:
    """A run, and its path."""
    answer = await caller.post(f"/v1/workflows/{name}/runs", json={"run_id": run_id})
    assert answer.status_code == 202
    return str(answer.headers["location"])


async def test_a_run_is_put_aside_and_goes_on_where_it_stood(caller: httpx.AsyncClient) -> None:
    path = await started(caller, "listener", "l")
    answer = await caller.post(f"{path}/suspend", json={"reason": "lunch"})
    assert (answer.status_code, answer.json()["run_id"], answer.headers["location"]) == (202, "l", path)
    await seen(caller, "l", lambda view: view["status"] == "suspended")
    for word in ("one", "two"):
        assert (await caller.post(f"{path}/signals/word", json=word)).status_code == 202
    await seen(caller, "l", lambda view: view["status"] == "suspended")  # a message has it looked at, and left alone
    assert (await caller.post(f"{path}/resume")).status_code == 202
    assert (await ended(caller, "l"))["output"] == ["one", "two"]


async def test_a_suspension_that_is_asked_for_twice_under_one_key_counts_once(caller: httpx.AsyncClient) -> None:
    path = await started(caller, "listener", "l")
    for verb, status in [("suspend", "suspended"), ("resume", "waiting")]:
        assert (await caller.post(f"{path}/{verb}", headers={"Idempotency-Key": "1"})).status_code == 202
        await seen(caller, "l", lambda view, status=status: view["status"] == status)
    assert (await caller.post(f"{path}/suspend", headers={"Idempotency-Key": "1"})).status_code == 202
    assert (await caller.post(f"{path}/signals/word", json="one")).status_code == 202
    assert (await caller.post(f"{path}/signals/word", json="two")).status_code == 202
    assert (await ended(caller, "l"))["status"] == "completed"


async def test_a_run_is_ended_by_force(caller: httpx.AsyncClient) -> None:
    path = await started(caller, "sleeper", "s")
    assert (await caller.post(f"{path}/terminate", json={"reason": "enough"})).status_code == 202
    assert (await ended(caller, "s"))["status"] == "terminated"
    assert "enough" in (await caller.get(f"{path}/events")).text
    assert_problem(await caller.post(f"{path}/terminate"), 410, "has ended")


async def test_a_failed_run_goes_on_from_the_point_of_failure_and_an_open_one_does_not(
    caller: httpx.AsyncClient,
) -> None:
    path = await started(caller, "broken", "b")
    await ended(caller, "b")
    assert (await caller.post(f"{path}/retry")).status_code == 202
    view = await seen(caller, "b", lambda view: view["retry_count"] == 1 and view["times"]["ended"])
    assert view["status"] == "failed"
    sleeper = await started(caller, "sleeper", "s")
    assert_problem(await caller.post(f"{sleeper}/retry"), 409, "only one that failed")


async def test_a_fork_is_a_new_run_with_the_events_that_it_was_given(caller: httpx.AsyncClient) -> None:
    path = await started(caller, "asker", "a")
    await paused(caller, "a")
    answer = await caller.post(f"{path}/fork", json={"at_event": 1})
    fork = answer.json()["run_id"]
    assert (answer.status_code, fork != "a", answer.headers["location"]) == (202, True, f"/v1/runs/{fork}")
    await paused(caller, fork)
    assert_problem(await caller.post(f"{path}/fork", json={"at_event": 99}), 422, "at_event")
    assert_problem(await caller.post(f"{path}/fork", json={}), 422, "at_event")


async def test_a_run_that_has_ended_can_be_forgotten_and_an_open_one_cannot(caller: httpx.AsyncClient) -> None:
    path = await started(caller, "echo", "e")
    await ended(caller, "e")
    answer = await caller.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert_problem(await caller.get(path), 404)
    assert_problem(await caller.delete(path), 404)
    sleeper = await started(caller, "sleeper", "s")
    assert_problem(await caller.delete(sleeper), 409, "only one that has ended")
    assert (await caller.get(sleeper)).status_code == 202


@pytest.mark.parametrize("verb", ["cancel", "terminate", "suspend", "resume", "retry"])
async def test_what_is_not_there_cannot_be_steered(caller: httpx.AsyncClient, verb: str) -> None:
    assert_problem(await caller.post(f"/v1/runs/nobody/{verb}"), 404, "'nobody'")
    path = await started(caller, "sleeper", "s")
    assert_problem(await caller.post(f"{path}/{verb}", json={"why": "a wrong field"}), 422, "why")
    assert_problem(await caller.post(f"{path}/{verb}", content=b"null"), 422, "body")
