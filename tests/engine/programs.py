"""A workflow that does what its input says, and such inputs by chance.

A program is a list: a word and what it is about, other programs among it. Whatever may be combined in workflow code
can be combined here; no program is wrong. Two things stand only at its head: "retried", how often the run's own policy
tries it again, and "and then", the program of the next generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.engine.activities import DeclinedError, book, echo, once, remote, undo
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.registry import WorkflowDefinition, workflow
from tinyworkflow_core.retry import RetryPolicy

Program = list[Any]

SIGNALS = ("a", "b")


async def interpreter(ctx: WorkflowContext, program: Program) -> Any:
    """The workflow: follows its program and gives what came of it."""
    said: list[Any] = []
    ctx.on_query("said", lambda: [said, ctx.history_length, ctx.retry_count, ctx.now().isoformat()])
    ctx.on_query("meddle", lambda: _MEDDLING[len(said) % len(_MEDDLING)](ctx))

    async def follow(asked: Program) -> Any:
        said.append(["asked", asked])
        return await _run(ctx, asked)

    ctx.on_update("follow", follow, _refuse_signals)
    ctx.on_update("say", said.append)
    word, *rest = program
    if word != "and then":
        return await _run(ctx, program)
    first, second = rest
    said.append(await _run(ctx, first))
    return ctx.continue_as_new(second)


def _refuse_signals(asked: Program) -> None:
    if asked[0] == "signal":
        raise DeclinedError("no signals")


_MEDDLING: list[Callable[[WorkflowContext], Any]] = [
    lambda ctx: ctx.execute_activity(echo, 1),
    lambda ctx: ctx.random().random(),
    lambda ctx: str(ctx.uuid4()),
    lambda ctx: ctx.set_status("meddled"),
    lambda ctx: ctx.add_compensation(undo, "meddled"),
    lambda ctx: ctx.sleep(1),
    lambda ctx: ctx.on_signal("a", print),
    lambda ctx: ctx.on_update("say", print),
]
"""What a query must not do, one way each."""

_CODES: dict[int, WorkflowDefinition[Any]] = {}


def code_of(retries: int) -> WorkflowDefinition[Any]:
    """The interpreter as a workflow that is retried so often by its own policy."""
    if retries not in _CODES:
        policy = RetryPolicy(max_retries=retries, never_on=(KeyError,)) if retries else None
        _CODES[retries] = workflow(name="under_test", lint="off", retry_policy=policy)(interpreter)
    return _CODES[retries]


async def _run(ctx: WorkflowContext, program: Program) -> Any:
    word, *rest = program
    return await _WORDS[word](ctx, *rest)


# --- steps -----------------------------------------------------------------------------------------


async def _activity(ctx: WorkflowContext, number: int) -> Any:
    return await ctx.execute_activity(echo, number)


async def _once(ctx: WorkflowContext, number: int) -> Any:
    return await ctx.execute_activity(once, number)


async def _remote(ctx: WorkflowContext, number: int) -> Any:
    return await ctx.execute_activity(remote, number)


async def _book(ctx: WorkflowContext, number: int) -> Any:
    return await ctx.execute_activity(book, number)


async def _undo_later(ctx: WorkflowContext, number: int) -> Any:
    got = await ctx.execute_activity(echo, number)
    ctx.add_compensation(undo, ["later", number])
    return got


async def _parallel(ctx: WorkflowContext, count: int) -> Any:
    return await ctx.execute_parallel(*((echo if i % 2 else book, (i,)) for i in range(count)))


async def _map(ctx: WorkflowContext, count: int, at_once: int | None, wanted: int | None, tolerated: int | None) -> Any:
    got = await ctx.map(
        echo, range(count), max_concurrency=at_once, min_successful=wanted, tolerated_failures=tolerated
    )
    return [got.reason, got.results, [one.status for one in got.items]]


async def _effect(ctx: WorkflowContext, number: int) -> Any:
    return await ctx.side_effect(lambda: number)


# --- facts -----------------------------------------------------------------------------------------


async def _chance(ctx: WorkflowContext) -> Any:
    return [ctx.random().random(), str(ctx.uuid4())]


async def _tell(ctx: WorkflowContext) -> Any:
    """What the context says goes into the history: another word in a replay would be a mismatch."""
    return await ctx.execute_activity(echo, [ctx.history_length, ctx.now().isoformat(), ctx.random().random()])


async def _status(ctx: WorkflowContext, value: Any) -> None:
    ctx.set_status(value)


async def _patched(ctx: WorkflowContext, patch: str, new: Program, old: Program) -> Any:
    return await _run(ctx, new if ctx.patched(patch) else old)


# --- waits -----------------------------------------------------------------------------------------


async def _sleep(ctx: WorkflowContext, seconds: int) -> str:
    await asyncio.sleep(seconds)
    return ctx.now().isoformat()


async def _signal(ctx: WorkflowContext, name: str, timeout: int | None) -> Any:
    return await ctx.wait_for_signal(name, timeout)


async def _approval(ctx: WorkflowContext, timeout: int | None) -> bool:
    return bool(await ctx.wait_for_approval(str(ctx.uuid4()), timeout))


async def _count(ctx: WorkflowContext, name: str, wanted: int) -> int:
    got: list[Any] = []
    ctx.on_signal(name, got.append)
    await ctx.wait_until(lambda: len(got) >= wanted)
    return len(got)


# --- other runs ------------------------------------------------------------------------------------


async def _child(ctx: WorkflowContext, number: int, policy: Any) -> Any:
    return await ctx.execute_child("other", number, on_parent_close=policy)


async def _start_child(ctx: WorkflowContext, number: int, policy: Any, *doings: str) -> Any:
    handle = await ctx.start_child("other", number, on_parent_close=policy)
    got: list[Any] = [handle.run_id]
    for doing in doings:
        if doing == "signal":
            await handle.signal("go", number)
        elif doing == "cancel":
            await handle.cancel()
        else:
            got.append(await handle.result())
    return got


async def _send(ctx: WorkflowContext, number: int) -> None:
    await ctx.signal_run(f"other-{number}", "go", number)


# --- several at once -------------------------------------------------------------------------------


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


# --- around another --------------------------------------------------------------------------------


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


async def _instead(ctx: WorkflowContext, program: Program, other: Program) -> Any:
    try:
        return await _run(ctx, program)
    except Exception as error:
        await _run(ctx, other)
        raise DeclinedError("instead") from error


async def _then_fail(ctx: WorkflowContext, program: Program, error: str) -> Any:
    await _run(ctx, program)
    raise {"KeyError": KeyError, "DeclinedError": DeclinedError}[error](ctx.retry_count)


async def _fail_unless_retried(ctx: WorkflowContext, program: Program, retries: int) -> Any:
    got = await _run(ctx, program)
    if ctx.retry_count < retries:
        raise DeclinedError("again")
    return got


_WORDS: dict[str, Any] = {
    "activity": _activity, "once": _once, "remote": _remote, "book": _book, "undo later": _undo_later,
    "parallel": _parallel, "map": _map, "effect": _effect, "chance": _chance, "tell": _tell, "status": _status,
    "patched": _patched, "sleep": _sleep, "signal": _signal, "approval": _approval, "count": _count,
    "child": _child, "start child": _start_child, "send": _send,
    "one after another": _one_after_another, "gather": _gather, "group": _group, "first": _first,
    "as completed": _as_completed, "timeout": _timeout, "wait for": _wait_for, "cancel after": _cancel_after,
    "catch": _catch, "clean up": _clean_up, "instead": _instead, "then fail": _then_fail,
    "fail unless retried": _fail_unless_retried,
}  # fmt: skip

# --- by chance -------------------------------------------------------------------------------------

_seconds = st.integers(0, 9)
_waits = st.none() | _seconds
_names = st.sampled_from(SIGNALS)
_policies = st.sampled_from(["cancel", "terminate", "abandon"])


def _words(word: str, *about: st.SearchStrategy[Any]) -> st.SearchStrategy[Program]:
    return st.tuples(st.just(word), *about).map(list)


_map_rules = st.integers(0, 4).flatmap(
    lambda count: st.tuples(
        st.just("map"),
        st.just(count),
        st.none() | st.integers(1, 3),
        st.none() | st.integers(1, count) if count else st.none(),
        st.none() | st.integers(0, 2),
    ).map(list)
)
_doings = st.lists(st.sampled_from(["signal", "cancel", "result"]), max_size=3)
_started_children = st.tuples(st.just("start child"), _seconds, _policies, _doings).map(lambda p: [*p[:3], *p[3]])

steps: st.SearchStrategy[Program] = st.one_of(
    _words("activity", _seconds), _words("once", _seconds), _words("remote", _seconds), _words("book", _seconds),
    _words("undo later", _seconds), _words("parallel", st.integers(0, 4)), _map_rules, _words("effect", _seconds),
    _words("tell"),
)  # fmt: skip
_leaves: st.SearchStrategy[Program] = st.one_of(
    steps,
    st.one_of(
        _words("sleep", _seconds), _words("signal", _names, _waits), _words("approval", _waits),
        _words("count", _names, st.integers(1, 2)),
    ),
    st.one_of(_words("child", _seconds, _policies), _started_children, _words("send", _seconds)),
    st.one_of(_words("chance"), _words("status", _waits)),
)  # fmt: skip


def _several(inner: st.SearchStrategy[Program], least: int) -> st.SearchStrategy[Program]:
    wide = st.sampled_from(["one after another", "gather", "group", "first", "as completed"])
    return st.tuples(wide, st.lists(inner, min_size=least, max_size=4)).map(lambda pair: [pair[0], *pair[1]])


def _around(inner: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    timed = st.sampled_from(["timeout", "wait for", "cancel after"])
    return st.one_of(
        _several(inner, 1),
        st.tuples(timed, st.integers(1, 9), inner).map(list),
        st.tuples(st.sampled_from(["catch", "clean up"]), inner).map(list),
        _words("instead", inner, inner),
        _words("patched", st.sampled_from(["p", "q"]), inner, inner),
        _words("then fail", inner, st.sampled_from(["KeyError", "DeclinedError"])),
    )


_bodies = _several(st.recursive(_leaves, _around, max_leaves=6), 3)
_failing = st.one_of(
    _bodies,
    _words("then fail", _bodies, st.just("DeclinedError")),
    _words("instead", _bodies, steps),
    # At the head only: how often a run was retried is the same for the whole of a retry, also for what was done before.
    _words("fail unless retried", _bodies, st.integers(1, 2)),
)
programs = st.one_of(_failing, _failing, _words("and then", _failing, _bodies))
retries = st.sampled_from([0, 0, 1, 3])
schedules = st.lists(st.integers(0, 2**20), min_size=10, max_size=40)
