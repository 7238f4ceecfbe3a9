"""Activity-level policies: how often, how long, how silently, how many times at most, and in which call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from tests.scenarios.conftest import Ways
from tests.stores.conftest import StoreFactory
from tinyworkflow_core import RetryAfter, RetryPolicy, WorkflowContext, activity, activity_context, workflow
from tinyworkflow_core.dispatcher import Perform, Task
from tinyworkflow_core.errors import (
    DefinitionError,
    HeartbeatTimeoutError,
    StepInterruptedError,
    WorkflowFailedError,
)
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[Any] = []
WORLD: list[WorkflowEnvironment] = []
"""The environment of the scenario that runs, for activities that kill it or move its clock."""

STEADY = RetryPolicy(max_retries=10, initial_delay=10, max_delay=3600, jitter=False)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    LOG.clear()
    WORLD.clear()


def begin(env: WorkflowEnvironment) -> None:
    """A scenario is run many times: each time from nothing."""
    LOG.clear()
    WORLD[:] = [env]


class TransientError(Exception):
    pass


# --- at most once ------------------------------------------------------------------------------------


@activity(at_most_once=True)
async def launch(how: str) -> str:
    LOG.append(how)
    if how == "dies":
        WORLD[0].kill()
    if how == "fails":
        raise ValueError("the rocket did not start")
    if how == "hangs":
        await asyncio.Event().wait()
    return "launched"


@activity
async def two_hours_pass() -> None:
    WORLD[0].clock.move_to(WORLD[0].clock.now() + timedelta(hours=2))


@workflow
async def launches(ctx: WorkflowContext, how: str) -> str:
    try:
        return await ctx.execute_activity(launch, how)
    except (StepInterruptedError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


async def test_a_step_that_runs_at_most_once_is_not_begun_again_when_its_process_dies_in_it(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        run_id = await env.start(launches, "dies")
        assert (await env.result(run_id)).startswith(
            "StepInterruptedError: activity 'launch' (step 1) runs at most once"
        )
        assert len(LOG) <= 1  # none: the process died between the note that it begins and the beginning
        if env.plain:
            assert LOG == ["dies"]
        [failed] = await env.events(run_id, "ActivityFailed")
        assert (failed["attempt"], failed["error"]["type"], failed.get("retry_at")) == (1, "StepInterruptedError", None)
        assert len(await env.events(run_id, "ActivityStarted")) == 1

    await ways(scenario, launches)


@pytest.mark.parametrize("how", ["works", "fails"])
async def test_a_step_that_runs_at_most_once_is_never_retried_and_never_run_twice(ways: Ways, how: str) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        run_id = await env.start(launches, how)
        found = await env.result(run_id)
        assert len(LOG) <= 1
        if env.plain or not found.startswith("StepInterruptedError"):
            assert len(LOG) == 1
            assert found == ("launched" if how == "works" else "ValueError: the rocket did not start")
        assert not [one for one in await env.events(run_id, "ActivityFailed") if one.get("retry_at")]

    await ways(scenario, launches)


async def test_a_step_that_runs_at_most_once_and_is_cut_off_by_the_calls_deadline_is_interrupted(
    stores: StoreFactory,
) -> None:
    @workflow
    async def out_of_time(ctx: WorkflowContext) -> str:
        launched, _ = await asyncio.gather(
            ctx.execute_activity(launch, "hangs"), ctx.execute_activity(two_hours_pass), return_exceptions=True
        )
        return type(launched).__name__

    store = stores()
    env = WorkflowEnvironment([out_of_time], store=store)
    begin(env)
    for process in env._processes:
        process.app.request_seconds = 3600
    assert await env.result(await env.start(out_of_time)) == "StepInterruptedError"
    assert LOG == ["hangs"]
    await store.close()


@pytest.mark.parametrize("how", ["fails", "dies"])
async def test_no_retry_of_the_run_begins_a_step_again_that_runs_at_most_once(ways: Ways, how: str) -> None:
    @workflow(retry_policy=RetryPolicy(max_retries=2, initial_delay=1, jitter=False))
    async def insists(ctx: WorkflowContext) -> str:
        return await ctx.execute_activity(launch, how)

    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        run_id = await env.start(insists)
        for _ in range(2):
            with pytest.raises(WorkflowFailedError) as raised:
                await env.result(run_id)
            if env.plain:
                assert len(LOG) == 1
                wanted = ValueError if how == "fails" else StepInterruptedError
                assert isinstance(raised.value.__cause__, wanted)
            assert len(LOG) <= 1
            assert (await env.status(run_id)).retry_count <= 1  # the policy did not try what only ends the same way
            await env.retry(run_id)

    await ways(scenario, insists)


async def test_a_sibling_that_runs_at_most_once_and_was_cancelled_is_interrupted_when_the_run_is_retried(
    ways: Ways,
) -> None:
    @activity(retry_policy=RetryPolicy(max_retries=0))
    async def fragile() -> str:
        LOG.append("fragile")
        if "mended" not in LOG:
            raise TransientError("not now")
        return "fine"

    @workflow
    async def both(ctx: WorkflowContext) -> list[Any]:
        hanging = asyncio.create_task(ctx.execute_activity(launch, "hangs"))
        try:
            return [await ctx.execute_activity(fragile), await hanging]
        except StepInterruptedError as error:
            return [type(error).__name__]
        finally:
            hanging.cancel()
            await asyncio.wait([hanging])

    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        run_id = await env.start(both)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        LOG.append("mended")
        await env.retry(run_id)
        assert await env.result(run_id) == ["StepInterruptedError"]
        assert LOG.count("hangs") <= 1

    await ways(scenario, both)


# --- heartbeats --------------------------------------------------------------------------------------


def _rows() -> Any:
    context = activity_context()
    if context.last_heartbeat is not None:
        return context.last_heartbeat
    for row in range(3):
        context.heartbeat({"row": row, "at": datetime(2026, 1, 1 + row)})
    return None


@activity(heartbeat_timeout=0.1, retry_policy=STEADY)
async def copies() -> Any:
    if (found := _rows()) is None:
        await asyncio.Event().wait()
    return found


@activity(name="copies", heartbeat_timeout=0.1, retry_policy=STEADY)
def copies_in_a_thread() -> Any:
    if (found := _rows()) is None:
        deadline = time.monotonic() + 20
        while not activity_context().cancelled:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    return found


@pytest.mark.parametrize("fn", [copies, copies_in_a_thread], ids=["async", "sync"])
async def test_an_attempt_whose_heartbeats_stop_is_retried_and_the_next_one_knows_how_far_it_came(
    ways: Ways, fn: Any
) -> None:
    @workflow
    async def copying(ctx: WorkflowContext) -> Any:
        return await ctx.execute_activity(fn)

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(copying)
        began = time.monotonic()
        assert await env.result(run_id) == {"row": 2, "at": datetime(2026, 1, 3)}
        if env.plain:
            assert time.monotonic() - began < 15  # before the thread gives up by itself
        # On a busy machine an attempt may not even get its turn in 0.1 s: there is another one then.
        failed = next(one for one in await env.events(run_id, "ActivityFailed") if one.get("heartbeat"))
        assert failed["error"]["type"] == "HeartbeatTimeoutError"
        assert "activity 'copies' gave no heartbeat for 0.1 s" in failed["error"]["message"]
        assert failed["retry_at"] == _later(failed["at"], 10 * 2 ** (failed["attempt"] - 1))
        assert failed["heartbeat"]["row"] == 2

    await ways(scenario, copying)


async def test_the_last_silent_attempt_raises_into_the_workflow_and_is_a_timeout_too(stores: StoreFactory) -> None:
    @workflow
    async def hears_of_it(ctx: WorkflowContext) -> str:
        once = RetryPolicy(max_retries=0)
        with pytest.raises(TimeoutError) as raised:
            await ctx.execute_activity(copies.options(retry_policy=once, heartbeat_timeout=0.05))
        assert isinstance(raised.value, HeartbeatTimeoutError)
        return str(raised.value)

    store = stores()
    env = WorkflowEnvironment([hears_of_it], store=store)
    found = await env.result(await env.start(hears_of_it))
    assert found == "activity 'copies' gave no heartbeat for 0.05 s (heartbeat_timeout)"
    await store.close()


@activity
async def sweeps(rows: int) -> int:
    context = activity_context()
    first = context.last_heartbeat or 0
    LOG.append((context.attempt, first))
    for row in range(first, rows):
        context.heartbeat(row + 1)
        if row == WALL[0]:
            await asyncio.sleep(0)  # so that the heartbeat is heard
            WALL[0] += 2 if SECONDS_LEFT[0] == 100 else 100
            WORLD[0].clock.move_to(WORLD[0].clock.now() + timedelta(seconds=SECONDS_LEFT[0]))
            raise_attention()
            await asyncio.Event().wait()
    return rows


WALL = [1]
"""After this row the call's time is over."""
SECONDS_LEFT = [100]


