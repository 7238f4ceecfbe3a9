"""A run's events as people, HTTP and the command line see them: plain JSON, nothing of how it is stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.test_history import ERROR, GOLDEN
from tinyworkflow_core.engine.history import (
    ActivityCompleted,
    ActivityFailed,
    ApprovalDecided,
    ApprovalRequested,
    RunCompleted,
    RunFailed,
    RunStarted,
    SideEffectRecorded,
    SignalReceived,
    event_from_dict,
)
from tinyworkflow_core.serialization import Codec, Failure
from tinyworkflow_core.timeline import event_view

CODEC = Codec()
AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
TEXT = "2026-01-02T03:04:05.000006+00:00"
STEP: dict[str, Any] = {"at": AT, "id": 1, "name": "pay", "digest": "d"}


@dataclass
class Price:
    amount: Decimal
    on: date


PRICE = CODEC.encode(Price(Decimal("1.50"), date(2026, 1, 1)))
PLAIN = {"amount": "1.50", "on": "2026-01-01"}


@pytest.mark.parametrize("data", GOLDEN, ids=lambda data: data["kind"])
def test_every_event_has_a_number_a_type_a_time_and_is_json(data: dict[str, Any]) -> None:
    view = event_view(7, event_from_dict(data), CODEC)
    assert list(view)[:3] == ["event_id", "type", "at"]
    assert (view["event_id"], view["type"], view["at"]) == (7, data["kind"], data["at"])
    assert json.loads(json.dumps(view)) == view
    assert view.keys() - {"event_id", "type"} == data.keys() - {"kind"}


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (RunStarted(at=AT, name="order", version=1, input=PRICE, engine=1, python="3.11"), "input"),
        (RunCompleted(at=AT, output=PRICE), "output"),
        (ActivityCompleted(**STEP, attempt=1, started_at=AT, result=PRICE), "result"),
        (SideEffectRecorded(at=AT, id=1, result=PRICE), "result"),
        (SignalReceived(at=AT, message_id="m", name="go", payload=PRICE), "payload"),
        (ApprovalDecided(at=AT, id=1, key="boss", message_id="m", approved=True, data=PRICE), "data"),
        (ApprovalRequested(at=AT, id=1, key="boss", details=PRICE), "details"),
        (ApprovalRequested(at=AT, id=1, key="boss", form=PRICE), "form"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_value_is_shown_plainly_without_its_class(event: Any, name: str) -> None:
    assert event_view(1, event, CODEC)[name] == PLAIN


def test_what_only_looks_like_a_value_is_left_as_it_is() -> None:
    decided = ApprovalDecided(at=AT, id=1, key="1", message_id="[1]", approved=True, by="null", comment="{}")
    view = event_view(1, decided, CODEC)
    assert (view["key"], view["message_id"], view["by"], view["comment"]) == ("1", "[1]", "null", "{}")


@pytest.mark.parametrize(
    "event",
    [
        RunFailed(at=AT, error=Failure.from_dict(ERROR)),
        SideEffectRecorded(at=AT, id=1, error=Failure.from_dict(ERROR)),
        ActivityFailed(**STEP, attempt=2, started_at=AT, error=Failure.from_dict(ERROR), retry_at=AT),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_error_is_its_type_and_message_and_not_its_traceback(event: Any) -> None:
    view = event_view(1, event, CODEC)
    assert view["error"] == {"type": "OSError", "message": "full"}


def test_moments_are_iso_text() -> None:
    failed = ActivityFailed(**STEP, attempt=2, started_at=AT, error=Failure(type="E", message="m"), retry_at=AT)
    view = event_view(1, failed, CODEC)
    assert view["at"] == view["started_at"] == view["retry_at"] == TEXT
