"""One attempt of one activity."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from tinyworkflow_core import ActivityContext, RetryAfter, RetryPolicy, activity, activity_context
from tinyworkflow_core.activities import ActivityRunner
from tinyworkflow_core.engine.commands import WITHDRAWN, ActivityAttempt, ExecuteActivity
from tinyworkflow_core.engine.history import ActivityCancelled, ActivityCompleted, ActivityFailed
from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.serialization import Codec, digest
from tinyworkflow_core.testing import START, VirtualClock

CODEC = Codec()


def attempt(fn: Any, *args: Any, number: int = 1, **kwargs: Any) -> ActivityAttempt:
    text = CODEC.encode([list(args), kwargs] if kwargs else [list(args)])
    command = ExecuteActivity(id=1, activity=fn, args=args, kwargs=kwargs, input=text, digest=digest(text))
    return ActivityAttempt(run_id="run-1", generation=0, command=command, number=number)


def runner(**options: Any) -> ActivityRunner:
    return ActivityRunner(codec=CODEC, clock=VirtualClock(), **options)


async def test_an_activity_that_changes_its_argument_does_not_change_the_workflows_value() -> None:
    @activity
    async def grow(items: list[int], *, more: dict[str, int]) -> int:
        items.append(4)
        more["x"] = 1
        return len(items)

    items, more = [1, 2, 3], {"a": 0}
    event = await runner()(attempt(grow, items, more=more))
    assert isinstance(event, ActivityCompleted)
    assert (event.result, items, more) == ("4", [1, 2, 3], {"a": 0})


async def test_an_activity_knows_which_attempt_it_is_also_in_a_thread() -> None:
    seen: list[ActivityContext] = []

    @activity
    def look() -> None:
        seen.append(activity_context())

    await runner()(attempt(look, number=3))
    assert (seen[0].run_id, seen[0].activity_id, seen[0].attempt) == ("run-1", "1", 3)
    with pytest.raises(ConfigurationError):
        activity_context()


async def test_what_returns_an_awaitable_is_awaited_however_it_was_written() -> None:
    async def answer(number: int) -> int:
        return number

    class Answer:
        async def __call__(self, number: int) -> int:
            return number

    for fn in (lambda number: answer(number + 0), Answer()):
        event = await runner()(attempt(activity(name="odd")(fn), 7))
        assert isinstance(event, ActivityCompleted)
        assert event.result == "7"


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration("x"), GeneratorExit()])
async def test_whatever_an_activity_raises_is_a_failed_attempt(error: BaseException) -> None:
    @activity
    def leave() -> None:
        raise error

    event = await runner()(attempt(leave))
    assert isinstance(event, ActivityFailed)


async def test_an_activity_says_itself_when_to_try_again() -> None:
    @activity(retry_policy=RetryPolicy(max_retries=1))
    async def busy() -> None:
        raise RetryAfter(120)

    event = await runner()(attempt(busy))
    assert isinstance(event, ActivityFailed)
    assert event.retry_at == START + timedelta(seconds=120)
    last = await runner()(attempt(busy, number=2))
    assert isinstance(last, ActivityFailed)
    assert last.retry_at is None


async def test_no_attempt_starts_after_the_total_time_of_the_policy() -> None:
    @activity(retry_policy=RetryPolicy(initial_delay=10, total=15, jitter=False, backoff_multiplier=2))
    async def fails() -> None:
        raise ValueError

    first = await runner()(attempt(fails))
    second = await runner()(attempt(fails, number=2))
    assert isinstance(first, ActivityFailed)
    assert isinstance(second, ActivityFailed)
    assert (first.retry_at, second.retry_at) == (START + timedelta(seconds=10), None)


async def test_a_withdrawn_sync_activity_is_told_and_has_ended_when_the_cancellation_is_reported() -> None:
    begun, ended = threading.Event(), threading.Event()

    @activity
    def long() -> None:
        context = activity_context()
        begun.set()
        while not context.cancelled:
            time.sleep(0.001)  # what a careful long activity does
        ended.set()

    call = asyncio.ensure_future(runner()(attempt(long)))
    await asyncio.to_thread(begun.wait)
    call.cancel(WITHDRAWN)
    assert isinstance(await call, ActivityCancelled)
    assert ended.is_set()


async def test_a_call_that_is_cut_off_does_not_wait_for_a_thread_that_hangs() -> None:
    begun, release = threading.Event(), threading.Event()

    @activity
    def hang() -> None:
        begun.set()
        release.wait()

    call = asyncio.ensure_future(runner()(attempt(hang)))
    await asyncio.to_thread(begun.wait)
    call.cancel()
    assert isinstance(await asyncio.wait_for(call, 5), ActivityCancelled)
    release.set()


async def test_activities_beyond_the_cap_wait_their_turn_and_can_be_withdrawn_there() -> None:
    gate = asyncio.Event()
    started: list[int] = []

    @activity
    async def enter(number: int) -> None:
        started.append(number)
        await gate.wait()

    run = runner(max_concurrent=2)
    calls = [asyncio.ensure_future(run(attempt(enter, number))) for number in range(4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert started == [0, 1]
    calls[2].cancel(WITHDRAWN)
    gate.set()
    events = await asyncio.gather(*calls)
    assert [type(event).__name__ for event in events] == [
        "ActivityCompleted",
        "ActivityCompleted",
        "ActivityCancelled",
        "ActivityCompleted",
    ]
    assert started == [0, 1, 3]


async def test_threads_are_used_again() -> None:
    names: set[str | int] = set()

    @activity
    def where() -> None:
        names.add(threading.get_ident())

    run = runner()
    for _ in range(20):
        await run(attempt(where))
        await asyncio.sleep(0.001)  # the thread marks itself idle after it has answered
    assert len(names) < 5
