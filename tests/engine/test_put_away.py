"""A suspended execution that is dropped leaves no trace: its code never learns that anything has happened."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.activities import inc, undo
from tests.engine.history_builder import FACTS, START, Begin, LiveRun, codec, defined, picture, started
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import SignalReceived
from tinyworkflow_core.engine.replay import Execution, replay
from tinyworkflow_core.errors import SerializationError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What Python warns of or cannot raise, also while it collects garbage."""
    heard: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: heard.append(repr(unraisable.exc_value)))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", lambda message, *details, **more: heard.append(str(message)))
        yield heard


async def with_finally(ctx: WorkflowContext) -> str:
    try:
        await ctx.execute_activity(inc, 1)
    finally:
        ctx.logger.error("ended")
    return "done"


async def returns_from_finally(ctx: WorkflowContext) -> str:
    try:
        await ctx.execute_activity(inc, 1)
    finally:
        return "done"  # noqa: B012  # swallowing what ends it is the mistake that is tested


async def undoes_in_finally(ctx: WorkflowContext) -> str:
    try:
        await ctx.execute_activity(inc, 1)
    finally:
        await ctx.execute_activity(undo, 1)
    return "done"


async def sleeps_in_finally(ctx: WorkflowContext) -> str:
    try:
        await asyncio.sleep(1)
    finally:
        await asyncio.sleep(1)
    return "done"


async def many_finallies(ctx: WorkflowContext) -> str:
    async def nested(depth: int) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            try:
                await ctx.wait_for_signal("undo")
            finally:
                if depth:
                    await nested(depth - 1)

    await nested(30)
    return "done"


async def groups_in_finally(ctx: WorkflowContext) -> str:
    try:
        await asyncio.sleep(1)
    finally:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1))
            group.create_task(ctx.execute_activity(undo, 1))
        await asyncio.gather(asyncio.sleep(1), ctx.execute_activity(undo, 2))
        async with asyncio.timeout(5):
            await ctx.wait_for_approval("boss")
    return "done"


async def catches_everything(ctx: WorkflowContext) -> str:
    try:
        await ctx.execute_activity(inc, 1)
    except BaseException:
        return "done"
    return "done"


async def never_gives_up(ctx: WorkflowContext) -> str:
    while True:
        try:
            await ctx.execute_activity(inc, 1)
        except BaseException:
            pass


async def never_stops_sleeping(ctx: WorkflowContext) -> str:
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass


async def never_stops_starting(ctx: WorkflowContext) -> str:
    while True:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(100):
                    group.create_task(asyncio.sleep(60))
        except BaseException:
            pass


@asynccontextmanager
async def reserved(ctx: WorkflowContext) -> AsyncIterator[None]:
    await ctx.sleep(0)
    try:
        yield
    finally:
        await ctx.execute_activity(undo, "reservation")


async def in_context_managers(ctx: WorkflowContext) -> str:
    async with reserved(ctx), asyncio.Lock(), asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(ctx.execute_activity(inc, 1))
        await ctx.wait_for_signal("go")
    return "done"


async def in_tasks(ctx: WorkflowContext) -> Any:
    return await asyncio.gather(with_finally(ctx), undoes_in_finally(ctx), catches_everything(ctx))


async def steps_as_tasks(ctx: WorkflowContext) -> list[Any]:
    task = asyncio.create_task(ctx.execute_activity(inc, 1))
    return [await asyncio.shield(task), await ctx.wait_for_signal("go", timeout=5)]


async def steps_not_yet_awaited(ctx: WorkflowContext) -> int:
    first, second = ctx.execute_activity(inc, 1), ctx.wait_for_approval("boss", timeout=60)
    number = await first
    return number if await second else 0


ALL = [
    with_finally, returns_from_finally, undoes_in_finally, sleeps_in_finally, many_finallies, groups_in_finally,
    catches_everything, never_gives_up, never_stops_sleeping, never_stops_starting, in_context_managers, in_tasks,
    steps_as_tasks, steps_not_yet_awaited,
]  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("code", ALL, ids=lambda code: code.__name__)
def test_code_that_is_put_away_asks_for_nothing_and_says_nothing(
    complaints: list[str], caplog: pytest.LogCaptureFixture, code: Any
) -> None:
    run = LiveRun(code)
    before, pending = picture(run.outcome), run.pending
    position = run.execution.journal.position
    caplog.clear()
    run.close()
    gc.collect()
    assert picture(run.outcome) == before
    assert run.pending == pending
    assert (run.execution.journal.position, run.execution.journal.withdrawn) == (position, [])
    assert run.execution.journal.withdrawn_approvals == []
    del run
    gc.collect()
    assert complaints == []
    assert caplog.messages == []


