"""When schedules fire: expressions, zones, both changes of daylight saving, intervals, one-offs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinyworkflow_core.cron import (
    CronSchedule,
    IntervalSchedule,
    OneOff,
    Timing,
    timing_from_dict,
    timing_to_dict,
)
from tinyworkflow_core.errors import InvalidInputError

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]  # the parts are year, month, day and so on


def local_times(expression: str, timezone: str, start: datetime, count: int) -> list[str]:
    """The next times as the zone's clocks show them."""
    cron, times = CronSchedule(expression, timezone), []
    for _ in range(count):
        start = cron.next_after(start)
        assert start.tzinfo is UTC
        times.append(start.astimezone(ZoneInfo(timezone)).strftime("%a %d %b %H:%M %z"))
    return times


# --- expressions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "means"),
    [
        ("0 9 * * mon", "0 9 * * 1"),
        ("0 9 * * MON-Fri", "0 9 * * 1-5"),
        ("0 9 * * 7", "0 9 * * 0"),
        ("0 9 * * sun", "0 9 * * 0"),
        ("0 9 * * 6-7", "0 9 * * 0,6"),
        ("0 9 * * 5-7", "0 9 * * 0,5,6"),
        ("0 9 * * 0-7", "0 9 * * *"),
        ("0 9 * * 7-7", "0 9 * * 0"),
        ("0 0 1 jan,JUL *", "0 0 1 1,7 *"),
        ("  0   9\t* * 1 ", "0 9 * * 1"),
        ("0 9-9 * * *", "0 9 * * *"),
        ("5-5/2 * * * *", "5 * * * *"),
        ("*/20 * * * *", "0,20,40 * * * *"),
        ("10/20 * * * *", "10,30,50 * * * *"),
        ("10-40/15 * * * *", "10,25,40 * * * *"),
        ("0 22-1 * * *", "0 22,23,0,1 * * *"),
        ("0 9 ? * 1", "0 9 * * 1"),
        ("0 9 */1 * 1", "0 9 * * 1"),
        ("0 9 */2 * 0-6", "0 9 * * *"),
        ("0 9 1-31 * */2", "0 9 * * *"),
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@Weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_two_ways_of_writing_a_schedule_fire_at_the_same_times(expression: str, means: str) -> None:
    assert local_times(expression, "UTC", utc(2026, 1, 1), 40) == local_times(means, "UTC", utc(2026, 1, 1), 40)


@pytest.mark.parametrize(
    ("expression", "first_ones"),
    [
        ("30 9 * * 1", ["Mon 05 Jan 09:30", "Mon 12 Jan 09:30", "Mon 19 Jan 09:30"]),
        ("0 0 * * 0", ["Sun 04 Jan 00:00", "Sun 11 Jan 00:00", "Sun 18 Jan 00:00"]),
        ("0 0 * * 6", ["Sat 03 Jan 00:00", "Sat 10 Jan 00:00", "Sat 17 Jan 00:00"]),
        ("0 0 */10 2,3 *", ["Sun 01 Feb 00:00", "Wed 11 Feb 00:00", "Sat 21 Feb 00:00", "Sun 01 Mar 00:00"]),
        ("0 0 31 * *", ["Sat 31 Jan 00:00", "Tue 31 Mar 00:00", "Sun 31 May 00:00"]),
        ("0 0 L * *", ["Sat 31 Jan 00:00", "Sat 28 Feb 00:00", "Tue 31 Mar 00:00"]),
        ("0 0 29 2 *", ["Tue 29 Feb 00:00", "Sun 29 Feb 00:00", "Fri 29 Feb 00:00"]),
        ("0 0 * * mon#1", ["Mon 05 Jan 00:00", "Mon 02 Feb 00:00", "Mon 02 Mar 00:00"]),
        ("0 0 * * L5", ["Fri 30 Jan 00:00", "Fri 27 Feb 00:00", "Fri 27 Mar 00:00"]),
        ("0 0 13 * fri", ["Fri 02 Jan 00:00", "Fri 09 Jan 00:00", "Tue 13 Jan 00:00"]),
    ],
)
def test_days_are_those_that_cron_means(expression: str, first_ones: list[str]) -> None:
    found = local_times(expression, "UTC", utc(2026, 1, 1), len(first_ones))
    assert [one.removesuffix(" +0000") for one in found] == first_ones


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("60 * * * *", "minute: '60'"),
        ("* 24 * * *", "hour: '24'"),
        ("0 0 0 * *", "day of month: '0'"),
        ("0 0 32 * *", "day of month: '32'"),
        ("0 0 * 13 *", "month: '13'"),
        ("0 0 * foo *", "month: 'foo'"),
        ("0 0 * * 8", "day of week: '8'"),
        ("0 0 * * lun", "day of week: 'lun'"),
        ("mon * * * *", "minute: 'mon'"),
        ("*/0 * * * *", "minute: '*/0'"),
        ("*/90 * * * *", "needs an interval"),
        ("1,,2 * * * *", "minute: ''"),
        ("-5 * * * *", "minute: '-5'"),
        ("1-2-3 * * * *", "minute: '1-2-3'"),
        ("? * * * *", "minute: '?'"),
        ("h * * * *", "minute: 'h'"),
        ("r * * * *", "minute: 'r'"),
        ("0 0 15w * *", "day of month: '15w'"),
        ("0 0 L-3 * *", "day of month: 'l-3'"),
        ("0 0 1 * mon#1", "together with a day of month"),
        ("0 0 * * mon#6", "day of week: 'mon#6'"),
        ("٣ * * * *", "minute: '٣'"),
        ("0 9 * *", "has 4 fields"),
        ("* * * * * *", "seconds and years are not supported"),
        ("0 0 1 1 * 0 2027", "seconds and years are not supported"),
        ("", "has 0 fields"),
        ("every monday", "has 2 fields"),
        ("@reboot", "use one of @hourly"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
    ],
)
def test_an_expression_that_does_not_fit_is_refused_by_the_name_of_its_field(expression: str, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^cron: ") as refused:
        CronSchedule(expression)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    "name", ["", "Mars/Phobos", "America", "../../etc/passwd", "/etc/localtime", "UTC\0", "CEST+1"]
)
def test_a_time_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^timezone: "):
        CronSchedule("@daily", name)


