"""The example workflows do what their docstrings say: on virtual time, those that touch money or people four ways."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import workflows
from tinyworkflow_core import ApplicationError, RetryAfter, TinyWorkflowClient, WorkflowFailedError
from tinyworkflow_core.errors import InvalidInputError
from tinyworkflow_core.schedule_store import Schedule
from tinyworkflow_core.testing import START, VirtualClock, WorkflowEnvironment, four_ways
from workflows import (
    content,
    documents,
    etl,
    expenses,
    local_model,
    purchases,
    reminders,
    retries,
    scheduled,
    sentiment,
)

DEPLOYED = [getattr(workflows, name) for name in workflows.__all__ if name != "github"]

Told = list[tuple[str, str]]


def env(**activities: Callable[..., Any]) -> WorkflowEnvironment:
    """A world with all that is deployed; activities by name may be replaced."""
    return WorkflowEnvironment(DEPLOYED, activities=activities)


@pytest.fixture
def told() -> Told:
    """What people have been told, in order."""
    return []


def to(told: Told) -> Callable[[str, str], str]:
    def notify(who: str, text: str) -> str:
        told.append((who, text))
        return "noted"

    return notify


async def waits_between_attempts(world: WorkflowEnvironment, run_id: str, activity: str) -> list[float]:
    """The pauses, in seconds, between the attempts of the activity's one step."""
    failed = [one for one in await world.events(run_id, "ActivityFailed") if one["name"] == activity]
    return [seconds(one["retry_at"]) - seconds(one["at"]) for one in failed if "retry_at" in one]


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def read(path: str) -> str:
    return Path(path).read_text()


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


async def attempts(world: WorkflowEnvironment, run_id: str) -> Counter[str]:
    """How many attempts each activity has ended, over all of its steps."""
    ended = await world.events(run_id, "ActivityCompleted", "ActivityFailed")
    return Counter(one["name"] for one in ended)


# --- etl ---------------------------------------------------------------------------------------------


@pytest.fixture
def orders(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "orders.csv").write_text("customer,amount\nada,10.50\ngrace,1\nada,0.25\ngrace,lots\n")
    return {"source": str(tmp_path / "orders.csv"), "target": str(tmp_path / "totals.json")}


async def test_etl_loads_exact_totals_and_counts_what_it_could_not_read(orders: dict[str, str]) -> None:
    async def scenario(world: WorkflowEnvironment) -> None:
        result = await world.result(await world.start(etl.simple_etl, orders))
        assert result == {"read": 4, "unreadable": 1, "loaded": 2}
        assert json.loads(read(orders["target"])) == {"ada": "10.75", "grace": "1"}

    assert await four_ways(scenario, [etl.simple_etl]) > 2
    assert sorted(path.name for path in Path(orders["target"]).parent.iterdir()) == ["orders.csv", "totals.json"]


async def test_etl_waits_for_a_source_that_is_late_and_gives_up_at_once_on_a_wrong_one(orders: dict[str, str]) -> None:
    source = orders["source"]
    os.rename(source, f"{source}.later")
    async with env() as world:
        run_id = await world.start(etl.simple_etl, orders)
        await world.advance("3s")
        os.rename(f"{source}.later", source)
        assert (await world.result(run_id))["read"] == 4
        assert (await attempts(world, run_id))["extract"] == 3

        write(source, "customer;amount\n")
        run_id = await world.start(etl.simple_etl, orders)
        with pytest.raises(WorkflowFailedError, match="has no column amount"):
            await world.result(run_id)
        assert (await attempts(world, run_id)) == {"extract": 1}


# --- a report from three sources -----------------------------------------------------------------------


async def test_the_user_report_asks_its_three_sources_at_once() -> None:
    async with env() as world:
        run_id = await world.start(workflows.user_report, {"user_id": "u-1"})
        assert await world.result(run_id) == {
            "name": "Ada",
            "orders": 2,
            "spent": 42.5,
            "preferences": {"theme": "dark"},
        }
        groups = {one.get("group") for one in await world.events(run_id, "ActivityCompleted")}
        assert len(groups) == 1
        assert None not in groups


