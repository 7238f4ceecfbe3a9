"""tick: what is due is dispatched, bounded, and as often as anybody likes. Schedules: their verbs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.scheduling import START, World
from tests.scheduling import report as scheduled_report
from tests.stores.records import T0, TTL, let_go, make, make_waiting, take
from tinyworkflow_core import App, TinyWorkflowClient, WorkflowContext, activity, workflow
from tinyworkflow_core.backfilling import BackfillPlan
from tinyworkflow_core.cron import CronSchedule, OneOff, timing_from_dict
from tinyworkflow_core.dispatcher import Advance, Task
from tinyworkflow_core.encryption import EncryptionCodec, generate_key
from tinyworkflow_core.errors import (
    InvalidInputError,
    ScheduleChangedError,
    ScheduleNotFoundError,
    UnknownWorkflowError,
)
from tinyworkflow_core.schedule_store import CatchUp, Schedule
from tinyworkflow_core.serialization import Codec
from tinyworkflow_core.store import Status, Store
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import VirtualClock, WorkflowEnvironment
from tinyworkflow_core.ticking import TICK_LIMIT, tick

MINUTE = timedelta(minutes=1)
CALLS: Counter[int] = Counter()


@activity
async def count(number: int) -> int:
    CALLS[number] += 1
    await asyncio.sleep(0)
    return number


@workflow
async def counts_once(ctx: WorkflowContext, number: int) -> int:
    return await ctx.execute_activity(count, number)


@workflow(name="odd name")
async def oddly_named(ctx: WorkflowContext) -> None: ...


class Notebook:
    """A dispatcher that writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def dispatch(self, task: Task, at: object = None) -> None:
        assert at is None, "what is due is due now"
        assert isinstance(task, Advance)
        self.asked.append(task.run_id)

    async def close(self) -> None: ...


@pytest.fixture
def store() -> Store:
    return open_store("sqlite:///:memory:")


def nobody_is_gone(owner: str) -> bool:
    return False


async def test_a_tick_dispatches_what_is_due_and_nothing_else_longest_overdue_first(store: Store) -> None:
    await make_waiting(store, "due", wake_at=T0)
    await make_waiting(store, "overdue", wake_at=T0 - MINUTE)
    await make_waiting(store, "later", wake_at=T0 + timedelta(microseconds=1))
    await make_waiting(store, "for nobody", wake_at=None)
    await make(store, "held")
    await take(store, "held")
    await make(store, "ended")
    await let_go(store, await take(store, "ended"), Status.COMPLETED)
    notebook = Notebook()
    report = await tick(store, notebook, clock=VirtualClock(T0), is_gone=nobody_is_gone)
    assert notebook.asked == ["overdue", "due"]
    assert (report.dispatched, report.more) == (("overdue", "due"), False)
    await store.close()


async def test_a_tick_with_nothing_to_do_does_nothing(store: Store) -> None:
    notebook = Notebook()
    report = await tick(store, notebook, clock=VirtualClock(T0), is_gone=nobody_is_gone)
    assert (notebook.asked, report.dispatched, report.more) == ([], (), False)
    await store.close()


async def test_a_tick_finds_a_run_whose_holder_died(store: Store) -> None:
    await make(store, "held")
    await take(store, "held", owner="the dead one")
    notebook = Notebook()
    clock = VirtualClock(T0)
    assert not (await tick(store, notebook, clock=clock, is_gone=nobody_is_gone)).dispatched
    assert (await tick(store, notebook, clock=clock, is_gone="the dead one".__eq__)).dispatched == ("held",)
    clock.move_to(T0 + TTL)
    assert (await tick(store, notebook, clock=clock, is_gone=nobody_is_gone)).dispatched == ("held",)
    await store.close()


async def test_a_tick_stops_at_its_limit_and_says_that_there_may_be_more(store: Store) -> None:
    for number in range(5):
        await make_waiting(store, f"run-{number}", wake_at=T0 - number * MINUTE)
    clock = VirtualClock(T0)
    notebook = Notebook()
    for limit, more in ((2, True), (4, True), (6, False)):
        report = await tick(store, notebook, clock=clock, is_gone=nobody_is_gone, limit=limit)
        assert report.dispatched == ("run-4", "run-3", "run-2", "run-1", "run-0")[:limit]
        assert report.more is more
    assert len(notebook.asked) == 2 + 4 + 5
    assert TICK_LIMIT == 1000
    await store.close()


