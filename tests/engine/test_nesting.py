"""The workflow's loop runs inside a real one, or inside none, and puts everything back."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.engine.activities import inc
from tests.engine.history_builder import LiveRun
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.loop import WorkflowLoop

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


async def observing(ctx: WorkflowContext) -> list[Any]:
    seen: list[Any] = []
    for _ in range(2):
        task = asyncio.current_task()
        assert task is not None
        seen.append([type(asyncio.get_running_loop()).__name__, task.get_name()])
        await ctx.execute_activity(inc, 1)
    return seen


async def raising(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(inc, 1)
    raise ValueError("no")


async def interrupted(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(inc, 1)
    raise KeyboardInterrupt


def surroundings() -> tuple[Any, ...]:
    return asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks()


async def test_the_outer_loop_and_task_are_put_back_after_every_step() -> None:
    before = surroundings()
    with LiveRun(observing) as run:
        for _ in range(2):
            assert surroundings() == before
            run.complete(run.activities[0])
        assert run.result == [["WorkflowLoop", "workflow"]] * 2
    assert surroundings() == before
    await asyncio.sleep(0)


async def test_they_are_put_back_when_workflow_code_raises() -> None:
    before = surroundings()
    with LiveRun(raising) as run:
        run.complete(run.activities[0])
        assert run.error.message == "no"
    assert surroundings() == before


async def test_they_are_put_back_when_the_process_is_interrupted() -> None:
    before = surroundings()
    with LiveRun(interrupted, always_replay=False) as run, pytest.raises(KeyboardInterrupt):
        run.complete(run.activities[0])
    assert surroundings() == before


def test_no_outer_loop_is_needed() -> None:
    with LiveRun(observing) as run:
        run.complete(run.activities[0]).complete(run.activities[0])
        assert len(run.result) == 2
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


async def test_a_callback_of_the_outer_loop_that_is_no_task_may_step_a_run() -> None:
    done = asyncio.get_running_loop().create_future()

    def step() -> None:
        with LiveRun(observing) as run:
            run.complete(run.activities[0]).complete(run.activities[0])
            done.set_result([run.result, asyncio.current_task()])

    asyncio.get_running_loop().call_soon(step)
    assert await done == [[["WorkflowLoop", "workflow"]] * 2, None]


def test_runs_in_different_threads_do_not_meet() -> None:
    results: list[Any] = []

    def step() -> None:
        with LiveRun(observing) as run:
            run.complete(run.activities[0]).complete(run.activities[0])
            results.append(run.result)

    threads = [threading.Thread(target=step) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert results == [[["WorkflowLoop", "workflow"]] * 2] * 4


async def test_runs_that_are_stepped_in_turns_do_not_meet() -> None:
    with LiveRun(observing) as one, LiveRun(observing) as other:
        for run in (one, other, other, one):
            run.complete(run.activities[0])
        assert one.result == other.result
        assert one.execution._loop is not other.execution._loop


def test_workflow_code_sees_the_callers_context_variables_and_keeps_its_own_to_itself() -> None:
    async def setting(ctx: WorkflowContext) -> list[str]:
        seen = [request.get()]
        request.set("workflow")

        async def child() -> str:
            before = request.get()
            request.set("child")
            return before

        seen.append(await asyncio.create_task(child()))
        await ctx.execute_activity(inc, 1)
        return [*seen, request.get()]

    def caller() -> tuple[Any, str]:
        request.set("caller")
        with LiveRun(setting, always_replay=False) as run:
            request.set("later caller")
            run.complete(run.activities[0])
            return run.result, request.get()

    assert contextvars.copy_context().run(caller) == (["caller", "workflow", "workflow"], "later caller")
    assert request.get() == "none"


async def test_async_generators_of_the_outer_loop_are_left_alone() -> None:
    async def outer() -> AsyncIterator[str]:
        with LiveRun(observing) as run:
            yield picture_of(run)
            run.complete(run.activities[0])
            yield picture_of(run)

    assert [one async for one in outer()] == ["Blocked", "Blocked"]


def picture_of(run: LiveRun) -> str:
    return type(run.outcome).__name__


def test_tasks_of_a_workflow_are_not_among_the_tasks_of_the_process() -> None:
    async def counting(ctx: WorkflowContext) -> list[int]:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(ctx.sleep(1))
            return [len(asyncio.all_tasks())]

    with LiveRun(counting) as run:
        assert isinstance(run.execution._loop, WorkflowLoop)
        assert not asyncio.all_tasks(run.execution._loop)
