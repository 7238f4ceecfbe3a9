"""Bad input is refused by name before anything is stored; good input exists, whole, when the call returns."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pydantic
import pytest

from tests.eventually import eventually
from tinyworkflow_core import App, TinyWorkflowClient, WorkflowContext, WorkflowFailedError, activity, workflow
from tinyworkflow_core.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    PayloadTooLargeError,
    RunExistsError,
    RunNotFoundError,
    SerializationError,
    UnknownWorkflowError,
    WorkflowCancelledError,
)
from tinyworkflow_core.store import RunQuery
from tinyworkflow_core.testing import WorkflowEnvironment


class Order(pydantic.BaseModel):
    number: int
    email: str


@workflow
async def typed(ctx: WorkflowContext, order: Order) -> int:
    return order.number


@workflow
async def free(ctx: WorkflowContext) -> Any:
    return ctx.get_input("x", "nothing")


@workflow
async def waits(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_signal("go")


@activity
async def boom() -> None:
    raise KeyError("gone")


@workflow
async def fails(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(boom.options(retry_policy=None, name="boom"))


@workflow
async def returns_a_lambda(ctx: WorkflowContext) -> Any:
    return lambda: None


WORKFLOWS: list[Any] = [typed, free, waits, fails, returns_a_lambda]


@pytest.fixture
async def env() -> AsyncIterator[WorkflowEnvironment]:
    async with WorkflowEnvironment(WORKFLOWS) as environment:
        yield environment


async def _nothing_is_stored(env: WorkflowEnvironment) -> None:
    assert (await env.store.list(RunQuery())).items == []


BAD_STARTS: dict[str, tuple[Any, type[Exception], str]] = {
    "an unknown workflow": (
        lambda client: client.start_workflow("fre"),
        UnknownWorkflowError,
        "no workflow 'fre' is registered; did you mean 'free'?",
    ),
    "an unknown version": (lambda client: client.start_workflow("free", version=9), UnknownWorkflowError, "known: 1"),
    "a field of the wrong type": (
        lambda client: client.start_workflow(typed, {"number": "x", "email": "a"}),
        InvalidInputError,
        "number",
    ),
    "a missing field": (lambda client: client.start_workflow(typed, {"number": 1}), InvalidInputError, "email"),
    "no input where one is needed": (lambda client: client.start_workflow(typed), InvalidInputError, "typed"),
    "an input that cannot be stored": (lambda client: client.start_workflow(free, object()), SerializationError, "obj"),
    "an input over the limit": (
        lambda client: client.start_workflow(free, "x" * 1_000_000),
        PayloadTooLargeError,
        "over the limit of 900000",
    ),
    "an odd run_id": (lambda client: client.start_workflow(free, run_id="a/b"), InvalidInputError, "run_id"),
    "two keys at once": (
        lambda client: client.start_workflow(free, run_id="mine", idempotency_key="k"),
        InvalidInputError,
        "give one of them",
    ),
    "an attribute that is a list": (
        lambda client: client.start_workflow(free, attributes={"tags": [1]}),
        InvalidInputError,
        "attributes: 'tags'",
    ),
    "a negative delay": (lambda client: client.start_workflow(free, start_delay=-1), ValueError, "negative"),
}


@pytest.mark.parametrize("case", BAD_STARTS)
async def test_a_bad_start_is_refused_by_name_and_stores_nothing(env: WorkflowEnvironment, case: str) -> None:
    start, error, text = BAD_STARTS[case]
    with pytest.raises(error, match=text):
        await start(env.client)
    await _nothing_is_stored(env)


async def test_talking_to_nobody_is_an_error(env: WorkflowEnvironment) -> None:
    for call in (
        env.client.get_workflow_status,
        env.client.get_workflow_events,
        env.client.get_result,
        env.client.cancel_workflow,
    ):
        with pytest.raises(RunNotFoundError, match="'nobody'"):
            await call("nobody")


async def test_a_result_that_cannot_be_stored_fails_the_run_and_says_why(env: WorkflowEnvironment) -> None:
    run_id = await env.start(returns_a_lambda)
    with pytest.raises(WorkflowFailedError, match=r"result of the workflow: .*function"):
        await env.result(run_id)


async def test_typed_input_arrives_validated(env: WorkflowEnvironment) -> None:
    assert await env.result(await env.start(typed, {"number": "7", "email": "a@b"})) == 7


async def test_an_idempotency_key_stands_for_one_request(env: WorkflowEnvironment) -> None:
    first = await env.client.start_workflow(free, {"x": 1}, idempotency_key="k")
    assert await env.client.start_workflow(free, {"x": 1}, idempotency_key="k") == first
    with pytest.raises(IdempotencyConflictError):
        await env.client.start_workflow(free, {"x": 2}, idempotency_key="k")
    assert await env.client.start_workflow(free, {"x": 1}, idempotency_key="other") != first


async def test_a_run_id_is_taken_once_whoever_asks_and_when(env: WorkflowEnvironment) -> None:
    answers = await asyncio.gather(
        *(env.client.start_workflow(free, {"x": number}, run_id="mine") for number in range(100)),
        return_exceptions=True,
    )
    assert answers.count("mine") == 1
    assert sum(isinstance(answer, RunExistsError) for answer in answers) == 99
    assert await env.client.start_workflow(free, run_id="mine", on_conflict="use_existing") == "mine"


async def test_a_delayed_start_waits_even_when_a_signal_comes_first(env: WorkflowEnvironment) -> None:
    run_id = await env.start(waits, start_delay="1h")
    await env.signal(run_id, "go", 1)
    await env.advance("59m")
    assert (await env.status(run_id)).status == "pending"
    await env.advance("1m")
    assert (await env.status(run_id)).output_data == {"result": 1}


async def test_a_delayed_start_that_is_cancelled_never_begins(env: WorkflowEnvironment) -> None:
    run_id = await env.start(waits, start_delay="1h")
    await env.cancel(run_id, "changed my mind")
    await env.run()
    assert (await env.status(run_id)).status == "cancelled"
    assert [one["type"] for one in await env.events(run_id)] == ["RunStarted", "CancelRequested", "RunCancelled"]


async def test_a_run_whose_class_is_gone_is_still_listed(
    env: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await env.start(typed, {"number": 7, "email": "a@b"})
    await env.run()
    monkeypatch.delattr(sys.modules[__name__], "Order")
    [run] = await env.client.list_workflow_executions()
    assert (run.run_id, run.input_data) == (run_id, {"number": 7, "email": "a@b"})


async def test_cancelling_twice_is_cancelling_once(env: WorkflowEnvironment) -> None:
    run_id = await env.start(waits)
    await env.run()
    await env.cancel(run_id, "no longer needed")
    await env.cancel(run_id)
    with pytest.raises(WorkflowCancelledError):
        await env.result(run_id)
    assert [one.get("reason") for one in await env.events(run_id, "RunCancelled")] == ["no longer needed"]


async def test_waiting_for_a_run_raises_the_workflows_own_error_as_its_cause() -> None:
    async with TinyWorkflowClient("sqlite:///:memory:", auto_start_worker=True, workflows=WORKFLOWS) as client:
        with pytest.raises(WorkflowFailedError) as raised:
            await client.start_workflow(typed_failure, wait=True)
        assert raised.value.run_id.startswith("typed_failure_")
        assert isinstance(raised.value.__cause__, KeyError)


@workflow
async def typed_failure(ctx: WorkflowContext) -> None:
    raise KeyError("x")


WORKFLOWS.append(typed_failure)


async def test_concurrent_starts_that_wait_get_a_run_each() -> None:
    async with TinyWorkflowClient("sqlite:///:memory:", auto_start_worker=True, workflows=WORKFLOWS) as client:
        run_ids = await asyncio.gather(*(client.start_workflow(free, {"x": n}, wait=True) for n in range(20)))
        results = [(await client.get_workflow_status(run_id)).output_data for run_id in run_ids]
        assert results == [{"result": n} for n in range(20)]


async def test_a_wait_that_is_too_long_raises_timeout_error() -> None:
    async with TinyWorkflowClient("sqlite:///:memory:", auto_start_worker=True, workflows=WORKFLOWS) as client:
        run_id = await client.start_workflow(waits)
        with pytest.raises(TimeoutError):
            await client.get_result(run_id, timeout="50ms")


async def _waits(app: App, run_id: str) -> bool:
    return (await app.client.get_workflow_status(run_id)).status == "waiting"


async def test_a_run_that_merely_waits_keeps_no_worker_busy() -> None:
    # A store that told its listeners of every release would wake the worker that has just let go, for ever.
    app = App("sqlite:///:memory:", workflows=WORKFLOWS, tick_seconds=60)
    await app.start_worker()
    run_id = await app.client.start_workflow(waits)
    await eventually(lambda: _waits(app, run_id))
    before = await app.store.get(run_id)
    await asyncio.sleep(0.1)  # time for a loop to show itself
    assert await app.store.get(run_id) == before
    assert (await app.client.get_workflow_status(run_id)).status == "waiting"
    await app.close()


@pytest.mark.parametrize(
    "options",
    [
        {"workflow_id": "x" * 2_000_000},
        {"attributes": {"long": "x" * 2_000_000}},
        {"attributes": {"odd": "\ud83d\ude00"}},
    ],
    ids=["a long workflow_id", "a long attribute", "a pair of surrogates"],
)
async def test_what_no_store_would_keep_is_refused_before_a_run_exists(
    env: WorkflowEnvironment, options: dict[str, Any]
) -> None:
    with pytest.raises(SerializationError):  # PayloadTooLargeError is one
        await env.client.start_workflow(free, **options)
    assert env.writes == 0
