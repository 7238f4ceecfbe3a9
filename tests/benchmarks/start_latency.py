"""Prints how soon a start is answered over HTTP, by SQLite: `python -m tests.benchmarks.start_latency [starts]`.

A real functions-framework process, one caller, one request after the other. The ratio compares with GET /healthz of the
same process in the same run, which is what the socket, the server and the routing cost by themselves.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import httpx

from tests.functions.server import server


def milliseconds(call: Callable[[], httpx.Response], times: int) -> list[float]:
    """What each of so many calls took, the shortest first."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        answer = call()
        taken.append((time.perf_counter() - began) * 1000)
        assert answer.status_code in (200, 202), answer.text
    return sorted(taken)


def measured(starts: int = 300) -> dict[str, list[float]]:
    """What each call took in ms, the shortest first."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {"TINYWORKFLOW_API_KEYS": "key", "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{folder}/runs.db"}
        with server("app", environ, source="tests/http/described_main.py") as front:
            front.wait_until_up()
            with httpx.Client(base_url=front.url, headers={"X-API-Key": "key"}) as caller:
                milliseconds(lambda: caller.get("/healthz"), 20)
                rest = milliseconds(lambda: caller.get("/healthz"), starts)
                found = milliseconds(lambda: caller.post("/v1/workflows/echo/runs", json={"input": {"n": 1}}), starts)
    return {"GET /healthz": rest, "POST start": found}


def main(starts: int = 300) -> None:
    found = measured(starts)
    for name, taken in found.items():
        median, late = statistics.median(taken), taken[int(len(taken) * 0.95)]
        print(f"{name:14} median {median:7.2f} ms   95 % {late:7.2f} ms")
    rest, start = found.values()
    print(f"ratio of the medians {statistics.median(start) / statistics.median(rest):.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
