"""The workflow of the kill tests: each execution of a step's body leaves a line in a file, outside of the engine."""

from __future__ import annotations

import asyncio
import os
import time

from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, activity_context, workflow
from tinyworkflow_core.errors import StepInterruptedError


def log(number: int) -> None:
    """One line, written at once and whole."""
    fd = os.open(os.environ["STEPS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{number}\n".encode())
    os.close(fd)


@activity
async def append(number: int) -> int:
    log(number)
    await asyncio.sleep(float(os.environ.get("STEP_SECONDS", "0.01")))
    return number


@activity(compensate=append)
async def book(number: int) -> int:
    """Undone by a step of its negative number."""
    await append.fn(number)
    return -number


@activity(retry_policy=RetryPolicy(max_retries=0))
async def refuse() -> None:
    raise ValueError("no")


@workflow
async def undo_all(ctx: WorkflowContext, steps: int) -> None:
    for number in range(1, steps + 1):
        await ctx.execute_activity(book, number)
    await ctx.execute_activity(refuse)


@workflow
async def count_up(ctx: WorkflowContext, steps: int) -> int:
    total = 0
    for number in range(steps):
        total += await ctx.execute_activity(append, number)
    return total


@workflow
async def hold(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(append, 0)
    return str(await ctx.wait_for_signal("go"))


@activity
async def copy_rows(rows: int) -> int:
    first = activity_context().last_heartbeat or 0
    log(first)
    for row in range(first, rows):
        await asyncio.sleep(0 if first else 0.05)  # whoever goes on need not be caught in the middle
        activity_context().heartbeat(row + 1)
    return first


@activity
def copy_rows_in_a_thread(rows: int) -> int:
    first = int(activity_context().last_heartbeat or 0)
    log(first)
    for row in range(first, rows):
        time.sleep(0 if first else 0.05)
        activity_context().heartbeat(row + 1)
    return first


@workflow
async def copy_in_a_process(ctx: WorkflowContext, kind: str) -> int:
    return await ctx.execute_activity(copy_rows if kind == "async" else copy_rows_in_a_thread, 60)


@activity(at_most_once=True)
async def launch() -> str:
    log(1)
    await asyncio.sleep(60)
    return "launched"


@workflow
async def launch_in_a_process(ctx: WorkflowContext) -> str:
    try:
        return await ctx.execute_activity(launch)
    except StepInterruptedError:
        return "interrupted"


@activity(run_on="queue", timeout="20s")
async def who_works(number: int) -> int:
    log(number)
    await asyncio.sleep(0.05)
    return os.getpid()


@workflow
async def share_out(ctx: WorkflowContext, width: int) -> list[int]:
    return await ctx.execute_parallel(*((who_works, (number,)) for number in range(width)))
