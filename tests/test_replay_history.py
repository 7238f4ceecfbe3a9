"""replay_history: an exported history against the code as it stands, with nothing but the two."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tinyworkflow_core import (
    Codec,
    EncryptionCodec,
    NonDeterminismError,
    UnknownWorkflowError,
    WorkflowContext,
    WorkflowFailedError,
    activity,
    workflow,
)
from tinyworkflow_core.app import App
from tinyworkflow_core.checking import exported
from tinyworkflow_core.encryption import generate_key
from tinyworkflow_core.errors import SerializationError, WorkflowCancelledError
from tinyworkflow_core.registry import Registry, WorkflowDefinition
from tinyworkflow_core.testing import Replayed, WorkflowEnvironment, replay_history

RAN: list[int] = []


@activity
async def double(number: int) -> int:
    RAN.append(number)
    return 2 * number


@workflow
async def order(ctx: WorkflowContext, what: str) -> Any:
    match what:
        case "fail":
            raise ValueError("out of stock")
        case "wait":
            await asyncio.gather(ctx.wait_for_approval("boss"), asyncio.sleep(3600))
        case "again":
            ctx.continue_as_new("done")
    return [await ctx.execute_activity(double, 4), what]


def as_declared(function: Callable[..., Any], version: int = 1) -> WorkflowDefinition[Any]:
    """That function as the code of `order`."""
    return workflow("order", version=version)(function)


async def export(env: WorkflowEnvironment, run_id: str) -> dict[str, Any]:
    """What `tinyworkflow export` writes of the run."""
    state = await env.store.load(run_id)
    assert state is not None
    data = exported(state)
    assert json.loads(json.dumps(data)) == data
    return data


@pytest.fixture
async def env() -> AsyncIterator[WorkflowEnvironment]:
    RAN.clear()
    async with WorkflowEnvironment([order]) as environment:
        yield environment


@pytest.fixture
async def completed(env: WorkflowEnvironment) -> dict[str, Any]:
    run_id = await env.start(order, "done")
    await env.result(run_id)
    RAN.clear()
    return await export(env, run_id)


async def test_a_history_is_data_text_or_a_file(completed: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(completed, indent=2)
    path = tmp_path / "run.json"
    path.write_text(text)
    for form in (completed, text, f"\n  {text}", path, str(path)):
        assert replay_history(order, form) == Replayed(status="completed", output=[8, "done"])
    assert not RAN


async def test_code_is_chosen_by_the_name_and_version_of_the_run(completed: dict[str, Any]) -> None:
    async def next_one(ctx: WorkflowContext, what: str) -> str:
        return what

    second = as_declared(next_one, version=2)
    for workflows in ([second, order], Registry([order, second]), (one for one in (order,))):
        assert replay_history(workflows, completed).output == [8, "done"]
    with pytest.raises(UnknownWorkflowError, match="version 1"):
        replay_history(second, completed)


@pytest.mark.parametrize("what", ["fail", "cancel", "wait", "again"])
async def test_every_end_is_shown_as_the_run_had_it(env: WorkflowEnvironment, what: str) -> None:
    run_id = await env.start(order, "wait" if what == "cancel" else what)
    if what == "again":
        state = await env.store.load(run_id)  # the run itself goes on at once
        assert state is not None
        replayed = replay_history(order, exported(state))
        assert (replayed.status, replayed.input_data) == ("continued_as_new", "done")
        return
    await env.run()
    match what:
        case "fail":
            with pytest.raises(WorkflowFailedError):
                await env.result(run_id)
            replayed = replay_history(order, await export(env, run_id))
            assert (replayed.status, replayed.note) == ("failed", None)
            assert isinstance(replayed.error, ValueError)
            assert str(replayed.error) == "out of stock"
        case "cancel":
            await env.cancel(run_id, "too late")
            with pytest.raises(WorkflowCancelledError):
                await env.result(run_id)
            replayed = replay_history(order, await export(env, run_id))
            assert replayed == Replayed(status="cancelled", reason="too late")
        case "wait":
            replayed = replay_history(order, await export(env, run_id))
            steps = ("approval 'boss'", "a timer due 2026-01-01T10:00:00+00:00")
            assert replayed == Replayed(status="waiting", open_steps=steps)


async def test_code_that_asks_for_something_else_is_a_mismatch_that_says_where(completed: dict[str, Any]) -> None:
    async def changed(ctx: WorkflowContext, what: str) -> Any:
        return [await ctx.execute_activity(double, 5), what]

    with pytest.raises(NonDeterminismError, match="double") as raised:
        replay_history(as_declared(changed), completed)
    assert raised.value.step == 1
    assert Path(__file__).name in raised.value.where

    async def shorter(ctx: WorkflowContext, what: str) -> Any:
        return [8, what]

    with pytest.raises(NonDeterminismError):
        replay_history(as_declared(shorter), completed)
    assert not RAN


async def test_an_end_that_differs_from_the_recorded_one_is_noted(completed: dict[str, Any]) -> None:
    async def changed(ctx: WorkflowContext, what: str) -> Any:
        return [await ctx.execute_activity(double, 4), what, "and more"]

    replayed = replay_history(as_declared(changed), completed)
    assert (replayed.status, replayed.output) == ("completed", [8, "done", "and more"])
    assert replayed.note is not None
    assert "another result" in replayed.note


async def test_what_is_no_exported_history_is_refused(completed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("not JSON")
    newer = completed | {"history": [*completed["history"], {"kind": "OfTheFuture", "at": "2030-01-01T00:00:00Z"}]}
    for data, problem in (
        ('{"format": 1', "the text is no exported history: it is not JSON"),
        (path, "run.json is no exported history: it is not JSON"),
        ({"history": []}, "no exported history"),
        ("{}", "no exported history"),
        (completed | {"format": 99}, "format 99"),
        (completed | {"run": {}}, "damaged"),
        (newer, "OfTheFuture"),
    ):
        with pytest.raises(SerializationError, match=problem):
            replay_history(order, data)
    with pytest.raises(FileNotFoundError):
        replay_history(order, tmp_path / "nowhere.json")


async def test_an_encrypted_history_is_replayed_with_its_key_alone() -> None:
    codec = Codec(EncryptionCodec([generate_key()]))
    app = App("sqlite:///:memory:", workflows=[order], codec=codec)
    run_id = await app.client.start_workflow(order, "done")
    await app.advance(run_id)
    state = await app.store.load(run_id)
    assert state is not None
    data = exported(state)
    await app.close()
    assert '"done"' not in json.dumps(data)
    assert replay_history(order, data, codec=codec).output == [8, "done"]
    with pytest.raises(SerializationError, match="sealed"):
        replay_history(order, data)
