"""The deterministic event loop that workflow code runs on.

A FIFO ready queue and nothing else: no selector, no threads, no clock. It is stepped by hand inside the real loop
(`drain` runs until nothing is ready), its time is set by whoever steps it, and `call_at` asks the journal for a
durable timer. So `asyncio.sleep`, `timeout`, `wait_for`, `gather`, `wait`, `TaskGroup`, `Event`, `Lock`, `Queue` and
`Semaphore` are durable as they stand, and behave the same in every replay.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from ..clock import moment
from ..errors import NotInWorkflowError, QueryError, Suspended
from .commands import StartTimer
from .journal import Journal

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_CALLBACKS_PER_DRAIN = 1_000_000
"""Past this many callbacks without coming to rest the workflow is taken to spin for ever."""

_CLOSE_ATTEMPTS = 16

_LEAST_LAG, MOST_LAG = 0.001, 1.0
"""Seconds by which the code runs later than its own time. A wait is put off by so much, so that nobody sleeps shorter
than asked. Code that was brought back to where it was may be later by more, which is the time that it lay dead, and
during which it would have slept."""


class WorkflowFuture(asyncio.Future[T]):
    """A future whose hash is its number in the run, so that a set of them has the same order in every replay."""

    def __init__(self, *, loop: WorkflowLoop) -> None:
        super().__init__(loop=loop)
        loop._number = self._number = loop._number + 1

    def __hash__(self) -> int:
        return self._number


class WorkflowTask(asyncio.Task[T]):
    """A task whose hash is its number in the run: TaskGroup and asyncio.wait keep tasks in sets and cancel them in
    set order."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, loop: WorkflowLoop, name: str | None, **options: Any) -> None:
        self._number = loop.next_number()
        super().__init__(coro, loop=loop, name=name or f"Task-{self._number}", **options)
        # A run that is put away leaves its tasks pending on purpose.
        self._log_destroy_pending = False
        # asyncio keeps all tasks of the process in one WeakSet, where small equal hashes of many runs would collide.
        asyncio.tasks._unregister_task(self)

    def __hash__(self) -> int:
        return self._number


class WorkflowTimer(asyncio.TimerHandle):
    """A timer handle that knows its command. asyncio's own are equal, and hash alike, when they wake the same at the
    same time."""

    command_id: int | None = None


