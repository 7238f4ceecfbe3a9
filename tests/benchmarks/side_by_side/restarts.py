"""The workloads that need processes of their own: W5 and W7 (a fresh process goes on), W6 (a fresh process imports).

A worker process is this same command with `--phase`; the functions of the phases return what the process reports. A
server, where an engine has one, survives the restarts: that is how it is deployed. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from typing import Any

from .adapter import LIVE, Adapter, executions, stamped
from .workloads import spread

BEGAN = "BENCHMARK_PROCESS_BEGAN"
ADDRESS = "BENCHMARK_ADDRESS"


def w5(adapter: Adapter, n: int, options: Namespace, folder: str) -> dict[str, Any]:
    """A run of n steps waits for a signal and its process stops; a fresh process sends it: process start -> result."""
    address = adapter.start_server(folder)
    filling = _child(options, "w5_fill", folder, address, n)
    if filling.wait(900):
        raise RuntimeError(_errors(folder, "w5_fill"))
    filled = _reported(folder, "w5_fill")
    _child(options, "w5_resume", folder, address, n).wait(900)
    reported = _reported(folder, "w5_resume")
    return {
        "seconds": reported["done_s"],
        "per_second": n / reported["done_s"],
        "unit": "steps/s passed",
        "extra": reported | filled,
    }


async def w5_fill(adapter: Adapter, n: int, folder: str, address: Any, settle: float = 1.0) -> dict[str, Any]:
    """Until all steps are done; then stop gracefully (W7 is the crash)."""
    await adapter.open(folder, address)
    began = time.monotonic()
    await adapter.start("seqsig", n, "w5", id="w5")
    while not stamped("w5", "looped"):  # noqa: ASYNC110  # a stamp may come from any thread
        await asyncio.sleep(0.02)
    filled = time.monotonic() - began
    await asyncio.sleep(settle)
    try:
        await asyncio.wait_for(adapter.close(), 20)
    except Exception as error:  # it had its time, or stumbled over what it still held: the process ends now
        return {"fill_s": round(filled, 3), "close_error": f"{type(error).__name__}: {error}"[:200]}
    return {"fill_s": round(filled, 3)}


async def w5_resume(adapter: Adapter, n: int, folder: str, address: Any) -> dict[str, Any]:
    """`replay_s` is taken inside the workflow: from its first line to the line after the n-th step."""
    began = float(os.environ.get(BEGAN) or time.monotonic())
    loaded = time.monotonic()
    await adapter.open(folder, address)
    handle = await adapter.attach("w5")
    opened = time.monotonic()
    await adapter.signal(handle, "go")
    if (result := await adapter.result(handle)) != "go":
        raise ValueError(f"the run returned {result!r}")
    done = time.monotonic()
    entered, looped = stamped("w5", "enter"), stamped("w5", "looped")
    return {
        "loaded_s": round(loaded - began, 4),
        "ready_s": round(opened - began, 4),
        "done_s": round(done - began, 4),
        "signal_to_done_s": round(done - opened, 4),
        "replay_s": None if entered is None or looped is None else round(looped - entered, 4),
    }


def w6(adapter: Adapter, n: int, options: Namespace) -> dict[str, Any]:
    """n fresh processes import the engine, in turn with n that import nothing; .pyc files and page cache are warm."""
    _import(adapter.imports)
    found, bare, named = [], [], []
    for _ in range(n):
        found.append(_import(adapter.imports))
        named.append(_import(adapter.names) if adapter.names else found[-1])
        bare.append(_import("pass"))
    median = statistics.median
    return {
        "seconds": median(one["seconds"] for one in found),
        **spread([one["seconds"] for one in found]),
        "extra": {
            "rss_mb": round(median(one["rss_mb"] for one in found), 1),
            "bare_rss_mb": round(median(one["rss_mb"] for one in bare), 1),
            "modules": found[0]["modules"],
            "names_ms": round(median(one["seconds"] for one in named) * 1e3, 3),
            "names_rss_mb": round(median(one["rss_mb"] for one in named), 1),
            "wall_s": round(median(one["wall_s"] for one in found), 4),
            "bare_wall_s": round(median(one["wall_s"] for one in bare), 4),
        },
    }


_IMPORT = """import sys, time
began = time.perf_counter()
{}
took = time.perf_counter() - began
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM")).split()[1]
print(took, peak, len(sys.modules))"""


def _import(statements: str) -> dict[str, float]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    began = time.perf_counter()
    printed = subprocess.run(
        [sys.executable, "-c", _IMPORT.format(statements)], capture_output=True, text=True, check=True, cwd="/", env=env
    ).stdout.split()
    wall = time.perf_counter() - began
    return {
        "seconds": float(printed[0]),
        "rss_mb": int(printed[1]) / 1024,
        "modules": int(printed[2]),
        "wall_s": wall,
    }


def w7(adapter: Adapter, n: int, options: Namespace, folder: str) -> dict[str, Any]:
    """The process is killed with SIGKILL in step n/2 and started again at once: process start -> result."""
    path, victim = f"{folder}/executions", str(n // 2)
    address = adapter.start_server(folder)
    first = _child(options, "w7_crash", folder, address, n)
    end = time.monotonic() + 120
    while victim not in executions(path):
        if time.monotonic() > end or first.poll() is not None:
            raise RuntimeError("the step never started: " + _errors(folder, "w7_crash"))
        time.sleep(0.02)
    time.sleep(0.5)  # for what an engine writes beside the step
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = _child(options, "w7_recover", folder, address, n)
    reported: dict[str, Any]
    try:
        second.wait(adapter.w7_cap)
        reported = _reported(folder, "w7_recover")
    except subprocess.TimeoutExpired:
        second.kill()
        second.wait()
        return {"seconds": None, "extra": {"timed_out": True, "cap_s": adapter.w7_cap}}
    repeated = len(executions(path)) - n
    return {"seconds": reported["done_s"], "extra": reported | {"repeated": repeated}}


async def w7_crash(adapter: Adapter, n: int, folder: str, address: Any) -> dict[str, Any]:
    """Killed from outside before it returns."""
    await adapter.open(folder, address)
    await adapter.run("crash", n, f"{folder}/executions", id="w7")
    raise RuntimeError("the run has ended, although its process should have been killed in the middle")


async def w7_recover(adapter: Adapter, n: int, folder: str, address: Any) -> dict[str, Any]:
    """Wait for the run that the killed process has left."""
    began = float(os.environ[BEGAN])
    await adapter.open(folder, address)
    opened = time.monotonic()
    if (result := await adapter.result(await adapter.attach("w7"))) != n:
        raise ValueError(f"the run returned {result!r}, not {n}")
    return {"done_s": round(time.monotonic() - began, 3), "ready_s": round(opened - began, 3)}


def _child(options: Namespace, phase: str, folder: str, address: Any, n: int) -> subprocess.Popen[bytes]:
    package = __package__ or ""
    command = [sys.executable, "-u", "-m", package, options.peer, options.workload, "--n", str(n)]
    command += ["--folder", folder, "--phase", phase] + (["--variant", options.variant] if options.variant else [])
    env = os.environ | {ADDRESS: json.dumps(address), BEGAN: repr(time.monotonic())}
    with open(f"{folder}/{phase}.out", "wb") as out, open(f"{folder}/{phase}.err", "wb") as err:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
    LIVE.append(process)
    return process


def _reported(folder: str, phase: str) -> dict[str, Any]:
    with open(f"{folder}/{phase}.out") as out:
        lines = [line for line in out if line.startswith("{")]
    if not lines:
        raise RuntimeError("the worker reported nothing; " + _errors(folder, phase))
    return dict(json.loads(lines[-1]))


def _errors(folder: str, phase: str) -> str:
    with open(f"{folder}/{phase}.err", errors="replace") as err:
        return "its stderr ends: " + err.read()[-1500:]
