"""Prints how soon a function's process answers its first request: `python -m tests.benchmarks.first_answer [times]`.

From the start of a functions-framework process to its first 200: our function `app`, asked for its runs (so that its
store is opened, an SQLite file), and an empty function. They take turns, so that both meet the same machine.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import time

from tests.functions.server import START_SECONDS, Server, server

SOURCES = {
    "ours": ("app", "functions/main.py", "/v1/runs"),
    "empty": ("empty", "tests/benchmarks/empty_function.py", "/"),
}


def measured(times: int = 5) -> dict[str, float]:
    """The medians in ms: `ours_ms`, `empty_ms`, and by how much ours comes later, `later_ms`."""
    taken: dict[str, list[float]] = {name: [] for name in SOURCES}
    for name in SOURCES:
        _first_answer(name)  # compiles, and warms the page cache
    for _ in range(times):
        for name, found in taken.items():
            found.append(_first_answer(name))
    medians = {name: statistics.median(found) * 1000 for name, found in taken.items()}
    return {
        "ours_ms": round(medians["ours"], 1),
        "empty_ms": round(medians["empty"], 1),
        "later_ms": round(medians["ours"] - medians["empty"], 1),
    }


def _first_answer(name: str) -> float:
    target, source, path = SOURCES[name]
    with tempfile.TemporaryDirectory() as folder:
        environ = {"TINYWORKFLOW_API_KEYS": "key", "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{folder}/runs.db"}
        began = time.perf_counter()
        with server(target, environ, source=source) as started:
            while not _answers(started, path):
                assert time.perf_counter() - began < START_SECONDS, started.printed()
                time.sleep(0.002)
            return time.perf_counter() - began


def _answers(started: Server, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", started.port, timeout=START_SECONDS)
    try:
        connection.request("GET", path, headers={"X-API-Key": "key"})
        status = connection.getresponse().status
    except OSError:
        return False  # it does not listen yet
    finally:
        connection.close()
    assert status == 200, (status, started.printed())
    return True


def main(times: int = 5) -> None:
    found = measured(times)
    print(f"empty function  first answer after {found['empty_ms']:7.1f} ms (median of {times})")
    print(f"ours            first answer after {found['ours_ms']:7.1f} ms, {found['later_ms']:.1f} ms later")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
