"""four_ways: one scenario plainly, always replayed, with double deliveries, and with every possible crash."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..store import Store
from ..stores import open_store
from .environment import WorkflowEnvironment
from .platform import Definitions

Scenario = Callable[[WorkflowEnvironment], Awaitable[None]]


async def four_ways(
    scenario: Scenario,
    workflows: Definitions | None = None,
    *,
    open_store: Callable[[], Store] = lambda: open_store("sqlite:///:memory:"),
    crash_every: int = 1,
    **options: Any,
) -> int:
    """Run the scenario plainly, with the run rebuilt from its history before every step, with every delivery made twice
    (by two processes at once), and once for every single store write with a crash right after it.

    `open_store` gives an empty store for each; `crash_every=5` crashes after every fifth write only, where a store is
    slow; `options` are those of WorkflowEnvironment. Returns how many crashes there were. What the scenario raises
    carries a note that says which way it was.
    """
    definitions = None if workflows is None else list(workflows)

    async def once(way: str, **more: Any) -> WorkflowEnvironment:
        store = open_store()
        try:
            environment = WorkflowEnvironment(definitions, store=store, **options, **more)
            await scenario(environment)
        except BaseException as error:
            error.add_note(f"(this way: {way})")
            raise
        finally:
            await store.close()
        return environment

    plain = await once("plain")
    await once("reloaded before every step", always_replay=True)
    await once("every delivery twice", duplicate=True)
    crashes = 0
    for write in range(1, plain.writes + 1, crash_every):
        environment = await once(f"crash after store write {write}", crash_after=write)
        crashes += environment.crashed
    return crashes
