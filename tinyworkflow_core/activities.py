"""One attempt of one activity: the call, its timeout, and the event that it ends in.

Never raises for what user code does: success, failure (with the time of the next attempt, if any) and cancellation
are all events. Sync functions run in threads, never on the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import queue
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from .clock import Clock, seconds
from .engine.commands import WITHDRAWN, ActivityAttempt, ExecuteActivity
from .engine.history import ActivityCancelled, ActivityCompleted, ActivityFailed
from .errors import ConfigurationError, RetryAfter, SerializationError
from .serialization import Codec, digest

MAX_CONCURRENT = 100
"""How many activities one process works on at a time unless told otherwise; the rest wait their turn."""

_IDLE_THREAD_SECONDS = 30.0
_LONGEST_DELAY_SECONDS = 10 * 365 * 86_400.0
_PLAIN = (str, int, float, bool, type(None))

AttemptEnded = ActivityCompleted | ActivityFailed | ActivityCancelled


class ActivityContext:
    """What an activity may know about the attempt that it is."""

    def __init__(self, attempt: ActivityAttempt) -> None:
        self.run_id = attempt.run_id
        self.activity_id = str(attempt.command.id)
        self.attempt = attempt.number
        self.idempotency_key = attempt.idempotency_key
        """The same for every attempt of this step and different for any two steps: hand it to outside services."""
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more (cancelled, timed out). A long sync activity should look now
        and then."""
        return self._cancelled.is_set()


_current: contextvars.ContextVar[ActivityContext] = contextvars.ContextVar("tinyworkflow_activity")


def activity_context() -> ActivityContext:
    """The attempt that is calling. Raises ConfigurationError outside of a running activity."""
    try:
        return _current.get()
    except LookupError:
        raise ConfigurationError("activity_context() works only inside a running activity") from None


