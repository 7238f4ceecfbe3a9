"""`make bench`: ours alone, or beside peers, in interleaved passes, and one table: `python -m
tests.benchmarks.side_by_side.session [--peers "restate dbos"] [--passes 3] [--workloads "W1 W2"] [--write PAGE]`.

Within a pass each workload is taken of everybody before the next one, the floor right beside ours, so that the drift of
the machine hits all alike. Nothing is repeated until it looks good: every figure that was taken is in the table.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from platform import python_version
from typing import Any

from tests.benchmarks import first_answer, start_latency

from . import machine
from .environments import PEERS, ROOT, driven, prepare
from .fsyncs import NoStrace, counted
from .report import Figures, Line, named, notes, section, table, write
from .workloads import DEFAULT_N

WORKLOADS = [*DEFAULT_N, "ANSWER", "HTTP", "FSYNC"]
WITH_FLOOR = ("W1", "W2")


def figures(peers: list[str], workloads: list[str], passes: int, n: int | None) -> Iterator[Line]:
    """Every figure, as it is taken."""
    engines = ["ours", *peers]
    for number in range(1, passes + 1):
        for workload in workloads:
            if workload in DEFAULT_N:
                for engine in _with_floor(engines, workload, workloads):
                    yield from _watched(engine, workload, n, number)
    if "ANSWER" in workloads:
        yield {"peer": "ours", "variant": None, "workload": "ANSWER", "extra": first_answer.measured()}
    if "HTTP" in workloads:
        yield _over_http()
    if "FSYNC" in workloads:
        yield from _fsyncs(engines)


def _with_floor(engines: list[str], workload: str, workloads: list[str]) -> list[str]:
    first = next((one for one in WITH_FLOOR if one in workloads), None)
    return ["floor", *engines] if workload == first else engines


def _watched(engine: str, workload: str, n: int | None, number: int) -> Iterator[Line]:
    """One figure in a folder of its own, with the CPU that others used meanwhile, in percent of one core."""
    peer, _, variant = engine.partition(":")
    arguments = ["FLOOR" if peer == "floor" else workload]
    if n is not None and peer != "floor":
        arguments += ["--n", str(n)]
    arguments += ["--variant", variant] if variant else []
    busy, own, began = machine.busy_seconds(), _children_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="side-by-side-", ignore_cleanup_errors=True) as folder:
        lines = driven(peer, arguments, folder)
    wall, ours = time.monotonic() - began, _children_seconds() - own
    others = max(0.0, machine.busy_seconds() - busy - ours) / wall * 100
    for line in lines:
        line["pass"] = number
        line["extra"]["others_cpu"] = round(others, 1)
        yield line


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _over_http() -> Line:
    rest, start = start_latency.measured().values()
    median = statistics.median(start)
    extra = {"times_healthz": median / statistics.median(rest)}
    return {"peer": "ours", "variant": None, "workload": "HTTP", "p50_ms": median, "extra": extra}


def _fsyncs(engines: list[str]) -> Iterator[Line]:
    for engine in engines:
        peer, _, variant = engine.partition(":")
        try:
            yield counted(peer, variant or None)
        except NoStrace as reason:
            print(reason, file=sys.stderr)
            return


def described(passes: int) -> dict[str, Any]:
    """When and where the session ran."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    here = machine.filesystem_of(tempfile.gettempdir())
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "passes": passes,
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{machine.described()}, {here}, Python {python_version()}",
        "filesystem": here,
    }


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line; peers and workloads are lists in it."""
    parser = argparse.ArgumentParser(prog="make bench", description="Benchmarks, ours alone or side by side.")
    known = " ".join(PEERS)
    parser.add_argument("--peers", type=str.split, default=[], help=f"of: {known}; with a variant as peer:variant")
    parser.add_argument("--workloads", type=str.split, default=[], help=f"of: {' '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--n", type=int, help="another size for all workloads, to try things out")
    parser.add_argument("--raw", type=Path, help="keep the figures in this file, one JSON line each")
    parser.add_argument("--read", type=Path, help="measure nothing: report what --raw has kept")
    parser.add_argument("--write", type=Path, help="put the results into this page, between its marker comments")
    options = parser.parse_args(arguments)
    for peer in options.peers:
        if peer.partition(":")[0] not in PEERS:
            parser.error(f"{peer!r} is no peer; known are {known}")
    for workload in options.workloads:
        if workload not in WORKLOADS:
            parser.error(f"{workload!r} is no workload; known are {' '.join(WORKLOADS)}")
    return options


def main(arguments: list[str]) -> int:
    """Exit status 1 when a figure of ours could not be taken; never for a target that is not met."""
    options = parsed(arguments)
    if options.read:
        session, *lines = [json.loads(line) for line in options.read.read_text().splitlines()]
    else:
        session, lines = described(options.passes), []
        if session["filesystem"] in ("tmpfs", "ramfs"):
            print("the temp folder is in memory: an fsync costs nothing there; set TMPDIR to a disk", file=sys.stderr)
        for peer in options.peers:
            prepare(peer.partition(":")[0])
        for line in figures(options.peers, options.workloads or WORKLOADS, options.passes, options.n):
            lines.append(line)
            _progress(line)
            if options.raw:
                options.raw.write_text("".join(json.dumps(one) + "\n" for one in (session, *lines)))
    print(table(Figures(lines)), *notes(lines), sep="\n")
    if options.write:
        write(options.write, section(lines, session))
    return int(any(line["peer"] == "ours" and "error" in line["extra"] for line in lines))


def _progress(line: Line) -> None:
    shown = ("seconds", "per_second", "p50_ms", "p99_ms")
    words = [f"{key}={line[key]:.4g}" for key in shown if line.get(key) is not None] or [str(line["extra"])[:200]]
    where = f"pass {line['pass']}" if "pass" in line else "once"
    print(f"{where:7} {named(line):14} {line['workload']:6}", *words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
