"""Schedules: their verbs. What a schedule is made of is declaring.py's business, where it is kept schedule_store.py's,
and what happens when its time has come that of ticking.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

from .backfilling import (
    BackfillPlan,
    advance,
    having,
    new_backfill,
    times_of,
    with_backfill,
    without,
)
from .client import WorkflowClient
from .clock import Duration, fresh_id, seconds
from .cron import IntervalSchedule, Timing, timing_from_dict
from .declaring import ID, ScheduleChanges, ScheduleOptions, changed, declared, merged
from .definitions import WorkflowDefinition
from .errors import InvalidInputError, ScheduleChangedError, ScheduleNotFoundError, StoreUnavailableError
from .firing import expecting, knowing, run_id_of, start_now
from .schedule_store import DEFAULT_CONCURRENCY, DamagedSchedule, Schedule, ScheduleStore
from .serialization import digest

_TRIES = 10


class Schedules:
    """The schedules of one client's store."""

    def __init__(self, client: WorkflowClient) -> None:
        self._client = client

    @property
    def _store(self) -> ScheduleStore:
        return self._client.store.schedules

    # --- declaring ----------------------------------------------------------------------------

    async def create(
        self,
        workflow: str | WorkflowDefinition[Any],
        timing: Timing,
        input_data: Any = None,
        *,
        id: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> str:
        """Make a schedule and return its id; see `declare`."""
        return (await self.declare(workflow, timing, input_data, id=id, **options))[0].id

    async def declare(
        self,
        workflow: str | WorkflowDefinition[Any],
        timing: Timing,
        input_data: Any = None,
        *,
        id: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> tuple[Schedule, bool]:
        """Make a schedule; gives it, and whether it is a new one.

        With the id of one that exists that one is changed: it keeps what it has run, whether it is paused, and (unless
        its timing changes) its next time. So the same call again changes nothing.

        Raises UnknownWorkflowError, InvalidInputError, SerializationError; then nothing is stored.
        """
        name = workflow if isinstance(workflow, str) else workflow.name
        wanted = declared(self._client, name, timing, input_data, id, options)
        for _ in range(_TRIES):
            found = await self._store.get(wanted.id)
            schedule = merged(self._client, wanted, found)
            if found is not None and schedule == found:
                return self._shown(found), False
            schedule = replace(schedule, etag=fresh_id(32))
            if await self._store.put(schedule, expected=found.etag if found else None):
                return self._shown(schedule), found is None
        raise _crowded(wanted.id)

    async def create_interval(
        self, workflow: str | WorkflowDefinition[Any], every: Duration, input_data: Any = None, **options: Any
    ) -> str:
        """`create` with an interval: the first run starts when it has gone by once."""
        return await self.create(workflow, self.interval(every), input_data, **options)

    def interval(self, every: Duration) -> IntervalSchedule:
        """Every so often from now on, the first time when it has gone by once. Raises InvalidInputError."""
        try:
            period = timedelta(seconds=seconds(every))
            return IntervalSchedule(period, self._client.clock.now().astimezone(UTC) + period)
        except (ValueError, OverflowError, TypeError) as error:
            raise InvalidInputError(f"interval: {error}") from None

    async def update(
        self, schedule_id: str, *, etag: str | None = None, **changes: Unpack[ScheduleChanges]
    ) -> Schedule:
        """Change what is given, and nothing else; gives the schedule as it is then.

        - With a new timing it goes on with that one's next time from now.
        - etag: change it only if that is its state now. Raises ScheduleChangedError when it is not.
        - Raises ScheduleNotFoundError, and what `declare` raises; then nothing is changed.
        """

        def change(found: Schedule) -> Schedule:
            if etag is not None and etag != found.etag:
                raise ScheduleChangedError(f"schedule {schedule_id!r} was changed since: look at it again")
            return changed(self._client, found, changes)

        return await self._change(schedule_id, change)

    # --- looking ------------------------------------------------------------------------------

    async def get(self, schedule_id: str) -> Schedule:
        """The schedule as it stands. Raises ScheduleNotFoundError, ScheduleDamagedError."""
        return self._shown(await self._found(schedule_id))

    async def list(self, *, limit: int = 100, after: str | None = None) -> Sequence[Schedule | DamagedSchedule]:
        """Schedules in the order of their ids; `after` is the last id of the page before."""
        page = await self._store.list(limit=limit, after=after)
        return [one if isinstance(one, DamagedSchedule) else self._shown(one) for one in page]

    # --- steering -----------------------------------------------------------------------------

    async def pause(self, schedule_id: str, note: str | None = None) -> Schedule:
        """Start nothing until `resume`. Times that come meanwhile are not made up for; backfills go on. Raises
        ScheduleNotFoundError."""
        sealed = self._client.codec.seal_text(note)

        def paused(found: Schedule) -> Schedule:
            if found.paused and self._client.codec.plain_text(found.note) == note:
                return found
            return replace(expecting(found, None), paused=True, note=sealed)

        return await self._change(schedule_id, paused)

    async def resume(self, schedule_id: str) -> Schedule:
        """Go on with the next time from now; failures are counted anew. Raises ScheduleNotFoundError."""

        def resumed(found: Schedule) -> Schedule:
            if not found.paused:
                return found
            at = timing_from_dict(found.timing).next_after(self._client.clock.now())
            return replace(expecting(found, at), paused=False, note=None, failures=0, watched=())

        return await self._change(schedule_id, resumed)

    async def delete(self, schedule_id: str) -> None:
        """Forget the schedule and its backfills; its runs stay. Raises ScheduleNotFoundError."""
        if not ID.fullmatch(schedule_id) or not await self._store.delete(schedule_id):
            raise _unknown(schedule_id)

    async def trigger(self, schedule_id: str, *, idempotency_key: str | None = None) -> str:
        """Start a run now, whatever the schedule's times, overlap and pause say. Returns its run_id.

        The same idempotency_key again gives the same run. Raises ScheduleNotFoundError, and what starting a run raises.
        """
        schedule, now = await self._found(schedule_id), self._client.clock.now()
        if idempotency_key is None:
            name = f"{run_id_of(schedule_id, now).rpartition('@')[2]}.{fresh_id(8)}"
        else:
            name = f"trigger.{digest(idempotency_key)}"
        run_id = await start_now(self._client, schedule, now, name=name)
        try:
            await self._change(schedule_id, lambda found: knowing(found, run_id))
        except ScheduleNotFoundError:  # it was deleted meanwhile; the run is there
            pass
        return run_id

    # --- backfills ----------------------------------------------------------------------------

    async def backfill(
        self,
        schedule_id: str,
        start_at: datetime,
        end_at: datetime,
        *,
        dry_run: bool = True,
        max_concurrency: int = DEFAULT_CONCURRENCY,
    ) -> BackfillPlan:
        """Make up for the times in `start_at <= time < end_at`; a `dry_run` only says which they are.

        - It is stored with the schedule, and goes on over as many ticks as it takes. Its first runs are started by this
          call.
        - At most `max_concurrency` of its runs are open at once. Overlap, catch_up and pause do not matter to it. A
          time that has had its run does not get another.
        - Raises ScheduleNotFoundError, and InvalidInputError for a window with more than BACKFILL_LIMIT times, one that
          reaches into the future, and for too many backfills at once; then nothing is begun.
        """
        schedule = await self._found(schedule_id)
        times = times_of(timing_from_dict(schedule.timing), start_at, end_at)
        now = self._client.clock.now()
        if dry_run or not times:
            return BackfillPlan(times=times)
        new = new_backfill(times, start_at, end_at, max_concurrency=max_concurrency, now=now)
        schedule = await self._change(schedule_id, lambda found: having(found, new))
        try:
            _, begun = await advance(self._client, schedule, new, now=now, limit=max_concurrency)
            stored = await self._found(schedule_id)
            if stored.etag == schedule.etag:  # a tick that was faster has started those runs, too, and written that
                after = replace(with_backfill(stored, begun), etag=fresh_id(32))
                await self._store.put(after, expected=stored.etag)
        except (StoreUnavailableError, ScheduleNotFoundError):  # it is stored, or gone again: the ticks see to the rest
            pass
        return BackfillPlan(times=times, id=new.id)

    async def cancel_backfill(self, schedule_id: str, backfill_id: str) -> Schedule:
        """Have a backfill start nothing more; the runs that it has started go on. One that is over stays as it is.
        Raises ScheduleNotFoundError."""
        return await self._change(schedule_id, lambda found: without(found, backfill_id))

    # --- parts --------------------------------------------------------------------------------

    async def _found(self, schedule_id: str) -> Schedule:
        found = await self._store.get(schedule_id) if ID.fullmatch(schedule_id) else None
        if found is None:
            raise _unknown(schedule_id)
        return found

    def _shown(self, schedule: Schedule) -> Schedule:
        return replace(schedule, note=self._client.codec.plain_text(schedule.note))

    async def _change(self, schedule_id: str, change: Callable[[Schedule], Schedule]) -> Schedule:
        """The schedule as it is shown, once `change` has been made to whatever is stored."""
        for _ in range(_TRIES):
            found = await self._found(schedule_id)
            after = change(found)
            if after == found:
                return self._shown(found)
            after = replace(after, etag=fresh_id(32))
            if await self._store.put(after, expected=found.etag):
                return self._shown(after)
        raise _crowded(schedule_id)


def _unknown(schedule_id: str) -> ScheduleNotFoundError:
    return ScheduleNotFoundError(f"there is no schedule {schedule_id!r}")


def _crowded(schedule_id: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"schedule {schedule_id}: others changed it {_TRIES} times meanwhile; try again")
