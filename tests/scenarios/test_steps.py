"""Steps: one activity after another, retried, stored with their types, run once."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pydantic
import pytest

from tests.scenarios.conftest import Ways
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, activity_context, workflow
from tinyworkflow_core.errors import SerializationError, WorkflowFailedError
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    LOG.clear()


class Order(pydantic.BaseModel):
    number: int
    lines: list[str] = []


@dataclasses.dataclass(frozen=True)
class Parcel:
    weight: Decimal
    to: str


class TransientError(Exception):
    pass


@activity
def greet(name: str) -> str:
    LOG.append(("greet", name))
    return f"Hello, {name}!"


@activity
async def shout(text: str) -> str:
    LOG.append(("shout", text))
    return text.upper()


VALUES: list[Any] = [
    {"nested": [1, {"deep": None}], "float": 1.5},
    Order(number=7, lines=["a", "b"]),
    Parcel(weight=Decimal("1.20"), to="Köln"),
    datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=UTC),
    date(2026, 2, 28),
    timedelta(days=1, microseconds=3),
    Decimal("0.10"),
    UUID("12345678-1234-5678-1234-567812345678"),
    b"\x00\xff",
    {1, 2, 3},
    (1, (2, "x")),
]


@activity
async def pick(index: int) -> Any:
    LOG.append(index)
    return VALUES[index]


@activity
async def same(value: Any) -> Any:
    return value


def _failing(times: int, error: type[Exception], policy: RetryPolicy) -> Any:
    @activity(name="fragile", retry_policy=policy)
    async def fragile() -> str:
        LOG.append(activity_context().attempt)
        if activity_context().attempt <= times:
            raise error(f"attempt {activity_context().attempt}")
        return "done"

    return fragile


async def test_one_step_greets_in_one_hop(ways: Ways) -> None:
    @workflow
    async def hello(ctx: WorkflowContext, name: str) -> str:
        return await ctx.execute_activity(greet, name)

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(hello, "World")
        await env.run()
        run = await env.status(run_id)
        assert (run.status, run.output_data) == ("completed", {"result": "Hello, World!"})
        assert LOG == [("greet", "World")]
        if env.plain:
            assert env.hops == {run_id: 1}

    await ways(scenario, hello)


async def test_values_keep_their_types_between_steps_and_in_replays(ways: Ways) -> None:
    @workflow
    async def carry(ctx: WorkflowContext) -> list[Any]:
        results = []
        for index in range(len(VALUES)):
            picked = await ctx.execute_activity(pick, index)
            results.append(await ctx.execute_activity(same, picked))
            assert type(results[-1]) is type(VALUES[index])
        return results

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        assert await env.result(await env.start(carry)) == VALUES
        assert list(range(len(VALUES))) == LOG

    await ways(scenario, carry)


async def test_a_step_before_a_timer_is_not_run_again_after_it(ways: Ways) -> None:
    @workflow
    async def nap(ctx: WorkflowContext) -> str:
        text = await ctx.execute_activity(shout, "hi")
        await asyncio.sleep(2)
        return text

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(nap)
        await env.run()
        assert (await env.status(run_id)).status == "waiting"
        await env.advance(1.9)
        assert (await env.status(run_id)).status == "waiting"
        await env.advance(0.1)
        assert (await env.status(run_id)).output_data == {"result": "HI"}
        assert LOG == [("shout", "hi")]
        if env.plain:
            assert env.hops == {run_id: 2}

    await ways(scenario, nap)


async def test_a_failed_attempt_is_recorded_and_the_next_one_completes_the_step(ways: Ways) -> None:
    fragile = _failing(1, ValueError, RetryPolicy(initial_delay=1, jitter=False))

    @workflow
    async def retried(ctx: WorkflowContext) -> str:
        return str(await ctx.execute_activity(fragile))

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(retried)
        await env.run()
        assert (await env.status(run_id)).status == "retrying"
        assert await env.result(run_id) == "done"
        [failed] = await env.events(run_id, "ActivityFailed")
        assert (failed["attempt"], failed["error"]) == (1, {"type": "ValueError", "message": "attempt 1"})
        assert datetime.fromisoformat(failed["retry_at"]) - datetime.fromisoformat(failed["at"]) == timedelta(seconds=1)
        [completed] = await env.events(run_id, "ActivityCompleted")
        assert completed["attempt"] == 2
        assert LOG == [1, 2]

    await ways(scenario, retried)


async def test_a_step_that_always_fails_fails_the_run_with_its_own_error_after_the_last_attempt(ways: Ways) -> None:
    fragile = _failing(99, LookupError, RetryPolicy(max_retries=3, initial_delay=1))

    @workflow
    async def doomed(ctx: WorkflowContext) -> None:
        await ctx.execute_activity(fragile)

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(doomed)
        with pytest.raises(WorkflowFailedError) as raised:
            await env.result(run_id)
        assert isinstance(raised.value.__cause__, LookupError)
        assert LOG == [1, 2, 3, 4]
        assert [one["attempt"] for one in await env.events(run_id, "ActivityFailed")] == [1, 2, 3, 4]
        run = await env.status(run_id)
        assert (run.status, run.error_type, run.error) == ("failed", "LookupError", "attempt 4")

    await ways(scenario, doomed)


@pytest.mark.parametrize(("error", "attempts"), [(TransientError, [1, 2]), (KeyError, [1])])
async def test_a_policy_retries_only_the_errors_that_it_names(
    ways: Ways, error: type[Exception], attempts: list[int]
) -> None:
    fragile = _failing(1, error, RetryPolicy(retry_on=(TransientError,)))

    @workflow
    async def picky(ctx: WorkflowContext) -> str:
        return str(await ctx.execute_activity(fragile))

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        run_id = await env.start(picky)
        if error is TransientError:
            assert await env.result(run_id) == "done"
        else:
            with pytest.raises(WorkflowFailedError):
                await env.result(run_id)
        assert attempts == LOG  # not a constant

    await ways(scenario, picky)


async def test_delays_grow_by_the_multiplier_up_to_the_maximum(ways: Ways) -> None:
    policy = RetryPolicy(max_retries=2, initial_delay=2, backoff_multiplier=3, max_delay=5, jitter=False)
    fragile = _failing(2, ValueError, policy)

    @workflow
    async def patient(ctx: WorkflowContext) -> str:
        return str(await ctx.execute_activity(fragile))

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(patient)
        assert await env.result(run_id) == "done"
        delays = [
            (datetime.fromisoformat(one["retry_at"]) - datetime.fromisoformat(one["at"])).total_seconds()
            for one in await env.events(run_id, "ActivityFailed")
        ]
        assert delays == [2, 5]

    await ways(scenario, patient)


async def test_a_failure_that_is_caught_leaves_both_steps_in_the_history(ways: Ways) -> None:
    fragile = _failing(99, ValueError, RetryPolicy(max_retries=0))

    @workflow
    async def careful(ctx: WorkflowContext) -> str:
        try:
            return str(await ctx.execute_activity(fragile))
        except ValueError:
            return await ctx.execute_activity(shout, "plan b")

    async def scenario(env: WorkflowEnvironment) -> None:
        run_id = await env.start(careful)
        assert await env.result(run_id) == "PLAN B"
        assert [one["name"] for one in await env.events(run_id, "ActivityFailed")] == ["fragile"]
        assert [one["name"] for one in await env.events(run_id, "ActivityCompleted")] == ["shout"]

    await ways(scenario, careful)


UNSTORABLE: dict[str, Any] = {
    "a socket": socket.socket,
    "a lambda": lambda: lambda: None,
    "too much": lambda: "x" * 1_000_000,
}


@activity
def produce(what: str) -> Any:
    LOG.append(what)
    made = UNSTORABLE[what]()
    if isinstance(made, socket.socket):
        made.close()
    return made


@pytest.mark.parametrize("what", UNSTORABLE)
async def test_a_result_that_cannot_be_stored_fails_the_step_at_once_and_says_why(ways: Ways, what: str) -> None:
    @workflow
    async def hoarder(ctx: WorkflowContext) -> str:
        try:
            await ctx.execute_activity(produce, what)
        except SerializationError as error:
            return str(error)
        return "?"

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        problem = await env.result(await env.start(hoarder))
        assert problem.startswith("result of activity 'produce' (step 1) cannot be stored: ")
        assert any(reason in problem for reason in ("socket", "function", "over the limit"))
        assert [what] == LOG

    await ways(scenario, hoarder)


async def _linger() -> None:
    await asyncio.sleep(2)


def _linger_sync() -> None:
    time.sleep(2)  # it is the point of the test that the thread cannot be stopped


@pytest.mark.parametrize("body", [_linger, _linger_sync], ids=["async", "sync"])
async def test_a_step_over_its_timeout_fails_by_name_while_other_runs_advance(body: Any) -> None:
    slow = activity(name="slow", timeout=0.2, retry_policy=RetryPolicy(max_retries=0))(body)

    @workflow
    async def impatient(ctx: WorkflowContext) -> str:
        try:
            await ctx.execute_activity(slow)
        except TimeoutError as error:
            return str(error)
        return "?"

    @workflow
    async def quick(ctx: WorkflowContext) -> str:
        return await ctx.execute_activity(shout, "quick")

    async with WorkflowEnvironment([impatient, quick]) as env:
        run_id = await env.start(impatient)
        began = time.monotonic()
        calls = asyncio.create_task(env.run())
        await asyncio.sleep(0.05)  # the slow step is at work now
        other = await env.start(quick)
        await env._processes[1].app.advance(other)
        assert (await env.status(other)).status == "completed"
        assert (await env.status(run_id)).status == "running"
        await calls
        assert time.monotonic() - began < 1.5
        assert await env.result(run_id) == "activity 'slow' timed out after 0.2 s"


@activity(name="keyed", retry_policy=RetryPolicy(initial_delay=1))
async def keyed(fail_first: bool) -> str:
    context = activity_context()
    LOG.append((context.idempotency_key, context.attempt))
    if fail_first and context.attempt == 1:
        raise ValueError("again")
    return context.idempotency_key


async def test_the_idempotency_key_is_one_per_step(ways: Ways) -> None:
    @workflow
    async def keys(ctx: WorkflowContext) -> list[str]:
        first = await ctx.execute_activity(keyed, True)
        rest = await ctx.execute_parallel((keyed, (False,)), (keyed, (True,)))
        return [first, *rest]

    async def scenario(env: WorkflowEnvironment) -> None:
        LOG.clear()
        one, other = await env.start(keys), await env.start(keys)
        found = await env.result(one) + await env.result(other)
        assert len(set(found)) == 6
        assert {key for key, _ in LOG} == set(found)

    await ways(scenario, keys)