async def test_the_user_report_fails_at_once_for_a_user_that_is_not_there() -> None:
    async with env() as world:
        run_id = await world.start(workflows.user_report, {"user_id": "u-9"})
        with pytest.raises(WorkflowFailedError, match="no user u-9") as caught:
            await world.result(run_id)
        assert isinstance(caught.value.__cause__, ApplicationError)
        assert caught.value.__cause__.type == "UnknownUser"
        assert (await attempts(world, run_id))["fetch_user"] == 1


# --- expenses ------------------------------------------------------------------------------------------

LUNCH = {"employee": "ada", "amount": 40.0, "purpose": "lunch"}
LAPTOP = {"employee": "ada", "amount": 2500.0, "purpose": "a laptop", "manager": "grace"}


async def test_a_small_expense_is_paid_without_asking_anybody() -> None:
    async with env() as world:
        result = await world.result(await world.start(expenses.expense_approval, LUNCH))
        assert (result["status"], result["amount"]) == ("paid", 40)


async def test_a_large_expense_is_paid_once_and_only_after_the_manager_agrees(told: Told) -> None:
    paid: list[str] = []

    def pay(employee: str, amount: float) -> str:
        paid.append(f"{employee} {amount}")
        return "paid"

    async def scenario(world: WorkflowEnvironment) -> None:
        paid.clear()
        run_id = await world.start(expenses.expense_approval, LAPTOP)
        await world.advance("1d")
        run = await world.status(run_id)
        [asked] = run.open_approvals
        assert (run.status, asked.key, asked.approvers, paid) == ("paused", "manager", ("grace",), [])
        await world.decide(run_id, "manager", by="grace", data={"amount": 2000})
        assert await world.result(run_id) == {"status": "paid", "amount": 2000, "payment": "paid"}
        assert set(paid) == {"ada 2000.0"}
        assert len(await world.events(run_id, "ActivityCompleted")) == 2
        assert not world.plain or len(paid) == 1

    replaced = {"pay": pay, "notify": to(told)}
    assert await four_ways(scenario, [expenses.expense_approval], activities=replaced) > 2
    assert set(told) == {("grace", "ada asks for 2500.00")}


async def test_a_rejected_expense_is_not_paid_and_says_who_and_why() -> None:
    async with env() as world:
        run_id = await world.start(expenses.expense_approval, LAPTOP)
        await world.run()
        await world.decide(run_id, "manager", approved=False, by="grace", comment="too dear")
        assert await world.result(run_id) == {"status": "rejected", "by": "grace", "comment": "too dear"}
        assert (await attempts(world, run_id)) == {"notify": 1}


async def test_an_expense_that_nobody_decides_lapses_after_a_week() -> None:
    async with env() as world:
        run_id = await world.start(expenses.expense_approval, LAPTOP)
        await world.advance("6d")
        assert (await world.status(run_id)).status == "paused"
        await world.advance("1d")
        assert (await world.status(run_id)).output_data == {"result": {"status": "lapsed"}}
        assert (await attempts(world, run_id)) == {"notify": 1}


async def test_an_expense_of_no_amount_is_refused_before_a_run_exists() -> None:
    async with env() as world:
        with pytest.raises(InvalidInputError, match="amount"):
            await world.start(expenses.expense_approval, LUNCH | {"amount": 0})


# --- retries -------------------------------------------------------------------------------------------


async def test_a_flaky_api_is_called_again_after_growing_pauses() -> None:
    async with env() as world:
        run_id = await world.start(retries.api_with_retries, {"endpoint": "/v2", "away": 4})
        assert await world.result(run_id) == {"endpoint": "/v2", "attempts": 5}
        pauses = await waits_between_attempts(world, run_id, "call_flaky_api")
        assert pauses == [pytest.approx(pause, rel=0.11) for pause in (1, 2, 4, 8)]


