"""How fast and how busy the machine is at the moment, so that a figure can be judged. Standard library only."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

_HZ = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """CPU time that this machine has spent since it started, all cores together."""
    with open("/proc/stat") as stat:
        spent = [int(word) for word in stat.readline().split()[1:9]]
    return (sum(spent) - spent[3] - spent[4]) / _HZ


def state(folder: str) -> dict[str, Any]:
    """Load, and the time of a fixed loop and of a plain append + fsync. Both drift, even on an idle machine: compare
    figures only within one session."""
    file = os.open(f"{folder}/reference", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        disk = statistics.median(_synced(file) for _ in range(40))
    finally:
        os.close(file)
    return {
        "load": round(os.getloadavg()[0], 2),
        "cpu_reference_ms": round(statistics.median(_looped() for _ in range(5)) * 1e3, 2),
        "fsync_reference_ms": round(disk * 1e3, 3),
    }


def _looped() -> float:
    began, x = time.perf_counter(), 0
    for i in range(300_000):
        x += i & 7
    return time.perf_counter() - began


def _synced(file: int) -> float:
    began = time.perf_counter()
    os.write(file, b"x" * 64)
    os.fsync(file)
    return time.perf_counter() - began


def described() -> str:
    """Cores, processor, memory and system, in words."""
    model = _first("/proc/cpuinfo", "model name") or os.uname().machine
    memory = int((_first("/proc/meminfo", "MemTotal") or "0").split()[0]) / 1024**2
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {os.uname().sysname} {os.uname().release}"


def filesystem_of(folder: str) -> str:
    """The kind of file system that the folder is on: on tmpfs an fsync costs nothing, and no figure counts."""
    folder, best, kind = os.path.realpath(folder), "", "?"
    with open("/proc/mounts") as mounts:
        for line in mounts:
            _, place, found, *_ = line.split()
            inside = place in ("/", folder) or folder.startswith(place + "/")
            if inside and len(place) >= len(best):
                best, kind = place, found
    return kind


def _first(path: str, key: str) -> str | None:
    with open(path) as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), None)
