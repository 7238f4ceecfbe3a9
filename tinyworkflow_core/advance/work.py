"""Work: what one call has started for its run, and what of it has ended.

Activities and side effects run as asyncio tasks; timers and retries are moments in a heap. Nothing here touches the
store.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Set
from dataclasses import replace
from datetime import datetime
from typing import cast

from ..clock import Clock
from ..engine.commands import WITHDRAWN, ActivityAttempt, ExecuteActivity, RunSideEffect, StartChild, StartTimer
from ..engine.history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityHeartbeat,
    Event,
    SideEffectRecorded,
    TimerFired,
)
from ..engine.journal import Journal, Pending
from ..errors import StepInterruptedError
from ..serialization import Codec
from . import eager

Ended = ActivityCompleted | ActivityFailed | ActivityCancelled
RunActivity = Callable[[ActivityAttempt, Callable[[], None], Callable[[str], None]], Awaitable[Ended]]
"""Makes the attempt; calls the second argument when its turn has come and it begins, the third with the details (JSON
text) of each heartbeat."""


class Work:
    """The started commands of one call. `on_end` is called whenever something has ended."""

    def __init__(
        self,
        *,
        run_id: str,
        generation: int,
        journal: Journal,
        run_activity: RunActivity,
        codec: Codec,
        clock: Clock,
        on_end: Callable[[], None],
    ) -> None:
        self.ended: deque[Event] = deque()
        self.unwanted: list[StartChild] = []
        """Children that are to be told that nobody waits for them any more."""
        self.broken: BaseException | None = None
        """What a runner raised, which none should: the call ends by it."""
        self._run_id = run_id
        self._generation = generation
        self._journal = journal
        self._run_activity = run_activity
        self._codec = codec
        self._clock = clock
        self._on_end = on_end
        self._running: dict[int, asyncio.Task[None]] = {}
        self._started_at: dict[int, datetime] = {}
        self._wakes: list[tuple[datetime, int]] = []
        self._known = 0
        self._stopping = False
        self._begun: set[int] = set()
        self._heartbeats: dict[int, ActivityHeartbeat] = {}

    @property
    def is_running(self) -> bool:
        """Whether an activity or a side effect is at work."""
        return bool(self._running)

    def start_new(self) -> None:
        """Start what the workflow has asked for since the last look, and end what it no longer wants."""
        journal = self._journal
        for command_id in range(self._known + 1, journal.position + 1):
            if (pending := journal.open.get(command_id)) is not None:
                self._start(command_id, pending)
        self._known = max(self._known, journal.position)
        withdrawn, journal.withdrawn = journal.withdrawn, []
        for command_id in withdrawn:
            if (task := self._running.get(command_id)) is not None:
                if not task.cancelling():
                    self._cancel(command_id, task, WITHDRAWN)
            elif (pending := journal.open.get(command_id)) is not None and not self._has_ended(command_id):
                if isinstance(pending.command, StartChild):
                    self.unwanted.append(pending.command)
                else:
                    self.ended.append(self._withdrawn(pending))

    def gives_up(self, now: datetime) -> bool:
        """Whether the time of an attempt elsewhere is over."""
        if (due := self.next_wake()) is None or due > now:
            return False
        return any(one.deadline is not None and one.deadline <= now for one in self._journal.open.values())

    def start_due(self, now: datetime, heard_of: Set[int] = frozenset()) -> None:
        """Fire the timers that are due, and start the attempts that are. Attempts elsewhere whose time is over are
        lost, unless their outcome is at hand: `heard_of`, command ids."""
        while (due := self.next_wake()) is not None and due <= now:
            _, command_id = heapq.heappop(self._wakes)
            pending = self._journal.open[command_id]
            if isinstance(pending.command, StartTimer):
                self.ended.append(TimerFired(at=now, id=command_id, due=pending.command.due))
            elif pending.deadline is not None:
                if pending.deadline <= now and command_id not in heard_of:  # else that was an earlier attempt's
                    self.ended.append(self._lost(pending))
            elif pending.retry_at is not None and pending.retry_at <= now:
                pending.retry_at = None
                self._start(command_id, pending)

    def begin(self, command_id: int) -> None:
        """The history is about to say that this at-most-once activity is begun: this is the call that does it."""
        self._begun.add(command_id)

    def start(self, command_id: int) -> None:
        """Start what had to stand in the history first."""
        if (pending := self._journal.open.get(command_id)) is not None and command_id not in self._running:
            self._start(command_id, pending)

    def expect(self, command_id: int) -> None:
        """An attempt was handed out as a call of its own: give it up when its time is over."""
        pending = self._journal.open.get(command_id)
        if pending is not None and pending.deadline is not None:
            heapq.heappush(self._wakes, (pending.deadline, command_id))

    def take_heartbeats(self) -> list[ActivityHeartbeat]:
        """What attempts that run, or were cut off, have reported since the last look."""
        taken = list(self._heartbeats.values())
        self._heartbeats.clear()
        return taken

    def retry_later(self, event: ActivityFailed) -> None:
        """An attempt that failed is to be made again at the event's `retry_at`."""
        if event.retry_at is not None:
            heapq.heappush(self._wakes, (event.retry_at, event.id))

    def next_wake(self) -> datetime | None:
        """When the next timer or retry is due."""
        while self._wakes:
            due, command_id = self._wakes[0]
            pending = self._journal.open.get(command_id)
            if pending is not None and not pending.withdrawn:
                return due
            heapq.heappop(self._wakes)
        return None

    def rebuilt(self, journal: Journal) -> None:
        """The execution was rebuilt from history: what runs goes on, what waited is found again in its journal."""
        self._journal = journal
        self._wakes.clear()
        for command_id, pending in journal.open.items():
            if command_id <= self._known and command_id not in self._running and not self._has_ended(command_id):
                self._start(command_id, pending)

    async def stop(self) -> dict[int, datetime | None]:
        """Cancel what is running and wait until it has ended. Results that came in time are in `ended`.

        Returns when each of those that were cut off had begun, by command id; None for one that waited for its turn.
        """
        self._stopping = True
        cut_off = {command_id: self._started_at.get(command_id) for command_id in self._running}
        while tasks := list(self._running.items()):
            for command_id, task in tasks:
                self._cancel(command_id, task)
            await asyncio.wait([task for _, task in tasks])
            await asyncio.sleep(0)  # their callbacks take out of `running` those that had not begun
        for event in self.ended:
            cut_off.pop(getattr(event, "id", 0), None)
        return cut_off

    # --- one command --------------------------------------------------------------------------

    def _start(self, command_id: int, pending: Pending) -> None:
        if pending.withdrawn:
            return
        match pending.command:
            case StartTimer():
                heapq.heappush(self._wakes, (cast("datetime", pending.due), command_id))
            case ExecuteActivity() if pending.retry_at is not None:
                heapq.heappush(self._wakes, (pending.retry_at, command_id))
            case ExecuteActivity() if pending.deadline is not None:
                heapq.heappush(self._wakes, (pending.deadline, command_id))
            case ExecuteActivity(activity=activity) if pending.begun and command_id not in self._begun:
                self.ended.append(self._interrupted(pending))
            case ExecuteActivity() | RunSideEffect() if self._stopping:
                pass
            case ExecuteActivity(activity=activity) if activity.run_on == "queue" or (
                activity.at_most_once and not pending.begun
            ):
                pass  # first it has to stand in the history
            case ExecuteActivity():
                attempt = attempt_of(pending, self._journal, run_id=self._run_id, generation=self._generation)
                self._started_at.pop(command_id, None)
                starts, beats = self._observers(command_id, attempt.number)
                self._spawn(command_id, lambda: self._run_activity(attempt, starts, beats))
            case RunSideEffect() as command:
                self._spawn(command_id, lambda: self._side_effect(command))

    def _spawn(self, command_id: int, work: Callable[[], Awaitable[Event]]) -> None:
        task = eager.begin(self._see_through(command_id, work))
        if not task.done():
            self._running[command_id] = task

    def _cancel(self, command_id: int, task: asyncio.Task[None], why: str | None = None) -> None:
        def note(done: asyncio.Task[None]) -> None:
            if self._running.get(command_id) is task:
                self._note_end(command_id, None)

        task.cancel(why)
        task.add_done_callback(note)  # one that is cancelled before its first turn notes nothing itself

    async def _see_through(self, command_id: int, work: Callable[[], Awaitable[Event]]) -> None:
        # It notes its end itself: a callback of the task would come a turn of the event loop later.
        event: Event | None = None
        try:
            event = await work()
        except asyncio.CancelledError:
            pass
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self.broken = error
            self._running.pop(command_id, None)
            self._on_end()
            if isinstance(error, Exception):
                return
            if (task := asyncio.current_task()) is not None:
                task.add_done_callback(lambda done: done.exception())  # else asyncio warns that nobody looked at it
            raise
        self._note_end(command_id, event)

    def _observers(self, command_id: int, attempt: int) -> tuple[Callable[[], None], Callable[[str], None]]:
        def note_start() -> None:
            self._started_at[command_id] = self._clock.now()

        def note_heartbeat(details: str) -> None:
            self._heartbeats[command_id] = ActivityHeartbeat(
                at=self._clock.now(), id=command_id, attempt=attempt, details=details
            )

        return note_start, note_heartbeat

    def _note_end(self, command_id: int, ended: Event | None) -> None:
        """`ended` is None when it was cancelled before it could say how it ended."""
        self._running.pop(command_id, None)
        pending = self._journal.open.get(command_id)
        wanted = pending is not None and not pending.withdrawn
        if pending is not None:
            event = ended or self._withdrawn(pending)
            # Cut off by the end of the call, not by the workflow: as far as the history goes it never ran.
            if not (self._stopping and wanted and (ended is None or isinstance(event, ActivityCancelled))):
                self._heartbeats.pop(command_id, None)  # the end says it itself, and may know later details
                if isinstance(event, ActivityFailed) and not wanted:
                    event = replace(event, retry_at=None)  # nobody would make another attempt of it
                self.ended.append(event)
        self._on_end()

    def _has_ended(self, command_id: int) -> bool:
        return any(getattr(event, "id", None) == command_id for event in self.ended)

    def _withdrawn(self, pending: Pending) -> Event:
        command = pending.command
        if isinstance(command, ExecuteActivity):
            return ActivityCancelled(at=self._clock.now(), **command.about())
        error = self._codec.failure(RuntimeError("the side effect was withdrawn"))
        return SideEffectRecorded(at=self._clock.now(), id=command.id, error=error)

    def _lost(self, pending: Pending) -> Event:
        """Nobody has heard of the attempt that was a call of its own."""
        command, number = cast("ExecuteActivity", pending.command), pending.attempt + 1
        error = TimeoutError(f"activity {command.activity.name!r}: nothing was heard of attempt {number} in time")
        now = self._clock.now()
        in_time = command.activity.is_in_time(now, pending.first_started_at or now)
        again = number <= command.activity.retry_policy.max_retries and in_time
        return self._failed(pending, error, again=again)

    def _interrupted(self, pending: Pending) -> Event:
        """The process died in the one attempt that there may be."""
        command = cast("ExecuteActivity", pending.command)
        what = f"activity {command.activity.name!r} (step {command.id})"
        error = StepInterruptedError(
            f"{what} runs at most once, was begun, and was interrupted: whether it took effect is not known"
        )
        return self._failed(pending, error, again=False)

    def _failed(self, pending: Pending, error: Exception, *, again: bool) -> Event:
        now, command = self._clock.now(), cast("ExecuteActivity", pending.command)
        return ActivityFailed(
            at=now,
            attempt=pending.attempt + 1,
            started_at=now,
            error=self._codec.failure(error),
            retry_at=now if again else None,
            heartbeat=pending.heartbeat,
            **command.about(),
        )

    async def _side_effect(self, command: RunSideEffect) -> Event:
        try:
            value = command.fn()
            if inspect.isawaitable(value):
                value = await value
            result, error = self._codec.encode(value), None
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as raised:  # it would end the call, and every one that follows
            result, error = None, self._codec.failure(raised)
        return SideEffectRecorded(at=self._clock.now(), id=command.id, result=result, error=error)


def attempt_of(pending: Pending, journal: Journal, *, run_id: str, generation: int) -> ActivityAttempt:
    """The attempt of an activity that is to be made next."""
    command = cast("ExecuteActivity", pending.command)
    return ActivityAttempt(
        run_id=run_id,
        generation=generation,
        command=command,
        number=pending.attempt + 1,
        first_started_at=pending.first_started_at,
        heartbeat=pending.heartbeat,
        undone=journal.times_redone(command.id),
    )
