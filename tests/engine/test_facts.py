"""What a run knows, draws and says: the same in every replay, said once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import BaseModel

from tests.engine.activities import inc
from tests.engine.history_builder import FACTS, START, Begin, LiveRun, replayed
from tinyworkflow_core.engine.commands import RunSideEffect
from tinyworkflow_core.engine.context import WorkflowContext


class Order(BaseModel):
    item: str
    count: int = 1


@dataclass
class Parcel:
    item: str


async def drawing(ctx: WorkflowContext) -> list[Any]:
    drawn: list[Any] = []
    for _ in range(3):
        drawn += [str(ctx.uuid4()), ctx.random().random(), ctx.random().randint(1, 1000), ctx.now().isoformat()]
        await ctx.execute_activity(inc, 1)
    return drawn


async def reading(ctx: WorkflowContext, order: Any) -> list[Any]:
    return [ctx.get_input("item"), ctx.get_input("colour"), ctx.get_input("colour", "red")]


def test_a_run_knows_what_it_is(begin: Begin) -> None:
    async def facts(ctx: WorkflowContext) -> list[Any]:
        return [
            ctx.run_id,
            ctx.workflow_id,
            ctx.workflow_name,
            ctx.version,
            ctx.generation,
            ctx.retry_count,
            ctx.parent_run_id,
        ]

    assert begin(facts).result == ["run-1", "order-1", "under_test", 1, 0, 0, None]


@pytest.mark.parametrize(
    "data", [{"item": "ball"}, Order(item="ball"), Parcel("ball")], ids=lambda data: type(data).__name__
)
def test_an_entry_of_the_input_is_an_item_of_a_mapping_or_an_attribute(begin: Begin, data: Any) -> None:
    assert begin(reading, data).result == ["ball", None, "red"]


def test_a_workflow_that_takes_no_input_is_called_without(begin: Begin) -> None:
    async def alone(ctx: WorkflowContext) -> Any:
        return ctx.input_data

    assert begin(alone, {"a": 1}).result == {"a": 1}


def test_an_input_that_was_not_given_is_the_default_of_the_parameter(begin: Begin) -> None:
    async def default(ctx: WorkflowContext, count: int = 7) -> int:
        return count

    assert begin(default).result == 7


def test_time_and_chance_are_the_same_in_every_replay(begin: Begin) -> None:
    run = begin(drawing)
    for _ in range(3):
        run.later(1).complete(run.activities[0], 2)
    first = run.result
    assert len(set(map(str, first))) == len(first)
    for _ in range(3):
        assert LiveRun(drawing, always_replay=False).happen(*run.history[1:]).result == first


def test_every_run_and_every_generation_draws_its_own_chances(begin: Begin) -> None:
    async def draw(ctx: WorkflowContext) -> list[Any]:
        return [str(ctx.uuid4()), ctx.random().random()]

    others = [FACTS, replace(FACTS, run_id="run-2"), replace(FACTS, generation=1)]
    drawn = [str(begin(draw, facts=facts).result) for facts in others]
    assert len(set(drawn)) == 3


def test_drawing_a_uuid_does_not_move_the_random_numbers(begin: Begin) -> None:
    async def with_uuid(ctx: WorkflowContext) -> float:
        ctx.uuid4()
        return ctx.random().random()

    async def without(ctx: WorkflowContext) -> float:
        return ctx.random().random()

    assert begin(with_uuid).result == begin(without).result


# --- side effects ----------------------------------------------------------------------------------


def test_a_side_effect_is_called_once_and_its_result_remembered(begin: Begin) -> None:
    calls: list[int] = []

    def look() -> int:
        calls.append(1)
        return len(calls)

    async def looking(ctx: WorkflowContext) -> list[int]:
        return [await ctx.side_effect(look), await ctx.side_effect(look)]

    run = begin(looking)
    for _ in range(2):
        (command,) = run.commands
        assert isinstance(command, RunSideEffect)
        run.let_go().record_side_effect(command)
    assert run.result == [1, 2]
    replayed(looking, run.history)
    assert calls == [1, 1]


def test_a_side_effect_that_raised_raises_the_same_in_every_replay(begin: Begin) -> None:
    def look() -> None:
        raise KeyError("nothing there")

    async def looking(ctx: WorkflowContext) -> str:
        try:
            await ctx.side_effect(look)
        except KeyError as error:
            return str(error)
        return "never"

    run = begin(looking)
    (command,) = run.commands
    assert isinstance(command, RunSideEffect)
    assert run.record_side_effect(command).result == "'nothing there'"


# --- the logger ------------------------------------------------------------------------------------


async def talking(ctx: WorkflowContext) -> None:
    ctx.logger.info("begun")
    await ctx.execute_activity(inc, 1)
    ctx.logger.info("counted")
    await asyncio.sleep(5)
    ctx.logger.info("rested %s", "well")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return messages


def test_what_was_said_before_is_not_said_again_in_a_replay(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinyworkflow.workflow")
    with LiveRun(talking, always_replay=False) as run:
        assert said(caplog) == ["begun"]
        run.complete(run.activities[0])
        assert said(caplog) == ["counted"]
        run.let_go()
        replayed(talking, run.history)  # picked up again after it was let go: nothing new has happened
        assert said(caplog) == []
        run.fire(run.timers[0])
        assert said(caplog) == ["rested well"]


def test_a_replay_says_what_the_last_event_led_to_because_its_holder_may_have_died_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "tinyworkflow.workflow")
    with LiveRun(talking, always_replay=False) as run:
        run.complete(run.activities[0])
        caplog.clear()
        replayed(talking, run.history)
        assert said(caplog) == ["counted"]


def test_a_log_record_names_its_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinyworkflow.workflow")
    with LiveRun(talking, always_replay=False):
        (record,) = caplog.records
    assert (vars(record)["run_id"], vars(record)["workflow"]) == ("run-1", "under_test")


def test_the_start_is_the_time_before_any_event(begin: Begin) -> None:
    async def when(ctx: WorkflowContext) -> str:
        return ctx.now().isoformat()

    assert begin(when).result == START.isoformat()
