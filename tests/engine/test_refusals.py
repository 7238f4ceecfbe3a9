"""What cannot be replayed is refused inside workflow code, with an error that names what to do instead."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.engine.history_builder import Begin
from tinyworkflow_core.engine import loop as loop_module
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.errors import NotInWorkflowError

Attempt = Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, Any]]


async def in_executor(loop: asyncio.AbstractEventLoop) -> None:
    await loop.run_in_executor(None, print)


async def to_thread(loop: asyncio.AbstractEventLoop) -> None:
    await asyncio.to_thread(print)


async def connection(loop: asyncio.AbstractEventLoop) -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def server(loop: asyncio.AbstractEventLoop) -> None:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)


async def unix_connection(loop: asyncio.AbstractEventLoop) -> None:
    await asyncio.open_unix_connection("/nowhere")


async def name_lookup(loop: asyncio.AbstractEventLoop) -> None:
    await loop.getaddrinfo("localhost", 80)


async def process(loop: asyncio.AbstractEventLoop) -> None:
    await asyncio.create_subprocess_exec("true")


async def shell(loop: asyncio.AbstractEventLoop) -> None:
    await asyncio.create_subprocess_shell("true")


async def reader(loop: asyncio.AbstractEventLoop) -> None:
    loop.add_reader(0, print)


async def signal_handler(loop: asyncio.AbstractEventLoop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, print)


async def other_thread(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon_threadsafe(print)


async def stopping(loop: asyncio.AbstractEventLoop) -> None:
    loop.stop()


async def running_within(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.get_running_loop().create_future())


THREADS = "threads (asyncio.to_thread) belong in activities; do it in an activity"
ACTIVITY = "do it in an activity (`await ctx.execute_activity(...)`)"
REFUSED: list[tuple[Attempt, str]] = [
    (in_executor, THREADS),
    (to_thread, THREADS),
    (connection, ACTIVITY),
    (server, ACTIVITY),
    (unix_connection, ACTIVITY),
    (name_lookup, ACTIVITY),
    (process, ACTIVITY),
    (shell, ACTIVITY),
    (reader, ACTIVITY),
    (signal_handler, ACTIVITY),
    (other_thread, "client.send_signal"),
    (stopping, "return from the workflow instead"),
    (running_within, "await instead"),
]


@pytest.mark.parametrize(("attempt", "instead"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_what_touches_the_world_is_refused_and_the_way_out_is_named(
    begin: Begin, attempt: Attempt, instead: str
) -> None:
    async def tries(ctx: WorkflowContext) -> None:
        await attempt(asyncio.get_running_loop())

    error = begin(tries).error
    assert error.type == NotInWorkflowError.__name__
    assert "could not be replayed" in error.message
    assert instead in error.message


def test_every_way_of_asyncio_to_reach_the_world_is_refused_by_name() -> None:
    worldly = ("sock_", "subprocess_", "connect_", "create_", "add_", "remove_", "start_", "run_", "sendfile", "get")
    ways = {name for name in vars(asyncio.AbstractEventLoop) if name.startswith(worldly)}
    harmless = {"get_task_factory", "get_exception_handler"}  # not there, and nothing that a replay would miss
    assert ways - harmless - vars(loop_module.WorkflowLoop).keys() == set()


def test_asyncio_run_is_refused_by_asyncio_itself(begin: Begin) -> None:
    async def runs(ctx: WorkflowContext) -> None:
        coroutine = asyncio.sleep(0)
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()

    assert "asyncio.run() cannot be called from a running event loop" in begin(runs).error.message


def test_a_real_loop_cannot_be_run_inside(begin: Begin) -> None:
    async def runs(ctx: WorkflowContext) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(loop.create_future())
        finally:
            loop.close()

    assert "another loop is running" in begin(runs).error.message


# --- code that never comes to rest -----------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spinning workflow is recognised after a thousand callbacks instead of a million."""
    monkeypatch.setattr(loop_module, "MAX_CALLBACKS_PER_DRAIN", 1000)


@pytest.mark.usefixtures("impatient")
def test_a_workflow_that_spins_fails_and_is_told_what_to_wait_with(begin: Begin) -> None:
    async def spins(ctx: WorkflowContext) -> None:
        while True:  # noqa: ASYNC110  # the mistake that is tested
            await asyncio.sleep(0)

    error = begin(spins).error
    assert error.type == "NotInWorkflowError"
    assert error.message == (
        "the workflow spins: it never waits for anything durable. Wait with asyncio.sleep, a signal or an activity"
    )


@pytest.mark.usefixtures("impatient")
def test_a_workflow_that_begins_to_spin_later_fails_then(begin: Begin) -> None:
    async def spins_after(ctx: WorkflowContext) -> None:
        await ctx.wait_for_signal("go")
        await asyncio.gather(*(spin() for _ in range(2)))

    async def spin() -> None:
        while True:  # noqa: ASYNC110  # the mistake that is tested
            await asyncio.sleep(0)

    assert "the workflow spins" in begin(spins_after).signal("go").error.message


@pytest.mark.usefixtures("impatient")
@pytest.mark.timeout(20)
def test_conditions_that_make_each_other_true_for_ever_are_a_spin_as_well(begin: Begin) -> None:
    async def ping_pong(ctx: WorkflowContext) -> None:
        turn = [0]

        async def play(mine: int) -> None:
            while True:
                await ctx.wait_until(lambda: turn[0] == mine)
                turn[0] = 1 - mine

        await asyncio.gather(play(0), play(1))

    assert "the workflow spins" in begin(ping_pong).error.message


@pytest.mark.usefixtures("impatient")
def test_a_large_fan_out_within_the_bound_is_no_spin(begin: Begin) -> None:
    async def wide(ctx: WorkflowContext) -> None:
        await asyncio.gather(*(ctx.sleep(5) for _ in range(400)))

    assert len(begin(wide).timers) == 400