async def test_a_flaky_api_that_stays_away_fails_the_run_after_exactly_its_retries() -> None:
    async with env() as world:
        run_id = await world.start(retries.api_with_retries, {"away": 99})
        with pytest.raises(WorkflowFailedError, match="no answer at attempt 6"):
            await world.result(run_id)
        assert (await attempts(world, run_id)) == {"call_flaky_api": 6}
        assert max(await waits_between_attempts(world, run_id, "call_flaky_api")) <= 10


async def test_each_activity_keeps_to_its_own_policy() -> None:
    async def scenario(world: WorkflowEnvironment) -> None:
        run_id = await world.start(retries.policy_per_activity)
        result = await world.result(run_id)
        assert [result[name]["attempts"] for name in ("flaky", "busy", "database")] == [3, 2, 2]
        assert result["charge"] == f"charged 10.00 under {run_id}/0/4"
        assert await waits_between_attempts(world, run_id, "call_busy_api") == [30]

    assert await four_ways(scenario, [retries.policy_per_activity]) > 2


@pytest.mark.parametrize(
    ("given", "attempted"),
    [({"query": "DROP TABLE users"}, {"query_database": 1}), ({"amount": -1}, {"query_database": 2, "charge": 1})],
)
async def test_what_cannot_succeed_is_not_tried_again(given: dict[str, Any], attempted: dict[str, int]) -> None:
    async with env() as world:
        run_id = await world.start(retries.policy_per_activity, given)
        with pytest.raises(WorkflowFailedError):
            await world.result(run_id)
        assert (await attempts(world, run_id)) == {"call_flaky_api": 3, "call_busy_api": 2, **attempted}


async def test_a_workflow_level_retry_does_no_finished_step_again() -> None:
    async def scenario(world: WorkflowEnvironment) -> None:
        run_id = await world.start(retries.workflow_level_retry, {"away": 2})
        begun = world.clock.now()
        result = await world.result(run_id)
        assert (result["rows"], result["tried"]) == (42, 3)
        assert (world.clock.now() - begun).total_seconds() == 60 + 120
        done = [one["name"] for one in await world.events(run_id, "ActivityCompleted")]
        assert done == ["query_database", "charge"]
        assert (await world.status(run_id)).retry_count == 2

    assert await four_ways(scenario, [retries.workflow_level_retry]) > 2


async def test_a_workflow_that_uses_up_its_policy_fails_after_exactly_its_retries() -> None:
    async with env() as world:
        run_id = await world.start(retries.workflow_level_retry, {"away": 99})
        with pytest.raises(WorkflowFailedError, match="closed for now"):
            await world.result(run_id)
        assert (await world.status(run_id)).retry_count == 2


async def test_parallel_calls_retry_without_holding_each_other_up() -> None:
    async with env() as world:
        run_id = await world.start(retries.parallel_with_retries)
        await world.advance("5s")
        done = [one["name"] for one in await world.events(run_id, "ActivityCompleted")]
        assert done == ["query_database"]
        assert await world.result(run_id) == {"flaky": 4, "busy": 2, "database": 2}
        assert await waits_between_attempts(world, run_id, "call_busy_api") == [30]


def test_a_busy_service_says_itself_when_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Attempt:
        attempt = 1

    monkeypatch.setattr(retries, "activity_context", Attempt)
    with pytest.raises(RetryAfter) as caught:
        retries.call_busy_api("/quota").send(None)
    assert caught.value.delay == 30


# --- housekeeping by the clock ---------------------------------------------------------------------------


async def test_the_daily_backup_copies_the_file_and_keeps_the_newest(tmp_path: Path) -> None:
    source, folder = tmp_path / "data.db", tmp_path / "backups"
    source.write_bytes(b"data")
    folder.mkdir()
    async with env() as world:
        for _ in range(4):
            given = {"source": str(source), "folder": str(folder), "keep": 3}
            result = await world.result(await world.start(scheduled.daily_backup, given))
            await world.advance("1d")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["backup-2026-01-02", "backup-2026-01-03", "backup-2026-01-04"]
    assert (result["path"], result["removed"]) == (str(folder / names[-1]), 1)
    assert read(result["path"]) == "data"


