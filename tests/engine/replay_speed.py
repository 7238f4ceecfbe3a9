"""Prints how fast the engine steps and replays sequential steps: `python -m tests.engine.replay_speed [steps]`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from tests.engine.activities import inc
from tests.engine.history_builder import FACTS, LiveRun, codec, defined
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import Event
from tinyworkflow_core.engine.replay import Execution, replay


async def sequence(ctx: WorkflowContext, steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await ctx.execute_activity(inc, number)
    return number


async def sleepers(ctx: WorkflowContext, count: int) -> None:
    await asyncio.gather(*(asyncio.sleep(60) for _ in range(count)))


def history_of(steps: int) -> list[Event]:
    with LiveRun(sequence, steps, always_replay=False) as run:
        for _ in range(steps):
            run.complete(run.activities[0], run.activities[0].args[0] + 1)
        assert run.result == steps
        return run.history


def live(history: list[Event]) -> None:
    execution = Execution(defined(sequence), history[:1], facts=FACTS, codec=codec)
    for event in history[1:]:
        execution.step([event])
    execution.close()


def best(measured: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of a few."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        measured()
        took.append(time.perf_counter() - begun)
    return min(took)


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    history = history_of(steps)
    replaying = best(lambda: replay(defined(sequence), history, facts=FACTS, codec=codec))
    stepping = best(lambda: live(history))
    many = best(lambda: LiveRun(sleepers, steps, always_replay=False).close())
    print(f"Python {sys.version.split()[0]}, {steps} sequential steps:")
    print(f"  replay     {replaying * 1000:8.1f} ms, {steps / replaying:9.0f} steps/s")
    print(f"  live steps {stepping * 1000:8.1f} ms, {steps / stepping:9.0f} steps/s")
    print(f"  {steps} sleepers begin and are put away in {many * 1000:.1f} ms")
