"""Code that is handed its next event without being put to sleep goes on exactly as code that is woken by it.

Every history here is replayed twice at every cut: as it is, and with each event met asleep. The hand-written workflows
are those in which something else would come first: each would show it if one condition of the short cut were missing.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.activities import DeclinedError
from tests.engine.both_ways import in_order, replayed_both_ways, replayed_once, steps, tell, unwinds
from tests.engine.history_builder import FACTS, Begin, codec, defined, stand
from tests.engine.owned_run import OwnedRun
from tests.engine.programs import Program, code_of, programs, retries, schedules
from tests.engine.world import live
from tinyworkflow_core.engine import loop
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import ActivityCompleted, RunCompleted
from tinyworkflow_core.engine.loop import WorkflowLoop
from tinyworkflow_core.engine.replay import Execution

# --- that it happens -------------------------------------------------------------------------------


async def ten_steps(ctx: WorkflowContext) -> str:
    await steps(ctx, *range(10))
    return "done"


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[None]:
    """From now on as long as that method of the workflows' loops was called often."""
    calls: list[None] = []
    real = getattr(WorkflowLoop, name)

    def counting(*args: Any, **options: Any) -> Any:
        calls.append(None)
        return real(*args, **options)

    monkeypatch.setattr(WorkflowLoop, name, counting)
    return calls


@pytest.mark.parametrize(
    ("events", "sleeps", "woken", "met"),
    [(1, 1, 0, 0), (2, 2, 1, 0), (3, 2, 1, 1), (6, 2, 1, 4), (11, 1, 1, 9), (12, 0, 0, 10)],
    ids=["begun", "one step", "two steps", "five steps", "all steps", "ended"],
)
def test_code_that_repeats_itself_sleeps_for_the_last_event_and_what_comes_next_only(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, events: int, sleeps: int, woken: int, met: int
) -> None:
    history = in_order(begin(ten_steps, always_replay=False))
    history = [*history, RunCompleted(at=history[-1].at, output='"done"')][:events]
    futures, turns = counted(monkeypatch, "create_future"), counted(monkeypatch, "call_soon")
    execution = Execution(defined(ten_steps), history, facts=FACTS, codec=codec)
    seen = len(futures), len(turns)
    execution.close()
    assert seen == (sleeps, woken + 1)  # the first turn begins the task
    assert replayed_both_ways(ten_steps, history, cuts=[events]) == met


def test_an_execution_that_is_stepped_on_meets_every_event_asleep(begin: Begin) -> None:
    history = in_order(begin(ten_steps, always_replay=False))
    execution = Execution(defined(ten_steps), history[:4], facts=FACTS, codec=codec)
    assert execution.journal.meet_at_once is None
    for event in history[4:]:
        execution.step([event])
    assert replayed_once(ten_steps, history, FACTS).items() >= stand(execution).items()
    execution.close()


# --- that it makes no difference -------------------------------------------------------------------


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(program=programs, other=programs, retries=retries, schedule=schedules, data=st.data())
def test_whatever_the_code_and_its_history_both_ways_lead_to_the_same(
    program: Program, other: Program, retries: int, schedule: list[int], data: st.DataObject
) -> None:
    """Also where they do not fit: an event is missing, comes twice or too early, or the code is another's."""
    with OwnedRun(code_of(retries), program, always_replay=False) as run:
        live(run, schedule)
    history, facts = list(run.history), run.facts
    place = data.draw(st.integers(1, len(history) - 1)) if len(history) > 2 else 0
    match data.draw(st.sampled_from(["as it is", "as it is", "missing", "twice", "early", "other"])):
        case "missing" if place:
            del history[place]
        case "twice" if place:
            history.insert(data.draw(st.integers(place, len(history))), history[place])
        case "early" if place > 1:
            history[place - 1], history[place] = history[place], history[place - 1]
        case "other" if facts.generation == 0:
            history[0] = replace(run.beginning, input=codec.encode(["one after another", *program[1:], other]))
    cuts = data.draw(st.sets(st.integers(1, len(history)), min_size=1, max_size=4))
    replayed_both_ways(run.code, history, facts, sorted(cuts | {len(history)}))


# --- what would come first -------------------------------------------------------------------------


async def others_are_ready(ctx: WorkflowContext) -> None:
    asyncio.get_running_loop().call_soon(tell, ctx, "called")
    other = asyncio.create_task(steps(ctx, "a", "b"))
    await steps(ctx, 0, 1, 2)
    await other
    await steps(ctx, 3, 4)


