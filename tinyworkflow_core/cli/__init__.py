"""The `tinyworkflow` command: a look at runs from a terminal, a worker for one's own machine, checks before a deploy.

It talks to a store (`--db`) or to a deployment (`--url`), and prints the same. Errors go to stderr and exit non-zero;
`--json` prints data for programs. `-w module` imports the workflows, else `[tool.tinyworkflow]` of the nearest
pyproject.toml names them; the current folder is importable. Each module holds a group of commands.

- console.py: the application, its options and exit codes. printing.py: lines, JSON, colours, progress.
- narrowing.py: of all commands a process makes the one that it was started for.
- reach.py is the port to wherever the runs are; by_store.py and by_http.py are its adapters.
"""

from __future__ import annotations

import sys

from . import code, decisions, dev, histories, init, keys, operating, runs, schedules, serving, talking
from .console import cli
from .narrowing import narrow

__all__ = ["cli", "main"]


def main() -> None:
    """The entry point of the `tinyworkflow` script."""
    narrow(cli, sys.argv[1:])
    cli()
