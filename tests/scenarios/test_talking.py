"""Talking to runs: queries, updates, the custom status, and signals from one run to another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.scenarios.conftest import Ways
from tinyworkflow_core import (
    App,
    QueryError,
    RunClosedError,
    RunNotFoundError,
    UpdateRejectedError,
    WorkflowCancelledError,
    WorkflowContext,
    WorkflowFailedError,
    activity,
    workflow,
)
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[Any] = []


@activity
async def note(what: Any) -> Any:
    LOG.append(what)
    return what


class OverdrawnError(Exception):
    """Importable."""


@workflow
async def account(ctx: WorkflowContext, balance: int = 100) -> int:
    """Answers while it waits for its end."""

    def enough(amount: int) -> None:
        if amount > balance:
            raise OverdrawnError(amount, balance)

    def withdraw(amount: int) -> int:
        nonlocal balance
        balance -= amount
        ctx.set_status({"balance": balance})
        return balance

    async def deposit(amount: int) -> int:
        nonlocal balance
        more = await ctx.execute_activity(note, amount)
        balance += more
        return balance

    def bounce(amount: int) -> None:
        raise OverdrawnError(amount, "bounced")

    async def sneaky() -> Any:
        return await ctx.execute_activity(note, "from a query")

    ctx.on_query("balance", lambda: balance)
    ctx.on_query("balance in", lambda rate, *, cents=False: balance * rate * (100 if cents else 1))
    ctx.on_query("sneaky", sneaky)
    ctx.on_query("sneakier", lambda: ctx.execute_activity(note, "from a query"))
    ctx.on_update("withdraw", withdraw, enough)
    ctx.on_update("deposit", deposit)
    ctx.on_update("bounce", bounce)
    how = await ctx.wait_for_signal("end")
    if how == "fail":
        raise OverdrawnError(balance)
    return balance


async def stored(env: WorkflowEnvironment, run_id: str) -> Any:
    """All that the store holds of the run's history and inbox."""
    state = await env.store.load(run_id)
    assert state is not None
    return [*state.history], [*state.inbox], state.sequence


async def hand_over(env: WorkflowEnvironment, run_id: str, name: str, payload: Any, *, update_id: str) -> None:
    """Send an update without waiting for its answer."""

    async def send(app: App) -> None:
        try:
            await app.client.update_workflow(run_id, name, payload, update_id=update_id, timeout=0)
        except TimeoutError:
            pass

    await env._platform.ask(send)


# --- queries -------------------------------------------------------------------------------------------


