"""tick: one bounded call that finds what must be looked at now and has it looked at. Schedules: their verbs.

Timers that are due, runs whose function died, wake-ups that were lost, messages nobody acted on: all of them show as
`due` in the store, and so do schedules whose time has come. The tick reads those and nothing else.

When a schedule fires is cron.py's business, what happens then firing.py's, where it is kept schedule_store.py's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from .client import WorkflowClient
from .clock import Clock, Duration, fresh_id, seconds
from .cron import IntervalSchedule, Timing, timing_from_dict, timing_to_dict
from .definitions import WorkflowDefinition
from .dispatcher import Advance, Dispatcher
from .errors import InvalidInputError, ScheduleNotFoundError, SerializationError, StoreUnavailableError
from .firing import Firings, expecting, fire_due, start
from .schedule_store import CatchUp, DamagedSchedule, Overlap, Schedule, ScheduleStore
from .store import Store

TICK_LIMIT = 1000
"""Runs that one tick dispatches, and runs that it starts; the rest is due at the next one, longest overdue first."""
BACKFILL_LIMIT = 1000
"""Times of one backfill."""
LONGEST_JITTER = 86_400.0
_TRIES = 10
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+=~-]{0,149}")
"""What a run_id may begin with; an @ and the time follow."""
_ATTRIBUTE_TYPES = (str, int, float, bool)

Moments = list[datetime]  # inside the class, `list` is a verb

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, kw_only=True, slots=True)
class TickReport:
    """What a tick did. `more` says that it stopped at its limit: call again."""

    dispatched: tuple[str, ...]
    more: bool
    started: tuple[str, ...] = ()
    """Runs whose time had come; of two ticks at once both may name a run that was started once."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Schedule -> why no run could be started."""


async def tick(
    store: Store,
    dispatcher: Dispatcher,
    *,
    clock: Clock,
    is_gone: Callable[[str], bool],
    limit: int = TICK_LIMIT,
    schedules: Schedules | None = None,
) -> TickReport:
    """Dispatch every run that is due, and start the runs of every schedule that is due, each up to `limit`. Safe to
    call from anywhere, at any time, by several at once."""
    due = await store.due(now=clock.now(), limit=limit, gone=is_gone)
    for run_id in due:
        await dispatcher.dispatch(Advance(run_id=run_id))
    fired = Firings() if schedules is None else await schedules.fire_due(limit=limit)
    return TickReport(
        dispatched=tuple(due),
        more=fired.more or len(due) >= limit,
        started=fired.run_ids,
        problems=fired.problems,
    )


