"""tick with a dispatcher that makes the calls itself: bounded by its room, and the same run never twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.eventually import eventually
from tests.stores.records import T0, make_waiting
from tinyworkflow_core.dispatcher import Task
from tinyworkflow_core.dispatchers.local import LocalDispatcher
from tinyworkflow_core.store import Store, nobody_is_gone
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import VirtualClock
from tinyworkflow_core.ticking import SPREAD, TickReport, tick


class Process:
    """Calls that end when they may, and what was read for them. Runs stay due: nobody takes them here."""

    def __init__(self, store: Store, *, max_calls: int) -> None:
        self.store: Any = store
        self.max_event_bytes = store.max_event_bytes
        self.may_end = asyncio.Event()
        self.asked: list[int] = []
        self.dispatcher = LocalDispatcher(self._call, clock=VirtualClock(T0), max_calls=max_calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def due(self, *, limit: int, **arguments: Any) -> list[str]:
        self.asked.append(limit)
        found: list[str] = await self.store.due(limit=limit, **arguments)
        return found

    async def _call(self, task: Task) -> None:
        await self.may_end.wait()

    async def tick(self, **arguments: Any) -> TickReport:
        store: Any = self
        return await tick(store, self.dispatcher, clock=VirtualClock(T0), is_gone=nobody_is_gone, **arguments)

    async def end(self) -> None:
        self.may_end.set()
        await eventually(self._is_idle)
        self.may_end.clear()

    async def _is_idle(self) -> bool:
        return self.dispatcher.busy == 0


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = open_store("sqlite:///:memory:")
    yield store
    await store.close()


async def due_runs(store: Store, count: int) -> list[str]:
    run_ids = [f"run-{number:03}" for number in range(count)]
    for run_id in run_ids:
        await make_waiting(store, run_id, wake_at=T0)
    return run_ids


async def test_a_tick_takes_what_there_is_room_for_and_the_next_one_the_rest(store: Store) -> None:
    run_ids = await due_runs(store, 5)
    process = Process(store, max_calls=3)
    first = await process.tick()
    assert (len(first.dispatched), first.more) == (3, True)
    assert sorted(first.dispatched) == list(first.dispatched), "in their order"
    # When there is no room, nothing is read. There may be more.
    full = await process.tick()
    assert (full.dispatched, full.more, len(process.asked)) == ((), True, 1)
    await process.end()
    for run_id in first.dispatched:
        await store.purge(run_id)  # they have been worked on
    rest = await process.tick()
    assert (sorted(first.dispatched + rest.dispatched), rest.more) == (run_ids, False)
    await process.end()


async def test_a_run_that_is_in_hand_here_is_not_dispatched_again_until_its_call_has_ended(store: Store) -> None:
    run_ids = await due_runs(store, 2)
    process = Process(store, max_calls=1)
    for run_id in run_ids:  # one is under way, the other waits its turn
        process.dispatcher.wake(run_id)
    wide = Process(store, max_calls=9)
    assert (await wide.tick()).dispatched == tuple(run_ids), "what is in hand elsewhere is not known here"
    again = await wide.tick()
    assert (again.dispatched, again.more) == ((), False)
    await wide.end()
    assert (await wide.tick()).dispatched == tuple(run_ids), "it is due still: it is not forgotten"
    assert process.dispatcher.in_hand() == set(run_ids)
    for one in (process, wide):
        await one.end()
    assert process.dispatcher.in_hand() == set()


async def test_what_is_in_hand_does_not_stand_in_the_way_of_the_rest(store: Store) -> None:
    run_ids = await due_runs(store, SPREAD + 3)
    process = Process(store, max_calls=SPREAD + 2)
    for run_id in run_ids[: SPREAD + 1]:
        process.dispatcher.wake(run_id)
    [found] = (await process.tick()).dispatched
    assert found in run_ids[SPREAD + 1 :]
    await process.end()


async def test_processes_that_have_more_to_do_than_room_for_choose_differently(store: Store) -> None:
    await due_runs(store, 400)
    processes = [Process(store, max_calls=50) for _ in range(4)]
    reports = [await process.tick() for process in processes]
    assert [len(report.dispatched) for report in reports] == [50] * 4
    # By chance some 137 of the 200 that were read; by the order alone 50.
    assert len({run_id for report in reports for run_id in report.dispatched}) > 100
    assert [process.asked for process in processes] == [[SPREAD * 50]] * 4
    for process in processes:
        await process.end()


async def test_a_limit_below_the_room_holds_and_the_longest_overdue_come_first(store: Store) -> None:
    run_ids = await due_runs(store, 5)
    process = Process(store, max_calls=9)
    report = await process.tick(limit=2)
    assert (report.dispatched, report.more, process.asked) == (tuple(run_ids[:2]), True, [2])
    await process.end()
