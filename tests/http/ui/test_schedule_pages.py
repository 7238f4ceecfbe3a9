"""Schedules on pages: when they fire, what became of their times, and what can be done with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.http.test_schedules import _Broken
from tests.http.ui.visitor import HOSTILE, visiting, visitors
from tests.scheduling import START, report
from tests.stores.records import let_go, take
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.cron import CronSchedule, IntervalSchedule, OneOff, Timing
from tinyworkflow_core.firing import run_id_of
from tinyworkflow_core.http.ui import schedules as pages
from tinyworkflow_core.http.ui.schedule_times import PAST_TIMES, history_of, next_times
from tinyworkflow_core.store import RunQuery, Status
from tinyworkflow_core.testing import VirtualClock

BERLIN = CronSchedule("0 9 * * *", "Europe/Berlin")
HOURLY = CronSchedule("0 * * * *")


@workflow(redact=("card",))
async def discreet(ctx: WorkflowContext, value: dict[str, Any]) -> None: ...


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture
async def app(clock: VirtualClock) -> AsyncIterator[App]:
    made = App("sqlite:///:memory:", workflows=[report, discreet], dispatcher="none", clock=clock)
    yield made
    await made.close()


async def ended(app: App, run_id: str, status: Status) -> None:
    await let_go(app.store, await take(app.store, run_id, now=app.clock.now()), status, closed_at=app.clock.now())


async def runs(app: App) -> list[str]:
    return [one.run_id for one in (await app.store.list(RunQuery())).items]


async def after(app: App, clock: VirtualClock, hours: Iterable[float], status: Status | None = None) -> None:
    """Ticks so many hours after the start; the runs that they start end like that."""
    for one in hours:
        clock.move_to(START + timedelta(hours=one))
        for run_id in (await app.tick()).started:
            if status is not None:
                await ended(app, run_id, status)


# --- times -----------------------------------------------------------------------------------------------


async def test_the_next_five_times_are_told_in_the_schedules_own_zone_across_a_change_of_its_clock(
    app: App, clock: VirtualClock
) -> None:
    clock.move_to(datetime(2026, 3, 27, 12, 0, tzinfo=UTC))
    await app.schedules.create("report", BERLIN, id="daily")
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/schedules/daily")
        listed = await visitor.see("/ui/schedules")
    told = [
        "Sat 2026-03-28 09:00:00 CET in 20 h",
        "Sun 2026-03-29 09:00:00 CEST in 1 d",
        "Mon 2026-03-30 09:00:00 CEST in 2 d",
        "Tue 2026-03-31 09:00:00 CEST in 3 d",
        "Wed 2026-04-01 09:00:00 CEST in 4 d In the zone Europe/Berlin",
    ]
    assert " ".join(told) in page.words
    assert "0 9 * * * (Europe/Berlin) Sat 2026-03-28 09:00 CET" in listed.words


@pytest.mark.parametrize(
    ("timing", "hours", "told"),
    [
        (HOURLY, 2.5, ["09", "11", "12", "13", "14"]),
        (IntervalSchedule(timedelta(hours=3), START + timedelta(hours=3)), 1, ["11", "14", "17", "20", "23"]),
        (OneOff(START + timedelta(hours=1)), 0, ["09"]),
        (OneOff(START + timedelta(hours=1)), 2, ["09"]),
    ],
    ids=["overdue", "interval", "once", "once, overdue"],
)
async def test_a_time_that_is_overdue_is_the_next_one_and_those_that_passed_meanwhile_are_none(
    app: App, clock: VirtualClock, timing: Timing, hours: float, told: list[str]
) -> None:
    await app.schedules.create("report", timing, id="s")
    clock.move_to(START + timedelta(hours=hours))
    found = next_times(await app.schedules.get("s"), clock.now())
    assert [f"{one.at:%H}" for one in found] == told


async def test_the_grid_has_a_cell_for_each_time_with_what_became_of_it(app: App, clock: VirtualClock) -> None:
    await app.schedules.create("report", HOURLY, id="hourly")
    await after(app, clock, [1, 2], Status.COMPLETED)
    await after(app, clock, [3], Status.FAILED)
    await app.schedules.pause("hourly")
    clock.move_to(START + timedelta(hours=4.5))
    await app.schedules.resume("hourly")
    await after(app, clock, [17])
    by_hand = await app.schedules.trigger("hourly")
    await app.client.start_workflow("report", run_id="not-of-it")
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/schedules/hourly")
    told = [
        *("Tue 2026-01-06 00:00: no run", "Tue 2026-01-06 01:00: pending"),
        *("Mon 2026-01-05 08:00: no run", "Mon 2026-01-05 09:00: completed", "Mon 2026-01-05 10:00: completed"),
        *("Mon 2026-01-05 11:00: failed", "Mon 2026-01-05 12:00: no run"),
    ]
    assert page.cells[:7] == told
    assert len(page.cells) == 18
    assert f"/ui/runs/{run_id_of('hourly', START + timedelta(hours=3)).replace('@', '%40')}" in page.links
    assert by_hand in page.words
    assert "not-of-it" not in page.words
    assert "All times since it was made" in page.words


async def test_the_past_costs_one_record_a_time_and_no_more_of_them_than_are_shown(
    app: App, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.schedules.create("report", CronSchedule("* * * * *"), id="often")
    clock.move_to(START + timedelta(days=400))
    schedule, read, get = await app.schedules.get("often"), [], app.store.get

    async def counted(run_id: str) -> Any:
        read.append(run_id)
        return await get(run_id)

    monkeypatch.setattr(app.store, "get", counted)
    history = await history_of(app.store, schedule, clock.now())
    assert len(read) == PAST_TIMES == sum(len(row.times) for row in history.rows)
    assert history.is_cut
    newest = history.rows[0]
    assert (newest.label, newest.times[-1].at) == ("Tue 2027-02-09 08:00", clock.now())


@pytest.mark.parametrize(
    ("timing", "labels"),
    [
        (CronSchedule("0 6,18 * * *"), ["Sat 2026-01-31", "Fri 2026-01-30"]),
        (BERLIN, ["2026 week 05", "2026 week 04"]),
        (CronSchedule("0 9 * * mon"), ["2026"]),
    ],
    ids=["twice a day", "daily", "weekly"],
)
async def test_a_row_of_the_grid_holds_what_is_easily_compared(
    app: App, clock: VirtualClock, timing: Timing, labels: list[str]
) -> None:
    await app.schedules.create("report", timing, id="s")
    clock.move_to(datetime(2026, 1, 31, 20, 0, tzinfo=UTC))
    history = await history_of(app.store, await app.schedules.get("s"), clock.now())
    assert [row.label for row in history.rows][: len(labels)] == labels
    for row in history.rows:
        assert list(row.times) == sorted(row.times, key=lambda one: one.at)


# --- steering --------------------------------------------------------------------------------------------


async def test_a_schedule_is_paused_with_a_note_and_resumed(app: App) -> None:
    await app.schedules.create("report", BERLIN, id="daily")
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/schedules/daily")
        await visitor.send(page, "/pause", 422, note="n" * 1001)
        paused = await visitor.send(page, "/pause", note=HOSTILE[:900])
        assert "The schedule is paused" in paused.words
        assert "<script>alert" in paused.words
        assert (await app.schedules.get("daily")).note == HOSTILE[:900]
        assert "Next times, if it is resumed" in paused.words
        assert not paused.has_form("/pause")
        assert "<script>alert" in (await visitor.see("/ui/schedules")).words
        resumed = await visitor.send(paused, "/resume")
        assert "goes on with its next time" in resumed.words
        assert resumed.has_form("/pause")
    assert not (await app.schedules.get("daily")).paused


async def test_a_form_starts_one_run_however_often_it_is_sent(app: App) -> None:
    await app.schedules.create("report", BERLIN, id="daily")
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/schedules/daily")
        answers = [await visitor.post(page.form("/trigger")) for _ in range(2)]
        assert [one.status_code for one in answers] == [303, 303]
        await visitor.post((await visitor.see("/ui/schedules/daily")).form("/trigger"))
    found = await runs(app)
    assert len(found) == 2
    places = {one.headers["location"] for one in answers}
    assert len(places) == 1
    assert places.pop().replace("%40", "@").removeprefix("/ui/runs/") in found


async def test_a_backfill_begins_after_its_times_were_shown_and_only_if_they_are_the_same(app: App) -> None:
    await app.schedules.create("report", BERLIN, id="daily")
    window = {"start": "2026-01-01T09:00", "end": "2026-01-04T09:00", "max_concurrency": "2"}
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/schedules/daily")
        plan = await visitor.send(page, "/backfill", 200, **window)
        assert "A backfill of this window has 3 times Thu 2026-01-01 09:00:00 CET Fri 2026-01-02" in plan.words
        assert not (await app.schedules.get("daily")).backfills
        assert not await runs(app)
        changed = await visitor.send(plan, "/backfill", 200, expected="2")
        assert "The times have changed since" in changed.words
        assert not await runs(app)
        begun = await visitor.send(plan, "/backfill")
        assert "The backfill has begun" in begun.words
        assert "2 of 3" in begun.words
        assert await runs(app) == ["daily@20260102T080000Z", "daily@20260101T080000Z"]
        assert "Thu 2026-01-01 09:00: pending" in begun.cells, "what was made up for is in the grid"
        cancelled = await visitor.send(begun, "/cancel")
        assert "starts nothing more" in cancelled.words
        assert not cancelled.has_form("/cancel")
        window |= {"start": "2026-01-01T09:01", "end": "2026-01-01T09:02"}
        assert "There is nothing to make up for" in (await visitor.send(page, "/backfill", 200, **window)).words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": ""}, "From: must be a date and time"),
        ({"end": "soon"}, "Until (not included): must be a date and time"),
        ({"end": "2026-01-01T09:00"}, "must be later than the beginning"),
        ({"end": "9999-12-31T23:59"}, "is not between"),
        ({"max_concurrency": "101"}, "must be a whole number from 1 to 100"),
        ({"max_concurrency": "٣"}, "must be a whole number from 1 to 100"),
        ({"start": "2020-01-01T00:00"}, "there are more than 1000 times"),
    ],
    ids=str,
)
async def test_a_window_that_does_not_fit_is_told_at_its_field(app: App, change: dict[str, str], words: str) -> None:
    await app.schedules.create("report", BERLIN, id="daily")
    window = {"start": "2026-01-01T09:00", "end": "2026-01-04T09:00", "max_concurrency": "2"} | change
    async with visiting(app) as visitor:
        page = await visitor.send(await visitor.see("/ui/schedules/daily"), "/backfill", 422, **window)
    assert words in page.words
    assert page.title.startswith("Error: ")
    assert page.form("/backfill").fields["end"] == window["end"], "what was typed is still there"


async def test_times_to_come_are_shown_and_cannot_begin(app: App) -> None:
    await app.schedules.create("report", BERLIN, id="daily")
    window = {"start": "2026-01-05T00:00", "end": "2026-01-08T00:00"}
    async with visiting(app) as visitor:
        page = await visitor.send(await visitor.see("/ui/schedules/daily"), "/backfill", 200, **window)
        assert "reaches into the future" in page.words
        assert "Begin backfill" not in page.words
        await visitor.send(page, "/backfill", 422, **window, expected="3")
    assert not (await app.schedules.get("daily")).backfills


# --- who and what ------------------------------------------------------------------------------------------


async def test_only_operators_steer(app: App) -> None:
    await app.schedules.create("report", BERLIN, id="daily")
    async with visitors(app, boss=["read", "operate"], reader=["read"], starter=["start"]) as by:
        page = await by["boss"].see("/ui/schedules/daily")
        seen = await by["reader"].see("/ui/schedules/daily")
        assert [one.action for one in seen.forms if "/ui/schedules" in one.action] == []
        for action in ("/pause", "/trigger", "/backfill"):
            await by["reader"].send(page, action, 403)
            forged = page.form(action)
            forged.fields["csrf"] = ""
            assert (await by["boss"].post(forged)).status_code == 403
        await by["starter"].see("/ui/schedules", 403)
    assert not (await app.schedules.get("daily")).paused
    assert not await runs(app)


async def test_schedules_are_listed_page_by_page_and_a_damaged_one_hides_no_other(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_SIZE", 2)
    for name in ("a", "b", "c"):
        await app.schedules.create("report", BERLIN, 1, id=name, attributes={"to": HOSTILE})
    broken: Any = _Broken(await app.schedules.get("b"))
    assert await app.store.schedules.put(broken, expected=(await app.schedules.get("b")).etag)
    async with visiting(app) as visitor:
        first = await visitor.see("/ui/schedules")
        assert "b damaged" in first.words
        assert " c " not in first.words
        assert "/ui/schedules/c" in (await visitor.see("/ui/schedules?after=b")).links
        assert "damaged" in (await visitor.see("/ui/schedules/b", 409)).words
        assert "<script>" in (await visitor.see("/ui/schedules/a")).words
        await visitor.see("/ui/schedules/none", 404)
        await visitor.see("/ui/schedules/%3Cscript%3E", 404)
        await visitor.see("/ui/schedules?after=%3Cscript%3E%00")


async def test_what_a_workflow_hides_is_hidden_in_the_input_and_the_attributes_of_its_schedules(app: App) -> None:
    hidden = {"card": "4242", "amount": "7"}
    await app.schedules.create("discreet", BERLIN, hidden, id="s", attributes=hidden)
    async with visitors(app, all=["all"], trusted=["read", "reveal"]) as by:
        page = await by["all"].see("/ui/schedules/s")
        assert page.words.count("card [redacted] amount 7") == 2
        assert "4242" not in page.html
        assert "4242" in (await by["trusted"].see("/ui/schedules/s")).words
