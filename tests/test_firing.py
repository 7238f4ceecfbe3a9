"""What happens when a schedule's time has come: one run per time, catching up, overlap, jitter, trouble."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.scheduling import START, World, report
from tests.stores.records import let_go, take
from tinyworkflow_core import WorkflowContext, workflow
from tinyworkflow_core.cron import CronSchedule, IntervalSchedule, OneOff
from tinyworkflow_core.engine.history import RunStarted, event_from_dict, event_to_dict
from tinyworkflow_core.errors import StoreError, StoreUnavailableError
from tinyworkflow_core.firing import ON_TIME, due_at, expecting, run_id_of
from tinyworkflow_core.schedule_store import Schedule
from tinyworkflow_core.store import Status
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import VirtualClock, WorkflowEnvironment
from tinyworkflow_core.ticking import SHARE

HOURLY = CronSchedule("0 * * * *")
HOUR = timedelta(hours=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store = open_store("sqlite:///:memory:")
    yield World(store, VirtualClock(START))
    await store.close()


# --- one run per time ------------------------------------------------------------------------------------


async def test_a_run_is_started_when_its_time_has_come_and_named_after_it(world: World) -> None:
    await world.schedules.create("report", CronSchedule("0 9 * * 1", "Europe/Berlin"), 7, id="weekly")
    assert (await world.schedule("weekly")).next_at == START + 7 * 24 * HOUR, "09:00 in Berlin is 08:00 in UTC"
    assert await world.tick_after(days=6.99) == []
    assert await world.tick_after(days=0.02) == ["weekly@20260112T080000Z"]
    run = await world.store.get("weekly@20260112T080000Z")
    assert run is not None
    assert (run.name, run.input) == ("report", "7")
    assert dict(run.attributes) == {"schedule_id": "weekly", "scheduled_for": "2026-01-12T08:00:00+00:00"}
    assert await world.tick_after(seconds=1) == []
    schedule = await world.schedule("weekly")
    assert (schedule.last_run_id, schedule.last_at) == (run.run_id, START + 7 * 24 * HOUR)
    assert schedule.next_at == schedule.due_at == START + 14 * 24 * HOUR


async def test_across_both_changes_of_the_clock_monday_at_nine_stays_monday_at_nine(world: World) -> None:
    await world.schedules.create("report", CronSchedule("0 9 * * 1", "Europe/Berlin"), id="w", overlap="allow")
    for day in range(365):
        world.clock.move_to(START + timedelta(days=day, hours=1))
        await world.tick()
    runs = await world.runs()
    assert len(runs) == 52
    assert {"w@20260323T080000Z", "w@20260330T070000Z", "w@20261019T070000Z", "w@20261026T080000Z"} <= set(runs)


async def test_two_ticks_at_once_start_one_run_per_time(world: World) -> None:
    for number in range(5):
        await world.schedules.create("report", HOURLY, number, id=f"s{number}", overlap="allow")
    processes = [world, *(World(world.store, world.clock) for _ in range(3))]
    expected: set[str] = set()
    for hour in range(1, 5):
        world.clock.move_to(START + hour * HOUR)
        reports = await asyncio.gather(*(one.tick() for one in processes))
        this_hour = {f"s{number}@20260105T{8 + hour:02}0000Z" for number in range(5)}
        assert {run_id for one in reports for run_id in one.started} == this_hour
        expected |= this_hour
        assert await world.runs() == sorted(expected)
        assert (await world.schedule("s0")).next_at == START + (hour + 1) * HOUR
        assert (await world.schedule("s0")).last_run_id == f"s0@20260105T{8 + hour:02}0000Z"


async def test_a_tick_that_dies_after_the_start_leaves_one_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    put = world.store.schedules.put

    async def dies(schedule: Schedule, *, expected: str | None) -> bool:
        raise StoreUnavailableError("the power is off")

    monkeypatch.setattr(world.store.schedules, "put", dies)
    with pytest.raises(StoreUnavailableError):
        await world.tick_after(hours=1)
    assert await world.runs() == ["s@20260105T090000Z"]
    monkeypatch.setattr(world.store.schedules, "put", put)
    assert await world.tick_after(seconds=5) == ["s@20260105T090000Z"]
    assert await world.runs() == ["s@20260105T090000Z"]
    assert (await world.schedule("s")).next_at == START + 2 * HOUR


async def test_a_run_that_lost_the_race_for_the_record_still_counts_for_the_next_overlap(world: World) -> None:
    """Two ticks see the same time. For one the last run is open and it skips; for the other, a moment later, it has
    ended and it starts a run; but the first one's record stands."""
    await world.schedules.create("report", HOURLY, id="s")
    await world.tick_after(hours=1)
    world.clock.move_to(START + 2 * HOUR)
    put = world.store.schedules.put

    async def slow_put(schedule: Schedule, *, expected: str | None) -> bool:
        world.store.schedules.put = put  # type: ignore[method-assign]  # only once
        await world.end("s@20260105T090000Z")
        other = World(world.store, world.clock)
        assert (await other.tick()).started == ("s@20260105T100000Z",)
        return await put(schedule, expected=expected)

    world.store.schedules.put = slow_put  # type: ignore[method-assign]
    assert (await world.tick()).started == ()
    # and the other way round: the one that starts is the one that comes too late
    await world.end("s@20260105T100000Z")
    world.clock.move_to(START + 3 * HOUR)
    before = await world.schedule("s")

    async def late_put(schedule: Schedule, *, expected: str | None) -> bool:
        world.store.schedules.put = put  # type: ignore[method-assign]
        skipped = replace(expecting(before, START + 4 * HOUR), etag="skipped")
        assert await put(skipped, expected=before.etag)
        return await put(schedule, expected=expected)

    world.store.schedules.put = late_put  # type: ignore[method-assign]
    assert (await world.tick()).started == ("s@20260105T110000Z",)
    schedule = await world.schedule("s")
    assert (schedule.last_run_id, schedule.next_at) == ("s@20260105T110000Z", START + 4 * HOUR)
    assert await world.tick_after(hours=1) == []