async def test_the_weekly_report_counts_seven_days_back_from_its_own_time(tmp_path: Path, told: Told) -> None:
    day = scheduled.DAY
    at = [(START - days * day, result) for days, result in [(8, "failed"), (7, "completed"), (1, "failed"), (0, "no")]]
    (tmp_path / "log").write_text("".join(json.dumps({"at": f"{when}", "result": what}) + "\n" for when, what in at))
    async with env(notify=to(told)) as world:
        result = await world.result(await world.start(scheduled.weekly_report, {"log": str(tmp_path / "log")}))
    assert result == {"counts": {"completed": 1, "failed": 1}, "share": 0.5}
    assert told == [("everybody", "2 runs, 50% completed")]


@pytest.mark.parametrize(
    ("free", "writable", "telling"),
    [(0.5, True, []), (0.05, True, ["here: 5% free, writable"]), (0.5, False, ["here: 50% free, not writable"])],
)
async def test_the_hourly_health_check_tells_somebody_only_when_something_is_wrong(
    free: float, writable: bool, telling: list[str], told: Told
) -> None:
    async with env(notify=to(told), free_space=lambda _: free, is_writable=lambda _: writable) as world:
        result = await world.result(await world.start(scheduled.hourly_health_check, {"folder": "here"}))
    assert result["healthy"] is (not telling)
    assert [text for _, text in told] == telling


def test_the_health_check_looks_at_the_disk_as_it_is(tmp_path: Path) -> None:
    assert 0 <= scheduled.free_space(str(tmp_path)) <= 1
    assert scheduled.is_writable(str(tmp_path))
    assert not scheduled.is_writable(str(tmp_path / "missing"))


async def test_the_monthly_cleanup_removes_what_is_older_by_the_workflows_time(tmp_path: Path) -> None:
    for name, age in [("old", 91), ("young", 89)]:
        (tmp_path / name).touch()
        moment = (START - age * scheduled.DAY).timestamp()
        os.utime(tmp_path / name, (moment, moment))
    async with env() as world:
        given = {"folder": str(tmp_path), "days": 90}
        assert await world.result(await world.start(scheduled.monthly_cleanup, given)) == {"removed": 1}
    assert os.listdir(tmp_path) == ["young"]


async def test_the_schedules_are_declared_once_however_often_they_are_deployed(tmp_path: Path) -> None:
    async with TinyWorkflowClient(f"sqlite:///{tmp_path}/runs.db", workflows=DEPLOYED, clock=VirtualClock()) as client:
        ids = [await scheduled.declare_schedules(client) for _ in range(2)][-1]
        found = {one.id: one for one in await client.list_schedules()}
    assert set(ids) == set(found) == {one.workflow for one in scheduled.SCHEDULES}
    due = {name: f"{one.next_at:%a %d %H:%M}" for name, one in found.items() if isinstance(one, Schedule)}
    assert due == {  # after Thursday 1 January, 09:00 UTC; Berlin is an hour ahead
        "daily_backup": "Fri 02 02:00",
        "weekly_report": "Mon 05 08:00",
        "hourly_health_check": "Thu 01 10:00",
        "monthly_cleanup": "Sun 01 03:00",
    }


# --- reminders -----------------------------------------------------------------------------------------


async def test_a_reminder_comes_at_its_time_and_once_even_when_everything_dies_meanwhile(told: Told) -> None:
    async def scenario(world: WorkflowEnvironment) -> None:
        told.clear()
        run_id = await world.start(reminders.delayed_reminder, {"to": "ada", "text": "call back", "after": "30d"})
        await world.advance("29d")
        world.lose_everything()
        assert told == []
        assert await world.result(run_id) == "reminded"
        assert set(told) == {("ada", "call back")}
        assert len(await world.events(run_id, "ActivityCompleted")) == 1
        assert (world.clock.now() - START).days == 30

    assert await four_ways(scenario, [reminders.delayed_reminder], activities={"notify": to(told)}) > 2


async def test_a_reminder_does_not_come_when_its_matter_is_done_before(told: Told) -> None:
    async with env(notify=to(told)) as world:
        run_id = await world.start(reminders.delayed_reminder, {"to": "ada", "text": "call back"})
        await world.advance("23h")
        await world.signal(run_id, "done")
        assert await world.result(run_id) == "done before"
    assert told == []


