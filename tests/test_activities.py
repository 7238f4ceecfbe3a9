"""One attempt of one activity."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from tinyworkflow_core import ActivityContext, RetryAfter, RetryPolicy, activity, activity_context
from tinyworkflow_core.activities import MAX_HEARTBEAT_BYTES, ActivityRunner
from tinyworkflow_core.engine.commands import WITHDRAWN, ActivityAttempt, ExecuteActivity
from tinyworkflow_core.engine.history import ActivityCancelled, ActivityCompleted, ActivityFailed
from tinyworkflow_core.errors import ConfigurationError, HeartbeatTimeoutError, SerializationError
from tinyworkflow_core.serialization import Codec, digest
from tinyworkflow_core.testing import START, VirtualClock

CODEC = Codec()


def attempt(
    fn: Any,
    *args: Any,
    number: int = 1,
    heartbeat: str | None = None,
    first_started_at: datetime | None = None,
    **kwargs: Any,
) -> ActivityAttempt:
    text = CODEC.encode([list(args), kwargs] if kwargs else [list(args)])
    command = ExecuteActivity(id=1, activity=fn, args=args, kwargs=kwargs, input=text, digest=digest(text))
    return ActivityAttempt(
        run_id="run-1",
        generation=0,
        command=command,
        number=number,
        heartbeat=heartbeat,
        first_started_at=first_started_at,
    )


async def failed(one: ActivityAttempt, **options: Any) -> ActivityFailed:
    """The failure that the attempt ends in."""
    event = await runner()(one, **options)
    assert isinstance(event, ActivityFailed), event
    return event


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


async def test_retry_after_may_be_longer_than_the_longest_delay_but_not_than_the_total_time() -> None:
    @activity(retry_policy=RetryPolicy(max_delay=60, total=300))
    async def busy(delay: float) -> None:
        raise RetryAfter(delay)

    for delay, retry_at in ((299, START + timedelta(seconds=299)), (300, START + timedelta(seconds=300)), (301, None)):
        assert (await failed(attempt(busy, delay))).retry_at == retry_at


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


# --- at most once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), RetryAfter(1)])
async def test_an_at_most_once_activity_is_never_tried_again_whatever_the_policy_or_the_error_says(
    error: Exception,
) -> None:
    @activity(at_most_once=True, retry_policy=RetryPolicy(max_retries=9))
    async def fire() -> None:
        raise error

    assert (await failed(attempt(fire))).retry_at is None
    assert (await failed(attempt(fire.options(at_most_once=False)))).retry_at is not None


# --- the time of a whole step ------------------------------------------------------------------------
# The time of a running attempt is the event loop's, which no clock of ours can move: hence short real waits.


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_step_that_takes_longer_than_its_total_time_fails_for_good_and_says_so(kind: str) -> None:
    release = threading.Event()

    async def hang() -> None:
        await asyncio.sleep(60)

    fn = hang if kind == "async" else release.wait
    slow = activity(name="slow", total_timeout=0.1, retry_policy=RetryPolicy(initial_delay=0))(fn)
    began = time.monotonic()
    event = await failed(attempt(slow))
    release.set()
    assert 0.1 <= time.monotonic() - began < 5
    assert event.error.type == "TimeoutError"
    assert "'slow' timed out: its total_timeout of 0.1 s" in event.error.message
    assert event.retry_at is None


async def test_an_attempt_gets_what_earlier_attempts_have_left_of_the_total_time() -> None:
    @activity(timeout=30, total_timeout=60)
    async def hang() -> None:
        await asyncio.sleep(60)

    begun = START - timedelta(seconds=59.9)  # by the clock of the run: 0.1 s is left
    event = await asyncio.wait_for(failed(attempt(hang, number=2, first_started_at=begun)), 5)
    assert "total_timeout of 60 s" in event.error.message


async def test_the_shorter_of_the_two_timeouts_counts_and_is_named() -> None:
    @activity(timeout=0.1, total_timeout=60)
    async def hang() -> None:
        await asyncio.sleep(60)

    event = await failed(attempt(hang))
    assert event.error.message == "activity 'hang' timed out after 0.1 s"
    assert event.retry_at is not None


async def test_an_attempt_for_which_no_time_is_left_is_not_begun() -> None:
    called = []

    @activity(total_timeout=10)
    async def late() -> None:
        called.append(1)

    event = await failed(attempt(late, number=2, first_started_at=START - timedelta(seconds=10)))
    assert ("total_timeout of 10 s" in event.error.message, event.retry_at, called) == (True, None, [])


@pytest.mark.parametrize(("total", "is_retried"), [(9.9, False), (10, False), (10.1, True)])
async def test_no_retry_is_planned_past_the_total_time(total: float, is_retried: bool) -> None:
    @activity(total_timeout=total, retry_policy=RetryPolicy(initial_delay=6, jitter=False))
    async def fails() -> None:
        raise ValueError

    event = await failed(attempt(fails, first_started_at=START - timedelta(seconds=4)))
    assert event.error.type == "ValueError"
    assert (event.retry_at == START + timedelta(seconds=6)) is is_retried
    assert (event.retry_at is not None) is is_retried


async def test_a_step_whose_time_is_up_is_not_retried_for_the_error_it_makes_of_that() -> None:
    @activity(total_timeout=0.1, retry_policy=RetryPolicy(initial_delay=0))
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("mine") from None

    event = await failed(attempt(stubborn))
    assert (event.error.message, event.retry_at) == ("mine", None)


async def test_an_activitys_own_timeout_error_is_told_apart_from_its_limits() -> None:
    @activity(timeout=60, total_timeout=120, heartbeat_timeout=60)
    async def asks() -> None:
        raise TimeoutError("the service did not answer")

    event = await failed(attempt(asks))
    assert event.error.message == "the service did not answer"
    assert event.retry_at is not None


# --- heartbeats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_attempt_that_gives_no_heartbeat_for_too_long_fails_by_name(kind: str) -> None:
    release, contexts = threading.Event(), []

    def hang_in_a_thread() -> None:
        contexts.append(activity_context())
        release.wait()

    async def hang() -> None:
        contexts.append(activity_context())
        await asyncio.sleep(60)

    mute = activity(name="mute", heartbeat_timeout=0.1)(hang if kind == "async" else hang_in_a_thread)
    began = time.monotonic()
    event = await asyncio.wait_for(failed(attempt(mute)), 5)
    waited = time.monotonic() - began
    assert waited >= 0.1
    assert contexts[0].cancelled  # a careful sync activity can see it
    release.set()
    error = CODEC.exception(event.error)
    assert type(error) is HeartbeatTimeoutError
    assert str(error) == "activity 'mute' gave no heartbeat for 0.1 s (heartbeat_timeout)"
    assert event.retry_at is not None


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_heartbeats_keep_an_attempt_alive_and_the_time_counts_from_the_last(kind: str) -> None:
    limit, busy = 0.3, 0.45  # silent only after half as long again as the limit
    beats: list[float] = []
    release = threading.Event()

    def beat() -> bool:
        activity_context().heartbeat()
        beats.append(time.monotonic())
        return beats[-1] - beats[0] < busy

    def in_a_thread() -> None:
        while beat():
            time.sleep(0.02)  # the work
        release.wait()

    async def works() -> None:
        while beat():  # noqa: ASYNC110  # it is not waiting: the sleep stands for work
            await asyncio.sleep(0.02)
        await asyncio.sleep(60)

    fn = works if kind == "async" else in_a_thread
    event = await asyncio.wait_for(failed(attempt(activity(heartbeat_timeout=limit)(fn))), 5)
    ended = time.monotonic()
    release.set()
    assert event.error.type == "HeartbeatTimeoutError"
    assert beats[-1] - beats[0] >= busy
    assert ended - beats[-1] >= limit - 0.01  # the beat is noted a moment before


async def test_a_step_with_time_left_is_tried_again_after_its_heartbeats_stopped() -> None:
    @activity(total_timeout=60, heartbeat_timeout=0.1)
    async def mute() -> None:
        await asyncio.sleep(60)

    event = await failed(attempt(mute))
    assert event.error.type == "HeartbeatTimeoutError"
    assert event.retry_at is not None


async def test_an_attempt_whose_time_is_up_is_not_called_silent_for_the_time_it_takes_to_end() -> None:
    @activity(timeout=0.1, heartbeat_timeout=0.15)
    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)  # past the moment at which it would have been silent for too long

    event = await failed(attempt(tidy))
    assert event.error.message == "activity 'tidy' timed out after 0.1 s"


async def test_an_attempt_without_a_heartbeat_timeout_may_be_silent_and_one_that_is_done_is_not_watched() -> None:
    @activity
    async def silent() -> str:
        await asyncio.sleep(0.15)
        return "done"

    for one in (silent, silent.options(heartbeat_timeout=10)):
        assert isinstance(await runner()(attempt(one)), ActivityCompleted)
    loop = asyncio.get_running_loop()
    ours = [one for one in loop._scheduled if not one.cancelled()]  # type: ignore[attr-defined]  # no public way to look
    assert [one for one in ours if "Limits" in repr(one)] == []


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_the_details_of_heartbeats_are_told_in_the_loops_thread_when_they_change(kind: str) -> None:
    told: list[tuple[Any, int]] = []
    loop = asyncio.get_running_loop()

    def note(details: str) -> None:
        told.append((CODEC.decode(details), threading.get_ident()))

    def in_a_thread() -> None:
        for details in ({"row": 1}, {"row": 1}, None, {"row": 2}):
            activity_context().heartbeat(details)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)  # the loop has gone round

    async def works() -> None:
        for details in ({"row": 1}, {"row": 1}, None, {"row": 2}):
            activity_context().heartbeat(details)
            await asyncio.sleep(0)

    fn = works if kind == "async" else in_a_thread
    assert isinstance(await runner()(attempt(activity(fn)), on_heartbeat=note), ActivityCompleted)
    here = threading.get_ident()
    assert told == [({"row": 1}, here), ({"row": 2}, here)]


async def test_a_flood_of_heartbeats_is_told_in_few_calls_and_the_latest_is_among_them() -> None:
    told: list[str] = []
    begun, go, flooded, looked = (threading.Event() for _ in range(4))

    @activity
    def flood() -> None:
        begun.set()
        go.wait()
        for number in range(1000):
            activity_context().heartbeat(number)
        flooded.set()
        looked.wait()

    call = asyncio.ensure_future(runner()(attempt(flood), on_heartbeat=told.append))
    await asyncio.to_thread(begun.wait)
    go.set()
    flooded.wait()  # on purpose in the loop's thread: it is busy while the thread reports
    assert told == []
    await asyncio.sleep(0)
    assert told == ["999"]
    looked.set()
    await call


async def test_heartbeats_that_have_nothing_new_to_tell_do_not_wake_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    loop = asyncio.get_running_loop()
    calls, call_soon_threadsafe = [], loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return call_soon_threadsafe(*args, **kwargs)

    @activity
    async def flood() -> None:
        context = activity_context()
        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        for number in range(100):
            context.heartbeat(number)
        await asyncio.sleep(0)
        assert len(calls) == 1
        for _ in range(100):
            context.heartbeat(99)
            context.heartbeat()
        assert len(calls) == 1
        context.heartbeat("another")
        context.heartbeat(99)  # it is back at what was told before anybody looked
        await asyncio.sleep(0)
        assert len(calls) == 2

    event = await runner()(attempt(flood), on_heartbeat=told.append)
    assert isinstance(event, ActivityCompleted), event
    assert told == ["99"]


async def test_what_was_reported_is_copied_at_once() -> None:
    details = {"rows": [1]}

    @activity(retry_policy=RetryPolicy(max_retries=0))
    async def report() -> None:
        activity_context().heartbeat(details)
        details["rows"].append(2)
        raise ValueError

    assert (await failed(attempt(report))).heartbeat == '{"rows":[1]}'


async def test_the_next_attempt_finds_the_last_details_and_the_first_finds_none() -> None:
    seen = []

    @activity
    async def resume() -> None:
        seen.append(activity_context().last_heartbeat)
        raise ValueError

    event = await failed(attempt(resume))
    assert event.heartbeat is None
    when = datetime(2030, 1, 2, tzinfo=START.tzinfo)
    await failed(attempt(resume, number=2, heartbeat=CODEC.encode((7, when))))
    assert seen == [None, (7, when)]


async def test_details_survive_an_attempt_that_reported_none_as_long_as_there_is_a_next() -> None:
    @activity(retry_policy=RetryPolicy(max_retries=1))
    async def fails(details: Any) -> None:
        context = activity_context()
        context.heartbeat(details)
        context.heartbeat()  # alive, and nothing new: what was reported stays
        raise ValueError

    assert (await failed(attempt(fails, None, heartbeat='"old"'))).heartbeat == '"old"'
    assert (await failed(attempt(fails, "new", heartbeat='"old"'))).heartbeat == '"new"'
    last = await failed(attempt(fails, None, number=2, heartbeat='"old"'))
    assert (last.retry_at, last.heartbeat) == (None, None)
    assert (await failed(attempt(fails, "new", number=2))).heartbeat == '"new"'


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (object(), "builtins.object, which cannot be stored"),
        ("x" * MAX_HEARTBEAT_BYTES, f"over the limit of {MAX_HEARTBEAT_BYTES}"),
    ],
)
async def test_details_that_cannot_be_stored_are_an_error_where_they_are_reported(details: Any, words: str) -> None:
    lines = []

    @activity
    def report() -> None:
        activity_context().heartbeat("good")
        try:
            activity_context().heartbeat(details)
        except SerializationError as error:
            lines.append(str(error))
            raise

    event = await failed(attempt(report))
    assert lines == [event.error.message]
    assert lines[0].startswith("heartbeat of activity 'report' (step 1) cannot be stored: ")
    assert words in lines[0]
    assert (event.heartbeat, event.retry_at) == ('"good"', None)


async def test_a_heartbeat_after_the_end_does_nothing() -> None:
    told: list[str] = []
    kept: list[ActivityContext] = []

    @activity
    async def quick() -> None:
        kept.append(activity_context())
        kept[0].heartbeat("too late to be told")

    await runner()(attempt(quick), on_heartbeat=told.append)
    kept[0].heartbeat("over")
    kept[0].heartbeat(object())
    await asyncio.sleep(0)
    assert told == []


def test_a_heartbeat_from_a_thread_that_outlives_the_loop_does_nothing() -> None:
    begun, closed, done = threading.Event(), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    @activity
    def outlive() -> None:
        context = activity_context()
        begun.set()
        closed.wait()
        context._is_over = False  # as if the loop had gone in the middle of the attempt
        try:
            context.heartbeat("anybody there?")
        except BaseException as error:
            raised.append(error)
        done.set()

    async def main() -> None:
        call = asyncio.ensure_future(runner()(attempt(outlive)))
        await asyncio.to_thread(begun.wait)
        call.cancel()
        await call

    asyncio.run(main())
    closed.set()
    assert done.wait(5)
    assert raised == []


async def test_a_withdrawn_sync_activity_that_is_still_tidying_up_is_not_silent() -> None:
    begun, tidied = threading.Event(), threading.Event()

    @activity(heartbeat_timeout=0.2)
    def tidy() -> None:
        context = activity_context()
        begun.set()
        while not context.cancelled:
            context.heartbeat()
            time.sleep(0.001)  # the work
        for _ in range(20):
            context.heartbeat()
            time.sleep(0.02)  # twice the limit in all
        tidied.set()

    call = asyncio.ensure_future(runner()(attempt(tidy)))
    await asyncio.to_thread(begun.wait)
    call.cancel(WITHDRAWN)
    assert isinstance(await call, ActivityCancelled)
    assert tidied.is_set()
