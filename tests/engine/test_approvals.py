"""Approvals: a question to people, told apart by its key, with an end."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from tests.engine.activities import tell
from tests.engine.history_builder import START, Begin, LiveRun, replayed
from tinyworkflow_core.engine.approving import Approval, ApprovalRequest
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import ApprovalDecided
from tinyworkflow_core.engine.replay import Blocked, Completed


class Refund(BaseModel):
    amount: int


def answer(approval: Approval) -> list[Any]:
    return [approval.approved, approval.by, approval.comment, approval.data, approval.at.isoformat()]


async def one(ctx: WorkflowContext) -> list[Any]:
    return answer(
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


# --- votes --------------------------------------------------------------------------------------------


async def votes(ctx: WorkflowContext, quorum: int) -> list[Any]:
    got = await ctx.wait_for_approval("boss", approvers=["ada", "bob", "eve"], quorum=quorum)
    return [got.approved, got.by, got.comment, got.data, [one.by for one in got.votes]]


def test_a_quorum_decides_with_the_vote_that_fills_it(begin: Begin) -> None:
    run = begin(votes, 2).let_go()
    run.vote("boss", "ada", comment="first")
    assert [command.key for command in run.approvals] == ["boss"]
    run.later(1).vote("boss", "eve", comment="second", data=7)
    assert run.result == [True, "eve", "second", 7, ["ada", "eve"]]


def test_a_vote_that_comes_in_one_commit_with_the_decision_and_after_it_changes_nothing(begin: Begin) -> None:
    run = begin(votes, 2).let_go()
    (asked,) = run.approvals
    run.happen(run.voted(asked, "ada"), run.voted(asked, "bob"), run.voted(asked, "eve", False))
    assert run.result[0] is True
    assert run.result[-1] == ["ada", "bob"]


def test_votes_count_by_the_quorum_that_was_asked_for_whatever_the_code_says_by_now(begin: Begin) -> None:
    def code(quorum: int) -> Any:
        async def asks(ctx: WorkflowContext) -> bool:
            got = await ctx.wait_for_approval("boss", approvers=["ada", "bob", "eve"], quorum=quorum)
            return got.approved

        return asks

    run = begin(code(2)).let_go().vote("boss", "ada")
    before = replayed(code(3), run.history)
    assert isinstance(before, Blocked)
    run.vote("boss", "bob")
    assert run.result is True
    for other in (1, 3):
        assert isinstance(replayed(code(other), run.history), Completed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"quorum": 0}, "quorum is a whole number from 1"),
        ({"quorum": True}, "quorum is a whole number from 1"),
        ({"quorum": 3, "approvers": ["ada", "bob", "ADA"]}, "a quorum of 3 is more than the 2"),
        ({"veto": False}, "veto=False needs approvers"),
        ({"approvers": ["ada", ""]}, "approvers: names of people"),
        (
            {"escalate_to": ["eve"], "approvers": ["ada"]},
            "needs approvers (else anybody may decide) and escalate_after",
        ),
        ({"escalate_to": ["eve"], "escalate_after": 5}, "needs approvers (else anybody may decide)"),
        ({"escalate_after": 5}, "escalate_after needs escalate_to, or a notify"),
        ({"remind_every": 5}, "need a notify activity"),
        ({"remind_every": 0, "notify": tell}, "remind_every must be more than 0"),
        ({"max_reminders": -1, "notify": tell}, "max_reminders is a whole number from 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_that_make_no_sense_are_refused_before_anybody_is_asked(
    begin: Begin, arguments: dict[str, Any], words: str
) -> None:
    async def asks(ctx: WorkflowContext) -> None:
        await ctx.wait_for_approval("boss", **arguments)

    error = begin(asks).error
    assert error.type == "ValueError"
    assert words in error.message


# --- telling people -----------------------------------------------------------------------------------


async def reminded(ctx: WorkflowContext, must: bool) -> str:
    try:
        got = await ctx.wait_for_approval(
            "boss",
            500,
            title="Go?",
            details={"amount": 5},
            approvers=["ada"],
            notify=tell,
            remind_every=100,
            max_reminders=2,
            escalate_after=250,
            escalate_to=["eve"],
            must_notify=must,
        )
    except TimeoutError:
        return "late"
    return f"{got.approved} by {got.by} at {(ctx.now() - START).total_seconds():g}"


def told(run: LiveRun) -> ApprovalRequest:
    (activity,) = run.activities
    (request,) = activity.args
    assert isinstance(request, ApprovalRequest)
    return request


def next_timer(run: LiveRun) -> LiveRun:
    return run.let_go().fire(min(run.timers, key=lambda timer: timer.due))


def since(run: LiveRun) -> float:
    return (run.now - START).total_seconds()


def test_people_are_told_at_once_then_reminded_and_then_others_are_told_too(begin: Begin) -> None:
    run = begin(reminded, False)
    (approval,) = run.approvals
    first = told(run)
    assert (first.run_id, first.generation, first.approval_id, first.key) == ("run-1", 0, approval.id, "boss")
    assert (first.title, first.details, first.workflow) == ("Go?", {"amount": 5}, "under_test")
    assert (first.requested_at, first.expires_at) == (START, START + timedelta(seconds=500))
    seen = [(0.0, first.reminder, first.escalated, first.approvers)]
    for _ in range(3):
        run.complete(run.activities[0])
        next_timer(run)
        request = told(run)
        seen.append((since(run), request.reminder, request.escalated, request.approvers))
    assert seen == [
        (0, 0, False, ("ada",)),
        (100, 1, False, ("ada",)),
        (200, 2, False, ("ada",)),
        (250, 2, True, ("ada", "eve")),
    ]
    run.complete(run.activities[0]).let_go()
    assert [timer.due for timer in run.timers] == [START + timedelta(seconds=500)]
    assert run.later(10).decide("boss", by="eve").result == "True by eve at 260"


def test_a_decision_ends_the_telling_even_in_the_middle_of_it(begin: Begin) -> None:
    run = begin(reminded, True).let_go()
    run.later(1).decide("boss", False, by="ada")
    assert [command.activity.name for command in run.withdrawn] == ["tell"]
    assert run.timers == []
    assert run.later(1).end_withdrawn().result == "False by ada at 2"


def test_the_end_of_the_time_ends_the_telling(begin: Begin) -> None:
    run = begin(reminded, False)
    run.complete(run.activities[0]).let_go()
    (end,) = (timer for timer in run.timers if timer.due == START + timedelta(seconds=500))
    run.fire(end)
    assert run.result == "late"


def test_telling_that_fails_leaves_the_question_open_and_the_next_reminder_is_sent(begin: Begin) -> None:
    run = begin(reminded, False)
    run.fail(run.activities[0], ConnectionError("down"))
    assert [command.key for command in run.approvals] == ["boss"]
    next_timer(run)
    assert told(run).reminder == 1
    assert run.decide("boss", by="ada").end_withdrawn().result == "True by ada at 100"


def test_telling_that_must_not_fail_fails_the_wait_and_withdraws_the_question(begin: Begin) -> None:
    run = begin(reminded, True).let_go()
    run.fail(run.activities[0], ConnectionError("down"))
    assert run.error.type == "ConnectionError"
    assert [command.key for command in run.execution.journal.withdrawn_approvals] == ["boss"]


def test_a_reminder_that_comes_late_is_sent_once_and_the_next_a_whole_interval_after_it(begin: Begin) -> None:
    run = begin(reminded, False)
    run.complete(run.activities[0]).let_go()
    (reminder,) = (timer for timer in run.timers if timer.due == START + timedelta(seconds=100))
    run.later(190).fire(reminder)
    assert told(run).reminder == 1
    run.complete(run.activities[0])
    next_timer(run)
    assert (since(run), told(run).escalated) == (250, True)