def raise_attention() -> None:
    """The call looks at its clock when something happens, or when real time has passed."""
    for process in WORLD[0]._processes:
        for attention in process.app._advancer._held.values():
            attention.call()


@pytest.mark.parametrize("share", ["all of the call", "half of the call"])
async def test_an_attempt_cut_off_by_the_calls_deadline_hands_its_progress_on(stores: StoreFactory, share: str) -> None:
    @workflow
    async def sweeping(ctx: WorkflowContext) -> int:
        if share == "half of the call":
            await ctx.execute_activity(half_passes)
        return await ctx.execute_activity(sweeps, 6)

    @activity
    async def half_passes() -> None:
        WORLD[0].clock.move_to(WORLD[0].clock.now() + timedelta(seconds=50))

    WALL[0] = 1
    SECONDS_LEFT[0] = 50 if share == "half of the call" else 100
    store = stores()
    env = WorkflowEnvironment([sweeping], store=store)
    begin(env)
    for process in env._processes:
        process.app.request_seconds = 100
    run_id = await env.start(sweeping)
    assert await env.result(run_id) == 6
    failed = [(one["error"]["type"], one["heartbeat"]) for one in await env.events(run_id, "ActivityFailed")]
    if share == "half of the call":
        assert LOG == [(1, 0), (1, 2)]  # it was only cut off: the same attempt goes on
        assert failed == []
    else:
        assert LOG == [(1, 0), (2, 2), (3, 4), (4, 6)]
        assert failed == [("TimeoutError", 2), ("TimeoutError", 4), ("TimeoutError", 6)]
    await store.close()


