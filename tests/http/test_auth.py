"""Access: denied unless something allows it. A table of who is let in and who is not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.routing import Route

from tests.http.front import assert_problem, calling, new_app
from tinyworkflow_core import App, create_app
from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.http.ui import UiRoutes

KEYS = ("first-key", "second-kéy")


@pytest.fixture
async def locked() -> AsyncIterator[App]:
    app = new_app(api_keys=KEYS)
    yield app
    await app.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"Authorization": "bearer  first-key"},
        {"X-API-Key": "first-key"},
        {"X-API-Key": "second-kéy".encode()},
    ],
    ids=str,
)
async def test_whoever_brings_a_key_is_let_in_from_anywhere(locked: App, headers: dict[str, str]) -> None:
    async with calling(locked, emulate=False, peer="203.0.113.9", base_url="https://flows.example") as caller:
        assert (await caller.get("/v1/runs", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer first-key2"},
        {"Authorization": "Bearer first-ke"},
        {"Authorization": "Basic first-key"},
        {"Authorization": "first-key"},
        {"Authorization": "Bearer first-key,second-key"},
        {"X-API-Key": ""},
        {"X-API-Key": "FIRST-KEY"},
        {"X-API-Key": b"\xff\xfe"},
        {"Authorization": "Bearer wrong", "X-API-Key": "first-key"},
    ],
    ids=str,
)
async def test_whoever_brings_no_right_key_is_401_even_on_this_machine(locked: App, headers: dict[str, str]) -> None:
    async with calling(locked) as caller:
        answer = await caller.get("/v1/runs", headers=headers)
        assert_problem(answer, 401, "API key")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "first-key" not in answer.text


async def test_every_route_but_health_its_description_and_what_is_signed_asks_for_a_key(locked: App) -> None:
    """Not a list of routes: whatever is added is in it."""
    routes = [route for route in create_app(locked).routes if isinstance(route, Route)]
    every = [(method, one.path) for one in routes for method in (one.methods or set()) - {"HEAD"}]
    # The dashboard's own routes are behind one that hands on whatever is under /ui.
    assert {one.path for one in routes if one.methods is None} == {"/ui", "/ui/{rest:path}"}
    every += [(one.method, one.path) for one in UiRoutes(locked, HttpSettings(), max_body_bytes=1000).operations()]
    async with calling(locked) as caller:
        asked = set()
        for method, path in every:
            answer = await caller.request(method, path)
            if answer.status_code == 401 or answer.headers.get("location", "").startswith("/ui/login"):
                asked.add(path)
        everything = {path for _, path in every}
        of_pages = {"/ui/login", "/ui/logout", "/ui/static/{name}"}
        assert everything - asked == {"/healthz", "/openapi.json", "/hooks/{name}", "/approvals/{token}"} | of_pages
        assert len(asked) > 8


async def test_a_start_without_a_key_leaves_nothing_behind(locked: App) -> None:
    async with calling(locked) as caller:
        await caller.post("/v1/workflows/echo/runs", json={"run_id": "r"})
    assert await locked.store.get("r") is None


async def test_health_is_open_and_tells_no_secret(locked: App) -> None:
    async with calling(locked, emulate=False, peer="203.0.113.9", base_url="https://flows.example") as caller:
        answer = await caller.get("/healthz")
        assert answer.status_code == 200
        assert answer.json().keys() == {"status", "version", "store"}
        assert answer.json()["store"] == "sqlite"


@pytest.mark.parametrize(
    ("peer", "base_url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("127.0.0.1", "http://localhost"),
        ("127.8.9.1", "http://LOCALHOST:99"),
        ("::1", "http://[::1]:8080"),
        ("::ffff:127.0.0.1", "http://127.0.0.1"),
    ],
)
async def test_without_keys_an_emulation_lets_this_machine_in(app: App, peer: str, base_url: str) -> None:
    async with calling(app, peer=peer, base_url=base_url) as caller:
        assert (await caller.get("/v1/runs")).status_code == 200
        own_page = {"Origin": base_url.lower()}
        assert (await caller.get("/v1/runs", headers=own_page)).status_code == 200


@pytest.mark.parametrize(
    ("peer", "base_url", "headers"),
    [
        ("203.0.113.9", "http://127.0.0.1:8080", {}),
        ("10.0.0.1", "http://localhost", {}),
        ("testclient", "http://localhost", {}),
        ("127.0.0.1", "http://attacker.example:8080", {}),
        ("127.0.0.1", "http://127.0.0.1.attacker.example", {}),
        ("127.0.0.1", "http://localhost.attacker.example", {}),
        ("127.0.0.1", "http://127.0.0.1", {"Host": "127.0.0.1@attacker.example"}),
        ("127.0.0.1", "http://127.0.0.1", {"Host": ""}),
        ("127.0.0.1", "http://127.0.0.1", {"Host": "[::1"}),
        ("127.0.0.1", "http://127.0.0.1", {"Host": "0.0.0.0"}),
        ("127.0.0.1", "http://127.0.0.1", {"Forwarded": "for=127.0.0.1"}),
        ("127.0.0.1", "http://127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
        ("127.0.0.1", "http://127.0.0.1", {"X-Forwarded-Proto": "https"}),
        ("127.0.0.1", "http://127.0.0.1", {"Via": "1.1 proxy"}),
        ("127.0.0.1", "http://127.0.0.1", {"Origin": "http://attacker.example"}),
        ("127.0.0.1", "http://127.0.0.1:8080", {"Origin": "http://127.0.0.1:9090"}),
        ("127.0.0.1", "http://127.0.0.1", {"Origin": "null"}),
    ],
)
async def test_without_keys_nobody_else_is_let_in(app: App, peer: str, base_url: str, headers: dict[str, str]) -> None:
    async with calling(app, peer=peer, base_url=base_url) as caller:
        answer = await caller.get("/v1/runs", headers=headers)
        assert_problem(answer, 403, "TINYWORKFLOW_API_KEYS")


async def test_without_keys_nobody_is_let_in_where_nothing_is_emulated(app: App) -> None:
    async with calling(app, emulate=False) as caller:
        assert_problem(await caller.get("/v1/runs"), 403, "TINYWORKFLOW_API_KEYS")


async def test_without_keys_nobody_is_let_in_on_the_managed_platform(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SERVICE", "flows")
    async with calling(app) as caller:
        assert_problem(await caller.get("/v1/runs"), 403, "TINYWORKFLOW_API_KEYS")
        assert (await caller.get("/healthz")).status_code == 200


async def test_a_call_without_exactly_one_host_is_not_from_here(app: App) -> None:
    front = create_app(app, emulate=True)
    for hosts in ([], [(b"host", b"127.0.0.1"), (b"host", b"attacker.example")]):

        async def with_hosts(scope: object, receive: object, send: object, hosts: object = hosts) -> None:
            await front({**scope, "headers": hosts}, receive, send)  # type: ignore[dict-item,arg-type]  # plain ASGI

        async with httpx.AsyncClient(transport=httpx.ASGITransport(with_hosts), base_url="http://localhost") as caller:
            assert_problem(await caller.get("/v1/runs"), 403, "Host")


@pytest.mark.parametrize("keys", [[""], ["good", "  "]])
def test_an_empty_key_is_refused_when_the_app_is_made(keys: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        create_app(new_app(api_keys=keys))
