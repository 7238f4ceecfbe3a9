"""WorkflowEnvironment: workflows under test on a virtual clock, with crashes and double deliveries on demand.

A month of waiting takes a moment: time moves only when the test moves it. The environment is the outside world and
the platform: it delivers the calls that the library asks for, restarts processes that "died", and never touches a run
by itself.

`four_ways` runs one scenario plainly, with the run rebuilt from its history before every step, with every delivery made
twice (by two processes at once), and once for every single store write with a crash right after it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from .advance import AdvanceSettings
from .app import App
from .approvals import Decision
from .client import WorkflowClient
from .clock import Duration, fresh_id, seconds
from .dispatcher import Task
from .engine.history import UpdateCompleted, UpdateRejected
from .errors import RunClosedError, RunStateError
from .registry import ActivityDefinition, WorkflowDefinition
from .store import GRACE, STEERING, Commit, Delivery, Lease, Message, Run, RunState, Status, Store
from .stores import open_store
from .timeline import WorkflowExecution

T = TypeVar("T")

START = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
"""Where virtual time begins unless told otherwise: a Thursday morning."""

_MAX_CALLS = 10_000
_MAX_WAITS = 1_000
"""Waits that one `result` skips. Each makes the history longer and the next replay slower: more would take minutes."""


class SimulatedCrash(BaseException):
    """The process is dead: nothing after this line of it happens."""


class VirtualClock:
    """Time that stands still until it is moved."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        """The virtual moment."""
        return self._now

    def move_to(self, when: datetime) -> None:
        """Jump forward; never backwards."""
        self._now = max(self._now, when)


class WorkflowEnvironment:
    """A world for workflows. Use it as `async with`.

    - workflows: what may run; all that is declared unless given.
    - store: an empty store; an SQLite one in memory unless given.
    - activities: activity name -> function to call in its place.
    - always_replay: rebuild the run from its history before every step.
    - duplicate: make every delivery twice, calls by two processes at once.
    - crash_after: die right after the n-th store write (counted from 1).
    """

    def __init__(
        self,
        workflows: Iterable[WorkflowDefinition[Any] | ActivityDefinition[Any, Any]] | None = None,
        *,
        store: Store | None = None,
        activities: Mapping[str, Callable[..., Any]] | None = None,
        start: datetime = START,
        always_replay: bool = False,
        duplicate: bool = False,
        crash_after: int | None = None,
        max_concurrent_activities: int = 100,
    ) -> None:
        self.clock = VirtualClock(start)
        self.store = store or open_store("sqlite:///:memory:")
        self.writes = 0
        """Store writes so far, by runs and by clients."""
        self.crashed = False
        """Whether the crash has happened."""
        self.duplicate = duplicate
        self.always_replay = always_replay
        self.hops: dict[str, int] = {}
        """Calls per run that got hold of it."""
        self._own_store = store is None
        self._crash_after = crash_after
        self._workflows = None if workflows is None else list(workflows)
        self._activities = dict(activities or {})
        self._max_concurrent = max_concurrent_activities
        self._queue: list[tuple[datetime, int, Task]] = []
        self._numbers = itertools.count()
        self._known: set[str] = set()
        self._dead: set[str] = set()
        self._something_lost = False
        """Whether a process died that may have owed somebody a wake-up: then messages may wait unnoticed."""
        self._processes = [self._process(), self._process()]

    @property
    def plain(self) -> bool:
        """Whether nothing out of the ordinary happens here: counts of calls and executions are exact."""
        return not (self.duplicate or self._crash_after is not None)

    @property
    def client(self) -> WorkflowClient:
        """A client of this world; what it asks for is carried out by `run`, `advance` or `result`."""
        return self._processes[0].app.client

    async def __aenter__(self) -> WorkflowEnvironment:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back the store, when it is this environment's own."""
        if self._own_store:
            await self.store.close()

    # --- what people and other systems do -----------------------------------------------------

    async def start(self, workflow: str | WorkflowDefinition[Any], input_data: Any = None, **options: Any) -> str:
        """Start a run; returns its run_id. A start whose answer was lost is made again, as a careful caller would."""
        options.setdefault("run_id", f"run-{fresh_id()}")
        return await self._outside(
            lambda app: app.client.start_workflow(workflow, input_data, on_conflict="use_existing", **options)
        )

    async def signal(self, run_id: str, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        """Send a signal, again with the same message id when the answer was lost."""
        message_id = message_id or self._message_id()
        await self._outside(lambda app: app.client.send_signal(run_id, name, payload, message_id=message_id))

    async def decide(self, run_id: str, key: str | None = None, *, approved: bool = True, **about: Any) -> None:
        """Decide an approval."""
        decision = Decision(approved=approved, **about)
        await self._outside(lambda app: app.decide(run_id, key, decision))

    async def cancel(self, run_id: str, reason: str | None = None) -> None:
        """Ask a run to end."""
        await self._outside(lambda app: app.client.cancel_workflow(run_id, reason))

    # --- what operators do --------------------------------------------------------------------

    async def suspend(self, run_id: str, reason: str | None = None) -> None:
        """Put a run aside until it is resumed."""
        message_id = self._message_id()
        await self._outside(lambda app: app.client.suspend_workflow(run_id, reason, message_id=message_id))

    async def resume(self, run_id: str) -> None:
        """Let a suspended run go on, or have a parked one tried again."""
        message_id = self._message_id()
        await self._outside(lambda app: app.client.resume_workflow(run_id, message_id=message_id))

    async def terminate(self, run_id: str, reason: str | None = None) -> None:
        """End a run by force."""
        await self._demand(lambda app: app.client.terminate_workflow(run_id, reason), granted=RunClosedError)

    async def retry(self, run_id: str) -> None:
        """Have a failed run go on from the point of failure."""
        await self._demand(lambda app: app.client.retry_workflow(run_id), granted=RunStateError)

    async def fork(self, run_id: str, at_event: int, input_data: Any = None) -> str:
        """Start a new run from the first events of another; returns its run_id.

        A fork has no id by which a repetition could be told: one whose answer was lost leaves a run of its own behind,
        and one that was answered is not made again.
        """
        return await self._outside(lambda app: app.client.fork_workflow(run_id, at_event, input_data), times=1)

    async def query(self, run_id: str, name: str, *args: Any) -> Any:
        """Ask the run's code."""
        return await self._outside(lambda app: app.client.query_workflow(run_id, name, *args))

    async def update(self, run_id: str, name: str, payload: Any = None, *, update_id: str | None = None) -> Any:
        """Have the run do something; what its handler gives, or raises what `update_workflow` raises.

        Calls are carried out, and what the handler waits for is skipped, until it has answered. Raises AssertionError
        when it waits for something that only the test can bring about.
        """
        update_id = update_id or self._message_id()

        async def hand_over(app: App) -> None:
            try:  # `timeout=0` delivers it; nobody has carried it out yet
                await app.client.update_workflow(run_id, name, payload, update_id=update_id, timeout=0)
            except TimeoutError:  # also what the handler of an update of that id once raised: read again below
                pass

        async def is_answered(run: Run) -> bool:
            state = await self.store.load(run_id)
            answers = () if state is None else state.history
            return run.status.closed or any(
                isinstance(event, UpdateCompleted | UpdateRejected) and event.message_id == f"update/{update_id}"
                for event in answers
            )

        await self._outside(hand_over)
        await self._until(run_id, is_answered)
        return await self._outside(
            lambda app: app.client.update_workflow(run_id, name, payload, update_id=update_id), times=1
        )

    # --- how a careful caller asks ------------------------------------------------------------

    async def _outside(self, request: Callable[[App], Awaitable[T]], *, times: int = 2) -> T:
        """Make a request, again when its answer was lost, and once more where everything comes twice."""
        for _ in range(times if self.duplicate else 1):
            while True:
                process = self._processes[0]
                if process.name in self._dead:
                    self._replace(process)
                    continue
                try:
                    answer = await request(process.app)
                    break
                except SimulatedCrash:
                    self._replace(process)
        return answer

    async def _demand(self, request: Callable[[App], Awaitable[None]], *, granted: type[Exception]) -> None:
        """Make a request whose repetition is refused with `granted` once the first one has been carried out."""
        tries = itertools.count()

        async def once(app: App) -> None:
            is_first = next(tries) == 0
            try:
                await request(app)
            except granted:
                if is_first:
                    raise

        await self._outside(once)

    def _message_id(self) -> str:
        return f"{next(self._numbers):09d}-{fresh_id()}"  # keeps the order while time stands still

    # --- time and the platform ----------------------------------------------------------------

    async def run(self) -> None:
        """Carry out every call that is due now. Time does not pass."""
        for _ in range(_MAX_CALLS):
            due: list[Task] = []
            while self._queue and self._queue[0][0] <= self.clock.now():
                due.append(heapq.heappop(self._queue)[2])
            if not due:
                await self._tick()
                if not self._queue or self._queue[0][0] > self.clock.now():
                    return
            for task in due:
                await self._deliver_call(task)
        raise AssertionError(f"still calls to make after {_MAX_CALLS}: a run keeps waking itself")

    async def advance(self, duration: Duration) -> None:
        """Let time pass, stopping at every moment at which something is due."""
        end = self.clock.now() + timedelta(seconds=seconds(duration))
        await self.run()
        while (moment := await self._next_moment()) is not None and moment <= end:
            self.clock.move_to(moment)
            await self.run()
        self.clock.move_to(end)

    def kill(self) -> None:
        """Kill the process that is calling, as from inside an activity: nothing that it does from here on is
        written."""
        self._dead.update(process.name for process in self._processes)

    def lose_everything(self) -> None:
        """Every process dies and every call that was asked for is lost; only the store is left."""
        self._queue.clear()
        for process in list(self._processes):
            self._replace(process)

    async def result(self, run_id: str) -> Any:
        """Skip all waits until the run has ended; its result, or raises what `get_result` raises.

        Raises AssertionError when the run waits for something that only the test can bring about, or does not end
        after a thousand waits.
        """

        async def is_closed(run: Run) -> bool:
            return run.status.closed

        await self._until(run_id, is_closed)
        return await WorkflowClient.get_result(self._observer(), run_id)

    async def _until(self, run_id: str, is_done: Callable[[Run], Awaitable[bool]]) -> None:
        await self.run()
        waits = 0
        while not await is_done(run := await self._get(run_id)):
            moment = await self._next_moment()
            if moment is None or run.status is Status.PARKED:
                raise AssertionError(f"run {run_id!r} is {run.status} and nothing will wake it; {run.problem or ''}")
            if waits == _MAX_WAITS:
                raise AssertionError(
                    f"run {run_id!r} is still {run.status} after {waits} waits: a run keeps waking itself; where that "
                    "is meant, let time pass with `advance`"
                )
            waits += 1
            self.clock.move_to(moment)
            await self.run()

    async def status(self, run_id: str) -> WorkflowExecution:
        """The run as it stands."""
        return await self._observer().get_workflow_status(run_id)

    async def events(self, run_id: str, *types: str) -> list[dict[str, Any]]:
        """The run's history as plain data; with `types` only those."""
        events = await self._observer().get_workflow_events(run_id)
        return [one for one in events if not types or one["type"] in types]

    # --- inside -------------------------------------------------------------------------------

    def _process(self) -> _Process:
        return _Process(self, f"process-{fresh_id(8)}")

    def _observer(self) -> WorkflowClient:
        client = self.client
        return WorkflowClient(self.store, client.dispatcher, client.registry, codec=client.codec, clock=self.clock)

    def _replace(self, process: _Process) -> None:
        """The process is dead: have another in its place."""
        self._dead.add(process.name)
        self._something_lost = True
        self._processes = [self._process() if one is process else one for one in self._processes]

    async def _deliver_call(self, task: Task) -> None:
        if not self.duplicate:
            await self._call(0, task)
        else:
            await asyncio.gather(self._call(0, task), self._call(1, task))

    async def _call(self, index: int, task: Task) -> None:
        process = self._processes[index]
        try:
            await process.app.carry_out(task)
        except SimulatedCrash:
            self._replace(process)
            self._enqueue(task, self.clock.now())  # a platform makes a failed call again

    async def _tick(self) -> None:
        process = self._processes[0]
        try:
            await process.app.tick()
        except SimulatedCrash:
            self._replace(process)

    async def _next_moment(self) -> datetime | None:
        """When something is due next: a call that was asked for, a run, or a message that nobody was told of."""
        now = self.clock.now()
        moments = [self._queue[0][0]] if self._queue else []
        waiting = []
        for run_id in list(self._known):
            run = await self.store.get(run_id)
            if run is None:  # it is being made in this moment
                continue
            if run.status.closed:
                self._known.discard(run_id)  # who opens it again makes it known again
                continue
            waiting.append(run)
            if run.wake_at is not None:
                moments.append(run.wake_at)
        if self._something_lost or not moments:
            ends = [moment for run in waiting for moment in await self._ends_of_grace(run) if moment > now]
            self._something_lost = bool(ends)
            moments += ends
        return min(moments, default=None)

    async def _ends_of_grace(self, run: Run) -> list[datetime]:
        aside = run.status in (Status.PARKED, Status.SUSPENDED)
        inbox = await self.store.inbox(run.run_id)
        return [one.received_at + GRACE for one in inbox if not aside or one.kind in STEERING]

    async def _get(self, run_id: str) -> Run:
        run = await self.store.get(run_id)
        assert run is not None, f"there is no run {run_id!r}"
        self._known.add(run_id)
        return run

    def _enqueue(self, task: Task, at: datetime) -> None:
        if all(other[2] != task or other[0] != at for other in self._queue):
            heapq.heappush(self._queue, (at, next(self._numbers), task))

    def _is_dead(self, owner: str) -> bool:
        return owner.partition("/")[0] in self._dead

    def _note_write(self, process: str) -> None:
        self.writes += 1
        if self.writes == self._crash_after:
            self.crashed = True
            self._dead.add(process)
            raise SimulatedCrash


class _Process:
    """One process of the platform: an App on a store that dies with it, and the dispatcher that it sees."""

    def __init__(self, environment: WorkflowEnvironment, name: str) -> None:
        self.name = name
        self._environment = environment
        self.app = App(
            _MortalStore(environment, name),
            workflows=environment._workflows,
            dispatcher=self,
            clock=environment.clock,
            settings=AdvanceSettings(patience_seconds=0.0, always_replay=environment.always_replay),
            max_concurrent_activities=environment._max_concurrent,
            replaced_activities=environment._activities,
            owner=lambda: f"{name}/{fresh_id(8)}",
            gone=environment._is_dead,
        )

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """See the dispatcher port: the environment makes the call."""
        if self.name in self._environment._dead:
            raise SimulatedCrash
        now = self._environment.clock.now()
        self._environment._enqueue(task, max(at or now, now))

    async def close(self) -> None:
        """See the dispatcher port."""


class _MortalStore:
    """The store as one process sees it: every write may be the last thing that it does."""

    def __init__(self, environment: WorkflowEnvironment, process: str) -> None:
        self._environment = environment
        self._process = process
        self._store = environment.store
        self.max_event_bytes = self._store.max_event_bytes

    @property
    def schedules(self) -> Any:
        """Schedules are written by the store itself: their crashes are not simulated."""
        return self._live().schedules

    def _live(self) -> Store:
        if self._process in self._environment._dead:
            raise SimulatedCrash
        return self._store

    async def _written(self, result: Awaitable[T]) -> T:
        value = await result
        self._environment._note_write(self._process)
        return value

    async def create(self, run: Run, events: Any) -> bool:
        store = self._live()
        self._environment._known.add(run.run_id)
        return await self._written(store.create(run, events))

    async def get(self, run_id: str) -> Run | None:
        return await self._live().get(run_id)

    async def load(self, run_id: str) -> RunState | None:
        return await self._live().load(run_id)

    async def inbox(self, run_id: str) -> Any:
        return await self._live().inbox(run_id)

    async def acquire(self, run_id: str, **options: Any) -> Lease | None:
        lease = await self._live().acquire(run_id, **options)
        if lease is not None:
            self._environment.hops[run_id] = self._environment.hops.get(run_id, 0) + 1
            self._environment._note_write(self._process)
        return lease

    async def renew(self, lease: Lease, **options: Any) -> bool:
        return await self._written(self._live().renew(lease, **options))

    async def commit(self, lease: Lease, commit: Commit) -> None:
        self._live()
        self._environment._known.update(new.run.run_id for new in commit.new_runs)
        await self._written(self._live().commit(lease, commit))

    async def reopen(self, run_id: str, **options: Any) -> bool:
        opened = await self._live().reopen(run_id, **options)
        self._environment._known.add(run_id)
        self._environment._note_write(self._process)
        return opened

    async def deliver(self, run_id: str, message: Message) -> Delivery:
        return await self._written(self._live().deliver(run_id, message))

    async def due(self, **options: Any) -> list[str]:
        return await self._live().due(**options)

    async def list(self, query: Any) -> Any:
        return await self._live().list(query)

    async def purge(self, run_id: str) -> None:
        await self._written(self._live().purge(run_id))

    async def close(self) -> None:
        """The store outlives the process."""


Scenario = Callable[[WorkflowEnvironment], Awaitable[None]]


async def four_ways(
    scenario: Scenario,
    workflows: Iterable[WorkflowDefinition[Any] | ActivityDefinition[Any, Any]] | None = None,
    *,
    open_store: Callable[[], Store] = lambda: open_store("sqlite:///:memory:"),
    **options: Any,
) -> int:
    """Run the scenario plainly, always replayed, with double deliveries, and with a crash after each store write in
    turn.

    `open_store` gives an empty store for each. Returns how many crashes there were. An AssertionError carries a note
    that says which way it was.
    """
    definitions = None if workflows is None else list(workflows)

    async def once(way: str, **more: Any) -> WorkflowEnvironment:
        store = open_store()
        environment = WorkflowEnvironment(definitions, store=store, **options, **more)
        try:
            await scenario(environment)
        except BaseException as error:
            error.add_note(f"(this way: {way})")
            raise
        finally:
            await store.close()
        return environment

    await once("plain")
    await once("reloaded before every step", always_replay=True)
    await once("every delivery twice", duplicate=True)
    for crashes in itertools.count(1):
        environment = await once(f"crash after store write {crashes}", crash_after=crashes)
        if not environment.crashed:
            return crashes - 1
    raise AssertionError("unreachable")
