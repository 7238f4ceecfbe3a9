"""Listening: the socket that is served on, and its URL."""

from __future__ import annotations

import errno
import socket

from ..errors import ConfigurationError

_LOCAL_HOST = "127.0.0.1"
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises ConfigurationError, which says why it does not."""
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError):
        raise ConfigurationError(f"--host: {host!r} is no address of this machine") from None
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(_BACKLOG)  # from now on callers wait, also while no process is there to answer
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} on {host} is in use: end what listens there, or choose another one with --port"
            ) from None
        raise ConfigurationError(f"--host, --port: {host} port {port}: {error.strerror}") from None
    return sock


def url_of(sock: socket.socket) -> str:
    """The URL at which this machine reaches the socket."""
    host, port, *_ = sock.getsockname()
    if host in ("0.0.0.0", "::"):
        host = _LOCAL_HOST
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
