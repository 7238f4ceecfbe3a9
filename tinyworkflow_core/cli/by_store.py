"""Reaching runs in a store, by its URL. Nothing here works on runs, except on one that is waited for (`bring`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, TypeVar

from .. import approvals
from ..checking import exported
from ..clock import fresh_id
from ..cron import CronSchedule, OneOff, Timing
from ..embedded import TinyWorkflowClient
from ..errors import QueryError, RunNotFoundError, TinyWorkflowError, WorkflowFailedError
from ..http.definition_views import activity_views, workflow_views
from ..http.schedule_views import schedule_view
from ..http.shown import Shown
from ..http.views import Mounted, approval_view, run_summary, run_view
from ..redaction import NOTHING
from ..schedule_store import DamagedSchedule, Schedule
from ..schedules import Schedules
from ..store import RunQuery, RunState, Status
from .reach import MOST, Data, Verb, bare, run_data, schedule_data
from .stored_values import plain

T = TypeVar("T")

_NOWHERE: Mounted = SimpleNamespace(scope={})
"""What views take for making links, which are then left out."""


class StoreReach:
    """A store."""

    def __init__(self, database_url: str) -> None:
        self._client = TinyWorkflowClient(database_url)
        self._schedules = Schedules(self._client)
        self._shown = Shown(self._client.codec, NOTHING)  # whoever has the store has all of it

    async def __aenter__(self) -> StoreReach:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()

    # --- what can be started ------------------------------------------------------------------

    async def workflows(self) -> list[Data]:
        return [dict(one) for one in workflow_views(self._client.registry.workflows())]

    async def activities(self) -> list[Data]:
        return [dict(one) for one in activity_views(self._client.registry)]

    # --- runs ---------------------------------------------------------------------------------

    async def start(self, name: str, *, idempotency_key: str | None, **fields: Any) -> str:
        data = fields.pop("input", None)
        return await self._client.start_workflow(name, data, idempotency_key=idempotency_key, **fields)

    async def run(self, run_id: str) -> Data:
        found = await self._client.store.get(run_id)
        if found is None:
            raise _unknown(run_id)
        return run_data(run_view(_NOWHERE, found, self._shown))

    async def runs(self, *, limit: int, cursor: str | None = None, **narrowed: Any) -> Data:
        status, name = narrowed.pop("status", None), narrowed.pop("workflow", None)
        query = RunQuery(
            status=None if status is None else Status(status), name=name, limit=limit, cursor=cursor, **narrowed
        )
        page = await self._client.store.list(query)
        found = [run_data(run_summary(_NOWHERE, one, self._shown)) for one in page.items]
        return {"runs": found, "next_cursor": page.next_cursor}

    async def events(self, run_id: str, *, after: int = 0, limit: int = MOST) -> Data:
        history, end = (await self._load(run_id)).history, after + limit
        page = [dict(self._shown.event(number, one)) for number, one in enumerate(history[after:end], start=after + 1)]
        return {"events": page, "next_after": end if len(history) > end else None}

    async def history(self, run_id: str, *, only_open: bool = False) -> Data | None:
        state = await self._load(run_id)
        return None if only_open and state.run.status.closed else exported(state)

    async def wait(self, run_id: str, timeout: float | None) -> Data:
        try:
            await self._client.get_result(run_id, timeout)
        except WorkflowFailedError:
            pass  # its record says how it ended
        return await self.run(run_id)

    async def bring(self, run_id: str) -> None:
        try:
            await self._client.bring_to_its_end(run_id)
        except WorkflowFailedError:
            pass

    async def signal(self, run_id: str, name: str, payload: Any) -> None:
        await self._client.send_signal(run_id, name, payload)

    async def query(self, run_id: str, name: str, arguments: Sequence[Any]) -> Any:
        asked = self._client.query_workflow(run_id, name, *arguments)
        return plain(await _handled(f"query {name!r} of run {run_id!r}", asked))

    async def update(self, run_id: str, name: str, payload: Any, update_id: str | None, timeout: float | None) -> Any:
        asked = self._client.update_workflow(run_id, name, payload, update_id=update_id or fresh_id(32))
        async with asyncio.timeout(timeout):
            return plain(await _handled(f"update {name!r} of run {run_id!r}", asked))

    async def steer(self, verb: Verb, run_id: str, reason: str | None = None) -> None:
        client = self._client
        verbs: Mapping[Verb, Callable[[], Awaitable[None]]] = {
            "cancel": lambda: client.cancel_workflow(run_id, reason),
            "terminate": lambda: client.terminate_workflow(run_id, reason),
            "suspend": lambda: client.suspend_workflow(run_id, reason),
            "resume": lambda: client.resume_workflow(run_id),
            "retry": lambda: client.retry_workflow(run_id),
        }
        await verbs[verb]()

    async def fork(self, run_id: str, at_event: int, input_data: Any) -> str:
        return await self._client.fork_workflow(run_id, at_event, input_data)

    async def delete(self, run_id: str) -> None:
        await self._client.delete_workflow(run_id)

    async def _load(self, run_id: str) -> RunState:
        state = await self._client.store.load(run_id)
        if state is None:
            raise _unknown(run_id)
        return state

    # --- approvals ----------------------------------------------------------------------------

    async def approvals(self, approver: str | None) -> list[Data]:
        found = await approvals.pending(self._client.store, approver=approver, limit=MOST, now=self._client.clock.now())
        return [bare(approval_view(_NOWHERE, one.run, one.approval, self._shown)) for one in found]

    async def decide(self, run_id: str, key: str | None, **decision: Any) -> str:
        client, made = self._client, approvals.Decision(**decision)
        return await approvals.decide(
            client.store, client.dispatcher, run_id, key, made, clock=client.clock, codec=client.codec
        )

    # --- schedules ----------------------------------------------------------------------------

    async def declare(self, fields: Mapping[str, Any]) -> str:
        given = dict(fields)
        name, timing, data = given.pop("workflow"), self._timing(given.pop("timing")), given.pop("input", None)
        return await self._schedules.create(name, timing, data, **given)

    async def change(self, schedule_id: str, fields: Mapping[str, Any]) -> None:
        given = dict(fields)
        if "timing" in given:
            given["timing"] = self._timing(given["timing"])
        if "input" in given:
            given["input_data"] = given.pop("input")
        await self._schedules.update(schedule_id, **given)

    async def schedule(self, schedule_id: str) -> Data:
        return self._shown_schedule(await self._schedules.get(schedule_id))

    async def schedules(self, *, limit: int, after: str | None) -> list[Data]:
        return [self._shown_schedule(one) for one in await self._schedules.list(limit=limit, after=after)]

    async def pause(self, schedule_id: str, note: str | None) -> None:
        await self._schedules.pause(schedule_id, note)

    async def resume(self, schedule_id: str) -> None:
        await self._schedules.resume(schedule_id)

    async def forget(self, schedule_id: str) -> None:
        await self._schedules.delete(schedule_id)

    async def trigger(self, schedule_id: str) -> str:
        return await self._schedules.trigger(schedule_id)

    async def backfill(self, schedule_id: str, start: datetime, end: datetime, dry_run: bool, most: int) -> Data:
        plan = await self._schedules.backfill(schedule_id, start, end, dry_run=dry_run, max_concurrency=most)
        return {"backfill_id": plan.id, "times": [one.isoformat() for one in plan.times]}

    async def cancel_backfill(self, schedule_id: str, backfill_id: str) -> None:
        await self._schedules.cancel_backfill(schedule_id, backfill_id)

    def _timing(self, asked: Mapping[str, Any]) -> Timing:
        match asked:
            case {"cron": line}:
                return CronSchedule(line, asked.get("timezone", "UTC"))
            case {"interval": every}:
                return self._schedules.interval(every)
        return OneOff(datetime.fromisoformat(asked["at"]))

    def _shown_schedule(self, schedule: Schedule | DamagedSchedule) -> Data:
        if isinstance(schedule, DamagedSchedule):
            return {"id": schedule.id, "problem": schedule.problem}
        return schedule_data(schedule_view(_NOWHERE, schedule, self._shown))


async def _handled(what: str, answer: Awaitable[T]) -> T:
    """What a handler gives. It is the user's code: whatever it raises is told, not traced."""
    try:
        return await answer
    except TinyWorkflowError:
        raise
    except Exception as error:
        raise QueryError(f"{what}: {type(error).__name__}: {error}") from error


def _unknown(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
