"""Activities: what is counted of their attempts, and that no more is read than was said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.http.front import double, echo, order
from tests.http.ui.visitor import HOSTILE, visiting, visitors
from tests.stores.records import T0, a_run, opening
from tinyworkflow_core import App
from tinyworkflow_core.engine.history import ActivityCompleted, ActivityFailed, Event
from tinyworkflow_core.http.ui import measuring
from tinyworkflow_core.http.ui.measuring import Measured, measure
from tinyworkflow_core.serialization import Failure


@pytest.fixture
async def app() -> AsyncIterator[App]:
    made = App("sqlite:///:memory:", workflows=[echo, order, double], dispatcher="none")
    yield made
    await made.close()


def done(name: str, seconds: float, attempt: int = 1) -> ActivityCompleted:
    return ActivityCompleted(
        at=T0 + timedelta(seconds=seconds), id=1, name=name, digest="d", attempt=attempt, started_at=T0, result="null"
    )


def failed(name: str, seconds: float, error: str = "ValueError", *, again: bool = False) -> ActivityFailed:
    return ActivityFailed(
        at=T0 + timedelta(seconds=seconds),
        id=1,
        name=name,
        digest="d",
        attempt=1,
        started_at=T0,
        error=Failure(type=error, message="the secret plan"),
        retry_at=T0 + timedelta(seconds=seconds + 1) if again else None,
    )


async def happened(app: App, run_id: str, events: Sequence[Event], minutes: int = 0, **fields: Any) -> None:
    """A run with that history, made so many minutes after T0."""
    run = a_run(run_id, created_at=T0 + timedelta(minutes=minutes), **fields)
    assert await app.store.create(run, [*opening(run), *events])


async def measured(app: App, **how: Any) -> dict[str, Measured]:
    return {one.name: one for one in (await measure(app.store, **how)).activities}


async def test_steps_attempts_and_durations_are_counted_from_the_histories(app: App) -> None:
    await happened(app, "a", [failed("pay", 9, "Timeout", again=True), done("pay", 1, 2), done("mail", 0.5)])
    await happened(app, "b", [failed("pay", 4, "Refused"), *(done("pay", one) for one in (2, 3))])
    found = await measured(app)
    pay = found["pay"]
    assert (pay.succeeded, pay.failed, pay.attempts) == (3, 1, 5)
    assert pay.success_rate == 0.75
    assert pay.attempts_per_step == 1.25
    assert [pay.percentile(share) for share in (0.5, 0.8, 0.95, 1)] == [3, 4, 9, 9]
    assert (pay.last_error, pay.last_error_run) == ("Timeout", "a"), "the latest, whichever run it is of"
    assert found["mail"].success_rate == 1
    assert found["mail"].last_error is None
    nothing = Measured(name="new")
    assert (nothing.success_rate, nothing.attempts_per_step, nothing.percentile(0.5)) == (None, None, None)


async def test_only_the_latest_runs_are_read_and_of_those_what_fits_the_budget(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        await happened(app, f"r{number}", [done(f"of-{number}", 1)], number, sequence=90 if number == 4 else 1)
    read: list[str] = []
    load = app.store.load

    async def counted(run_id: str) -> Any:
        read.append(run_id)
        return await load(run_id)

    monkeypatch.setattr(app.store, "load", counted)
    monkeypatch.setattr(measuring, "MOST_DOCUMENTS", 7)
    found = await measure(app.store, limit=5)
    assert sorted(read) == ["r2", "r3", "r5"]
    assert [one.name for one in found.activities] == ["of-2", "of-3", "of-5"]
    assert (found.runs, found.too_long, found.events) == (3, 2, 6)
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/activities?runs=20")
    assert "From the histories of 3 of the latest 6 runs (6 events, since 2026-03-01 12:00:00 )" in page.words
    assert "3 were left out: histories of" in page.words


async def test_names_without_end_have_an_end(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MOST_ACTIVITIES", 3)
    await happened(app, "a", [done(f"made-{number}", 1) for number in (1, 2, 3, 4, 5, 1)])
    found = await measure(app.store)
    assert [one.name for one in found.activities] == ["made-1", "made-2", "made-3"]
    assert (found.activities[0].attempts, found.unnamed) == (2, 2)


async def test_the_page_shows_what_was_measured_of_a_workflow_or_of_all(app: App) -> None:
    await happened(app, "a", [done(HOSTILE[:200], 0.25), failed("pay", 3, HOSTILE[:200]), *[done("pay", 1)] * 2])
    await happened(app, "b", [done("mail", 61)], name="echo")
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/activities")
        assert "pay 66.6 % 3 (1 failed) 3 1 s 3 s 3 s" in page.words, "never rounded up"
        assert "mail 100 % 1 1 1 min 1 s" in page.words
        assert "double" in page.words, "what is declared here and was not at work"
        assert "/ui/runs/a" in page.links
        assert "the secret plan" not in page.html
        only = await visitor.see("/ui/activities?workflow=echo&runs=7")
        assert "mail" in only.words
        assert "pay" not in only.words
        assert only.form("/ui/activities").fields["runs"] == ""
        none = await visitor.see("/ui/activities?workflow=%3Cscript%3E%00&runs=-1")
        assert "No activity was at work" in none.words


async def test_a_caller_for_some_workflows_sees_only_what_their_runs_did(app: App) -> None:
    await happened(app, "a", [done("pay", 1)])
    await happened(app, "b", [done("mail", 1)], name="echo")
    some = {"scopes": ["read"], "workflows": ["ech*", "other"]}
    async with visitors(app, some=some, one={"scopes": ["read"], "workflows": ["echo"]}, starter=["start"]) as by:
        for who in ("some", "one"):
            page = await by[who].see("/ui/activities")
            assert "mail" in page.words
            assert "pay" not in page.words
            assert "double" not in page.words
        assert "No activity" in (await by["some"].see("/ui/activities?workflow=order")).words
        await by["starter"].see("/ui/activities", 403)
