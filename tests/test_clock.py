"""Durations, moments and ids; and who may ask the machine for them."""

from __future__ import annotations

import ast
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworkflow_core import engine
from tinyworkflow_core.clock import EPOCH, Duration, SystemClock, fresh_id, moment, seconds, timestamp


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (timedelta(minutes=2), 120.0),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        (" 2 d ", 172_800.0),
        ("7d", 604_800.0),
        ("1w", 604_800.0),
        ("1.5h", 5400.0),
    ],
)
def test_a_duration_is_a_number_a_timedelta_or_text(duration: Duration, expected: float) -> None:
    assert seconds(duration) == expected


@pytest.mark.parametrize(
    "duration",
    [
        *("", " ", "5", "s", "-5s", "5 minutes", "1h-30m", "5m!", "1e3s", "9" * 400 + "s"),
        *(-1, -0.001, math.nan, math.inf, -math.inf, timedelta(seconds=-1)),
    ],
)
def test_what_is_no_duration_is_refused(duration: Duration) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(duration)


@given(st.datetimes(datetime(1900, 1, 1), datetime(2106, 1, 1), timezones=st.just(UTC)))
def test_a_moment_survives_its_timestamp_to_the_microsecond(when: datetime) -> None:
    back = moment(timestamp(when))
    assert back == when
    assert back.tzinfo is UTC


def test_the_epoch_is_zero() -> None:
    assert timestamp(EPOCH) == 0
    assert moment(0) == EPOCH


def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


@pytest.mark.parametrize("digits", [1, 7, 12, 32])
def test_a_fresh_id_has_as_many_hexadecimal_digits_as_asked_for(digits: int) -> None:
    made = fresh_id(digits)
    assert len(made) == digits
    assert set(made) <= set("0123456789abcdef")


def test_fresh_ids_do_not_repeat() -> None:
    assert len({fresh_id() for _ in range(10_000)}) == 10_000


def names_from_clock(source: str) -> set[str]:
    return {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1] == "clock"
        for alias in node.names
    } | {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.name.split(".")[-1] == "clock"
    }


def test_the_engine_takes_nothing_of_the_clock_that_asks_the_machine() -> None:
    impure = {"SystemClock", "fresh_id", "clock", "tinyworkflow_core.clock", "*"}
    assert names_from_clock("from ..clock import SystemClock, seconds") & impure == {"SystemClock"}
    assert names_from_clock("from .. import clock") & impure == {"clock"}
    modules = sorted(Path(engine.__path__[0]).rglob("*.py"))
    assert modules
    for module in modules:
        assert not names_from_clock(module.read_text()) & impure, module.name
