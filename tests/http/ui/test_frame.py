"""The dashboard's frame: what is true of every page, whoever wrote it, and what a browser may do with it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.http.front import calling, new_app
from tests.http.ui.visitor import HOSTILE, Page
from tinyworkflow_core import App, create_app
from tinyworkflow_core.http import ALL, ui
from tinyworkflow_core.http.operations import Operation
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.http.ui import UiRoutes
from tinyworkflow_core.http.ui.rendering import ago, duration, own_path, segment, short, size, when

STATIC = Path(ui.__file__).parent / "static"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def operations(app: App) -> list[Operation]:
    return UiRoutes(app, HttpSettings(), 1000).operations()


async def test_every_page_takes_nothing_from_elsewhere_and_runs_nothing_that_stands_in_it(
    app: App, caller: httpx.AsyncClient
) -> None:
    seen = 0
    for one in operations(app):
        if one.method != "GET" or one.scope is None:
            continue
        answer = await caller.get(re.sub(r"\{.*?\}", "none", one.path), follow_redirects=True)
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        seen += 1
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
        assert policy["form-action"] == "'self'"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"  # without any, browsers send forms with Origin: null
        Page(answer.status_code, answer.text)  # neither style= nor on...=, script from our own files, one h1
        assert not re.search(r"<style|(src|href|action)=\"(?!/ui|#|\?)", answer.text), one.path
        assert '<html lang="en">' in answer.text
        for landmark in ('<a class="skip" href="#content">', '<main id="content"', "<header", "<title>"):
            assert landmark in answer.text
    assert seen >= 8


async def test_the_root_leads_to_the_dashboard_on_ones_own_machine_and_where_there_is_nothing_else() -> None:
    app = new_app(dispatcher="none")
    leads: list[tuple[set[str], bool]] = [({"ui"}, False), ({"ui"}, True), ({*ALL}, True), ({"ui", "api"}, True)]
    for parts, emulate in leads:
        async with calling(app, parts=parts, emulate=emulate) as caller:
            answer = await caller.get("/?next=//evil.example", headers={"host": "evil.example"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/ui"), (parts, emulate)
            assert (await caller.post("/")).status_code == 405
    for parts, emulate in (({*ALL}, False), ({"ui", "api"}, False), ({*ALL} - {"ui"}, True), ({"api"}, False)):
        async with calling(app, parts=parts, emulate=emulate) as caller:
            assert (await caller.get("/")).status_code == 404, (parts, emulate)
    await app.close()


async def test_static_files_can_be_kept_for_ever_since_their_address_changes_with_them(
    caller: httpx.AsyncClient,
) -> None:
    page = (await caller.get("/ui")).text
    files = set(re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', page))
    assert len(files) == 3
    for address in files:
        assert re.search(r"\.[0-9a-f]{12}\.", address)
        answer = await caller.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
    for other in ("/ui/static/ui.css", "/ui/static/..%2F__init__.py", "/ui/static/templates"):
        assert (await caller.get(other)).status_code == 404


def test_all_files_together_are_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 150_000


async def test_the_pages_are_in_no_openapi_document(app: App, caller: httpx.AsyncClient) -> None:
    assert not [one for one in operations(app) if one.described]
    assert not [path for path in (await caller.get("/openapi.json")).json()["paths"] if path.startswith("/ui")]


async def test_problems_are_pages_that_escape_what_was_asked(caller: httpx.AsyncClient) -> None:
    for path in ("/ui/<script>alert(1)</script>", "/ui/runs/<b>no</b>", "/ui/no/such/page"):
        answer = await caller.get(path)
        assert answer.status_code == 404
        assert Page(404, answer.text).title.startswith("There is no such thing")
        assert "alert(1)</script>" not in answer.text
    assert (await caller.get("/v1/runs/none")).headers["content-type"] == "application/problem+json"


async def test_what_goes_wrong_inside_is_a_page_that_tells_nothing_and_a_line_in_the_log(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = "-".join(("secret", "plan"))  # the log has the code's own lines

    async def list_runs(query: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(app.store, "list", list_runs)
    answer = await caller.get("/ui/runs")
    assert answer.status_code == 500
    assert Page(500, answer.text).title.startswith("Something went wrong")
    assert "GET /ui/runs failed" in caplog.text
    assert "RuntimeError" in caplog.text
    assert words not in answer.text + caplog.text


async def test_whoever_is_no_caller_of_a_local_emulation_gets_a_page_that_says_why(app: App) -> None:
    async with calling(app, peer="203.0.113.9") as caller:
        answer = await caller.get("/ui")
        assert answer.status_code == 403
        assert "TINYWORKFLOW_API_KEYS" in answer.text


async def test_below_a_mount_every_link_begins_with_it() -> None:
    app = new_app()
    transport = httpx.ASGITransport(create_app(app, emulate=True), root_path="/flows", client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as caller:
        answer = await caller.get("/ui/runs")
        assert answer.status_code == 200
        assert re.findall(r'(?:href|src|action)="(?!/flows/ui|#)([^"]*)"', answer.text) == []
        assert "Path=/flows/ui" in answer.headers["set-cookie"]
    await app.close()


async def test_a_page_is_in_the_place_that_its_menu_marks(caller: httpx.AsyncClient) -> None:
    for path, label in (
        ("/ui", "Runs"),
        ("/ui/runs", "Runs"),
        ("/ui/schedules", "Schedules"),
        ("/ui/health", "Health"),
    ):
        marked = re.findall(r'aria-current="page">(\w+)', (await caller.get(path)).text)
        assert marked == [label], path


def test_what_is_shown_of_times_lengths_and_sizes() -> None:
    assert "2026-03-01 11:59:30" in when(NOW - timedelta(seconds=30))
    assert 'datetime="2026-03-01T11:59:30.000Z"' in when("2026-03-01T12:59:30+01:00")
    assert when(None) == ago(None, NOW) == duration(None) == "\u2013"
    spans = {0.2: "now", 30: "30 s ago", 90: "1 min ago", 7300: "2 h ago", 200_000: "2 d ago", -90: "in 1 min"}
    assert [ago(NOW - timedelta(seconds=one), NOW).split(">")[1].split("<")[0] for one in spans] == [*spans.values()]
    lengths = {0: "0 ms", 0.0123: "12 ms", 1.25: "1.2 s", 59: "59 s", 60: "1 min", 61: "1 min 1 s", 3600: "1 h"}
    lengths |= {7260: "2 h 1 min", 90_000: "1 d 1 h", -5: "-5 s"}
    assert [duration(one) for one in lengths] == [*lengths.values()]
    assert [size(one) for one in (0, 999, 1500, 2_500_000)] == ["0 B", "999 B", "1.5 kB", "2.5 MB"]
    assert (short("abcdef", 6), short("abcdefg", 6)) == ("abcdef", "abcde…")


@pytest.mark.parametrize("text", ["a/b", "..", ".", "a?b#c", "%2F", HOSTILE[:200], "é/\u202e", "\ud800"])
def test_any_text_is_one_segment_of_a_path(text: str) -> None:
    made = segment(text)
    assert re.fullmatch(r"[A-Za-z0-9._~%-]+", made)
    assert made.strip(".")


@pytest.mark.parametrize(
    "text",
    [
        "", "https://evil.example", "//evil.example", "/\\evil.example", "/ui\\..\\x", "/uix", "ui", "/ui/login",
        "javascript:alert(1)", "/ui/\r\nSet-Cookie: a=b", "/ui/é", "/v1/runs", "/ui/" + "x" * 5000,
    ],
)  # fmt: skip
def test_a_link_leads_nowhere_but_to_pages_of_the_dashboard(text: str) -> None:
    assert own_path(text) == "/ui"
    assert own_path("/ui/runs?status=failed&workflow=a%20b") == "/ui/runs?status=failed&workflow=a%20b"
