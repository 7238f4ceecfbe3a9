"""Attempts that are calls of their own look at their run: the first replays it, those that follow go on from there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from tinyworkflow_core import App, RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.advance import Progress, replayed
from tinyworkflow_core.dispatcher import Perform, Task

BODIES: list[Any] = []
"""What the workflow function was called with, each time that its code was run from the beginning."""
DONE: list[Any] = []


@activity(run_on="queue", retry_policy=RetryPolicy(max_retries=0))
async def count(number: int) -> int:
    DONE.append(number)
    return number


@workflow
async def counts(ctx: WorkflowContext, numbers: list[int]) -> int:
    BODIES.append(numbers)
    try:
        return sum(await asyncio.gather(*(ctx.execute_activity(count, number) for number in numbers)))
    finally:
        BODIES.append("left")


class Handing:
    """Keeps the attempts that are handed out; the runs are advanced by hand."""

    def __init__(self) -> None:
        self.attempts: list[Perform] = []

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        if isinstance(task, Perform):
            self.attempts.append(task)

    async def close(self) -> None: ...


@pytest.fixture(autouse=True)
def _fresh() -> None:
    BODIES.clear()
    DONE.clear()


@pytest.fixture
async def handing() -> Handing:
    return Handing()


@pytest.fixture
async def app(handing: Handing) -> AsyncIterator[App]:
    one = App("sqlite:///:memory:", workflows=[counts], dispatcher=handing)
    yield one
    await one.close()


async def test_a_fan_out_is_replayed_once_and_not_by_each_of_its_attempts(app: App, handing: Handing) -> None:
    run_id = await app.client.start_workflow(counts, list(range(30)))
    assert await app.advance(run_id) is Progress.RELEASED
    BODIES.clear()
    for attempt in handing.attempts:
        assert await app.perform(attempt) is Progress.RELEASED
        if len(DONE) == 10:  # what has happened since is taken in
            assert await app.advance(run_id) is Progress.RELEASED
    assert sorted(DONE) == list(range(30))
    assert [list(range(30)), list(range(30)), "left"] == BODIES  # the attempts', and the advance between them
    assert await app.advance(run_id) is Progress.CLOSED
    assert await app.client.get_result(run_id) == sum(range(30))


async def test_an_attempt_that_comes_again_is_not_made_again(app: App, handing: Handing) -> None:
    run_id = await app.client.start_workflow(counts, [1, 2])
    await app.advance(run_id)
    for _ in range(2):
        await app.perform(handing.attempts[0])
        await app.advance(run_id)
    assert DONE == [1]


async def test_a_run_that_takes_the_id_of_one_that_was_purged_is_another(app: App, handing: Handing) -> None:
    for numbers in ([1, 2], [3, 4]):
        run_id = await app.client.start_workflow(counts, numbers, run_id="the-same")
        await app.advance(run_id)
        await app.perform(handing.attempts[-1])
        await app.store.purge(run_id)
    assert DONE == [2, 4]


async def test_only_so_many_events_are_kept_and_what_is_dropped_is_put_away(
    app: App, handing: Handing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayed, "MOST_EVENTS", 10)
    for number in (1, 2):
        await app.advance(await app.client.start_workflow(counts, [number] * 6))
    BODIES.clear()
    for attempt in (handing.attempts[0], handing.attempts[6], handing.attempts[1]):
        await app.perform(attempt)
    assert BODIES == [[1] * 6, [2] * 6, "left", [1] * 6, "left"]
    await app.close()
    assert BODIES[-1] == "left"
    assert BODIES.count("left") == 3