class WorkflowLoop(asyncio.AbstractEventLoop):
    """One run's event loop. `time` is in seconds since the epoch and moves only when its owner sets `now`."""

    def __init__(self, journal: Journal, *, now: float, on_error: Callable[[dict[str, Any]], None]) -> None:
        self.now = now
        self.live: float | None = None
        """The moment at which the code really runs, by its owner's clock; None while it repeats what it has done."""
        self.most_lag = MOST_LAG
        self.closed = False
        self.user_code: Any = None
        """The coroutine of the workflow function, which the first task awaits."""
        self._journal = journal
        self._on_error = on_error
        self._ready: deque[asyncio.Handle] = deque()
        self._number = 0
        self._beginning = 0
        """How many tasks are being made, each of which may begin at once (eager_start)."""
        self.turns = 0
        """How many callbacks have run since the code met an event."""
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 64
        self._generators: list[Any] = []
        self._prune_generators_at = 64

    def next_number(self) -> int:
        """The next number for a task, future or step of this run."""
        self._number += 1
        return self._number

    @property
    def is_alone(self) -> bool:
        """Whether the task that is running would be the next to run, were it woken now."""
        task = asyncio.current_task(self)
        if self._ready or self._beginning or type(task) is not WorkflowTask:
            return False  # one of another class was begun inside another task's turn (eager_start), which goes on first
        return not task._must_cancel  # type: ignore[attr-defined]  # typeshed does not know it

    # --- stepping, for the owner --------------------------------------------------------------

    def drain(self, when_at_rest: Callable[[], None]) -> None:
        """Run callbacks in order until none is ready, not even after `when_at_rest()`; only inside `running()`.

        Raises NotInWorkflowError when they never come to rest.
        """
        ready, self.turns = self._ready, 0
        while self.turns < MAX_CALLBACKS_PER_DRAIN:
            self.turns += 1
            if not ready:
                when_at_rest()
            if not ready or self._journal.mismatch is not None:
                return
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        raise NotInWorkflowError(
            "the workflow spins: it never waits for anything durable. Wait with asyncio.sleep, a signal or an activity"
        )

    def close(self) -> None:
        """Put the execution away. `finally` blocks that this wakes find that every request raises Suspended."""
        self.closed = self._journal.closed = True
        self._ready.clear()
        with self.running():
            for task in self._tasks:  # what wakes may add tasks, which never start
                if not task.done():
                    asyncio._enter_task(self, task)  # TaskGroup and timeout refuse to begin where there is none
                    if self.user_code is not None:
                        # First: where it does not let itself be closed, whoever awaits it would be rid of it.
                        _close(self.user_code)
                        self.user_code = None
                    _close(task.get_coro())
                    asyncio._leave_task(self, task)
        self._tasks.clear()
        self._generators.clear()

    def running(self) -> _Running:
        """Be the running loop, nested inside the real one, without a current task; then put everything back."""
        self._journal.outside = sys.exception()
        return _Running(self)

    def _keep(self, generator: AsyncGenerator[Any, Any]) -> None:
        if len(self._generators) >= self._prune_generators_at:
            self._generators = [one for one in self._generators if one.ag_frame is not None]
            self._prune_generators_at = 2 * len(self._generators) + 64
        self._generators.append(generator)

    # --- what asyncio asks of a loop ----------------------------------------------------------

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.closed

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if self._journal.read_only:
            self._journal.refuse_when_looking()
        handle = asyncio.Handle(callback, args, self, context)
        if not self.closed:
            self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = WorkflowTimer(when, callback, args, self, context)
        if when <= self.now:
            if not self.closed:
                self._ready.append(timer)
            return timer
        timer.command_id = self._journal.next_id()
        command = StartTimer(id=timer.command_id, due=moment(when))
        pending = self._journal.issue(command, lambda event: self._ready.append(timer))
        if (
            self.live is not None
            and not pending.recorded
            and _LEAST_LAG <= (lag := self.live - self.now) < self.most_lag
        ):
            pending.delay = timedelta(seconds=lag)
        return timer

    def wake_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts) -> asyncio.TimerHandle:
        """`call_at` for a moment of the calendar: however late it was asked for, it is that moment."""
        live, self.live = self.live, None
        try:
            return self.call_at(when, callback, *args)
        finally:
            self.live = live

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if isinstance(handle, WorkflowTimer) and handle.command_id is not None:
            self._journal.withdraw(handle.command_id)

    def create_future(self) -> asyncio.Future[Any]:
        if self._journal.closed:
            self._journal.refuse_when_closed()
        return WorkflowFuture(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        try:
            self._journal.refuse_when_closed()
            self._journal.refuse_when_looking()
        except (Suspended, QueryError):
            coro.close()
            raise
        if sys._getframe(1).f_code is _ENSURE_FUTURE and _hashed_by_address(coro) and _called_by_as_completed():
            coro.close()
            raise NotInWorkflowError(
                "asyncio.as_completed starts bare coroutines in the order of their memory addresses, which no replay "
                "can repeat: wrap each in asyncio.create_task first"
            )
        self._beginning += 1
        try:
            task = WorkflowTask(coro, loop=self, name=name, context=context, **options)
        finally:
            self._beginning -= 1
        if len(self._tasks) >= self._prune_at and not self.closed:
            self._tasks = [one for one in self._tasks if not one.done()]
            self._prune_at = 2 * len(self._tasks) + 64
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.closed:
            self._on_error(context)

    async def shutdown_asyncgens(self) -> None:
        return None


class _Running:
    """`WorkflowLoop.running()`. A class, since it is entered once an event."""

    __slots__ = ("_hooks", "_loop", "_outer", "_task")

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._outer = outer = asyncio._get_running_loop()
        self._task = task = asyncio.current_task(outer) if outer is not None else None
        self._hooks = sys.get_asyncgen_hooks()
        if outer is not None and task is not None:
            asyncio._leave_task(outer, task)
        asyncio._set_running_loop(self._loop)
        # An async generator that is dropped half-way would be finalised by the garbage collector, whenever that runs,
        # and might ask for things then: keep each one alive as long as the run is here.
        sys.set_asyncgen_hooks(firstiter=self._loop._keep, finalizer=_leave_alone)

    def __exit__(self, *raised: object) -> None:
        sys.set_asyncgen_hooks(*self._hooks)
        asyncio._set_running_loop(self._outer)
        if self._outer is not None and self._task is not None:
            asyncio._enter_task(self._outer, self._task)


def _leave_alone(generator: AsyncGenerator[Any, Any]) -> None:
    pass


def _close(coro: Any) -> None:
    for _ in range(_CLOSE_ATTEMPTS):
        try:
            coro.close()
            return
        except BaseException:
            pass  # a `finally` that awaits makes this a RuntimeError, and leaves the coroutine suspended further on
    # It swallows whatever is thrown at it, in a loop. Collected as garbage, at the latest when the process ends, it
    # would do so where no loop of ours makes it wait, and spin for ever. Nothing can end it: so it is never collected.
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))


