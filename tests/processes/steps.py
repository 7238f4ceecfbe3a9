"""The workflow of the kill tests: each execution of a step's body leaves a line in a file, outside of the engine."""

from __future__ import annotations

import asyncio
import os

from tinyworkflow_core import WorkflowContext, activity, workflow


@activity
async def append(number: int) -> int:
    line = f"{number}\n".encode()
    fd = os.open(os.environ["STEPS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line)
    os.close(fd)
    await asyncio.sleep(float(os.environ.get("STEP_SECONDS", "0.01")))
    return number


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
