"""A store, a clock that stands still, and schedules on them. No workflow code runs: runs are ended by hand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.stores.records import let_go, take
from tinyworkflow_core import WorkflowContext, workflow
from tinyworkflow_core.client import WorkflowClient
from tinyworkflow_core.definitions import WorkflowDefinition
from tinyworkflow_core.dispatchers.local import NoDispatcher
from tinyworkflow_core.registry import Registry
from tinyworkflow_core.schedule_store import Schedule
from tinyworkflow_core.schedules import Schedules
from tinyworkflow_core.serialization import Codec
from tinyworkflow_core.store import RunQuery, Status, Store
from tinyworkflow_core.testing import VirtualClock
from tinyworkflow_core.ticking import TICK_LIMIT, TickReport, tick

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
"""A Monday morning."""


@workflow
async def report(ctx: WorkflowContext, pages: int = 1) -> int:
    return pages


class World:
    """One process with schedules. A second one on the same store: `World(store=..., clock=...)`."""

    def __init__(
        self,
        store: Store,
        clock: VirtualClock,
        workflows: Iterable[WorkflowDefinition[Any]] = (report,),
        *,
        codec: Codec | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.client = WorkflowClient(store, NoDispatcher(), Registry(workflows), codec=codec or Codec(), clock=clock)
        self.schedules = Schedules(self.client)

    async def tick(self, *, limit: int = TICK_LIMIT, deadline: datetime | None = None) -> TickReport:
        return await tick(
            self.store,
            self.client.dispatcher,
            clock=self.clock,
            is_gone=lambda owner: False,
            limit=limit,
            client=self.client,
            deadline=deadline,
        )

    async def tick_after(self, **duration: float) -> list[str]:
        """Move the clock, tick, and say which runs were started."""
        self.clock.move_to(self.clock.now() + timedelta(**duration))
        return list((await self.tick()).started)

    async def schedule(self, schedule_id: str) -> Schedule:
        return await self.schedules.get(schedule_id)

    async def runs(self) -> list[str]:
        """All runs that exist, by their ids."""
        return sorted(run.run_id for run in (await self.store.list(RunQuery())).items)

    async def end(self, run_id: str, status: Status = Status.COMPLETED) -> None:
        """The run ends."""
        lease = await take(self.store, run_id, now=self.clock.now())
        await let_go(self.store, lease, status, closed_at=self.clock.now())
