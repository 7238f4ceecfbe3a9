"""The order in which asyncio cancels and starts tasks is a function of the history, not of memory addresses."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.activities import echo, undo
from tests.engine.history_builder import Begin, defined
from tests.engine.task_order import WORKFLOWS, cancel_what_is_left, completed_steps, history_of, order, task_group
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.loop import WorkflowTask
from tinyworkflow_core.engine.step import Step

ROOT = Path(__file__).parents[2]


def orders(code: Any, replays: int) -> set[str]:
    """The different orders of commands that so many replays of one history ask for."""
    history, code = history_of(code), defined(code)  # a definition is read and fingerprinted once, as in a process
    ballast = []  # moves the objects of the next replay to other addresses
    seen = set()
    for i in range(replays):
        seen.add(str(order(code, history)))
        ballast.append(bytearray(50 + 7 * (i % 13)))
    return seen


@pytest.mark.parametrize("code", WORKFLOWS, ids=lambda code: code.__name__)
def test_a_thousand_replays_ask_for_the_same_in_the_same_order(code: Any) -> None:
    assert len(orders(code, 1000)) == 1


def test_every_process_asks_for_the_same_in_the_same_order() -> None:
    command = [sys.executable, "-m", "tests.engine.task_order"]
    environments = [{**os.environ, "PYTHONHASHSEED": str(seed)} for seed in range(5)]
    running = [subprocess.Popen(command, cwd=ROOT, env=one, stdout=subprocess.PIPE, text=True) for one in environments]
    printed = {process.communicate(timeout=60)[0] for process in running}
    assert all(process.returncode == 0 for process in running)
    assert len(printed) == 1


@pytest.mark.parametrize("code", [task_group, cancel_what_is_left], ids=lambda code: code.__name__)
def test_with_the_hash_of_plain_tasks_the_order_would_differ(monkeypatch: pytest.MonkeyPatch, code: Any) -> None:
    monkeypatch.setattr(WorkflowTask, "__hash__", object.__hash__)
    assert len(orders(code, 100)) > 1


def test_with_the_hash_of_plain_coroutines_the_order_of_steps_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Step, "__hash__", lambda self: id(self) >> 4)
    assert len(orders(completed_steps, 100)) > 1


# --- as_completed ----------------------------------------------------------------------------------


async def nap(seconds: int) -> int:
    return await asyncio.sleep(seconds, seconds)


class Awaitable:
    """Awaitable, and placed in a set by its address."""

    def __await__(self) -> Any:
        return nap(1).__await__()


def test_as_completed_over_bare_coroutines_is_refused_and_says_what_to_do(begin: Begin) -> None:
    async def bare(ctx: WorkflowContext) -> None:
        coroutines = [nap(2), nap(1)]
        try:
            for one in asyncio.as_completed(coroutines):
                await one
        finally:
            for coroutine in coroutines:
                coroutine.close()

    error = begin(bare).error
    assert error.type == "NotInWorkflowError"
    assert "asyncio.as_completed starts bare coroutines in the order of their memory addresses" in error.message
    assert "asyncio.create_task" in error.message


def test_as_completed_over_other_awaitables_is_refused_as_well(begin: Begin) -> None:
    async def bare(ctx: WorkflowContext) -> None:
        for one in asyncio.as_completed([Awaitable(), Awaitable()]):
            await one

    assert begin(bare).error.type == "NotInWorkflowError"


def test_as_completed_over_tasks_gives_them_as_they_end(begin: Begin) -> None:
    async def tasks(ctx: WorkflowContext) -> list[int]:
        started = [asyncio.create_task(nap(seconds)) for seconds in (30, 10, 20)]
        return [await one for one in asyncio.as_completed(started)]

    run = begin(tasks)
    for timer in sorted(run.timers, key=lambda timer: timer.due):
        run.fire(timer)
    assert run.result == [10, 20, 30]


def test_as_completed_over_steps_gives_them_as_they_end(begin: Begin) -> None:
    async def steps(ctx: WorkflowContext) -> list[int]:
        return [await one for one in asyncio.as_completed([ctx.execute_activity(echo, i) for i in range(4)])]

    run = begin(steps)
    commands = run.activities
    for i in (2, 0, 3, 1):
        run.complete(commands[i], commands[i].args[0])
    assert run.result == [2, 0, 3, 1]


def test_as_completed_with_a_timeout_is_durable(begin: Begin) -> None:
    async def limited(ctx: WorkflowContext) -> list[Any]:
        got: list[Any] = []
        try:
            for one in asyncio.as_completed([ctx.sleep(1), ctx.wait_for_signal("go")], timeout=5):
                got.append(await one)
        except TimeoutError:
            got.append("late")
        return got

    run = begin(limited)
    for _ in range(2):
        run.fire(min(run.timers, key=lambda timer: timer.due))
    assert run.result == [None, "late"]


def test_gather_and_task_groups_take_bare_coroutines(begin: Begin) -> None:
    async def both(ctx: WorkflowContext) -> list[int]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(nap(1))
        await ctx.execute_activity(undo, 0)
        return [task.result(), *await asyncio.gather(nap(2), nap(3))]

    run = begin(both)
    run.fire(run.timers[0])
    run.complete(run.activities[0])
    for timer in run.timers:
        run.fire(timer)
    assert run.result == [1, 2, 3]
