"""Making and deleting schedules on pages: nothing is stored before its times were shown, nothing goes by one click."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from tests.http.ui.visitor import HOSTILE, Page, Visitor, visiting, visitors
from tests.scheduling import START, report
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.cron import CronSchedule, IntervalSchedule, OneOff, timing_from_dict
from tinyworkflow_core.http.ui.new_schedule import PATH
from tinyworkflow_core.schedule_store import CatchUp, Overlap, Schedule
from tinyworkflow_core.testing import VirtualClock

HOURLY = CronSchedule("0 * * * *")


class Parcel(BaseModel):
    """A typed input."""

    weight: int


@workflow
async def ship(ctx: WorkflowContext, parcel: Parcel) -> None: ...


@pytest.fixture
async def app() -> AsyncIterator[App]:
    made = App("sqlite:///:memory:", workflows=[report, ship], dispatcher="none", clock=VirtualClock(START))
    yield made
    await made.close()


async def stored(app: App) -> list[Any]:
    return list(await app.schedules.list())


async def filled(visitor: Visitor, status: int = 200, **typed: str) -> Page:
    """The page after the form was sent for the first time."""
    return await visitor.send(await visitor.see(PATH), PATH, status, **typed)


async def made(visitor: Visitor, **typed: Any) -> Page:
    """The page of the schedule, after both forms were sent."""
    return await visitor.send(await filled(visitor, **typed), PATH)


async def test_a_schedule_is_stored_only_after_its_next_times_were_shown(app: App) -> None:
    async with visiting(app) as visitor:
        assert PATH in (await visitor.see("/ui/schedules")).links
        page = await filled(visitor, workflow="report", cron="30 9 * * mon", timezone="Europe/Berlin")
        assert "Its next times would be" in page.words
        assert "09:30:00 C" in page.words
        assert "In the zone Europe/Berlin" in page.words
        assert await stored(app) == []
        done = await visitor.send(page, PATH)
        assert "The schedule is made." in done.words
        again = await visitor.send(page, PATH, 422)
        assert "there is a schedule of this id already" in again.words
    (found,) = await stored(app)
    assert isinstance(found, Schedule)
    assert found.id.startswith("report_")
    assert timing_from_dict(found.timing) == CronSchedule("30 9 * * mon", "Europe/Berlin")
    assert (found.overlap, found.catch_up, found.input) == (Overlap.SKIP, CatchUp.LATEST, app.codec.encode(None))


async def test_every_option_is_kept_as_it_was_chosen(app: App) -> None:
    async with visiting(app) as visitor:
        await made(
            visitor,
            workflow="ship",
            interval="6h",
            input=' {"weight": 3} ',
            overlap="cancel_other",
            catch_up="none",
            catch_up_window="2d",
            jitter="5m",
            pause_after_failures="3",
            id="every-6h",
        )
        await made(visitor, workflow="report", at="2031-01-31T09:00", timezone="Europe/Berlin", id="once")
        await made(visitor, workflow="report", at="2031-01-31T09:00:00+05:00", id="once-there")
    found = await app.schedules.get("every-6h")
    timing = timing_from_dict(found.timing)
    assert isinstance(timing, IntervalSchedule)
    assert (timing.every, found.next_at) == (timedelta(hours=6), START + timedelta(hours=6))
    assert app.codec.plain(found.input) == {"weight": 3}
    assert (found.overlap, found.catch_up, found.pause_after_failures) == (Overlap.CANCEL_OTHER, CatchUp.NONE, 3)
    assert (found.catch_up_window, found.jitter) == (172_800, 300)
    once, there = await app.schedules.get("once"), await app.schedules.get("once-there")
    assert timing_from_dict(once.timing) == OneOff(datetime(2031, 1, 31, 8, tzinfo=UTC))
    assert timing_from_dict(there.timing) == OneOff(datetime(2031, 1, 31, 4, tzinfo=UTC))


WRONG: list[tuple[dict[str, str], str]] = [
    ({"workflow": ""}, "Workflow: is required"),
    ({"workflow": "gone"}, "Workflow: choose one of those that are there"),
    ({"cron": ""}, "Cron line: fill in one of"),
    ({"interval": "6h"}, "Every: fill in one of"),
    ({"cron": "61 * * * *"}, "Cron line: minute"),
    ({"cron": "x"}, "has 1 fields instead of five"),
    ({"timezone": "Mars/Base"}, "Time zone"),
    ({"cron": "", "interval": "soon"}, "Every: "),
    ({"cron": "", "interval": "-5s"}, "Every: "),
    ({"cron": "", "at": "tomorrow"}, "Once, at: must be a date and time"),
    ({"cron": "", "at": "2001-01-01T00:00"}, "has passed"),
    ({"cron": "", "at": "0001-01-01T00:00", "timezone": "Asia/Tokyo"}, "Once, at: "),
    ({"cron": "", "at": "2031-01-01T00:00", "timezone": "../etc/passwd"}, "Time zone"),
    ({"workflow": "ship", "input": '{"weight": "heavy"}'}, "Input, as JSON: weight"),
    ({"workflow": "ship"}, "Input, as JSON: "),
    ({"input": "{"}, "Input, as JSON: "),
    ({"input": '{"a": NaN}'}, "Input, as JSON: "),
    ({"overlap": "maybe"}, "While the last run is still open: 'maybe' is not known"),
    ({"catch_up": ""}, "Of times that were missed: '' is not known"),
    ({"catch_up_window": "soon"}, "Missed times count for: "),
    ({"jitter": "2d"}, "up to so much later: 172800.0 s is over the limit of a day"),
    ({"pause_after_failures": "²"}, "must be a whole number from 1 to 1000"),
    ({"pause_after_failures": "0"}, "Pause after so many failures in a row: 0 is not"),
    ({"id": "_new"}, "Schedule ID: '_new' does not fit"),
    ({"id": "there"}, "Schedule ID: there is a schedule of this id already"),
    ({"cron": "0 " * 400}, "Cron line: must have at most 500 characters"),
    ({"cron": HOSTILE[:400]}, "Cron line: "),
    ({"id": HOSTILE[:400], "workflow": "report"}, "Schedule ID: "),
    ({"input": HOSTILE}, "Input, as JSON: "),
    ({"timezone": HOSTILE[:100]}, "Time zone"),
]


async def test_what_does_not_fit_is_told_at_its_field_and_nothing_is_stored(app: App) -> None:
    await app.schedules.create("report", HOURLY, 7, id="there", attributes={"kept": 1})
    before = await stored(app)
    async with visiting(app) as visitor:
        empty = await visitor.see(PATH)
        for number, (typed, words) in enumerate(WRONG):
            given = {"workflow": "report", "cron": "0 9 * * *", **typed}
            page = await visitor.send(empty, PATH, 422, **given, sure="yes" if number % 2 else "")
            assert words in page.words, (typed, page.words)
            assert page.title.startswith("Error: "), typed
            assert "aria-invalid" in page.html, typed
            kept = page.form(PATH).fields
            for name, text in given.items():
                if name not in ("workflow", "overlap", "catch_up") and "\0" not in text:
                    assert kept[name].strip() == text.strip(), "what was typed is still there"
    assert await stored(app) == before


async def test_schedules_are_made_and_deleted_by_operators_of_all_workflows(app: App) -> None:
    await app.schedules.create("report", HOURLY, id="hourly")
    few = {"scopes": ["read", "operate"], "workflows": ["report"]}
    async with visitors(app, reader=["read", "start"], few=few, operator=["read", "operate"]) as by:
        form = (await by["operator"].see(PATH)).form(PATH)
        for who in ("reader", "few"):
            await by[who].see(PATH, 403)
            assert (await by[who].post(form, workflow="report", cron="@daily", sure="yes")).status_code == 403
        page = await by["reader"].see("/ui/schedules")
        assert PATH not in page.links
        assert not (await by["reader"].see("/ui/schedules/hourly")).has_form("/delete")
        deletion = (await by["operator"].see("/ui/schedules/hourly")).form("/delete")
        assert (await by["reader"].post(deletion, sure="yes")).status_code == 403
        assert (await by["operator"].post(deletion, sure="yes", csrf="forged")).status_code == 403
        assert [one.id for one in await stored(app)] == ["hourly"]
        assert (await by["operator"].post(form, workflow="report", cron="@daily", csrf="forged")).status_code == 403


async def test_a_schedule_is_deleted_only_by_whoever_ticks_that_it_shall_be_gone_and_its_runs_stay(app: App) -> None:
    await app.schedules.create("report", HOURLY, id="hourly")
    run_id = await app.schedules.trigger("hourly")
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/schedules/hourly")
        kept = await visitor.send(page, "/delete", 422)
        assert "tick the box" in kept.words
        assert [one.id for one in await stored(app)] == ["hourly"]
        done = await visitor.send(kept, "/delete", sure="yes")
        assert "The schedule is deleted" in done.words
        assert "/ui/schedules/hourly" not in done.links
        assert (await visitor.post(page.form("/delete"), sure="yes")).status_code == 404
    assert await stored(app) == []
    assert await app.store.get(run_id) is not None
