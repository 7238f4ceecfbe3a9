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
    "ctypes", "ftplib", "http", "mmap", "multiprocessing", "pickle", "shelve", "shutil", "smtplib", "sqlite3", "tempfile",
    "urllib.request", "webbrowser", "xmlrpc",
}  # fmt: skip


def brought() -> set[str]:
    """The modules that the engine brings in beyond those of asyncio, in a fresh process."""
    command = [sys.executable, "-c", BRING]
    return set(json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout))


def test_the_engine_brings_in_no_module_that_touches_the_world() -> None:
    modules = brought()
    assert "tinyworkflow_core.engine.replay" in modules
    assert not {name for name in modules if name in WORLDLY or name.partition(".")[0] in WORLDLY}


def test_the_engine_brings_in_nothing_but_the_standard_library_and_what_lies_below_it() -> None:
    allowed = {"clock", "commands", "engine", "errors", "registry", "retry", "serialization"}
    for name in brought():
        root, _, rest = name.partition(".")
        assert root in sys.stdlib_module_names or (root == "tinyworkflow_core" and rest.partition(".")[0] in allowed | {""}), name
