"""WorkflowEnvironment: workflows under test on a virtual clock, with crashes and double deliveries on demand.

A month of waiting takes a moment: time moves only when the test moves it. The environment is the outside world and
the platform: it delivers the calls that the library asks for, restarts processes that "died", and never touches a run
by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from ..app import App
from ..approvals import Decision
from ..client import WorkflowClient
from ..clock import Duration, fresh_id, seconds
from ..cron import CronSchedule, Timing
from ..engine.history import UpdateCompleted, UpdateRejected
from ..errors import RunClosedError, RunStateError
from ..registry import WorkflowDefinition
from ..schedules import Schedules
from ..store import Run, Status, Store
from ..stores import open_store
from ..timeline import WorkflowEvent, WorkflowExecution
from .fakes import Fakes, by_name
from .platform import Definitions, Platform, Process
from .virtual_clock import START, VirtualClock
from .world import World

MAX_WAITS = 1_000
"""Waits that one `result` skips. Each makes the history longer and the next replay slower: more would take minutes."""


class WorkflowEnvironment:
    """A world for workflows. Use it as `async with`.

    - workflows: what may run; all that is declared unless given.
    - store: an empty store; an SQLite one in memory unless given.
    - activities: activity, or its name -> function to call in its place; an unknown name raises ConfigurationError.
    - start: where virtual time begins.
    - always_replay: rebuild the run from its history before every step.
    - duplicate: make every delivery twice, calls by two processes at once.
    - crash_after: die right after the n-th store write (counted from 1).
    """

    def __init__(
        self,
        workflows: Definitions | None = None,
        *,
        store: Store | None = None,
        activities: Fakes | None = None,
        start: datetime = START,
        always_replay: bool = False,
        duplicate: bool = False,
        crash_after: int | None = None,
        max_concurrent_activities: int = 100,
    ) -> None:
        fakes = by_name(activities or {})
        self.clock = VirtualClock(start)
        self.store = store or open_store("sqlite:///:memory:")
        self._own_store = store is None
        self._world = World(self.store, self.clock, crash_after=crash_after)
        self._platform = Platform(
            self._world,
            workflows,
            fakes=fakes,
            always_replay=always_replay,
            duplicate=duplicate,
            max_concurrent_activities=max_concurrent_activities,
        )

    async def __aenter__(self) -> WorkflowEnvironment:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back the store, when it is this environment's own."""
        if self._own_store:
            await self.store.close()

    # --- what kind of world it is -------------------------------------------------------------

    @property
    def plain(self) -> bool:
        """Whether nothing out of the ordinary happens here: counts of calls and executions are exact."""
        return not (self.duplicate or self._world.crash_after is not None)

    @property
    def duplicate(self) -> bool:
        """Whether every delivery is made twice."""
        return self._platform.duplicate

    @property
    def always_replay(self) -> bool:
        """Whether runs are rebuilt from their history before every step."""
        return self._platform.always_replay

    @property
    def crashed(self) -> bool:
        """Whether the crash has happened."""
        return self._world.crashed

    @property
    def writes(self) -> int:
        """Store writes so far, by runs and by clients."""
        return self._world.writes

    @property
    def hops(self) -> Mapping[str, int]:
        """Calls per run that got hold of it."""
        return self._world.hops

    @property
    def client(self) -> WorkflowClient:
        """A client of this world; what it asks for is carried out by `run`, `advance` or `result`."""
        return self._platform.app.client

    @property
    def schedules(self) -> Schedules:
        """The schedules of this world; see `schedule` for a careful caller's way to make one."""
        return self._platform.app.schedules

    @property
    def _processes(self) -> list[Process]:
        return self._platform.processes

    # --- what people and other systems do -----------------------------------------------------

    async def start(self, workflow: str | WorkflowDefinition[Any], input_data: Any = None, **options: Any) -> str:
        """Start a run; returns its run_id. A start whose answer was lost is made again, as a careful caller would."""
        if options.get("idempotency_key") is None:
            options.setdefault("run_id", f"run-{fresh_id()}")
        return await self._platform.ask(
            lambda app: app.client.start_workflow(workflow, input_data, on_conflict="use_existing", **options)
        )

    async def signal(self, run_id: str, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        """Send a signal, again with the same message id when the answer was lost."""
        message_id = message_id or self._world.message_id()
        await self._platform.ask(lambda app: app.client.send_signal(run_id, name, payload, message_id=message_id))

    async def schedule(
        self, workflow: str | WorkflowDefinition[Any], timing: str | Timing, input_data: Any = None, **options: Any
    ) -> str:
        """Make a schedule, which fires while time passes; returns its id. A text is a cron expression, in UTC."""
        when = CronSchedule(timing) if isinstance(timing, str) else timing
        options.setdefault("id", f"schedule-{fresh_id()}")  # so that the same call again changes nothing
        return await self._platform.ask(lambda app: app.schedules.create(workflow, when, input_data, **options))

    async def decide(self, run_id: str, key: str | None = None, *, approved: bool = True, **about: Any) -> None:
        """Decide an approval."""
        decision = Decision(approved=approved, **about)
        await self._platform.ask(lambda app: app.decide(run_id, key, decision))

    async def cancel(self, run_id: str, reason: str | None = None) -> None:
        """Ask a run to end."""
        await self._platform.ask(lambda app: app.client.cancel_workflow(run_id, reason))

    async def query(self, run_id: str, name: str, *args: Any, **kwargs: Any) -> Any:
        """Ask the run's code; nothing is written."""
        return await self._platform.ask(lambda app: app.client.query_workflow(run_id, name, *args, **kwargs))

    async def update(self, run_id: str, name: str, payload: Any = None, *, update_id: str | None = None) -> Any:
        """Have the run do something; what its handler gives, or raises what `update_workflow` raises.

        Calls are carried out, and the waits that the handler makes are skipped, until it has answered. Raises
        AssertionError when it waits for something that only the test can bring about.
        """
        update_id = update_id or self._world.message_id()

        async def hand_over(app: App) -> None:
            try:  # with `timeout=0` it is delivered, and nobody waits for the answer
                await app.client.update_workflow(run_id, name, payload, update_id=update_id, timeout=0)
            except TimeoutError:  # or the handler of an update of that id once raised it: the answer is read below
                pass

        async def is_answered(run: Run) -> bool:
            state = await self.store.load(run_id)
            answers = (UpdateCompleted, UpdateRejected)
            return run.status.closed or any(
                isinstance(event, answers) and event.message_id == f"update/{update_id}"
                for event in (state.history if state is not None else ())
            )

        await self._platform.ask(hand_over)
        await self._until(run_id, is_answered)
        return await self._platform.ask(
            lambda app: app.client.update_workflow(run_id, name, payload, update_id=update_id), repeatable=False
        )

    # --- what operators do --------------------------------------------------------------------

    async def suspend(self, run_id: str, reason: str | None = None) -> None:
        """Put a run aside until it is resumed."""
        message_id = self._world.message_id()
        await self._platform.ask(lambda app: app.client.suspend_workflow(run_id, reason, message_id=message_id))

    async def resume(self, run_id: str) -> None:
        """Let a suspended run go on, or have a parked one tried again."""
        message_id = self._world.message_id()
        await self._platform.ask(lambda app: app.client.resume_workflow(run_id, message_id=message_id))

    async def terminate(self, run_id: str, reason: str | None = None) -> None:
        """End a run by force."""
        await self._platform.demand(lambda app: app.client.terminate_workflow(run_id, reason), granted=RunClosedError)

    async def retry(self, run_id: str) -> None:
        """Have a failed run go on from the point of failure."""
        await self._platform.demand(lambda app: app.client.retry_workflow(run_id), granted=RunStateError)

    async def fork(self, run_id: str, at_event: int, input_data: Any = None) -> str:
        """Start a new run from the first events of another; returns its run_id.

        Nothing tells a repeated fork from another one: that whose answer was lost leaves a run of its own behind, and
        one that was answered is not made again.
        """
        return await self._platform.ask(
            lambda app: app.client.fork_workflow(run_id, at_event, input_data), repeatable=False
        )

    # --- time and the platform ----------------------------------------------------------------

    async def run(self) -> None:
        """Carry out every call that is due now. Time does not pass."""
        await self._platform.run()

    async def advance(self, duration: Duration) -> None:
        """Let time pass, stopping at every moment at which something is due."""
        end = self.clock.now() + timedelta(seconds=seconds(duration))
        await self.run()
        while (moment := await self._world.next_moment()) is not None and moment <= end:
            self.clock.move_to(moment)
            await self.run()
        self.clock.move_to(end)

    def kill(self) -> None:
        """Kill the process that is calling, as from inside an activity: nothing that it does from here on is
        written."""
        self._world.dead.update(process.name for process in self._processes)

    def lose_everything(self) -> None:
        """Every process dies and every call that was asked for is lost; only the store is left."""
        self._world.lose_calls()
        for process in list(self._processes):
            self._platform.replace(process)

    # --- looking ------------------------------------------------------------------------------

    async def result(self, run_id: str) -> Any:
        """Skip all waits until the run has ended; its result, or raises what `get_result` raises.

        Raises AssertionError when the run waits for something that only the test can bring about, or does not end
        after a thousand waits.
        """

        async def is_closed(run: Run) -> bool:
            return run.status.closed

        await self._until(run_id, is_closed)
        return await self._observer().get_result(run_id)

    async def status(self, run_id: str) -> WorkflowExecution:
        """The run as it stands."""
        return await self._observer().get_workflow_status(run_id)

    async def events(self, run_id: str, *types: str) -> list[WorkflowEvent]:
        """The run's history as plain data; with `types` only those."""
        events = await self._observer().get_workflow_events(run_id)
        return [one for one in events if not types or one["type"] in types]

    async def _until(self, run_id: str, is_done: Callable[[Run], Awaitable[bool]]) -> None:
        await self.run()
        waits = 0
        while not await is_done(run := await self._get(run_id)):
            moment = await self._world.next_moment()
            if moment is None or run.status is Status.PARKED:
                raise AssertionError(f"run {run_id!r} is {run.status} and nothing will wake it; {run.problem or ''}")
            if waits == MAX_WAITS:
                raise AssertionError(
                    f"run {run_id!r} is still {run.status} after {waits} waits: a run keeps waking itself; where that "
                    "is meant, let time pass with `advance`"
                )
            waits += 1
            self.clock.move_to(moment)
            await self.run()

    async def _get(self, run_id: str) -> Run:
        run = await self.store.get(run_id)
        assert run is not None, f"there is no run {run_id!r}"
        self._world.known.add(run_id)  # it may have been in the store before this world was made
        return run

    def _observer(self) -> WorkflowClient:
        client = self.client
        return WorkflowClient(self.store, client.dispatcher, client.registry, codec=client.codec, clock=self.clock)