async def has_a_condition(ctx: WorkflowContext) -> None:
    count = 0

    def is_three() -> bool:
        tell(ctx, "asked")
        return count == 3

    async def counts() -> None:
        await ctx.wait_until(is_three)
        await steps(ctx, "counted")

    counting = asyncio.create_task(counts())
    await asyncio.sleep(0)
    for count in range(5):
        await steps(ctx, count)
    await counting
    await steps(ctx, 5, 6)


@pytest.mark.parametrize(
    ("code", "met"),
    [(others_are_ready, 1), (has_a_condition, 1), (unwinds, 30)],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_would_come_first_comes_first(begin: Begin, code: Any, met: int) -> None:
    assert replayed_both_ways(code, in_order(begin(code))) >= met


def test_a_step_that_the_code_is_cancelled_in_is_met_as_a_cancellation(begin: Begin) -> None:
    async def cancels_itself(ctx: WorkflowContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        for one in range(2):
            await steps(ctx, one)
            task.cancel()
            try:
                await steps(ctx, "cancelled")
            except asyncio.CancelledError:
                tell(ctx, task.uncancel())

    run = begin(cancels_itself)
    run.complete(run.activities[0])
    run.happen(run.completed(run.withdrawn[0]))  # it is done all the same
    run.complete(run.activities[0]).end_withdrawn()
    assert replayed_both_ways(cancels_itself, run.history) >= 1


def test_what_was_given_up_before_a_step_is_not_what_the_run_failed_by(begin: Begin) -> None:
    async def gives_up(ctx: WorkflowContext) -> None:
        asked = [asyncio.create_task(steps(ctx, f"given up {one}")) for one in range(2)]
        await steps(ctx, 0)
        for one in asked:
            one.cancel()
            await asyncio.wait([one])
            await steps(ctx, "alone")

    run = begin(gives_up)
    run.complete(run.activities[0]).end_withdrawn().complete(run.activities[1]).end_withdrawn()
    assert replayed_both_ways(gives_up, run.history) == 1


def test_a_handler_that_failed_cancels_whatever_is_asked_for_then(begin: Begin) -> None:
    async def fails(ctx: WorkflowContext) -> None:
        def handler(payload: Any) -> None:
            raise DeclinedError("handler")

        ctx.on_signal("a", handler)
        try:
            await steps(ctx, 0, 1, 2)
        finally:
            await steps(ctx, "finally")

    run = begin(fails)
    run.complete(run.activities[0]).complete(run.activities[0]).signal("a").end_withdrawn()
    run.happen(run.completed(run.withdrawn[0]))
    replayed_both_ways(fails, [*run.history, RunCompleted(at=run.now, output="null")])


def test_what_is_at_work_when_the_workflow_has_ended_hears_of_nothing_more(begin: Begin) -> None:
    async def ends_first(ctx: WorkflowContext) -> None:
        ended = asyncio.Event()

        async def lasts() -> None:
            await ended.wait()
            await steps(ctx, "late", "later")

        lasting = asyncio.create_task(lasts())
        await steps(ctx, 0, 1)
        asyncio.get_running_loop().call_soon(ended.set)
        tell(ctx, lasting.done())

    run = begin(ends_first)
    history = in_order(run)
    late = run.open(3).command.about()  # type: ignore[union-attr]  # an activity
    done = [ActivityCompleted(at=run.now, **late, attempt=1, started_at=run.now, result="1")]
    assert replayed_both_ways(ends_first, [*history, *done, RunCompleted(at=run.now, output="null")]) >= 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("kind", ["asyncio.Task", "loop.create_task"])
def test_a_task_that_is_begun_inside_anothers_turn_waits_until_that_is_over(begin: Begin, kind: str) -> None:
    eagerly: dict[str, Any] = {"eager_start": True}

    async def eager(ctx: WorkflowContext) -> None:
        await steps(ctx, 0)
        this = asyncio.get_running_loop()
        if kind == "asyncio.Task":
            inner: asyncio.Task[None] = asyncio.Task(steps(ctx, "a", "b"), loop=this, **eagerly)
        else:
            inner = this.create_task(steps(ctx, "a", "b"), **eagerly)
        await steps(ctx, 1)
        await inner
        await steps(ctx, 2, 3)

    assert replayed_both_ways(eager, in_order(begin(eager, always_replay=False))) >= 1


def test_turns_of_the_loop_are_counted_from_event_to_event(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(ctx: WorkflowContext) -> None:
        for one in range(5):
            await steps(ctx, one)
            for _ in range(60):
                await asyncio.sleep(0)

    monkeypatch.setattr(loop, "MAX_CALLBACKS_PER_DRAIN", 100)
    replayed_both_ways(busy, in_order(begin(busy, always_replay=False)))
