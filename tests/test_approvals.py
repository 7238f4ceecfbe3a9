"""Deciding what a run has asked: of any number of deciders one wins, and everybody learns what was decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from tests.stores.records import T0, let_go, make, take
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.approvals import Decision, pending, standing
from tinyworkflow_core.dispatcher import Task
from tinyworkflow_core.engine.history import ApprovalDecided, ApprovalVoted
from tinyworkflow_core.errors import (
    ApprovalClosedError,
    ApprovalConflictError,
    ApprovalForbiddenError,
    ApprovalNotFoundError,
    InvalidInputError,
    RunNotFoundError,
    SerializationError,
)
from tinyworkflow_core.store import Delivery, Message, OpenApproval, Run, Status, Store
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import START, VirtualClock

YES, NO = Decision(approved=True, by="ada"), Decision(approved=False, by="bob")
HOUR = timedelta(hours=1)


class Refund(BaseModel):
    amount: int = Field(ge=1)
    reason: Literal["late", "broken"] = "late"


class Note(BaseModel):
    text: str = ""


@workflow
async def asks(ctx: WorkflowContext) -> str:
    answer = await ctx.wait_for_approval("boss", timeout="1h", title="Go?")
    await ctx.wait_for_signal("end")
    return f"{answer.approved} by {answer.by}: {answer.comment}, {answer.data}"


@workflow
async def asks_ada(ctx: WorkflowContext) -> str:
    answer = await ctx.wait_for_approval(
        "boss", approvers=["ada", "Eve"], escalate_after="1h", escalate_to=["zoe"], form=Refund
    )
    return f"{answer.approved} by {answer.by} via {answer.way}: {answer.data}"


@workflow
async def asks_three(ctx: WorkflowContext) -> list[Any]:
    answer = await ctx.wait_for_approval("boss", approvers=["ada", "bob", "eve"], quorum=2, form=Note)
    return [answer.approved, *(f"{one.by}: {one.approved}, {one.comment}, {one.data}" for one in answer.votes)]


@workflow
async def asks_most_of_three(ctx: WorkflowContext) -> list[Any]:
    answer = await ctx.wait_for_approval("boss", approvers=["ada", "bob", "eve"], quorum=2, veto=False)
    return [answer.approved, *(f"{one.by}: {one.approved}" for one in answer.votes)]


@workflow
async def asks_any_two(ctx: WorkflowContext) -> list[str | None]:
    answer = await ctx.wait_for_approval("boss", timeout="1h", quorum=2)
    return [one.by for one in answer.votes]


@workflow
async def asks_and_ends(ctx: WorkflowContext) -> bool:
    return (await ctx.wait_for_approval("boss")).approved


@workflow
async def asks_two(ctx: WorkflowContext) -> list[bool]:
    answers = await asyncio.gather(ctx.wait_for_approval("boss"), ctx.wait_for_approval("law"))
    return [answer.approved for answer in answers]


@workflow
async def asks_until_yes(ctx: WorkflowContext) -> int:
    for drafts in range(1, 10):
        if await ctx.wait_for_approval("draft"):
            return drafts
    return 0


@workflow
async def asks_with_patience(ctx: WorkflowContext) -> str:
    try:
        await ctx.wait_for_approval("boss", timeout="1h")
        return "decided"
    except TimeoutError:
        await ctx.wait_for_signal("end")
        return "nobody decided"


@workflow
async def asks_nothing(ctx: WorkflowContext) -> None:
    await ctx.wait_for_signal("end")


WORKFLOWS = (
    asks, asks_ada, asks_three, asks_most_of_three, asks_any_two, asks_and_ends, asks_two, asks_until_yes,
    asks_with_patience, asks_nothing,
)  # fmt: skip
Hook = Callable[[], Awaitable[object]]


class Interrupted:
    """A store in which something happens right before or after a delivery."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before: Hook | None = None
        self.after: Hook | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def deliver(self, run_id: str, message: Message) -> Delivery:
        before, self.before = self.before, None
        if before is not None:
            await before()
        delivery = await self._store.deliver(run_id, message)
        after, self.after = self.after, None
        if after is not None:
            await after()
        return delivery


