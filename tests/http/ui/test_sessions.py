"""Sessions and forms: who stays known to the dashboard, for how long and where; and which forms are taken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.http.front import calling, new_app
from tests.http.ui.visitor import Page, Visitor
from tinyworkflow_core import App
from tinyworkflow_core.approval_links import LinkSettings
from tinyworkflow_core.http.access import Document
from tinyworkflow_core.http.access_document import document_from_env
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.testing import VirtualClock

LINKS = LinkSettings(keys=("k" * 40,))
SERVICE = "https://flows.example"
ANOTHER = "https://evil.example"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def locked(clock: VirtualClock) -> AsyncIterator[App]:
    app = new_app(api_keys=["first-key"], clock=clock, dispatcher="none")
    yield app
    await app.close()


def document(*scopes: str, **more: object) -> Document:
    """One key, `second-key`, called viewer."""
    digest = hashlib.sha256(b"second-key").hexdigest()
    key = {"name": "viewer", "sha256": digest, "scopes": list(scopes), **more}
    found = document_from_env({"TINYWORKFLOW_ACCESS": json.dumps({"keys": [key]})})
    assert found is not None
    return found


def browser(
    app: App, settings: HttpSettings | None = None, *, base_url: str = SERVICE
) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    settings = settings or HttpSettings(links=LINKS)
    return calling(app, parts={"ui", "api"}, emulate=False, peer="203.0.113.9", base_url=base_url, settings=settings)


async def sign_in(caller: httpx.AsyncClient, key: str = "first-key", **fields: str) -> httpx.Response:
    form = Page(200, (await caller.get("/ui/login")).text).form("/ui/login")
    return await caller.post("/ui/login", data=form.fields | {"key": key} | fields)


async def test_whoever_is_not_known_signs_in_and_comes_to_the_page_that_they_wanted(locked: App) -> None:
    async with browser(locked) as caller:
        answer = await caller.get("/ui/runs?status=failed&workflow=a%20b")
        assert answer.status_code == 303
        place = urlsplit(answer.headers["location"])
        assert place.path == "/ui/login"
        assert parse_qs(place.query) == {"next": ["/ui/runs?status=failed&workflow=a%20b"]}

        visitor = Visitor(caller)
        form = await visitor.see(answer.headers["location"])
        assert (await visitor.send(form, "/ui/login", 401, key="wrong")).title.startswith("Error")
        answer = await visitor.post(form.form("/ui/login"), key=" first-key ")
        assert answer.headers["location"] == "/ui/runs?status=failed&workflow=a%20b"
        cookie = answer.headers["set-cookie"]
        for part in ("HttpOnly", "Max-Age=43200", "Path=/ui", "SameSite=strict", "Secure"):
            assert part in cookie
        assert "first-key" not in cookie
        page = await visitor.see("/ui/runs")
        assert "api-key-1" in page.words


async def test_over_plain_http_the_cookie_is_not_secure_else_nobody_would_get_it_back(locked: App) -> None:
    async with browser(locked, base_url="http://flows.example") as caller:
        assert "Secure" not in (await sign_in(caller)).headers["set-cookie"]
        answer = await caller.get("/ui/runs")
        assert answer.status_code == 200


async def test_a_session_counts_on_pages_alone_and_never_on_the_api(locked: App) -> None:
    async with browser(locked) as caller:
        answer = await sign_in(caller)
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert (await caller.get("/ui")).status_code == 200
        assert (await caller.get("/v1/runs", headers={"Cookie": cookie})).status_code == 401
        assert (await caller.post("/v1/workflows/echo/runs", json={}, headers={"Cookie": cookie})).status_code == 401


async def test_a_session_ends_after_twelve_hours_by_signing_out_and_with_its_key(
    locked: App, clock: VirtualClock
) -> None:
    async with browser(locked) as caller:
        await sign_in(caller)
        clock.move_to(clock.now() + timedelta(hours=12))
        assert (await caller.get("/ui")).status_code == 200
        clock.move_to(clock.now() + timedelta(seconds=2))
        assert (await caller.get("/ui")).status_code == 303

        await sign_in(caller)
        visitor = Visitor(caller)
        page = await visitor.see("/ui")
        cookies = dict(caller.cookies)
        await visitor.send(page, "/ui/logout")
        assert (await caller.get("/ui")).status_code == 303
        assert "tinyworkflow_session" in cookies
    locked.api_keys = ("another-key",)
    async with browser(locked) as caller:
        caller.cookies.update(cookies)
        assert (await caller.get("/ui")).status_code == 303


async def test_a_session_that_was_made_up_or_altered_or_signed_for_something_else_is_none(
    locked: App, clock: VirtualClock
) -> None:
    async with browser(locked) as caller:
        cookie = (await sign_in(caller)).cookies["tinyworkflow_session"]
    others = LinkSettings(keys=("o" * 40,))
    made = [cookie[:-2], f"{cookie}x", cookie.replace(".", "", 1), "", "é", "a.b.c"]
    async with browser(locked, HttpSettings(links=others)) as caller:
        await sign_in(caller)
        made.append(caller.cookies["tinyworkflow_session"])
    async with browser(locked) as caller:
        for one in made:
            answer = await caller.get("/ui", headers={b"Cookie": f"tinyworkflow_session={one}".encode()})
            assert answer.status_code == 303, one
        answer = await caller.get("/ui", headers={"Cookie": f"tinyworkflow_session={cookie}"})
        assert answer.status_code == 200


async def test_a_key_that_has_expired_begins_no_session_and_ends_those_that_it_began(
    locked: App, clock: VirtualClock
) -> None:
    until = (clock.now() + timedelta(hours=1)).isoformat()
    settings = HttpSettings(links=LINKS, access=document("read", expires=until))
    async with browser(locked, settings) as caller:
        await sign_in(caller, "second-key")
        assert (await caller.get("/ui")).status_code == 200
        clock.move_to(clock.now() + timedelta(hours=1))
        assert (await caller.get("/ui")).status_code == 303
        assert (await sign_in(caller, "second-key")).status_code == 401


async def test_who_may_only_read_sees_no_button_and_gets_a_page_when_they_post_all_the_same(locked: App) -> None:
    async with browser(locked, HttpSettings(links=LINKS, access=document("read"))) as caller:
        await locked.client.start_workflow("echo", run_id="r")
        await sign_in(caller, "second-key")
        page = Page(200, (await caller.get("/ui/runs")).text)
        assert "Cancel" not in page.html
        assert "Start a run" not in page.html
        csrf = page.form("/ui/logout").fields["csrf"]
        answer = await caller.post("/ui/bulk/do", data={"csrf": csrf, "action": "cancel", "run_id": "r"})
        assert answer.status_code == 403
        assert "viewer has no scope &#39;operate&#39;" in answer.text
        assert await locked.store.inbox("r") == []


async def test_without_keys_to_sign_with_nobody_signs_in_and_the_page_says_why(locked: App) -> None:
    async with browser(locked, HttpSettings()) as caller:
        answer = await caller.get("/ui/login")
        assert answer.status_code == 503
        assert "TINYWORKFLOW_LINK_KEYS" in answer.text
        assert (await caller.get("/ui", headers={"Authorization": "Bearer first-key"})).status_code == 200


async def test_wrong_keys_on_the_form_are_counted_like_those_of_the_api(locked: App) -> None:
    statuses = []
    async with browser(locked) as caller:
        form = Page(200, (await caller.get("/ui/login")).text).form("/ui/login").fields
        for number in range(102):
            statuses.append((await caller.post("/ui/login", data=form | {"key": f"{number}"})).status_code)
    assert statuses[:100] == [401] * 100
    assert statuses[-1] == 429


async def test_a_link_from_another_site_is_followed_once_more_by_our_own_page(locked: App) -> None:
    """A strict cookie stays at home when somebody follows a link in a mail."""
    async with browser(locked) as caller:
        answer = await caller.get("/ui/runs?status=failed", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        assert answer.headers["refresh"] == "0; url=/ui/runs?status=failed"
        again = await caller.get("/ui/runs?status=failed", headers={"Sec-Fetch-Site": "same-origin"})
        assert again.headers["location"].startswith("/ui/login?next=")


# --- forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed_in", [True, False], ids=["session", "local emulation"])
async def test_a_form_without_the_token_of_its_own_browser_changes_nothing(signed_in: bool) -> None:
    app = new_app(api_keys=["first-key"] if signed_in else [], dispatcher="none")
    await app.client.start_workflow("echo", run_id="r")
    settings, base_url = HttpSettings(links=LINKS), SERVICE if signed_in else "http://127.0.0.1:8080"
    tokens = []
    for _ in range(2):
        async with calling(app, settings=settings, base_url=base_url) as caller:
            if signed_in:
                await sign_in(caller)
            tokens.append(Page(200, (await caller.get("/ui/runs")).text).form("/ui/bulk").fields["csrf"])
            if len(tokens) < 2:
                continue
            data = {"action": "cancel", "run_id": "r"}
            for csrf in ("", "0" * 64, tokens[1][:-1], "é", tokens[0]):
                answer = await caller.post("/ui/bulk/do", data=data | {"csrf": csrf})
                assert answer.status_code == 403
            assert (await caller.post("/ui/bulk/do", data=data)).status_code == 403
            right = data | {"csrf": tokens[1]}
            for site in ("cross-site", "same-site"):
                headers = {"Sec-Fetch-Site": site}
                assert (await caller.post("/ui/bulk/do", data=right, headers=headers)).status_code == 403
            for origin in (ANOTHER, "null", f"{base_url}.evil.example"):
                headers = {"Origin": origin}
                assert (await caller.post("/ui/bulk/do", data=right, headers=headers)).status_code == 403
            assert await app.store.inbox("r") == []
            headers = {"Origin": base_url, "Sec-Fetch-Site": "same-origin"}
            assert (await caller.post("/ui/bulk/do", data=right, headers=headers)).status_code == 200
            assert [one.kind for one in await app.store.inbox("r")] == ["cancel"]
    await app.close()


async def test_signing_in_and_out_ask_for_the_token_too(locked: App) -> None:
    async with browser(locked) as caller:
        assert (await caller.post("/ui/login", data={"key": "first-key"})).status_code == 403
        await sign_in(caller)
        assert (await caller.post("/ui/logout", data={"csrf": "x"})).status_code == 403
        assert (await caller.get("/ui")).status_code == 200


async def test_what_is_no_form_is_refused_by_a_page(locked: App) -> None:
    async with browser(locked) as caller:
        await sign_in(caller)
        large = {"csrf": "x" * 30_000}
        assert (await caller.post("/ui/logout", data=large)).status_code == 413
        assert (await caller.post("/ui/logout", json={})).status_code == 400
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await caller.post("/ui/logout", content=b"\xff\xfe=%ff", headers=headers)).status_code == 400
        many = "&".join(f"a{number}=1" for number in range(2001))
        assert (await caller.post("/ui/logout", content=many, headers=headers)).status_code == 400
