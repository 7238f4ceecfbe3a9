"""Histories that were stored once are replayed for ever, on every Python: the same outcome, the same open commands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.golden_workflows import GOLDEN
from tests.engine.history_builder import FACTS, codec, defined, picture, replayed, retry_plan
from tests.engine.make_golden import FOLDER, MADE_BY, STORIES
from tinyworkflow_core.engine.context import RunFacts
from tinyworkflow_core.engine.history import RunRetried, history_from_json, history_to_json
from tinyworkflow_core.engine.replay import Execution

FILES = sorted(FOLDER.glob("*.json"))


def load(path: Any) -> tuple[Any, list[dict[str, Any]], list[Any]]:
    """The workflow, its events as stored and what was said after each."""
    data = json.loads(path.read_text())
    return GOLDEN[data["workflow"]], [one["event"] for one in data["events"]], [one["then"] for one in data["events"]]


def facts_of(path: Any) -> RunFacts:
    data = json.loads(path.read_text())
    return replace(FACTS, run_id=data.get("run_id", FACTS.run_id), generation=data.get("generation", 0))


def plain(outcome: Any) -> Any:
    return json.loads(json.dumps(picture(outcome)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_stored_history_leads_where_it_led_when_it_was_made(path: Any) -> None:
    code, events, said = load(path)
    history = history_from_json(events)
    for i, then in enumerate(said):
        if then is not None:
            outcome = replayed(code, history[: i + 1], facts=facts_of(path))
            assert plain(outcome) == then, f"after event {i}: {events[i]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_stored_history_says_from_where_a_failed_run_goes_on(path: Any) -> None:
    events = json.loads(path.read_text())["events"]
    code, history = load(path)[0], history_from_json([one["event"] for one in events])
    for i, one in enumerate(events):
        if "retry" in one:
            assert retry_plan(replayed(code, history[: i + 1], facts=facts_of(path))) == one["retry"]


@pytest.mark.parametrize("path", [one for one in FILES if one.stem not in MADE_BY], ids=lambda path: path.stem)
def test_a_stored_history_leads_there_event_by_event(path: Any) -> None:
    code, events, said = load(path)
    history = history_from_json(events)
    first = next(i for i, then in enumerate(said) if then is not None)
    execution = Execution(defined(code), history[: first + 1], facts=facts_of(path), codec=codec)
    for i, one in enumerate(history[first + 1 :], start=first + 1):
        if isinstance(one, RunRetried):  # over a retry nobody steps
            execution.close()
            execution = Execution(defined(code), history[: i + 1], facts=facts_of(path), codec=codec)
        outcome = plain(execution.outcome if isinstance(one, RunRetried) else execution.step([one]))
        assert outcome[0] == said[i][0]
    assert outcome == said[-1]
    execution.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_stored_history_is_written_again_as_it_was(path: Any) -> None:
    _, events, _ = load(path)
    assert history_to_json(history_from_json(events)) == events


def test_every_golden_workflow_has_its_history_and_every_history_its_story() -> None:
    assert {path.stem for path in FILES} == set(GOLDEN) == set(STORIES)


def test_every_golden_history_reaches_an_end() -> None:
    ends = {path.stem: load(path)[2][-1][0] for path in FILES}
    assert ends == dict.fromkeys(GOLDEN, "completed") | {
        "parallel_with_failure": "failed",
        "cancelled_with_cleanup": "cancelled",
        "times_out": "failed",
    }
