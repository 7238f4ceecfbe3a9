"""Approvals over HTTP: what is open, and one decision for each."""

from __future__ import annotations

import asyncio

import httpx

from tests.http.front import assert_problem, ended, paused, seen

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
    assert (await caller.get("/v1/approvals")).json() == {"approvals": [shown], "next_cursor": None}
    assert (await caller.get("/v1/approvals", params={"approver": "ada"})).json() == {
        "approvals": [shown],
        "next_cursor": None,
    }
    assert (await caller.get("/v1/approvals", params={"approver": "bob"})).json() == {
        "approvals": [],
        "next_cursor": None,
    }


async def test_a_decision_is_taken_once_and_the_same_again_is_no_error(caller: httpx.AsyncClient) -> None:
    await asking(caller)
    for _ in range(2):
        answer = await caller.post(DECIDE, json={"approved": False, "by": "ada", "comment": "no", "data": {"n": 1}})
        assert (answer.status_code, answer.json()["approved"]) == (200, False)
    assert_problem(await caller.post(DECIDE, json={"approved": True, "by": "ada"}), 409, "already rejected")
    assert (await ended(caller, "r"))["output"] == "False by ada"
    assert (await caller.post(DECIDE, json={"approved": False})).status_code == 200


async def test_of_ten_deciders_at_once_one_wins(caller: httpx.AsyncClient) -> None:
    await asking(caller)
    answers = await asyncio.gather(
        *[caller.post(DECIDE, json={"approved": n % 2 == 0, "by": "ada"}) for n in range(10)]
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


async def test_who_may_not_decide_is_403_and_who_does_not_say_who_they_are_422(caller: httpx.AsyncClient) -> None:
    await asking(caller)
    problem = assert_problem(await caller.post(DECIDE, json={"approved": True, "by": "bob"}), 403, "'bob'")
    assert problem["type"].endswith(":approver-not-allowed")
    assert assert_problem(await caller.post(DECIDE, json={"approved": True}), 422)["errors"][0]["loc"] == ["by"]
    assert (await caller.get("/v1/runs/r")).json()["status"] == "paused"


async def test_votes_show_in_the_open_approval_with_who_and_how(caller: httpx.AsyncClient) -> None:
    await caller.post("/v1/workflows/pair/runs", json={"run_id": "r"})
    await paused(caller, "r")
    answer = await caller.post("/v1/runs/r/approvals/go", json={"approved": True, "by": "ada", "comment": "fine"})
    assert answer.status_code == 200
    shown = (await seen(caller, "r", lambda view: view["open_approvals"][0]["votes"]))["open_approvals"][0]
    assert (shown["quorum"], shown["veto"], shown["escalate_to"], shown["escalates_at"]) == (2, True, [], None)
    (cast,) = shown["votes"]
    assert (cast["by"], cast["approved"], cast["comment"], cast["way"]) == ("ada", True, "fine", "api")
    opposite = await caller.post("/v1/runs/r/approvals/go", json={"approved": False, "by": "ada"})
    assert_problem(opposite, 409, "has voted to approve")
    await caller.post("/v1/runs/r/approvals/go", json={"approved": True, "by": "bob"})
    assert (await ended(caller, "r"))["output"] == ["ada", "bob"]


async def test_open_approvals_come_in_pages_that_miss_none(caller: httpx.AsyncClient) -> None:
    for number in range(5):
        await caller.post("/v1/workflows/asker/runs", json={"run_id": f"a{number}"})
        await paused(caller, f"a{number}")
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await caller.get("/v1/approvals", params={"limit": 2, **cursor})).json()
        found += [one["run_id"] for one in page["approvals"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == ["a4", "a3", "a2", "a1", "a0"]
    assert_problem(await caller.get("/v1/approvals", params={"cursor": "not ours"}), 422, "cursor")
