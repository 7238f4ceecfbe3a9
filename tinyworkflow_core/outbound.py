"""Durable HTTP calls: the activity that sends one request, and the coroutine that polls until there is an answer.

`send` touches the world; it is an activity, so that what came back is stored before a workflow sees it. `call` is
workflow code: a pure function of what `send` gave, over the two things that it needs of a context. httpx is loaded when
the first request is sent, and only by the process that sends it.

A request goes wherever the workflow says, and wherever the answer redirects it, private networks included: a workflow
that takes a URL from its input must check it first.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypedDict, cast

from .clock import Duration, seconds
from .definitions import ActivityDefinition
from .errors import ApplicationError, HttpBusyError, HttpStatusError
from .exchange import MAX_RESPONSE_BYTES, HttpRequest, HttpResponse, Param, charset, fits_header
from .retry import RetryPolicy

if TYPE_CHECKING:
    import httpx

__all__ = ["CallOptions", "HttpRequest", "HttpResponse", "call", "send"]

MAX_REDIRECTS = 5
ATTEMPT_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 30.0
"""How long a 202 without Retry-After is left alone."""
SHORTEST_POLL_SECONDS = 1.0
"""Every poll is written into the history: a Retry-After of 0 must not fill it."""

_CONNECT_SECONDS = 10.0
_REDIRECTS = {301, 302, 303, 307, 308}

Execute = Callable[..., Awaitable[Any]]
"""`execute(activity, *args, **kwargs)`: `WorkflowContext.execute_activity`."""
Sleep = Callable[[float], Awaitable[Any]]
"""`sleep(seconds)`: `WorkflowContext.sleep`."""


class CallOptions(TypedDict, total=False):
    """The keyword arguments of `call`, for those who hand them on."""

    headers: Mapping[str, str] | None
    params: Mapping[str, Param | Sequence[Param]] | None
    json: Any
    content: str | bytes | None
    bearer_from_env: str | None
    secret_headers: Mapping[str, str] | None
    idempotency_key: str | None
    retry_policy: RetryPolicy | None
    attempt_timeout: Duration
    poll: bool
    poll_interval: Duration
    max_response_bytes: int


# --- in the workflow ---------------------------------------------------------------------------------


async def call(
    execute: Execute,
    sleep: Sleep,
    method: str,
    url: str,
    *,
    retry_policy: RetryPolicy | None = None,
    attempt_timeout: Duration = ATTEMPT_TIMEOUT_SECONDS,
    poll: bool = True,
    poll_interval: Duration = POLL_SECONDS,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Param | Sequence[Param]] | None = None,
    json: Any = None,
    content: str | bytes | None = None,
    bearer_from_env: str | None = None,
    secret_headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    max_response_bytes: int = MAX_RESPONSE_BYTES,
) -> HttpResponse:
    """The answer to a request, asked for until it is more than "202, look there later".

    - Each request is one step, repeated by `retry_policy` after 429, 5xx and connections that fail; `attempt_timeout`
      bounds one attempt, its redirects included. Every other answer is returned, 4xx too.
    - poll: a 202 with Location is followed by a GET of that place after Retry-After (else `poll_interval`), again and
      again while it answers 202. The waits are durable. Nothing bounds them but the caller's own timeout.
    - bearer_from_env, secret_headers: names of environment variables, read where the request is sent. What they hold
      is never stored, and sent to the URL's own origin only.
    - idempotency_key: sent as Idempotency-Key with every method that is not safe to repeat.

    Raises, once the retries are used up, HttpStatusError (429, 5xx), ConnectionError or TimeoutError; at once
    ApplicationError for what no retry can mend, and ValueError or TypeError for what cannot be sent.
    """
    request = HttpRequest.of(
        method,
        url,
        headers=headers,
        params=params,
        json=json,
        content=content,
        bearer_from_env=bearer_from_env,
        secret_headers=secret_headers,
        idempotency_key=idempotency_key,
        max_response_bytes=max_response_bytes,
    )
    pause = seconds(poll_interval)
    activity = send.options(retry_policy=retry_policy, timeout=attempt_timeout)
    response = await _ask(execute, activity, request)
    if not poll or response.status != 202 or "location" not in response.headers:
        return response
    request = request.as_get()
    while response.status == 202:
        # By way of where the answer came from: a redirect may have led to another origin, which gets no credentials.
        request = _moved(_moved(request, response.url), response.headers.get("location", ""))
        asked = response.retry_after
        await sleep(max(pause if asked is None else asked, SHORTEST_POLL_SECONDS))
        response = await _ask(execute, activity, request)
    return response


async def _ask(execute: Execute, activity: ActivityDefinition[..., Any], request: HttpRequest) -> HttpResponse:
    try:
        response = await execute(activity, request.method, request.url, **request.arguments())
    except HttpBusyError as busy:  # how it was retried is of no interest any more
        raise HttpStatusError(busy.status, busy.url, details=busy.details, retryable=True) from None
    return cast("HttpResponse", response)


def _moved(request: HttpRequest, location: str) -> HttpRequest:
    try:
        return request.moved_to(location)
    except ValueError as error:
        problem = f"{_place(request)} points to a place that is not followed: {error}"
        raise ApplicationError(problem, type="BadLocation") from None


def _place(request: HttpRequest) -> str:
    return f"{request.method} {request.url.partition('?')[0]}"


# --- in the world ------------------------------------------------------------------------------------


async def _send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: str | bytes | None = None,
    secret_headers: Mapping[str, str] | None = None,
    bearer_from_env: str | None = None,
    max_response_bytes: int = MAX_RESPONSE_BYTES,
) -> HttpResponse:
    """Send one request and follow its redirects. Raises what is worth a retry as such, and the rest as
    ApplicationError."""
    import httpx

    request = HttpRequest(
        method=method,
        url=url,
        headers=dict(headers or {}),
        content=content,
        secret_headers=dict(secret_headers or {}),
        bearer_from_env=bearer_from_env,
        max_response_bytes=max_response_bytes,
    )
    try:
        async with http_client() as client:
            for _ in range(MAX_REDIRECTS + 1):
                async with client.stream(
                    request.method, request.url, headers=_with_secrets(request), content=request.content
                ) as answer:
                    location = answer.headers.get("location")
                    if answer.status_code not in _REDIRECTS or location is None:
                        return await _read(request, answer)
                request = _redirected(request, answer.status_code, location)
    except httpx.RequestError as error:
        # Not as its cause: whoever reads this history must not need httpx for it.
        raise ConnectionError(f"{_place(request)}: {type(error).__name__}: {error}") from None
    except httpx.InvalidURL as error:
        raise ApplicationError(f"{_place(request)} cannot be called: {error}", type="InvalidUrl") from None
    raise ApplicationError(f"{_place(request)}: more than {MAX_REDIRECTS} redirects", type="TooManyRedirects")


send: ActivityDefinition[..., Any] = ActivityDefinition(
    fn=_send, name="tinyworkflow.call_http", timeout=ATTEMPT_TIMEOUT_SECONDS
)
"""One request, as a step. Its name and its arguments are compared with histories: they stay as they are."""


@asynccontextmanager
async def http_client(*, trust_env: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client for one attempt: no cookies, no redirects, no limit on time but for the connection. `trust_env`: whether
    the environment may name a proxy."""
    # One for each attempt: a pool of connections belongs to the event loop that it began in, and runs share nothing.
    import httpx

    timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)  # the attempt as a whole has a timeout of its own
    agent = {"user-agent": "tinyworkflow-core"}
    async with httpx.AsyncClient(
        verify=_tls(), timeout=timeout, cookies=_no_cookies(), headers=agent, trust_env=trust_env
    ) as client:
        yield client


