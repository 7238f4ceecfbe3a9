"""An App in memory and a caller on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.http.front import calling, new_app
from tinyworkflow_core import App


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = new_app()
    yield app
    await app.close()


@pytest.fixture
async def caller(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app) as caller:
        yield caller
