"""WorkerAddress: where the worker is, and what a call looks like on the wire, for the dispatchers that speak HTTP.

The receiving side is `http/internal.py`. The two are deployed at different moments: a field that is added here must be
known there one release earlier, since an unknown one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..dispatcher import Perform, Task
from ..errors import ConfigurationError

VARIABLE = "TINYWORKFLOW_WORKER_URL"


class WorkerAddress:
    """The base URL of the service that answers /internal/*; `url` is without a slash at its end.

    Raises ConfigurationError naming TINYWORKFLOW_WORKER_URL for text that is no such URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port  # a port that is none raises when it is asked for
        except ValueError as error:
            raise ConfigurationError(f"{VARIABLE}: {error}") from None
        if parts.scheme not in ("http", "https") or not host or any(one.isspace() for one in url):
            raise ConfigurationError(f"{VARIABLE}: a URL such as https://worker-abc.a.run.app is needed")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigurationError(f"{VARIABLE}: the worker's base URL has no query, fragment or password in it")
        self.is_safe = parts.scheme == "https" or _is_loopback(host)
        """Whether what is sent there cannot be read on the way."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> WorkerAddress:
        """By TINYWORKFLOW_WORKER_URL. Raises ConfigurationError."""
        url = environ.get(VARIABLE, "").strip()
        if not url:
            raise ConfigurationError(f"{VARIABLE} is missing: it is the URL of the service that answers /internal/*")
        return cls(url)

    def of(self, task: Task) -> str:
        """Where this call goes."""
        return f"{self.url}/internal/{'activity' if isinstance(task, Perform) else 'advance'}"


def body_of(task: Task) -> bytes:
    """What this call says."""
    return json.dumps(asdict(task), separators=(",", ":")).encode()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
