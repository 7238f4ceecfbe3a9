"""A workflow that does what its input says, such inputs by chance, and a world that answers by chance.

A program is a list: a word and what it is about, other programs among it. Whatever may be combined in workflow code
can be combined here; no program is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.engine.activities import echo, undo
from tests.engine.history_builder import LiveRun
from tinyworkflow_core.engine.commands import ExecuteActivity, RequestApproval, RunSideEffect, StartTimer
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.journal import Pending
from tinyworkflow_core.engine.replay import Blocked

Program = list[Any]

SIGNALS = ("a", "b")


async def interpreter(ctx: WorkflowContext, program: Program) -> Any:
    """The workflow: follows its program and gives what came of it."""
    return await _run(ctx, program)


async def _run(ctx: WorkflowContext, program: Program) -> Any:
    word, *rest = program
    return await _WORDS[word](ctx, *rest)


async def _activity(ctx: WorkflowContext, number: int) -> Any:
    return await ctx.execute_activity(echo, number)


async def _parallel(ctx: WorkflowContext, count: int) -> Any:
    return await ctx.execute_parallel(*((echo, (i,)) for i in range(count)))


async def _sleep(ctx: WorkflowContext, seconds: int) -> str:
    await asyncio.sleep(seconds)
    return ctx.now().isoformat()


async def _signal(ctx: WorkflowContext, name: str, timeout: int | None) -> Any:
    return await ctx.wait_for_signal(name, timeout)


async def _approval(ctx: WorkflowContext, timeout: int | None) -> bool:
    return bool(await ctx.wait_for_approval(str(ctx.uuid4()), timeout))


async def _effect(ctx: WorkflowContext, number: int) -> Any:
    return await ctx.side_effect(lambda: number)


async def _chance(ctx: WorkflowContext) -> float:
    return ctx.random().random()


async def _one_after_another(ctx: WorkflowContext, *programs: Program) -> Any:
    return [await _run(ctx, one) for one in programs]


async def _gather(ctx: WorkflowContext, *programs: Program) -> Any:
    return list(await asyncio.gather(*(_run(ctx, one) for one in programs)))


async def _group(ctx: WorkflowContext, *programs: Program) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(ctx, one)) for one in programs]
    return [one.result() for one in tasks]


async def _first(ctx: WorkflowContext, *programs: Program) -> Any:
    tasks = {asyncio.create_task(_run(ctx, one)) for one in programs}
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    ended = await asyncio.gather(*left, return_exceptions=True)
    return [[one.result() for one in done], [type(one).__name__ for one in ended]]


async def _as_completed(ctx: WorkflowContext, *programs: Program) -> Any:
    tasks = [asyncio.create_task(_run(ctx, one)) for one in programs]
    return [await one for one in asyncio.as_completed(tasks)]


async def _timeout(ctx: WorkflowContext, seconds: int, program: Program) -> Any:
    async with asyncio.timeout(seconds):
        return await _run(ctx, program)


async def _wait_for(ctx: WorkflowContext, seconds: int, program: Program) -> Any:
    return await asyncio.wait_for(_run(ctx, program), seconds)


async def _cancel_after(ctx: WorkflowContext, seconds: int, program: Program) -> Any:
    task = asyncio.create_task(_run(ctx, program))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    return "cancelled" if task.cancelled() else repr(task.exception() or task.result())


async def _catch(ctx: WorkflowContext, program: Program) -> Any:
    try:
        return await _run(ctx, program)
    except Exception as error:
        return type(error).__name__


async def _clean_up(ctx: WorkflowContext, program: Program) -> Any:
    try:
        return await _run(ctx, program)
    finally:
        await ctx.execute_activity(undo, 0)


async def _count(ctx: WorkflowContext, name: str, wanted: int) -> int:
    got: list[Any] = []
    ctx.on_signal(name, got.append)
    await ctx.wait_until(lambda: len(got) >= wanted)
    return len(got)


_WORDS: dict[str, Any] = {
    "activity": _activity, "parallel": _parallel, "sleep": _sleep, "signal": _signal, "approval": _approval,
    "effect": _effect, "chance": _chance, "one after another": _one_after_another, "gather": _gather, "group": _group,
    "first": _first, "as completed": _as_completed, "timeout": _timeout, "wait for": _wait_for,
    "cancel after": _cancel_after, "catch": _catch, "clean up": _clean_up, "count": _count,
}  # fmt: skip

# --- by chance -------------------------------------------------------------------------------------

_seconds = st.integers(0, 9)
_waits = st.none() | _seconds
_names = st.sampled_from(SIGNALS)
_leaves: st.SearchStrategy[Program] = st.one_of(
    st.tuples(st.just("activity"), _seconds).map(list),
    st.tuples(st.just("parallel"), st.integers(0, 4)).map(list),
    st.tuples(st.just("sleep"), _seconds).map(list),
    st.tuples(st.just("signal"), _names, _waits).map(list),
    st.tuples(st.just("approval"), _waits).map(list),
    st.tuples(st.just("effect"), _seconds).map(list),
    st.just(["chance"]),
    st.tuples(st.just("count"), _names, st.integers(1, 2)).map(list),
)


def _several(inner: st.SearchStrategy[Program], least: int) -> st.SearchStrategy[Program]:
    wide = st.sampled_from(["one after another", "gather", "group", "first", "as completed"])
    return st.tuples(wide, st.lists(inner, min_size=least, max_size=4)).map(lambda pair: [pair[0], *pair[1]])


def _around(inner: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    timed = st.sampled_from(["timeout", "wait for", "cancel after"])
    return st.one_of(
        _several(inner, 1),
        st.tuples(timed, st.integers(1, 9), inner).map(list),
        st.tuples(st.sampled_from(["catch", "clean up"]), inner).map(list),
    )


programs = _several(st.recursive(_leaves, _around, max_leaves=6), 3)
schedules = st.lists(st.integers(0, 255), min_size=10, max_size=30)

# --- the world -------------------------------------------------------------------------------------


def answer(run: LiveRun, schedule: Sequence[int]) -> None:
    """The world answers as the schedule says, until that or the run ends."""
    for choice in schedule:
        if not isinstance(run.outcome, Blocked):
            return
        run.later(choice % 3)
        if choice >= 252:
            run.cancel("by chance")
        elif choice >= 225:
            run.let_go()
        elif choice >= 190 or not run.pending:
            run.signal(SIGNALS[choice % 2], choice)
        else:
            pending = run.pending
            _answer(run, pending[choice % len(pending)], choice // len(pending))


def _answer(run: LiveRun, pending: Pending, choice: int) -> None:
    match pending.command:
        case ExecuteActivity() as activity if pending.withdrawn and choice % 3:
            run.end_withdrawn(activity)
        case ExecuteActivity() as activity if choice % 8 == 1:
            run.fail(activity, ValueError("by chance"))
        case ExecuteActivity() as activity if choice % 8 == 2:
            run.fail(activity, ValueError("by chance"), retry_in=1)
        case ExecuteActivity() as activity:
            run.complete(activity, activity.args[0])
        case StartTimer() as timer:
            run.fire(timer)
        case RequestApproval() as approval:
            run.decide(approval.key, bool(choice % 2))
        case RunSideEffect() as effect:
            run.record_side_effect(effect)
