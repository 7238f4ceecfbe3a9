"""Platform: the processes of one environment. It makes the calls that were asked for, replaces processes that died,
and carries requests from outside to one of them as a careful caller would.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from ..advance import AdvanceSettings
from ..app import App
from ..clock import fresh_id
from ..dispatcher import Task
from ..registry import ActivityDefinition, WorkflowDefinition
from .mortal_store import MortalStore
from .world import SimulatedCrash, World

T = TypeVar("T")

MAX_CALLS = 10_000

Definitions = Iterable[WorkflowDefinition[Any] | ActivityDefinition[Any, Any]]


class Platform:
    """Two processes, one of which makes the calls; both, at once, where everything comes twice."""

    def __init__(
        self,
        world: World,
        workflows: Definitions | None,
        *,
        fakes: Mapping[str, Callable[..., Any]],
        always_replay: bool,
        duplicate: bool,
        max_concurrent_activities: int,
    ) -> None:
        self.duplicate = duplicate
        self.always_replay = always_replay
        self.workflows = None if workflows is None else list(workflows)
        self.fakes = dict(fakes)
        self._world = world
        self._max_concurrent = max_concurrent_activities
        self.processes = [self._process(), self._process()]

    def _process(self) -> Process:
        return Process(
            self._world,
            f"process-{fresh_id(8)}",
            workflows=self.workflows,
            settings=AdvanceSettings(patience_seconds=0.0, always_replay=self.always_replay),
            max_concurrent_activities=self._max_concurrent,
            replaced_activities=self.fakes,
        )

    @property
    def app(self) -> App:
        """The App of a process that is alive."""
        process = self.processes[0]
        if process.name in self._world.dead:
            self.replace(process)
        return self.processes[0].app

    def replace(self, process: Process) -> None:
        """The process is dead: have another in its place."""
        self._world.dead.add(process.name)
        self._world.something_lost = True
        self.processes = [self._process() if one is process else one for one in self.processes]

    # --- what the platform does by itself -----------------------------------------------------

    async def run(self) -> None:
        """Make every call that is due now, and the calls that these ask for at once."""
        for _ in range(MAX_CALLS):
            due = self._world.take_due()
            if not due:
                await self._tick()
                if not self._world.has_due:
                    return
            for task in due:
                calls = [self._call(index, task) for index in range(2 if self.duplicate else 1)]
                await asyncio.gather(*calls)
        raise AssertionError(f"still calls to make after {MAX_CALLS}: a run keeps waking itself")

    async def _call(self, index: int, task: Task) -> None:
        process = self.processes[index]
        try:
            await process.app.carry_out(task)
        except SimulatedCrash:
            self.replace(process)
            self._world.ask_for(task, self._world.clock.now())  # a platform makes a failed call again

    async def _tick(self) -> None:
        process = self.processes[0]
        try:
            await process.app.tick()
        except SimulatedCrash:
            self.replace(process)

    # --- how a careful caller asks ------------------------------------------------------------

    async def ask(self, request: Callable[[App], Awaitable[T]], *, repeatable: bool = True) -> T:
        """Make a request, again when its answer was lost, and once more where everything comes twice."""
        for _ in range(2 if self.duplicate and repeatable else 1):
            while True:
                app, process = self.app, self.processes[0]
                try:
                    answer = await request(app)
                    break
                except SimulatedCrash:
                    self.replace(process)
        return answer

    async def demand(self, request: Callable[[App], Awaitable[None]], *, granted: type[Exception]) -> None:
        """Make a request whose repetition is refused with `granted` once the first one has been carried out."""
        tries = itertools.count()

        async def once(app: App) -> None:
            is_first = next(tries) == 0
            try:
                await request(app)
            except granted:
                if is_first:
                    raise

        await self.ask(once)


class Process:
    """One process: an App on a store that dies with it, and the dispatcher that it sees."""

    def __init__(self, world: World, name: str, **options: Any) -> None:
        self.name = name
        self._world = world
        self.app = App(
            MortalStore(world, name),
            dispatcher=self,
            clock=world.clock,
            owner=lambda: f"{name}/{fresh_id(8)}",
            gone=world.is_dead,
            **options,
        )

    async def dispatch(self, task: Task, at: datetime | None = None) -> None:
        """See the dispatcher port: the platform makes the call."""
        if self.name in self._world.dead:
            raise SimulatedCrash
        now = self._world.clock.now()
        self._world.ask_for(task, max(at or now, now))

    async def close(self) -> None:
        """See the dispatcher port."""
