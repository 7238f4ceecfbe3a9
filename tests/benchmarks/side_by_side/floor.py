"""The floor under W1: one committed SQLite insert for each step, and no engine. Standard library only.

One figure for each setting: WAL + FULL (what an embedded engine that is durable can reach at best), WAL + NORMAL,
DELETE + FULL (SQLite's default), and append + fsync of a plain file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import machine
from .workloads import spread

SETTINGS = (("WAL", "FULL"), ("WAL", "NORMAL"), ("DELETE", "FULL"))


def figures(folder: str, n: int) -> Iterator[dict[str, Any]]:
    """n commits in each setting, the durable WAL first."""
    state = machine.state(folder)
    for journal, synchronous in SETTINGS:
        database = sqlite3.connect(f"{folder}/{journal}-{synchronous}.db", isolation_level=None)
        [mode] = database.execute(f"pragma journal_mode={journal}").fetchone()
        if mode.upper() != journal:
            raise RuntimeError(f"SQLite keeps journal mode {mode}")
        database.execute(f"pragma synchronous={synchronous}")
        database.execute("create table s(id integer primary key, run text, n integer, out text)")

        def commit(i: int, database: sqlite3.Connection = database) -> None:
            database.execute("insert into s(run, n, out) values('r', ?, '{\"x\":1}')", (i,))

        yield _figure(f"{journal}-{synchronous}", commit, n, state)
        database.close()

    file = os.open(f"{folder}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def append(i: int) -> None:
        os.write(file, b'{"run":"r","n":1,"out":{"x":1}}\n')
        os.fsync(file)

    yield _figure("append-fsync", append, n, state)
    os.close(file)


def _figure(setting: str, commit: Callable[[int], None], n: int, state: dict[str, Any]) -> dict[str, Any]:
    for i in range(min(n, 100)):
        commit(i)
    taken = []
    began = time.perf_counter()
    for i in range(n):
        at = time.perf_counter()
        commit(i)
        taken.append(time.perf_counter() - at)
    seconds = time.perf_counter() - began
    return {
        "peer": "floor",
        "variant": setting,
        "version": f"SQLite {sqlite3.sqlite_version}",
        "store": setting,
        "workload": "FLOOR",
        "n": n,
        "durable": setting != "WAL-NORMAL",
        "seconds": seconds,
        "per_second": n / seconds,
        "unit": "commits/s",
        **spread(taken),
        "extra": dict(state),
    }
