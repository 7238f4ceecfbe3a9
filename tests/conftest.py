"""Fixtures that every folder may use."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import pytest
import typer.main

from tests.services import chromium, firestore_emulator

__all__ = ["chromium", "command_tree_made_once", "firestore_emulator"]

# Tests start dozens of processes; where no bytecode may be written each of them would compile the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session", autouse=True)
def command_tree_made_once() -> Iterator[None]:
    """CliRunner makes all commands anew for every call, which takes longer than most of the calls themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(typer.main.get_command), raising=False)
        yield
