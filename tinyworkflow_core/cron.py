"""When a schedule fires: by a cron expression in a time zone, at a fixed interval, or once. Pure.

croniter walks the calendar, and is only ever given local times without a zone: crossing a change of daylight saving
is done here, where its rule can be read. Local time is resolved like this, in any zone:

- A time that does not exist (02:30 on the night when the clock goes from 02:00 to 03:00) becomes the first moment after
  the gap. Several that fall into one gap become one.
- A time that exists twice fires once, the first time. So even "*/15 * * * *" is quiet while an hour is repeated; an
  interval is not, for it knows no local time.

What is to be done at those times, and where schedules are kept, is no business of this module.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from .clock import EPOCH
from .errors import InvalidInputError
from .records import dataclass

if TYPE_CHECKING:  # for those who have schedules
    from zoneinfo import ZoneInfo

EARLIEST, LATEST = EPOCH, datetime(2900, 1, 1, tzinfo=UTC)
"""Moments beyond these are no times of a schedule: far enough, and calculating with them stays within the calendar."""
SHORTEST_INTERVAL = timedelta(seconds=1)
LONGEST_INTERVAL = timedelta(days=3660)

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = (
    ("minute", 60, "0-59"),
    ("hour", 24, "0-23"),
    ("day of month", 31, "1-31, or L for the last day"),
    ("month", 12, "1-12 or jan-dec"),
    ("day of week", 7, "0-7 or sun-sat (0 and 7 are Sunday), mon#1 for the first Monday, L5 for the last Friday"),
)
_DAY_OF_MONTH, _DAY_OF_WEEK = 2, 4
_VALUE = r"\d{1,2}|[a-z]{3}"
_ITEM = re.compile(rf"\?|l|(?:\*|(?P<low>{_VALUE})(?:-(?P<high>{_VALUE}))?)(?:/(?P<step>\d{{1,4}}))?", re.ASCII)
_NTH = re.compile(r"(?:[0-7]|[a-z]{3})#[1-5]|l[0-7]", re.ASCII)
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class CronSchedule:
    """Fires at the local times that a cron expression of five fields names, in an IANA time zone.

    - minute, hour, day of month, month, day of week: numbers, names (jan, mon), `*`, `?`, lists, ranges, steps; or one
      of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually. 0 and 7 are Sunday.
    - When both the day of month and the day of week are restricted (neither is `*` or `?`), a day that fits either of
      them counts, as with cron.
    - Raises InvalidInputError that names the field which does not fit; also for what never happens (30 February).
    """

    expression: str
    timezone: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _fields: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_zone", _zone(self.timezone))
        object.__setattr__(self, "_fields", _checked(self.expression))
        from croniter import CroniterBadDateError

        try:
            self._walk(EPOCH.replace(tzinfo=None)).get_next(datetime)
        except CroniterBadDateError:
            raise InvalidInputError(f"cron: {self.expression!r} never fires: there is no such date") from None

    def next_after(self, moment: datetime) -> datetime:
        """The first time to fire that is later than `moment`, aware, in UTC."""
        walk = self._walk(self._wall(moment))
        # A local time at or before this one resolves to `moment` or earlier. Later ones may, too: those of the first of
        # two equal hours, seen from the second.
        while (fires := self._resolved(walk.get_next(datetime))) <= moment:
            pass
        return fires

    def last_until(self, moment: datetime) -> datetime | None:
        """The latest time to fire that is not later than `moment`. None: there was none in the last 50 years."""
        from croniter import CroniterBadDateError

        local = _aware(moment).astimezone(self._zone)
        # In the second of two equal hours all of the first has fired already: begin where its clock would be now.
        repeated = local.astimezone(UTC) - local.replace(fold=0).astimezone(UTC)
        walk = self._walk(self._wall(moment) + repeated + _MINUTE)
        try:
            while (fired := self._resolved(walk.get_prev(datetime))) > moment:
                pass
        except CroniterBadDateError:
            return None
        return fired

    def interval_start(self, at: datetime) -> datetime:
        """Where the data interval that ends at `at` begins: at the time before."""
        return self.last_until(at - timedelta.resolution) or at

    def _walk(self, wall: datetime) -> Any:
        from croniter import croniter  # with dateutil: 30 ms of a cold start, for those who have schedules

        return croniter(self._fields, wall)

    def _wall(self, moment: datetime) -> datetime:
        local = _aware(moment).astimezone(self._zone)
        return local.replace(tzinfo=None, fold=0, second=0, microsecond=0)

    def _resolved(self, wall: datetime) -> datetime:
        """The moment of a local time; see the module's docstring."""
        moment = wall.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        if moment.astimezone(self._zone).replace(tzinfo=None) == wall:
            return moment
        # Read by the offset after the gap it lies before the change, by the one before the gap not before it.
        early = wall.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        offset = moment.astimezone(self._zone).utcoffset()

        def has_changed(second: int) -> bool:
            return (early + second * _SECOND).astimezone(self._zone).utcoffset() == offset

        return early + bisect_left(range((moment - early) // _SECOND), True, key=has_changed) * _SECOND


@dataclass(frozen=True)
class IntervalSchedule:
    """Fires at `anchor` and every `every` after it. Raises InvalidInputError for under a second or over ten years."""

    every: timedelta
    anchor: datetime

    def __post_init__(self) -> None:
        checked_moment("anchor", self.anchor)
        if not SHORTEST_INTERVAL <= self.every <= LONGEST_INTERVAL:
            raise InvalidInputError(f"interval: {self.every} is not between 1 second and {LONGEST_INTERVAL.days} days")

    def next_after(self, moment: datetime) -> datetime:
        """The first time to fire that is later than `moment`."""
        return self.anchor + max(0, (_aware(moment) - self.anchor) // self.every + 1) * self.every

    def interval_start(self, at: datetime) -> datetime:
        """Where the data interval that ends at `at` begins."""
        return self.last_until(at - timedelta.resolution) or at - self.every

    def last_until(self, moment: datetime) -> datetime | None:
        """The latest time to fire that is not later than `moment`. None: that is before the anchor."""
        periods = (_aware(moment) - self.anchor) // self.every
        return None if periods < 0 else self.anchor + periods * self.every


@dataclass(frozen=True)
class OneOff:
    """Fires once, at `at`."""

    at: datetime

    def __post_init__(self) -> None:
        checked_moment("at", self.at)

    def next_after(self, moment: datetime) -> datetime | None:
        """`at`, or None once it is over."""
        return self.at if self.at > _aware(moment) else None

    def last_until(self, moment: datetime) -> datetime | None:
        """`at`, or None as long as it is to come."""
        return self.at if self.at <= _aware(moment) else None

    def interval_start(self, at: datetime) -> datetime:
        """Where the data interval that ends at `at` begins: there is no time before it, so it is empty."""
        return at


Timing = CronSchedule | IntervalSchedule | OneOff
"""When something fires. `next_after` rises strictly; `last_until` is its counterpart."""


def timing_to_dict(timing: Timing) -> dict[str, Any]:
    """The timing as JSON data."""
    match timing:
        case CronSchedule():
            return {"kind": "cron", "expression": timing.expression, "timezone": timing.timezone}
        case IntervalSchedule():
            return {
                "kind": "interval",
                "every": timing.every.total_seconds(),
                "anchor": timing.anchor.astimezone(UTC).isoformat(),
            }
        case OneOff():
            return {"kind": "once", "at": timing.at.astimezone(UTC).isoformat()}


def timing_from_dict(data: Mapping[str, Any]) -> Timing:
    """The reverse of `timing_to_dict`. Raises InvalidInputError for anything else."""
    try:
        match data.get("kind"):
            case "cron":
                return CronSchedule(data["expression"], data["timezone"])
            case "interval":
                return IntervalSchedule(timedelta(seconds=data["every"]), datetime.fromisoformat(data["anchor"]))
            case "once":
                return OneOff(datetime.fromisoformat(data["at"]))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InvalidInputError(f"timing: {dict(data)!r} cannot be read: {error!r}") from error
    raise InvalidInputError(f"timing: kind {data.get('kind')!r} is not known; use cron, interval or once")


# --- checking an expression ------------------------------------------------------------------------------


def _checked(expression: str) -> str:
    """The expression as croniter is given it. Raises InvalidInputError."""
    from croniter import CroniterError, croniter

    text = expression.strip().lower()
    if text.startswith("@") and text not in _ALIASES:
        raise InvalidInputError(f"cron: {expression!r} is not known; use one of {', '.join(_ALIASES)}")
    fields = _ALIASES.get(text, text).split()
    if len(fields) != len(_FIELDS):
        hint = "; seconds and years are not supported" if len(fields) > len(_FIELDS) else ""
        names = ", ".join(name for name, _, _ in _FIELDS)
        raise InvalidInputError(f"cron: {expression!r} has {len(fields)} fields instead of five: {names}{hint}")
    for index, written in enumerate(fields):
        fields[index] = ",".join(_checked_item(index, item) for item in written.split(","))
        alone = ["*"] * len(_FIELDS)
        alone[index] = fields[index]
        try:
            croniter.expand(" ".join(alone))
        except (CroniterError, ValueError):
            _refuse(index, written)
    if fields[_DAY_OF_MONTH] not in ("*", "?") and any(_NTH.fullmatch(one) for one in fields[_DAY_OF_WEEK].split(",")):
        # Everywhere else the two fields mean either; with these, croniter takes them to mean both.
        _refuse(_DAY_OF_WEEK, fields[_DAY_OF_WEEK], "together with a day of month")
    return " ".join(fields)


def _checked_item(index: int, item: str) -> str:
    """One part of a list, without the forms that croniter reads in ways of its own (h, r and w among them)."""
    if index == _DAY_OF_WEEK and _NTH.fullmatch(item):
        return item
    found = _ITEM.fullmatch(item)
    if found is None:
        _refuse(index, item)
    if int(found["step"] or 1) >= _FIELDS[index][1]:
        _refuse(index, item, "(a period longer than the field needs an interval)")
    if found["low"] is not None and found["low"] == found["high"]:
        return str(found["low"])  # for croniter 9-9 is every hour
    if item == "*/1":
        return "*"  # for croniter it restricts a day
    if item.startswith("*/") and index in (_DAY_OF_MONTH, _DAY_OF_WEEK):
        # Beside a star anywhere in the one field, croniter takes 0-6 or 1-31 in the other one for no restriction.
        return f"{'1-31' if index == _DAY_OF_MONTH else '0-6'}/{found['step']}"
    return item


def _refuse(index: int, text: str, where: str = "") -> NoReturn:
    name, _, allowed = _FIELDS[index]
    raise InvalidInputError(f"cron: {name}: {text!r} is not acceptable{where and ' ' + where}; use {allowed}")


def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):  # not there; a path that leads out; a folder of zones; no text
        raise InvalidInputError(
            f"timezone: {name!r} is not known here; use an IANA name such as 'Europe/Berlin' "
            "(a machine without them needs the package tzdata)"
        ) from None


def checked_moment(name: str, moment: datetime) -> datetime:
    """The moment. Raises InvalidInputError for one without a zone, and for one that no schedule can mean."""
    if not EARLIEST <= _aware(moment) <= LATEST:
        raise InvalidInputError(f"{name}: {moment.isoformat()} is not between {EARLIEST.year} and {LATEST.year}")
    return moment


def _aware(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise InvalidInputError(f"{moment!r} has no time zone: moments are aware, in UTC")
    return moment
