"""`tinyworkflow schedule`: each verb, as a person and as a program would call it."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tinyworkflow_core import WorkflowContext, workflow
from tinyworkflow_core.cli import cli
from tinyworkflow_core.clock import SystemClock
from tinyworkflow_core.encryption import generate_key


@workflow(name="cli-report")
async def report(ctx: WorkflowContext, day: str = "any") -> str:
    return day


class Desk:
    """The command line on a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/runs.db"

    def invoke(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["--db", self.url, *arguments], prog_name="tinyworkflow")

    def say(self, *arguments: str) -> str:
        done = self.invoke(*arguments)
        assert (done.exit_code, done.stderr) == (0, ""), done.output
        return done.stdout.removesuffix("\n")

    def data(self, *arguments: str) -> Any:
        return json.loads(self.say(*arguments, "--json"))

    def only(self) -> dict[str, Any]:
        [schedule] = self.data("schedule", "list")
        assert isinstance(schedule, dict)
        return schedule


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command puts the current folder there
    return Desk(tmp_path)


def test_a_schedule_is_added_listed_and_changed_by_its_id(desk: Desk) -> None:
    assert desk.data("schedule", "list") == []
    options = ["--id", "weekly", "--timezone", "Europe/Zurich", "--overlap", "queue", "--catch-up", "all"]
    made = desk.say("schedule", "add", "cli-report", "0 9 * * 1", "--input", '"mon"', "--jitter", "30s", *options)
    assert made == "weekly"
    shown = desk.only()
    assert (shown["id"], shown["workflow"], shown["input"]) == ("weekly", "cli-report", "mon")
    assert shown["timing"] == {"cron": "0 9 * * 1", "timezone": "Europe/Zurich"}
    assert (shown["overlap"], shown["catch_up"], shown["jitter"]) == ("queue", "all", 30)
    assert "etag" not in shown
    line = desk.say("schedule", "list")
    assert re.fullmatch(r"weekly +cli-report +0 9 \* \* 1 Europe/Zurich +next 20\d\d-\d\d-\d\d 0[78]:00:00", line)
    assert desk.data("schedule", "add", "cli-report", "0 8 * * 1", "--id", "weekly") == {"id": "weekly"}
    assert desk.only()["timing"]["cron"] == "0 8 * * 1"


def test_the_0_1_librarys_spelling_adds_a_schedule(desk: Desk) -> None:
    made = desk.say("schedule", "cli-report", "0 9 * * *", "-i", '"day"')
    assert (desk.only()["id"], desk.only()["input"]) == (made, "day")
    assert desk.only()["timing"]["cron"] == "0 9 * * *"


def test_an_interval_is_a_schedule_too(desk: Desk) -> None:
    desk.say("schedule", "add", "cli-report", "--every", "90s", "--id", "often")
    assert desk.only()["timing"]["interval"] == 90
    assert re.match(r"often +cli-report +90\.0 +next ", desk.say("schedule", "list"))


def test_a_schedule_is_paused_and_resumed(desk: Desk) -> None:
    desk.say("schedule", "add", "cli-report", "@daily", "--id", "daily")
    assert desk.say("schedule", "pause", "daily", "--note", "holidays") == ""
    assert (desk.only()["paused"], desk.only()["note"], desk.only()["next_at"]) == (True, "holidays", None)
    assert desk.say("schedule", "list").endswith("paused  (holidays)")
    assert desk.data("schedule", "resume", "daily") == {"id": "daily"}
    assert desk.only()["paused"] is False
    assert desk.only()["next_at"] is not None


def test_a_schedule_is_triggered_and_deleted_and_its_run_stays(desk: Desk) -> None:
    desk.say("schedule", "add", "cli-report", "@daily", "--id", "daily", "--input", '"now"')
    run_id = desk.say("schedule", "trigger", "daily")
    assert desk.data("status", run_id)["input"] == "now"
    assert desk.data("schedule", "trigger", "daily")["run_id"] != run_id
    assert desk.say("schedule", "delete", "daily") == ""
    assert desk.say("schedule", "list") == ""
    assert len(desk.data("list")) == 2


def test_a_window_is_shown_first_and_filled_when_told_to(desk: Desk) -> None:
    desk.say("schedule", "add", "cli-report", "0 9 * * *", "--id", "daily")
    window = ["2026-01-01", "2026-01-03T09:00:01+00:00"]
    expected = [f"2026-01-0{day}T09:00:00+00:00" for day in (1, 2, 3)]
    assert desk.say("schedule", "backfill", "daily", *window).splitlines() == expected
    assert desk.data("list") == []
    done = desk.data("schedule", "backfill", "daily", "2025-01-01", "2025-01-03", "--go")
    times = ["2025-01-01T09:00:00+00:00", "2025-01-02T09:00:00+00:00"]
    assert done == {"id": "daily", "times": times, "started": True, "backfill_id": done["backfill_id"]}
    assert len(desk.data("list")) == 2


