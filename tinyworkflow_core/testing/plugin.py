"""The plugin of pytest: one fixture. It needs no plugin for async tests, and works with each.

pytest loads this module at every start: nothing of the kit is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .environment import WorkflowEnvironment


@pytest.fixture
def workflow_environment() -> Iterator[type[WorkflowEnvironment]]:
    """WorkflowEnvironment, to be called with what the test needs; whatever it made is closed when the test ends."""
    from .environment import WorkflowEnvironment

    made: list[WorkflowEnvironment] = []

    class ClosedWithTheTest(WorkflowEnvironment):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    yield ClosedWithTheTest
    if made:
        _close(made)


def _close(environments: list[WorkflowEnvironment]) -> None:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def close() -> None:
        for one in environments:
            await one.close()

    # In a loop of another thread: the loop of this one, if there is any, belongs to whoever runs the async tests.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, close()).result()
