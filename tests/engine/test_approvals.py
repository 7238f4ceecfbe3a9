"""Approvals: a question to people, told apart by its key, with an end."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from tests.engine.history_builder import START, Begin
from tinyworkflow_core.engine.context import Approval, WorkflowContext
from tinyworkflow_core.engine.history import ApprovalDecided


class Refund(BaseModel):
    amount: int


def told(approval: Approval) -> list[Any]:
    return [approval.approved, approval.by, approval.comment, approval.data, approval.at.isoformat()]


async def one(ctx: WorkflowContext) -> list[Any]:
    return told(
        await ctx.wait_for_approval("boss", title="Pay?", details={"amount": 5}, approvers=["ada", "bob"], form=Refund)
    )


async def two(ctx: WorkflowContext) -> list[bool]:
    got = await asyncio.gather(ctx.wait_for_approval("boss"), ctx.wait_for_approval("legal"))
    return [bool(approval) for approval in got]


async def with_end(ctx: WorkflowContext) -> str:
    try:
        return "approved" if await ctx.wait_for_approval("boss", timeout="1h") else "rejected"
    except TimeoutError:
        await ctx.wait_for_signal("go")
        return "late"


def test_an_approval_asks_with_all_that_people_need_to_decide(begin: Begin) -> None:
    (command,) = begin(one).approvals
    assert (command.key, command.title, command.approvers) == ("boss", "Pay?", ("ada", "bob"))
    assert command.details == '{"amount":5}'
    assert command.form is not None
    assert json.loads(command.form)["properties"]["amount"]["type"] == "integer"
    assert command.expires_at is None


def test_the_decision_is_what_the_workflow_gets(begin: Begin) -> None:
    run = begin(one).let_go().later(5)
    run.decide("boss", by="ada", comment="fine", data={"amount": 3})
    assert run.result == [True, "ada", "fine", {"amount": 3}, (START + timedelta(seconds=5)).isoformat()]


def test_a_rejection_is_a_falsy_answer_and_no_error(begin: Begin) -> None:
    assert begin(one).decide("boss", False).result[0] is False


def test_two_approvals_are_decided_each_by_its_own_key(begin: Begin) -> None:
    run = begin(two).let_go()
    run.decide("legal", False)
    assert [command.key for command in run.approvals] == ["boss"]
    assert run.decide("boss").result == [True, False]


def test_the_same_key_open_twice_is_refused(begin: Begin) -> None:
    async def twice(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.wait_for_approval("boss"))
            group.create_task(ctx.wait_for_approval("boss"))

    error = begin(twice).error
    assert [member.type for member in error.members] == ["ValueError"]
    assert "'boss' is already open" in error.members[0].message


def test_the_same_key_may_be_asked_again_once_it_is_decided(begin: Begin) -> None:
    async def again(ctx: WorkflowContext) -> int:
        asked = 1
        while not await ctx.wait_for_approval("boss"):
            asked += 1
        return asked

    run = begin(again).decide("boss", False).decide("boss", False).decide("boss")
    assert run.result == 3


def test_an_approval_with_a_timeout_says_when_it_ends_and_has_a_timer_for_it(begin: Begin) -> None:
    run = begin(with_end)
    (approval,) = run.approvals
    (timer,) = run.timers
    assert approval.id != timer.id
    assert approval.expires_at == timer.due == START + timedelta(hours=1)


def test_a_decision_in_time_takes_the_timer_back(begin: Begin) -> None:
    run = begin(with_end).let_go()
    assert run.decide("boss").result == "approved"


def test_an_approval_that_nobody_decides_in_time_raises_timeout_error_and_is_withdrawn(begin: Begin) -> None:
    run = begin(with_end).let_go()
    run.fire(run.timers[0])
    assert run.commands == []
    assert [command.key for command in run.execution.journal.withdrawn_approvals] == ["boss"]
    run.let_go()
    assert run.execution.journal.withdrawn_approvals == []
    assert run.signal("go").result == "late"


def test_an_approval_that_nobody_has_seen_needs_no_withdrawal(begin: Begin) -> None:
    run = begin(with_end)
    run.fire(run.timers[0])
    assert run.execution.journal.withdrawn_approvals == []


def test_a_decision_after_the_timeout_changes_nothing(begin: Begin) -> None:
    run = begin(with_end).let_go()
    (approval,), (timer,) = run.approvals, run.timers
    late = ApprovalDecided(at=START, id=approval.id, key="boss", message_id="m", approved=True)
    run.happen(run.fired(timer), late)
    assert set(run.execution.seen) == {"m"}
    assert run.signal("go").result == "late"


def test_a_cancelled_wait_withdraws_the_approval(begin: Begin) -> None:
    run = begin(one).let_go().cancel("changed our minds")
    assert [command.key for command in run.execution.journal.withdrawn_approvals] == ["boss"]