# --- daylight saving -------------------------------------------------------------------------------------


def test_monday_at_nine_stays_monday_at_nine_across_both_changes() -> None:
    assert local_times("0 9 * * 1", "Europe/Berlin", utc(2026, 3, 20), 3) == [
        "Mon 23 Mar 09:00 +0100",
        "Mon 30 Mar 09:00 +0200",
        "Mon 06 Apr 09:00 +0200",
    ]
    assert local_times("0 9 * * 1", "America/New_York", utc(2026, 10, 20), 3) == [
        "Mon 26 Oct 09:00 -0400",
        "Mon 02 Nov 09:00 -0500",
        "Mon 09 Nov 09:00 -0500",
    ]
    cron = CronSchedule("0 9 * * 1", "Europe/Berlin")
    moment = utc(2020, 1, 1)
    for _ in range(52 * 10):
        last, moment = moment, cron.next_after(moment)
        assert moment - last <= timedelta(days=7, hours=1)
        assert moment.astimezone(ZoneInfo("Europe/Berlin")).strftime("%a %H:%M") == "Mon 09:00"


def test_a_time_that_does_not_exist_fires_right_after_the_gap_and_once() -> None:
    assert local_times("30 2 * * *", "Europe/Berlin", utc(2026, 3, 27, 12), 3) == [
        "Sat 28 Mar 02:30 +0100",
        "Sun 29 Mar 03:00 +0200",
        "Mon 30 Mar 02:30 +0200",
    ]
    assert local_times("*/20 2,3 29 3 *", "Europe/Berlin", utc(2026, 3, 28), 4) == [
        "Sun 29 Mar 03:00 +0200",
        "Sun 29 Mar 03:20 +0200",
        "Sun 29 Mar 03:40 +0200",
        "Mon 29 Mar 02:00 +0200",
    ]
    # Half an hour, from 02:00 to 02:30; and a whole day that one country left out.
    assert local_times("15 2 * * *", "Australia/Lord_Howe", utc(2026, 10, 3), 1) == ["Sun 04 Oct 02:30 +1100"]
    assert local_times("0 12 30 12 *", "Pacific/Apia", utc(2011, 12, 1), 1) == ["Sat 31 Dec 00:00 +1400"]


def test_a_time_that_exists_twice_fires_the_first_time_and_not_again() -> None:
    assert local_times("30 2 * * *", "Europe/Berlin", utc(2026, 10, 24, 12), 2) == [
        "Sun 25 Oct 02:30 +0200",
        "Mon 26 Oct 02:30 +0100",
    ]
    cron = CronSchedule("30 2 * * *", "Europe/Berlin")
    between = utc(2026, 10, 25, 1, 10)  # 02:10 on the clock, for the second time
    assert cron.next_after(between) == utc(2026, 10, 26, 1, 30)
    assert cron.last_until(between) == utc(2026, 10, 25, 0, 30)


