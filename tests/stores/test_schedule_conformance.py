"""What every store promises about schedules. One suite, run on each."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.scheduling import START, World
from tests.stores.conftest import StoreFactory
from tests.stores.records import MICROSECOND, SECOND, T0
from tinyworkflow_core.cron import CronSchedule
from tinyworkflow_core.errors import StoreError
from tinyworkflow_core.schedule_store import (
    Backfill,
    BackfillState,
    CatchUp,
    DamagedSchedule,
    Overlap,
    Schedule,
    ScheduleStore,
)
from tinyworkflow_core.store import Store
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.stores.firestore import FirestoreStore
from tinyworkflow_core.stores.sqlite import SqliteStore
from tinyworkflow_core.testing import VirtualClock

DAILY = {"kind": "cron", "expression": "0 9 * * *", "timezone": "Europe/Berlin"}


@pytest.fixture
def schedules(store: Store) -> ScheduleStore:
    return store.schedules


def a_schedule(schedule_id: str = "daily", **fields: Any) -> Schedule:
    values: dict[str, Any] = {"workflow": "report", "timing": DAILY, "created_at": T0, "etag": "1"}
    return Schedule(id=schedule_id, **(values | fields))


FULL = a_schedule(
    input='{"text":"\\ud800 é \\"quoted\\""}',
    overlap=Overlap.CANCEL_OTHER,
    catch_up=CatchUp.ALL,
    jitter=1.25,
    paused=True,
    note="a lone surrogate: \ud800",
    next_at=T0 + MICROSECOND,
    due_at=T0 + SECOND,
    held_since=T0 - SECOND,
    problem="no such workflow",
    last_at=T0 - timedelta(days=1),
    last_run_id="daily@20260228T090000Z",
    attributes={"team": "billing", "level": 3, "share": 0.5, "urgent": True},
    catch_up_window=7200.5,
    pause_after_failures=3,
    failures=2,
    watched=("daily@20260227T090000Z", "daily@20260228T090000Z"),
    backfills=(
        Backfill(
            id="one",
            start=T0 - timedelta(days=9),
            end=T0 - MICROSECOND,
            max_concurrency=2,
            total=9,
            created_at=T0,
            next_at=T0 - timedelta(days=5),
            look_at=T0 + MICROSECOND,
            open_runs=("daily@20260220T090000Z",),
            started=4,
            failed=1,
            held_since=T0,
            problem="no such workflow",
        ),
        Backfill(id="two", start=T0, end=T0, max_concurrency=1, total=1, created_at=T0, state=BackfillState.CANCELLED),
    ),
)


async def test_a_schedule_comes_back_as_it_was_put(schedules: ScheduleStore) -> None:
    assert await schedules.get("daily") is None
    for schedule in (a_schedule("plain"), FULL):
        assert await schedules.put(schedule, expected=None)
        found = await schedules.get(schedule.id)
        assert found == schedule
        assert isinstance(found.overlap, Overlap)
        assert isinstance(found.catch_up, CatchUp)


async def test_a_put_needs_the_state_that_is_there(schedules: ScheduleStore) -> None:
    first = a_schedule()
    second, third = replace(first, etag="2", note="two"), replace(first, etag="3", note="three")
    assert not await schedules.put(second, expected="1")
    assert await schedules.get("daily") is None
    assert await schedules.put(first, expected=None)
    assert not await schedules.put(second, expected=None)
    assert not await schedules.put(second, expected="7")
    assert await schedules.get("daily") == first
    assert await schedules.put(second, expected="1")
    assert not await schedules.put(third, expected="1")
    assert await schedules.get("daily") == second


async def test_a_put_that_comes_again_succeeds_as_long_as_nobody_wrote_since(schedules: ScheduleStore) -> None:
    first = a_schedule()
    second = replace(first, etag="2")
    assert await schedules.put(first, expected=None)
    assert await schedules.put(first, expected=None)
    assert await schedules.put(second, expected="1")
    assert await schedules.put(second, expected="1")
    assert not await schedules.put(first, expected=None)


async def test_of_simultaneous_puts_exactly_one_wins(schedules: ScheduleStore) -> None:
    for expected in (None, "0-1"):
        if expected is not None:
            current = await schedules.get("daily")
            assert current is not None
            assert await schedules.put(replace(current, etag=expected), expected=current.etag)
        rivals = [a_schedule(etag=f"{expected}-{number}", note=str(number)) for number in range(12)]
        won = await asyncio.gather(*(schedules.put(one, expected=expected) for one in rivals))
        assert won.count(True) == 1
        assert await schedules.get("daily") == rivals[won.index(True)]


async def test_what_is_deleted_is_gone_and_can_be_made_anew(schedules: ScheduleStore) -> None:
    assert not await schedules.delete("daily")
    await schedules.put(a_schedule(due_at=T0), expected=None)
    await schedules.put(a_schedule("other"), expected=None)
    assert await schedules.delete("daily")
    assert not await schedules.delete("daily")
    assert await schedules.get("daily") is None
    assert not await schedules.due(now=T0, limit=10)
    assert not await schedules.put(a_schedule(etag="2"), expected="1"), "a tick that saw it brings it back"
    assert await schedules.put(a_schedule(), expected=None)
    assert await schedules.get("other") is not None


async def test_due_gives_what_is_due_longest_overdue_first_and_bounded(schedules: ScheduleStore) -> None:
    moments = {"c": T0, "b": T0 - SECOND, "a": T0, "later": T0 + MICROSECOND, "never": None, "d": T0 - MICROSECOND}
    for schedule_id, due_at in moments.items():
        await schedules.put(a_schedule(schedule_id, due_at=due_at, next_at=T0 - SECOND), expected=None)
    found = await schedules.due(now=T0, limit=10)
    assert [one.id for one in found] == ["b", "d", "a", "c"]
    assert found[0] == a_schedule("b", due_at=T0 - SECOND, next_at=T0 - SECOND)
    assert [one.id for one in await schedules.due(now=T0, limit=2)] == ["b", "d"]


async def test_a_schedule_is_due_for_its_backfills_also_while_it_is_paused(schedules: ScheduleStore) -> None:
    late, early = replace(FULL.backfills[0], look_at=T0 + SECOND), replace(FULL.backfills[0], id="b", look_at=T0)
    await schedules.put(a_schedule(backfills=(late, early), paused=True), expected=None)
    await schedules.put(a_schedule("other", backfills=(late,), due_at=T0 - SECOND), expected=None)
    assert [one.id for one in await schedules.due(now=T0, limit=10)] == ["other", "daily"]
    await schedules.put(a_schedule(backfills=(late,), paused=True, etag="2"), expected="1")
    assert [one.id for one in await schedules.due(now=T0, limit=10)] == ["other"]


async def test_due_follows_every_put(schedules: ScheduleStore) -> None:
    first = a_schedule(due_at=T0)
    await schedules.put(first, expected=None)
    await schedules.put(replace(first, due_at=T0 + SECOND, etag="2"), expected="1")
    assert not await schedules.due(now=T0, limit=10)
    assert [one.id for one in await schedules.due(now=T0 + SECOND, limit=10)] == ["daily"]
    await schedules.put(replace(first, due_at=None, etag="3"), expected="2")
    assert not await schedules.due(now=T0 + timedelta(days=9999), limit=10)


async def test_a_list_is_in_the_order_of_ids_page_by_page(schedules: ScheduleStore) -> None:
    ids = ["Zeta", "alpha", "alpha-2", "beta", "beta:1"]
    for schedule_id in reversed(ids):
        await schedules.put(a_schedule(schedule_id, paused=True), expected=None)
    assert [one.id for one in await schedules.list()] == ids
    assert [one.id for one in await schedules.list(limit=2)] == ids[:2]
    assert [one.id for one in await schedules.list(limit=2, after="alpha")] == ids[2:4]
    assert [one.id for one in await schedules.list(limit=2, after="beta")] == ids[4:]
    assert not await schedules.list(after="beta:1")


async def test_a_record_that_cannot_be_read_does_not_hide_the_others(store: Store) -> None:
    await store.schedules.put(a_schedule("broken", due_at=T0 - SECOND), expected=None)
    await store.schedules.put(a_schedule("whole", due_at=T0), expected=None)
    for damage in ("{", "[]", '{"id": "broken"}', '{"id": "broken", "overlap": "perhaps"}', '{"backfills": [1]}'):
        await damage_record(store, "broken", damage)
        for found in (await store.schedules.due(now=T0, limit=10), await store.schedules.list()):
            broken, whole = found
            assert isinstance(broken, DamagedSchedule), damage
            assert broken.id == "broken"
            assert isinstance(whole, Schedule)
        with pytest.raises(StoreError, match="cannot be read"):
            await store.schedules.get("broken")
    assert await store.schedules.delete("broken")


async def damage_record(store: Store, schedule_id: str, record: str) -> None:
    """What a disk, a person or another release may do."""
    if isinstance(store, FirestoreStore):
        document = store._connection.client().collection("tinyworkflow_schedules").document(schedule_id)
        await document.update({"record": record})
        return
    assert isinstance(store, SqliteStore)

    def write(db: sqlite3.Connection, changed: dict[str, bool]) -> None:
        db.execute("UPDATE schedules SET record = ? WHERE id = ?", (record, schedule_id))

    await store._writer.run(write)


async def test_fields_of_a_later_release_are_passed_over(store: Store) -> None:
    await store.schedules.put(a_schedule(), expected=None)
    known = {"id": "daily", "workflow": "w", "timing": {}, "created_at": T0.isoformat(), "etag": "1"}
    await damage_record(store, "daily", json.dumps({**known, "of_tomorrow": 1}))
    found = await store.schedules.get("daily")
    assert found is not None
    assert (found.workflow, found.overlap, found.next_at) == ("w", Overlap.SKIP, None)


async def test_schedules_outlive_the_store_that_wrote_them(shared_store_factory: StoreFactory) -> None:
    url = shared_store_factory.url()
    one, other = open_store(url), open_store(url)
    assert await one.schedules.put(FULL, expected=None)
    assert await other.schedules.get("daily") == FULL
    assert not await other.schedules.put(a_schedule(etag="2"), expected=None)
    assert await other.schedules.delete("daily")
    assert await one.schedules.get("daily") is None
    await one.close()
    await other.close()


async def test_ticks_of_several_processes_at_once_start_one_run_per_time(shared_store_factory: StoreFactory) -> None:
    url, clock = shared_store_factory.url(), VirtualClock(START)
    worlds = [World(open_store(url), clock) for _ in range(3)]
    for number in range(3):
        await worlds[0].schedules.create("report", CronSchedule("0 * * * *"), id=f"s{number}", overlap="allow")
    for hour in (1, 2):
        clock.move_to(START + timedelta(hours=hour))
        reports = await asyncio.gather(*(world.tick() for world in worlds))
        assert not [one.problems for one in reports if one.problems]
    expected = sorted(f"s{number}@20260105T{hour}0000Z" for number in range(3) for hour in ("09", "10"))
    for world in worlds:
        assert await world.runs() == expected
        assert {one.last_run_id for one in await world.schedules.list() if isinstance(one, Schedule)} == {
            *expected[1::2]
        }
        await world.store.close()


@pytest.mark.parametrize(("catch_up", "hours"), [("all", ["09", "10", "11"]), ("latest", ["11"]), ("none", [])])
async def test_after_three_periods_without_a_tick_two_at_once_catch_up_as_they_were_told(
    shared_store_factory: StoreFactory, catch_up: str, hours: list[str]
) -> None:
    url, clock = shared_store_factory.url(), VirtualClock(START)
    worlds = [World(open_store(url), clock) for _ in range(2)]
    hourly = CronSchedule("0 * * * *")
    await worlds[0].schedules.create("report", hourly, id="s", overlap="allow", catch_up=catch_up)
    await worlds[0].schedules.create("report", hourly, id="b")
    await worlds[0].schedules.pause("b")
    await worlds[0].schedules.backfill("b", START - timedelta(hours=3), START, dry_run=False, max_concurrency=2)
    await worlds[1].end("b@20260105T050000Z")
    clock.move_to(START + timedelta(hours=3, minutes=30))
    await asyncio.gather(*(world.tick() for world in worlds))
    backfilled = [f"b@20260105T{hour}0000Z" for hour in ("05", "06", "07")]
    for world in worlds:
        assert await world.runs() == [*backfilled, *(f"s@20260105T{hour}0000Z" for hour in hours)]
        [backfill] = (await world.schedule("b")).backfills
        assert (backfill.started, sorted(backfill.open_runs)) == (3, backfilled[1:])
        await world.store.close()


async def test_what_is_due_is_found_by_a_range_of_an_index(tmp_path: Any) -> None:
    store = SqliteStore(str(tmp_path / "x.db"))
    await store.schedules.put(a_schedule(), expected=None)

    def plan(db: sqlite3.Connection, changed: dict[str, bool]) -> list[str]:
        return [
            row[3]
            for sql in ("due_at <= 5 ORDER BY due_at, id LIMIT 5", "id > 'a' ORDER BY id LIMIT 5")
            for row in db.execute(f"EXPLAIN QUERY PLAN SELECT id, record FROM schedules WHERE {sql}")
        ]

    due, page = await store._writer.run(plan)
    assert "schedules_due (due_at<?)" in due
    assert "(id>?)" in page
    await store.close()