@functools.cache
def _tls() -> Any:
    import httpx

    return httpx.create_ssl_context()  # a tenth of a second each time


def _no_cookies() -> Any:
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    # A cookie is for a host and all its ports: a redirect could carry it to another origin.
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _with_secrets(request: HttpRequest) -> dict[str, str]:
    headers = dict(request.headers)
    if request.bearer_from_env is not None:
        headers["authorization"] = f"Bearer {_secret(request.bearer_from_env, 'authorization')}"
    for name, variable in request.secret_headers.items():
        headers[name] = _secret(variable, name)
    return headers


def _secret(variable: str, header: str) -> str:
    value = os.environ.get(variable, "").strip()  # a secret that is mounted from a file often ends in a line break
    if value and fits_header(value):
        return value
    problem = "holds characters that no header can hold" if value else "is not set where this activity runs"
    raise ApplicationError(
        f"the environment variable {variable}, for the header {header!r} of a call_http, {problem}",
        type="MissingCredential",
    )


def _redirected(request: HttpRequest, status: int, location: str) -> HttpRequest:
    # As every browser does: 303 says "get", and a POST that 301 or 302 moves becomes a GET; 307 and 308 repeat it.
    if (status == 303 and request.method != "HEAD") or (status in (301, 302) and request.method == "POST"):
        request = request.as_get()
    return _moved(request, location)


async def _read(request: HttpRequest, answer: httpx.Response) -> HttpResponse:
    failing = answer.status_code == 429 or answer.status_code >= 500
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) <= request.max_response_bytes:
            continue
        if failing:
            break  # the status says enough
        raise ApplicationError(
            f"{_place(request)} answered with a body of more than {request.max_response_bytes} bytes, the limit "
            "(max_response_bytes=). What is returned has to fit into the history: fetch more than that in an activity "
            "of your own, put it where large things belong, and return a reference",
            type="ResponseTooLarge",
        )
    headers = {name: value for name, value in answer.headers.items() if name != "set-cookie"}
    response = HttpResponse(
        status=answer.status_code, headers=headers, body=_body(bytes(body), headers), url=request.url
    )
    if not failing:
        return response
    if (delay := response.retry_after) is not None:
        raise HttpBusyError(response.status, response.url, delay, response.excerpt)
    raise HttpStatusError(response.status, response.url, details=response.excerpt, retryable=True)


def _body(content: bytes, headers: Mapping[str, str]) -> str | bytes:
    if charset(headers.get("content-type", "")) in ("utf-8", "utf8", "us-ascii", "ascii"):
        try:
            return content.decode()
        except UnicodeDecodeError:
            pass
    return content
