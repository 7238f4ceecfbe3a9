"""Durable HTTP calls: what is sent, what comes back, what is tried again, and who never gets to see a credential."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworkflow_core import ApplicationError, RetryPolicy, WorkflowContext
from tinyworkflow_core.definitions import ActivityDefinition
from tinyworkflow_core.errors import HttpBusyError, HttpStatusError, RetryAfter
from tinyworkflow_core.exchange import HttpRequest, HttpResponse, checked_url, origin
from tinyworkflow_core.outbound import CallOptions, call, send
from tinyworkflow_core.serialization import Codec
from tinyworkflow_core.testing import WorkflowEnvironment

CODEC = Codec()
NO_RETRY = RetryPolicy(max_retries=0)
SECRET = "sk-never-to-be-stored"

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Seen:
    """One request as a server received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Site:
    """A server of its own origin: for each path the answers that it gives in turn, the last one again and again."""

    port: int
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def on(self, path: str, *answers: int | tuple[Any, ...]) -> str:
        """Answer so at that path: a status, or (status, headers, body). The path's URL."""
        whole = [(one,) if isinstance(one, int) else one for one in answers]
        self.answers[path] = [(one[0], *one[1:], *({}, b"")[len(one) - 1 :])[:3] for one in whole]
        return self.url(path)