@pytest.mark.parametrize("code", ALL, ids=lambda code: code.__name__)
@pytest.mark.timeout(20)
def test_a_replay_leaves_nothing_behind(complaints: list[str], code: Any) -> None:
    outcome = replay(defined(code), [started()], facts=FACTS, codec=codec)
    assert picture(outcome)[0] == "blocked"
    del outcome
    gc.collect()
    assert complaints == []


def test_code_that_never_gives_up_does_not_keep_the_process_from_ending() -> None:
    code = (
        "from tests.engine.history_builder import LiveRun\n"
        "from tests.engine.test_put_away import never_gives_up, never_stops_sleeping, never_stops_starting\n"
        "for code in (never_gives_up, never_stops_sleeping, never_stops_starting):\n"
        "    LiveRun(code).close()\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_code_may_be_put_away_twice_and_after_its_end(begin: Begin) -> None:
    run = begin(with_finally)
    run.complete(run.activities[0], 2)
    run.close()
    run.close()
    assert run.result == "done"


def test_a_history_that_cannot_be_read_leaves_no_code_half_alive(complaints: list[str]) -> None:
    woken: list[str] = []

    async def waiting(ctx: WorkflowContext) -> None:
        try:
            await ctx.wait_for_signal("go")
        finally:
            woken.append("too early" if asyncio.get_running_loop().is_closed() is False else "when put away")

    unreadable = SignalReceived(at=START, message_id="m", name="go", payload='{"$":"dataclass","c":"gone:Gone","v":{}}')
    with pytest.raises(SerializationError):
        Execution(defined(waiting), [started(), unreadable], facts=FACTS, codec=codec)
    gc.collect()
    assert woken == ["when put away"]
    assert complaints == []


def test_a_step_that_the_code_forgets_to_await_is_still_warned_of(complaints: list[str]) -> None:
    async def forgetful(ctx: WorkflowContext) -> str:
        ctx.execute_activity(inc, 1)  # the mistake that is tested
        await asyncio.sleep(1)
        return "done"

    with LiveRun(forgetful, always_replay=False):
        gc.collect()
        assert len(complaints) == 1
        assert "was never awaited" in complaints[0]


def test_steps_that_are_cancelled_before_they_begin_are_not_complained_of(begin: Begin, complaints: list[str]) -> None:
    async def hasty(ctx: WorkflowContext) -> list[str]:
        steps = [ctx.execute_activity(inc, 1), ctx.wait_for_signal("go"), ctx.wait_until(lambda: False), ctx.sleep(1)]
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(one) for one in steps]
        for one in tasks:
            one.cancel()
        return [type(one).__name__ for one in await asyncio.gather(*tasks, return_exceptions=True)]

    assert begin(hasty).result == ["CancelledError"] * 4
    gc.collect()
    assert complaints == []


# --- async generators ------------------------------------------------------------------------------


async def numbers(ctx: WorkflowContext) -> AsyncIterator[int]:
    try:
        for i in range(3):
            yield i
    finally:
        await ctx.execute_activity(undo, "numbers")


async def breaks_off(ctx: WorkflowContext) -> int:
    async for _ in numbers(ctx):
        break
    gc.collect()
    await ctx.wait_for_signal("go")
    gc.collect()
    return await ctx.execute_activity(inc, 1)


async def breaks_off_in_a_circle(ctx: WorkflowContext) -> int:
    circle: list[Any] = [numbers(ctx)]
    circle.append(circle)
    await anext(circle[0])
    del circle
    return await breaks_off(ctx)


@pytest.mark.parametrize("code", [breaks_off, breaks_off_in_a_circle], ids=lambda code: code.__name__)
def test_a_generator_that_is_not_exhausted_asks_for_nothing_when_it_is_collected(
    begin: Begin, complaints: list[str], code: Any
) -> None:
    run = begin(code)
    gc.collect()
    assert run.commands == []
    run.signal("go")
    gc.collect()
    (command,) = run.commands
    assert command.signature[1] == "inc"
    run.complete(run.activities[0], 2)
    gc.collect()
    assert run.result == 2
    assert complaints == []


def test_a_generator_that_is_exhausted_or_closed_runs_to_its_end(begin: Begin) -> None:
    async def exhausts(ctx: WorkflowContext) -> list[int]:
        return [i async for i in numbers(ctx)]

    run = begin(exhausts)
    assert run.activities[0].args == ("numbers",)
    assert run.complete(run.activities[0]).result == [0, 1, 2]


def test_generators_that_have_ended_are_not_kept(begin: Begin) -> None:
    async def counting(ctx: WorkflowContext) -> int:
        async def one() -> AsyncIterator[int]:
            yield 1

        total = 0
        for _ in range(1000):
            async for i in one():
                total += i
        await ctx.sleep(1)
        return total

    run = begin(counting)
    assert len(run.execution._loop._generators) < 500
    assert run.fire(run.timers[0]).result == 1000
