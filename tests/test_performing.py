"""Attempts that are calls of their own, one delivery at a time: which count, which are ignored, which are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, activity_context, workflow
from tinyworkflow_core.advance import Progress
from tinyworkflow_core.dispatcher import Advance, Perform, Task
from tinyworkflow_core.errors import WorkflowFailedError
from tinyworkflow_core.store import Message, MessageKind
from tinyworkflow_core.testing import START, WorkflowEnvironment

LOG: list[Any] = []
STEADY = RetryPolicy(max_retries=3, initial_delay=10, jitter=False)


@activity(run_on="queue", timeout="1m", retry_policy=STEADY)
async def away(how: str = "works") -> str:
    context = activity_context()
    LOG.append((how, context.attempt, context.last_heartbeat))
    context.heartbeat(f"as far as {context.attempt}")
    await asyncio.sleep(0.02)  # so that another call can come meanwhile
    if how == "fails" or (how == "fails once" and context.attempt == 1):
        raise ValueError("no")
    return f"attempt {context.attempt}"


@workflow
async def far(ctx: WorkflowContext, how: str = "works") -> str:
    return await ctx.execute_activity(away, how)


@workflow
async def brittle(ctx: WorkflowContext, how: str) -> str:
    return await ctx.execute_activity(away.options(retry_policy=RetryPolicy(max_retries=0)), how)


@workflow
async def listening(ctx: WorkflowContext, how: str) -> Any:
    result = asyncio.create_task(ctx.execute_activity(away, how))
    heard = await ctx.wait_for_signal("word")
    return heard, await result


@activity
async def step(number: int) -> int:
    await STEPS[number]()
    return number


STEPS: dict[int, Any] = {}


@workflow
async def beside(ctx: WorkflowContext) -> Any:
    return await asyncio.gather(
        ctx.execute_activity(away), ctx.execute_activity(step, 1), ctx.execute_activity(step, 2)
    )


VARIANTS = {
    "none": activity(run_on="queue", name="patient")(away.fn),
    "total": away.options(total_timeout="2m"),
    "total is less": away.options(total_timeout="10s"),
}


@workflow
async def variant(ctx: WorkflowContext, name: str) -> str:
    return await ctx.execute_activity(VARIANTS[name])


async def _is_at_work() -> bool:
    return bool(LOG)


class Held:
    """An environment whose platform makes no calls by itself: each is made by the test."""

    def __init__(self) -> None:
        self.env = WorkflowEnvironment([far, brittle, listening, beside, variant])
        self.asked: list[Task] = []
        self.env._world.ask_for = lambda task, at: self.asked.append(task)  # type: ignore[method-assign]  # see above
        self.app = self.env._processes[0].app

    def performs(self) -> list[Perform]:
        """What was asked for since the last look."""
        found = [one for one in self.asked if isinstance(one, Perform)]
        self.asked.clear()
        return found

    async def begin(self, workflow: Any, input_data: Any = None) -> tuple[str, Perform]:
        """A run whose activity is out."""
        run_id = await self.env.start(workflow, input_data)
        await self.app.advance(run_id)
        [call] = self.performs()
        return run_id, call

    def later(self, seconds: float) -> None:
        self.env.clock.move_to(self.env.clock.now() + timedelta(seconds=seconds))

    async def ends(self, run_id: str) -> list[tuple[str, int]]:
        """How attempts ended, by the history."""
        events = await self.env.events(run_id, "ActivityCompleted", "ActivityFailed", "ActivityCancelled")
        return [(one["type"], one.get("attempt", 0)) for one in events]

    async def wake_at(self, run_id: str) -> datetime | None:
        run = await self.env.store.get(run_id)
        assert run is not None
        return run.wake_at


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    LOG.clear()
    made = Held()
    yield made
    await made.env.close()


# --- one attempt, and its answer -----------------------------------------------------------------------


async def test_an_attempt_is_handed_out_with_the_history_and_its_outcome_wakes_the_run(held: Held) -> None:
    run_id, call = await held.begin(far)
    assert call == Perform(run_id=run_id, generation=0, activity_id=1, attempt=1)
    [scheduled] = await held.env.events(run_id, "ActivityScheduled")
    assert scheduled["deadline"] == (START + timedelta(seconds=90)).isoformat()
    assert await held.wake_at(run_id) == START + timedelta(seconds=90)
    assert LOG == []
    assert await held.app.perform(call) is Progress.RELEASED
    assert held.asked == [Advance(run_id=run_id)]
    assert await held.app.advance(run_id) is Progress.CLOSED
    assert await held.ends(run_id) == [("ActivityCompleted", 1)]


async def test_a_call_for_which_nobody_waits_is_answered_without_an_attempt(held: Held) -> None:
    run_id, call = await held.begin(far)
    for other in (
        Perform(run_id=run_id, generation=1, activity_id=1, attempt=1),
        Perform(run_id=run_id, generation=0, activity_id=2, attempt=1),
        Perform(run_id=run_id, generation=0, activity_id=1, attempt=2),
    ):
        assert await held.app.perform(other) is Progress.CLOSED
    assert await held.app.perform(Perform(run_id="nobody", generation=0, activity_id=1, attempt=1)) is Progress.UNKNOWN
    assert LOG == []
    await held.app.perform(call)
    await held.app.advance(run_id)
    assert await held.app.perform(call) is Progress.CLOSED
    assert len(LOG) == 1


async def test_an_activity_that_is_made_here_cannot_be_called_for(held: Held) -> None:
    @workflow
    async def here(ctx: WorkflowContext) -> Any:
        await ctx.wait_for_signal("on")
        return await ctx.execute_activity(away.options(run_on="here"))

    async with WorkflowEnvironment([here]) as env:
        run_id = await env.start(here)
        await env.run()
        call = Perform(run_id=run_id, generation=0, activity_id=1, attempt=1)
        assert await env._processes[0].app.perform(call) is Progress.CLOSED


async def test_of_two_calls_for_one_attempt_the_first_to_end_counts(held: Held) -> None:
    run_id, call = await held.begin(far)
    answers = await asyncio.gather(held.app.perform(call), held.app.perform(call))
    assert set(answers) == {Progress.RELEASED}
    assert len(LOG) == 2
    assert len(await held.env.store.inbox(run_id)) == 1
    await held.app.advance(run_id)
    assert await held.ends(run_id) == [("ActivityCompleted", 1)]


async def test_a_second_call_that_ends_after_the_first_was_taken_up_changes_nothing(held: Held) -> None:
    run_id, call = await held.begin(listening, "works")
    first = asyncio.create_task(held.app.perform(call))
    await eventually(_is_at_work)
    await asyncio.gather(first, held.app.perform(call))
    [outcome] = await held.env.store.inbox(run_id)
    await held.app.advance(run_id)
    await held.env.store.deliver(run_id, outcome)  # the second one's, under the same id
    await held.app.advance(run_id)
    assert await held.ends(run_id) == [("ActivityCompleted", 1)]
    assert await held.env.store.inbox(run_id) == []


async def test_a_failed_attempt_is_handed_out_again_when_the_policy_says(held: Held) -> None:
    run_id, call = await held.begin(far, "fails once")
    await held.app.perform(call)
    await held.app.advance(run_id)
    assert held.performs() == []
    assert await held.wake_at(run_id) == START + timedelta(seconds=10)
    assert (await held.env.status(run_id)).status == "retrying"
    held.later(10)
    await held.app.advance(run_id)
    [again] = held.performs()
    assert again.attempt == 2
    assert (await held.env.status(run_id)).status == "waiting"
    await held.app.perform(again)
    await held.app.advance(run_id)
    assert LOG == [("fails once", 1, None), ("fails once", 2, "as far as 1")]
    assert await held.ends(run_id) == [("ActivityFailed", 1), ("ActivityCompleted", 2)]


async def test_a_call_that_is_cut_off_says_nothing_and_leaves_no_outcome(held: Held) -> None:
    run_id, call = await held.begin(far)
    performing = asyncio.create_task(held.app.perform(call))
    await eventually(_is_at_work)
    performing.cancel()
    await asyncio.wait([performing])
    assert await held.env.store.inbox(run_id) == []


# --- deadlines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["works", "fails once"])
async def test_an_outcome_that_waits_in_the_inbox_wins_over_a_deadline_that_has_passed(held: Held, how: str) -> None:
    run_id, call = await held.begin(far, how)
    await held.app.perform(call)
    held.later(3600)  # nobody came to look
    await held.app.advance(run_id)
    assert await held.ends(run_id) == [("ActivityCompleted" if how == "works" else "ActivityFailed", 1)]
    if how == "fails once":
        [failed] = await held.env.events(run_id, "ActivityFailed")
        assert failed["error"]["type"] == "ValueError"
        assert failed["retry_at"] == (START + timedelta(seconds=10)).isoformat()  # as the policy said when it failed
        assert [one.attempt for one in held.performs()] == [2]


async def test_the_outcomes_of_a_wide_fan_out_all_win_over_their_deadline(held: Held) -> None:
    @workflow
    async def wide(ctx: WorkflowContext) -> int:
        return len(await ctx.execute_parallel(*((away,) for _ in range(250))))

    held.app.registry.add(wide)
    run_id = await held.env.start(wide)
    await held.app.advance(run_id)
    first, *others = held.performs()
    await held.app.perform(first)
    [outcome] = await held.env.store.inbox(run_id)
    for call in others:
        body = {"event": {**outcome.body["event"], "id": call.activity_id}}
        message_id = f"activity/0/{call.activity_id}/1/0"
        await held.env.store.deliver(run_id, replace(outcome, id=message_id, body=body))
    held.later(3600)
    await held.app.advance(run_id)
    assert (await held.env.status(run_id)).output_data == {"result": 250}
    assert await held.env.events(run_id, "ActivityFailed") == []


async def test_a_stale_outcome_does_not_keep_a_lost_attempt_from_being_found(held: Held) -> None:
    run_id, call = await held.begin(far, "fails once")
    await held.app.perform(call)
    [outcome] = await held.env.store.inbox(run_id)
    held.later(10)
    await held.app.advance(run_id)
    assert [one.attempt for one in held.performs()] == [2]
    await held.env.store.deliver(run_id, outcome)
    held.later(90)
    await held.app.advance(run_id)
    assert [one.attempt for one in held.performs()] == [3]


async def test_an_outcome_that_the_holder_was_not_told_of_wins_over_the_deadline(held: Held) -> None:
    run_id = await held.env.start(beside)
    call = Perform(run_id=run_id, generation=0, activity_id=1, attempt=1)
    first_has_ended = asyncio.Event()

    async def until_just_before() -> None:
        held.later(89.5)
        asyncio.get_running_loop().call_later(0.05, first_has_ended.set)

    async def over_the_deadline() -> None:
        await first_has_ended.wait()
        await held.env._processes[1].app.perform(call)
        held.later(1)

    STEPS.update({1: until_just_before, 2: over_the_deadline})
    await held.app.advance(run_id)
    assert sorted(await held.ends(run_id)) == [("ActivityCompleted", 1)] * 3


async def test_the_deadline_of_an_attempt_is_watched_by_whoever_picks_the_run_up(held: Held) -> None:
    run_id, call = await held.begin(listening, "fails once")
    await held.app.perform(call)
    held.later(10)
    await held.app.advance(run_id)
    [lost] = held.performs()
    assert lost.attempt == 2
    await held.env.signal(run_id, "word", "hello")  # somebody else picks it up, long before the deadline
    await held.env._processes[1].app.advance(run_id)
    assert await held.wake_at(run_id) == START + timedelta(seconds=10 + 90)
    held.later(90)
    await held.app.advance(run_id)
    assert [one.attempt for one in held.performs()] == [3]


async def test_the_late_outcome_of_an_attempt_that_was_given_up_is_ignored(held: Held) -> None:
    run_id, call = await held.begin(far)
    await held.app.perform(call)
    [late] = await held.env.store.inbox(run_id)
    async with WorkflowEnvironment([far]) as other:  # where the outcome takes its time
        await other.start(far, run_id=run_id)
        app = other._processes[0].app
        await app.advance(run_id)
        other.clock.move_to(START + timedelta(seconds=90))
        await app.advance(run_id)
        [lost] = await other.events(run_id, "ActivityFailed")
        assert (lost["attempt"], lost["error"]["type"]) == (1, "TimeoutError")
        await other.store.deliver(run_id, late)
        await app.advance(run_id)
        assert (await other.status(run_id)).status == "waiting"
        assert await other.events(run_id, "ActivityCompleted") == []
        assert await other.result(run_id) == "attempt 2"


async def test_a_call_without_a_timeout_is_lost_after_an_hour_and_one_with_a_total_timeout_when_that_is_over(
    held: Held,
) -> None:
    deadlines = {}
    for name in VARIANTS:
        run_id, _ = await held.begin(variant, name)
        deadlines[name] = (await held.wake_at(run_id) or START) - START
    assert deadlines == {
        "none": timedelta(hours=1),
        "total": timedelta(seconds=90),
        "total is less": timedelta(seconds=40),
    }


async def test_lost_attempts_count_against_the_total_timeout_from_when_the_first_was_handed_out(held: Held) -> None:
    run_id, _ = await held.begin(variant, "total")
    held.later(90)
    await held.app.advance(run_id)
    assert [one.attempt for one in held.performs()] == [2]
    assert await held.wake_at(run_id) == START + timedelta(seconds=90 + 30 + 30)  # half a minute is left, and the way
    held.later(60)
    await held.app.advance(run_id)
    assert held.performs() == []
    assert (await held.env.status(run_id)).status == "failed"
    assert LOG == []


async def test_lost_attempts_are_made_again_as_often_as_the_policy_says(held: Held) -> None:
    run_id, _ = await held.begin(far)
    for number in (2, 3, 4):
        held.later(90)
        await held.app.advance(run_id)
        assert [one.attempt for one in held.performs()] == [number]
    held.later(90)
    assert await held.app.advance(run_id) is Progress.CLOSED
    with pytest.raises(WorkflowFailedError, match="TimeoutError: activity 'away': nothing was heard of attempt 4"):
        await held.env.result(run_id)


# --- retries of the run ---------------------------------------------------------------------------------


async def test_the_late_outcome_of_an_attempt_before_the_run_was_retried_is_ignored(held: Held) -> None:
    run_id, call = await held.begin(brittle, "fails")
    await held.app.perform(call)
    [late] = await held.env.store.inbox(run_id)
    await held.app.advance(run_id)
    assert (await held.env.status(run_id)).status == "failed"
    await held.env.client.retry_workflow(run_id)
    await held.app.advance(run_id)
    [again] = held.performs()
    assert again.attempt == 1
    await held.env.store.deliver(run_id, late)
    await held.app.advance(run_id)
    assert (await held.env.status(run_id)).status == "waiting"
    await held.app.perform(again)
    await held.app.advance(run_id)
    assert (await held.env.status(run_id)).status == "failed"
    assert [attempt for _, attempt, _ in LOG] == [1, 1]


async def test_a_message_that_names_another_kind_of_step_is_ignored(held: Held) -> None:
    run_id, call = await held.begin(listening, "works")
    await held.app.perform(call)
    [outcome] = await held.env.store.inbox(run_id)
    for message_id in ("activity/0/2/1/0", "activity/0/7/1/0", "activity/3/1/1/0"):
        forged = Message(id=message_id, kind=MessageKind.ACTIVITY, received_at=START, body=outcome.body)
        await held.env.store.deliver(run_id, forged)
    await held.app.advance(run_id)
    assert await held.ends(run_id) == [("ActivityCompleted", 1)]
    assert await held.env.store.inbox(run_id) == []
