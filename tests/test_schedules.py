"""tick: what is due is dispatched, bounded, and as often as anybody likes."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from tests.stores.records import T0, TTL, let_go, make, make_waiting, take
from tinyworkflow_core import App, WorkflowContext, activity, workflow
from tinyworkflow_core.dispatcher import Advance
from tinyworkflow_core.schedules import TICK_LIMIT, tick
from tinyworkflow_core.store import Status, Store
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import VirtualClock

MINUTE = timedelta(minutes=1)
CALLS: Counter[int] = Counter()


@activity
async def count(number: int) -> int:
    CALLS[number] += 1
    await asyncio.sleep(0)
    return number


@workflow
async def counts_once(ctx: WorkflowContext, number: int) -> int:
    return await ctx.execute_activity(count, number)


class Notebook:
    """A dispatcher that writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def dispatch(self, task: Advance, at: object = None) -> None:
        assert at is None, "what is due is due now"
        self.asked.append(task.run_id)

    async def close(self) -> None: ...


@pytest.fixture
def store() -> Store:
    return open_store("sqlite:///:memory:")


def nobody_is_gone(owner: str) -> bool:
    return False


async def test_a_tick_dispatches_what_is_due_and_nothing_else_longest_overdue_first(store: Store) -> None:
    await make_waiting(store, "due", wake_at=T0)
    await make_waiting(store, "overdue", wake_at=T0 - MINUTE)
    await make_waiting(store, "later", wake_at=T0 + timedelta(microseconds=1))
    await make_waiting(store, "for nobody", wake_at=None)
    await make(store, "held")
    await take(store, "held")
    await make(store, "ended")
    await let_go(store, await take(store, "ended"), Status.COMPLETED)
    notebook = Notebook()
    report = await tick(store, notebook, clock=VirtualClock(T0), is_gone=nobody_is_gone)
    assert notebook.asked == ["overdue", "due"]
    assert (report.dispatched, report.more) == (("overdue", "due"), False)
    await store.close()


async def test_a_tick_with_nothing_to_do_does_nothing(store: Store) -> None:
    notebook = Notebook()
    report = await tick(store, notebook, clock=VirtualClock(T0), is_gone=nobody_is_gone)
    assert (notebook.asked, report.dispatched, report.more) == ([], (), False)
    await store.close()


async def test_a_tick_finds_a_run_whose_holder_died(store: Store) -> None:
    await make(store, "held")
    await take(store, "held", owner="the dead one")
    notebook = Notebook()
    clock = VirtualClock(T0)
    assert not (await tick(store, notebook, clock=clock, is_gone=nobody_is_gone)).dispatched
    assert (await tick(store, notebook, clock=clock, is_gone="the dead one".__eq__)).dispatched == ("held",)
    clock.move_to(T0 + TTL)
    assert (await tick(store, notebook, clock=clock, is_gone=nobody_is_gone)).dispatched == ("held",)
    await store.close()


async def test_a_tick_stops_at_its_limit_and_says_that_there_may_be_more(store: Store) -> None:
    for number in range(5):
        await make_waiting(store, f"run-{number}", wake_at=T0 - number * MINUTE)
    clock = VirtualClock(T0)
    notebook = Notebook()
    for limit, more in ((2, True), (4, True), (6, False)):
        report = await tick(store, notebook, clock=clock, is_gone=nobody_is_gone, limit=limit)
        assert report.dispatched == ("run-4", "run-3", "run-2", "run-1", "run-0")[:limit]
        assert report.more is more
    assert len(notebook.asked) == 2 + 4 + 5
    assert TICK_LIMIT == 1000
    await store.close()


async def test_ticks_of_several_processes_at_once_do_nothing_twice(store: Store) -> None:
    CALLS.clear()
    clock = VirtualClock(T0)
    apps = [App(store, workflows=[counts_once, count], clock=clock) for _ in range(3)]
    client = App(store, workflows=[counts_once], clock=clock, dispatcher="none").client
    run_ids = [await client.start_workflow(counts_once, number) for number in range(20)]
    reports = await asyncio.gather(*(app.tick() for app in apps for _ in range(2)))
    assert [set(report.dispatched) for report in reports] == [set(run_ids)] * 6
    assert [await client.get_result(run_id) for run_id in run_ids] == list(range(20))
    assert Counter(range(20)) == CALLS
    assert not (await apps[0].tick()).dispatched
    for app in apps:
        await app.close()