async def a_third_of_the_lease_passes(seconds: float = 10) -> None:
    """Until the holder of the run has renewed its lease, and written what comes with that."""
    env = WORLD[0]
    run_id = activity_context().run_id
    before = await env.store.get(run_id)
    env.clock.move_to(env.clock.now() + timedelta(seconds=seconds))
    raise_attention()

    async def is_renewed() -> bool:
        run = await env.store.get(run_id)
        return run is not None and before is not None and run.lease_until != before.lease_until

    await eventually(is_renewed)
    await asyncio.sleep(0.05)  # what goes with the renewal is written right after it


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=0))
async def beats(how: str) -> str:
    context = activity_context()
    LOG.append(context.last_heartbeat)
    if how == "dies each time":
        context.heartbeat(len(LOG))
        await a_third_of_the_lease_passes()
        WORLD[0].kill()
    elif how == "at the first renewal":
        context.heartbeat("early")
        await a_third_of_the_lease_passes(9)
    elif context.attempt == 1:
        context.heartbeat("first")
        await asyncio.sleep(0)
        context.heartbeat("last")
        raise TransientError("again")
    else:
        await a_third_of_the_lease_passes()
    return "done"


@workflow
async def beating(ctx: WorkflowContext, how: str) -> str:
    return await ctx.execute_activity(beats, how)


