"""The workloads that need one process: W1 to W4 and W8. All timing is here, so that every engine goes the same way.

Each returns the figure's fields: seconds, per_second, unit, p50_ms, p99_ms and `extra`. Standard library only.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from argparse import Namespace
from typing import Any

from .adapter import Adapter, stamped

DEFAULT_N = {"W1": 100, "W2": 500, "W3": 200, "W4": 50, "W5": 1000, "W6": 10, "W7": 100, "W8": 50}
IN_FLIGHT = 50


def percentile(values: list[float], percent: float) -> float:
    """Between the two nearest values, in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (place - low)


def spread(seconds: list[float]) -> dict[str, float]:
    """p50_ms and p99_ms."""
    return {
        "p50_ms": round(percentile(seconds, 50) * 1e3, 3),
        "p99_ms": round(percentile(seconds, 99) * 1e3, 3),
    }


def _check(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise ValueError(f"the run returned {found!r}, not {wanted!r}")


async def w1(adapter: Adapter, n: int, options: Namespace) -> dict[str, Any]:
    """`options.repeat` runs of n steps, one run after another, after a run to warm up."""
    _check(await adapter.run("seq", n, id="w1-warm"), n)
    taken = []
    began = time.perf_counter()
    for r in range(options.repeat):
        at = time.perf_counter()
        _check(await adapter.run("seq", n, id=f"w1-{r}"), n)
        taken.append(time.perf_counter() - at)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "per_second": options.repeat * n / seconds,
        "unit": "steps/s",
        **spread(taken),
        "extra": {"runs": options.repeat},
    }


async def w2(adapter: Adapter, n: int, options: Namespace) -> dict[str, Any]:
    """n runs of 3 steps, at most 50 in flight. Only runs that succeed count; the others are reported."""
    gate, taken, errors = asyncio.Semaphore(IN_FLIGHT), [], []

    async def one(i: int) -> None:
        async with gate:
            at = time.perf_counter()
            try:
                _check(await adapter.run("seq", 3, id=f"w2-{i}"), 3)
                taken.append(time.perf_counter() - at)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}"[:200])

    for i in range(5):
        await adapter.run("seq", 3, id=f"w2-warm{i}")
    began = time.perf_counter()
    await asyncio.gather(*(one(i) for i in range(n)))
    seconds = time.perf_counter() - began
    if not taken:
        raise RuntimeError(f"every run failed: {errors[0]}")
    extra = {"failed_runs": len(errors)} | ({"first_error": errors[0]} if errors else {})
    return {"seconds": seconds, "per_second": len(taken) / seconds, "unit": "runs/s", **spread(taken), "extra": extra}


async def w3(adapter: Adapter, n: int, options: Namespace) -> dict[str, Any]:
    """One run makes n activities at once and sums them; the median of 5 runs, after a run to warm up."""
    wanted, taken = n * (n - 1) // 2, []
    _check(await adapter.run("fan", n, id="w3-warm"), wanted)
    for r in range(5):
        at = time.perf_counter()
        _check(await adapter.run("fan", n, id=f"w3-{r}"), wanted)
        taken.append(time.perf_counter() - at)
    seconds = statistics.median(taken)
    return {"seconds": seconds, "per_second": n / seconds, "unit": "activities/s", **spread(taken), "extra": {}}


async def w4(adapter: Adapter, n: int, options: Namespace) -> dict[str, Any]:
    """n times: start, wait until the run has passed its first step, pause, then time "send -> result in the client"."""
    chance, taken = random.Random(7), []
    for i in range(n):
        handle = await adapter.start("sig", f"k{i}", id=f"w4-{i}")
        while not stamped(f"k{i}", "marked"):  # noqa: ASYNC110  # a stamp may come from any thread
            await asyncio.sleep(0.005)
        await asyncio.sleep(chance.uniform(*adapter.w4_pause))
        at = time.perf_counter()
        await adapter.signal(handle, "go")
        _check(await adapter.result(handle), "go")
        taken.append(time.perf_counter() - at)
    seconds = sum(taken)
    return {"seconds": seconds, "per_second": n / seconds, "unit": "signals/s", **spread(taken), "extra": {}}


async def w8(adapter: Adapter, n: int, options: Namespace) -> dict[str, Any]:
    """n runs at once sleep `options.nap` seconds durably: by how much the line after the sleep comes late."""
    nap: float = options.nap
    await adapter.run("nap", "warm", nap, id="w8-warm")
    began = time.perf_counter()

    async def one(i: int) -> float:
        at = time.perf_counter()
        await adapter.run("nap", f"n{i}", nap, id=f"w8-{i}")
        return time.perf_counter() - at - nap

    seen = await asyncio.gather(*(one(i) for i in range(n)))
    seconds = time.perf_counter() - began
    late = [_reached(f"n{i}", "after") - _reached(f"n{i}", "before") - nap for i in range(n)]
    extra = {"client_p50_ms": round(percentile(seen, 50) * 1e3, 1), "earliest_ms": round(min(late) * 1e3, 1)}
    return {"seconds": seconds, "per_second": n / seconds, "unit": "sleeps/s", **spread(late), "extra": extra}


def _reached(key: str, name: str) -> float:
    at = stamped(key, name)
    if at is None:
        raise RuntimeError(f"the workflow never came to {name!r} of {key!r}")
    return at
