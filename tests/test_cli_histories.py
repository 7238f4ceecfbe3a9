"""The command line before a deploy: export what is open, check new code against it, name what cannot be replayed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import pytest
from typer.testing import CliRunner

import tinyworkflow_core
from tinyworkflow_core import App, WorkflowContext, activity, checking, workflow
from tinyworkflow_core.checking import exported
from tinyworkflow_core.cli import cli, histories
from tinyworkflow_core.encryption import EncryptionCodec, generate_key
from tinyworkflow_core.errors import SerializationError
from tinyworkflow_core.registry import Registry
from tinyworkflow_core.serialization import Codec
from tinyworkflow_core.store import Status
from tinyworkflow_core.stores.sqlite import SqliteStore

ROOT = Path(tinyworkflow_core.__file__).parents[1]
SCRIPT = Path(sys.executable).with_name("tinyworkflow")

HEAD = """
from tinyworkflow_core import WorkflowContext, activity, workflow

@activity
async def reserve(amount: int) -> int: ...

@activity
async def charge(amount: int) -> str: ...

@workflow(name="order")
async def order(ctx: WorkflowContext):
"""
MODULES = {
    "fits": HEAD
    + """
    amount = await ctx.execute_activity(reserve, 5)
    await ctx.wait_for_signal("go")
    return await ctx.execute_activity(charge, amount)
""",
    "swapped": HEAD
    + """
    paid = await ctx.execute_activity(charge, 5)
    await ctx.execute_activity(reserve, 5)
    return paid
""",
    "ends": HEAD
    + """
    return await ctx.execute_activity(reserve, 5)
""",
    "version_two": HEAD.replace('name="order"', 'name="order", version=2')
    + """
    return "done"
""",
    "dangerous": HEAD.replace("from tiny", "import random\nimport uuid\nfrom datetime import datetime\nfrom tiny", 1)
    + """
    a = uuid.uuid4()
    b = datetime.now()
    c = random.randint(1, 6)
    d = uuid.uuid4()  # tinyworkflow: ok - only for the log
    return a, b, c

@workflow(lint="off")
async def unread(ctx: WorkflowContext):
    return uuid.uuid4()
