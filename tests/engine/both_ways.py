"""Replays one history twice, as it is and with each event met asleep, and compares all that could differ.

`tell` and `steps` are for the workflows that are replayed: what they tell is compared as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.engine import history_builder
from tests.engine.activities import DeclinedError, book, echo, undo
from tests.engine.history_builder import FACTS, defined, differences, stand, stored
from tinyworkflow_core.engine.context import RunFacts, WorkflowContext
from tinyworkflow_core.engine.history import ActivityCompleted, Event
from tinyworkflow_core.engine.replay import Blocked, Execution
from tinyworkflow_core.errors import SerializationError

GONE = '{"$":"gone:Class","v":1}'
"""A stored value that nobody can read any more."""

heard: list[list[Any]] = []
"""What the workflow that was replayed last has told."""


def tell(ctx: WorkflowContext, *what: Any) -> None:
    """All that the code could know here, whether or not it asks for anything after this."""
    number = ctx._next_number()
    heard.append([*what, ctx.now(), ctx.history_length, ctx._journal.here, ctx.logger.silent, number])


async def steps(ctx: WorkflowContext, *what: Any) -> None:
    for one in what:
        await ctx.execute_activity(echo, one)
        tell(ctx, one)


def replayed_once(code: Any, history: Sequence[Event], facts: RunFacts) -> dict[str, Any]:
    """Where the history leads the code, and all that was heard on the way."""
    heard.clear()
    try:
        execution = Execution(defined(code), stored(history), facts=facts, codec=history_builder.codec)
    except SerializationError as unreadable:
        return {"unreadable": str(unreadable), "heard": list(heard)}
    try:
        journal, failing = execution.journal, execution._failing
        return stand(execution) | {
            "heard": list(heard),
            "met": [journal.here, sorted(journal._ended)],
            "failing": [failing.ending, failing._bad, failing._wound_up],
            "compensations": [(one.args, one.undoes, one.since) for one in execution._context._asking.compensations],
        }
    finally:
        execution.close()


def replayed_both_ways(code: Any, history: Sequence[Event], facts: RunFacts = FACTS, cuts: Sequence[int] = ()) -> int:
    """Fails where the two ways differ. Returns how many events were met without sleep."""
    code, met, meet_at_once = defined(code), 0, Execution._meet_at_once

    def counted(execution: Execution, *asked: Any) -> ActivityCompleted | None:
        nonlocal met
        event = meet_at_once(execution, *asked)
        met += event is not None
        return event

    for cut in cuts or range(1, len(history) + 1):
        with pytest.MonkeyPatch.context() as patching:
            patching.setattr(Execution, "_meet_at_once", counted)
            at_once = replayed_once(code, history[:cut], facts)
            patching.setattr(Execution, "_meet_at_once", lambda execution, *asked: None)
            asleep = replayed_once(code, history[:cut], facts)
        assert not differences(at_once, asleep), f"at {cut} of {len(history)}"
    return met


def in_order(run: Any) -> list[Event]:
    """Whatever is open is done, each a second later and by itself: activities first, oldest first."""
    while isinstance(run.outcome, Blocked) and run.pending:
        run.later(1)
        run.complete(run.activities[0], 1) if run.activities else run.fire(run.timers[0])
    history: list[Event] = run.history
    return history


async def unwinds(ctx: WorkflowContext) -> None:
    """Steps in `finally` of code that is cancelled, of an async generator, and of what undoes."""

    async def generated() -> Any:
        try:
            for one in range(3):
                yield await ctx.execute_activity(book, one)
        finally:
            await steps(ctx, "closed")

    try:
        async with asyncio.timeout(100):
            async for one in generated():
                ctx.add_compensation(undo, ["undone", one])
                tell(ctx, one)
        await ctx.execute_parallel((echo, (1,)), (book, (2,)))
        early = ctx.execute_activity(echo, "early")
        await asyncio.shield(ctx.execute_activity(echo, "shielded"))
        await asyncio.wait_for(early, 50)
        raise DeclinedError("no")
    finally:
        await steps(ctx, "finally", "and then")