class World:
    """A store, a clock, and an App that makes no calls unless told to."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.store: Any = Interrupted(open_store("sqlite:///:memory:"))
        self.asked: list[str] = []
        self.app = App(self.store, workflows=WORKFLOWS, dispatcher=self, clock=self.clock)

    async def dispatch(self, task: Task, at: object = None) -> None:
        if at is None:
            self.asked.append(task.run_id)

    async def close(self) -> None: ...

    async def begin(self, which: Any = asks) -> str:
        run_id = await self.app.client.start_workflow(which)
        await self.app.advance(run_id)
        self.asked.clear()
        return run_id

    async def decide(self, run_id: str, decision: Decision, key: str | None = "boss") -> str:
        return await self.app.decide(run_id, key, decision)

    async def decide_and_advance(self, run_id: str, decision: Decision, key: str | None = "boss") -> None:
        await self.decide(run_id, decision, key)
        await self.app.advance(run_id)

    async def decisions(self, run_id: str) -> list[bool]:
        """Those that the workflow has seen."""
        state = await self.store.load(run_id)
        return [event.approved for event in state.history if isinstance(event, ApprovalDecided)]

    async def result(self, run_id: str) -> Any:
        run = await self.store.get(run_id)
        if not run.status.closed:
            await self.app.client.send_signal(run_id, "end")
            await self.app.advance(run_id)
        return await self.app.client.get_result(run_id)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.app.close()


async def assert_decided(world: World, run_id: str, decided: Decision, key: str | None = "boss") -> None:
    """That decision holds: the same again is no error, the other one is a conflict."""
    other = Decision(approved=not decided.approved)
    assert await world.decide(run_id, Decision(approved=decided.approved, by="somebody else"), key) == "boss"
    was = "approved" if decided.approved else "rejected"
    with pytest.raises(ApprovalConflictError, match=f"approval 'boss' of run '{run_id}' is already {was}") as raised:
        await world.decide(run_id, other, key)
    assert raised.value.run_id == run_id


# --- who asks, and for what --------------------------------------------------------------------------


async def test_a_run_that_there_is_not_is_not_found(world: World) -> None:
    with pytest.raises(RunNotFoundError, match="'nobody'"):
        await world.decide("nobody", YES)


async def test_a_question_that_was_not_asked_is_not_found(world: World) -> None:
    run_id = await world.begin()
    with pytest.raises(ApprovalNotFoundError, match="has not asked for the approval 'bos'"):
        await world.decide(run_id, YES, "bos")
    quiet = await world.begin(asks_nothing)
    with pytest.raises(ApprovalNotFoundError, match="has not asked for an approval"):
        await world.decide(quiet, YES, None)
    assert not world.asked


async def test_with_one_open_question_it_need_not_be_named(world: World) -> None:
    run_id = await world.begin()
    assert await world.decide(run_id, YES, None) == "boss"
    await assert_decided(world, run_id, YES, None)


async def test_with_several_open_questions_one_must_be_named(world: World) -> None:
    run_id = await world.begin(asks_two)
    with pytest.raises(ApprovalNotFoundError, match="has several open approvals, name one of 'boss', 'law'"):
        await world.decide(run_id, YES, None)
    await world.decide_and_advance(run_id, NO, "law")
    assert await world.decide(run_id, YES, None) == "boss"
    await world.app.advance(run_id)
    assert await world.result(run_id) == [True, False]


async def test_a_decision_arrives_whole_and_wakes_the_run(world: World) -> None:
    run_id = await world.begin()
    decision = Decision(approved=True, by="ada", comment="well done", data={"amount": 3, "tags": ("a",)})
    assert await world.decide(run_id, decision) == "boss"
    assert world.asked == [run_id]
    await world.app.advance(run_id)
    assert await world.result(run_id) == "True by ada: well done, {'amount': 3, 'tags': ('a',)}"


async def test_data_that_cannot_be_stored_is_refused_and_decides_nothing(world: World) -> None:
    run_id = await world.begin()
    with pytest.raises(SerializationError):
        await world.decide(run_id, Decision(approved=True, data=object()))
    assert await world.store.inbox(run_id) == []


# --- a second decision -------------------------------------------------------------------------------


async def test_a_decision_holds_before_it_is_taken_up_after_and_when_the_run_has_ended(world: World) -> None:
    for decision in (YES, NO):
        run_id = await world.begin()
        await world.decide(run_id, decision)
        await assert_decided(world, run_id, decision)
        await world.app.advance(run_id)
        await assert_decided(world, run_id, decision)
        await assert_decided(world, run_id, decision, None)
        assert await world.result(run_id) == f"{decision.approved} by {decision.by}: None, None"
        await assert_decided(world, run_id, decision)
        await assert_decided(world, run_id, decision, None)
        assert await world.decisions(run_id) == [decision.approved]


async def test_the_same_decision_again_wakes_a_run_whose_wake_up_was_lost(world: World) -> None:
    run_id = await world.begin()
    for _ in range(2):
        await world.decide(run_id, YES)
    assert world.asked == [run_id, run_id]


async def test_of_many_at_once_one_wins_and_the_others_learn_it(world: World) -> None:
    run_id = await world.begin()
    answers = await asyncio.gather(
        *(world.decide(run_id, Decision(approved=number % 2 == 0)) for number in range(20)), return_exceptions=True
    )
    assert answers.count("boss") == 10
    assert sum(isinstance(answer, ApprovalConflictError) for answer in answers) == 10
    await world.app.advance(run_id)
    assert await world.decisions(run_id) == [answers[0] == "boss"]


# --- too late ----------------------------------------------------------------------------------------


async def test_a_question_whose_time_is_up_is_closed_even_before_the_run_has_noticed(world: World) -> None:
    run_id = await world.begin(asks_with_patience)
    world.clock.move_to(START + HOUR - timedelta(microseconds=1))
    other = await world.begin(asks_with_patience)
    world.clock.move_to(START + HOUR)
    with pytest.raises(ApprovalClosedError, match=r"approval 'boss' of run .* has expired"):
        await world.decide(run_id, YES)
    assert await world.decide(other, YES) == "boss"
    await world.app.advance(run_id)
    with pytest.raises(ApprovalClosedError, match=r"approval 'boss' of run .* has expired"):
        await world.decide(run_id, YES)
    with pytest.raises(ApprovalClosedError, match="has expired"):
        await world.decide(run_id, YES, None)
    assert await world.result(run_id) == "nobody decided"
    with pytest.raises(ApprovalClosedError):
        await world.decide(run_id, YES)


async def test_a_decision_made_in_time_still_holds_when_the_time_is_up(world: World) -> None:
    run_id = await world.begin()
    await world.decide(run_id, NO)
    world.clock.move_to(START + HOUR)
    await assert_decided(world, run_id, NO)
    await world.app.advance(run_id)
    assert await world.decisions(run_id) == [False]


async def test_a_run_that_ended_without_a_decision_takes_none(world: World) -> None:
    asked, quiet = await world.begin(), await world.begin(asks_nothing)
    for run_id in (asked, quiet):
        await world.app.client.cancel_workflow(run_id)
        await world.app.advance(run_id)
        for key in ("boss", None):
            with pytest.raises(ApprovalClosedError, match=r"is no longer open|has ended"):
                await world.decide(run_id, YES, key)
        assert await world.decisions(run_id) == []


# --- races: the record was looked at, and then something happened ---------------------------------------


@pytest.mark.parametrize("first", [YES, NO])
@pytest.mark.parametrize("late", [YES, NO])
@pytest.mark.parametrize("which", [asks, asks_and_ends])
async def test_a_decision_taken_up_between_the_look_and_the_delivery_is_the_only_one(
    world: World, which: Any, first: Decision, late: Decision
) -> None:
    run_id = await world.begin(which)
    world.store.before = lambda: world.decide_and_advance(run_id, first)
    if first is late:
        assert await world.decide(run_id, late) == "boss"
    else:
        with pytest.raises(ApprovalConflictError):
            await world.decide(run_id, late)
    world.clock.move_to(START + timedelta(minutes=1))
    await world.app.tick()  # what was delivered too late is found, and is nothing new
    for asked in set(world.asked):
        await world.app.advance(asked)
    assert await world.decisions(run_id) == [first.approved]
    assert await world.store.inbox(run_id) == []
    assert str(await world.result(run_id)).startswith(str(first.approved))


@pytest.mark.parametrize("late", [YES, NO])
async def test_a_late_decision_is_about_the_question_that_was_seen_and_not_about_its_successor(
    world: World, late: Decision
) -> None:
    run_id = await world.begin(asks_until_yes)
    world.store.before = lambda: world.decide_and_advance(run_id, NO, "draft")
    if late is NO:
        assert await world.decide(run_id, NO, "draft") == "draft"
    else:
        with pytest.raises(ApprovalConflictError, match="is already rejected"):
            await world.decide(run_id, YES, "draft")
    await world.app.advance(run_id)
    assert await world.decisions(run_id) == [False]
    assert [one.key for one in (await world.store.get(run_id)).open_approvals] == ["draft"]
    await world.decide_and_advance(run_id, YES, "draft")
    assert await world.result(run_id) == 2


@pytest.mark.parametrize("late", [True, False])
async def test_a_vote_taken_up_between_the_look_and_the_delivery_is_the_persons_only_one(
    world: World, late: bool
) -> None:
    run_id = await world.begin(asks_three)
    world.store.before = lambda: world.decide_and_advance(run_id, vote("ada"))
    if late:
        assert await world.decide(run_id, vote("ada")) == "boss"
    else:
        with pytest.raises(ApprovalConflictError, match="'ada' has voted to approve"):
            await world.decide(run_id, vote("ada", False))
    await world.app.advance(run_id)
    assert [one.by for one in (await world.store.get(run_id)).open_approvals[0].votes] == ["ada"]
    await world.decide_and_advance(run_id, vote("bob"))
    assert (await world.result(run_id))[0] is True


async def test_a_decision_that_is_taken_up_at_once_succeeds_whatever_the_run_asks_next(world: World) -> None:
    run_id = await world.begin(asks_until_yes)
    world.store.after = lambda: world.app.advance(run_id)
    assert await world.decide(run_id, NO, "draft") == "draft"
    world.store.after = lambda: world.app.advance(run_id)
    assert await world.decide(run_id, YES, "draft") == "draft"
    assert await world.result(run_id) == 2


async def test_a_question_that_is_withdrawn_before_the_delivery_is_closed_and_the_run_unharmed(world: World) -> None:
    run_id = await world.begin(asks_with_patience)

    async def time_is_up() -> None:
        world.clock.move_to(START + HOUR)
        await world.app.advance(run_id)

    world.store.before = time_is_up
    with pytest.raises(ApprovalClosedError):
        await world.decide(run_id, YES)
    await world.app.advance(run_id)
    assert await world.store.inbox(run_id) == []
    assert await world.result(run_id) == "nobody decided"


@pytest.mark.parametrize("purged", [False, True])
async def test_a_run_that_ends_before_the_delivery_is_closed(world: World, purged: bool) -> None:
    run_id = await world.begin()

    async def end() -> None:
        await world.app.client.cancel_workflow(run_id)
        await world.app.advance(run_id)
        if purged:
            await world.store.purge(run_id)

    world.store.before = end
    with pytest.raises(ApprovalClosedError, match=r"is no longer open|has ended"):
        await world.decide(run_id, YES)


# --- what is open --------------------------------------------------------------------------------------


async def make_asking(store: Store, run_id: str, *keys: str, approvers: tuple[str, ...] = (), age: int = 0) -> Run:
    """A run that was made so many seconds before T0 and asks."""
    run = await make(store, run_id, created_at=T0 - timedelta(seconds=age))
    approvals = tuple(
        OpenApproval(id=number, key=key, requested_at=T0, approvers=approvers) for number, key in enumerate(keys, 1)
    )
    await let_go(store, await take(store, run_id), Status.PAUSED, open_approvals=approvals)
    return run


async def shown(store: Store, approver: str | None = None, limit: int = 100) -> list[str]:
    found = await pending(store, approver=approver, limit=limit)
    return [f"{one.run.run_id}/{one.approval.key}" for one in found]


async def test_open_questions_are_shown_to_those_who_may_decide_them(world: World) -> None:
    store = world.store
    await make_asking(store, "old", "a", "b", approvers=("ada", "bob"), age=3)
    await make_asking(store, "mid", "c", approvers=("bob",), age=2)
    await make_asking(store, "new", "d", age=1)
    await make(store, "quiet")
    assert await shown(store) == ["new/d", "mid/c", "old/a", "old/b"]
    assert await shown(store, "ada") == ["new/d", "old/a", "old/b"]
    assert await shown(store, "bob") == ["new/d", "mid/c", "old/a", "old/b"]
    assert await shown(store, "nobody") == ["new/d"]
    assert await shown(store, limit=2) == ["new/d", "mid/c"]
    assert await shown(store, limit=3) == ["new/d", "mid/c", "old/a"]


async def test_a_question_is_found_behind_any_number_of_other_peoples(world: World) -> None:
    await make_asking(world.store, "old", "for ada", approvers=("ada",), age=1000)
    for number in range(9):
        await make_asking(world.store, f"run-{number}", "for bob", approvers=("bob",), age=number)
    assert await shown(world.store, "ada", limit=3) == ["old/for ada"]
    assert len(await shown(world.store, "bob", limit=3)) == 3


async def test_a_question_is_shown_until_it_is_decided(world: World) -> None:
    run_id = await world.begin(asks_ada)
    assert await shown(world.store, "ada") == [f"{run_id}/boss"]
    assert await shown(world.store, "bob") == []
    await world.decide_and_advance(run_id, Decision(approved=False, by="ada"))
    assert await shown(world.store) == []


# --- who may decide, and what they fill in -----------------------------------------------------------------


async def test_only_an_approver_decides_and_nothing_is_stored_of_what_others_say(world: World) -> None:
    run_id = await world.begin(asks_ada)
    for other in ("bob", "ad", "ada2"):
        with pytest.raises(ApprovalForbiddenError, match=f"'{other}' may not decide approval 'boss'"):
            await world.decide(run_id, Decision(approved=False, by=other))
    for nobody in (None, "", "  "):
        with pytest.raises(InvalidInputError, match="has to be told who decides") as raised:
            await world.decide(run_id, Decision(approved=False, by=nobody))
        assert raised.value.errors[0]["loc"] == ["by"]
    assert await world.store.inbox(run_id) == []
    assert not world.asked
    await world.decide_and_advance(run_id, Decision(approved=False, by="EVE", way="api"))
    assert await world.result(run_id) == "False by EVE via api: None"


async def test_data_that_does_not_fit_the_form_is_refused_with_every_reason_and_nothing_is_stored(
    world: World,
) -> None:
    run_id = await world.begin(asks_ada)
    wrong: list[tuple[Any, list[list[Any]]]] = [
        (None, [["data", "amount"]]),
        ({"amount": 0, "reason": "why not"}, [["data", "amount"], ["data", "reason"]]),
        ({"amount": "5"}, [["data", "amount"]]),
        ([1], [["data"]]),
    ]
    for data, places in wrong:
        with pytest.raises(InvalidInputError) as raised:
            await world.decide(run_id, Decision(approved=True, by="ada", data=data))
        assert [one["loc"] for one in raised.value.errors] == places
        assert "why not" not in str(raised.value.errors)
    with pytest.raises(InvalidInputError):
        await world.decide(run_id, Decision(approved=False, by="ada", data={"amount": -1}))
    assert await world.store.inbox(run_id) == []
    await world.decide_and_advance(run_id, Decision(approved=True, by="ada", data=Refund(amount=5)))
    assert (await world.result(run_id)).startswith("True by ada via None: ")


async def test_those_whom_it_is_escalated_to_may_decide_from_then_on_and_not_before(world: World) -> None:
    run_id = await world.begin(asks_ada)
    no = Decision(approved=False, by="zoe")
    world.clock.move_to(START + HOUR - timedelta(microseconds=1))
    with pytest.raises(ApprovalForbiddenError):
        await world.decide(run_id, no)
    assert await pending(world.store, approver="zoe", now=world.clock.now()) == []
    world.clock.move_to(START + HOUR)
    assert [one.run_id for one in await pending(world.store, approver="zoe", now=world.clock.now())] == [run_id]
    await world.decide_and_advance(run_id, no)
    assert await world.result(run_id) == "False by zoe via None: None"


# --- votes -----------------------------------------------------------------------------------------------------


def vote(by: str, approved: bool = True, **said: Any) -> Decision:
    return Decision(approved=approved, by=by, **said)


async def test_two_of_three_decide_and_the_workflow_learns_what_everybody_said(world: World) -> None:
    run_id = await world.begin(asks_three)
    await world.decide_and_advance(run_id, vote("ada", comment="fine", data={"text": "a"}, way="link"))
    asked = (await world.store.get(run_id)).open_approvals[0]
    assert [(one.by, one.approved, one.comment, one.way) for one in asked.votes] == [("ada", True, "fine", "link")]
    await world.decide_and_advance(run_id, vote("eve"))
    assert await world.result(run_id) == [True, "ada: True, fine, {'text': 'a'}", "eve: True, None, None"]
    assert (await world.store.get(run_id)).open_approvals == ()
    events = [one for one in (await world.store.load(run_id)).history if isinstance(one, ApprovalVoted)]
    assert [(one.by, one.comment, one.way) for one in events] == [("ada", "fine", "link"), ("eve", None, None)]


async def test_two_voters_at_the_same_moment_both_count(world: World) -> None:
    run_id = await world.begin(asks_three)
    await asyncio.gather(world.decide(run_id, vote("ada")), world.decide(run_id, vote("bob")))
    await world.app.advance(run_id)
    assert (await world.result(run_id))[0] is True


async def test_a_person_has_one_vote_however_often_and_however_written(world: World) -> None:
    run_id = await world.begin(asks_three)
    for advance_between in (False, True, True):
        for name in ("ada", "Ada", " ada "):
            assert await world.decide(run_id, vote(name)) == "boss"
            with pytest.raises(ApprovalConflictError):
                await world.decide(run_id, vote(name, False))
        if advance_between:
            await world.app.advance(run_id)
    assert len((await world.store.get(run_id)).open_approvals[0].votes) == 1
    await world.decide_and_advance(run_id, vote("bob"))
    for later in (vote("ada"), vote("bob"), vote("eve")):
        assert await world.decide(run_id, later) == "boss"
    with pytest.raises(ApprovalConflictError, match="'ada' has voted to approve"):
        await world.decide(run_id, vote("ada", False))
    with pytest.raises(ApprovalConflictError, match="is already approved"):
        await world.decide(run_id, vote("eve", False))


async def test_one_rejection_rejects_unless_there_is_no_veto(world: World) -> None:
    run_id = await world.begin(asks_three)
    await world.decide_and_advance(run_id, vote("ada"))
    await world.decide_and_advance(run_id, vote("bob", False, comment="no"))
    assert await world.result(run_id) == [False, "ada: True, None, None", "bob: False, no, None"]

    run_id = await world.begin(asks_most_of_three)
    await world.decide_and_advance(run_id, vote("bob", False))
    await world.decide_and_advance(run_id, vote("ada"))
    assert (await world.store.get(run_id)).status is Status.PAUSED
    await world.decide_and_advance(run_id, vote("eve"))
    assert await world.result(run_id) == [True, "bob: False", "ada: True", "eve: True"]

    run_id = await world.begin(asks_most_of_three)
    await world.decide_and_advance(run_id, vote("bob", False))
    await world.decide_and_advance(run_id, vote("eve", False))
    assert await world.result(run_id) == [False, "bob: False", "eve: False"]


async def test_without_approvers_any_two_people_are_a_quorum_but_they_must_say_who_they_are(world: World) -> None:
    run_id = await world.begin(asks_any_two)
    with pytest.raises(InvalidInputError, match="who decides"):
        await world.decide(run_id, Decision(approved=True))
    await world.decide_and_advance(run_id, vote("x"))
    await world.decide_and_advance(run_id, vote("y"))
    assert await world.result(run_id) == ["x", "y"]


async def test_votes_that_were_cast_in_time_count_and_later_ones_are_refused(world: World) -> None:
    run_id = await world.begin(asks_any_two)
    await world.decide(run_id, vote("x"))
    world.clock.move_to(START + HOUR)
    with pytest.raises(ApprovalClosedError, match="has expired"):
        await world.decide(run_id, vote("y"))
    assert await world.decide(run_id, vote("x")) == "boss"


async def test_how_a_question_stands_is_told_while_it_is_open_and_afterwards(world: World) -> None:
    run_id = await world.begin(asks_three)
    now = world.clock.now()
    found = await standing(world.store, run_id, "boss", now=now)
    assert found is not None
    assert (found.is_open, found.approved) == (True, None)
    this = (found.run.generation, found.approval.id)
    await world.decide_and_advance(run_id, vote("ada"))
    await world.decide_and_advance(run_id, vote("bob", False))
    found = await standing(world.store, run_id, "boss", now=now, question=this)
    assert found is not None
    assert (found.is_open, found.approved) == (False, False)
    assert [one.by for one in found.approval.votes] == ["ada", "bob"]
    assert await standing(world.store, run_id, "boss", now=now, question=(this[0] + 1, this[1])) is None
    assert await standing(world.store, run_id, "law", now=now) is None
    assert await standing(world.store, "nobody", "boss", now=now) is None


async def test_a_decision_for_one_question_never_decides_its_successor_under_the_same_key(world: World) -> None:
    run_id = await world.begin(asks_until_yes)
    first = (await world.store.get(run_id)).open_approvals[0].id
    await world.decide_and_advance(run_id, NO, "draft")
    with pytest.raises(ApprovalConflictError, match="is already rejected"):
        await world.app.decide(run_id, "draft", YES, question=(0, first))
    with pytest.raises(ApprovalClosedError, match="no longer open"):
        await world.app.decide(run_id, "draft", YES, question=(7, first))
    assert await world.decisions(run_id) == [False]
    assert await world.store.inbox(run_id) == []