""",
    "empty": "",
}


@activity
async def reserve(amount: int) -> int:
    return amount


@workflow(name="order")
async def order(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(reserve, 5)
    return str(await ctx.wait_for_signal("go"))


class Place:
    """A folder with modules to deploy, and a database with two open runs of what is deployed now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/runs.db"
        for name, code in MODULES.items():
            (folder / f"{name}.py").write_text(code)

    async def open_runs(self, codec: Codec | None = None) -> list[dict[str, Any]]:
        app = App(self.url, workflows=[order], dispatcher="none", codec=codec)
        found = []
        for run_id in ("first", "second"):
            await app.client.start_workflow(order, run_id=run_id)
            await app.advance(run_id)
            state = await app.store.load(run_id)
            assert state is not None
            found.append(exported(state))
        await app.close()
        return found

    def say(self, *arguments: str, code: int) -> str:
        """What the command prints; it must end with that code, and use stderr for code 2 alone. It is a process of its
        own as far as declarations go: here others have declared theirs."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tinyworkflow_core.registry._declared", WeakValueDictionary())
            patch.setattr(sys, "path", list(sys.path))
            patch.chdir(self.folder)
            ended = CliRunner().invoke(cli, ["--db", self.url, *arguments])
            for name in MODULES:
                sys.modules.pop(name, None)
        return self._told(code, ended.exit_code, ended.stdout, ended.stderr)

    def say_for_real(self, *arguments: str, code: int) -> str:
        """The same by the script that the package installs."""
        ended = subprocess.run(
            [str(SCRIPT), "--db", self.url, *arguments],
            check=False,
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return self._told(code, ended.returncode, ended.stdout, ended.stderr)

    def _told(self, expected: int, code: int, printed: str, said: str) -> str:
        assert code == expected, printed + said
        if code != 2:
            assert said == ""
            return printed
        assert (printed, "Traceback" in said) == ("", False)
        return said


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def stored(place: Place) -> list[dict[str, Any]]:
    """The two runs, exported."""
    return asyncio.run(place.open_runs())


# --- check -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stored")
def test_the_installed_script_stops_a_deploy_that_does_not_fit(place: Place) -> None:
    assert "2 checked, 2 fit" in place.say_for_real("check", "-w", "fits", code=0)
    assert "second (order v1): mismatch at step 1" in place.say_for_real("check", "-w", "swapped", code=1)
    assert "there are no workflows" in place.say_for_real("check", code=2)
    assert place.say_for_real("lint", "-w", "dangerous", code=1).count(" instead (workflow 'order')") == 3


@pytest.mark.usefixtures("stored")
def test_check_says_what_fits_and_what_does_not_by_its_exit_code(place: Place) -> None:
    assert place.say("check", "-w", "fits", code=0) == (
        "order v1: 2 checked, 2 fit (2 of them began with other code)\n"
    )
    said = place.say("-w", "swapped", "check", code=1).splitlines()
    line = MODULES["swapped"].splitlines().index("    paid = await ctx.execute_activity(charge, 5)") + 1
    assert said[0] == "second (order v1): mismatch at step 1"
    assert said[1].startswith("  recorded   activity 'reserve' with arguments ")
    assert said[2].startswith("  asked for  activity 'charge' with arguments ")
    assert said[3] == f"  at         {place.folder}/swapped.py:{line}"
    assert said[4] == "first (order v1): mismatch at step 1"
    assert said[8:] == ["order v1: 2 checked, 0 fit, 2 do not"]
    assert place.say("check", "-w", "version_two", code=1).splitlines()[:2] == [
        "second (order v1): missing",
        "  no code for version 1: workflow 'order' has no version 1 here; known: 2",
    ]
    note = "the run is open, but with this code it completes"
    assert place.say("check", "-w", "ends", "--limit", "1", code=0).splitlines() == [
        f"note: second (order v1): {note}",
        "order v1: 1 checked, 1 fit (1 of them began with other code)",
        "stopped after 1 (--limit); there are more",
    ]
    assert place.say("check", "-w", "fits", "--workflow", "other", code=0) == "there was nothing to check\n"


@pytest.mark.usefixtures("stored")
def test_check_gives_programs_all_of_it(place: Place) -> None:
    data = json.loads(place.say("check", "-w", "swapped", "--json", code=1))
    assert (data["checked"], data["misfits"], data["complete"], data["notes"]) == (2, 2, True, [])
    assert data["workflows"] == [{"workflow": "order", "version": 1, "checked": 2, "fit": 0, "changed": 0}]
    assert [one["run_id"] for one in data["findings"]] == ["second", "first"]
    assert {"workflow", "version", "kind", "step", "recorded", "asked", "where", "problem"} < set(data["findings"][0])
    assert "the history records activity 'reserve'" in data["findings"][0]["problem"]


def test_check_reads_exported_histories_in_place_of_the_database(place: Place, stored: list[dict[str, Any]]) -> None:
    lines, one, many = (place.folder / name for name in ("open.jsonl", "one.json", "many.json"))
    lines.write_text("".join(json.dumps(data) + "\n" for data in stored) + "\n")
    one.write_text(json.dumps(stored[0], indent=2))
    many.write_text(json.dumps(stored, indent=2))
    assert "5 checked, 5 fit" in place.say("check", "-w", "fits", "open.jsonl", "one.json", "many.json", code=0)
    assert "5 checked, 0 fit" in place.say("check", "-w", "swapped", "open.jsonl", "one.json", "many.json", code=1)


def test_check_that_cannot_say_is_an_error_of_its_own(place: Place) -> None:
    (place.folder / "bad.jsonl").write_text('{"format": 1}\n')
    (place.folder / "torn.jsonl").write_text("[]\n{")
    for arguments, words in (
        (["check"], "there are no workflows: name a module with -w"),
        (["check", "-w", "empty"], "there are no workflows: name a module with -w"),
        (["check", "-w", "dangerous"], "uuid.uuid4() gives another value on each replay"),
        (["check", "-w", "fits", "gone.json"], "gone.json"),
        (["check", "-w", "fits", "bad.jsonl"], "bad.jsonl: the exported history is damaged"),
        (["check", "-w", "fits", "torn.jsonl"], "torn.jsonl:2: Expecting property name"),
        (["--db", "mysql://host/db", "check", "-w", "fits"], "which is not supported"),
        (["--db", "sqlite:////no/such/folder/runs.db", "check", "-w", "fits"], "no directory /no/such/folder"),
    ):
        assert words in " ".join(place.say(*arguments, code=2).replace("│", " ").split())


def test_check_opens_what_is_sealed_with_the_keys_of_the_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = generate_key()
    asyncio.run(place.open_runs(Codec(EncryptionCodec([key]))))
    assert "second (order v1): unreadable\n  a stored value is sealed" in place.say("check", "-w", "fits", code=1)
    place.say("export", "--open", "--output", "open.jsonl", code=0)
    monkeypatch.setenv("TINYWORKFLOW_ENCRYPTION_KEYS", key)
    assert "2 checked, 2 fit" in place.say("check", "-w", "fits", code=0)
    assert "2 checked, 2 fit" in place.say("check", "-w", "fits", "open.jsonl", code=0)
    monkeypatch.setenv("TINYWORKFLOW_ENCRYPTION_KEYS", "nonsense")
    assert "TINYWORKFLOW_ENCRYPTION_KEYS" in place.say("check", "-w", "fits", code=2)
    assert "TINYWORKFLOW_ENCRYPTION_KEYS" in place.say("check", "-w", "fits", "open.jsonl", code=2)


def test_a_long_report_says_how_much_is_left_off(monkeypatch: pytest.MonkeyPatch, stored: list[dict[str, Any]]) -> None:
    monkeypatch.setattr(checking, "MAX_LISTED", 1)
    report = checking.check_histories(Registry([]), Codec(), stored)
    assert "... and 1 more that do not fit" in list(histories._as_lines(report))


# --- export ----------------------------------------------------------------------------------------------


def test_a_run_or_all_that_are_open_are_exported(place: Place, stored: list[dict[str, Any]]) -> None:
    assert json.loads(place.say("export", "first", code=0)) == stored[0]
    assert place.say("export", "second", "--output", "second.json", code=0) == ""
    assert json.loads((place.folder / "second.json").read_text()) == stored[1]
    lines = place.say("export", "--open", code=0).splitlines()
    assert [json.loads(line) for line in lines] == [stored[1], stored[0]]
    assert place.say("export", "--open", "--workflow", "other", code=0) == ""
    assert json.loads(place.say("export", "first", "--json", code=0)) == stored[0]


def test_what_cannot_be_exported_is_said_and_the_rest_is_exported(
    place: Place, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = SqliteStore.load

    async def loaded(self: SqliteStore, run_id: str) -> Any:
        if run_id == "second":
            raise SerializationError("an event is damaged")
        return await load(self, run_id)

    monkeypatch.setattr(SqliteStore, "load", loaded)
    done = CliRunner().invoke(cli, ["--db", place.url, "export", "--open"])
    assert (done.exit_code, done.stderr) == (1, "tinyworkflow: run 'second': an event is damaged\n")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [stored[0]]


@pytest.mark.usefixtures("stored")
def test_a_run_that_ends_while_it_is_exported_is_left_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    load = SqliteStore.load

    async def loaded(self: SqliteStore, run_id: str) -> Any:
        state = await load(self, run_id)
        assert state is not None
        ended = replace(state, run=replace(state.run, status=Status.CANCELLED))
        return {"first": ended, "second": None}[run_id]

    monkeypatch.setattr(SqliteStore, "load", loaded)
    done = CliRunner().invoke(cli, ["--db", place.url, "export", "--open"])
    assert (done.exit_code, done.output) == (0, "")


def test_an_export_that_failed_leaves_no_file(place: Place) -> None:
    file = place.folder / "out.json"
    done = CliRunner().invoke(cli, ["--db", place.url, "export", "nobody", "--output", str(file)])
    assert (done.exit_code, done.stderr) == (3, "tinyworkflow: there is no run 'nobody'\n")
    assert not file.exists()


# --- lint ------------------------------------------------------------------------------------------------


def test_lint_names_each_line_that_could_not_be_replayed_and_what_to_write(place: Place) -> None:
    lines = MODULES["dangerous"].splitlines()
    file = place.folder / "dangerous.py"
    for spelled in (["-w", "dangerous", "lint"], ["lint", "-w", "dangerous"]):
        assert place.say(*spelled, code=1).splitlines() == [
            f"{file}:{lines.index(line) + 1}: {words} (workflow 'order')"
            for line, words in (
                ("    a = uuid.uuid4()", "uuid.uuid4() gives another value on each replay; write ctx.uuid4() instead"),
                (
                    "    b = datetime.now()",
                    "datetime.datetime.now() gives another value on each replay; write ctx.now() instead",
                ),
                (
                    "    c = random.randint(1, 6)",
                    "random.randint() gives another value on each replay; write ctx.random().randint() instead",
                ),
            )
        ]
    data = json.loads(place.say("lint", "-w", "dangerous", "--json", code=1))
    assert [(one["workflow"], one["version"], one["instead"]) for one in data] == [
        ("order", 1, "ctx.uuid4()"),
        ("order", 1, "ctx.now()"),
        ("order", 1, "ctx.random().randint()"),
    ]
    assert place.say("lint", "-w", "fits", code=0) == ""
    assert place.say("lint", "-w", "fits", "--json", code=0) == "[]\n"
    assert "there are no workflows" in place.say("lint", "-w", "empty", code=2)


def test_only_lint_lets_a_refused_workflow_in(place: Place) -> None:
    for command in ("workflows", "check"):
        said = place.say("-w", "dangerous", command, code=2)
        assert "DeterminismError" in said
