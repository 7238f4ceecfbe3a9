"""The engine is pure: importing it brings in nothing that reads, writes, connects or starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

BRING = """
import asyncio, json, sys
before = set(sys.modules)
import tinyworkflow_core.engine.context, tinyworkflow_core.engine.replay
print(json.dumps(sorted(set(sys.modules) - before)))
"""

WORLDLY = {
    "ctypes", "ftplib", "http", "mmap", "multiprocessing", "pickle", "shelve", "shutil", "smtplib", "sqlite3",
    "tempfile", "urllib.request", "webbrowser", "xmlrpc",
}  # fmt: skip
ABOVE = {"activities", "advance", "app", "approvals", "client", "dispatchers", "http", "schedules", "store", "stores"}


def brought() -> set[str]:
    """The modules that the engine brings in beyond those of asyncio, in a fresh process."""
    command = [sys.executable, "-c", BRING]
    return set(json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout))


def test_the_engine_brings_in_no_module_that_touches_the_world() -> None:
    modules = brought()
    assert "tinyworkflow_core.engine.replay" in modules
    assert not {name for name in modules if name in WORLDLY or name.partition(".")[0] in WORLDLY}


def test_the_engine_brings_in_nothing_but_the_standard_library_and_what_lies_below_it() -> None:
    modules = brought()
    assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names == {"tinyworkflow_core"}
    assert not {f"tinyworkflow_core.{name}" for name in ABOVE} & modules