async def test_heartbeats_are_written_from_the_first_renewal_of_the_lease_on(
    stores: StoreFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores()
    env = WorkflowEnvironment([beating], store=store)
    begin(env)
    load = store.load

    async def slow_load(run_id: str) -> Any:
        env.clock.move_to(env.clock.now() + timedelta(seconds=1))  # the lease is that old when the call begins
        return await load(run_id)

    run_id = await env.start(beating, "at the first renewal")
    monkeypatch.setattr(store, "load", slow_load)
    await env.run()
    monkeypatch.setattr(store, "load", load)
    assert [one["details"] for one in await env.events(run_id, "ActivityHeartbeat")] == ["early"]
    await store.close()


async def test_what_an_earlier_attempt_had_said_before_its_last_words_is_not_written_later(
    stores: StoreFactory,
) -> None:
    store = stores()
    env = WorkflowEnvironment([beating], store=store)
    begin(env)
    run_id = await env.start(beating, "fails once")
    assert await env.result(run_id) == "done"
    assert LOG == [None, "last"]
    assert await env.events(run_id, "ActivityHeartbeat") == []  # the second attempt has said nothing yet
    [failed] = await env.events(run_id, "ActivityFailed")
    assert failed["heartbeat"] == "last"
    await store.close()


async def test_a_step_that_kills_its_process_each_time_ends_the_run_though_it_gave_heartbeats(
    stores: StoreFactory,
) -> None:
    store = stores()
    env = WorkflowEnvironment([beating], store=store)
    begin(env)
    run_id = await env.start(beating, "dies each time")
    with pytest.raises(WorkflowFailedError, match="died 6 times in a row"):
        await env.result(run_id)
    assert len(LOG) == 6
    assert LOG[1:] == list(range(1, 6))
    await store.close()


# --- retries and totals, per call ----------------------------------------------------------------------


@activity
async def fragile(errors: list[str]) -> str:
    context = activity_context()
    LOG.append((context.attempt, context.idempotency_key))
    kind = errors[min(context.attempt, len(errors)) - 1]
    if kind == "transient":
        raise TransientError("again, please")
    if kind == "value":
        raise ValueError("no use")
    if kind == "later":
        raise RetryAfter(120, "the service is busy")
    return "done"


POLICIES: dict[str, tuple[dict[str, Any], list[str], list[float | None], str]] = {
    "retry_on fits": ({"retry_on": TransientError}, ["transient", "ok"], [10], "done"),
    "retry_on fits no more": ({"retry_on": TransientError}, ["transient", "value"], [10, None], "ValueError"),
    "never_on wins": ({"never_on": (ValueError,)}, ["transient", "value"], [10, None], "ValueError"),
    "used up": ({"max_retries": 2}, ["transient"], [10, 20, None], "TransientError"),
    "total": ({"total": 35}, ["transient"], [10, 20, None], "TransientError"),
    "total is to the second": ({"total": 30}, ["transient"], [10, 20, None], "TransientError"),
    "RetryAfter": ({"max_retries": 1}, ["later", "ok"], [120], "done"),
    "RetryAfter counts": ({"max_retries": 1}, ["later", "later"], [120, None], "RetryAfter"),
    "RetryAfter past the total": ({"total": "1m"}, ["later"], [None], "RetryAfter"),
}


@pytest.mark.parametrize("case", POLICIES)
async def test_a_policy_given_for_one_call_decides_which_attempts_there_are(ways: Ways, case: str) -> None:
    settings, errors, delays, wanted = POLICIES[case]
    policy = RetryPolicy(**({"max_retries": 10, "initial_delay": 10, "max_delay": 3600, "jitter": False} | settings))

    @workflow
    async def one_call(ctx: WorkflowContext) -> str:
        try:
            return await ctx.execute_activity(fragile.options(retry_policy=policy), errors)
        except Exception as error:
            return type(error).__name__

    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        run_id = await env.start(one_call)
        assert await env.result(run_id) == wanted
        await _assert_attempts(env, run_id, delays)
        assert {key for _, key in LOG} == {f"{run_id}/0/1"}
        if env.plain:
            assert len(LOG) == len(delays) + (wanted == "done")

    await ways(scenario, one_call)


async def test_the_total_timeout_of_a_call_bounds_its_attempts_and_the_pauses_between_them(ways: Ways) -> None:
    @workflow
    async def limited(ctx: WorkflowContext) -> list[str]:
        options = fragile.options(retry_policy=STEADY, total_timeout="35s")
        unlimited = fragile.options(retry_policy=STEADY)
        found = []
        for one in (options, unlimited):
            try:
                found.append(await ctx.execute_activity(one, ["transient"] * 3 + ["ok"]))
            except TransientError:
                found.append("given up")
        return found

    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        run_id = await env.start(limited)
        assert await env.result(run_id) == ["given up", "done"]
        await _assert_attempts(env, run_id, [10, 20, None, 10, 20, 40])

    await ways(scenario, limited)


async def test_options_hold_for_their_call_alone(ways: Ways) -> None:
    @activity(retry_policy=RetryPolicy(max_retries=0))
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return activity_context().idempotency_key

    @workflow
    async def one_each(ctx: WorkflowContext) -> list[str]:
        found = await asyncio.gather(
            ctx.execute_activity(slow.options(timeout=0.05), 30),
            ctx.execute_activity(slow, 0.1),
            return_exceptions=True,
        )
        return [str(one) for one in found]

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(one_each)
        assert await env.result(run_id) == ["activity 'slow' timed out after 0.05 s", f"{run_id}/0/2"]

    await ways(scenario, one_each)


async def _assert_attempts(env: WorkflowEnvironment, run_id: str, delays: list[float | None]) -> None:
    failed = await env.events(run_id, "ActivityFailed")
    assert [one.get("retry_at") for one in failed] == [
        None if delay is None else _later(one["at"], delay) for one, delay in zip(failed, delays, strict=True)
    ]


def _later(at: Any, seconds: float) -> Any:
    then = datetime.fromisoformat(at) + timedelta(seconds=seconds)
    return then.isoformat()


# --- calls of their own ------------------------------------------------------------------------------


@activity(run_on="queue", timeout="1m", retry_policy=STEADY)
async def far_away(what: str) -> Any:
    context = activity_context()
    LOG.append((what, context.attempt, context.idempotency_key))
    if what == "fails once" and context.attempt == 1:
        raise TransientError("again, please")
    if what == "fails":
        raise ValueError("no use")
    if what == "too large":
        return '"' * 600_000
    return {"what": what, "tuple": (1, 2)}


def losing(env: WorkflowEnvironment, lost: Callable[[Perform], bool]) -> None:
    """From now on the calls for which `lost(call)` says so never come."""
    ask_for = env._world.ask_for

    def choose(task: Task, at: datetime) -> None:
        if not (isinstance(task, Perform) and lost(task)):
            ask_for(task, at)

    env._world.ask_for = choose  # type: ignore[method-assign]  # the platform of this environment loses calls


def keeping_back(env: WorkflowEnvironment, wanted: Callable[[Perform], bool] = lambda call: True) -> list[Perform]:
    """From now on the platform does not make these calls; what it was asked for."""
    kept: list[Perform] = []

    def keep(call: Perform) -> bool:
        if wanted(call):
            kept.append(call)
        return wanted(call)

    losing(env, keep)
    return kept


@workflow
async def far(ctx: WorkflowContext, what: str) -> Any:
    return await ctx.execute_activity(far_away, what)


@workflow
async def near(ctx: WorkflowContext, what: str) -> Any:
    return await ctx.execute_activity(far_away.options(run_on="here"), what)


@pytest.mark.parametrize("what", ["works", "fails once"])
async def test_an_activity_in_a_call_of_its_own_gives_what_it_gives_here(ways: Ways, what: str) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        here, away = await env.start(near, what), await env.start(far, what)
        assert await env.result(here) == await env.result(away) == {"what": what, "tuple": (1, 2)}
        assert {key for _, _, key in LOG} == {f"{here}/0/1", f"{away}/0/1"}
        ends = [[one["attempt"] for one in await env.events(run, "ActivityCompleted")] for run in (here, away)]
        if not env.crashed:  # a call that nobody makes any more is one attempt
            assert ends[0] == ends[1] == [2 if what == "fails once" else 1]
        failed = await env.events(away, "ActivityFailed")
        for one in failed:
            late = 10 if one["error"]["type"] == "TransientError" else 0
            assert one["retry_at"] == _later(one["at"], late)
        if env.plain:
            assert len(LOG) == (4 if what == "fails once" else 2)
            assert len(failed) == (what == "fails once")

    await ways(scenario, far, near)


@pytest.mark.parametrize("what", ["fails", "too large"])
async def test_the_failure_of_a_call_of_its_own_reaches_the_workflow(ways: Ways, what: str) -> None:
    @workflow
    async def catching(ctx: WorkflowContext) -> str:
        once = far_away.options(retry_policy=RetryPolicy(max_retries=1 if what == "too large" else 0))
        try:
            await ctx.execute_activity(once, what)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "?"

    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        run_id = await env.start(catching)
        found = await env.result(run_id)
        if not env.crashed:
            said = {"fails": "ValueError: no use", "too large": "PayloadTooLargeError: result of activity 'far_away'"}
            assert found.startswith(said[what])
            assert len(await env.events(run_id, "ActivityFailed")) == 1
        if env.plain:
            assert len(LOG) == 1

    await ways(scenario, catching)


async def test_a_call_that_is_lost_is_found_by_its_deadline_and_made_again(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        losing(env, lambda call: call.attempt <= 2)
        run_id = await env.start(far, "works")
        await env.advance("3m")
        assert (await env.result(run_id))["what"] == "works"
        failed = await env.events(run_id, "ActivityFailed")
        assert [(one["attempt"], one["error"]["type"]) for one in failed][:2] == [
            (1, "TimeoutError"),
            (2, "TimeoutError"),
        ]
        assert "activity 'far_away': nothing was heard of attempt 1 in time" in failed[0]["error"]["message"]
        scheduled = [one for one in await env.events(run_id, "ActivityScheduled") if one.get("deadline")]
        assert all(one["deadline"] == _later(one["at"], 90) for one in scheduled)
        assert len(scheduled) == len(failed) + 1

    await ways(scenario, far)


async def test_when_every_process_and_call_is_lost_the_attempt_is_made_again_after_its_deadline(
    stores: StoreFactory,
) -> None:
    store = stores()
    env = WorkflowEnvironment([far], store=store)
    run_id = await env.start(far, "works")
    await env._processes[0].app.advance(run_id)
    env.lose_everything()
    await env.advance("89s")
    assert LOG == []
    await env.advance("1s")
    assert [attempt for _, attempt, _ in LOG] == [2]
    assert (await env.status(run_id)).status == "completed"
    await store.close()


async def test_fifty_calls_of_their_own_give_fifty_results_in_order(ways: Ways) -> None:
    @workflow
    async def fan_out(ctx: WorkflowContext, width: int) -> list[Any]:
        return await ctx.execute_parallel(*((far_away, (str(number),)) for number in range(width)))

    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        width = 50 if not env._world.crash_after else 4
        run_id = await env.start(fan_out, width)
        assert [one["what"] for one in await env.result(run_id)] == [str(number) for number in range(width)]
        completed = await env.events(run_id, "ActivityCompleted")
        assert sorted(one["id"] for one in completed) == list(range(1, width + 1))
        if env.plain:
            assert len(LOG) == width

    await ways(scenario, fan_out)


@workflow
async def steered(ctx: WorkflowContext) -> Any:
    try:
        return await ctx.execute_activity(far_away, "works")
    finally:
        await ctx.execute_activity(two_hours_pass.options(name="cleanup"))


@pytest.mark.parametrize("order", ["outcome first", "outcome last"])
async def test_a_run_that_is_cancelled_while_a_call_is_out_ends_without_it(ways: Ways, order: str) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        kept = keeping_back(env)
        run_id = await env.start(steered)
        await env.run()
        if order == "outcome first":
            await _perform(env, kept)
        await env.cancel(run_id)
        await env.run()
        if order == "outcome last":
            await _perform(env, kept)
            await env.run()
        assert (await env.status(run_id)).status == "cancelled"
        done = [one["name"] for one in await env.events(run_id, "ActivityCompleted")]
        withdrawn = [one["name"] for one in await env.events(run_id, "ActivityCancelled")]
        if order == "outcome last" or (env.crashed and "far_away" not in done):
            assert (done, withdrawn) == (["cleanup"], ["far_away"])
        else:  # the outcome was there before: the cancellation meets what comes after it
            assert (done, withdrawn) == (["far_away"], ["cleanup"])

    await ways(scenario, steered)


async def _perform(env: WorkflowEnvironment, calls: list[Perform]) -> None:
    """Make the calls that were kept back, as the platform would."""
    for call in dict.fromkeys(calls):
        await env._platform.ask(lambda app, call=call: app.perform(call))  # type: ignore[misc]  # bound at once


async def test_an_outcome_that_comes_while_the_run_is_suspended_counts_when_it_goes_on(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        kept = keeping_back(env, lambda call: call.attempt == 1)
        run_id = await env.start(far, "works")
        await env.run()
        await env.suspend(run_id)
        await env.run()
        await _perform(env, kept)
        await env.advance("1d")  # long past the deadline
        assert (await env.status(run_id)).status == "suspended"
        await env.resume(run_id)
        assert (await env.result(run_id))["what"] == "works"
        if not env.crashed:  # else the call may never have been asked for
            assert await env.events(run_id, "ActivityFailed") == []
        assert len(await env.events(run_id, "ActivityCompleted")) == 1

    await ways(scenario, far)


async def test_an_outcome_for_a_run_that_was_terminated_is_dropped(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        kept = keeping_back(env)
        run_id = await env.start(far, "works")
        await env.run()
        await env.terminate(run_id)
        await env.run()
        await _perform(env, kept)
        await env.advance("1h")
        assert (await env.status(run_id)).status == "terminated"
        assert LOG == []  # who performs looks first
        assert await env.store.inbox(run_id) == []

    await ways(scenario, far)


async def test_an_outcome_for_an_earlier_generation_is_ignored(ways: Ways) -> None:
    @workflow
    async def anew(ctx: WorkflowContext, generation: int) -> Any:
        away = asyncio.create_task(ctx.execute_activity(far_away, f"generation {generation}"))
        if generation == 0:
            await ctx.wait_for_signal("on")
            ctx.continue_as_new(1)
        return await away

    async def scenario(env: WorkflowEnvironment) -> None:
        begin(env)
        old = keeping_back(env, lambda call: call.generation == 0)
        run_id = await env.start(anew, 0)
        await env.run()
        await env.signal(run_id, "on")
        await env.run()
        await _perform(env, old)
        assert (await env.result(run_id))["what"] == "generation 1"
        assert {what for what, _, _ in LOG} == {"generation 1"}

    await ways(scenario, anew)


async def test_at_most_once_and_a_call_of_its_own_are_refused_together(stores: StoreFactory) -> None:
    with pytest.raises(DefinitionError, match="at_most_once cannot be kept with run_on='queue'"):
        launch.options(run_on="queue")

    @workflow
    async def tries(ctx: WorkflowContext) -> str:
        try:
            await ctx.execute_activity(far_away.options(at_most_once=True), "x")
        except DefinitionError:
            return "refused"
        return "?"

    store = stores()
    env = WorkflowEnvironment([tries], store=store)
    assert await env.result(await env.start(tries)) == "refused"
    await store.close()
