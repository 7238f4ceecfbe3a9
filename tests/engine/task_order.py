"""Workflows whose commands come in the order in which asyncio cancels or starts tasks, and their replay in a loop.

Run as a module it prints what one replay of each asks for: another process, another hash seed, the same commands.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from tests.engine.activities import book, echo, undo
from tests.engine.history_builder import replayed
from tests.engine.owned_run import OwnedRun
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import Event
from tinyworkflow_core.engine.journal import recorded_signature
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


async def waits_for(ctx: WorkflowContext) -> None:
    async def limited(number: int) -> None:
        try:
            await asyncio.wait_for(asyncio.sleep(100 + number), 1)
        except TimeoutError:
            await ctx.execute_activity(undo, number)

    async with asyncio.TaskGroup() as group:
        for i in range(SLEEPERS):
            group.create_task(limited(i))


async def children(ctx: WorkflowContext) -> None:
    """Of a set of children that are being started and asked one is given up, and with it the others."""

    async def asks(number: int) -> None:
        handle = await ctx.start_child("other", number)
        try:
            await handle.result()
        finally:
            await handle.signal("enough", number)

    async with asyncio.TaskGroup() as group:
        for i in range(SLEEPERS):
            group.create_task(asks(i))
        await asyncio.sleep(1)
        raise ValueError("no")


async def mapped(ctx: WorkflowContext) -> None:
    """Several maps at once: when the first has enough, the others are given up and cleaned up after."""

    async def one(number: int) -> None:
        try:
            await ctx.map(echo, range(number, number + 5), max_concurrency=3, min_successful=2)
        finally:
            await ctx.execute_activity(undo, number)

    tasks = {asyncio.create_task(one(10 * i)) for i in range(SLEEPERS)} | {asyncio.create_task(asyncio.sleep(1))}
    _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.wait(left)


async def compensated(ctx: WorkflowContext) -> None:
    """What was done in several tasks is undone in one order, and what was under way is withdrawn in one."""

    async def one(number: int) -> None:
        ctx.add_compensation(undo, ["before", number])
        await ctx.execute_activity(book, number)
        ctx.add_compensation(undo, ["after", number])
        await _sleeper(ctx, number)

    async with asyncio.TaskGroup() as group:
        for i in range(SLEEPERS):
            group.create_task(one(i))
        await asyncio.sleep(1)
        raise ValueError("no")


WORKFLOWS: list[Any] = [
    task_group,
    cancel_what_is_left,
    set_of_futures,
    completed_steps,
    waits_for,
    children,
    mapped,
    compensated,
]


def history_of(code: Any) -> list[Event]:
    """The history in which everything that can begin has begun, the timers of one second have fired, and whatever that
    has the code ask for is done."""
    with OwnedRun(code, always_replay=False) as run:
        for child in run.children[: SLEEPERS - 2]:
            run.happen(run.child_started(child))
        for activity in run.activities if code is compensated else ():
            run.complete(activity, activity.args[0])
        first = min(timer.due for timer in run.timers)
        for timer in run.timers:
            if timer.due == first:
                run.fire(timer)
        for _ in range(3 if code in (mapped, compensated) else 0):
            if isinstance(run.outcome, Blocked):
                run.end_withdrawn()
            for activity in run.activities if isinstance(run.outcome, Blocked) else ():
                run.complete(activity)
        return run.history


def asked(history: Sequence[Event], outcome: Outcome) -> list[Any]:
    """What was asked for, by position: the recorded events of commands, then the open commands."""
    open_ones = outcome.pending if isinstance(outcome, Blocked) else ()
    recorded = [signature for event in history if (signature := recorded_signature(event)) is not None]
    return [recorded, sorted([one.command.id, *one.command.signature] for one in open_ones)]


def order(code: Any, history: Sequence[Event]) -> list[Any]:
    """What one replay asks for."""
    return asked(history, replayed(code, history))


if __name__ == "__main__":
    print(json.dumps([order(code, history_of(code)) for code in WORKFLOWS]))
