"""What a browser is told with every answer, and whose pages may call."""

from __future__ import annotations

import httpx
import pytest

from tests.http.front import calling
from tests.http.test_access import by, front, granted
from tinyworkflow_core import App
from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.http.settings import HttpSettings

PAGE = "https://desk.example"
SETTINGS = HttpSettings(cors_origins=(PAGE, "http://localhost:3000"))
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}


def assert_safe(answer: httpx.Response) -> None:
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "no-store" in headers["cache-control"]
    assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_every_answer_has_them_whatever_it_is(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    async def bug(*args: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(app.store, "list", bug)
    async with calling(app, settings=SETTINGS) as caller:
        for method, path, status in (
            ("GET", "/healthz", 200),
            ("GET", "/openapi.json", 200),
            ("GET", "/nothing", 404),
            ("PUT", "/v1/runs", 405),
            ("GET", "/v1/runs", 500),
            ("POST", "/hooks/none", 404),
            ("POST", "/v1/workflows/echo/runs", 202),
            ("POST", "/v1/workflows/none/runs", 404),
        ):
            answer = await caller.request(method, path)
            assert answer.status_code == status, answer.text
            assert_safe(answer)
        assert_safe(await caller.get("/approvals/no-token", headers={"Accept": "text/html"}))
        assert_safe(await caller.options("/v1/runs", headers={"Origin": PAGE, **PREFLIGHT}))


async def test_https_is_remembered_by_answers_that_came_by_it(app: App) -> None:
    async with front(app, keys=[granted("k", "read")]) as caller:
        assert (await caller.get("/healthz")).headers["strict-transport-security"].startswith("max-age=31536000")
    async with calling(app) as caller:
        assert "strict-transport-security" not in (await caller.get("/healthz")).headers
        behind = await caller.get("/healthz", headers={"X-Forwarded-Proto": "https"})
        assert "strict-transport-security" in behind.headers


async def test_no_link_is_made_with_the_host_that_a_caller_sends(app: App) -> None:
    async with front(app, keys=[granted("k", "all")]) as caller:
        sent = by("k") | {"Host": "attacker.example", "X-Forwarded-Host": "attacker.example"}
        started = await caller.post("/v1/workflows/echo/runs", json={"run_id": "r"}, headers=sent)
        answers = [
            started,
            *[
                await caller.get(path, headers=sent)
                for path in ("/v1/runs", "/v1/runs/r", "/v1/runs/", "/no", "/openapi.json")
            ],
        ]
        for answer in answers:
            assert "attacker" not in answer.text
            assert "attacker" not in str(answer.headers)


async def test_without_a_list_no_other_page_may_call(app: App) -> None:
    async with front(app, keys=[granted("k", "all")]) as caller:
        answer = await caller.get("/v1/runs", headers=by("k") | {"Origin": PAGE})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        preflight = await caller.options("/v1/runs", headers={"Origin": PAGE, **PREFLIGHT})
        assert preflight.status_code == 405
        assert not [name for name in preflight.headers if name.startswith("access-control")]


async def test_a_listed_page_may_call_with_its_own_header_and_never_with_cookies(app: App) -> None:
    async with calling(app, settings=SETTINGS) as caller:
        preflight = await caller.options("/v1/workflows/echo/runs", headers={"Origin": PAGE, **PREFLIGHT})
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, PAGE)
        for answer in (preflight, await caller.get("/v1/runs", headers={"Origin": "http://localhost:3000"})):
            assert answer.status_code == 200
            assert "access-control-allow-credentials" not in answer.headers
        for other in (
            "https://desk.example.attacker.example",
            "http://desk.example",
            "null",
            "https://desk.example:444",
        ):
            answer = await caller.options("/v1/runs", headers={"Origin": other, **PREFLIGHT})
            assert "access-control-allow-origin" not in answer.headers
            assert (await caller.get("/v1/runs", headers={"Origin": other})).status_code == 403


@pytest.mark.parametrize(
    "text",
    ["*", "https://*", "https://*.example.com", "desk.example", "http://desk.example", "https://desk.example/", "null",
     "https://desk.example/path", "https://user@desk.example", "https://DESK.example", "https://", "https://[::1",
     PAGE + ";" + PAGE],
)  # fmt: skip
def test_what_is_no_origin_is_refused_and_so_is_everybody(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TINYWORKFLOW_CORS_ORIGINS"):
        HttpSettings.from_env({"TINYWORKFLOW_CORS_ORIGINS": f"{PAGE},{text}"})


def test_origins_are_listed_with_commas() -> None:
    found = HttpSettings.from_env({"TINYWORKFLOW_CORS_ORIGINS": f"{PAGE}, http://localhost:3000,https://[::1]:8443,"})
    assert found.cors_origins == (PAGE, "http://localhost:3000", "https://[::1]:8443")
