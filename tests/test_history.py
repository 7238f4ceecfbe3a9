"""Events as data: what one release has written every later one can read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyworkflow_core.engine import history
from tinyworkflow_core.engine.event_text import history_text
from tinyworkflow_core.engine.history import (
    ActivityCompleted,
    Event,
    TimerFired,
    event_from_dict,
    event_to_dict,
    history_from_json,
    history_to_json,
)
from tinyworkflow_core.errors import SerializationError
from tinyworkflow_core.serialization import Failure, json_text

AT = "2026-01-02T03:04:05.000006+00:00"
LATER = "2026-01-02T03:05:00+00:00"
ERROR = {
    "type": "OSError",
    "message": "full",
    "cls": "builtins:OSError",
    "args": '["full"]',
    "traceback": "line 1",
    "cause": {"type": "E", "message": "m", "details": "1", "retryable": True},
    "members": [{"type": "M", "message": ""}],
}
ACTIVITY = {"id": 1, "name": "pay", "digest": "0123456789abcdef", "input": "[1]", "group": 0}
CHILD = {"id": 5, "name": "ship", "digest": "0123456789abcdef", "run_id": "r.0.5"}

# What releases have written. Never edit a line; add one when an event gets a field.
GOLDEN: list[dict[str, Any]] = [
    {"kind": "RunStarted", "at": AT, "name": "order", "version": 1, "input": "null", "engine": 1, "python": "3.11"},
    {
        "kind": "RunStarted", "at": AT, "name": "order", "version": 2, "input": "{}", "engine": 1, "python": "3.13",
        "fingerprint": "f", "parent_run_id": "p",
    },
    {"kind": "LeaseTaken", "at": AT, "owner": "b", "previous_owner": "a"},
    {"kind": "CancelRequested", "at": AT, "message_id": "m"},
    {"kind": "CancelRequested", "at": AT, "message_id": "m", "reason": "why"},
    {"kind": "RunCompleted", "at": AT, "output": '"done"'},
    {"kind": "RunFailed", "at": AT, "error": ERROR},
    {"kind": "RunCancelled", "at": AT},
    {"kind": "RunCancelled", "at": AT, "reason": "why"},
    {"kind": "ActivityScheduled", "at": AT, "id": 1, "name": "pay", "digest": "0123456789abcdef"},
    {"kind": "ActivityScheduled", "at": AT, **ACTIVITY},
    {"kind": "ActivityCompleted", "at": AT, **ACTIVITY, "attempt": 1, "started_at": AT, "result": "1"},
    {"kind": "ActivityFailed", "at": AT, **ACTIVITY, "attempt": 1, "started_at": AT, "error": ERROR},
    {
        "kind": "ActivityFailed", "at": AT, **ACTIVITY, "attempt": 1, "started_at": AT, "error": ERROR,
        "retry_at": LATER,
    },
    {"kind": "ActivityCancelled", "at": AT, **ACTIVITY},
    {"kind": "TimerStarted", "at": AT, "id": 2, "due": LATER},
    {"kind": "TimerFired", "at": AT, "id": 2, "due": LATER},
    {"kind": "SignalReceived", "at": AT, "message_id": "m", "name": "go", "payload": "null"},
    {"kind": "ApprovalRequested", "at": AT, "id": 3, "key": "boss"},
    {
        "kind": "ApprovalRequested", "at": AT, "id": 3, "key": "boss", "title": "t", "details": "1",
        "approvers": ["a", "b"], "form": "{}", "expires_at": LATER,
    },
    {"kind": "ApprovalDecided", "at": AT, "id": 3, "key": "boss", "message_id": "m", "approved": False},
    {
        "kind": "ApprovalDecided", "at": AT, "id": 3, "key": "boss", "message_id": "m", "approved": True, "by": "ada",
        "comment": "yes", "data": "{}",
    },
    {
        "kind": "ApprovalRequested", "at": AT, "id": 3, "key": "boss", "approvers": ["ada"], "quorum": 2, "veto": False,
        "escalate_to": ["bob"], "escalates_at": LATER,
    },
    {"kind": "ApprovalVoted", "at": AT, "id": 3, "key": "boss", "message_id": "m", "approved": False, "by": "ada"},
    {
        "kind": "ApprovalVoted", "at": AT, "id": 3, "key": "boss", "message_id": "m", "approved": True, "by": "ada",
        "comment": "yes", "data": "{}", "way": "link",
    },
    {"kind": "ApprovalDecided", "at": AT, "id": 3, "key": "boss", "message_id": "m", "approved": True, "way": "api"},
    {"kind": "ApprovalWithdrawn", "at": AT, "id": 3, "key": "boss"},
    {"kind": "SideEffectRecorded", "at": AT, "id": 4, "result": "1"},
    {"kind": "SideEffectRecorded", "at": AT, "id": 4, "error": ERROR},
    {
        "kind": "RunStarted", "at": AT, "name": "order", "version": 2, "input": "{}", "engine": 1, "python": "3.13",
        "fingerprint": "f", "parent_run_id": "p", "parent_message": "child/0/1/c", "deadline": LATER, "seed": "s/0",
        "seen": ["signal/a", "update/b"],
    },
    {"kind": "RunTimedOut", "at": AT},
    {"kind": "RunSuspended", "at": AT, "message_id": "m"},
    {"kind": "RunSuspended", "at": AT, "message_id": "m", "reason": "why"},
    {"kind": "RunResumed", "at": AT, "message_id": "m"},
    {"kind": "RunFailed", "at": AT, "error": ERROR, "failed": [1, 3], "undone": [1], "position": 4},
    {"kind": "RunTerminated", "at": AT, "message_id": "m"},
    {"kind": "RunTerminated", "at": AT, "message_id": "m", "reason": "why"},
    {"kind": "RunRetried", "at": AT, "failed_at": AT, "due": LATER, "automatic": False},
    {
        "kind": "RunRetried", "at": AT, "failed_at": AT, "due": LATER, "automatic": True, "error": ERROR,
        "forgotten": [1, 3], "undone": [1], "position": 4, "deadline": LATER,
    },
    {"kind": "RunForked", "at": AT, "from_run_id": "r", "at_event": 7},
    {"kind": "PatchMarked", "at": AT, "patch": "new-tax"},
    {"kind": "RunPickedUp", "at": AT},
    {"kind": "ActivityScheduled", "at": AT, **ACTIVITY, "attempt": 2, "deadline": LATER},
    {"kind": "ActivityStarted", "at": AT, **ACTIVITY},
    {"kind": "ActivityHeartbeat", "at": AT, "id": 1, "attempt": 2, "details": "[1]"},
    {
        "kind": "ActivityFailed", "at": AT, **ACTIVITY, "attempt": 1, "started_at": AT, "error": ERROR,
        "retry_at": LATER, "heartbeat": "[1]",
    },
    {"kind": "ChildStarted", "at": AT, **CHILD, "on_parent_close": "abandon"},
    {"kind": "ChildEnded", "at": AT, **CHILD, "status": "completed", "message_id": "m", "result": "1"},
    {"kind": "ChildEnded", "at": AT, **CHILD, "status": "failed", "error": ERROR},
    {"kind": "ChildEnded", "at": AT, **CHILD, "status": "cancelled", "message_id": "m"},
    {"kind": "MessageSent", "at": AT, "id": 6, "target": "r", "name": "go", "digest": "0123456789abcdef"},
    {"kind": "MessageSent", "at": AT, "id": 6, "target": "r", "name": None, "digest": "0123456789abcdef"},
    {
        "kind": "MessageSent", "at": AT, "id": 6, "target": "r", "name": "go", "digest": "0123456789abcdef",
        "error": ERROR,
    },
    {"kind": "UpdateAccepted", "at": AT, "message_id": "m", "name": "limit", "payload": "1"},
    {"kind": "UpdateCompleted", "at": AT, "message_id": "m", "result": "1"},
    {"kind": "UpdateCompleted", "at": AT, "message_id": "m", "error": ERROR},
    {"kind": "UpdateRejected", "at": AT, "message_id": "m", "error": ERROR},
]  # fmt: skip


def kinds_of(cls: type[Event]) -> set[type[Event]]:
    below = cls.__subclasses__()
    # A dataclass with slots is made twice; the first try stays among the subclasses until it is collected.
    below = [one for one in below if getattr(history, one.__name__, None) is one]
    return set().union(*(kinds_of(one) for one in below)) if below else {cls}


KINDS = sorted(kinds_of(Event), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("data", GOLDEN, ids=lambda data: data["kind"])
def test_what_was_written_once_can_be_read_and_is_written_the_same(data: dict[str, Any]) -> None:
    event = event_from_dict(json.loads(json.dumps(data)))
    assert type(event).__name__ == data["kind"]
    assert event_to_dict(event) == data
    assert next(iter(event_to_dict(event))) == "kind"


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
def test_every_kind_of_event_has_an_example_that_stays(cls: type[Event]) -> None:
    assert cls.__name__ in {data["kind"] for data in GOLDEN}


def test_a_golden_event_has_the_values_that_were_written() -> None:
    event = event_from_dict(GOLDEN[11])
    assert event == ActivityCompleted(
        at=datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        id=1,
        name="pay",
        digest="0123456789abcdef",
        input="[1]",
        group=0,
        attempt=1,
        started_at=datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        result="1",
    )


moments = st.datetimes(timezones=st.just(UTC))
failures = st.recursive(
    st.builds(Failure, type=st.text(), message=st.text(), retryable=st.booleans()),
    lambda inner: st.builds(
        Failure,
        type=st.text(),
        message=st.text(),
        cls=st.text(),
        args=st.none() | st.text(min_size=1),
        cause=inner,
        members=st.lists(inner, max_size=2).map(tuple),
    ),
    max_leaves=4,
)
st.register_type_strategy(datetime, moments)
st.register_type_strategy(Failure, failures)


def events_of(cls: type[Event]) -> st.SearchStrategy[Event]:
    """With every field given: left to itself, Hypothesis keeps the defaults."""
    return st.builds(cls, **{name: st.from_type(kind) for name, kind in get_type_hints(cls).items()})


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_every_event_comes_back_from_json_equal_and_of_the_same_type(cls: type[Event], data: st.DataObject) -> None:
    one = data.draw(events_of(cls))
    back = event_from_dict(json.loads(json.dumps(event_to_dict(one))))
    assert type(back) is type(one)
    assert back == one


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_the_text_that_is_stored_is_that_of_the_json_data(cls: type[Event], data: st.DataObject) -> None:
    some = data.draw(st.lists(events_of(cls), max_size=2))
    assert history_text(some) == json_text(history_to_json(some))


def test_the_text_of_what_holds_its_defaults_leaves_them_out_and_that_of_odd_values_is_the_same_too() -> None:
    whole = history_from_json(GOLDEN)
    assert history_text(whole) == json_text(GOLDEN)
    for value in (1, True, None, "x", 1.5, [2]):
        for about in ({"kind": "RunStarted", "version": value}, {"kind": "ApprovalRequested", "veto": value}):
            filled = next(one for one in GOLDEN if one["kind"] == about["kind"]) | about
            [odd] = history_from_json([filled])
            assert history_text([odd]) == json_text(history_to_json([odd]))
    [odd] = history_from_json(
        [{"kind": "SignalReceived", "at": AT, "message_id": 5, "name": None, "payload": "\ud800"}]
    )
    assert history_text([odd]) == json_text(history_to_json([odd]))
    assert json.loads(history_text([odd]).encode()) == history_to_json([odd])


def test_a_history_keeps_its_order() -> None:
    whole = history_from_json(GOLDEN)
    assert len(whole) == len(GOLDEN)
    assert history_to_json(whole) == GOLDEN


def test_fields_from_a_later_release_are_ignored() -> None:
    assert event_from_dict({**GOLDEN[16], "added_later": 1}) == event_from_dict(GOLDEN[16])


@pytest.mark.parametrize("data", [{"kind": "RunExploded"}, {}, {"kind": "Event", "at": AT}, {"kind": "ActivityEvent"}])
def test_an_unknown_kind_is_refused_by_name(data: dict[str, Any]) -> None:
    with pytest.raises(SerializationError, match=f"{data.get('kind', '')!r}, which this release does not know"):
        event_from_dict(data)


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "TimerFired", "at": AT, "id": 2},
        {"kind": "TimerFired", "at": AT, "id": 2, "due": "soon"},
        {"kind": "RunFailed", "at": AT, "error": {"message": "no type"}},
    ],
)
def test_a_damaged_event_is_refused_by_name(data: dict[str, Any]) -> None:
    with pytest.raises(SerializationError, match=data["kind"]):
        event_from_dict(data)


def test_data_of_an_older_release_is_lifted_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def lift(data: dict[str, Any]) -> dict[str, Any]:
        return data | {"kind": "TimerFired", "due": data.pop("when")}

    monkeypatch.setitem(history._UPCASTS, "AlarmRang", lift)
    old = {"kind": "AlarmRang", "at": AT, "id": 2, "when": LATER}
    assert event_from_dict(old) == event_from_dict(GOLDEN[16])
    assert type(event_from_dict(old)) is TimerFired
    assert "when" in old
