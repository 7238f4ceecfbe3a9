"""The `tinyworkflow` command: a look at runs from a terminal, a worker for one's own machine, checks before a deploy.

Errors go to stderr and exit non-zero; `--json` prints data for programs. `-w module` imports the workflows; the
current folder is importable. Each module holds a group of commands; console.py what they share.
"""

from __future__ import annotations

from . import code, decisions, histories, keys, operating, runs, schedules
from .console import cli

__all__ = ["cli", "main"]


def main() -> None:
    """The entry point of the `tinyworkflow` script."""
    cli()
