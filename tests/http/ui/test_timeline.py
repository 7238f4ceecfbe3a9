"""The timeline: what a history says, as rows of bars and marks, and the part of them that is in sight."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies

from tinyworkflow_core.engine.history import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityHeartbeat,
    ActivityScheduled,
    ApprovalDecided,
    ApprovalRequested,
    CancelRequested,
    ChildEnded,
    ChildStarted,
    Event,
    LeaseTaken,
    MessageSent,
    RunCompleted,
    RunFailed,
    RunResumed,
    RunRetried,
    RunStarted,
    RunSuspended,
    RunTerminated,
    SignalReceived,
    TimerFired,
    TimerStarted,
    UpdateAccepted,
    UpdateCompleted,
)
from tinyworkflow_core.http.ui.gantt import MAX_SHAPES, ROWS, WIDTH, Line, gantt
from tinyworkflow_core.http.ui.rows import Bar, Kind, Row, Timeline, Tone
from tinyworkflow_core.http.ui.timeline import timeline
from tinyworkflow_core.serialization import Failure

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def started() -> RunStarted:
    return RunStarted(at=at(0), name="wf", version=1, input="null", engine=1, python="3.12")


def done(step: int, begin: float, end: float, *, name: str = "work", attempt: int = 1) -> ActivityCompleted:
    return ActivityCompleted(
        at=at(end), id=step, name=name, digest="d", attempt=attempt, started_at=at(begin), result="null"
    )


def failed(step: int, begin: float, end: float, *, attempt: int = 1, retry: float | None = None) -> ActivityFailed:
    return ActivityFailed(
        at=at(end),
        id=step,
        name="work",
        digest="d",
        attempt=attempt,
        started_at=at(begin),
        error=Failure(type="ValueError", message="the secret"),
        retry_at=None if retry is None else at(retry),
    )


def drawn(*events: Event, now: float = 100, **arguments: Any) -> Timeline:
    return timeline([started(), *events], now=at(now), **arguments)


def row(of: Timeline, kind: Kind) -> Row:
    found = [one for one in of.rows if one.kind is kind]
    assert len(found) == 1, found
    return found[0]


def spans(bars: list[Bar]) -> list[tuple[float, float | None, Tone]]:
    return [
        ((one.begin - START).total_seconds(), None if one.end is None else (one.end - START).total_seconds(), one.tone)
        for one in bars
    ]


# --- rows ------------------------------------------------------------------------------------------------


def test_each_attempt_is_a_bar_and_so_is_the_wait_between_two() -> None:
    work = row(drawn(failed(1, 1, 2, retry=5), done(1, 6, 8, attempt=2)), Kind.ACTIVITY)
    assert spans(work.bars) == [(1, 2, Tone.FAILED), (2, 6, Tone.WAIT), (6, 8, Tone.DONE)]
    assert [one.words for one in work.bars] == ["attempt 1 failed: ValueError", "waits for attempt 2", "attempt 2 done"]
    assert (work.state, work.attempts, work.id, work.event) == ("done", 2, 1, 2)


def test_the_words_of_an_error_do_not_get_into_a_timeline() -> None:
    found = drawn(failed(1, 1, 2), RunFailed(at=at(3), error=Failure(type="E", message="the secret")))
    assert "the secret" not in repr(found)


def test_what_goes_on_is_an_open_bar_until_now() -> None:
    found = drawn(ActivityScheduled(at=at(3), id=1, name="work", digest="d"), now=50)
    assert spans(row(found, Kind.ACTIVITY).bars) == [(3, None, Tone.OPEN)]
    assert (found.is_open, found.end) == (True, at(50))
    line = next(one for one in gantt(found, {}).lines if one.row.kind is Kind.ACTIVITY)
    assert (line.goes_on, line.seconds) == (True, 47)
    assert line.shapes[0].x + line.shapes[0].width == pytest.approx(WIDTH)


def test_a_step_that_was_handed_out_shows_how_long_it_lay() -> None:
    found = drawn(ActivityScheduled(at=at(1), id=1, name="work", digest="d"), done(1, 4, 6))
    assert spans(row(found, Kind.ACTIVITY).bars) == [(1, 4, Tone.WAIT), (4, 6, Tone.DONE)]


def test_the_end_of_the_run_ends_what_was_going_on() -> None:
    found = drawn(
        TimerStarted(at=at(1), id=1, due=at(90)),
        ActivityScheduled(at=at(2), id=2, name="work", digest="d"),
        RunTerminated(at=at(9), message_id="m"),
    )
    timer = row(found, Kind.TIMER)  # the limit of something: nothing went wrong
    assert (spans(timer.bars), timer.state) == ([(1, 9, Tone.WAIT)], "not needed")
    assert spans(row(found, Kind.ACTIVITY).bars) == [(2, 9, Tone.CANCELLED)]
    assert (found.is_open, found.end) == (False, at(9))


def test_timers_approvals_signals_children_updates_and_messages_have_rows() -> None:
    child: dict[str, Any] = {"id": 3, "name": "sub", "digest": "d", "run_id": "sub_1"}
    found = drawn(
        TimerStarted(at=at(1), id=1, due=at(4)),
        TimerFired(at=at(4), id=1, due=at(4)),
        ApprovalRequested(at=at(5), id=2, key="go"),
        ApprovalDecided(at=at(7), id=2, key="go", message_id="m", approved=False, by="ada"),
        ChildStarted(at=at(8), on_parent_close="cancel", **child),
        ChildEnded(at=at(9), status="failed", **child),
        SignalReceived(at=at(10), message_id="s1", name="word", payload="1"),
        SignalReceived(at=at(11), message_id="s2", name="word", payload="2"),
        UpdateAccepted(at=at(12), message_id="u", name="change", payload="1"),
        UpdateCompleted(at=at(13), message_id="u", result="1"),
        MessageSent(at=at(14), id=4, target="other_1", name=None, digest="d"),
    )
    assert spans(row(found, Kind.TIMER).bars) == [(1, 4, Tone.WAIT)]
    assert spans(row(found, Kind.APPROVAL).bars) == [(5, 7, Tone.WAIT)]
    assert (row(found, Kind.APPROVAL).state, row(found, Kind.APPROVAL).marks[0].words) == (
        "rejected",
        "rejected by ada",
    )
    assert (row(found, Kind.CHILD).state, row(found, Kind.CHILD).run_id) == ("failed", "sub_1")
    assert [one.at for one in row(found, Kind.SIGNAL).marks] == [at(10), at(11)]
    assert (row(found, Kind.UPDATE).name, row(found, Kind.UPDATE).state) == ("change", "answered")
    assert row(found, Kind.MESSAGE).name == "cancel → other_1"


def test_a_take_over_is_marked_with_both_holders() -> None:
    found = drawn(LeaseTaken(at=at(5), owner="new", previous_owner="old"), done(1, 6, 7))
    (mark,) = row(found, Kind.HOLDER).marks
    assert mark.at == at(5)
    assert "new took the run from old" in mark.words


def test_suspension_and_cancellation_show_in_the_row_of_the_run() -> None:
    found = drawn(
        RunSuspended(at=at(2), message_id="a"),
        RunResumed(at=at(5), message_id="b"),
        CancelRequested(at=at(6), message_id="c"),
    )
    run = row(found, Kind.RUN)
    assert spans(run.bars) == [(0, 2, Tone.OPEN), (2, 5, Tone.WAIT), (5, None, Tone.OPEN)]
    assert [one.words for one in run.marks] == ["asked to cancel"]


def test_what_a_retry_has_made_void_is_drawn_as_void_beside_what_came_instead() -> None:
    error = Failure(type="E", message="")
    found = drawn(
        done(1, 1, 2),
        failed(2, 3, 4),
        RunFailed(at=at(5), error=error, failed=(2,), position=2),
        RunRetried(at=at(20), failed_at=at(5), due=at(20), automatic=False, forgotten=(2,), position=2),
        done(2, 21, 22),
        RunCompleted(at=at(23), output="null"),
    )
    first, second = (one for one in found.rows if one.kind is Kind.ACTIVITY)
    assert not first.void
    assert [(one.tone, one.void) for one in second.bars] == [(Tone.FAILED, True), (Tone.DONE, False)]
    assert spans(row(found, Kind.RUN).bars) == [(0, 5, Tone.FAILED), (5, 20, Tone.WAIT), (20, 23, Tone.DONE)]


def test_a_place_that_became_another_step_has_a_row_for_each() -> None:
    found = drawn(
        done(1, 1, 2, name="old"),
        RunRetried(at=at(5), failed_at=at(4), due=at(5), automatic=True, position=0),
        done(1, 6, 7, name="new"),
    )
    assert [(one.name, one.void) for one in found.rows if one.kind is Kind.ACTIVITY] == [("old", True), ("new", False)]


def test_compensations_are_told_from_what_they_undo() -> None:
    error = Failure(type="E", message="")
    steps = [done(1, 1, 2, name="book"), failed(2, 3, 4), done(3, 5, 6, name="unbook")]
    by_name = drawn(*steps, undo_of={"book": "unbook"})
    by_ending = drawn(*steps, RunFailed(at=at(7), error=error, failed=(2,), undone=(1,)))
    neither = drawn(*steps)
    kinds = [[one.kind.value for one in found.rows if one.id] for found in (by_name, by_ending, neither)]
    assert kinds == [["activity", "activity", "compensation"]] * 2 + [["activity"] * 3]


def test_a_cancelled_step_and_a_heartbeat_are_seen() -> None:
    found = drawn(
        ActivityScheduled(at=at(1), id=1, name="work", digest="d"),
        ActivityHeartbeat(at=at(2), id=1, attempt=1, details="1"),
        ActivityCancelled(at=at(3), id=1, name="work", digest="d"),
    )
    work = row(found, Kind.ACTIVITY)
    assert spans(work.bars) == [(1, 3, Tone.CANCELLED)]
    assert [one.words for one in work.marks] == ["heartbeat of attempt 1"]


# --- what is in sight ------------------------------------------------------------------------------------


def shapes(line: Line) -> list[tuple[float, float]]:
    return [(one.x, one.width) for one in line.shapes]


def test_a_window_shows_the_rows_that_touch_it_and_cuts_their_bars() -> None:
    found = drawn(done(1, 10, 20), done(2, 40, 60), done(3, 80, 90), RunCompleted(at=at(100), output="null"))
    page = gantt(found, {"from": "50", "to": "100"})
    assert [one.row.id for one in page.lines] == [None, 2, 3]
    assert shapes(page.lines[1]) == [(0, 200)]
    assert shapes(page.lines[2]) == [(600, 200)]
    assert page.ticks == [50, 62.5, 75, 87.5, 100]


def test_zooming_in_and_out_leads_through_windows_and_back_to_the_whole() -> None:
    found = drawn(RunCompleted(at=at(100), output="null"))
    whole = gantt(found, {})
    assert whole.window.is_whole
    assert dict(whole.links) == {"Zoom in": "from=25.000&to=75.000"}
    middle = gantt(found, {"from": "25", "to": "75"})
    assert dict(middle.links) == {
        "Zoom in": "from=37.500&to=62.500",
        "Earlier": "from=0.000&to=50.000",
        "Later": "from=50.000&to=100.000",
        "Whole run": "",
    }


def test_what_has_stood_still_for_long_can_be_seen_up_to_its_latest_event_and_row_by_row() -> None:
    found = drawn(done(1, 10, 20), done(2, 30, 30), now=100_000)
    whole = gantt(found, {})
    assert dict(whole.links)["Up to the latest event"] == "from=0.000&to=30.000"
    assert [line.zoom for line in whole.lines] == [
        "from=0.000&to=100000.000",
        "from=9.000&to=21.000",
        "from=0.000&to=1030.000",
    ]
    assert "Up to the latest event" not in dict(gantt(found, {"from": "0", "to": "30"}).links)


@pytest.mark.parametrize(
    "asked",
    [
        {"from": "nan", "to": "inf"},
        {"from": "9", "to": "1"},
        {"from": "x", "to": ""},
        {"row": "-5"},
        {"row": "1e300"},
        {"from": "500", "to": "600"},
    ],
    ids=str,
)
def test_a_window_that_makes_no_sense_is_the_whole(asked: dict[str, str]) -> None:
    page = gantt(drawn(done(1, 1, 2), RunCompleted(at=at(100), output="null")), asked)
    assert page.window.is_whole
    assert len(page.lines) == 2


def test_a_long_history_comes_in_pages_each_drawn_over_its_own_time() -> None:
    found = drawn(*(done(step, step, step + 1) for step in range(1, 5_000)), RunCompleted(at=at(5_000), output="null"))
    first = gantt(found, {})
    assert (first.total, len(first.lines)) == (5_000, ROWS)
    assert dict(first.links)["Rows after"] == f"row={ROWS}"
    last = gantt(found, {"row": dict(first.links)["Last rows"].partition("=")[2]})
    assert last.lines[-1].row.id == 4_999
    assert shapes(last.lines[-1])[0][0] > WIDTH / 2
    assert last.window.begin > 4_900


def test_a_row_of_very_many_bars_or_marks_is_drawn_with_few_and_says_so() -> None:
    signals = [SignalReceived(at=at(n), message_id=str(n), name="word", payload="1") for n in range(1, 3_000)]
    attempts = [failed(1, n, n + 0.5, attempt=n, retry=n + 1) for n in range(1, 3_000)]
    for line in gantt(drawn(*signals, *attempts, now=3_000), {}).lines[1:]:
        assert 50 < len(line.shapes) <= 4 * (MAX_SHAPES + 1)
        assert any("of these, the last" in one.title for one in line.shapes)
        assert line.said[0].endswith(" before")
        assert len(line.said) == 5


EVENTS: list[Event] = [
    done(1, 1, 2),
    failed(1, 1, 2, retry=3),
    done(2, 2, 3, name="undo"),
    ActivityScheduled(at=at(1), id=1, name="work", digest="d"),
    ActivityHeartbeat(at=at(2), id=1, attempt=1, details="1"),
    ActivityCancelled(at=at(3), id=2, name="work", digest="d"),
    TimerStarted(at=at(1), id=3, due=at(9)),
    TimerFired(at=at(9), id=3, due=at(9)),
    ApprovalRequested(at=at(5), id=4, key="go"),
    ApprovalDecided(at=at(7), id=4, key="go", message_id="m", approved=True),
    UpdateCompleted(at=at(13), message_id="u", result="1"),
    RunSuspended(at=at(2), message_id="a"),
    RunResumed(at=at(5), message_id="b"),
    RunRetried(at=at(5), failed_at=at(4), due=at(5), automatic=True, position=1),
    RunRetried(at=at(5), failed_at=at(9), due=at(5), automatic=False, forgotten=(2,), undone=(2,)),
    RunFailed(at=at(3), error=Failure(type="E", message="m"), undone=(1, 2, 3)),
]


@given(strategies.lists(strategies.sampled_from(EVENTS), max_size=12))
@settings(max_examples=200, deadline=None)
def test_every_history_can_be_drawn_inside_its_window_whatever_its_order(events: list[Event]) -> None:
    found = drawn(*events, undo_of={"work": "undo"})
    for asked in ({}, {"from": "2", "to": "6"}):
        for line in gantt(found, asked).lines:
            assert line.seconds >= 0
            assert line.shapes or asked
            assert line.said
            for one in line.shapes:
                assert 0 <= one.x <= one.x + one.width <= WIDTH + 0.2
