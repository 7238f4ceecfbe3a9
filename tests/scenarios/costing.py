"""What a run costs on Firestore, in documents and calls: the runs that are counted, the counting, what has to come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.stores.wire import Wire
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, activity_context, workflow
from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.stores.firestore import FirestoreStore
from tinyworkflow_core.testing import WorkflowEnvironment


@activity
async def one(number: int) -> int:
    return number + 1


@workflow
async def sequence(ctx: WorkflowContext, steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await ctx.execute_activity(one, number)
    return number


@workflow
async def fan_out(ctx: WorkflowContext, steps: int) -> int:
    return sum(await ctx.execute_parallel(*((one, (number,)) for number in range(steps))))


@workflow
async def waits(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_signal("go")


@workflow
async def naps(ctx: WorkflowContext) -> None:
    await ctx.sleep("1d")


@workflow
async def asks(ctx: WorkflowContext) -> bool:
    return bool(await ctx.wait_for_approval("ok"))


@workflow
async def parent(ctx: WorkflowContext) -> Any:
    return await ctx.execute_child(sequence, 1)


@workflow
async def generations(ctx: WorkflowContext, left: int) -> int:
    if left:
        ctx.continue_as_new(left - 1)
    return left


@activity(run_on="queue", timeout="1m")
async def elsewhere(number: int) -> int:
    return number + 1


@workflow
async def hands_out(ctx: WorkflowContext, width: int) -> Any:
    return await ctx.execute_parallel(*((elsewhere, (number,)) for number in range(width)))


@activity(retry_policy=RetryPolicy(initial_delay=10, jitter=False))
async def fails_until(attempt: int) -> int:
    if activity_context().attempt < attempt:
        raise ValueError("again")
    return attempt


@workflow
async def retries(ctx: WorkflowContext, attempt: int) -> int:
    return await ctx.execute_activity(fails_until, attempt)


@workflow
async def updated(ctx: WorkflowContext) -> Any:
    values: list[Any] = []

    def add(value: Any) -> int:
        values.append(value)
        return len(values)

    ctx.on_update("add", add)
    await ctx.wait_for_signal("end")
    return values


WORKFLOWS = [sequence, fan_out, waits, naps, asks, parent, generations, hands_out, retries, updated]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Documents of Firestore, and calls of a function besides the one that starts the run or brings it a message."""

    calls: int
    written: int
    deleted: int
    read: int


class Metered:
    """An environment on Firestore, and what it has spent: documents written, deleted and read."""

    def __init__(self, env: WorkflowEnvironment, store: FirestoreStore, wire: Wire) -> None:
        self.env = env
        self.store = store
        self.wire = wire
        self.spent = wire.spent

    async def to_the_end(self, row: Row) -> Spent:
        """All calls of a run, by a platform that asks nothing of the store itself."""
        self.spent()
        run_id = await self.env.start(row.workflow, row.input)
        calls = await self._make_calls()
        if row.meanwhile is not None:
            await row.meanwhile(self.env, run_id)
            calls += await self._make_calls()
        written, deleted, read = self.spent()
        assert (await self.env.status(run_id)).status == "completed"
        return Spent(calls=calls, written=written, deleted=deleted, read=read)

    async def _make_calls(self) -> int:
        world, calls = self.env._world, 0
        while due := world.take_due():
            for task in due:
                await self.env._processes[0].app.carry_out(task)
                calls += 1
            if not world.has_due and world._queue:
                self.env.clock.move_to(world._queue[0][0])
        return calls


@asynccontextmanager
async def metered_environment() -> AsyncIterator[Metered]:
    """An empty store on the emulator that FIRESTORE_EMULATOR_HOST names."""
    store = FirestoreStore(f"test-{fresh_id()}")
    await store.get("nobody")  # connects
    try:
        wire = Wire(store._connection.client()._firestore_api)
        yield Metered(WorkflowEnvironment(WORKFLOWS, store=store), store, wire)
    finally:
        await store.close()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of run, from its start to its end, and what it costs."""

    workflow: Any
    input: Any = None
    meanwhile: Callable[[WorkflowEnvironment, str], Awaitable[None]] | None = None
    """What somebody does when the run waits."""
    steps: int
    """What others would charge as steps: activities, timers, signals, decisions, children."""
    spent: Spent


async def _signal(env: WorkflowEnvironment, run_id: str) -> None:
    await env.signal(run_id, "go", 1)


async def _approve(env: WorkflowEnvironment, run_id: str) -> None:
    await env.decide(run_id, "ok", by="ada")


def _row(workflow: Any, input: Any, steps: int, *spent: int, meanwhile: Any = None) -> Row:
    calls, written, deleted, read = spent
    counted = Spent(calls=calls, written=written, deleted=deleted, read=read)
    return Row(workflow=workflow, input=input, steps=steps, spent=counted, meanwhile=meanwhile)


ROWS: dict[str, Row] = {
    "a sequence of 1 step": _row(sequence, 1, 1, 1, 4, 0, 3),
    "a sequence of 10 steps": _row(sequence, 10, 10, 1, 13, 0, 3),
    "a sequence of 100 steps": _row(sequence, 100, 100, 1, 103, 0, 3),
    "a fan-out of 10 that end together": _row(fan_out, 10, 10, 1, 4, 0, 3),
    "a fan-out of 100 that end together": _row(fan_out, 100, 100, 1, 4, 0, 3),
    "a signal waited for": _row(waits, None, 1, 2, 7, 1, 8, meanwhile=_signal),
    "a timer": _row(naps, None, 1, 2, 7, 0, 7),
    "an approval": _row(asks, None, 1, 2, 9, 1, 10, meanwhile=_approve),
    "a child of one step": _row(parent, None, 2, 3, 12, 1, 11),
    "a call of its own": _row(hands_out, 1, 1, 4, 8, 1, 12),
    "ten calls of their own": _row(hands_out, 10, 10, 13, 17, 10, 48),
    "no generation more": _row(generations, 0, 0, 1, 3, 0, 3),
    "one generation more": _row(generations, 1, 0, 1, 5, 0, 7),
    "ten generations more": _row(generations, 10, 0, 1, 23, 0, 43),
    "one retry": _row(retries, 2, 1, 2, 7, 0, 7),
    "two retries": _row(retries, 3, 1, 3, 10, 0, 11),
}
"""So a step costs one written; a generation two written and four read; a retry that the run is let go for three written
and four read; a call of its own, beside what is committed together, its message (written, deleted), its two
wake-ups, and the reading of the run and its history by whoever makes it."""
