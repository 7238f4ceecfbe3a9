"""Who holds a lease: this process, named so that another one on the same machine can tell whether it still lives.

The name is `machine/pid/start/nonce`. Where a machine cannot be told from others for sure (no boot id, or a managed
platform whose instances look alike) every holder counts as alive until its lease ends.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from .clock import fresh_id


def new_owner() -> str:
    """A name for a holder in this process; no two calls give the same."""
    pid = os.getpid()
    return f"{_machine()}/{pid}/{_started(pid)}/{fresh_id(8)}"


def is_gone(owner: str) -> bool:
    """Whether that holder is known to live no more: a process of this very machine that has ended."""
    machine, _, rest = owner.partition("/")
    pid, _, rest = rest.partition("/")
    started = rest.partition("/")[0]
    if not machine or machine != _machine() or not pid.isdigit():
        return False
    return _started(int(pid)) != started


def _machine() -> str:
    if os.environ.get("K_SERVICE"):  # Cloud Run: every instance is called localhost
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.blake2b(f"{socket.gethostname()} {boot} {namespace}".encode(), digest_size=8).hexdigest()


def _started(pid: int) -> str:
    """When the process was started, in clock ticks since boot: a pid that is used again has another. Empty: no such
    process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
