"""One attempt of one activity: the call, its time limits, its heartbeats, and the event that it ends in.

Never raises for what user code does: success, failure (with the time of the next attempt, if any) and cancellation
are all events. How long it may take is held by limits.py; sync functions run in threads (threads.py).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from .clock import Clock, SystemClock, seconds
from .engine.commands import ActivityAttempt, ExecuteActivity
from .engine.history import ActivityCancelled, ActivityCompleted, ActivityFailed
from .errors import ConfigurationError, PayloadTooLargeError, RetryAfter, SerializationError
from .limits import Limits
from .serialization import Codec, digest, stored_size
from .threads import Threads

MAX_CONCURRENT = 100
"""How many activities one process works on at a time unless told otherwise; the rest wait their turn."""

MAX_HEARTBEAT_BYTES = 64_000
"""Encoded details of a heartbeat: they have to fit into one event together with an error."""

_LONGEST_DELAY_SECONDS = 10 * 365 * 86_400.0
_PLAIN = (str, int, float, bool, type(None))

AttemptEnded = ActivityCompleted | ActivityFailed | ActivityCancelled


class ActivityContext:
    """What an activity may know about the attempt that it is."""

    def __init__(
        self,
        attempt: ActivityAttempt,
        codec: Codec,
        on_heartbeat: Callable[[str], None],
        clock: Clock | None = None,
    ) -> None:
        self.run_id = attempt.run_id
        self.activity_id = str(attempt.command.id)
        self.attempt = attempt.number
        self.idempotency_key = attempt.idempotency_key
        """The same for every attempt of this step and different for any two steps: hand it to outside services."""
        self.clock = clock or SystemClock()
        """By which the run's times are told; in a test it is virtual."""
        self._name = attempt.command.activity.name
        self._earlier = attempt.heartbeat
        self._codec = codec
        self._on_heartbeat = on_heartbeat
        self._loop = asyncio.get_running_loop()
        self._alive_at = self._loop.time()
        self._details: str | None = None
        self._told: str | None = None
        self._is_telling = False
        self._is_over = False
        self._is_cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more (cancelled, timed out). A long sync activity should look now
        and then."""
        return self._is_cancelled

    @property
    def last_heartbeat(self) -> Any:
        """The latest details that an attempt before this one has reported; None when there are none. Raises
        SerializationError when their class is gone."""
        return None if self._earlier is None else self._codec.decode(self._earlier)

    def heartbeat(self, details: Any = None) -> None:
        """Say that the attempt is alive (see `heartbeat_timeout`) and, with `details`, how far it has come: the next
        attempt finds the latest of them in `last_heartbeat`.

        Cheap, for any thread; does nothing once the attempt is over. Raises SerializationError for details that cannot
        be stored, and PayloadTooLargeError (one of them) above MAX_HEARTBEAT_BYTES.
        """
        if self._is_over:
            return
        if details is not None:
            self._details = self._encoded(details)
        self._alive_at = self._loop.time()
        if self._details != self._told and not self._is_telling:
            self._is_telling = True  # one call is under way at most, however often this is called
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:
                pass  # the loop is closed: nobody listens any more

    def _encoded(self, details: Any) -> str:
        try:
            text = self._codec.encode(details)
            if (size := stored_size(text)) > MAX_HEARTBEAT_BYTES:
                raise PayloadTooLargeError(
                    f"the value takes {size} bytes, over the limit of {MAX_HEARTBEAT_BYTES}; "
                    "store it elsewhere and pass a reference"
                )
        except SerializationError as error:
            problem = f"heartbeat of activity {self._name!r} (step {self.activity_id}) cannot be stored: {error}"
            raise type(error)(problem) from None
        return text

    def _tell(self) -> None:
        self._is_telling = False  # before looking: a thread that comes in between calls once more
        details = self._details
        if details is not None and details != self._told and not self._is_over:
            self._told = details
            self._on_heartbeat(details)

    def _cancel(self) -> None:
        self._is_cancelled = True

    def _end(self) -> None:
        self._is_over = self._is_cancelled = True


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
        self._threads = Threads()
        self._replaced = dict(replaced or {})

    async def __call__(
        self,
        attempt: ActivityAttempt,
        on_start: Callable[[], None] = lambda: None,
        on_heartbeat: Callable[[str], None] = lambda details: None,
    ) -> AttemptEnded:
        """Make the attempt when its turn comes, which `on_start` is told. Cancel the calling task to withdraw it; the
        event then says how it ended.

        `on_heartbeat` is called in the event loop's thread, with the latest details as JSON text, soon after they have
        changed; never after the attempt has ended.
        """
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            return self._cancelled(attempt)
        try:
            on_start()
            return await self._attempt(attempt, ActivityContext(attempt, self._codec, on_heartbeat, self._clock))
        finally:
            self._slots.release()

    async def _attempt(self, attempt: ActivityAttempt, context: ActivityContext) -> AttemptEnded:
        started_at = self._clock.now()
        command = attempt.command
        limits = Limits(attempt, started_at, alive_at=lambda: context._alive_at)
        try:
            value = await self._call(command, context, limits)
            result = self._encode(command, value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                return self._cancelled(attempt)
            stopped = RuntimeError(f"activity {command.activity.name!r} cancelled itself: {error}")
            return self._failed(attempt, started_at, stopped, context, limits)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in an activity fails the activity, not the function
            return self._failed(attempt, started_at, error, context, limits)
        finally:
            context._end()
        return ActivityCompleted(
            at=self._clock.now(), attempt=attempt.number, started_at=started_at, result=result, **command.about()
        )

    async def _call(self, command: ExecuteActivity, context: ActivityContext, limits: Limits) -> Any:
        args, kwargs = self._arguments(command)
        activity = command.activity
        token = _current.set(context)
        try:
            async with limits:
                fn = self._replaced.get(activity.name, activity.fn)
                if _is_async(fn):
                    return await fn(*args, **kwargs)
                value = await self._threads.run(lambda: fn(*args, **kwargs), on_cancel=context._cancel)
                # A callable object or a lambda does not show that what it returns is to be awaited.
                return await value if inspect.isawaitable(value) else value
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

    def _failed(
        self,
        attempt: ActivityAttempt,
        started_at: datetime,
        error: BaseException,
        context: ActivityContext,
        limits: Limits,
    ) -> ActivityFailed:
        now = self._clock.now()
        retry_at = None if limits.total_is_spent else _retry_at(attempt, error, started_at, now)
        return ActivityFailed(
            at=now,
            attempt=attempt.number,
            started_at=started_at,
            error=self._codec.failure(error),
            retry_at=retry_at,
            heartbeat=context._details or (attempt.heartbeat if retry_at else None),
            **attempt.command.about(),
        )

    def _cancelled(self, attempt: ActivityAttempt) -> ActivityCancelled:
        return ActivityCancelled(at=self._clock.now(), **attempt.command.about())


@functools.lru_cache(maxsize=1000)
def _known_to_be_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn)


def _is_async(fn: Callable[..., Any]) -> bool:
    try:
        return _known_to_be_async(fn)
    except TypeError:  # a callable object that has no hash
        return inspect.iscoroutinefunction(fn)


def _retry_at(attempt: ActivityAttempt, error: BaseException, started_at: datetime, now: datetime) -> datetime | None:
    activity = attempt.command.activity
    policy = activity.retry_policy
    if activity.at_most_once:
        return None
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
    return retry_at if activity.is_in_time(retry_at, attempt.first_started_at or started_at) else None
