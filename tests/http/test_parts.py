"""The parts of the front: each alone serves its own routes and no others."""

from __future__ import annotations

import httpx
import pytest

from tests.http.front import assert_problem, calling
from tinyworkflow_core import App, create_app
from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.http import ALL

PROBES = {
    "api": ("GET", "/v1/runs"),
    "approvals": ("GET", "/v1/approvals"),
    "worker": ("POST", "/internal/advance"),
    "tick": ("POST", "/internal/tick"),
    "hooks": ("POST", "/hooks/github"),
    "ui": ("GET", "/ui"),
}


@pytest.mark.parametrize("part", sorted(ALL))
async def test_a_part_serves_its_own_routes_and_health_alone(app: App, part: str) -> None:
    async with calling(app, parts=[part]) as caller:
        assert (await caller.get("/healthz")).status_code == 200
        for other, (method, path) in PROBES.items():
            answer = await caller.request(method, path)
            missing = answer.status_code == 404 and answer.json()["type"] == "about:blank"
            assert missing is (other != part), path


async def test_a_part_that_does_not_exist_is_refused(app: App) -> None:
    with pytest.raises(ConfigurationError, match="hook;"):
        create_app(app, parts=["api", "hook"])


async def test_health_does_not_ask_the_store(app: App, caller: httpx.AsyncClient) -> None:
    await app.store.close()
    assert (await caller.get("/healthz")).status_code == 200
    assert_problem(await caller.get("/v1/runs"), 500)