def _serve() -> Iterator[Site]:
    served = Site(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            parsed = self.parse_request()
            self.close_connection = True
            if not parsed:
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            served.seen.append(Seen(self.command, self.path, headers, body))
            answers = served.answers[self.path.partition("?")[0]]
            status, more, content = answers.pop(0) if len(answers) > 1 else answers[0]
            if status == 0:  # hangs up
                return
            self.send_response_only(status)
            for name, value in {**more, "content-length": str(len(content)), "connection": "close"}.items():
                for one in value.split("\n"):
                    self.send_header(name, one)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def site() -> Iterator[Site]:
    yield from _serve()


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    yield from _serve()


class Context:
    """What a WorkflowContext gives to `call`, without waiting: retries by the policy, every value by way of text."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []
        self.pauses: list[float] = []
        self.stored: list[str] = []

    async def execute(self, activity: ActivityDefinition[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.stored.append(CODEC.encode([args, kwargs]))
        attempt = 0
        while True:
            attempt += 1
            try:
                result = CODEC.encode(await activity.fn(*args, **kwargs))
                self.stored.append(result)
                return CODEC.decode(result)
            except Exception as error:
                failure = CODEC.failure(error)
                self.stored.append(json.dumps(failure.to_dict()))
                policy = activity.retry_policy
                delay = policy.delay(attempt, chance=0.5)
                if delay is None or not policy.retries(error):
                    raise CODEC.exception(failure) from None
                self.pauses.append(error.delay if isinstance(error, RetryAfter) else delay)

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)

    async def call(self, method: str, url: str, **options: Any) -> HttpResponse:
        return await call(self.execute, self.sleep, method, url, **options)


@pytest.fixture
def ctx() -> Context:
    return Context()


# --- one request and its answer ----------------------------------------------------------------------


async def test_a_call_sends_what_it_is_told_and_gives_the_whole_answer(site: Site, ctx: Context) -> None:
    answer = '{"id":7,"name":"Ünal"}'.encode()
    url = site.on("/orders", (201, {"Content-Type": "application/json", "X-Trace": "a\nb"}, answer))
    response = await ctx.call(
        "post",
        f"{url}?a=1#top",
        params={"page": 2, "tag": ["x y", "z"], "all": True, "no": None},
        json={"item": "lamp", "wünsche": [1, None]},
        headers={"X-Shop": "berlin"},
    )
    [seen] = site.seen
    assert (seen.method, seen.path) == ("POST", "/orders?a=1&page=2&tag=x+y&tag=z&all=true")
    assert json.loads(seen.body) == {"item": "lamp", "wünsche": [1, None]}
    assert (seen.headers["content-type"], seen.headers["x-shop"]) == ("application/json", "berlin")
    assert (response.status, response.ok, response.json()) == (201, True, {"id": 7, "name": "Ünal"})
    assert (response.text, response.content) == (answer.decode(), answer)
    assert (response.headers["x-trace"], response.headers["content-type"]) == ("a, b", "application/json")
    assert response.url == site.url(seen.path)
    assert response.raise_for_status() is response


async def test_bytes_come_back_as_they_were_and_text_in_its_own_charset(site: Site, ctx: Context) -> None:
    picture = bytes(range(256))
    response = await ctx.call("GET", site.on("/picture", (200, {"Content-Type": "image/png"}, picture)))
    assert response.content == picture
    latin = (200, {"Content-Type": 'text/plain; charset="ISO-8859-1"'}, "Grüße".encode("latin-1"))
    assert (await ctx.call("GET", site.on("/latin", latin))).text == "Grüße"
    strange = (200, {"Content-Type": "text/plain; charset=klingon"}, "Grüße".encode())
    assert (await ctx.call("GET", site.on("/strange", strange))).text == "Grüße"
    marked: Answer = (200, {}, '\ufeff{"a":1}'.encode())
    assert (await ctx.call("GET", site.on("/marked", marked))).json() == {"a": 1}


async def test_a_404_is_returned_and_raises_only_when_told_to(site: Site, ctx: Context) -> None:
    response = await ctx.call("GET", site.on("/gone", (404, {}, b"no such order")) + "?token=hidden")
    assert (response.status, response.ok, len(site.seen)) == (404, False, 1)
    with pytest.raises(HttpStatusError) as raised:
        response.raise_for_status()
    assert (raised.value.status, raised.value.url) == (404, site.url("/gone"))
    assert (raised.value.details, str(raised.value)) == ("no such order", f"{site.url('/gone')} answered 404")


async def test_a_body_over_the_limit_fails_at_once_and_names_the_limit(site: Site, ctx: Context) -> None:
    url = site.on("/huge", (200, {}, b"x" * 1001))
    with pytest.raises(ApplicationError, match=r"more than 1000 bytes.*max_response_bytes") as raised:
        await ctx.call("GET", url, max_response_bytes=1000)
    assert (raised.value.type, len(site.seen)) == ("ResponseTooLarge", 1)
    assert len((await ctx.call("GET", url, max_response_bytes=1001)).content) == 1001
    with pytest.raises(ApplicationError, match="more than 262144 bytes"):
        await ctx.call("GET", site.on("/default", (200, {}, b"x" * (256 * 1024 + 1))))


async def test_a_compressed_body_is_measured_as_it_will_be_stored(site: Site, ctx: Context) -> None:
    import gzip

    url = site.on("/bomb", (200, {"Content-Encoding": "gzip"}, gzip.compress(b"0" * 500_000)))
    with pytest.raises(ApplicationError, match="limit"):
        await ctx.call("GET", url)


# --- trying again ------------------------------------------------------------------------------------


async def test_a_503_and_a_connection_that_breaks_are_tried_again_by_the_policy(site: Site, ctx: Context) -> None:
    url = site.on("/flaky", 503, 0, 200)
    response = await ctx.call("POST", url, content="x", retry_policy=RetryPolicy(initial_delay=5, jitter=False))
    assert (response.status, ctx.pauses, len(site.seen)) == (200, [5, 10], 3)


async def test_a_429_is_tried_again_when_it_says(site: Site, ctx: Context) -> None:
    url = site.on("/busy", (429, {"Retry-After": "17"}), 429, 200)
    assert (await ctx.call("GET", url, retry_policy=RetryPolicy(jitter=False))).status == 200
    assert ctx.pauses == [17, 2]


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3"}], ids=["by policy", "by Retry-After"])
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_the_last_failure_is_raised_with_its_status_and_body(
    site: Site, ctx: Context, status: int, headers: dict[str, str]
) -> None:
    url = site.on("/down", (status, headers, b"maintenance " * 200)) + "?key=hidden"
    with pytest.raises(HttpStatusError) as raised:
        await ctx.call("GET", url, retry_policy=RetryPolicy(max_retries=2), max_response_bytes=1500)
    assert (raised.value.status, raised.value.url, len(site.seen)) == (status, site.url("/down"), 3)
    assert raised.value.details == ("maintenance " * 200)[:1000]
    assert "hidden" not in str(raised.value)


async def test_who_cannot_be_reached_is_a_connection_error_that_needs_no_httpx(ctx: Context) -> None:
    with pytest.raises(ConnectionError, match=r"^GET http://127\.0\.0\.1:1/: ConnectError: ") as raised:
        await ctx.call("GET", "http://127.0.0.1:1/?key=hidden", retry_policy=RetryPolicy(max_retries=1))
    assert type(raised.value) is ConnectionError
    assert len(ctx.pauses) == 1
    assert "httpx" not in "".join(json.loads(one).get("cause", "") for one in ctx.stored[1:])
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    "error", [HttpStatusError(503, "http://a/b?c", details="x"), HttpBusyError(429, "http://a", 2)]
)
def test_its_errors_come_back_from_the_store_as_themselves(error: Any) -> None:
    found: Any = CODEC.exception(CODEC.failure(error))
    assert type(found) is type(error)
    assert (found.status, found.url, found.details, str(found)) == (
        error.status,
        error.url,
        error.details,
        str(error),
    )


# --- polling -----------------------------------------------------------------------------------------


async def test_a_202_is_polled_at_its_location_when_it_says_until_there_is_a_result(site: Site, ctx: Context) -> None:
    start = site.on("/reports", (202, {"Location": "/reports/7", "Retry-After": "10"}))
    site.on("/reports/7", (202, {"Retry-After": "20", "Location": "7/state"}))
    site.on("/reports/7/state", 202, (202, {"Retry-After": "0"}), (200, {}, b"done"))
    response = await ctx.call("POST", start, json={"month": 11}, headers={"X-Shop": "b"}, idempotency_key="k")
    assert (response.status, response.text) == (200, "done")
    assert ctx.sleeps == [10, 20, 30, 1]
    assert [(one.method, one.path) for one in site.seen] == [
        ("POST", "/reports"),
        ("GET", "/reports/7"),
        *[("GET", "/reports/7/state")] * 3,
    ]
    assert [one.headers["x-shop"] for one in site.seen] == ["b"] * 5
    assert [one.body for one in site.seen[1:]] == [b""] * 4
    assert all("content-type" not in one.headers and "idempotency-key" not in one.headers for one in site.seen[1:])


async def test_a_202_that_nobody_wants_polled_or_that_says_no_place_is_the_answer(site: Site, ctx: Context) -> None:
    url = site.on("/jobs", (202, {"Location": "/jobs/1"}))
    assert (await ctx.call("POST", url, poll=False)).headers["location"] == "/jobs/1"
    assert (await ctx.call("POST", site.on("/quiet", 202))).status == 202
    assert (ctx.sleeps, len(site.seen)) == ([], 2)


async def test_a_poll_that_fails_is_tried_again_and_one_that_finds_nothing_is_the_answer(
    site: Site, ctx: Context
) -> None:
    url = site.on("/jobs", (202, {"Location": "/jobs/1"}))
    site.on("/jobs/1", 503, 202, 404)
    assert (await ctx.call("POST", url, poll_interval="5s")).status == 404
    assert (ctx.sleeps, len(ctx.pauses)) == ([5, 5], 1)


async def test_a_poll_of_a_place_that_cannot_be_called_says_so(site: Site, ctx: Context) -> None:
    url = site.on("/jobs", (202, {"Location": "ftp://127.0.0.1/x?key=hidden"}))
    with pytest.raises(ApplicationError, match="http://") as raised:
        await ctx.call("POST", url)
    assert raised.value.type == "BadLocation"
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT", "date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 30),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT", "date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000", "date": "Sun, 22 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 9999 12:00:30 GMT", "date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 30 * 86_400),
        ({"retry-after": "9" * 5000}, 30 * 86_400),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "soon", "date": "today"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_that_counts_from_the_answers_own(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert HttpResponse(status=202, headers=headers).retry_after == seconds


async def test_a_date_as_retry_after_is_waited_for_without_a_clock(site: Site, ctx: Context) -> None:
    when = {"Retry-After": "Thu, 01 Jan 1970 00:01:30 GMT", "Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
    site.on("/jobs/1", 200)
    assert (await ctx.call("POST", site.on("/jobs", (202, {"Location": "/jobs/1", **when})))).ok
    assert ctx.sleeps == [90]


# --- redirects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (302, "PUT", "PUT"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "PATCH", "PATCH"),
    ],
)
async def test_a_redirect_is_followed_with_the_method_and_the_body_that_its_status_asks_for(
    site: Site, ctx: Context, status: int, method: str, then: str
) -> None:
    site.on("/new", 200)
    response = await ctx.call(method, site.on("/old", (status, {"Location": "new"})), content="x", idempotency_key="k")
    assert response.url == site.url("/new")
    assert [one.method for one in site.seen] == [method, then]
    assert site.seen[1].body == (b"" if then == "GET" else b"x")
    assert ("idempotency-key" in site.seen[1].headers) == (then not in ("GET", "HEAD"))


async def test_redirects_that_never_end_are_given_up_at_once(site: Site, ctx: Context) -> None:
    with pytest.raises(ApplicationError, match="more than 5 redirects") as raised:
        await ctx.call("GET", site.on("/loop", (302, {"Location": "/loop"})))
    assert (raised.value.type, len(site.seen)) == ("TooManyRedirects", 6)


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "file:///etc/passwd", "http://ada:pw@127.0.0.1/", "http://["])
async def test_a_redirect_to_what_is_no_plain_http_url_is_not_followed(site: Site, ctx: Context, location: str) -> None:
    with pytest.raises(ApplicationError) as raised:
        await ctx.call("GET", site.on("/old", (302, {"Location": location})))
    assert (raised.value.type, len(site.seen)) == ("BadLocation", 1)


async def test_a_300_without_a_place_is_the_answer(site: Site, ctx: Context) -> None:
    assert (await ctx.call("GET", site.on("/old", 302))).status == 302
    assert (await ctx.call("GET", site.on("/same", (304, {"Location": "/old"})))).status == 304


# --- credentials -------------------------------------------------------------------------------------


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("SHOP_TOKEN", f"{SECRET}\n")
    monkeypatch.setenv("SHOP_KEY", SECRET)
    return {"bearer_from_env": "SHOP_TOKEN", "secret_headers": {"X-Api-Key": "SHOP_KEY", "Cookie": "SHOP_KEY"}}


def shown(seen: Seen) -> list[str]:
    """The credentials that a server got to see."""
    return [name for name, value in seen.headers.items() if SECRET in value]


EVERY = ["authorization", "x-api-key", "cookie"]


async def test_credentials_are_read_when_the_request_is_sent_and_stored_nowhere(
    site: Site, ctx: Context, secrets: dict[str, Any]
) -> None:
    url = site.on(
        "/pay", 503, (429, {"Retry-After": "1"}), 0, (202, {"Location": "/paid", "Set-Cookie": f"s={SECRET}"})
    )
    site.on("/paid", 200)
    response = await ctx.call("POST", url, **secrets)
    assert response.ok
    assert site.seen[0].headers["authorization"] == f"Bearer {SECRET}"
    assert [shown(one) for one in site.seen] == [EVERY] * 5
    assert SECRET not in "".join(ctx.stored)
    assert "SHOP_TOKEN" in ctx.stored[0]


@pytest.mark.parametrize("status", [302, 307])
async def test_a_redirect_to_another_origin_loses_the_credentials_for_good(
    site: Site, elsewhere: Site, ctx: Context, secrets: dict[str, Any], status: int
) -> None:
    url = site.on("/a", (status, {"Location": "/b", "Set-Cookie": f"s={SECRET}; Path=/"}))
    site.on("/b", (status, {"Location": elsewhere.url("/c")}))
    elsewhere.on("/c", (status, {"Location": site.url("/d")}))
    site.on("/d", 200)
    assert (await ctx.call("POST", url, headers={"X-Shop": "b"}, **secrets)).ok
    assert [shown(one) for one in site.seen] == [EVERY, EVERY, []]
    assert [shown(one) for one in elsewhere.seen] == [[]]
    assert elsewhere.seen[0].headers["x-shop"] == "b"
    assert not {"authorization", "x-api-key", "cookie"} & elsewhere.seen[0].headers.keys()


async def test_a_cookie_that_a_service_sets_is_never_sent(site: Site, ctx: Context) -> None:
    url = site.on("/a", (302, {"Location": "/b", "Set-Cookie": "s=1; Path=/"}))
    site.on("/b", (200, {"Set-Cookie": "s=2"}))
    response = await ctx.call("GET", url)
    assert "cookie" not in site.seen[1].headers
    assert "set-cookie" not in response.headers


async def test_polling_at_another_origin_has_no_credentials(
    site: Site, elsewhere: Site, ctx: Context, secrets: dict[str, Any]
) -> None:
    url = site.on("/jobs", (202, {"Location": elsewhere.url("/1")}))
    elsewhere.on("/1", (202, {"Location": site.url("/2")}))
    site.on("/2", 200)
    assert (await ctx.call("POST", url, **secrets)).ok
    assert [shown(one) for one in [*site.seen, *elsewhere.seen]] == [EVERY, [], []]


async def test_polling_after_a_redirect_to_another_origin_has_no_credentials(
    site: Site, elsewhere: Site, ctx: Context, secrets: dict[str, Any]
) -> None:
    url = site.on("/jobs", (307, {"Location": elsewhere.url("/jobs")}))
    elsewhere.on("/jobs", (202, {"Location": site.url("/1")}))
    site.on("/1", 200)
    assert (await ctx.call("POST", url, **secrets)).ok
    assert [shown(one) for one in [*site.seen, *elsewhere.seen]] == [EVERY, [], []]


@pytest.mark.parametrize(
    ("value", "problem"), [(None, "is not set"), (" \n", "is not set"), (f"{SECRET}\nx", "no header can hold")]
)
async def test_a_credential_that_is_absent_or_cannot_be_sent_is_named_at_once(
    site: Site, ctx: Context, monkeypatch: pytest.MonkeyPatch, value: str | None, problem: str
) -> None:
    if value is not None:
        monkeypatch.setenv("SHOP_TOKEN", value)
    with pytest.raises(ApplicationError, match=f"SHOP_TOKEN.*{problem}") as raised:
        await ctx.call("GET", site.on("/pay", 200), bearer_from_env="SHOP_TOKEN")
    assert (raised.value.type, site.seen, ctx.pauses) == ("MissingCredential", [], [])
    assert SECRET not in "".join(ctx.stored)


@pytest.mark.parametrize("name", ["Authorization", "COOKIE", "proxy-authorization", "X-Api-Key"])
async def test_a_literal_credential_is_refused_with_the_way_out(ctx: Context, name: str) -> None:
    with pytest.raises(ValueError, match="NAME_OF_THE_VARIABLE") as raised:
        await ctx.call("GET", "https://shop.test/", headers={name: SECRET})
    assert SECRET not in str(raised.value)
    assert ctx.stored == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bearer_from_env": "sk_live_secret"}, "NAMES of environment variables"),
        ({"secret_headers": {"X-Api-Key": "sk-live"}}, "NAMES of environment variables"),
        ({"bearer_from_env": "A", "secret_headers": {"AUTHORIZATION": "B"}}, "cannot set it as well"),
        ({"headers": {"X-Key": "1"}, "secret_headers": {"x-key": "B"}}, "both set x-key"),
        ({"headers": {"Host": "other.test"}}, "follows from the URL"),
        ({"headers": {"X Shop": "1"}}, "not the name of a header"),
        ({"headers": {"X-Shop": "1\r\nCookie: a=b"}}, "printable ASCII"),
        ({"headers": {"X-Shop": "ü"}}, "printable ASCII"),
        ({"json": {}, "content": "x"}, "two bodies"),
        ({"json": {1, 2}}, "plain JSON"),
        ({"json": float("nan")}, "plain JSON"),
        ({"content": "\ud800"}, "UTF-8"),
        ({"content": {"a": 1}}, "UTF-8"),
        ({"params": {"a": b"x"}}, "text and numbers"),
        ({"max_response_bytes": -1}, "whole number"),
        ({"poll_interval": "soon"}, "not a duration"),
    ],
    ids=str,
)
async def test_what_cannot_be_sent_is_refused_before_anything_is(
    ctx: Context, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=problem) as raised:
        await ctx.call("GET", "https://shop.test/", **options)
    assert "live" not in str(raised.value)
    assert ctx.stored == []


# --- URLs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://shop.test/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("//shop.test/", "http://"),
        ("shop.test", "http://"),
        ("https://ada:hidden@shop.test/", "secret_headers"),
        ("https://hidden@shop.test/", "secret_headers"),
        ("https:///path", "no host"),
        ("https://shöp.test/", "xn--"),
        ("https://shop.test:0/", "no host"),
        ("https://shop.test:99999/", "host and port"),
        ("https://[::1/", "host and port"),
        ("https://shop.test\\@evil.test/", "percent-encoded"),
        ("https://shop.test/a b", "percent-encoded"),
        ("https://shop.test/\n", "percent-encoded"),
    ],
)
async def test_only_plain_http_urls_are_called(ctx: Context, url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        await ctx.call("GET", url)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.test/x", "https://A.test:443/y?z", True),
        ("http://a.test", "http://a.test:80", True),
        ("http://a.test", "https://a.test", False),
        ("https://a.test", "https://a.test:8443", False),
        ("https://a.test", "https://b.a.test", False),
        ("https://a.test", "https://a.test.", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert (origin(checked_url(one)) == origin(checked_url(other))) is same


@given(st.text(alphabet="ab.:/@#?[]\\%201-_\t é", max_size=20))
def test_a_url_that_is_taken_names_the_same_origin_to_us_and_to_httpx(text: str) -> None:
    try:
        url = checked_url(f"http://{text}")
        read = httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        return
    assert (read.scheme, read.host, read.port or 80) == origin(url)
    assert not read.userinfo


# --- the idempotency key, and what stands in histories -----------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD"])
async def test_the_idempotency_key_goes_with_every_attempt_of_what_is_not_safe_to_repeat(
    site: Site, ctx: Context, method: str
) -> None:
    key = "zahlung für ada_1/0/3"
    await ctx.call(method, site.on("/pay", 503, 200), idempotency_key=key)
    sent = [one.headers.get("idempotency-key") for one in site.seen]
    assert sent == [None if method in ("GET", "HEAD") else "zahlung%20f%C3%BCr%20ada_1/0/3"] * 2


async def test_a_key_of_the_callers_own_wins_and_none_is_sent_without_one(site: Site, ctx: Context) -> None:
    url = site.on("/pay", 200)
    await ctx.call("POST", url, headers={"Idempotency-Key": "mine"}, idempotency_key="theirs")
    await ctx.call("POST", url, idempotency_key=None)
    assert [one.headers.get("idempotency-key") for one in site.seen] == ["mine", None]


def test_the_step_keeps_its_name_and_its_arguments_for_old_histories() -> None:
    assert send.name == "tinyworkflow.call_http"
    assert HttpRequest.of("get", "https://shop.test").arguments() == {}
    full = HttpRequest.of(
        "post",
        "https://shop.test/a",
        headers={"X-Shop": "b"},
        json=[1, "ü"],
        bearer_from_env="TOKEN",
        secret_headers={"X-Api-Key": "KEY"},
        idempotency_key="run/0/1",
        max_response_bytes=10,
    )
    assert CODEC.encode([full.method, full.url, full.arguments()]) == (
        '["POST","https://shop.test/a",{"headers":{"x-shop":"b","content-type":"application/json",'
        '"idempotency-key":"run/0/1"},"content":"[1,\\"ü\\"]","secret_headers":{"x-api-key":"KEY"},'
        '"bearer_from_env":"TOKEN","max_response_bytes":10}]'
    )
    stored = (
        '{"$":"dataclass","c":"tinyworkflow_core.exchange:HttpResponse","v":{"status":200,"headers":{},"body":"x"}}'
    )
    assert CODEC.decode(stored) == HttpResponse(status=200, body="x")


def test_the_options_that_are_handed_on_are_those_of_call() -> None:
    parameters = inspect.signature(call).parameters.values()
    assert set(CallOptions.__annotations__) == {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}


async def test_the_attempts_timeout_and_the_policy_are_the_steps(ctx: Context, site: Site) -> None:
    used: list[ActivityDefinition[..., Any]] = []

    async def execute(activity: ActivityDefinition[..., Any], *args: Any, **kwargs: Any) -> HttpResponse:
        used.append(activity)
        return HttpResponse(status=200)

    await call(execute, ctx.sleep, "GET", "https://shop.test")
    await call(execute, ctx.sleep, "GET", "https://shop.test", attempt_timeout="5s", retry_policy=NO_RETRY)
    assert [(one.timeout, one.retry_policy) for one in used] == [(60, RetryPolicy()), (5, NO_RETRY)]


# --- in a workflow -----------------------------------------------------------------------------------

PAGE = Path(__file__).parents[1] / "docs" / "calling-http.md"


@pytest.mark.skipif(not hasattr(WorkflowContext, "call_http"), reason="WorkflowContext has no call_http yet")
async def test_the_workflow_of_the_page_polls_on_durable_timers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "\n\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    (tmp_path / "page_calling_http.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    page = importlib.import_module("page_calling_http")
    asked: list[tuple[str, str, Any]] = []

    def fake(method: str, url: str, **options: Any) -> HttpResponse:
        asked.append((method, url, options.get("headers", {}).get("idempotency-key")))
        response: HttpResponse = page.fake_reports(method, url, **options)
        return response

    async with WorkflowEnvironment([page.monthly_report], activities={send.name: fake}) as env:
        run_id = await env.start(page.monthly_report, "2026-11")
        await env.run()
        assert (await env.status(run_id)).status == "waiting"
        assert await env.result(run_id) == "https://reports.example.com/7.pdf"
        timers = await env.events(run_id, "TimerFired")
    assert [(method, url) for method, url, _ in asked] == [
        ("POST", "https://reports.example.com/reports"),
        ("GET", "https://reports.example.com/reports/7"),
    ]
    assert asked[0][2].startswith(run_id)
    assert len(timers) == 1
