"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.engine.history_builder import Begin, LiveRun


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins runs, each with its replay checked after every event, and puts them away when the test ends."""
    with ExitStack() as stack:

        def begin(code: Any, input_data: Any = None, **options: Any) -> LiveRun:
            return stack.enter_context(LiveRun(code, input_data, **options))

        yield begin
