"""Code that is handed its next event without being put to sleep, and histories that do not fit it, or not any more."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.engine import history_builder
from tests.engine.activities import DeclinedError, echo
from tests.engine.both_ways import GONE, in_order, replayed_both_ways, replayed_once, steps, tell, unwinds
from tests.engine.history_builder import FACTS, Begin, codec, stored
from tests.engine.owned_run import OwnedRun
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.history import ActivityCompleted, SignalReceived
from tinyworkflow_core.engine.replay import Execution
from tinyworkflow_core.serialization import Codec


def test_new_code_is_told_of_patches_at_every_cut_what_it_would_be_told_awake(begin: Begin) -> None:
    async def patched(ctx: WorkflowContext) -> None:
        for one in range(5):
            await steps(ctx, "new" if ctx.patched(f"p{one}") else 1)

    async def old(ctx: WorkflowContext) -> None:
        await steps(ctx, 1, 1, 1, 1, 1)

    assert replayed_both_ways(patched, in_order(begin(old))) == 10
    assert replayed_both_ways(patched, in_order(begin(patched))) == 0  # the mark of each patch comes first


@pytest.mark.parametrize("changed", ["other arguments", "another timer", "a step less", "a dropped patch"])
def test_a_difference_is_noticed_at_the_same_step_and_line(begin: Begin, changed: str) -> None:
    def version(now: str) -> Any:
        async def code(ctx: WorkflowContext) -> None:
            await steps(ctx, 0)
            if now == "a dropped patch":
                ctx.deprecate_patch("p")
            this = asyncio.get_running_loop()
            rung = this.create_future()
            this.call_later(70 if now == "another timer" else 60, rung.set_result, None)
            await steps(ctx, *("other", 2) if now == "other arguments" else (1, 2))
            await rung
            await steps(ctx, *() if now == "a step less" else (3, 4))

        return code

    history = in_order(begin(version("")))
    assert replayed_both_ways(version(""), history) >= 10
    history = [replace(history[0], fingerprint="of before"), *history[1:]]  # type: ignore[call-arg]
    replayed_both_ways(version(changed), history)
    assert replayed_once(version(changed), history, FACTS)["outcome"][0] == "mismatch"


def test_void_events_are_passed_over_before_what_counts(begin: Begin) -> None:
    async def fails_beside(ctx: WorkflowContext) -> None:
        beside = asyncio.create_task(ctx.execute_activity(echo, "beside"))
        await asyncio.sleep(0)
        await steps(ctx, 0, 1)
        await beside

    with OwnedRun(fails_beside) as run:
        beside, *_ = run.activities
        run.later(5).fail(beside, DeclinedError("beside"))
        run.complete(run.activities[0]).complete(run.activities[0]).end().retry()
        assert replayed_both_ways(run.code, in_order(run)) >= 1


def test_a_fork_puts_off_what_it_waits_for_by_the_same_time() -> None:
    with OwnedRun(unwinds, always_replay=False) as run:
        in_order(run)
        with run.later(100).forked(4, "run-2") as fork:
            assert fork.open(1).delay == fork.history[-1].at - fork.history[3].at
            assert replayed_both_ways(run.code, fork.history, fork.facts) >= 3


def test_code_that_is_put_away_while_it_repeats_itself_is_handed_nothing(begin: Begin) -> None:
    async def swallows(ctx: WorkflowContext) -> None:
        for one in range(200):  # more often than a run that is put away refuses
            try:
                await ctx.execute_activity(echo, 0)
            except BaseException:
                pass
            else:
                tell(ctx, one)

    run = begin(swallows, always_replay=False)
    unreadable = SignalReceived(at=run.now, message_id="m", name="a", payload=GONE)
    history = [*run.history, unreadable, *in_order(run)[1:4]]
    replayed_both_ways(swallows, history)
    assert "gone" in replayed_once(swallows, history, FACTS)["unreadable"]


def test_a_result_that_cannot_be_read_any_more_parks_the_run_at_the_same_place(begin: Begin) -> None:
    history = in_order(begin(unwinds))
    place = next(i for i, event in enumerate(history) if isinstance(event, ActivityCompleted) and event.id == 3)
    history[place] = replace(history[place], result=GONE)  # type: ignore[call-arg]
    assert replayed_both_ways(unwinds, history) >= 1
    assert "gone" in replayed_once(unwinds, history, FACTS)["unreadable"]


def test_sealed_payloads_make_no_difference(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reversed:
        def seal(self, text: str) -> str:
            return f"key:{text[::-1]}"

        def unseal(self, text: str) -> str:
            return text.removeprefix("key:")[::-1]

    plain = in_order(begin(unwinds))
    monkeypatch.setattr(history_builder, "codec", Codec(payload_codec=Reversed()))
    sealed = in_order(begin(unwinds))
    assert "key:" in str(sealed)
    assert replayed_both_ways(unwinds, sealed) == replayed_both_ways(unwinds, plain) >= 30


def test_only_what_is_asked_for_after_the_last_event_is_put_off_by_how_late_the_call_is(begin: Begin) -> None:
    async def asks_for_timers(ctx: WorkflowContext) -> None:
        await ctx.wait_for_signal("a")
        for one in range(4):
            asyncio.get_running_loop().call_later(60, tell, ctx, one)
            await steps(ctx, one)

    run = begin(asks_for_timers).signal("a")
    for _ in range(3):
        run.complete(run.activities[0])
    late = run.now + timedelta(seconds=0.5)
    again = Execution(run.code, stored(run.history), facts=FACTS, codec=codec, now=late)
    assert [one.delay.total_seconds() for one in again.journal.open.values() if one.due] == [0, 0, 0, 0.5]
    again.close()
