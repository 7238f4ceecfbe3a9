"""TinyWorkflowClient: a client by database URL, with a worker of its own in the same process when asked for.

It is what a script, a laptop and a small service use. `WorkflowClient` (client.py) does what needs a store alone; here
are the verbs that need an App beside it: decisions, schedules, being a worker.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Unpack

from . import approvals
from .app import DEFAULT_DATABASE_URL, App
from .backfilling import BackfillPlan
from .client import WorkflowClient
from .clock import Clock, Duration
from .cron import CronSchedule, OneOff
from .declaring import ScheduleChanges, ScheduleOptions
from .dispatcher import Advance
from .dispatchers.local import LocalDispatcher, NoDispatcher
from .encryption import EncryptionCodec
from .errors import InvalidInputError
from .registry import ActivityDefinition, WorkflowDefinition
from .schedule_store import DEFAULT_CONCURRENCY, DamagedSchedule, Schedule
from .schedules import Schedules
from .serialization import Codec
from .store import Notifies


class TinyWorkflowClient(WorkflowClient):
    """A client by database URL, with a worker in this process when asked for.

    - database_url: `sqlite:///file.db`, `sqlite:///:memory:`, `firestore://project/database?collection=prefix`; the
      environment variable TINYWORKFLOW_DATABASE_URL unless given, else an SQLite file in the current folder.
    - auto_start_worker: `async with`, or the first `start_workflow`, starts a worker; `close()` ends it.

    Without a worker of its own it leaves the calls to those who have one, except for a run that it waits for
    (`start_workflow(wait=True)`): that one it brings to its end itself.
    """

    def __init__(
        self,
        database_url: str | None = None,
        auto_start_worker: bool = False,
        *,
        codec: Codec | None = None,
        clock: Clock | None = None,
        workflows: Iterable[WorkflowDefinition[Any] | ActivityDefinition[Any, Any]] | None = None,
    ) -> None:
        url = database_url or os.environ.get("TINYWORKFLOW_DATABASE_URL", DEFAULT_DATABASE_URL)
        codec = codec or Codec(EncryptionCodec.from_env(os.environ))
        self.app = app = App(url, workflows=workflows, codec=codec, clock=clock)
        # Without a worker of its own a client leaves the calls to those who have one.
        super().__init__(app.store, NoDispatcher(), app.registry, codec=app.codec, clock=app.clock)
        self._auto_start_worker = auto_start_worker
        self._schedules = Schedules(self)

    async def initialize(self) -> None:
        """Start the worker when `auto_start_worker` asks for one; `async with` does that by itself."""
        if self._auto_start_worker:
            await self.start_worker()

    async def start_workflow(
        self,
        workflow_name: str | WorkflowDefinition[Any],
        input_data: Any = None,
        workflow_id: str | None = None,
        wait: bool = False,
        **options: Any,
    ) -> str:
        """See WorkflowClient.start_workflow."""
        await self.initialize()
        run_id = await super().start_workflow(workflow_name, input_data, workflow_id, **options)
        if wait:
            await self.bring_to_its_end(run_id)
        return run_id

    async def bring_to_its_end(self, run_id: str) -> None:
        """Wait for the run, and make its calls here unless this client's own worker does. Raises what `get_result`
        raises."""
        driving = None if self.dispatcher is self.app.dispatcher else asyncio.ensure_future(self._drive(run_id))
        try:
            await self.get_result(run_id)
        finally:
            if driving is not None:
                driving.cancel()
                await asyncio.gather(driving, return_exceptions=True)

    async def _drive(self, run_id: str) -> None:
        local = self.app.dispatcher
        assert isinstance(local, LocalDispatcher)
        unsubscribe = None
        if isinstance(self.store, Notifies):
            unsubscribe = self.store.subscribe(local.wake, run_id=run_id)
        try:
            await local.dispatch(Advance(run_id=run_id))
            while True:  # a message that came from elsewhere, or a wake-up that was lost
                await asyncio.sleep(self.app.tick_seconds)
                run = await self.store.get(run_id)
                due = run is not None and run.wake_at is not None and run.wake_at <= self.clock.now()
                if due or await self.store.inbox(run_id):
                    await local.dispatch(Advance(run_id=run_id))
        finally:
            if unsubscribe is not None:
                unsubscribe()

    async def approve_workflow(
        self,
        run_id: str,
        key: str | None = None,
        *,
        by: str | None = None,
        comment: str | None = None,
        data: Any = None,
    ) -> None:
        """Approve what the run asks under `key` (None: its only open question)."""
        await self._decide(run_id, key, approvals.Decision(approved=True, by=by, comment=comment, data=data))

    async def reject_workflow(
        self,
        run_id: str,
        key: str | None = None,
        *,
        by: str | None = None,
        comment: str | None = None,
        data: Any = None,
    ) -> None:
        """Reject what the run asks under `key` (None: its only open question)."""
        await self._decide(run_id, key, approvals.Decision(approved=False, by=by, comment=comment, data=data))

    async def _decide(self, run_id: str, key: str | None, decision: approvals.Decision) -> None:
        await approvals.decide(self.store, self.dispatcher, run_id, key, decision, clock=self.clock, codec=self.codec)

    async def get_pending_approvals(self, approver: str | None = None) -> list[approvals.PendingApproval]:
        """Open approvals; with `approver` those that this person may decide."""
        found = await approvals.pending(self.store, approver=approver, now=self.clock.now())
        return [
            replace(one, approval=replace(one.approval, title=self.codec.plain_text(one.approval.title)))
            for one in found
        ]

    # --- schedules ----------------------------------------------------------------------------

    async def schedule_workflow(
        self,
        workflow_name: str | WorkflowDefinition[Any],
        cron_expression: str | None = None,
        input_data: Any = None,
        *,
        cron: str | None = None,
        timezone: str = "UTC",
        id: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> str:
        """Start a run at every time that the cron expression names in `timezone`, until the schedule is deleted.
        Returns its id; see schedules.Schedules.declare for what is raised, declaring.ScheduleOptions for the options.

        `cron` is the same as `cron_expression`, which the 0.1 library called it."""
        if (cron is None) == (cron_expression is None):
            raise InvalidInputError("cron: give one expression, such as '0 9 * * 1'")
        await self.initialize()
        timing = CronSchedule(cron or cron_expression or "", timezone)
        return await self._schedules.create(workflow_name, timing, input_data, id=id, **options)

    async def schedule_interval_workflow(
        self,
        workflow_name: str | WorkflowDefinition[Any],
        interval_seconds: Duration,
        input_data: Any = None,
        *,
        id: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> str:
        """Start a run every `interval_seconds` from now on, the first when they have gone by once. Returns the
        schedule's id."""
        await self.initialize()
        return await self._schedules.create_interval(workflow_name, interval_seconds, input_data, id=id, **options)

    async def schedule_once_workflow(
        self,
        workflow_name: str | WorkflowDefinition[Any],
        at: datetime,
        input_data: Any = None,
        *,
        id: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> str:
        """Start one run at that moment. Until then it can be paused, changed and deleted. Returns the schedule's id."""
        await self.initialize()
        return await self._schedules.create(workflow_name, OneOff(at), input_data, id=id, **options)

    async def schedule_delayed_workflow(
        self, workflow_name: str | WorkflowDefinition[Any], delay_seconds: Duration, input_data: Any = None
    ) -> str:
        """Start one run when the delay has gone by. It exists from now on: this is its run_id."""
        return await self.start_workflow(workflow_name, input_data, start_delay=delay_seconds)

    async def list_schedules(self, limit: int = 100, after: str | None = None) -> list[Schedule | DamagedSchedule]:
        """Schedules in the order of their ids; `after` is the last id of the page before."""
        return list(await self._schedules.list(limit=limit, after=after))

    async def get_schedule(self, schedule_id: str) -> Schedule:
        """The schedule as it stands, with its backfills. Raises ScheduleNotFoundError."""
        return await self._schedules.get(schedule_id)

    async def update_schedule(
        self, schedule_id: str, *, etag: str | None = None, **changes: Unpack[ScheduleChanges]
    ) -> Schedule:
        """Change what is given of a schedule, and nothing else; see schedules.Schedules.update."""
        return await self._schedules.update(schedule_id, etag=etag, **changes)

    async def pause_schedule(self, schedule_id: str, note: str | None = None) -> None:
        """Start nothing until `resume_schedule`. Raises ScheduleNotFoundError."""
        await self._schedules.pause(schedule_id, note)

    async def resume_schedule(self, schedule_id: str) -> None:
        """Go on with the next time from now. Raises ScheduleNotFoundError."""
        await self._schedules.resume(schedule_id)

    async def delete_schedule(self, schedule_id: str) -> None:
        """Forget the schedule; its runs stay. Raises ScheduleNotFoundError."""
        await self._schedules.delete(schedule_id)

    async def trigger_schedule(self, schedule_id: str, *, idempotency_key: str | None = None) -> str:
        """Start a run of the schedule now, and return its run_id. Raises ScheduleNotFoundError."""
        return await self._schedules.trigger(schedule_id, idempotency_key=idempotency_key)

    async def backfill_schedule(
        self,
        schedule_id: str,
        start: datetime,
        end: datetime,
        *,
        dry_run: bool = True,
        max_concurrency: int = DEFAULT_CONCURRENCY,
    ) -> BackfillPlan:
        """The times to fire in `start <= time < end`; without `dry_run` their runs are started, each time once, at most
        `max_concurrency` open at once, over as many ticks as it takes. See schedules.Schedules.backfill."""
        return await self._schedules.backfill(schedule_id, start, end, dry_run=dry_run, max_concurrency=max_concurrency)

    async def cancel_backfill(self, schedule_id: str, backfill_id: str) -> None:
        """Have a backfill start nothing more. Raises ScheduleNotFoundError."""
        await self._schedules.cancel_backfill(schedule_id, backfill_id)

    # --- being a worker -----------------------------------------------------------------------

    async def start_worker(self) -> None:
        """Work on runs in this process, in the current event loop."""
        self.dispatcher = self.app.dispatcher
        await self.app.start_worker()

    async def stop_worker(self) -> None:
        """Stop working on runs; those in hand are let go."""
        self.dispatcher = NoDispatcher()
        await self.app.stop_worker()
        if isinstance(self.app.dispatcher, LocalDispatcher):
            await self.app.dispatcher.let_go()

    async def close(self) -> None:
        """Stop the worker and give back the store."""
        await self.app.close()

    async def __aenter__(self) -> TinyWorkflowClient:
        if self._auto_start_worker:
            await self.start_worker()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
