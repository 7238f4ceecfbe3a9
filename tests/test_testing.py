"""WorkflowEnvironment: time moves when told to, processes die and deliveries come twice for real, and a test that
waits in vain is told why."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tinyworkflow_core import WorkflowContext, WorkflowFailedError, activity, testing, workflow
from tinyworkflow_core.dispatcher import Advance
from tinyworkflow_core.errors import UnknownWorkflowError, WorkflowCancelledError
from tinyworkflow_core.store import Commit, Delivery, Lease, Message
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import START, SimulatedCrash, VirtualClock, WorkflowEnvironment, four_ways

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


WORKFLOWS = (monthly, listens, naps, asks, looks_in_every_day, breaks, note)


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    CALLS.clear()


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

    env._activities["note"] = look
    for process in list(env._processes):
        env._replace(process)
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


# --- processes that die --------------------------------------------------------------------------------


async def test_after_the_loss_of_everything_the_store_alone_goes_on(env: WorkflowEnvironment) -> None:
    run_id = await env.start(naps, 3600)
    before = list(env._processes)
    env.lose_everything()
    assert env._queue == []
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
    env._workflows = [listens]
    env.lose_everything()
    with pytest.raises(AssertionError, match=r"is parked and nothing will wake it; .*'naps'"):
        await env.result(run_id)


async def test_a_run_that_wakes_itself_for_ever_is_an_error_and_no_endless_test(
    env: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "_MAX_WAITS", 50)
    run_id = await env.start(looks_in_every_day, run_id="mine")
    with pytest.raises(AssertionError, match="run 'mine' is still waiting after 50 waits: a run keeps waking itself"):
        await env.result(run_id)
    assert hours(env) == 24 * 50


async def test_another_run_that_wakes_itself_for_ever_does_not_hide_one_that_waits_in_vain(
    env: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "_MAX_WAITS", 50)
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

    monkeypatch.setattr(testing, "_MAX_CALLS", 50)
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
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def create(self, *args: Any) -> bool:
        self.asked["create"] += 1
        self.written += 1
        return await self._store.create(*args)

    async def acquire(self, *args: Any, **options: Any) -> Lease | None:
        self.asked["acquire"] += 1
        lease = await self._store.acquire(*args, **options)
        self.written += lease is not None
        return lease

    async def commit(self, lease: Lease, commit: Commit) -> None:
        self.asked["commit"] += 1
        await self._store.commit(lease, commit)
        self.written += 1

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
        if ways[-1] == "crash" and len(ways) - 3 <= writes[0]:
            assert env.crashed

    crashes = await four_ways(scenario, WORKFLOWS, open_store=counting)
    assert ways[:3] == ["plain", "replayed", "twice"]
    assert set(ways[3:]) == {"crash"}
    assert crashes == writes[0] == writes[-1]  # the last one had nothing left to crash after
    assert len(stores) == len(ways) == 3 + crashes + 1
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
        (lambda env: env.crashed and env._crash_after == 3, "crash after store write 3"),
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
