"""Tasks whose first turn is taken at once: as asyncio's own, but for when they begin."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from pathlib import Path
from typing import Any

import pytest

from tinyworkflow_core import WorkflowContext, activity, workflow
from tinyworkflow_core.advance import Progress, eager
from tinyworkflow_core.app import App
from tinyworkflow_core.engine.history import ActivityCompleted, ChildStarted, RunStarted
from tinyworkflow_core.stores import sqlite_writer

STATE: contextvars.ContextVar[str] = contextvars.ContextVar("state", default="untouched")


async def test_what_does_not_wait_is_done_when_it_was_begun() -> None:
    heard: list[Any] = []

    async def quick() -> None:
        heard.append(asyncio.current_task())

    this = asyncio.current_task()
    task = eager.begin(quick())
    assert task.done()
    assert heard == [task]
    assert asyncio.current_task() is this


async def test_what_waits_goes_on_by_itself_after_what_was_ready_before_it() -> None:
    heard: list[str] = []

    async def slow() -> None:
        heard.append("begins")
        await asyncio.sleep(0)
        heard.append("goes on")

    asyncio.get_running_loop().call_soon(heard.append, "was ready")
    task = eager.begin(slow())
    assert not task.done()
    await task
    assert heard == ["begins", "was ready", "goes on"]


async def test_it_is_cancelled_and_limited_in_time_like_any_task() -> None:
    timed_out = asyncio.Event()

    async def waits() -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        except TimeoutError:
            timed_out.set()
        await asyncio.sleep(3600)

    task = eager.begin(waits())
    await timed_out.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_it_raises_at_once_is_its_own() -> None:
    async def fails() -> None:
        raise ValueError("no")

    task = eager.begin(fails())
    assert task.done()
    with pytest.raises(ValueError, match="no"):
        await task


async def test_an_interrupt_comes_out_and_whoever_began_it_is_still_the_current_task() -> None:
    async def interrupted() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda done: done.exception())  # else asyncio says that nobody looked at it
        raise KeyboardInterrupt

    this = asyncio.current_task()
    with pytest.raises(KeyboardInterrupt):
        eager.begin(interrupted())
    assert asyncio.current_task() is this


async def test_its_context_is_a_copy() -> None:
    async def changes() -> None:
        assert STATE.get() == "untouched"
        STATE.set("changed")

    assert eager.begin(changes()).done()
    assert STATE.get() == "untouched"


async def test_a_task_factory_of_the_loop_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def quick() -> None:
        pass

    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        coro = quick()
        task = eager.begin(coro)
    finally:
        loop.set_task_factory(before)
    assert made == [coro]
    await task


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there asyncio begins it")
async def test_a_loop_that_cannot_be_looked_into_begins_it_in_its_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    async def quick() -> None:
        heard.append("ran")

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(eager, "getattr", lambda *asked: None, raising=False)
        task = eager.begin(quick())
    assert heard == []
    await task
    assert heard == ["ran"]


# --- in a run ----------------------------------------------------------------------------------------


@activity
async def doubled(number: int) -> int:
    return 2 * number


@workflow
async def doubling(ctx: WorkflowContext, times: int) -> int:
    number = 1
    for _ in range(times):
        number = await ctx.execute_activity(doubled, number)
    return number


async def test_quick_steps_beside_others_take_two_turns_of_the_loop_each_for_the_commit_and_what_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "SLOW_COMMIT_SECONDS", 3600.0)
    steps, turns = 50, 0
    app = App(f"sqlite:///{tmp_path / 'runs.db'}", workflows=[doubling], dispatcher="none")
    run_id = await app.client.start_workflow(doubling, steps)
    loop = asyncio.get_running_loop()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not over:
            loop.call_soon(turn)

    over = False
    loop.call_soon(turn)
    progress = await app.advance(run_id)
    over = True

    assert progress is Progress.CLOSED
    assert await app.client.get_result(run_id) == 2**steps
    assert 2 * steps <= turns <= 2 * steps + 10
    await app.close()


@workflow
async def with_a_child(ctx: WorkflowContext) -> list[int]:
    return list(await asyncio.gather(ctx.execute_child(doubling, 3), ctx.execute_activity(doubled, 1)))


async def test_a_child_that_was_asked_for_beside_a_quick_step_is_started_before_the_steps_end_is_met() -> None:
    app = App("sqlite:///:memory:", workflows=[doubling, with_a_child], dispatcher="none")
    run_id = await app.client.start_workflow(with_a_child)
    await app.advance(run_id)
    state = await app.store.load(run_id)
    assert state is not None
    assert [type(event) for event in state.history] == [RunStarted, ChildStarted, ActivityCompleted]
    await app.close()