async def test_a_schedule_that_was_paused_or_deleted_during_the_tick_stays_so(world: World) -> None:
    for name in ("paused", "deleted"):
        await world.schedules.create("report", HOURLY, id=name)
    put = world.store.schedules.put

    async def slow_put(schedule: Schedule, *, expected: str | None) -> bool:
        world.store.schedules.put = put  # type: ignore[method-assign]
        await world.schedules.pause("paused")
        await world.schedules.delete("deleted")
        return await put(schedule, expected=expected)

    world.store.schedules.put = slow_put  # type: ignore[method-assign]
    await world.tick_after(hours=1)
    assert (await world.schedule("paused")).next_at is None
    assert [one.id for one in await world.schedules.list()] == ["paused"]
    assert await world.tick_after(hours=1) == []


async def test_a_one_off_and_an_interval_fire_as_they_say(world: World) -> None:
    await world.schedules.create("report", OneOff(START + HOUR), id="once")
    await world.schedules.create_interval("report", "40m", id="often", overlap="allow")
    assert await world.tick_after(minutes=40) == ["often@20260105T084000Z"]
    assert await world.tick_after(minutes=40) == ["once@20260105T090000Z", "often@20260105T092000Z"]
    once = await world.schedule("once")
    assert (once.next_at, once.due_at, once.last_run_id) == (None, None, "once@20260105T090000Z")
    assert await world.tick_after(minutes=40) == ["often@20260105T100000Z"]


# --- catching up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "hours"), [("all", [9, 10, 11]), ("latest", [11]), ("none", [])], ids=["all", "latest", "none"]
)
async def test_after_being_down_for_three_periods_it_catches_up_as_it_was_told(
    world: World, catch_up: str, hours: list[int]
) -> None:
    await world.schedules.create("report", HOURLY, id="s", catch_up=catch_up, overlap="allow")
    assert await world.tick_after(hours=3, minutes=30) == [f"s@20260105T{hour:02}0000Z" for hour in hours]
    assert (await world.schedule("s")).next_at == START + 4 * HOUR
    assert await world.tick_after(minutes=1) == []
    assert await world.tick_after(minutes=30) == ["s@20260105T120000Z"]