async def test_ticks_of_several_processes_at_once_do_nothing_twice(store: Store) -> None:
    CALLS.clear()
    clock = VirtualClock(T0)
    apps = [App(store, workflows=[counts_once, count], clock=clock) for _ in range(3)]
    client = App(store, workflows=[counts_once], clock=clock, dispatcher="none").client
    run_ids = [await client.start_workflow(counts_once, number) for number in range(20)]
    reports = await asyncio.gather(*(app.tick() for app in apps for _ in range(2)))
    assert [set(one.dispatched + other.dispatched) for one, other in zip(reports[::2], reports[1::2], strict=True)] == [
        set(run_ids)
    ] * 3
    assert [await client.get_result(run_id) for run_id in run_ids] == list(range(20))
    assert Counter(range(20)) == CALLS
    assert not (await apps[0].tick()).dispatched
    for app in apps:
        await app.close()


# --- schedules -------------------------------------------------------------------------------------------

HOURLY = CronSchedule("0 * * * *")
HOUR = timedelta(hours=1)


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    yield World(store, VirtualClock(START))
    await store.close()


async def test_a_tick_dispatches_what_is_due_and_starts_what_is_scheduled(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    await make_waiting(world.store, "waits", wake_at=T0)
    world.clock.move_to(T0)
    report = await world.tick()
    assert report.dispatched == ("waits",)
    assert report.started == ("s@20260301T120000Z",)
    assert not report.problems


async def test_a_schedule_has_the_id_it_was_given_or_one_of_its_own(world: World) -> None:
    assert await world.schedules.create("report", HOURLY, id="nightly:report") == "nightly:report"
    made = await world.schedules.create(scheduled_report, HOURLY)
    assert re.fullmatch(r"report_[0-9a-f]{12}", made)
    assert await world.schedules.create("report", HOURLY) != made
    odd = World(world.store, world.clock, [oddly_named])
    odd_id = await odd.schedules.create("odd name", HOURLY)
    assert re.fullmatch(r"schedule_[0-9a-f]{12}", odd_id)
    assert f"{odd_id}@20260105T090000Z" in await odd.tick_after(hours=1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"workflow": "reprot"}, "did you mean 'report'"),
        ({"input_data": "many"}, "input of workflow 'report'"),
        ({"overlap": "sometimes"}, "overlap: 'sometimes' is not known; use one of skip, queue, cancel_other, allow"),
        ({"catch_up": "some"}, "catch_up: 'some' is not known; use one of none, latest, all"),
        ({"jitter": -1}, "jitter: "),
        ({"jitter": "soon"}, "jitter: "),
        ({"jitter": "2d"}, "jitter: "),
        ({"catch_up_window": "long"}, "catch_up_window: "),
        ({"pause_after_failures": 0}, "pause_after_failures: "),
        ({"pause_after_failures": True}, "pause_after_failures: "),
        ({"pause_after": 3}, "a schedule has no option pause_after"),
        ({"id": ""}, "id: ''"),
        ({"id": "a@b"}, "id: 'a@b'"),
        ({"id": "a/b"}, "id: 'a/b'"),
        ({"id": "x" * 151}, "id: "),
        ({"attributes": {"a": [1]}}, "attributes: 'a'"),
        ({"timing": OneOff(START)}, "has passed"),
    ],
    ids=str,
)
async def test_a_schedule_that_does_not_fit_is_refused_and_nothing_is_stored(
    world: World, arguments: dict[str, Any], complaint: str
) -> None:
    fitting: dict[str, Any] = {"workflow": "report", "timing": HOURLY}
    with pytest.raises((UnknownWorkflowError, InvalidInputError, TypeError)) as refused:
        await world.schedules.create(**(fitting | arguments))
    assert complaint in str(refused.value)
    assert not await world.schedules.list()


