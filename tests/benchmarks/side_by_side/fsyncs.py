"""How many times one step of W1 really asks the disk to keep what was written: `python -m
tests.benchmarks.side_by_side.fsyncs [ours] [restate] ...`. Needs strace.

Counted over the whole tree of processes, so servers too, with 1 and with 3 measured runs: the difference is what two
runs cost, without start, warm-up and end. This is what "durable" means in an engine, whatever its settings say.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from .environments import PEERS, driven, prepare

CALLS = ("fsync", "fdatasync", "sync_file_range", "msync")
STEPS = 100


class NoStrace(Exception):
    """strace is not here."""


def counted(peer: str, variant: str | None = None, steps: int = STEPS) -> dict[str, Any]:
    """The figure's line: `extra.syncs_per_step`, and each call by its name. Raises NoStrace."""
    if shutil.which("strace") is None:
        raise NoStrace("strace is not on the PATH, so fsync calls were not counted")
    line: dict[str, Any] = {"peer": peer, "variant": variant, "workload": "FSYNC", "n": steps}
    totals = []
    for repeat in (1, 3):
        with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
            log = Path(folder) / "calls"
            trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}", "-e", "signal=none"]
            arguments = ["W1", "--n", str(steps), "--repeat", str(repeat)]
            arguments += ["--variant", variant] if variant else []
            [figure] = driven(peer, arguments, folder, before=[*trace, "-o", str(log)])
            if "error" in figure["extra"]:
                return line | {"extra": {"error": figure["extra"]["error"]}}
            text = log.read_text()
            totals.append({call: len(re.findall(rf"\b{call}\(", text)) for call in CALLS})
    each = {call: round((totals[1][call] - totals[0][call]) / (2 * steps), 2) for call in CALLS}
    extra = {"syncs_per_step": round(sum(each.values()), 2)} | {call: per for call, per in each.items() if per}
    return line | {"durable": figure["durable"], "store": figure["store"], "extra": extra}


def main(peers: list[str]) -> None:
    for named in peers or ["ours"]:
        peer, _, variant = named.partition(":")
        if peer in PEERS:
            prepare(peer)
        print(named, counted(peer, variant or None)["extra"], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
