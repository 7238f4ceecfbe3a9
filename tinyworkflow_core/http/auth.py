"""Access: who may call. Denied unless something here allows it.

- With API keys: whoever brings one of them.
- Without: nobody, but for local emulation, which answers to callers on this machine.
- /internal/* is guarded like the API; where the platform calls it, the caller's platform identity is checked in front
  of it.
- /healthz is open, and /hooks/* is guarded by the sender's signature: their routes do not ask here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from ..errors import ConfigurationError
from .problems import HttpProblem

Endpoint = Callable[[Request], Awaitable[Response]]

_PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip"})


class Guard:
    """Decides before an endpoint sees a request. `emulate`: without keys, callers on this machine are let in."""

    def __init__(self, api_keys: Iterable[str], *, emulate: bool) -> None:
        keys = list(api_keys)
        if not all(key.strip() for key in keys):
            raise ConfigurationError("an API key must not be empty; without any key leave TINYWORKFLOW_API_KEYS unset")
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._emulate = emulate

    def before(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, guarded."""

        async def guarded(request: Request) -> Response:
            self.check(request)
            return await endpoint(request)

        return guarded

    def check(self, request: Request) -> None:
        """Returns for a caller who may go on. Raises a 401 or a 403."""
        if self._digests:
            self._check_key(request)
        elif (reason := self._foreign(request)) is not None:
            raise HttpProblem(
                403, f"set TINYWORKFLOW_API_KEYS to let callers in; without keys {reason}", kind="no-api-keys"
            )

    def _check_key(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        presented = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        digest = hashlib.sha256(presented.encode("latin-1", "replace")).digest()
        # All of them, always: the time that this takes tells nothing about which key came close.
        if sum(hmac.compare_digest(digest, known) for known in self._digests) == 0:
            raise HttpProblem(
                401,
                "send one of this service's API keys as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                kind="no-valid-key",
                headers={"WWW-Authenticate": 'Bearer realm="tinyworkflow"'},
            )

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
        if any(_netloc(origin) != hosts[0].lower() for origin in request.headers.getlist("origin")):
            return "calls by pages of another origin are not answered"
        return None


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
