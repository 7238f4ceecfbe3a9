"""WorkflowEnvironment: time moves when told to, processes die and deliveries come twice for real, and a test that
waits in vain is told why."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest

from tinyworkflow_core import RetryPolicy, WorkflowContext, WorkflowFailedError, activity, workflow
from tinyworkflow_core.cron import IntervalSchedule
from tinyworkflow_core.dispatcher import Advance
from tinyworkflow_core.errors import (
    ConfigurationError,
    RunClosedError,
    RunStateError,
    UnknownWorkflowError,
    UpdateRejectedError,
    WorkflowCancelledError,
)
from tinyworkflow_core.registry import ActivityDefinition
from tinyworkflow_core.store import GRACE, Commit, Delivery, Lease, Message, MessageKind, Run, Taken
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import (
    START,
    SimulatedCrash,
    VirtualClock,
    WorkflowEnvironment,
    environment,
    four_ways,
    platform,
)

CALLS: Counter[str] = Counter()


@activity
async def note(what: str) -> str:
    CALLS[what] += 1
    return what


@workflow
async def monthly(ctx: WorkflowContext) -> list[str]:
    done = []
    for day in range(30):
        done.append(await ctx.execute_activity(note, f"day {day}"))
        await asyncio.sleep(86_400)
    return done


@workflow
async def listens(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_signal("word")


@workflow
async def naps(ctx: WorkflowContext, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return await ctx.execute_activity(note, f"after {seconds:g}")


@workflow
async def asks(ctx: WorkflowContext) -> str:
    answer = await ctx.wait_for_approval("boss")
    return f"{answer.approved} by {answer.by}"


@workflow
async def looks_in_every_day(ctx: WorkflowContext) -> None:
    while True:  # noqa: ASYNC110  # a durable timer
        await asyncio.sleep(86_400)


@workflow
async def breaks(ctx: WorkflowContext) -> None:
    raise ValueError("broken")


@workflow
async def listens_for_an_hour(ctx: WorkflowContext) -> Any:
    try:
        return await ctx.wait_for_signal("word", timeout="1h")
    except TimeoutError:
        return "nothing was said"


@workflow
async def sends_for_a_child(ctx: WorkflowContext) -> str:
    return str(await ctx.execute_child(naps, 3600))


@workflow
async def counts(ctx: WorkflowContext) -> int:
    count = 0

    def positive(by: int) -> None:
        if by < 1:
            raise ValueError(f"{by} is not positive")

    async def add(by: int) -> int:
        nonlocal count
        await ctx.execute_activity(note, f"add {by}")
        if by == 7:
            raise TimeoutError("not seven")
        if by > 100:
            await asyncio.sleep(3600)
        if by > 200:
            await ctx.wait_for_signal("go on")
        count += by
        return count

    ctx.on_query("count", lambda plus=0: count + plus)
    ctx.on_update("add", add, positive)
    await ctx.wait_for_signal("stop")
    return count


BROKEN: set[str] = set()


@activity(retry_policy=RetryPolicy(max_retries=0))
async def pay(what: str) -> str:
    if BROKEN:
        raise ConnectionError("the bank is away")
    return f"{what} paid"


@workflow
async def buys(ctx: WorkflowContext) -> list[str]:
    return [await ctx.execute_activity(note, "bought"), await ctx.execute_activity(pay, "it")]


@workflow
async def pays_later(ctx: WorkflowContext) -> str:
    paid = await ctx.execute_activity(pay, "it")
    await asyncio.sleep(3600)
    return paid


WORKFLOWS = (monthly, listens, naps, asks, looks_in_every_day, breaks, note)
MORE = (listens_for_an_hour, sends_for_a_child, naps, counts, buys, pays_later, listens)


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    CALLS.clear()
    BROKEN.clear()


@pytest.fixture
async def env() -> AsyncIterator[WorkflowEnvironment]:
    async with WorkflowEnvironment(WORKFLOWS) as environment:
        yield environment


def hours(env: WorkflowEnvironment) -> float:
    return (env.clock.now() - START).total_seconds() / 3600


# --- time ----------------------------------------------------------------------------------------------


def test_a_virtual_clock_stands_still_and_is_never_moved_back() -> None:
    clock = VirtualClock()
    assert clock.now() == clock.now() == START
    clock.move_to(START + timedelta(days=1))
    clock.move_to(START)
    assert clock.now() == START + timedelta(days=1)
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert VirtualClock(noon).now() == noon


async def test_a_month_takes_a_moment(env: WorkflowEnvironment) -> None:
    began = time.monotonic()
    run_id = await env.start(monthly)
    assert await env.result(run_id) == [f"day {day}" for day in range(30)]
    took = time.monotonic() - began
    assert hours(env) == 30 * 24
    assert set(CALLS.values()) == {1}
    assert took < 3  # usually a tenth of one, on an idle machine
    print(f"\n30 days took {1000 * took:.0f} ms")


async def test_time_begins_when_told_and_passes_only_when_told() -> None:
    start = datetime(2030, 6, 1, tzinfo=UTC)
    async with WorkflowEnvironment(WORKFLOWS, start=start) as env:
        run_id = await env.start(naps, 3600)
        await env.run()
        await env.run()
        assert env.clock.now() == start
        assert (await env.status(run_id)).status == "waiting"
        assert (await env.status(run_id)).created_at == start


async def test_advance_stops_at_every_moment_at_which_something_is_due(env: WorkflowEnvironment) -> None:
    seen: list[tuple[str, float]] = []

    async def look(what: str) -> str:
        seen.append((what, hours(env)))
        return what

    env._platform.fakes["note"] = look
    env.lose_everything()
    for nap in (7200, 3600, 10_800, 360_000):
        await env.start(naps, nap)
    await env.advance("2h")
    assert seen == [("after 3600", 1), ("after 7200", 2)]
    await env.advance(timedelta(hours=1))
    assert seen[2:] == [("after 10800", 3)]
    await env.advance(1800)
    assert hours(env) == 3.5


async def test_result_skips_the_waits_and_gives_what_came_of_it(env: WorkflowEnvironment) -> None:
    assert await env.result(await env.start(naps, 7200)) == "after 7200"
    assert hours(env) == 2
    with pytest.raises(WorkflowFailedError, match="broken") as raised:
        await env.result(await env.start("breaks"))
    assert isinstance(raised.value.__cause__, ValueError)
    cancelled = await env.start(listens)
    await env.cancel(cancelled, "enough")
    with pytest.raises(WorkflowCancelledError):
        await env.result(cancelled)
    assert hours(env) == 2


# --- what a test may do --------------------------------------------------------------------------------


async def test_a_test_starts_signals_decides_and_looks(env: WorkflowEnvironment) -> None:
    listener, asker = await env.start(listens, run_id="mine"), await env.start("asks", attributes={"for": "ada"})
    assert listener == "mine"
    await env.run()
    assert [(await env.status(one)).status for one in (listener, asker)] == ["waiting", "paused"]
    assert (await env.status(asker)).attributes == {"for": "ada"}
    await env.signal(listener, "word", {"n": 1})
    await env.decide(asker, approved=False, by="ada")
    assert (await env.status(listener)).status == "waiting"  # a call was asked for; `run` makes it
    assert await env.result(listener) == {"n": 1}
    assert await env.result(asker) == "False by ada"
    types = [one["type"] for one in await env.events(asker)]
    assert types == ["RunStarted", "ApprovalRequested", "ApprovalDecided", "RunCompleted"]
    assert [one["by"] for one in await env.events(asker, "ApprovalDecided", "RunFailed")] == ["ada"]


async def test_an_activity_is_replaced_by_its_name() -> None:
    async def fake(what: str) -> str:
        return what.upper()

    def fake_in_a_thread(what: str) -> str:
        return what.title()

    for function, result in ((fake, "AFTER 1"), (fake_in_a_thread, "After 1")):
        async with WorkflowEnvironment(WORKFLOWS, activities={"note": function}) as env:
            assert await env.result(await env.start(naps, 1)) == result
    assert not CALLS


async def test_a_run_that_the_client_started_is_known_as_well(env: WorkflowEnvironment) -> None:
    run_id = await env.client.start_workflow(naps, 3600)
    env.lose_everything()
    await env.run()
    env.lose_everything()
    await env.advance("2h")
    assert (await env.status(run_id)).status == "completed"


async def test_a_start_that_was_refused_leaves_the_environment_usable(env: WorkflowEnvironment) -> None:
    with pytest.raises(UnknownWorkflowError):
        await env.start("no such workflow")
    await env.advance("1h")
    assert await env.result(await env.start(naps, 1)) == "after 1"


async def test_an_environment_closes_its_own_store_and_no_other() -> None:
    store = open_store("sqlite:///:memory:")
    for _ in range(2):
        async with WorkflowEnvironment(WORKFLOWS, store=store) as env:
            await env.result(await env.start(naps, 1))
    assert len(await env.client.list_workflow_executions()) == 2
    await store.close()


# --- fakes ---------------------------------------------------------------------------------------------


async def test_a_fake_stands_for_an_activity_or_for_its_name() -> None:
    fakes: dict[ActivityDefinition[Any, Any], Any] = {note: lambda what: what.upper()}
    async with WorkflowEnvironment(WORKFLOWS, activities=fakes) as env:
        assert await env.result(await env.start(naps, 1)) == "AFTER 1"
    async with WorkflowEnvironment(MORE, activities={note: lambda what: what.title(), "pay": lambda what: what}) as env:
        assert await env.result(await env.start(buys)) == ["Bought", "it"]
    assert not CALLS


async def test_a_mock_is_a_fake_that_counts_and_an_activity_may_be_one() -> None:
    mock = AsyncMock(side_effect=[ConnectionError("once"), "it worked"])
    async with WorkflowEnvironment(WORKFLOWS, activities={note: mock}) as env:
        assert await env.result(await env.start(naps, 1)) == "it worked"
    assert [one.args for one in mock.await_args_list] == [("after 1",), ("after 1",)]
    async with WorkflowEnvironment(WORKFLOWS, activities={note: pay}) as env:
        assert await env.result(await env.start(naps, 1)) == "after 1 paid"


async def test_a_fake_for_a_variant_of_an_activity_is_called_for_all_of_that_name() -> None:
    async with WorkflowEnvironment(WORKFLOWS, activities={note.options(timeout="1s"): lambda what: "faked"}) as env:
        assert await env.result(await env.start(naps, 1)) == "faked"


@pytest.mark.parametrize(
    ("fakes", "problem"),
    [
        ({"noet": print}, r"activities: no activity 'noet' is declared; did you mean 'note'"),
        ({"xyzzy plugh": print}, r"no activity 'xyzzy plugh' is declared; declared: .*note"),
        ({note: "done"}, "the fake for 'note' is called in its place, and 'done' cannot be called"),
        ({note: print, "note": print}, "there are two fakes for 'note'"),
        ({len: print}, "a fake stands for an activity or for its name, not for .*; put @activity on 'len'"),
        ({7: print}, "a fake stands for an activity or for its name, not for 7$"),
    ],
    ids=["near", "far", "no function", "twice", "plain function", "number"],
)
def test_a_fake_that_would_never_be_called_is_refused(fakes: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        WorkflowEnvironment(WORKFLOWS, activities=fakes)


# --- what operators do ---------------------------------------------------------------------------------


async def test_a_failed_run_is_retried_whatever_is_lost() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        CALLS.clear()
        BROKEN.add("bank")
        run_id = await env.start(buys)
        with pytest.raises(WorkflowFailedError, match="the bank is away"):
            await env.result(run_id)
        BROKEN.clear()
        await env.retry(run_id)
        assert await env.result(run_id) == ["bought", "it paid"]
        assert (await env.status(run_id)).retry_count == 1
        if env.plain:
            assert CALLS == {"bought": 1}
        with pytest.raises(RunStateError):
            await env.retry(run_id)

    assert await four_ways(scenario, MORE) > 5


async def test_a_run_is_suspended_resumed_and_terminated_whatever_is_lost() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(listens)
        await env.run()
        await env.suspend(run_id, "a moment")
        await env.run()
        assert (await env.status(run_id)).status == "suspended"
        await env.signal(run_id, "word", 1)
        with pytest.raises(AssertionError, match="is suspended and nothing will wake it"):
            await env.result(run_id)
        await env.resume(run_id)
        assert await env.result(run_id) == 1
        assert env.clock.now() == START or env.crashed

        run_id = await env.start(listens)
        await env.run()
        await env.terminate(run_id, "enough")
        await env.run()
        assert (await env.status(run_id)).status == "terminated"
        with pytest.raises(RunClosedError):
            await env.terminate(run_id)

    assert await four_ways(scenario, MORE) > 10


async def test_a_run_that_is_suspended_and_resumed_at_one_moment_goes_on() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(listens)
        await env.run()
        for _ in range(3):
            await env.suspend(run_id)
            await env.resume(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "waiting"
        await env.suspend(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "suspended"
        await env.resume(run_id)
        await env.suspend(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "suspended"

    await four_ways(scenario, MORE)


async def test_a_request_that_was_never_made_is_not_taken_for_granted(env: WorkflowEnvironment) -> None:
    run_id = await env.start(naps, 1)
    await env.result(run_id)
    env.kill()  # nobody is there to hear the first try
    with pytest.raises(RunStateError):
        await env.retry(run_id)
    env.kill()
    with pytest.raises(RunClosedError):
        await env.terminate(run_id)


async def test_a_run_is_forked_whatever_is_lost_and_what_is_answered_is_made_once() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(naps, 3600)
        assert await env.result(run_id) == "after 3600"
        forked = await env.fork(run_id, 1, 60)
        assert forked != run_id
        assert await env.result(forked) == "after 60"
        if not env.crashed:
            assert len(await env.client.list_workflow_executions()) == 2

    assert await four_ways(scenario, WORKFLOWS) > 5


# --- asking a run --------------------------------------------------------------------------------------


async def test_a_run_is_asked_and_updated_whatever_is_lost() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        CALLS.clear()
        run_id = await env.start(counts)
        await env.run()
        assert await env.query(run_id, "count") == 0
        assert await env.update(run_id, "add", 3) == 3
        assert await env.update(run_id, "add", 4, update_id="four") == 7
        assert await env.update(run_id, "add", 4, update_id="four") == 7
        with pytest.raises(UpdateRejectedError, match="0 is not positive"):
            await env.update(run_id, "add", 0)
        assert await env.query(run_id, "count") == 7
        assert await env.query(run_id, "count", 10) == 17
        assert await env.query(run_id, "count", plus=10) == 17
        if env.plain:
            assert CALLS == {"add 3": 1, "add 4": 1}
            assert env.clock.now() == START
        await env.signal(run_id, "stop")
        assert await env.result(run_id) == 7
        with pytest.raises(RunClosedError):
            await env.update(run_id, "add", 1)

    assert await four_ways(scenario, MORE) > 10


async def test_the_waits_of_an_updates_handler_are_skipped_and_its_errors_raised() -> None:
    async with WorkflowEnvironment(MORE) as env:
        run_id = await env.start(counts)
        assert await env.update(run_id, "add", 101) == 101
        assert hours(env) == 1
        with pytest.raises(TimeoutError, match="not seven"):
            await env.update(run_id, "add", 7, update_id="seven")
        with pytest.raises(TimeoutError, match="not seven"):
            await env.update(run_id, "add", 7, update_id="seven")
        assert hours(env) == 1
        with pytest.raises(AssertionError, match="nothing will wake it"):
            await env.update(run_id, "add", 201)
        assert hours(env) == 2


async def test_an_update_of_a_run_that_ends_without_answering_is_an_error() -> None:
    async with WorkflowEnvironment(MORE) as env:
        run_id = await env.start(counts)
        await env.run()
        await env.signal(run_id, "stop")
        with pytest.raises(RunClosedError):
            await env.update(run_id, "add", 1)


async def test_an_update_that_reaches_a_suspended_run_is_an_error_and_no_endless_test() -> None:
    async with WorkflowEnvironment(MORE) as env:
        run_id = await env.start(counts)
        await env.run()
        await env.suspend(run_id)
        await env.run()
        with pytest.raises(AssertionError, match="is suspended and nothing will wake it"):
            await env.update(run_id, "add", 1)


# --- wake-ups that are lost ----------------------------------------------------------------------------


async def test_a_message_whose_wake_up_was_lost_is_found_before_later_timers() -> None:
    async with WorkflowEnvironment(MORE) as env:
        run_id = await env.start(listens_for_an_hour)
        await env.run()
        await env.signal(run_id, "word", "hello")
        env.lose_everything()
        assert await env.result(run_id) == "hello"
        assert env.clock.now() == START + GRACE


async def test_a_message_that_nobody_told_of_is_found_where_nothing_else_is_due(env: WorkflowEnvironment) -> None:
    run_id = await env.start(listens)
    await env.run()
    message = Message(
        id="signal/1",
        kind=MessageKind.SIGNAL,
        received_at=env.clock.now(),
        body={"name": "word", "payload": env.client.codec.encode("hello")},
    )
    await env.store.deliver(run_id, message)
    assert await env.result(run_id) == "hello"
    assert env.clock.now() == START + GRACE


async def test_a_plain_world_looks_into_no_inbox_and_skips_no_time() -> None:
    store: Any = Counting()
    async with WorkflowEnvironment(MORE, store=store) as env:
        run_id, other = await env.start(listens_for_an_hour), await env.start(naps, 60)
        await env.run()
        await env.signal(run_id, "word", 1)
        assert await env.result(run_id) == 1
        assert env.clock.now() == START
        looked = store.asked["inbox"]
        await env.advance(59)
        assert store.asked["inbox"] == looked
        assert await env.result(other) == "after 60"
    await store.close()


async def test_a_message_for_a_suspended_run_makes_nothing_due_unless_it_steers() -> None:
    async with WorkflowEnvironment(MORE) as env:
        run_id = await env.start(listens)
        await env.run()
        await env.suspend(run_id)
        await env.run()
        await env.signal(run_id, "word", 1)
        env.lose_everything()
        with pytest.raises(AssertionError, match="is suspended and nothing will wake it"):
            await env.result(run_id)
        assert env.clock.now() == START
        await env.resume(run_id)
        env.lose_everything()
        assert await env.result(run_id) == 1
        assert env.clock.now() == START + GRACE


async def test_a_childs_word_reaches_its_parent_whatever_is_lost() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        assert await env.result(await env.start(sends_for_a_child)) == "after 3600"
        if env.plain:
            assert hours(env) == 1

    assert await four_ways(scenario, MORE) > 8


async def test_children_and_forks_are_known_after_the_loss_of_everything() -> None:
    async with WorkflowEnvironment(MORE) as env:
        run_id = await env.start(sends_for_a_child)
        await env.run()
        env.lose_everything()
        assert await env.result(run_id) == "after 3600"
        forked = await env.fork(await env.start(naps, 60), 1, 120)
        env.lose_everything()
        await env.advance("1h")
        assert (await env.status(forked)).status == "completed"


async def test_a_run_that_was_opened_again_is_known_after_the_loss_of_everything() -> None:
    async with WorkflowEnvironment(MORE) as env:
        BROKEN.add("bank")
        run_id = await env.start(pays_later)
        await env.advance("1h")
        assert (await env.status(run_id)).status == "failed"
        BROKEN.clear()
        await env.retry(run_id)
        await env.run()
        env.lose_everything()
        await env.advance("2h")
        assert (await env.status(run_id)).status == "completed"


async def test_runs_that_have_ended_are_not_read_again_while_time_passes() -> None:
    store: Any = Counting()
    async with WorkflowEnvironment(WORKFLOWS, store=store) as env:
        ended = {await env.start(naps, 1) for _ in range(3)}
        await env.advance("1h")
        store.read.clear()
        await env.start(naps, 60)
        await env.advance("1h")
        assert store.read
        assert not ended & store.read.keys()
    await store.close()


async def test_a_run_that_was_there_before_the_world_is_brought_to_its_end() -> None:
    store = open_store("sqlite:///:memory:")
    async with WorkflowEnvironment(WORKFLOWS, store=store) as env:
        run_id = await env.start(naps, 3600)
        await env.run()
    async with WorkflowEnvironment(WORKFLOWS, store=store) as env:
        assert await env.result(run_id) == "after 3600"
    await store.close()


# --- schedules -----------------------------------------------------------------------------------------


async def test_schedules_fire_while_time_passes_whatever_is_lost() -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        CALLS.clear()
        await env.schedule(naps, IntervalSchedule(timedelta(days=1), START + timedelta(days=1)), 60)
        assert env.writes >= 1
        await env.advance("3d")
        await env.advance("1m")
        runs = await env.client.list_workflow_executions()
        assert [(one.status, one.created_at - START) for one in runs] == [
            ("completed", timedelta(days=days)) for days in (3, 2, 1)
        ]
        if env.plain:
            assert CALLS == {"after 60": 3}

    assert await four_ways(scenario, WORKFLOWS) > 12


async def test_a_schedule_by_cron_expression_fires_at_its_time_and_a_crash_may_come_after_its_write() -> None:
    async with WorkflowEnvironment(WORKFLOWS, crash_after=1) as env:
        assert await env.schedule(naps, "0 12 * * *", 1, id="noon") == "noon"
        assert env.crashed
        await env.advance("1d")
        [run] = await env.client.list_workflow_executions()
        assert run.created_at == START.replace(hour=12)
        assert len(await env.schedules.list()) == 1


# --- processes that die --------------------------------------------------------------------------------


async def test_after_the_loss_of_everything_the_store_alone_goes_on(env: WorkflowEnvironment) -> None:
    run_id = await env.start(naps, 3600)
    before = list(env._processes)
    env.lose_everything()
    assert not env._world._queue
    assert not set(before) & set(env._processes)
    await env.run()
    assert (await env.status(run_id)).status == "waiting"
    env.lose_everything()
    assert await env.result(run_id) == "after 3600"
    assert CALLS["after 3600"] == 1


async def test_nothing_that_a_killed_process_does_is_written() -> None:
    async def deadly(what: str) -> str:
        CALLS[what] += 1
        if CALLS[what] == 1:
            world.kill()
        return what

    async with WorkflowEnvironment(WORKFLOWS, activities={"note": deadly}) as world:
        run_id = await world.start(naps, 1)
        assert await world.result(run_id) == "after 1"
        assert CALLS["after 1"] == 2
        types = [one["type"] for one in await world.events(run_id)]
        assert types == [
            "RunStarted", "TimerStarted", "TimerFired", "LeaseTaken", "ActivityCompleted", "RunCompleted",
        ]  # fmt: skip


# --- a test that waits in vain -------------------------------------------------------------------------


async def test_a_run_that_only_the_test_can_wake_is_an_error_that_says_so(env: WorkflowEnvironment) -> None:
    run_id = await env.start(listens, run_id="mine")
    with pytest.raises(AssertionError, match="run 'mine' is waiting and nothing will wake it"):
        await env.result(run_id)
    asked = await env.start(asks, run_id="asked")
    with pytest.raises(AssertionError, match="run 'asked' is paused and nothing will wake it"):
        await env.result(asked)


async def test_a_parked_run_is_an_error_that_tells_its_problem(env: WorkflowEnvironment) -> None:
    run_id = await env.start(naps, 3600)
    await env.run()
    env._platform.workflows = [listens]
    env.lose_everything()
    with pytest.raises(AssertionError, match=r"is parked and nothing will wake it; .*'naps'"):
        await env.result(run_id)


async def test_a_run_that_wakes_itself_for_ever_is_an_error_and_no_endless_test(
    env: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "MAX_WAITS", 50)
    run_id = await env.start(looks_in_every_day, run_id="mine")
    with pytest.raises(AssertionError, match="run 'mine' is still waiting after 50 waits: a run keeps waking itself"):
        await env.result(run_id)
    assert hours(env) == 24 * 50


async def test_another_run_that_wakes_itself_for_ever_does_not_hide_one_that_waits_in_vain(
    env: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "MAX_WAITS", 50)
    await env.start(looks_in_every_day)
    run_id = await env.start(listens, run_id="mine")
    with pytest.raises(AssertionError, match="run 'mine' is still waiting after 50"):
        await env.result(run_id)


async def test_calls_that_never_end_at_one_moment_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Insists:
        def __init__(self) -> None:
            self._store = open_store("sqlite:///:memory:")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def due(self, **options: Any) -> list[str]:
            return ["nobody"]

    monkeypatch.setattr(platform, "MAX_CALLS", 50)
    store: Any = Insists()
    async with WorkflowEnvironment(WORKFLOWS, store=store) as env:
        with pytest.raises(AssertionError, match="still calls to make after 50: a run keeps waking itself"):
            await env.run()
    await store.close()


async def test_a_run_that_there_is_not_is_an_error(env: WorkflowEnvironment) -> None:
    with pytest.raises(AssertionError, match="there is no run 'nobody'"):
        await env.result("nobody")


# --- four ways -----------------------------------------------------------------------------------------


class Counting:
    """A store that counts what is asked of it and what it has written."""

    def __init__(self) -> None:
        self._store = open_store("sqlite:///:memory:")
        self.asked: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def create(self, *args: Any) -> bool:
        self.asked["create"] += 1
        self.written += 1
        return await self._store.create(*args)

    async def acquire(self, *args: Any, **options: Any) -> Taken | None:
        self.asked["acquire"] += 1
        taken = await self._store.acquire(*args, **options)
        self.written += taken is not None
        return taken

    async def commit(self, lease: Lease, commit: Commit) -> None:
        self.asked["commit"] += 1
        await self._store.commit(lease, commit)
        self.written += 1

    async def get(self, run_id: str) -> Run | None:
        self.read[run_id] += 1
        return await self._store.get(run_id)

    async def inbox(self, run_id: str) -> Sequence[Message]:
        self.asked["inbox"] += 1
        return await self._store.inbox(run_id)

    async def deliver(self, run_id: str, message: Message) -> Delivery:
        self.asked["deliver"] += 1
        self.written += 1
        return await self._store.deliver(run_id, message)


async def four(env: WorkflowEnvironment) -> None:
    """Start, wait, decide, signal."""
    run_id = await env.start(asks)
    await env.run()
    await env.decide(run_id)
    assert await env.result(run_id) == "True by None"
    listener = await env.start(listens)
    await env.signal(listener, "word", 1)
    assert await env.result(listener) == 1


async def test_a_plain_environment_counts_its_writes_and_is_plain() -> None:
    store: Any = Counting()
    async with WorkflowEnvironment(WORKFLOWS, store=store) as env:
        await four(env)
        assert env.plain
        assert env.writes == store.written > 8
        assert store.asked["create"] == store.asked["deliver"] == 2
        assert store.asked["acquire"] == sum(env.hops.values())
        assert WorkflowEnvironment(WORKFLOWS, store=store, always_replay=True).plain
    await store.close()


async def test_with_duplicate_every_delivery_is_made_twice_and_every_call_by_two() -> None:
    plain: Any = Counting()
    twice: Any = Counting()
    async with WorkflowEnvironment(WORKFLOWS, store=plain) as env:
        await four(env)
        hops = Counter(env.hops)
    async with WorkflowEnvironment(WORKFLOWS, store=twice, duplicate=True) as env:
        await four(env)
        assert not env.plain
        assert sum(env.hops.values()) >= sum(hops.values())
    assert (twice.asked["create"], twice.asked["deliver"]) == (4, 4)
    assert twice.asked["acquire"] >= 2 * plain.asked["acquire"]
    for store in (plain, twice):
        await store.close()


async def test_a_crash_comes_right_after_the_write_and_only_once() -> None:
    for crash_after in range(1, 6):
        store: Any = Counting()
        async with WorkflowEnvironment(WORKFLOWS, store=store, crash_after=crash_after) as env:
            assert not env.plain
            processes = set(env._processes)
            run_id = await env.start(naps, 60)
            assert env.crashed == (crash_after == 1)
            assert await env.result(run_id) == "after 60"
            assert env.crashed
            assert len(processes - set(env._processes)) == 1
            assert env.writes == store.written
            types = [one["type"] for one in await env.events(run_id)]
            assert ("LeaseTaken" in types) == (crash_after in (2, 4, 5))  # the dead do not let go
            assert types[-1] == "RunCompleted"
        await store.close()


async def test_a_crash_that_never_comes_is_not_said_to_have_happened() -> None:
    async with WorkflowEnvironment(WORKFLOWS, crash_after=1000) as env:
        await four(env)
        assert not env.crashed


async def test_a_dead_process_does_nothing_more(env: WorkflowEnvironment) -> None:
    dead, task = env._processes[0].app, Advance(run_id="any")
    env.lose_everything()
    for call in (dead.client.start_workflow(listens), dead.tick(), dead.advance("any"), dead.dispatcher.dispatch(task)):
        with pytest.raises(SimulatedCrash):
            await call
    assert env.writes == 0


async def test_four_ways_are_plain_replayed_twice_and_with_a_crash_after_each_write() -> None:
    ways: list[str] = []
    writes: list[int] = []
    stores: list[Any] = []

    def counting() -> Any:
        stores.append(Counting())
        return stores[-1]

    async def scenario(env: WorkflowEnvironment) -> None:
        await four(env)
        ways.append(
            "twice" if env.duplicate else "replayed" if env.always_replay else "plain" if env.plain else "crash"
        )
        writes.append(env.writes)
        if ways[-1] == "crash":
            assert env.crashed

    crashes = await four_ways(scenario, WORKFLOWS, open_store=counting)
    assert ways[:3] == ["plain", "replayed", "twice"]
    assert set(ways[3:]) == {"crash"}
    assert crashes == writes[0]  # there is nothing more to crash after
    assert len(stores) == len(ways) == 3 + crashes
    assert all(store.written == count for store, count in zip(stores, writes, strict=True))


async def test_four_ways_hand_their_options_to_every_environment() -> None:
    async def fake(what: str) -> str:
        return "faked"

    async def scenario(env: WorkflowEnvironment) -> None:
        assert await env.result(await env.start(naps, 1)) == "faked"

    assert await four_ways(scenario, WORKFLOWS, activities={"note": fake}) > 3
    assert not CALLS


@pytest.mark.parametrize(
    ("fails", "way"),
    [
        (lambda env: env.plain and not env.always_replay, "plain"),
        (lambda env: env.always_replay, "reloaded before every step"),
        (lambda env: env.duplicate, "every delivery twice"),
        (lambda env: env.crashed and env._world.crash_after == 3, "crash after store write 3"),
    ],
    ids=["plain", "replayed", "twice", "crash"],
)
async def test_a_failing_assertion_says_which_way_it_was(fails: Any, way: str) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        await four(env)
        assert not fails(env), "what the test is about"

    with pytest.raises(AssertionError, match="what the test is about") as raised:
        await four_ways(scenario, WORKFLOWS)
    assert raised.value.__notes__ == [f"(this way: {way})"]