class Schedules:
    """The schedules of one client's store."""

    def __init__(self, client: WorkflowClient) -> None:
        self._client = client

    @property
    def _store(self) -> ScheduleStore:
        return self._client.store.schedules

    async def fire_due(self, *, limit: int = TICK_LIMIT) -> Firings:
        """Start the runs whose time has come; see firing.fire_due."""
        return await fire_due(self._client, limit=limit)

    # --- verbs --------------------------------------------------------------------------------

    async def create(
        self,
        workflow: str | WorkflowDefinition[Any],
        timing: Timing,
        input_data: Any = None,
        *,
        overlap: str = "skip",
        catch_up: str = "latest",
        jitter: Duration | None = None,
        id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> str:
        """Make a schedule and return its id.

        With the id of one that exists that one is changed: it keeps what it has run, whether it is paused, and (unless
        its timing changes) its next time. So the same call again changes nothing.

        Raises UnknownWorkflowError, InvalidInputError, SerializationError; then nothing is stored.
        """
        name = workflow if isinstance(workflow, str) else workflow.name
        text = self._client.codec.encode(self._client.registry.workflow(name).validate(input_data))
        now = self._client.clock.now()
        wanted = Schedule(
            id=_schedule_id(name, id),
            workflow=name,
            timing=timing_to_dict(timing),
            created_at=now,
            etag="",
            input=text,
            overlap=_choice(Overlap, "overlap", overlap),
            catch_up=_choice(CatchUp, "catch_up", catch_up),
            jitter=_jitter(jitter),
            attributes=_attributes(attributes),
        )
        for _ in range(_TRIES):
            found = await self._store.get(wanted.id)
            schedule = self._merged(wanted, found, now)
            if found is not None and schedule == found:
                return found.id
            if await self._store.put(replace(schedule, etag=fresh_id(32)), expected=found.etag if found else None):
                return schedule.id
        raise _crowded(wanted.id)

    def _merged(self, wanted: Schedule, found: Schedule | None, now: datetime) -> Schedule:
        """The record as it has to be, with the etag that was found."""
        timing = timing_from_dict(wanted.timing)
        if found is None or _rhythm(found.timing) != _rhythm(wanted.timing):
            at = timing.next_after(now)
            if at is None:
                raise InvalidInputError(f"timing: {wanted.timing['at']} has passed")
            if found is None:
                return expecting(wanted, at)
        else:
            wanted, at = replace(wanted, timing=found.timing), found.next_at
        if self._is_same_value(wanted.input, found.input):
            wanted = replace(wanted, input=found.input)
        kept = ("created_at", "etag", "paused", "note", "last_at", "last_run_id")
        wanted = replace(wanted, **{name: getattr(found, name) for name in kept})
        if wanted.paused:
            return expecting(wanted, None)
        if at == found.next_at and wanted.jitter == found.jitter and found.problem is None:
            return replace(wanted, next_at=at, due_at=found.due_at, held_since=found.held_since)
        return expecting(wanted, at)

    async def create_interval(
        self, workflow: str | WorkflowDefinition[Any], every: Duration, input_data: Any = None, **options: Any
    ) -> str:
        """`create` with an interval: the first run starts when it has gone by once."""
        try:
            period = timedelta(seconds=seconds(every))
        except (ValueError, OverflowError, TypeError) as error:
            raise InvalidInputError(f"interval: {error}") from None
        anchor = self._client.clock.now().astimezone(UTC) + period
        return await self.create(workflow, IntervalSchedule(period, anchor), input_data, **options)

    async def get(self, schedule_id: str) -> Schedule:
        """The schedule as it stands. Raises ScheduleNotFoundError."""
        return self._shown(await self._found(schedule_id))

    async def list(self, *, limit: int = 100, after: str | None = None) -> Sequence[Schedule | DamagedSchedule]:
        """Schedules in the order of their ids; `after` is the last id of the page before."""
        page = await self._store.list(limit=limit, after=after)
        return [one if isinstance(one, DamagedSchedule) else self._shown(one) for one in page]

    async def pause(self, schedule_id: str, note: str | None = None) -> None:
        """Start nothing until `resume`. Times that come meanwhile are not made up for. Raises ScheduleNotFoundError."""
        sealed = self._client.codec.seal_text(note)
        await self._change(schedule_id, lambda found: replace(expecting(found, None), paused=True, note=sealed))

    async def resume(self, schedule_id: str) -> None:
        """Go on with the next time from now. Raises ScheduleNotFoundError."""

        def resumed(found: Schedule) -> Schedule:
            if not found.paused:
                return found
            at = timing_from_dict(found.timing).next_after(self._client.clock.now())
            return replace(expecting(found, at), paused=False, note=None)

        await self._change(schedule_id, resumed)

    async def delete(self, schedule_id: str) -> None:
        """Forget the schedule; its runs stay. Raises ScheduleNotFoundError."""
        if not await self._store.delete(schedule_id):
            raise _unknown(schedule_id)

    async def trigger(self, schedule_id: str) -> str:
        """Start a run now, whatever the schedule's times, overlap and pause say. Returns its run_id."""
        schedule = await self._found(schedule_id)
        run_id = await start(self._client, schedule, self._client.clock.now(), suffix=f".{fresh_id(8)}")
        try:
            await self._change(schedule_id, lambda found: replace(found, last_run_id=run_id))
        except ScheduleNotFoundError:  # it was deleted meanwhile; the run is there
            pass
        return run_id

    async def backfill(
        self, schedule_id: str, start_at: datetime, end_at: datetime, *, dry_run: bool = True
    ) -> Moments:
        """The times to fire in `start_at <= time < end_at`; without `dry_run` their runs are started at once, whatever
        overlap says. A time that has had its run does not get another.

        Raises ScheduleNotFoundError, and InvalidInputError for more than BACKFILL_LIMIT times, or runs in the future.
        """
        schedule = await self._found(schedule_id)
        timing = timing_from_dict(schedule.timing)
        times: Moments = []
        at = timing.next_after(start_at - timedelta.resolution)
        while at is not None and at < end_at:
            if len(times) == BACKFILL_LIMIT:
                raise InvalidInputError(
                    f"backfill: there are more than {BACKFILL_LIMIT} times in it: narrow the window"
                )
            times.append(at)
            at = timing.next_after(at)
        if not dry_run:
            if times and times[-1] > self._client.clock.now():
                raise InvalidInputError("backfill: the window reaches into the future; only a dry run may")
            for one in times:
                await start(self._client, schedule, one)
        return times

    async def _found(self, schedule_id: str) -> Schedule:
        found = await self._store.get(schedule_id)
        if found is None:
            raise _unknown(schedule_id)
        return found

    def _shown(self, schedule: Schedule) -> Schedule:
        return replace(schedule, note=self._client.codec.plain_text(schedule.note))

    def _is_same_value(self, one: str, other: str) -> bool:
        try:
            return self._client.codec.fingerprint(one) == self._client.codec.fingerprint(other)
        except SerializationError:  # sealed with a key that is not here any more
            return False

    async def _change(self, schedule_id: str, change: Callable[[Schedule], Schedule]) -> None:
        for _ in range(_TRIES):
            found = await self._found(schedule_id)
            changed = change(found)
            if changed == found or await self._store.put(replace(changed, etag=fresh_id(32)), expected=found.etag):
                return
        raise _crowded(schedule_id)


# --- small parts -----------------------------------------------------------------------------------------


def _schedule_id(workflow: str, given: str | None) -> str:
    if given is None:
        return f"{workflow if _ID.fullmatch(workflow) else 'schedule'}_{fresh_id(12)}"
    if not _ID.fullmatch(given):
        raise InvalidInputError(
            f"id: {given!r} does not fit; use 1 to 150 letters, digits and . _ : + = ~ -, "
            "beginning with a letter or digit"
        )
    return given


def _choice(kind: type[E], name: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise InvalidInputError(f"{name}: {value!r} is not known; use one of {', '.join(kind)}") from None


def _jitter(jitter: Duration | None) -> float:
    try:
        value = 0.0 if jitter is None else seconds(jitter)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"jitter: {error}") from None
    if value > LONGEST_JITTER:
        raise InvalidInputError(f"jitter: {value} s is over the limit of a day")
    return value


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    for key, value in (attributes or {}).items():
        if not isinstance(key, str) or not isinstance(value, _ATTRIBUTE_TYPES):
            raise InvalidInputError(f"attributes: {key!r} must be text, with a text, number or boolean as its value")
    return dict(attributes or {})


def _rhythm(timing: Mapping[str, Any]) -> dict[str, Any]:
    """The timing without the moment at which it was made."""
    return {key: value for key, value in timing.items() if key != "anchor"}


def _unknown(schedule_id: str) -> ScheduleNotFoundError:
    return ScheduleNotFoundError(f"there is no schedule {schedule_id!r}")


def _crowded(schedule_id: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"schedule {schedule_id}: others changed it {_TRIES} times meanwhile; try again")
