"""Queries, updates, status, and what of them crosses the border to the next generation."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.activities import DeclinedError, inc
from tests.engine.history_builder import Begin, LiveRun, codec, replayed, started
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.generations import MAX_ANSWERS, MAX_ANSWERS_SIZE, MAX_SEEN
from tinyworkflow_core.engine.history import (
    CancelRequested,
    Event,
    SignalReceived,
    UpdateAccepted,
    UpdateCompleted,
    UpdateRejected,
)
from tinyworkflow_core.engine.replay import Blocked, ContinuedAsNew
from tinyworkflow_core.errors import QueryError
from tinyworkflow_core.serialization import Failure


def ask(run: LiveRun, name: str, *args: Any, **kwargs: Any) -> Any:
    """The answer to a query, of the live run and of its replay."""
    return codec.decode(run.execution.query(name, args, kwargs))


def update(run: LiveRun, name: str, payload: Any = None, *, update_id: str = "u") -> LiveRun:
    return run.happen(accepted(run, name, payload, update_id=update_id))


def accepted(run: LiveRun, name: str, payload: Any = None, *, update_id: str = "u") -> UpdateAccepted:
    return UpdateAccepted(at=run.now, message_id=f"update/{update_id}", name=name, payload=codec.encode(payload))


def answers(run: LiveRun) -> dict[str, Any]:
    """Those that are given and not recorded: a result, or the type of the error."""
    return {
        one.message_id.removeprefix("update/"): one.error.type if one.error else codec.decode(one.result or "")
        for one in run.execution.answers
    }


def record_answers(run: LiveRun) -> LiveRun:
    said = [
        UpdateCompleted(at=run.now, message_id=one.message_id, result=one.result, error=one.error)
        for one in run.execution.answers
    ]
    return run.happen(*said)


# --- queries ---------------------------------------------------------------------------------------


async def answering(ctx: WorkflowContext) -> str:
    state: dict[str, Any] = {"seen": []}
    ctx.on_query("state", lambda: state)
    ctx.on_query("of", lambda key, default=None, *, times=1: [state.get(key, default)] * times)
    while True:
        signal = await ctx.wait_for_signal("go")
        if signal == "fail":
            raise DeclinedError("asked to")
        if signal is None:
            return "done"
        state["seen"].append(signal)


def test_a_query_sees_the_state_as_the_history_has_it(begin: Begin) -> None:
    run = begin(answering)
    assert ask(run, "state") == {"seen": []}
    run.signal("go", 1).signal("go", 2)
    assert ask(run, "state") == {"seen": [1, 2]}
    assert ask(run, "of", "seen", times=2) == [[1, 2], [1, 2]]
    assert ask(run, "of", "missing", "given") == ["given"]


@pytest.mark.parametrize("last", [None, "fail"])
def test_a_run_that_has_ended_still_answers(begin: Begin, last: Any) -> None:
    run = begin(answering).signal("go", 1).signal("go", last)
    assert ask(run, "state") == {"seen": [1]}


def test_what_a_query_returned_is_a_copy(begin: Begin) -> None:
    run = begin(answering).signal("go", 1)
    ask(run, "state")["seen"].append("mine")
    assert ask(run, "state") == {"seen": [1]}


def test_an_unknown_query_is_answered_with_the_names_of_those_there_are(begin: Begin) -> None:
    with pytest.raises(QueryError, match=r"no query 'stat'.*of, state$"):
        ask(begin(answering), "stat")


async def meddling(ctx: WorkflowContext) -> Any:
    """Its queries do what they must not."""
    event = asyncio.Event()
    wait = asyncio.create_task(event.wait())
    await asyncio.sleep(0)

    async def later() -> int:
        return await ctx.execute_activity(inc, 1)

    for name, query in {
        "async": later,
        "step": lambda: ctx.execute_activity(inc, 1),
        "child": lambda: ctx.start_child("other"),
        "task": lambda: bool(asyncio.create_task(later())),
        "ensured": lambda: bool(asyncio.ensure_future(ctx.execute_activity(inc, 1))),
        "timer": lambda: bool(asyncio.get_running_loop().call_later(5, print)),
        "soon": lambda: bool(asyncio.get_running_loop().call_soon(print)),
        "wake": event.set,
        "chance": lambda: ctx.random().random(),
        "uuid": ctx.uuid4,
        "status": lambda: ctx.set_status("seen"),
        "undo": lambda: ctx.add_compensation(inc, 1),
        "handler": lambda: ctx.on_signal("other", print),
        "http": lambda: ctx.call_http("GET", "http://example.com"),
    }.items():
        ctx.on_query(name, query)
        ctx.on_update(name, print, lambda payload, query=query: query())  # type: ignore[misc]  # bound per name
    got = await ctx.wait_for_signal("go")
    wait.cancel()
    return [got, ctx.random().random(), str(ctx.uuid4())]


MEDDLING = (
    "async", "step", "child", "task", "ensured", "timer", "soon", "wake", "chance", "uuid", "status", "undo", "handler",
    "http",
)  # fmt: skip


@pytest.mark.parametrize("name", MEDDLING)
def test_a_query_that_asks_for_something_is_refused_and_asks_for_nothing(begin: Begin, name: str) -> None:
    run = begin(meddling)
    position = run.execution.journal.position
    with pytest.raises(QueryError):
        ask(run, name)
    gc.collect()  # what was made for it and never awaited would be complained of here
    assert (run.execution.journal.position, run.commands) == (position, [])


@pytest.mark.parametrize("name", [one for one in MEDDLING if one != "wake"])  # `set` has set it before it is refused
def test_a_validator_that_asks_for_something_leaves_the_live_run_where_its_replay_stands(
    begin: Begin, name: str
) -> None:
    run = begin(meddling)
    with pytest.raises(QueryError):
        run.execution.validate_update(name, "null")
    assert run.signal("go", 1).result[0] == 1  # the builder compares it with its replay


def test_a_handler_asks_again_once_the_query_is_over(begin: Begin) -> None:
    async def both(ctx: WorkflowContext) -> int:
        ctx.on_query("bad", ctx.random)
        await ctx.wait_for_signal("go")
        return await ctx.execute_activity(inc, 1)

    run = begin(both)
    with pytest.raises(QueryError):
        ask(run, "bad")
    run.signal("go")
    assert run.complete(run.activities[0], 2).result == 2


def test_what_a_query_handler_raises_is_raised(begin: Begin) -> None:
    async def raising(ctx: WorkflowContext) -> None:
        def query() -> None:
            raise DeclinedError("no", 5)

        ctx.on_query("q", query)
        await ctx.wait_for_signal("go")

    with pytest.raises(DeclinedError):
        ask(begin(raising), "q")


# --- updates ---------------------------------------------------------------------------------------


async def account(ctx: WorkflowContext, balance: int = 100) -> int:
    """Withdrawals at once, deposits by way of an activity."""

    def enough(amount: int) -> None:
        if amount > balance:
            raise ValueError(f"only {balance} left")

    def withdraw(amount: int) -> int:
        nonlocal balance
        balance -= amount
        return balance

    async def deposit(amount: int) -> int:
        nonlocal balance
        more = await ctx.execute_activity(inc, amount)
        balance += more
        return balance

    def bounce(amount: int) -> None:
        raise DeclinedError("account", amount)

    def next_one(amount: int) -> None:
        ctx.continue_as_new(amount)

    ctx.on_query("balance", lambda: balance)
    ctx.on_update("withdraw", withdraw, enough)
    ctx.on_update("deposit", deposit)
    ctx.on_update("bounce", bounce)
    ctx.on_update("renew", next_one)
    if await ctx.wait_for_signal("end"):
        ctx.continue_as_new(balance)
    return balance


def test_a_plain_handler_answers_in_the_step_that_brings_the_update(begin: Begin) -> None:
    run = update(begin(account), "withdraw", 30)
    assert answers(run) == {"u": 70}
    record_answers(run)
    assert answers(run) == {}
    assert ask(run, "balance") == 70


def test_an_async_handler_may_run_activities_beside_the_workflow_and_the_other_updates(begin: Begin) -> None:
    run = begin(account)
    update(run, "deposit", 1, update_id="a")
    update(run, "deposit", 10, update_id="b")
    first, second = run.activities
    run.complete(second, 11)
    assert answers(run) == {"b": 111}
    run.complete(first, 2)
    assert answers(run) == {"b": 111, "a": 113}


def test_a_handler_that_raises_answers_with_its_own_error_and_the_run_goes_on(begin: Begin) -> None:
    run = update(begin(account), "bounce", 5)
    [answer] = run.execution.answers
    assert answer.error is not None
    error = codec.exception(answer.error)
    assert isinstance(error, DeclinedError)
    assert error.args == ("account", 5)
    assert run.signal("end").result == 100


def test_a_handler_cannot_continue_the_run_as_new_and_says_so(begin: Begin) -> None:
    run = update(begin(account), "renew", 5)
    assert answers(run) == {"u": "RuntimeError"}
    assert isinstance(run.outcome, Blocked)


def test_a_signal_handler_cannot_continue_the_run_as_new_and_fails_it(begin: Begin) -> None:
    async def handled(ctx: WorkflowContext) -> None:
        ctx.on_signal("go", ctx.continue_as_new)
        await ctx.wait_for_signal("end")

    assert "handler" in begin(handled).signal("go").error.message


def test_a_validator_refuses_and_leaves_nothing_behind(begin: Begin) -> None:
    run = begin(account)
    with pytest.raises(ValueError, match="only 100 left"):
        run.execution.validate_update("withdraw", codec.encode(101))
    run.execution.validate_update("withdraw", codec.encode(100))
    assert answers(run) == {}
    assert ask(run, "balance") == 100


def test_an_unknown_update_is_refused_with_the_names_of_those_there_are(begin: Begin) -> None:
    with pytest.raises(QueryError, match=r"no update 'pay'.*bounce, deposit, renew, withdraw$"):
        begin(account).execution.validate_update("pay", "null")


# --- status ----------------------------------------------------------------------------------------


def test_the_custom_status_is_the_latest_and_none_takes_it_away(begin: Begin) -> None:
    async def showing(ctx: WorkflowContext) -> None:
        while True:
            ctx.set_status(await ctx.wait_for_signal("show"))

    run = begin(showing)
    assert run.execution.custom_status is None
    assert codec.decode(run.signal("show", {"at": (1, 2)}).execution.custom_status or "") == {"at": (1, 2)}
    assert run.signal("show", None).execution.custom_status is None


def test_a_generation_begins_with_the_custom_status_of_the_one_before(begin: Begin) -> None:
    async def silent(ctx: WorkflowContext) -> None:
        await ctx.wait_for_signal("go")

    run = begin(silent, history=[replace(started(), custom_status=codec.encode("half"))])
    run.signal("other")
    assert run.execution.custom_status == codec.encode("half")


# --- the border ------------------------------------------------------------------------------------


async def border(ctx: WorkflowContext) -> None:
    """Goes on as the next generation at the first signal, whatever else comes."""

    async def slow(amount: int) -> int:
        return await ctx.execute_activity(inc, amount)

    ctx.on_update("slow", slow)
    ctx.on_update("plain", lambda amount: amount)
    ctx.continue_as_new([await ctx.wait_for_signal("go")])


def continued(run: LiveRun) -> ContinuedAsNew:
    outcome = run.outcome
    assert isinstance(outcome, ContinuedAsNew), outcome
    again = replayed(run.code, run.history)
    assert again == outcome
    return outcome


def message(run: LiveRun, kind: str, number: int) -> Event:
    if kind == "signal":
        at, text = run.now, codec.encode(number)
        return SignalReceived(at=at, message_id=f"signal/{number}", name="go", payload=text)
    if kind == "update":
        return accepted(run, "plain", number, update_id=str(number))
    return CancelRequested(at=run.now, message_id="cancel")


@pytest.mark.parametrize("kind", ["signal", "update", "cancel"])
def test_what_was_recorded_with_the_signal_that_ended_a_generation_belongs_to_the_next(begin: Begin, kind: str) -> None:
    run = begin(border)
    late = message(run, kind, 7)
    run.happen(message(run, "signal", 1), late)
    outcome = continued(run)
    assert codec.decode(outcome.input) == [1]
    assert outcome.carried == (late,)
    assert outcome.seen == ("signal/1",)


def test_signals_nobody_has_taken_go_along_in_order_and_count_as_not_seen(begin: Begin) -> None:
    run = begin(border)
    for number in range(3):
        at, text = run.now, codec.encode(number)
        run.happen(SignalReceived(at=at, message_id=f"signal/k{number}", name="other", payload=text))
    run.happen(message(run, "signal", 1), message(run, "signal", 2))
    outcome = continued(run)
    assert [one.message_id for one in outcome.carried if isinstance(one, SignalReceived)] == [
        "signal/k0", "signal/k1", "signal/k2", "signal/2",
    ]  # fmt: skip
    assert outcome.seen == ("signal/1",)


def test_only_the_latest_ids_of_messages_go_along(begin: Begin) -> None:
    async def eater(ctx: WorkflowContext) -> None:
        ctx.on_signal("food", lambda payload: None)
        ctx.continue_as_new(await ctx.wait_for_signal("go"))

    run = begin(eater, always_replay=False)
    for number in range(MAX_SEEN + 5):
        at, text = run.now, codec.encode(number)
        run.happen(SignalReceived(at=at, message_id=f"signal/f{number}", name="food", payload=text))
    run.happen(message(run, "signal", 1))
    outcome = continued(run)
    assert len(outcome.seen) == MAX_SEEN
    assert outcome.seen[-2:] == (f"signal/f{MAX_SEEN + 4}", "signal/1")


def test_an_answer_goes_along_whether_it_is_recorded_or_not(begin: Begin) -> None:
    run = begin(border)
    record_answers(update(run, "plain", 1, update_id="a"))
    run.happen(UpdateRejected(at=run.now, message_id="update/r", error=Failure(type="E", message="no")))
    run.happen(accepted(run, "plain", 2, update_id="b"), message(run, "signal", 1))
    said = {one.message_id: one for one in continued(run).carried}  # type: ignore[attr-defined]  # answers have one
    assert list(said) == ["update/a", "update/r", "update/b"]
    assert isinstance(said["update/r"], UpdateRejected)
    assert [one.result for one in said.values() if isinstance(one, UpdateCompleted)] == ["1", "2"]
    assert set(continued(run).seen) == {"update/a", "update/r", "update/b", "signal/1"}


def test_an_update_whose_handler_is_still_at_work_at_the_border_is_answered_with_an_error(begin: Begin) -> None:
    run = update(begin(border), "slow", 1)
    run.happen(message(run, "signal", 1))
    [answer] = continued(run).carried
    assert isinstance(answer, UpdateCompleted)
    assert answer.error is not None
    assert (answer.error.type, answer.message_id) == ("RunStateError", "update/u")


@pytest.mark.parametrize(("count", "size", "kept"), [(MAX_ANSWERS + 3, 1, MAX_ANSWERS), (3, MAX_ANSWERS_SIZE // 2, 1)])
def test_of_answers_only_the_latest_go_along(begin: Begin, count: int, size: int, kept: int) -> None:
    run = begin(border, always_replay=False)
    for number in range(count):
        record_answers(update(run, "plain", "x" * size, update_id=str(number)))
    run.happen(message(run, "signal", 1))
    carried = [one.message_id for one in continued(run).carried if isinstance(one, UpdateCompleted)]
    assert carried == [f"update/{number}" for number in range(count - kept, count)]