@pytest.mark.parametrize("catch_up", ["all", "latest", "none"])
async def test_a_time_that_is_looked_at_by_the_next_tick_was_not_missed(world: World, catch_up: str) -> None:
    await world.schedules.create("report", HOURLY, id="s", catch_up=catch_up)
    assert await world.tick_after(hours=1, seconds=ON_TIME.total_seconds()) == ["s@20260105T090000Z"]


async def test_with_all_and_skip_what_was_missed_runs_one_after_the_other(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", catch_up="all", overlap="skip")
    assert await world.tick_after(hours=3, minutes=30) == ["s@20260105T090000Z"]
    assert await world.tick_after(seconds=2) == []
    await world.end("s@20260105T090000Z")
    assert await world.tick_after(minutes=1) == ["s@20260105T100000Z"]
    await world.end("s@20260105T100000Z")
    assert await world.tick_after(minutes=1) == ["s@20260105T110000Z"]
    assert await world.tick_after(minutes=29) == [], "12:00 was not missed, and the last run is open"
    assert (await world.schedule("s")).next_at == START + 5 * HOUR


async def test_a_year_of_missed_minutes_is_settled_at_once_unless_all_are_wanted(world: World) -> None:
    for catch_up in ("all", "latest", "none"):
        await world.schedules.create(
            "report", CronSchedule("* * * * *"), id=catch_up, catch_up=catch_up, overlap="allow"
        )
    world.clock.move_to(START + timedelta(days=365, seconds=30))
    report_of_first = await world.tick(limit=5)
    assert report_of_first.started == tuple(f"all@20260105T080{minute}00Z" for minute in range(1, 6))
    assert report_of_first.more
    started = [run_id for _ in range(4) for run_id in (await world.tick(limit=5)).started]
    assert [one for one in started if one.startswith("all")] == [
        f"all@20260105T08{minute:02}00Z" for minute in range(6, 6 + len(started) - 2)
    ]
    assert sorted(one for one in started if not one.startswith("all")) == [
        "latest@20270105T080000Z",
        "none@20270105T080000Z",
    ]


async def test_a_next_time_that_its_timing_does_not_know_is_kept_and_then_left_behind(world: World) -> None:
    """As after a country has changed its clocks, and the machine has learned of it."""
    await world.schedules.create("report", HOURLY, id="s")
    schedule = await world.schedule("s")
    moved = replace(expecting(schedule, START + HOUR / 2), etag="x")
    assert await world.store.schedules.put(moved, expected=schedule.etag)
    assert await world.tick_after(minutes=45) == ["s@20260105T083000Z"]
    assert (await world.schedule("s")).next_at == START + HOUR


# --- overlap ---------------------------------------------------------------------------------------------


async def test_skip_starts_nothing_while_the_last_run_is_open(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    assert await world.tick_after(hours=1) == ["s@20260105T090000Z"]
    assert await world.tick_after(hours=1) == []
    await world.end("s@20260105T090000Z")
    assert await world.tick_after(minutes=1) == []
    assert await world.tick_after(minutes=59) == ["s@20260105T110000Z"]


async def test_allow_starts_beside_it(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="allow")
    assert [await world.tick_after(hours=1) for _ in range(2)] == [["s@20260105T090000Z"], ["s@20260105T100000Z"]]


async def test_cancel_other_asks_the_last_run_to_cancel_and_starts(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="cancel_other")
    await world.tick_after(hours=1)
    assert await world.tick_after(hours=1) == ["s@20260105T100000Z"]
    [message] = await world.store.inbox("s@20260105T090000Z")
    assert message.id == "cancel"
    assert not await world.store.inbox("s@20260105T100000Z")
    await world.end("s@20260105T100000Z")
    assert await world.tick_after(hours=1) == ["s@20260105T110000Z"], "one that has ended needs no cancelling"


async def test_a_run_that_ends_just_before_it_is_cancelled_is_no_trouble(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="cancel_other")
    await world.tick_after(hours=1)
    cancel = world.client.cancel_workflow

    async def too_late(run_id: str, reason: str | None = None) -> None:
        await world.end(run_id)
        await cancel(run_id, reason)

    monkeypatch.setattr(world.client, "cancel_workflow", too_late)
    world.clock.move_to(START + 2 * HOUR)
    found = await world.tick()
    assert (found.started, dict(found.problems)) == (("s@20260105T100000Z",), {})


async def test_queue_starts_when_the_last_run_has_ended_and_looks_ever_more_seldom(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="queue")
    await world.tick_after(hours=1)
    assert await world.tick_after(hours=1) == []
    looks = []
    for _ in range(20 * 60):
        world.clock.move_to(world.clock.now() + timedelta(seconds=1))
        if await world.store.schedules.due(now=world.clock.now(), limit=1):
            looks.append(world.clock.now())
            assert not (await world.tick()).started
    assert len(looks) < 30, "twenty minutes of waiting"
    gaps = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert max(gaps) == timedelta(minutes=1)
    schedule = await world.schedule("s")
    assert schedule.held_since == START + 2 * HOUR
    assert schedule.next_at == START + 2 * HOUR
    await world.end("s@20260105T090000Z")
    assert await world.tick_after(minutes=1) == ["s@20260105T100000Z"]
    schedule = await world.schedule("s")
    assert (schedule.held_since, schedule.next_at) == (None, START + 3 * HOUR)


@pytest.mark.parametrize(
    ("catch_up", "first", "then"),
    [("all", "10", ["11"]), ("latest", "12", []), ("none", "10", [])],
    ids=["all", "latest", "none"],
)
async def test_of_the_times_that_come_while_one_is_queued_catch_up_says_which_count(
    world: World, catch_up: str, first: str, then: list[str]
) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="queue", catch_up=catch_up)
    for _ in range(4 * 60 + 30):
        await world.tick_after(minutes=1)
    assert await world.runs() == ["s@20260105T090000Z"]
    await world.end("s@20260105T090000Z")
    assert await world.tick_after(minutes=1) == [f"s@20260105T{first}0000Z"]
    await world.end(f"s@20260105T{first}0000Z")
    assert await world.tick_after(minutes=1) == [f"s@20260105T{hour}0000Z" for hour in then]


# --- jitter ----------------------------------------------------------------------------------------------


async def test_jitter_moves_a_start_by_the_same_part_for_ever_and_never_changes_the_run_id(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", jitter="10m", overlap="allow")
    schedule = await world.schedule("s")
    delays = [due_at(schedule, START + hour * HOUR) - (START + hour * HOUR) for hour in range(200)]
    assert delays == [due_at(schedule, START + hour * HOUR) - (START + hour * HOUR) for hour in range(200)]
    assert timedelta(0) <= min(delays) < timedelta(minutes=1)
    assert timedelta(minutes=9) < max(delays) < timedelta(minutes=10)
    other = replace(schedule, id="t")
    assert due_at(other, START) != due_at(schedule, START), "two schedules do not start at one moment"
    assert due_at(replace(schedule, jitter=0.0), START) == START
    assert schedule.next_at == START + HOUR
    assert schedule.due_at == START + HOUR + delays[1]
    world.clock.move_to(schedule.due_at - timedelta.resolution)
    assert not (await world.tick()).started
    world.clock.move_to(schedule.due_at)
    assert (await world.tick()).started == ("s@20260105T090000Z",)


async def test_a_time_whose_jitter_is_not_over_is_neither_missed_nor_the_latest(world: World) -> None:
    every = IntervalSchedule(timedelta(minutes=1), START)
    await world.schedules.create("report", every, id="s", jitter="10m", overlap="allow", catch_up="latest")
    schedule = await world.schedule("s")
    world.clock.move_to(START + timedelta(minutes=30))
    [run_id] = (await world.tick()).started
    times = [START + timedelta(minutes=minute) for minute in range(1, 31)]
    latest = max(one for one in times if due_at(schedule, one) <= world.clock.now())
    assert run_id == f"s@{latest:%Y%m%dT%H%M%SZ}"
    assert latest < times[-1]
    assert (await world.schedule("s")).next_at == latest + timedelta(minutes=1)


# --- trouble ---------------------------------------------------------------------------------------------


async def test_a_schedule_for_a_workflow_that_is_not_deployed_is_reported_and_the_others_go_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        await world.schedules.create("report", HOURLY, id=name)
    broken = await world.schedule("b")
    await world.store.schedules.put(replace(broken, workflow="reprot", etag="x"), expected=broken.etag)
    world.clock.move_to(START + HOUR)
    with caplog.at_level(logging.WARNING):
        found = await world.tick()
    assert found.started == ("a@20260105T090000Z", "c@20260105T090000Z")
    assert list(found.problems) == ["b"]
    assert "no workflow 'reprot' is registered" in found.problems["b"]
    assert "schedule b cannot start its run" in caplog.text
    held = await world.schedule("b")
    assert (held.next_at, held.problem) == (START + HOUR, found.problems["b"])


async def test_a_schedule_in_trouble_is_tried_ever_more_seldom_and_starts_once_it_can(world: World) -> None:
    @workflow(name="later")
    async def deployed_later(ctx: WorkflowContext) -> None: ...

    knowing = World(world.store, world.clock, [report, deployed_later])
    await knowing.schedules.create("later", HOURLY, id="s")
    world.clock.move_to(START + HOUR)
    looks = 0
    for _ in range(30 * 60):
        looks += len((await world.tick()).problems)
        world.clock.move_to(world.clock.now() + timedelta(seconds=1))
    assert 5 < looks < 20
    assert await knowing.tick_after(minutes=5) == ["s@20260105T090000Z"]
    schedule = await world.schedule("s")
    assert (schedule.problem, schedule.held_since, schedule.next_at) == (None, None, START + 2 * HOUR)


async def test_with_catch_up_none_a_time_that_was_held_up_by_trouble_is_a_missed_one(world: World) -> None:
    @workflow(name="later")
    async def deployed_later(ctx: WorkflowContext) -> None: ...

    knowing = World(world.store, world.clock, [report, deployed_later])
    await knowing.schedules.create("later", HOURLY, id="s", catch_up="none")
    await world.tick_after(hours=1)
    assert await knowing.tick_after(minutes=10) == []
    assert await knowing.tick_after(minutes=50) == ["s@20260105T100000Z"]


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("timing", {"kind": "moon"}, "kind 'moon' is not known"),
        ("timing", {"kind": "cron", "expression": "0 25 * * *", "timezone": "UTC"}, "hour: '25'"),
        ("timing", {"kind": "cron", "expression": "@daily", "timezone": "Mars"}, "timezone: 'Mars'"),
        ("input", "{", "cannot be read"),
        ("input", '"many"', "input of workflow 'report'"),
    ],
    ids=str,
)
async def test_one_bad_row_never_stops_the_others(world: World, field: str, value: Any, complaint: str) -> None:
    await world.schedules.create("report", HOURLY, id="bad")
    await world.schedules.create("report", HOURLY, id="good")
    bad = await world.schedule("bad")
    damaged = replace(bad, **{field: value, "etag": "x", "due_at": START})
    assert await world.store.schedules.put(damaged, expected=bad.etag)
    found = None
    for _ in range(3):
        world.clock.move_to(world.clock.now() + HOUR)
        found = await world.tick()
        assert complaint in found.problems["bad"]
        assert len(found.started) == 1
        await world.end(found.started[0])