def test_a_schedule_is_changed_in_what_is_given_and_can_fire_once(desk: Desk) -> None:
    options = ["--catch-up-window", "2h", "--pause-after-failures", "3", "--overlap", "queue"]
    desk.say("schedule", "add", "cli-report", "--at", "2100-01-01T09:00", "--id", "once", *options)
    made = desk.only()
    assert (made["timing"], made["catch_up_window"]) == ({"at": "2100-01-01T09:00:00+00:00"}, 7200)
    assert desk.data("schedule", "change", "once", "--jitter", "5s", "--input", '"x"') == {"id": "once"}
    assert desk.only() == made | {"jitter": 5, "input": "x"}
    desk.say("schedule", "change", "once", "0 9 * * *", "--timezone", "Europe/Zurich")
    assert desk.only()["timing"] == {"cron": "0 9 * * *", "timezone": "Europe/Zurich"}


def test_a_backfill_is_looked_at_and_called_off(desk: Desk) -> None:
    desk.say("schedule", "add", "cli-report", "0 9 * * *", "--id", "daily")
    arguments = ["daily", "2025-01-01", "2025-01-06", "--go", "--max-concurrency", "2"]
    backfill_id = desk.data("schedule", "backfill", *arguments)["backfill_id"]
    assert len(desk.data("list")) == 2
    line = desk.say("schedule", "backfills", "daily")
    assert line == f"{backfill_id} 2025-01-01 00:00 to 2025-01-06 00:00 running 2/5"
    desk.say("schedule", "cancel-backfill", "daily", backfill_id)
    [shown] = desk.data("schedule", "backfills", "daily")
    assert (shown["state"], shown["started"], shown["total"]) == ("cancelled", 2, 5)


def test_more_schedules_than_a_page_are_all_listed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyworkflow_core.cli.schedules._PAGE", 2)
    for number in range(5):
        desk.say("schedule", "add", "cli-report", "@daily", "--id", f"s{number}")
    assert [one["id"] for one in desk.data("schedule", "list")] == ["s0", "s1", "s2", "s3", "s4"]


def test_what_is_sealed_is_shown_with_the_keys_of_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWORKFLOW_ENCRYPTION_KEYS", generate_key())
    desk.say("schedule", "add", "cli-report", "@daily", "--input", '"secret"')
    assert desk.only()["input"] == "secret"
    monkeypatch.delenv("TINYWORKFLOW_ENCRYPTION_KEYS")
    assert "secret" not in str(desk.only())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "cli-report"], "give a cron line, or --every, or --at"),
        (["add", "cli-report", "@daily", "--every", "5m"], "give a cron line, or --every, or --at"),
        (["add", "cli-report", "--every", "5m", "--timezone", "UTC"], "--timezone belongs to a cron line"),
        (["change", "nobody", "--overlap", "skip"], "nobody"),
        (["backfills", "nobody"], "nobody"),
        (["cancel-backfill", "nobody", "x"], "nobody"),
        (["add", "cli-report", "61 * * * *"], "61"),
        (["add", "cli-report", "@daily", "--timezone", "Mars"], "Mars"),
        (["add", "cli-report", "@daily", "--overlap", "maybe"], "maybe"),
        (["add", "cli-report", "--every", "soon"], "soon"),
        (["add", "cli-report", "@daily", "--input", "{"], "--input is not JSON"),
        (["add", "cli-report", "@daily", "--input", "5"], "input of workflow 'cli-report'"),
        (["add", "cli-repot", "@daily"], "did you mean 'cli-report'?"),
        (["cli-repot", "@daily"], "did you mean 'cli-report'?"),
        (["dance"], "No such command 'dance'"),
        (["pause", "nobody"], "nobody"),
        (["resume", "nobody"], "nobody"),
        (["delete", "nobody"], "nobody"),
        (["trigger", "nobody"], "nobody"),
        (["backfill", "nobody", "2026-01-01", "2026-01-02"], "nobody"),
        (["backfill", "nobody", "soon", "2026-01-02"], "START: Invalid isoformat string"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_by_name(desk: Desk, arguments: list[str], words: str) -> None:
    done = desk.invoke("schedule", *arguments)
    assert done.exit_code in (1, 2, 3), done.output
    assert done.stdout == ""
    assert words in re.sub(r"[\s│╭╮╰╯─]+", " ", done.stderr)
    assert desk.data("schedule", "list") == []


def test_a_window_that_reaches_into_the_future_is_only_shown(desk: Desk) -> None:
    desk.say("schedule", "add", "cli-report", "@daily", "--id", "daily")
    now = SystemClock().now().astimezone(UTC)
    window = [moment.isoformat() for moment in (now, now + timedelta(days=2))]
    assert [datetime.fromisoformat(one) > now for one in desk.data("schedule", "backfill", "daily", *window)["times"]]
    done = desk.invoke("schedule", "backfill", "daily", *window, "--go")
    assert (done.exit_code, "future" in done.stderr) == (1, True)
