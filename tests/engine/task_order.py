"""Workflows whose commands come in the order in which asyncio cancels or starts tasks, and their replay in a loop.

Run as a module it prints what one replay of each asks for: another process, another hash seed, the same commands.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from tests.engine.activities import echo, undo
from tests.engine.history_builder import LiveRun, replayed
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import Event
from tinyworkflow_core.engine.replay import Blocked, Outcome

SLEEPERS = 8


async def _sleeper(ctx: WorkflowContext, number: int) -> None:
    try:
        await asyncio.sleep(100 + number)
    finally:
        await ctx.execute_activity(undo, number)


async def task_group(ctx: WorkflowContext) -> None:
    async def fails() -> None:
        await asyncio.sleep(1)
        raise ValueError("no")

    async with asyncio.TaskGroup() as group:
        for i in range(SLEEPERS):
            group.create_task(_sleeper(ctx, i))
        group.create_task(fails())


async def cancel_what_is_left(ctx: WorkflowContext) -> None:
    tasks = {asyncio.create_task(_sleeper(ctx, i)) for i in range(SLEEPERS)}
    tasks.add(asyncio.create_task(asyncio.sleep(1)))
    _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    await asyncio.wait(left)


async def set_of_futures(ctx: WorkflowContext) -> None:
    loop = asyncio.get_running_loop()
    futures = {loop.create_future(): number for number in range(SLEEPERS)}
    await asyncio.sleep(1)
    await asyncio.gather(*(ctx.execute_activity(undo, futures[one]) for one in set(futures)))


async def completed_steps(ctx: WorkflowContext) -> None:
    await asyncio.sleep(1)
    for one in asyncio.as_completed([ctx.execute_activity(echo, i) for i in range(SLEEPERS)]):
        await one


WORKFLOWS: list[Any] = [task_group, cancel_what_is_left, set_of_futures, completed_steps]


def history_of(code: Any) -> list[Event]:
    """The history in which the timer of one second has fired."""
    with LiveRun(code, always_replay=False) as run:
        run.fire(min(run.timers, key=lambda timer: timer.due))
        return run.history


def asked(outcome: Outcome) -> list[Any]:
    """The arguments of the activities asked for, by their ids."""
    assert isinstance(outcome, Blocked)
    return sorted([one.command.id, one.command.args[0]] for one in outcome.pending if hasattr(one.command, "args"))


def order(code: Any, history: Sequence[Event]) -> list[Any]:
    """What one replay asks for."""
    return asked(replayed(code, history))


if __name__ == "__main__":
    print(json.dumps([order(code, history_of(code)) for code in WORKFLOWS]))
