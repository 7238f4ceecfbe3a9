"""A module, written and imported."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

from tests.lint.marked import Import

numbers = count()


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[Import]:
    """Write a module and import it; it is forgotten after the test."""
    names = []

    def module(source: str) -> ModuleType:
        path = tmp_path / f"linted_{next(numbers)}.py"
        path.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        names.append(path.stem)
        sys.modules[path.stem] = made
        spec.loader.exec_module(made)
        return made

    yield module
    for name in names:
        sys.modules.pop(name, None)
