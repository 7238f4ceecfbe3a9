"""Who holds a lease: this process, named so that another one on the same machine can tell whether it still lives.

The name is `machine/pid/start/nonce`. Where a machine cannot be told from others for sure (no boot id, or a managed
platform whose instances look alike) every holder counts as alive until its lease ends.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from pathlib import Path

from .clock import fresh_id

_OWNER = re.compile(r"([0-9a-f]{16})/([1-9][0-9]{0,8})/([0-9]+)/[^/]+", re.ASCII)


def new_owner() -> str:
    """A name for a holder in this process; no two calls give the same."""
    return f"{_this_process(os.getpid(), os.environ.get('K_SERVICE'))}/{fresh_id(8)}"


@functools.lru_cache(maxsize=1)
def _this_process(pid: int, service: str | None) -> str:
    # Asked once in every process: a fork has another pid, and nothing else of it changes.
    stat = _stat(pid)
    return f"{_machine()}/{pid}/{stat[_STARTED] if stat else ''}"


def is_gone(owner: str) -> bool:
    """Whether that holder is known to live no more: a process of this very machine that has ended."""
    named = _OWNER.fullmatch(owner)
    if named is None or named[1] != _machine():
        return False
    pid = int(named[2])
    stat = _stat(pid)
    if stat is None:
        return not _exists(pid)
    return stat[_STATE] == "Z" or stat[_STARTED] != named[3]


def _machine() -> str:
    if os.environ.get("K_SERVICE"):  # Cloud Run: every instance is called localhost
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.blake2b(f"{socket.gethostname()} {boot} {namespace}".encode(), digest_size=8).hexdigest()


_STATE, _STARTED = 0, 19
"""Places in `_stat`. The start is in clock ticks since boot: a pid that is used again has another."""


def _stat(pid: int) -> list[str] | None:
    """What the kernel says of a process. None: there is none, or it may not be looked at (/proc with hidepid)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # a process may call itself anything
        return text.rpartition(")")[2].split()
    except OSError:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True