# In 3.11 there is one behind the other.
_ENSURE_FUTURE = getattr(asyncio.tasks, "_ensure_future", asyncio.ensure_future).__code__
_AS_COMPLETED = {"as_completed", "_AsCompletedIterator"}


def _hashed_by_address(coro: Any) -> bool:
    cls: Any = type(coro)
    return cls.__hash__ is object.__hash__


def _called_by_as_completed() -> bool:
    frame = sys._getframe(2).f_back
    for _ in range(3):
        if frame is None or not frame.f_code.co_filename.endswith("tasks.py"):
            return False
        if frame.f_code.co_qualname.split(".")[0] in _AS_COMPLETED:
            return True
        frame = frame.f_back
    return False


def _forbid(name: str, instead: str) -> None:
    def refuse(self: WorkflowLoop, *args: Any, **kwargs: Any) -> NoReturn:
        problem = f"loop.{name} does not work inside a workflow, because it could not be replayed"
        raise NotInWorkflowError(f"{problem}: {instead}")

    refuse.__name__ = name
    setattr(WorkflowLoop, name, refuse)


_ACTIVITY = "do it in an activity (`await ctx.execute_activity(...)`)"
for _name, _instead in {
    "run_in_executor": f"threads (asyncio.to_thread) belong in activities; {_ACTIVITY}",
    "call_soon_threadsafe": "other threads reach a workflow by a signal (`client.send_signal`)",
    "run_until_complete": "workflow code already runs inside a loop; await instead",
    "run_forever": "workflow code already runs inside a loop; await instead",
    "stop": "return from the workflow instead",
    **dict.fromkeys(
        (
            "getaddrinfo", "getnameinfo", "create_connection", "create_server", "start_tls", "sendfile",
            "sock_sendfile", "create_unix_connection", "create_unix_server", "connect_accepted_socket",
            "create_datagram_endpoint", "connect_read_pipe", "connect_write_pipe", "subprocess_shell",
            "subprocess_exec", "add_reader", "remove_reader", "add_writer", "remove_writer", "sock_recv",
            "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto", "sock_connect",
            "sock_accept", "add_signal_handler", "remove_signal_handler",
        ),
        _ACTIVITY,
    ),
}.items():  # fmt: skip
    _forbid(_name, _instead)
