"""Approvals over HTTP: what is open, and one decision for each."""

from __future__ import annotations

import asyncio

import httpx

from tests.http.front import assert_problem, ended, paused

DECIDE = "/v1/runs/r/approvals/go%2Fno%20go"


async def asking(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/asker/runs", json={"run_id": "r"})
    await paused(caller, "r")


async def test_an_open_approval_shows_in_its_run_and_in_the_list_of_those_who_may_decide(
    caller: httpx.AsyncClient,
) -> None:
    await asking(caller)
    (shown,) = (await caller.get("/v1/runs/r")).json()["open_approvals"]
    assert (shown["key"], shown["title"], shown["details"], shown["approvers"]) == (
        "go/no go", "Go?", {"cost": 3}, ["ada"],
    )  # fmt: skip
    assert shown["links"]["decide"] == DECIDE
    assert (await caller.get("/v1/approvals")).json() == {"approvals": [shown]}
    assert (await caller.get("/v1/approvals", params={"approver": "ada"})).json() == {"approvals": [shown]}
    assert (await caller.get("/v1/approvals", params={"approver": "bob"})).json() == {"approvals": []}


async def test_a_decision_is_taken_once_and_the_same_again_is_no_error(caller: httpx.AsyncClient) -> None:
    await asking(caller)
    for _ in range(2):
        answer = await caller.post(DECIDE, json={"approved": False, "by": "ada", "comment": "no", "data": {"n": 1}})
        assert (answer.status_code, answer.json()["approved"]) == (200, False)
    assert_problem(await caller.post(DECIDE, json={"approved": True}), 409, "already rejected")
    assert (await ended(caller, "r"))["output"] == "False by ada"
    assert (await caller.post(DECIDE, json={"approved": False})).status_code == 200


async def test_of_ten_deciders_at_once_one_wins(caller: httpx.AsyncClient) -> None:
    await asking(caller)
    answers = await asyncio.gather(
        *[caller.post(DECIDE, json={"approved": n % 2 == 0, "by": f"p{n}"}) for n in range(10)]
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [409] * 5
    approved = {answer.json()["approved"] for answer in answers if answer.status_code == 200}
    assert (await ended(caller, "r"))["output"].startswith(str(approved.pop()))


async def test_an_approval_that_nobody_asked_for_is_404_and_one_of_an_ended_run_410(caller: httpx.AsyncClient) -> None:
    await asking(caller)
    assert_problem(await caller.post("/v1/runs/r/approvals/other", json={"approved": True}), 404, "other")
    await caller.post("/v1/runs/r/cancel")
    await ended(caller, "r")
    problem = assert_problem(await caller.post(DECIDE, json={"approved": True}), 410)
    assert problem["type"].endswith(":approval-closed")