@pytest.mark.parametrize("timezone", ["Europe/Berlin", "America/New_York", "Asia/Beirut", "America/Santiago"])
def test_daily_is_once_a_day_at_its_beginning_across_both_changes_also_where_they_are_at_midnight(
    timezone: str,
) -> None:
    zone = ZoneInfo(timezone)
    cron, moment, days = CronSchedule("@daily", timezone), utc(2026, 1, 1), []
    for _ in range(365):
        moment = cron.next_after(moment)
        local = moment.astimezone(zone)
        assert (moment - timedelta(seconds=1)).astimezone(zone).date() < local.date(), "not before, and not again"
        assert moment - cron.interval_start(moment) in (23 * HOUR, 24 * HOUR, 25 * HOUR)
        days.append(local.date())
    assert days == [days[0] + timedelta(days=number) for number in range(365)]


# --- any expression --------------------------------------------------------------------------------------

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia")
CHANGES = (
    utc(2026, 3, 29, 1), utc(2026, 10, 25, 1), utc(2026, 3, 8, 7), utc(2026, 11, 1, 6), utc(2026, 4, 4, 15),
    utc(2026, 10, 3, 15, 30), utc(2011, 12, 30, 10), utc(2024, 2, 29, 3), utc(2026, 12, 31, 23),
)  # fmt: skip
Field = tuple[str, frozenset[int]]
Test = Callable[[datetime], bool]


def fields(low: int, high: int) -> st.SearchStrategy[Field]:
    """A field as text, and the numbers that it means."""
    every: Field = ("*", frozenset(range(low, high + 1)))
    numbers = st.integers(low, high)
    steps = st.integers(1, high - low)
    parts: st.SearchStrategy[Field] = st.one_of(
        numbers.map(lambda n: (str(n), frozenset({n}))),
        st.tuples(numbers, numbers)
        .map(sorted)
        .map(lambda ab: (f"{ab[0]}-{ab[1]}", frozenset(range(ab[0], ab[1] + 1)))),
        st.tuples(numbers, numbers, steps).map(
            lambda abs: (
                f"{min(abs[:2])}-{max(abs[:2])}/{abs[2]}",
                frozenset(range(min(abs[:2]), max(abs[:2]) + 1, abs[2])),
            )
        ),
        steps.filter(lambda n: n > 1).map(lambda n: (f"*/{n}", frozenset(range(low, high + 1, n)))),
    )
    lists = st.lists(parts, min_size=1, max_size=3).map(
        lambda many: (",".join(text for text, _ in many), frozenset().union(*(some for _, some in many)))
    )
    return st.one_of(st.just(every), lists)


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, Test, Test]:
    """An expression, and whether it fits a day and a local minute: said without croniter."""
    ranges = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    chosen = [draw(fields(*one)) for one in ranges]
    (minute, minutes), (hour, hours), (day, days), (month, months), (weekday, weekdays) = chosen

    def fits_day(wall: datetime) -> bool:
        by_day, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        fits = by_day and by_weekday if "*" in (day, weekday) else by_day or by_weekday
        return fits and wall.month in months

    def fits_minute(wall: datetime) -> bool:
        return fits_day(wall) and wall.minute in minutes and wall.hour in hours

    return f"{minute} {hour} {day} {month} {weekday}", fits_day, fits_minute


def scan(fits: Test, timezone: str, start: datetime, hours: int) -> list[datetime]:
    """Every minute after `start` at which it has to fire, found by looking at each."""
    zone = ZoneInfo(timezone)
    found = []
    moment = start.replace(second=0, microsecond=0)
    last = moment.astimezone(zone).replace(tzinfo=None, fold=0)
    furthest = max((moment - i * MINUTE).astimezone(zone).replace(tzinfo=None, fold=0) for i in range(3 * 60))
    for _ in range(hours * 60):
        moment += MINUTE
        wall = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        left_out = [last + i * MINUTE for i in range(1, int((wall - last) / MINUTE))]
        if (wall > furthest and fits(wall)) or any(fits(one) for one in left_out):
            found.append(moment)
        last, furthest = wall, max(furthest, wall)
    return found


@settings(max_examples=60, deadline=None)
@given(
    expression=expressions(),
    timezone=st.sampled_from(ZONES),
    change=st.sampled_from(CHANGES),
    before=st.integers(0, 4 * 3600),
)
def test_around_a_change_of_the_clock_it_fires_at_the_minutes_that_a_look_at_every_minute_finds(
    expression: tuple[str, Test, Test], timezone: str, change: datetime, before: int
) -> None:
    text, fits_day, fits = expression
    assume(fires_some_day(fits_day))
    cron = CronSchedule(text, timezone)
    start, hours = change - timedelta(seconds=before), 7
    expected = scan(fits, timezone, start, hours)
    moment = start
    for wanted in expected[:100]:
        last, moment = moment, cron.next_after(moment)
        assert moment == wanted
        assert moment > last
        assert cron.last_until(moment) == moment
        if last > start:
            assert cron.last_until(moment - timedelta.resolution) == last
    if len(expected) <= 100:
        assert cron.next_after(moment) > start.replace(second=0) + hours * HOUR