# --- sentiment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I love this, it is amazing!", ("positive", 1)),
        ("Terrible. Slow and broken.", ("negative", -1)),
        ("It is a thing.", ("neutral", 0)),
        ("It is not good.", ("negative", -1)),
        ("good and bad", ("neutral", 0)),
    ],
)
def test_the_local_analyser_knows_good_from_bad(text: str, expected: tuple[str, float]) -> None:
    assert local_model.sentiment(text) == expected


async def test_sentiment_is_judged_and_measured_at_once() -> None:
    async with env() as world:
        run_id = await world.start(sentiment.sentiment_analysis, "I love these great workflows")
        assert await world.result(run_id) == {
            "sentiment": "positive",
            "clarity": 1,
            "words": 5,
            "keywords": ["great", "these", "workflows"],
        }


async def test_a_batch_tolerates_as_many_failures_as_it_is_told() -> None:
    given = {"texts": ["great", "", "awful", "a table", "good"], "at_once": 2, "tolerated": 1}
    async with env() as world:
        assert await world.result(await world.start(sentiment.batch_sentiment_analysis, given)) == {
            "judged": 4,
            "failed": 1,
            "sentiments": {"positive": 2, "negative": 1, "neutral": 1},
        }
        run_id = await world.start(sentiment.batch_sentiment_analysis, given | {"tolerated": 0})
        with pytest.raises(WorkflowFailedError, match="no text to judge"):
            await world.result(run_id)


# --- content -------------------------------------------------------------------------------------------

BRIEF = {"prompt": "Announce a great release", "reviewers": ["ada"]}


@pytest.mark.parametrize("workflow", [content.content_pipeline, content.content_in_parallel])
async def test_good_content_is_published_and_dubious_content_is_refused(workflow: Any) -> None:
    async with env() as world:
        run_id = await world.start(workflow, BRIEF)
        result = await world.result(run_id)
        assert result["status"] == "published"
        assert result["text"].startswith("Announce a great release")
        assert run_id in result["url"]

        run_id = await world.start(workflow, {"prompt": "Advertise a scam with a bomb"})
        assert await world.result(run_id) == {"status": "refused", "objections": ["fraud", "violence"]}
        assert (await attempts(world, run_id))["publish_text"] == 0


async def test_content_is_analysed_and_translated_in_parallel() -> None:
    async with env() as world:
        run_id = await world.start(content.content_in_parallel, BRIEF | {"languages": ["es", "de", "fr"]})
        result = await world.result(run_id)
        assert result["sentiment"] == "positive"
        assert [text.partition(":")[0] for text in result["translations"].values()] == [
            "En español",
            "Auf Deutsch",
            "En français",
        ]
        done = await world.events(run_id, "ActivityCompleted")
        assert [(one["name"], count) for one, count in _groups(done)] == [("moderate", 3), ("translate", 3)]

        run_id = await world.start(content.content_in_parallel, BRIEF | {"languages": ["de", "xx"]})
        with pytest.raises(WorkflowFailedError, match="does not speak 'xx'"):
            await world.result(run_id)