@pytest.mark.parametrize("every", ["0.5s", 0, -1, "often", 1e300, float("inf")])
async def test_an_interval_that_does_not_fit_is_refused(world: World, every: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^interval: "):
        await world.schedules.create_interval("report", every)
    assert not await world.schedules.list()


async def test_the_same_schedule_again_changes_nothing(world: World) -> None:
    options: dict[str, Any] = {"id": "s", "overlap": "queue", "catch_up": "all", "jitter": 30, "attributes": {"a": 1}}
    await world.schedules.create("report", HOURLY, 3, **options)
    await world.schedules.create_interval("report", 60, 3, **(options | {"id": "i"}))
    before = await world.schedules.list()
    world.clock.move_to(START + 3 * HOUR)
    await world.schedules.create("report", HOURLY, 3, **options)
    await world.schedules.create_interval("report", 60, 3, **(options | {"id": "i"}))
    assert await world.schedules.list() == before, "and what is due by now stays due"


async def test_a_schedule_under_an_id_that_is_taken_changes_that_one(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    await world.tick_after(hours=1)
    old = await world.schedule("s")
    world.clock.move_to(START + 2 * HOUR)
    await world.schedules.create("report", HOURLY, 5, id="s", overlap="allow", catch_up="none")
    new = await world.schedule("s")
    assert (new.input, new.overlap, new.catch_up) == ("5", "allow", "none")
    assert (new.next_at, new.due_at) == (old.next_at, old.due_at), "10:00 has come and is still to be dealt with"
    assert (new.last_run_id, new.last_at, new.created_at) == (old.last_run_id, old.last_at, old.created_at)
    await world.schedules.create("report", CronSchedule("30 * * * *"), 5, id="s")
    assert (await world.schedule("s")).next_at == START + 2.5 * HOUR
    await world.schedules.pause("s", "too loud")
    await world.schedules.create("report", HOURLY, id="s")
    paused = await world.schedule("s")
    assert (paused.paused, paused.note, paused.due_at) == (True, "too loud", None)


async def test_with_encryption_neither_the_input_nor_the_note_is_stored_in_the_clear(world: World) -> None:
    sealed = World(world.store, world.clock, codec=Codec(EncryptionCodec([generate_key()])))
    await sealed.schedules.create("report", HOURLY, 271828, id="s")
    before = await world.store.schedules.get("s")
    await sealed.schedules.create("report", HOURLY, 271828, id="s")
    assert await world.store.schedules.get("s") == before, "the same input, however often it is sealed"
    await sealed.schedules.pause("s", "the auditors are here")
    stored = await world.store.schedules.get("s")
    assert stored is not None
    assert "271828" not in stored.input
    assert "auditors" not in (stored.note or "")
    assert [(one.note, one.id) for one in await sealed.schedules.list() if isinstance(one, Schedule)] == [
        ("the auditors are here", "s")
    ]
    await sealed.schedules.resume("s")
    assert await sealed.tick_after(hours=1) == ["s@20260105T090000Z"]


async def test_a_paused_schedule_starts_nothing_until_it_is_resumed_and_makes_up_for_nothing(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", catch_up="all", overlap="allow")
    await world.schedules.pause("s", "stocktaking")
    paused = await world.schedule("s")
    assert (paused.paused, paused.note, paused.next_at) == (True, "stocktaking", None)
    assert await world.tick_after(hours=2, minutes=30) == []
    await world.schedules.resume("s")
    resumed = await world.schedule("s")
    assert (resumed.paused, resumed.note, resumed.next_at) == (False, None, START + 3 * HOUR)
    assert await world.tick_after(hours=1) == ["s@20260105T110000Z"]


async def test_resuming_what_is_not_paused_changes_nothing(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    before = await world.schedule("s")
    world.clock.move_to(START + 2 * HOUR)
    await world.schedules.resume("s")
    assert await world.schedule("s") == before


async def test_a_trigger_starts_a_run_now_each_time_and_counts_for_overlap(world: World) -> None:
    await world.schedules.create("report", HOURLY, 4, id="s")
    await world.schedules.pause("s")
    first, second = await world.schedules.trigger("s"), await world.schedules.trigger("s")
    assert await world.runs() == sorted((first, second))
    assert re.fullmatch(r"s@20260105T080000Z\.[0-9a-f]{8}", first)
    run = await world.store.get(first)
    assert run is not None
    assert (run.input, run.attributes["schedule_id"]) == ("4", "s")
    await world.schedules.resume("s")
    assert (await world.schedule("s")).last_at is None
    assert await world.tick_after(hours=1) == [], "the run that was triggered last is open"
    await world.end(second)
    assert await world.tick_after(hours=1) == ["s@20260105T100000Z"]


async def test_a_backfill_shows_its_times_first_and_starts_each_once(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    assert await world.tick_after(hours=1) == ["s@20260105T090000Z"]
    begin, end = START - 2 * HOUR, START + HOUR
    times = (START - 2 * HOUR, START - HOUR, START)
    assert await world.schedules.backfill("s", begin, end) == BackfillPlan(times=times)
    assert await world.runs() == ["s@20260105T090000Z"], "a dry run starts nothing"
    for _ in range(2):
        plan = await world.schedules.backfill("s", begin, end + HOUR, dry_run=False)
        assert plan.times == (*times, START + HOUR)
        assert await world.runs() == [f"s@20260105T{hour:02}0000Z" for hour in (6, 7, 8, 9)]
    schedule = await world.schedule("s")
    assert (schedule.next_at, schedule.last_run_id) == (START + 2 * HOUR, "s@20260105T090000Z")


async def test_a_backfill_keeps_to_its_own_concurrency_over_as_many_ticks_as_it_takes(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="skip")
    await world.schedules.pause("s")
    plan = await world.schedules.backfill("s", START - 5 * HOUR, START, dry_run=False, max_concurrency=2)
    hours = [f"s@20260105T{hour:02}0000Z" for hour in range(3, 8)]
    assert await world.runs() == hours[:2], "the first ones at once"
    world.clock.move_to(START + timedelta(minutes=1))
    assert (await world.tick()).backfilled == ()
    await world.end(hours[1])
    other = World(world.store, world.clock)  # it does not hang on whoever has begun it
    world.clock.move_to(START + timedelta(minutes=2))
    assert (await other.tick()).backfilled == (hours[2],)
    await world.end(hours[0], Status.FAILED)
    await world.end(hours[2])
    world.clock.move_to(START + timedelta(minutes=3))
    reports = await asyncio.gather(*(one.tick() for one in (world, other)))
    assert {run_id for one in reports for run_id in one.backfilled} == set(hours[3:])
    assert await world.runs() == hours
    [under_way] = (await world.schedule("s")).backfills
    assert (under_way.id, under_way.state, under_way.started, under_way.total) == (plan.id, "running", 5, 5)
    for run_id in hours[3:]:
        await world.end(run_id)
    world.clock.move_to(START + timedelta(minutes=5))
    assert (await world.tick()).backfilled == ()
    schedule = await world.schedule("s")
    [done] = schedule.backfills
    assert (done.state, done.started, done.failed, done.open_runs, schedule.wake_at) == ("done", 5, 1, (), None)


async def test_of_a_backfill_each_tick_does_a_bounded_part_and_runs_that_were_there_take_no_place(world: World) -> None:
    await world.schedules.create("report", CronSchedule("* * * * *"), id="s", overlap="allow")
    await world.schedules.backfill("s", START - HOUR, START, dry_run=False, max_concurrency=30)
    runs = await world.runs()
    assert len(runs) == 30
    for run_id in runs:
        await world.end(run_id)
    await world.schedules.delete("s")
    await world.schedules.create("report", CronSchedule("* * * * *"), id="s", overlap="allow")
    await world.schedules.pause("s")
    await world.schedules.backfill("s", START - HOUR, START, dry_run=False, max_concurrency=1)
    [before] = (await world.schedule("s")).backfills
    assert (before.started, before.look_at) == (1, START)
    found = await world.tick(limit=10)
    assert (len(found.backfilled), found.more) == (10, True)
    found = await world.tick()
    assert (len(found.backfilled), found.more) == (20, False), "19 that have ended long ago, and one that is open"
    assert len(await world.runs()) == 31


async def test_a_backfill_that_is_cancelled_starts_nothing_more_and_its_runs_go_on(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    plan = await world.schedules.backfill("s", START - 5 * HOUR, START, dry_run=False, max_concurrency=1)
    assert plan.id is not None
    for _ in range(2):
        [cancelled] = (await world.schedules.cancel_backfill("s", plan.id)).backfills
        assert (cancelled.state, cancelled.started) == ("cancelled", 1)
    await world.end("s@20260105T030000Z")
    assert await world.tick_after(minutes=5) == []
    assert await world.runs() == ["s@20260105T030000Z"]
    with pytest.raises(ScheduleNotFoundError, match="has no backfill 'nobody'"):
        await world.schedules.cancel_backfill("s", "nobody")


async def test_a_backfill_that_cannot_start_its_runs_says_so_and_holds_up_neither_its_schedule_nor_others(
    world: World,
) -> None:
    for name in ("a", "b"):
        await world.schedules.create("report", HOURLY, id=name)
    elsewhere = World(world.store, world.clock, [])
    plan = await elsewhere.schedules.backfill("a", START - 2 * HOUR, START, dry_run=False)
    [held] = (await world.schedule("a")).backfills
    assert (held.id, held.started) == (plan.id, 0)
    assert "no workflow 'report' is registered" in (held.problem or "")
    looks = 0
    for minute in range(10):
        world.clock.move_to(START + timedelta(minutes=minute))
        looks += len((await elsewhere.tick()).problems)
    assert 2 < looks < 8, "ever more seldom"
    world.clock.move_to(START + HOUR)
    found = await world.tick()
    assert found.started == ("a@20260105T090000Z", "b@20260105T090000Z")
    assert found.backfilled == ("a@20260105T060000Z", "a@20260105T070000Z")
    assert not found.problems


async def test_a_backfill_refuses_what_it_cannot_do_and_nothing_is_begun(world: World) -> None:
    await world.schedules.create("report", CronSchedule("* * * * *"), id="s")
    day = timedelta(days=1)
    with pytest.raises(InvalidInputError, match="more than 1000 times"):
        await world.schedules.backfill("s", START - day, START)
    with pytest.raises(InvalidInputError, match="into the future"):
        await world.schedules.backfill("s", START, START + HOUR, dry_run=False)
    with pytest.raises(InvalidInputError, match="no time zone"):
        await world.schedules.backfill("s", START.replace(tzinfo=None), START)
    with pytest.raises(InvalidInputError, match="start: 0001-01-01T00:00:00"):
        await world.schedules.backfill("s", datetime.min.replace(tzinfo=UTC), START)
    for wrong in (0, 101):
        with pytest.raises(InvalidInputError, match=f"max_concurrency: {wrong} "):
            await world.schedules.backfill("s", START - HOUR, START, dry_run=False, max_concurrency=wrong)
    assert len((await world.schedules.backfill("s", START, START + HOUR)).times) == 60
    assert (await world.schedules.backfill("s", START, START, dry_run=False)).id is None, "there is nothing to do"
    assert not await world.runs()
    assert (await world.schedule("s")).backfills == ()
    for _ in range(5):
        await world.schedules.backfill("s", START - HOUR, START, dry_run=False, max_concurrency=1)
    with pytest.raises(InvalidInputError, match="5 of this schedule are running"):
        await world.schedules.backfill("s", START - HOUR, START, dry_run=False)


async def test_of_backfills_that_are_over_the_latest_are_kept(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    plans = []
    for _ in range(8):
        plan = await world.schedules.backfill("s", START - HOUR, START, dry_run=False, max_concurrency=1)
        assert plan.id is not None
        await world.schedules.cancel_backfill("s", plan.id)
        plans.append(plan.id)
    assert [one.id for one in (await world.schedule("s")).backfills] == plans[-6:]


async def test_a_schedule_that_is_deleted_starts_nothing_more_and_its_runs_stay(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="allow")
    [run_id] = await world.tick_after(hours=1)
    await world.schedules.delete("s")
    assert await world.tick_after(hours=5) == []
    assert await world.runs() == [run_id]


async def test_an_update_changes_what_is_given_and_nothing_else(world: World) -> None:
    await world.schedules.create("report", HOURLY, 3, id="s", overlap="queue", jitter=30, catch_up_window="2h")
    before = await world.schedule("s")
    world.clock.move_to(START + timedelta(minutes=30))
    after = await world.schedules.update("s", catch_up="all", pause_after_failures=3)
    assert after == await world.schedule("s")
    assert after == replace(before, catch_up=CatchUp.ALL, pause_after_failures=3, etag=after.etag)
    after = await world.schedules.update("s", timing=CronSchedule("45 * * * *"), input_data=5, catch_up_window=None)
    assert (after.input, after.catch_up_window, after.jitter) == ("5", None, 30)
    assert after.next_at == START + timedelta(minutes=45)
    assert (await world.schedules.update("s")) == after, "nothing given, nothing written"


async def test_an_update_of_a_state_that_is_no_more_is_refused(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    seen = (await world.schedule("s")).etag
    await world.schedules.update("s", overlap="allow", etag=seen)
    with pytest.raises(ScheduleChangedError, match="schedule 's' was changed since"):
        await world.schedules.update("s", overlap="queue", etag=seen)
    with pytest.raises(InvalidInputError, match="pause_after_failures: 0 is not a number from 1 to 1000"):
        await world.schedules.update("s", pause_after_failures=0)
    with pytest.raises(InvalidInputError, match="input of workflow 'report'"):
        await world.schedules.update("s", input_data="many", overlap="queue")
    assert (await world.schedule("s")).overlap == "allow"


async def test_a_trigger_with_a_key_starts_one_run_however_often_it_comes(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    first = await world.schedules.trigger("s", idempotency_key="k")
    world.clock.move_to(START + timedelta(seconds=5))
    assert await world.schedules.trigger("s", idempotency_key="k") == first
    assert await world.runs() == [first]


async def test_every_verb_says_that_there_is_no_such_schedule(world: World) -> None:
    verbs = world.schedules
    for verb in (verbs.get, verbs.pause, verbs.resume, verbs.delete, verbs.trigger, verbs.update):
        with pytest.raises(ScheduleNotFoundError, match="there is no schedule 'nightly'"):
            await verb("nightly")
    with pytest.raises(ScheduleNotFoundError):
        await verbs.backfill("nightly", START, START)
    assert not await world.runs()


async def test_schedules_are_listed_page_by_page(world: World) -> None:
    for name in ("c", "a", "b"):
        await world.schedules.create("report", HOURLY, id=name)
    assert [one.id for one in await world.schedules.list(limit=2)] == ["a", "b"]
    assert [one.id for one in await world.schedules.list(limit=2, after="b")] == ["c"]


async def test_changes_by_several_people_at_once_are_all_made(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    others = [World(world.store, world.clock) for _ in range(3)]
    await asyncio.gather(
        others[0].schedules.pause("s", "a note"),
        others[1].schedules.trigger("s"),
        others[2].schedules.create("report", HOURLY, 9, id="s"),
    )
    schedule = await world.schedule("s")
    assert (schedule.paused, schedule.note, schedule.input) == (True, "a note", "9")
    assert schedule.last_run_id is not None


async def test_of_simultaneous_creates_of_one_id_there_is_one_schedule(world: World) -> None:
    others = [World(world.store, world.clock) for _ in range(5)]
    made = await asyncio.gather(*(one.schedules.create("report", HOURLY, id="s") for one in others))
    assert made == ["s"] * 5
    assert len(await world.schedules.list()) == 1


# --- the page of the docs ----------------------------------------------------------------------------------


async def test_the_schedule_of_the_docs_reports_the_week_before() -> None:
    text = (Path(__file__).parents[1] / "docs" / "schedules.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    page: dict[str, Any] = {"__name__": "page_schedules"}
    exec(compile(code, "docs/schedules.md", "exec"), page)
    async with WorkflowEnvironment([page["weekly_report"]], start=START) as env:
        client = TinyWorkflowClient("sqlite:///:memory:", workflows=[page["weekly_report"]])
        await page["declare"](client)
        [declared] = await client.list_schedules()
        await client.close()
        assert isinstance(declared, Schedule)
        await env.schedule(page["weekly_report"], timing_from_dict(declared.timing), id=declared.id)
        await env.advance("7d")
        assert await env.result("weekly-report@20260112T080000Z") == "report of 2026-01-05 to 2026-01-12 is sent"
