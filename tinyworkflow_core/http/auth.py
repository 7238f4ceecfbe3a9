"""Guard: who is let in to an operation. Denied unless something here allows it.

- Whoever brings an API key that `access.py` knows, or an identity token of somebody it names, may do what their scopes
  say, for the workflows that they reach. A run of another workflow is to them one that does not exist.
- /internal/* also takes the platform's own identity tokens (`platform_identity.py`).
- Where nothing of that is configured: nobody, but for local emulation, which answers to callers on this machine.
- An operation without a scope looks for itself who is there (/healthz is open, /hooks/* is guarded by the sender's
  signature, an approval link by its own): those that it refuses are counted here all the same.

Calls that prove nothing are counted by address, and answered 429 when they are too many. That never concerns a caller
who has a key, so nobody can shut others out.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from ipaddress import IPv6Address, ip_address
from typing import NoReturn
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from ..clock import Clock
from ..errors import RunNotFoundError
from ..store import Run
from .access import Access
from .callers import ALL_SCOPES, NOBODY, Caller
from .identity_tokens import IdentityTokens
from .operations import Endpoint, Scope
from .platform_identity import PlatformIdentity
from .problems import HttpProblem, status_of
from .rate_limit import RateLimit, network_of

_PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip"})
_MAX_ADDRESSES = 10_000

Known = Callable[[Request], Caller | None]

LOCAL = Caller(name="this-machine", kind="local", scopes=ALL_SCOPES)
PLATFORM = Caller(name="platform", kind="platform", scopes=frozenset({Scope.PLATFORM}))


class Guard:
    """Decides before an endpoint sees a request.

    - find_run: looks a run up, for callers who are limited to some workflows.
    - emulate: where nothing is configured, callers on this machine are let in.
    - origins: whose pages may call a local emulation, besides its own.
    """

    def __init__(
        self,
        access: Access,
        *,
        find_run: Callable[[str], Awaitable[Run | None]],
        clock: Clock,
        emulate: bool,
        platform: PlatformIdentity | None = None,
        tokens: IdentityTokens | None = None,
        origins: Collection[str] = (),
    ) -> None:
        document = access.document
        self._access = access
        self._find_run = find_run
        self._clock = clock
        self._emulate = emulate
        self._platform = platform if platform is not None and platform.configured else None
        self._tokens = tokens or IdentityTokens(audiences=document.audiences, iap_audiences=document.iap_audiences)
        self._origins = frozenset(origins)
        self._calls = RateLimit()
        self._failures = RateLimit(max_buckets=_MAX_ADDRESSES)

    def before(self, endpoint: Endpoint, scope: Scope | None, *, known: Known | None = None) -> Endpoint:
        """The endpoint, for those who have that scope; it finds them by `callers.caller_of`. None: for everybody.

        - known: who comes by what this endpoint alone takes for a proof besides, such as a browser's session.
        """

        async def guarded(request: Request) -> Response:
            if scope is not None:
                try:
                    caller = await self._caller(request, scope, known)
                except HttpProblem as problem:
                    self._refuse(request, problem)
                await self._admit(request, caller, scope, endpoint)
                request.state.caller = caller
                return await endpoint(request)
            request.state.caller = NOBODY
            try:
                answer = await endpoint(request)
            except Exception as error:
                self._refuse(request, error)
            if answer.status_code in (401, 403):  # a page that says so
                self._count_failure(request)
            return answer

        return guarded

    # --- who it is ----------------------------------------------------------------------------

    async def _caller(self, request: Request, scope: Scope, known: Known | None) -> Caller:
        """Who makes this request. Raises a 401, 403 or 503 for those who prove nothing."""
        if known is not None and (comes_back := known(request)) is not None:
            return comes_back
        bearer = _bearer(request)
        presented = bearer if bearer is not None else request.headers.get("x-api-key", "")
        now = self._clock.now()
        found = self._access.by_key(presented.encode("latin-1", "replace"), now)
        if isinstance(found, Caller):
            return found
        if scope is Scope.PLATFORM and self._platform is not None:
            if await self._platform.admits(request):
                return PLATFORM
        elif not self._access.configured:
            if (reason := self._foreign(request)) is None:
                return LOCAL
            raise HttpProblem(
                403, f"set TINYWORKFLOW_API_KEYS to let callers in; without keys {reason}", kind="no-api-keys"
            )
        identity = await self._tokens.identity(request, bearer or "")
        if identity is None:
            raise _no_valid_key(found)
        caller = self._access.by_identity(identity, now)
        if caller is None:
            raise HttpProblem(
                403, "the identity is right, and nothing in TINYWORKFLOW_ACCESS is for it", kind="wrong-caller"
            )
        return caller

    def _refuse(self, request: Request, error: Exception) -> NoReturn:
        """Count a call that proved nothing, and raise what it is told."""
        if status_of(error) in (401, 403):
            self._count_failure(request)
        raise error

    def _count_failure(self, request: Request) -> None:
        """Raises a 429 when there were too many of them from this address."""
        wait = self._failures.take(self._address(request), self._access.document.failures)
        if wait is not None:
            raise _too_many(wait) from None

    def _address(self, request: Request) -> str:
        """Whose failures these are. Of X-Forwarded-For only what our own proxies have added counts."""
        proxies = self._access.document.proxies
        added = [one.strip() for line in request.headers.getlist("x-forwarded-for") for one in line.split(",")]
        if 0 < proxies <= len(added):
            return network_of(added[-proxies])
        return network_of(request.client.host) if request.client is not None else "unknown"

    # --- what they may ------------------------------------------------------------------------

    async def _admit(self, request: Request, caller: Caller, scope: Scope, endpoint: Endpoint) -> None:
        """Returns for a caller who may go on. Raises a 403, a 404 or a 429."""
        if caller.rate is not None and (wait := self._calls.take((caller.kind, caller.name), caller.rate)) is not None:
            raise _too_many(wait)
        if not caller.may(scope):
            raise HttpProblem(403, f"{caller.name} has no scope {scope.value!r}, which this asks for", kind="no-scope")
        if caller.workflows is None:
            return
        run_id, name = request.path_params.get("run_id"), request.path_params.get("name")
        if isinstance(run_id, str):
            run = await self._find_run(run_id)
            if run is None or not caller.reaches(run.name):
                raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
        elif scope is Scope.START and isinstance(name, str):
            if not caller.reaches(name):
                raise HttpProblem(403, f"{caller.name} may not start the workflow {name!r}", kind="no-such-reach")
        elif not getattr(endpoint, "looks_at_caller", False):
            raise HttpProblem(403, f"{caller.name} may reach some workflows, this is all", kind="no-such-reach")

    def _foreign(self, request: Request) -> str | None:
        """Why this is no call from this machine to a local emulation; None when it is one."""
        if not self._emulate or os.environ.get("K_SERVICE"):
            return "only local emulation answers, and this is none"
        if request.client is None or not _is_loopback(request.client.host):
            return "only callers on this machine are answered"
        if any(name in _PROXY_HEADERS or name.startswith("x-forwarded-") for name in request.headers):
            return "calls that a proxy hands on are not answered"
        hosts = request.headers.getlist("host")
        # A name that somebody else's DNS points at this machine brings a browser here with that name in Host.
        if len(hosts) != 1 or not _is_loopback(_host_name(f"//{hosts[0]}")):
            return "the Host header must name this machine, such as localhost or 127.0.0.1"
        others = [one for one in request.headers.getlist("origin") if one not in self._origins]
        if any(_netloc(origin) != hosts[0].lower() for origin in others):
            return "calls by pages of another origin are not answered"
        return None


def _bearer(request: Request) -> str | None:
    """What is sent as Bearer; None when nothing is."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _no_valid_key(expired: datetime | None) -> HttpProblem:
    detail = "send one of this service's API keys as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
    if expired is not None:
        detail = f"this API key has expired at {expired.isoformat()}; ask for another one"
    headers = {"WWW-Authenticate": 'Bearer realm="tinyworkflow"'}
    return HttpProblem(401, detail, kind="no-valid-key", headers=headers)


def _too_many(wait: int) -> HttpProblem:
    return HttpProblem(429, "too many calls; come again later", kind="too-many", headers={"Retry-After": str(wait)})


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