@settings(max_examples=60, deadline=None)
@given(expression=expressions(), year=st.integers(2023, 2030))
def test_on_any_day_it_fires_at_the_first_minute_that_fits_and_on_no_other_day(
    expression: tuple[str, Test, Test], year: int
) -> None:
    text, fits_day, fits = expression
    if not fires_some_day(fits_day):
        with pytest.raises(InvalidInputError, match="never fires"):
            CronSchedule(text)
        return
    cron = CronSchedule(text)
    days = (utc(year, 1, 1) + timedelta(days=one) for one in range(8 * 366))
    moment = utc(year, 1, 1) - MINUTE
    for day in itertools.islice((one for one in days if fits_day(one)), 12):
        last, moment = moment, cron.next_after(moment)
        assert moment == next(one for i in range(24 * 60) if fits(one := day + i * MINUTE))
        assert last < moment
        moment = day + timedelta(days=1) - MINUTE
        ends = cron.last_until(moment)
        assert ends == next(one for i in range(24 * 60) if fits(one := moment - i * MINUTE))


def fires_some_day(fits_day: Test) -> bool:
    """Whether there is such a date at all: 2024 has them all."""
    return any(fits_day(utc(2024, 1, 1) + timedelta(days=one)) for one in range(366))


# --- intervals and one-offs ------------------------------------------------------------------------------


def test_an_interval_fires_at_its_anchor_and_evenly_after_it() -> None:
    interval = IntervalSchedule(timedelta(seconds=90), utc(2026, 1, 1))
    assert interval.next_after(utc(2025, 6, 1)) == utc(2026, 1, 1)
    assert interval.next_after(utc(2026, 1, 1)) == utc(2026, 1, 1, 0, 1, 30)
    assert interval.next_after(utc(2026, 1, 1, 0, 1, 29)) == utc(2026, 1, 1, 0, 1, 30)
    assert interval.next_after(utc(2026, 1, 1, 0, 1, 30)) == utc(2026, 1, 1, 0, 3)
    assert interval.last_until(utc(2025, 12, 31)) is None
    assert interval.last_until(utc(2026, 1, 1)) == utc(2026, 1, 1)
    assert interval.last_until(utc(2026, 1, 1, 0, 2, 59)) == utc(2026, 1, 1, 0, 1, 30)


@pytest.mark.parametrize("every", [timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=999), timedelta(10_000)])
def test_an_interval_that_is_too_short_or_too_long_is_refused(every: timedelta) -> None:
    with pytest.raises(InvalidInputError, match=r"^interval: "):
        IntervalSchedule(every, utc(2026, 1, 1))


def test_a_one_off_fires_once() -> None:
    once = OneOff(utc(2026, 1, 1))
    assert once.next_after(utc(2025, 1, 1)) == utc(2026, 1, 1)
    assert once.next_after(utc(2026, 1, 1)) is None
    assert once.last_until(utc(2025, 1, 1)) is None
    assert once.last_until(utc(2026, 1, 1)) == utc(2026, 1, 1)


TIMINGS: tuple[Timing, ...] = (
    CronSchedule("0 9 * * MON", "Europe/Berlin"),
    IntervalSchedule(timedelta(seconds=1.5), utc(2026, 1, 1)),
    OneOff(utc(2026, 1, 1)),
)


@pytest.mark.parametrize("timing", TIMINGS, ids=lambda one: type(one).__name__)
def test_a_moment_without_a_zone_is_refused(timing: Timing) -> None:
    for ask in (timing.next_after, timing.last_until):
        with pytest.raises(InvalidInputError, match="no time zone"):
            ask(datetime(2026, 1, 1))


@pytest.mark.parametrize("timing", TIMINGS, ids=lambda one: type(one).__name__)
def test_a_timing_is_the_same_after_it_was_stored(timing: Timing) -> None:
    assert timing_from_dict(json.loads(json.dumps(timing_to_dict(timing)))) == timing


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "moon"},
        {"kind": "cron"},
        {"kind": "cron", "expression": None, "timezone": "UTC"},
        {"kind": "cron", "expression": "0 25 * * *", "timezone": "UTC"},
        {"kind": "interval", "every": "60", "anchor": "2026-01-01T00:00:00+00:00"},
        {"kind": "interval", "every": 1e300, "anchor": "2026-01-01T00:00:00+00:00"},
        {"kind": "interval", "every": 60, "anchor": "yesterday"},
        {"kind": "interval", "every": 60, "anchor": "2026-01-01T00:00:00"},
        {"kind": "once", "at": 5},
    ],
    ids=str,
)
def test_a_stored_timing_that_makes_no_sense_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        timing_from_dict(data)
