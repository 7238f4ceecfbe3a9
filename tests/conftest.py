"""Fixtures that every folder may use."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator

import pytest
import typer.main

from tests.services import chromium, firestore_emulator

__all__ = ["chromium", "command_tree_made_once", "firestore_emulator"]

# Tests start dozens of processes; where no bytecode may be written each of them would compile the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(optionalhook=True)  # also where xdist is switched off
def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` makes: tests wait for processes, leases and browsers for a third of their time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + (cores + 1) // 2


def pytest_collection_finish() -> None:
    """Thousands of tests and all that they import stay to the end: a collector that looks at them again for every test
    that calls it takes half of that test's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def command_tree_made_once() -> Iterator[None]:
    """CliRunner makes all commands anew for every call, which takes longer than most of the calls themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(typer.main.get_command), raising=False)
        yield