async def test_a_run_answers_whether_it_waits_is_put_aside_or_has_ended_and_nothing_is_written(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(account, start_delay="1h")
        assert await env.query(run_id, "balance") == 100  # it has not begun
        await env.advance("1h")
        assert await env.update(run_id, "withdraw", 30) == 70
        before = await stored(env, run_id)
        writes = env.writes
        assert await env.query(run_id, "balance") == 70
        assert await env.query(run_id, "balance in", 2, cents=True) == 14_000
        with pytest.raises(QueryError, match="sneakier"):
            await env.query(run_id, "credit")
        for name in ("sneaky", "sneakier"):
            with pytest.raises(QueryError):
                await env.query(run_id, name)
        with pytest.raises(RunNotFoundError):
            await env.query("nobody", "balance")
        assert env.writes == writes
        assert await stored(env, run_id) == before
        await env.suspend(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "suspended"
        assert await env.query(run_id, "balance") == 70
        await env.resume(run_id)
        await env.signal(run_id, "end")
        assert await env.result(run_id) == 70
        assert await env.query(run_id, "balance") == 70

    await ways(scenario, account)


@pytest.mark.parametrize("how", ["fail", "cancel", "terminate"])
async def test_a_run_that_has_ended_badly_still_answers(how: str) -> None:
    async with WorkflowEnvironment([account]) as env:
        run_id = await env.start(account)
        await env.update(run_id, "withdraw", 1)
        await {
            "fail": lambda: env.signal(run_id, "end", "fail"),
            "cancel": lambda: env.cancel(run_id),
            "terminate": lambda: env.terminate(run_id),
        }[how]()
        with pytest.raises((WorkflowFailedError, WorkflowCancelledError)):
            await env.result(run_id)
        assert await env.query(run_id, "balance") == 99


async def test_a_run_answers_while_its_activity_is_at_work() -> None:
    going, gate = asyncio.Event(), asyncio.Event()

    @activity
    async def slow() -> None:
        going.set()
        await gate.wait()

    @workflow
    async def works(ctx: WorkflowContext) -> str:
        state = "begun"
        ctx.on_query("state", lambda: state)
        await ctx.execute_activity(slow)
        state = "done"
        return state

    async with WorkflowEnvironment([works]) as env:
        run_id = await env.start(works)
        running = asyncio.create_task(env.run())
        await going.wait()
        assert (await env.status(run_id)).status == "running"
        assert await env.query(run_id, "state") == "begun"
        gate.set()
        await running
        assert await env.query(run_id, "state") == "done"


# --- updates -------------------------------------------------------------------------------------------


async def test_an_update_is_carried_out_once_and_gives_what_its_handler_gives(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(account)
        assert await env.update(run_id, "deposit", 5, update_id="a") == 105
        assert await env.update(run_id, "deposit", 5, update_id="a") == 105
        assert await env.update(run_id, "deposit", 7, update_id="b") == 112
        with pytest.raises(OverdrawnError) as raised:
            await env.update(run_id, "bounce", 1, update_id="c")
        assert raised.value.args == (1, "bounced")
        with pytest.raises(OverdrawnError):
            await env.update(run_id, "bounce", 1, update_id="c")
        assert (await env.status(run_id)).status == "waiting"
        await env.signal(run_id, "end")
        assert await env.result(run_id) == 112
        assert await env.update(run_id, "deposit", 5, update_id="a") == 105  # the answer is still there
        with pytest.raises(RunClosedError):
            await env.update(run_id, "deposit", 5, update_id="d")
        if env.plain:
            assert LOG == [5, 7]

    await ways(scenario, account)


async def test_a_rejected_update_leaves_no_trace(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(account)
        await env.run()
        before, writes = await stored(env, run_id), env.writes
        with pytest.raises(UpdateRejectedError) as raised:
            await env.client.update_workflow(run_id, "withdraw", 101)
        assert isinstance(raised.value.__cause__, OverdrawnError)
        with pytest.raises(UpdateRejectedError, match="bounce, deposit, withdraw"):
            await env.client.update_workflow(run_id, "give away", 1)
        assert (await stored(env, run_id), env.writes) == (before, writes)
        assert await env.update(run_id, "withdraw", 100) == 0

    await ways(scenario, account)


async def test_of_two_updates_that_were_both_valid_when_sent_the_second_is_refused_when_its_turn_comes(
    ways: Ways,
) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(account)
        await env.run()
        await hand_over(env, run_id, "withdraw", 60, update_id="1")
        await hand_over(env, run_id, "withdraw", 60, update_id="2")
        assert await env.update(run_id, "withdraw", 60, update_id="1") == 40
        with pytest.raises(UpdateRejectedError) as raised:
            await env.update(run_id, "withdraw", 60, update_id="2")
        assert isinstance(raised.value.__cause__, OverdrawnError)
        assert raised.value.__cause__.args == (60, 40)
        assert await env.query(run_id, "balance") == 40
        await env.signal(run_id, "end")
        assert await env.result(run_id) == 40

    await ways(scenario, account)


async def test_a_validator_sees_what_the_signals_before_its_update_have_led_to(ways: Ways) -> None:
    @workflow
    async def shop(ctx: WorkflowContext) -> list[str]:
        sold: list[str] = []
        stock: set[str] = set()

        def known(item: str) -> None:
            if item not in stock:
                raise ValueError(f"no {item}")

        ctx.on_signal("stock", stock.add)
        ctx.on_signal("recall", stock.discard)
        ctx.on_update("buy", sold.append, known)
        await ctx.wait_for_signal("end")
        return sold

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(shop)
        await env.signal(run_id, "stock", "lamp")
        await env.run()
        await env.signal(run_id, "recall", "lamp", message_id="a")  # both wait when the run is next picked up
        env.clock.move_to(env.clock.now())
        await hand_over(env, run_id, "buy", "lamp", update_id="b")
        with pytest.raises(UpdateRejectedError, match="no lamp"):
            await env.update(run_id, "buy", "lamp", update_id="b")
        await env.signal(run_id, "end")
        assert await env.result(run_id) == []

    await ways(scenario, shop)


async def test_two_updates_at_once_are_both_carried_out_beside_each_other() -> None:
    gate = asyncio.Event()

    @activity(name="note")
    async def meets(what: int) -> int:
        LOG.append(what)
        if len(LOG) == 2:
            gate.set()
        await asyncio.wait_for(gate.wait(), 10)
        return what

    LOG.clear()
    async with WorkflowEnvironment([account], activities={"note": meets.fn}) as env:
        run_id = await env.start(account)
        await env.run()
        both = [asyncio.create_task(env.client.update_workflow(run_id, "deposit", number)) for number in (1, 2)]
        while not all(one.done() for one in both):
            await env.run()
            await asyncio.sleep(0.005)
        assert sorted(one.result() for one in both)[-1] == 103
        assert sorted(LOG) == [1, 2]


async def test_an_update_that_the_run_s_end_overtakes_is_refused_as_closed(ways: Ways) -> None:
    @workflow
    async def slow(ctx: WorkflowContext) -> str:
        async def never() -> None:
            await ctx.wait_for_signal("never")

        ctx.on_update("wait", lambda payload: never())
        await ctx.wait_for_signal("end")
        return "ended"

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(slow)
        await env.run()
        await hand_over(env, run_id, "wait", None, update_id="accepted")
        await env.run()
        await env.signal(run_id, "end")
        await hand_over(env, run_id, "wait", None, update_id="late")
        assert await env.result(run_id) == "ended"
        for update_id in ("accepted", "late", "never sent"):
            with pytest.raises(RunClosedError):
                await env.update(run_id, "wait", None, update_id=update_id)
        state = await stored(env, run_id)
        assert state[1] == []

    await ways(scenario, slow)


async def test_an_update_of_a_run_whose_time_to_begin_has_not_come_is_refused(ways: Ways) -> None:
    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(account, start_delay="1h")
        await env.run()
        with pytest.raises(UpdateRejectedError, match="waits for its time"):
            await env.update(run_id, "withdraw", 1, update_id="a")
        assert await env.query(run_id, "balance") == 100
        await env.advance("1h")
        assert await env.update(run_id, "withdraw", 2, update_id="b") == 98

    await ways(scenario, account)


async def test_the_answer_that_a_run_gives_in_its_last_step_is_still_given(ways: Ways) -> None:
    @workflow
    async def last(ctx: WorkflowContext) -> str:
        done = asyncio.Event()

        async def finish(payload: str) -> str:
            await ctx.execute_activity(note, payload)
            done.set()
            return f"finished {payload}"

        ctx.on_update("finish", finish)
        await done.wait()
        return "over"

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(last)
        assert await env.update(run_id, "finish", "it", update_id="f") == "finished it"
        assert await env.result(run_id) == "over"

    await ways(scenario, last)


# --- status --------------------------------------------------------------------------------------------


async def test_the_custom_status_shows_while_the_run_waits_and_at_its_end_until_it_is_taken_away(ways: Ways) -> None:
    @workflow
    async def shows(ctx: WorkflowContext) -> str:
        while True:
            what = await ctx.wait_for_signal("show")
            ctx.set_status(what)
            if what == "end":
                return "ended"

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(shows)
        for status in (None, {"step": (1, 2)}, None, "end"):
            if status is not None or (await env.status(run_id)).custom_status is not None:
                await env.signal(run_id, "show", status)
            await env.run()
            assert (await env.status(run_id)).custom_status == status
        assert (await env.status(run_id)).status == "completed"

    await ways(scenario, shows)


# --- signals between runs --------------------------------------------------------------------------------


@workflow
async def collects(ctx: WorkflowContext, wanted: int) -> list[Any]:
    return [await ctx.wait_for_signal("item") for _ in range(wanted)]


async def test_a_signal_to_another_run_arrives_exactly_once_and_in_order(ways: Ways) -> None:
    @workflow
    async def sends(ctx: WorkflowContext, target: str) -> str:
        await ctx.signal_run(target, "item", "first")
        async with asyncio.TaskGroup() as group:  # twelve in one write: ten comes after nine
            for number in range(12):
                group.create_task(ctx.signal_run(target, "item", number))
        await ctx.signal_run(target, "item", "last")
        return "sent"

    async def scenario(env: WorkflowEnvironment) -> None:
        target = await env.start(collects, 15)
        run_id = await env.start(sends, target)
        assert await env.result(run_id) == "sent"
        await env.run()
        await env.advance("1m")
        assert (await env.status(target)).status == "waiting"  # for the fifteenth
        await env.signal(target, "item", "mine")
        assert await env.result(target) == ["first", *range(12), "last", "mine"]

    await ways(scenario, sends, collects)


async def test_a_signal_that_nobody_can_receive_raises_in_the_workflow(ways: Ways) -> None:
    @workflow
    async def sends(ctx: WorkflowContext, closed: str) -> list[str]:
        said = []
        for target in ("nobody", closed):
            try:
                await ctx.signal_run(target, "item")
            except (RunNotFoundError, RunClosedError) as error:
                said.append(f"{type(error).__name__} {error.run_id}")
        return said

    async def scenario(env: WorkflowEnvironment) -> None:
        closed = await env.start(collects, 0)
        assert await env.result(closed) == []
        run_id = await env.start(sends, closed)
        assert await env.result(run_id) == ["RunNotFoundError nobody", f"RunClosedError {closed}"]

    await ways(scenario, sends, collects)


async def test_a_run_may_send_itself_a_signal(ways: Ways) -> None:
    @workflow
    async def narcissus(ctx: WorkflowContext) -> list[Any]:
        await ctx.signal_run(ctx.run_id, "item", 1)
        first = await ctx.wait_for_signal("item")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(ctx.wait_for_signal("item"))
            group.create_task(ctx.signal_run(ctx.run_id, "item", 2))
        return [first, waiting.result()]

    async def scenario(env: WorkflowEnvironment) -> None:
        assert await env.result(await env.start(narcissus)) == [1, 2]

    await ways(scenario, narcissus)


async def test_what_is_sent_after_a_retry_arrives_though_another_signal_was_sent_from_that_place_before(
    ways: Ways,
) -> None:
    broken: set[bool] = set()

    @activity(retry_policy=None)
    async def fragile() -> None:
        if broken:
            raise ValueError("broken")

    @workflow
    async def sends(ctx: WorkflowContext, target: str) -> str:
        try:
            await ctx.execute_activity(fragile.options(retry_policy=None))
        except ValueError:
            await ctx.signal_run(target, "item", "it failed")
            raise
        await ctx.signal_run(target, "item", "it worked")
        return "sent"

    async def scenario(env: WorkflowEnvironment) -> None:
        target = await env.start(collects, 2)
        broken.add(True)
        run_id = await env.start(sends, target)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        broken.clear()
        await env.retry(run_id)
        assert await env.result(run_id) == "sent"
        assert await env.result(target) == ["it failed", "it worked"]

    await ways(scenario, sends, collects)