async def test_a_record_that_can_be_neither_read_nor_written_is_only_reported(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await world.schedules.create("report", HOURLY, id="bad")
    await world.schedules.create("report", HOURLY, id="good")
    put = world.store.schedules.put

    async def refuses_one(schedule: Schedule, *, expected: str | None) -> bool:
        if schedule.id == "bad":
            raise StoreError("the disk refuses")
        return await put(schedule, expected=expected)

    monkeypatch.setattr(world.store.schedules, "put", refuses_one)
    world.clock.move_to(START + HOUR)
    found = await world.tick()
    assert found.problems == {"bad": "StoreError: the disk refuses"}
    assert "good@20260105T090000Z" in found.started
    assert "schedule bad cannot be written" in caplog.text


async def test_a_run_that_is_suspended_is_an_open_one(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    await world.tick_after(hours=1)
    lease = await take(world.store, "s@20260105T090000Z", now=world.clock.now())
    await let_go(world.store, lease, Status.SUSPENDED)
    assert await world.tick_after(hours=1) == []


async def test_a_last_run_that_was_purged_holds_up_nothing(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="queue")
    await world.tick_after(hours=1)
    await world.store.purge("s@20260105T090000Z")
    assert await world.tick_after(hours=1) == ["s@20260105T100000Z"]


async def test_a_tick_is_bounded_by_its_limit_and_says_that_there_is_more(world: World) -> None:
    for number in range(5):
        await world.schedules.create("report", HOURLY, id=f"s{number}")
    world.clock.move_to(START + HOUR)
    counts = []
    for _ in range(4):
        found = await world.tick(limit=2)
        counts.append((len(found.started), found.more))
        for run_id in found.started:
            await world.end(run_id)
    assert [count for count, _ in counts] == [2, 2, 1, 0]
    assert [more for _, more in counts] == [True, True, False, False]


@pytest.mark.parametrize(("limit", "of_a", "of_b"), [(3, 3, 0), (4, 4, 0), (6, 4, 2), (9, 4, 4)])
async def test_all_schedules_together_start_no_more_than_the_limit(
    world: World, limit: int, of_a: int, of_b: int
) -> None:
    for name in ("a", "b"):
        await world.schedules.create("report", HOURLY, id=name, catch_up="all", overlap="allow")
    untouched = await world.schedule("b")
    world.clock.move_to(START + 4 * HOUR)
    assert [one[0] for one in (await world.tick(limit=limit)).started] == ["a"] * of_a + ["b"] * of_b
    assert (await world.schedule("b") == untouched) == (of_b == 0)
    assert len((await world.tick()).started) == 8 - of_a - of_b
    assert len(await world.runs()) == 8


async def test_a_schedule_with_a_long_backlog_takes_its_share_and_then_lets_others_go_first(world: World) -> None:
    every_minute = CronSchedule("* * * * *")
    await world.schedules.create("report", every_minute, id="backlog", catch_up="all", overlap="allow")
    await world.schedules.create("report", CronSchedule("0 12 * * *"), id="noon")
    world.clock.move_to(START + 10 * HOUR)
    found = await world.tick(limit=50)
    assert (len(found.started), found.more) == (50, True)
    found = await world.tick(limit=50)
    assert found.started[0] == "noon@20260105T120000Z", "its time has come before the backlog's turn came again"
    found = await world.tick(limit=300)
    assert (len(found.started), found.more) == (SHARE, True)


async def test_a_tick_looks_at_no_open_run_but_the_last_one_of_a_schedule_that_is_due(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.schedules.create("report", HOURLY, id="s", pause_after_failures=2)
    for number in range(20):
        await world.client.start_workflow("report", run_id=f"open-{number}", start_delay="9d")
    await world.tick_after(hours=1)
    looked_at: list[str] = []
    get = world.store.get

    async def counted(run_id: str) -> Any:
        looked_at.append(run_id)
        return await get(run_id)

    async def never(*_: Any) -> Any:
        raise AssertionError("a tick reads no lists and no histories")

    monkeypatch.setattr(world.store, "get", counted)
    monkeypatch.setattr(world.store, "list", never)
    monkeypatch.setattr(world.store, "load", never)
    assert await world.tick_after(hours=1) == []
    assert looked_at == ["s@20260105T090000Z"]


async def test_a_tick_whose_time_is_up_leaves_the_rest_to_the_next_and_says_so(world: World) -> None:
    for name in ("a", "b"):
        await world.schedules.create("report", HOURLY, id=name)
    world.clock.move_to(START + HOUR)
    found = await world.tick(deadline=START + HOUR)
    assert (found.started, found.more) == ((), True)
    found = await world.tick(deadline=START + 2 * HOUR)
    assert (len(found.started), found.more) == (2, False)


async def test_a_tick_says_what_it_did(world: World) -> None:
    for overlap in ("skip", "queue", "allow"):
        await world.schedules.create("report", HOURLY, id=overlap, overlap=overlap)
    await world.schedules.create("report", HOURLY, id="lost", catch_up="none")
    await world.tick_after(hours=1)
    await world.schedules.backfill("allow", START - 2 * HOUR, START, dry_run=False, max_concurrency=1)
    await world.end("allow@20260105T060000Z")
    await world.end("lost@20260105T090000Z")
    world.clock.move_to(START + 2 * HOUR + ON_TIME + timedelta(seconds=1))
    found = await world.tick()
    assert found.to_dict() == {
        "dispatched": list(found.dispatched),
        "more": False,
        "started": ["allow@20260105T100000Z"],
        "backfilled": ["allow@20260105T070000Z"],
        "skipped": ["lost", "skip"],
        "waiting": ["queue"],
        "paused": [],
        "problems": {},
    }


# --- a window for catching up ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "window", "started"),
    [
        ("all", "2h", [11, 12]),
        ("all", "150m", [11, 12]),
        ("all", None, [9, 10, 11, 12]),
        ("all", "1m", []),
        ("latest", "2h", [12]),
        ("latest", "10m", []),
        ("none", "2h", []),
    ],
    ids=str,
)
async def test_what_is_older_than_the_window_is_not_made_up_for(
    world: World, catch_up: str, window: str | None, started: list[int]
) -> None:
    await world.schedules.create("report", HOURLY, id="s", catch_up=catch_up, catch_up_window=window, overlap="allow")
    assert await world.tick_after(hours=4, minutes=45) == [f"s@20260105T{hour:02}0000Z" for hour in started]
    assert (await world.schedule("s")).next_at == START + 5 * HOUR
    assert await world.tick_after(minutes=16) == ["s@20260105T130000Z"], "one that is in time is never too old"


async def test_a_year_beyond_the_window_is_passed_over_at_once(world: World) -> None:
    options: dict[str, Any] = {"catch_up": "all", "catch_up_window": "5m", "jitter": 30, "overlap": "allow"}
    await world.schedules.create("report", CronSchedule("* * * * *"), id="s", **options)
    world.clock.move_to(START + timedelta(days=365, minutes=10, seconds=31))
    found = await world.tick()
    assert 5 <= len(found.started) <= 6
    assert found.started[-1] == "s@20270105T081000Z"


# --- pause after failures --------------------------------------------------------------------------------


async def _fires(world: World, status: Status | None) -> str | None:
    """The next hour's run, if there is one, and how it ends."""
    started = await world.tick_after(hours=1)
    if started and status is not None:
        await world.end(started[0], status)
    return started[0] if started else None


async def test_a_schedule_is_paused_when_so_many_of_its_runs_have_failed_in_a_row(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.schedules.create("report", HOURLY, id="s", pause_after_failures=3)
    bad, good = Status.FAILED, Status.COMPLETED
    for status in (bad, bad, good, bad, Status.CANCELLED, bad, Status.TERMINATED, bad):
        assert await _fires(world, status) is not None
    world.clock.move_to(world.clock.now() + HOUR)
    found = await world.tick()
    assert (found.started, found.paused) == ((), ("s",))
    paused = await world.schedule("s")
    assert (paused.paused, paused.next_at, paused.wake_at) == (True, None, None)
    assert paused.note == "paused after 3 failures in a row; the last one is run s@20260105T160000Z"
    assert "schedule s is paused: 3 of its runs failed in a row" in caplog.text
    await world.schedules.resume("s")
    assert await _fires(world, bad) is not None, "and it counts anew"
    assert await _fires(world, bad) is not None
    assert (await world.schedule("s")).failures == 1


async def test_runs_that_are_open_at_once_are_counted_when_they_have_ended_and_once_each(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s", overlap="allow", pause_after_failures=2)
    first, second = await _fires(world, None), await _fires(world, None)
    assert first is not None
    assert second is not None
    await world.end(first, Status.FAILED)
    assert await _fires(world, Status.COMPLETED) is not None
    assert (await world.schedule("s")).failures == 1
    assert await _fires(world, None) is not None
    assert (await world.schedule("s")).failures == 0, "one that has completed in between"
    triggered = await world.schedules.trigger("s")
    await world.end(triggered, Status.FAILED)
    await world.end(second, Status.FAILED)
    world.clock.move_to(world.clock.now() + HOUR)
    assert (await world.tick()).paused == ("s",)


async def test_without_the_option_no_failure_pauses_a_schedule_and_nothing_is_remembered(world: World) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    for _ in range(5):
        assert await _fires(world, Status.FAILED) is not None
    assert ((await world.schedule("s")).watched, (await world.schedule("s")).failures) == ((), 0)


# --- the data interval -----------------------------------------------------------------------------------


@workflow(name="looks")
async def looks(ctx: WorkflowContext, rounds: int = 1) -> Any:
    if rounds:
        await ctx.sleep(1)
        ctx.continue_as_new(rounds - 1)
    schedule = ctx.schedule
    return schedule and [schedule.id, *(str(one) for one in (schedule.interval_start, schedule.interval_end))]


@pytest.mark.parametrize(
    ("timing", "interval"),
    [
        (CronSchedule("0 9 * * 1", "Europe/Berlin"), ["2026-03-23 08:00:00+00:00", "2026-03-30 07:00:00+00:00"]),
        (IntervalSchedule(6 * HOUR, START), ["2026-03-24 08:00:00+00:00", "2026-03-24 14:00:00+00:00"]),
        (
            IntervalSchedule(6 * HOUR, START + 90 * 24 * HOUR),
            ["2026-04-05 02:00:00+00:00", "2026-04-05 08:00:00+00:00"],
        ),
        (OneOff(START + 90 * 24 * HOUR), ["2026-04-05 08:00:00+00:00", "2026-04-05 08:00:00+00:00"]),
    ],
    ids=["cron", "interval", "first", "once"],
)
async def test_a_run_knows_its_schedule_its_time_and_the_interval_before_it(timing: Any, interval: list[str]) -> None:
    start = START + timedelta(days=78, hours=5)  # in the week before the clocks change in Berlin
    async with WorkflowEnvironment([looks], start=start) as env:
        await env.schedule(looks, timing, id="s")
        await env.advance("14d" if interval[1] > "2026-04" else "7d")
        runs = sorted(run.run_id for run in await env.client.list_workflow_executions())
        at = datetime.fromisoformat(interval[1])
        run_id = next(one for one in runs if one == run_id_of("s", at))
        assert await env.result(run_id) == ["s", *interval], "also in its second generation"
        plain = await env.start(looks, 0)
        assert await env.result(plain) is None, "nobody scheduled it"
        events = await env.events(run_id, "RunStarted")
        assert events[0]["schedule_id"] == "s"


async def test_a_backfill_gives_a_run_the_interval_of_its_time_and_a_trigger_the_last_that_is_over(
    world: World,
) -> None:
    await world.schedules.create("report", HOURLY, id="s")
    await world.schedules.backfill("s", START - 2 * HOUR, START - HOUR, dry_run=False)
    world.clock.move_to(START + timedelta(minutes=20))
    triggered = await world.schedules.trigger("s")
    intervals = []
    for run_id in ("s@20260105T060000Z", triggered):
        state = await world.store.load(run_id)
        assert state is not None
        started = state.history[0]
        assert isinstance(started, RunStarted)
        assert event_from_dict(event_to_dict(started)) == started
        assert started.schedule_id == "s"
        intervals.append((started.scheduled_at, started.interval_start, started.interval_end))
    assert intervals == [
        (START - 2 * HOUR, START - 3 * HOUR, START - 2 * HOUR),
        (START + timedelta(minutes=20), START - HOUR, START),
    ]
