"""Two runs side by side: what is aligned with what, what counts as a difference, and the page that shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import httpx
import pytest

from tests.http.front import calling
from tests.http.ui.run_front import START, long_history, made, new_app, page, words
from tinyworkflow_core import App
from tinyworkflow_core.engine.history import (
    ActivityCompleted,
    ActivityFailed,
    Event,
    RunRetried,
    SignalReceived,
    TimerFired,
    TimerStarted,
)
from tinyworkflow_core.http import ALL, auth
from tinyworkflow_core.http.callers import Caller
from tinyworkflow_core.http.operations import Scope
from tinyworkflow_core.http.ui.comparing import compare, first_difference
from tinyworkflow_core.serialization import Failure


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def done(step: int, result: str = "1", *, name: str = "work", digest: str = "d", attempt: int = 1) -> ActivityCompleted:
    return ActivityCompleted(
        at=at(step), id=step, name=name, digest=digest, attempt=attempt, started_at=at(step), result=result
    )


def failed(step: int) -> ActivityFailed:
    error = Failure(type="E", message="m")
    return ActivityFailed(at=at(step), id=step, name="work", digest="d", attempt=1, started_at=at(step), error=error)


def signal(payload: str, name: str = "word") -> SignalReceived:
    return SignalReceived(at=at(1), message_id=payload, name=name, payload=payload)


def timer(step: int) -> list[Event]:
    return [TimerStarted(at=at(step), id=step, due=at(9)), TimerFired(at=at(9), id=step, due=at(9))]


@pytest.mark.parametrize(
    ("a", "b", "differs"),
    [
        ([done(1)], [done(1)], [()]),
        ([done(1)], [done(1, digest="e")], [("arguments",)]),
        ([done(1)], [done(1, "2")], [("result",)]),
        ([done(1)], [failed(1)], [("outcome", "result")]),
        ([failed(1), done(1, attempt=2)], [done(1)], [("attempts",)]),
        ([done(1)], [done(1, name="other")], [("another step",)]),
        ([done(1)], timer(1), [("another step",)]),
        ([done(1), done(2)], [done(1)], [(), ("only in A",)]),
        ([done(2)], [done(1), done(2)], [("only in B",), ()]),
        ([done(2), done(1)], [done(1), done(2)], [(), ()]),
        ([signal("1"), signal("2")], [signal("1"), signal("3")], [(), ("result",)]),
        ([signal("1")], [signal("1", "other")], [("only in B",), ("only in A",)]),
    ],
)
def test_steps_are_aligned_by_position_and_signals_by_name_and_count(
    a: list[Event], b: list[Event], differs: list[tuple[str, ...]]
) -> None:
    pairs = compare(a, b, lambda text: text)
    assert [pair.differs for pair in pairs] == differs
    first = first_difference(pairs)
    assert first == next((n for n, one in enumerate(differs) if one), None)


def test_values_are_compared_as_what_they_mean_not_as_they_are_sealed() -> None:
    assert first_difference(compare([done(1, "x:1")], [done(1, "y:1")], lambda text: text[2:])) is None


def test_what_a_retry_has_made_void_is_not_compared() -> None:
    retried = RunRetried(at=at(5), failed_at=at(4), due=at(5), automatic=False, forgotten=(1,), position=1)
    pairs = compare([failed(1), retried, done(1)], [done(1)], lambda text: text)
    assert [pair.differs for pair in pairs] == [()]


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = new_app()
    yield app
    await app.close()


@pytest.fixture
async def caller(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app, parts=ALL - {"tick"}) as caller:  # with all parts it would work on runs by itself
        yield caller


async def test_the_page_leads_to_the_first_difference_and_shows_both_values(
    app: App, caller: httpx.AsyncClient
) -> None:
    steps = long_history(400)
    await made(app, "one", steps)
    await made(app, "two", [*steps[:299], done(300, '"changed"', name="work 6", digest="e"), *steps[300:]])
    html = await page(caller, "/ui/diff?a=one&b=two")
    assert "One step differs: step 300, work 6 (arguments, result, attempts). Go there".replace(
        ", attempts", ""
    ) in words(html)
    assert "row=299#pair-299" in html
    there = await page(caller, "/ui/diff?a=one&b=two&row=299")
    assert '<tr id="pair-299" class="first-difference">' in there
    assert "changed" in there
    only = await page(caller, "/ui/diff?a=one&b=two&only=1")
    assert only.count('id="pair-') == 1
    assert "All steps are alike." in words(await page(caller, "/ui/diff?a=one&b=one"))


async def test_the_page_asks_for_two_runs_and_says_which_there_is_not(app: App, caller: httpx.AsyncClient) -> None:
    await made(app, "one", [])
    assert 'value="one"' in await page(caller, "/ui/diff?a=one")
    assert "there is no run 'gone'" in words(await page(caller, "/ui/diff?a=one&b=gone", 404))
    assert "<script>" not in await page(caller, "/ui/diff?a=<script>&b=%22%3E<script>", 404)


async def test_a_run_that_the_caller_does_not_reach_is_one_that_there_is_not(
    app: App, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(app, "mine", [])
    await made(app, "theirs", [], name="discreet")
    limited = Caller(name="limited", kind="local", scopes=frozenset({Scope.READ}), workflows=("echo",))
    monkeypatch.setattr(auth, "LOCAL", limited)
    await page(caller, "/ui/diff?a=mine&b=mine")
    assert "there is no run 'theirs'" in words(await page(caller, "/ui/diff?a=mine&b=theirs", 404))
    await page(caller, "/ui/runs/theirs", 404)


async def test_what_a_workflow_hides_is_hidden_in_a_difference_too(app: App, caller: httpx.AsyncClient) -> None:
    await made(app, "a", [done(1, '{"card":"4242"}')], name="discreet", input='{"card":"4242"}')
    await made(app, "b", [done(1, '{"card":"1111"}')], name="discreet", input='{"card":"4242"}')
    html = await page(caller, "/ui/diff?a=a&b=b")
    assert "4242" not in html
    assert "1111" not in html
    assert "[redacted]" in html
