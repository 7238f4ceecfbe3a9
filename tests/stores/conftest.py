"""Which stores the suites of this folder run on. A new store is one more entry in `STORES` and one more branch here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.store import Store
from tinyworkflow_core.stores import open_store

STORES = ("sqlite-memory", "sqlite-file", "firestore")
SHARED_STORES = ("sqlite-file", "firestore")
"""Those that several processes can open."""


class StoreFactory:
    """Makes empty stores of one kind."""

    def __init__(self, kind: str, url: Callable[[], str]) -> None:
        self.kind = kind
        self.url = url
        """The URL of a store that holds nothing yet; another one every time."""

    def __call__(self) -> Store:
        return open_store(self.url())


def factory_of(request: pytest.FixtureRequest) -> StoreFactory:
    """The factory for the kind that the requesting fixture is parametrised with."""
    kind: str = request.param
    if kind == "firestore":
        host = request.getfixturevalue("firestore_emulator")
        request.getfixturevalue("monkeypatch").setenv("FIRESTORE_EMULATOR_HOST", host)
        return StoreFactory(kind, lambda: f"firestore://test-{fresh_id()}?collection=tinyworkflow")
    if kind == "sqlite-memory":
        return StoreFactory(kind, lambda: "sqlite:///:memory:")
    folder: Path = request.getfixturevalue("tmp_path")
    numbers = count()
    return StoreFactory(kind, lambda: f"sqlite:///{folder / f'{next(numbers)}.db'}")


@pytest.fixture(params=STORES)
def store_factory(request: pytest.FixtureRequest) -> StoreFactory:
    return factory_of(request)


@pytest.fixture(params=SHARED_STORES)
def shared_store_factory(request: pytest.FixtureRequest) -> StoreFactory:
    return factory_of(request)


@pytest.fixture
async def store(store_factory: StoreFactory) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    opened = store_factory()
    yield opened
    await opened.close()
