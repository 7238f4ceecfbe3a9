"""Scenarios: what a user may rely on, on every store, four ways each (see tinyworkflow_core.testing.four_ways)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.stores.conftest import StoreFactory, factory_of
from tinyworkflow_core.store import Store
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import Scenario, four_ways

Ways = Callable[..., Awaitable[int]]


@pytest.fixture(params=["sqlite-memory", "firestore"])
def stores(request: pytest.FixtureRequest) -> StoreFactory:
    return factory_of(request)


@pytest.fixture
def ways(stores: StoreFactory) -> Ways:
    """Runs a scenario four ways on one kind of store; every way that crashes has to crash at least once.

    On the emulator each write takes ten times as long, and what a crash leaves behind is the same by the suite that all
    stores pass: there it crashes at every 25th write.
    """
    return _ways(stores, crash_every=25 if stores.kind == "firestore" else 1)


@pytest.fixture
def embedded_ways() -> Ways:
    """The same on the embedded store alone: for what makes no difference to a store."""
    return _ways(lambda: open_store("sqlite:///:memory:"), crash_every=1)


def _ways(stores: Callable[[], Store], *, crash_every: int) -> Ways:
    async def run(scenario: Scenario, *workflows: Any, **options: Any) -> int:
        crashes = await four_ways(scenario, workflows, open_store=stores, crash_every=crash_every, **options)
        assert crashes * crash_every > 2
        return crashes

    return run
