"""One figure: `python -m side_by_side PEER WORKLOAD [--n N] [--repeat R] [--variant V] [--folder F]`, in the Python
that has the peer and with the folder above on PYTHONPATH. Prints one JSON line (for the floor, one for each setting).

A workload that the engine cannot do gives `extra.unsupported`; a failure gives `extra.error` and exit status 1. Data
lives in a fresh folder of the system's temp folder, unless `--folder` names one. Standard library only.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any

from . import floor, machine, restarts, workloads
from .adapter import Adapter, stop_servers
from .workloads import DEFAULT_N

HERE = {"W1": workloads.w1, "W2": workloads.w2, "W3": workloads.w3, "W4": workloads.w4, "W8": workloads.w8}
PHASES: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "w5_fill": restarts.w5_fill,
    "w5_resume": restarts.w5_resume,
    "w7_crash": restarts.w7_crash,
    "w7_recover": restarts.w7_recover,
}


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="side_by_side", description="One figure of one engine, as a JSON line.")
    parser.add_argument("peer", help="ours, floor, or the name of a module in peers/")
    parser.add_argument("workload", choices=[*DEFAULT_N, "FLOOR"])
    parser.add_argument("--n", type=int)
    parser.add_argument("--repeat", type=int, default=20, help="W1: how many runs")
    parser.add_argument("--nap", type=float, default=2, help="W8: seconds")
    parser.add_argument("--variant", help="a documented other mode of this peer, if it has one")
    parser.add_argument("--folder", help="data folder on a real disk")
    parser.add_argument("--phase", choices=list(PHASES), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def adapter_of(options: argparse.Namespace) -> Adapter:
    """The engine's adapter. ModuleNotFoundError when this Python does not have the engine."""
    name = ".ours" if options.peer == "ours" else f".peers.{options.peer}"
    made: Adapter = importlib.import_module(name, __package__).ENGINE(options)
    return made


def figure(adapter: Adapter, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Take the figure; a failure is in the line."""
    n = options.n or DEFAULT_N[options.workload]
    line: dict[str, Any] = {
        "peer": options.peer,
        "variant": options.variant,
        "version": adapter.version,
        "workload": options.workload,
        "n": n,
        "durable": adapter.durable,
        "extra": {},
    }
    if options.workload in adapter.unsupported:
        return line | {"store": adapter.store, "extra": {"unsupported": adapter.unsupported[options.workload]}}
    state = machine.state(folder)
    try:
        line |= _taken(adapter, options, n, folder)
        line["extra"] |= adapter.extra()
    except Exception as error:
        line["extra"] = {"error": f"{type(error).__name__}: {error}"[:1500]}
    finally:
        stop_servers()
    line["extra"] |= state
    return line | {"store": adapter.store}


def _taken(adapter: Adapter, options: argparse.Namespace, n: int, folder: str) -> dict[str, Any]:
    async def in_this_process() -> dict[str, Any]:
        await adapter.open(folder, adapter.start_server(folder))
        try:
            return await HERE[options.workload](adapter, n, options)
        finally:
            await adapter.close()

    match options.workload:
        case "W5":
            return restarts.w5(adapter, n, options, folder)
        case "W6":
            return restarts.w6(adapter, n, options)
        case "W7":
            return restarts.w7(adapter, n, options, folder)
        case _:
            return dict(adapter.loop(in_this_process()))


def main(arguments: list[str]) -> int:
    """Print the line, or what this phase reports; the exit status."""
    options = parsed(arguments)
    if options.phase:
        adapter, address = adapter_of(options), json.loads(os.environ[restarts.ADDRESS])
        reported = adapter.loop(PHASES[options.phase](adapter, options.n, options.folder, address))
        print(json.dumps(reported), flush=True)
        return 0
    folder = options.folder or tempfile.mkdtemp(prefix="side-by-side-")
    try:
        if options.peer == "floor":
            lines = list(floor.figures(folder, options.n or 2000))
        else:
            lines = [figure(adapter_of(options), options, folder)]
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)
    for line in lines:
        print(json.dumps(line), flush=True)
    return int(any("error" in line["extra"] for line in lines))


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # an engine's threads have nothing more to say, and some of them never end