def _groups(events: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """The first event of each parallel group, and how many belong to it."""
    sizes = Counter(one["group"] for one in events if "group" in one)
    first = sorted((one for one in events if one.get("group") == one["id"]), key=lambda one: int(one["id"]))
    return [(one, sizes[one["group"]]) for one in first]


async def test_nothing_is_published_before_a_person_says_so() -> None:
    async def scenario(world: WorkflowEnvironment) -> None:
        run_id = await world.start(content.content_with_approval, BRIEF)
        await world.advance("2d")
        assert (await world.status(run_id)).status == "paused"
        assert "publish_text" not in {one["name"] for one in await world.events(run_id, "ActivityCompleted")}
        await world.decide(run_id, "review-1", approved=False, by="ada", comment="shorter")
        await world.run()
        await world.decide(run_id, "review-2", by="ada")
        result = await world.result(run_id)
        assert (result["status"], result["by"], result["rounds"]) == ("published", "ada", 2)
        assert result["text"].startswith("Announce a great release, but shorter.")

    assert await four_ways(scenario, [content.content_with_approval]) > 2


async def test_content_that_nobody_wants_or_looks_at_is_not_published() -> None:
    async with env() as world:
        run_id = await world.start(content.content_with_approval, BRIEF | {"rounds": 1})
        await world.run()
        await world.decide(run_id, "review-1", approved=False, by="ada")
        assert await world.result(run_id) == {"status": "rejected", "rounds": 1}

        run_id = await world.start(content.content_with_approval, BRIEF)
        assert (await world.result(run_id))["status"] == "lapsed"
        assert (await attempts(world, run_id))["publish_text"] == 0


async def test_a_model_that_is_overloaded_is_asked_again() -> None:
    calls: list[str] = []

    def generate(prompt: str) -> str:
        calls.append(prompt)
        if len(calls) < 3:
            raise ConnectionError("overloaded")
        return "A great text."

    async with env(generate=generate) as world:
        run_id = await world.start(content.content_pipeline, BRIEF)
        assert (await world.result(run_id))["text"] == "A great text."
        assert (await attempts(world, run_id))["generate"] == len(calls) == 3


# --- documents -----------------------------------------------------------------------------------------


@pytest.fixture
def papers(tmp_path: Path) -> dict[str, str]:
    texts = {
        "invoice.txt": "Invoice. Payment of $1,200.50 is due on 2026-02-01. Thank you.",
        "contract.md": "This agreement binds both parties. They shall keep it.",
        "scan.png": "not a text",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in [*texts, "gone.txt"]}


async def test_a_document_is_read_and_understood(papers: dict[str, str]) -> None:
    understood = {
        "kind": "invoice",
        "entities": {"amounts": ["$1,200.50"], "dates": ["2026-02-01"]},
        "summary": "Invoice.",
    }
    async with env() as world:
        run_id = await world.start(documents.process_document, papers["invoice.txt"])
        assert await world.result(run_id) == understood
        run_id = await world.start(documents.process_document_in_parallel, papers["invoice.txt"])
        assert await world.result(run_id) == understood | {"lacking": []}
        run_id = await world.start(documents.process_document_in_parallel, papers["contract.md"])
        result = await world.result(run_id)
        assert (result["kind"], result["lacking"]) == ("contract", ["a date"])


async def test_a_document_that_cannot_be_read_is_tried_once(papers: dict[str, str]) -> None:
    async with env() as world:
        for name, why in [("scan.png", "only .txt and .md"), ("gone.txt", "No such file")]:
            run_id = await world.start(documents.process_document, papers[name])
            with pytest.raises(WorkflowFailedError, match=why):
                await world.result(run_id)
            assert (await attempts(world, run_id)) == {"read_text": 1}


async def test_a_batch_of_documents_names_those_that_failed_and_does_the_others(papers: dict[str, str]) -> None:
    async def scenario(world: WorkflowEnvironment) -> None:
        paths = list(papers.values())
        result = await world.result(await world.start(documents.process_documents, paths))
        assert [(Path(one["path"]).name, one["kind"]) for one in result["done"]] == [
            ("invoice.txt", "invoice"),
            ("contract.md", "contract"),
        ]
        assert list(result["failed"]) == [papers["scan.png"], papers["gone.txt"]]
        assert "only .txt and .md" in result["failed"][papers["scan.png"]]

    assert await four_ways(scenario, [documents.process_documents]) > 2


# --- all of them ---------------------------------------------------------------------------------------


def test_every_workflow_of_the_package_is_deployed_and_says_what_it_shows() -> None:
    examples = (content, documents, etl, expenses, purchases, reminders, retries, scheduled, sentiment)
    for module in (*examples, workflows.user_report):
        assert module.__doc__
    assert len({one.name for one in DEPLOYED}) == len(DEPLOYED) == 22
    assert all(one.__doc__ for one in DEPLOYED)