class ActivityRunner:
    """Makes attempts, at most `max_concurrent` at a time."""

    def __init__(
        self,
        *,
        codec: Codec,
        clock: Clock,
        max_concurrent: int = MAX_CONCURRENT,
        replaced: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        if max_concurrent < 1:
            raise ConfigurationError(f"max_concurrent activities must be at least 1, not {max_concurrent}")
        self._codec = codec
        self._clock = clock
        self._slots = asyncio.Semaphore(max_concurrent)
        self._threads = _Threads()
        self._replaced = dict(replaced or {})

    async def __call__(self, attempt: ActivityAttempt, on_start: Callable[[], None] = lambda: None) -> AttemptEnded:
        """Make the attempt when its turn comes, which `on_start` is told. Cancel the calling task to withdraw it; the
        event then says how it ended."""
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            return self._cancelled(attempt)
        try:
            on_start()
            return await self._attempt(attempt)
        finally:
            self._slots.release()

    async def _attempt(self, attempt: ActivityAttempt) -> AttemptEnded:
        started_at = self._clock.now()
        command = attempt.command
        context = ActivityContext(attempt)
        try:
            value = await self._call(command, context)
            result = self._encode(command, value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                return self._cancelled(attempt)
            return self._failed(
                attempt, started_at, RuntimeError(f"activity {command.activity.name!r} cancelled itself: {error}")
            )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in an activity fails the activity, not the function
            return self._failed(attempt, started_at, error)
        finally:
            context._cancelled.set()
        return ActivityCompleted(
            at=self._clock.now(), attempt=attempt.number, started_at=started_at, result=result, **command.about()
        )

    async def _call(self, command: ExecuteActivity, context: ActivityContext) -> Any:
        args, kwargs = self._arguments(command)
        activity = command.activity
        scope = asyncio.timeout(activity.timeout)
        token = _current.set(context)
        try:
            async with scope:
                fn = self._replaced.get(activity.name, activity.fn)
                if inspect.iscoroutinefunction(fn):
                    return await fn(*args, **kwargs)
                value = await self._threads.run(lambda: fn(*args, **kwargs), on_cancel=context._cancelled.set)
                # A callable object or a lambda does not show that what it returns is to be awaited.
                return await value if inspect.isawaitable(value) else value
        except TimeoutError:
            if scope.expired():
                raise TimeoutError(f"activity {activity.name!r} timed out after {activity.timeout:g} s") from None
            raise
        finally:
            _current.reset(token)

    def _arguments(self, command: ExecuteActivity) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # An activity that changes an argument must not change the workflow's own value: no replay would repeat that.
        if not command.kwargs and all(type(one) in _PLAIN for one in command.args):
            return command.args, command.kwargs
        args, *kwargs = self._codec.decode(command.input)
        return tuple(args), kwargs[0] if kwargs else {}

    def _encode(self, command: ExecuteActivity, value: Any) -> str:
        try:
            return self._codec.encode(value)
        except SerializationError as error:
            problem = f"result of activity {command.activity.name!r} (step {command.id}) cannot be stored: {error}"
            raise type(error)(problem) from None

    def _failed(self, attempt: ActivityAttempt, started_at: datetime, error: BaseException) -> ActivityFailed:
        now = self._clock.now()
        return ActivityFailed(
            at=now,
            attempt=attempt.number,
            started_at=started_at,
            error=self._codec.failure(error),
            retry_at=_retry_at(attempt, error, started_at, now),
            **attempt.command.about(),
        )

    def _cancelled(self, attempt: ActivityAttempt) -> ActivityCancelled:
        return ActivityCancelled(at=self._clock.now(), **attempt.command.about())


def _retry_at(attempt: ActivityAttempt, error: BaseException, started_at: datetime, now: datetime) -> datetime | None:
    policy = attempt.command.activity.retry_policy
    # Chance as a function of the attempt's position: the policy stays pure and a test can foretell it.
    chance = int(digest(f"{attempt.idempotency_key}/{attempt.number}")[:8], 16) / 2**32
    delay = policy.delay(attempt.number, chance=chance)
    if delay is None or not policy.retries(error):
        return None
    if isinstance(error, RetryAfter):
        try:
            delay = seconds(error.delay)
        except (ValueError, TypeError):  # a moment that has passed, or nonsense from a service: the policy's own delay
            pass
    retry_at = now + timedelta(seconds=min(delay, _LONGEST_DELAY_SECONDS))
    first = attempt.first_started_at or started_at
    if policy.total is not None and (retry_at - first).total_seconds() > seconds(policy.total):
        return None
    return retry_at


class _Threads:
    """Threads that come when needed, leave when idle, and never hold up the end of the process.

    The pool of concurrent.futures waits at exit for its threads, so one activity that hangs would hang the process.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    async def run(self, fn: Callable[[], Any], *, on_cancel: Callable[[], None]) -> Any:
        """Call `fn` in a thread, in a copy of the current context.

        A thread cannot be stopped. When the call is withdrawn, `on_cancel` tells the function and its end is waited
        for; any other cancellation (timeout, end of the process) leaves the thread to itself.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def call() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = context.run(fn)
            except (StopIteration, GeneratorExit) as stop:  # neither can be passed on through an await
                error = RuntimeError(f"the activity raised {type(stop).__name__}: {stop}")
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(_end, ended, result, error)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        if self._pid != os.getpid():  # a fork copies the marks of idle threads, but not the threads
            self._begin()
        self._calls.put(call)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._work, name="tinyworkflow-activity", daemon=True).start()
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError as cancelled:
            on_cancel()
            if cancelled.args == (WITHDRAWN,):
                await asyncio.wait([ended])
            raise
        finally:
            ended.add_done_callback(_ignore)

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=_IDLE_THREAD_SECONDS)
            except queue.Empty:
                # Whoever counted on this thread has taken its idle mark already: look once more.
                if self._idle.acquire(blocking=False):
                    return
                continue
            call()
            self._idle.release()


def _ignore(future: asyncio.Future[Any]) -> None:
    # The outcome of a call that nobody waits for any more is not worth a warning.
    if not future.cancelled():
        future.exception()


def _end(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
