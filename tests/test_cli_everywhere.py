"""The command line says the same to everybody: on SQLite, on Firestore and to a deployment over HTTP, every command
that talks to runs prints the same JSON, the same errors and the same exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import pytest
import typer
from typer.testing import CliRunner

import tinyworkflow_core
from tests.functions.server import server
from tinyworkflow_core.cli import cli
from tinyworkflow_core.clock import fresh_id

ROOT = Path(tinyworkflow_core.__file__).parents[1]
LOCAL = {"keys new", "keys check", "lint", "worker", "dev", "server", "init"}
"""Commands that talk to no runs, or work on a store themselves."""
WORLD = """
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, workflow

@activity(retry_policy=RetryPolicy(max_retries=0))
async def world_pack(item: str) -> dict:
    if item == "stone":
        raise ValueError("too heavy")
    return {"packed": item}

@workflow(name="world-pack")
async def packs(ctx: WorkflowContext, item: str = "thing"):
    return await ctx.execute_activity(world_pack, item)

@workflow(name="world-talk")
async def talks(ctx: WorkflowContext) -> list:
    words = []
    ctx.on_query("words", lambda glue: glue.join(words))
    ctx.on_update("add", lambda word: words.append(word) or len(words))
    words.append(await ctx.wait_for_signal("word"))
    return words

@workflow(name="world-ask")
async def asks(ctx: WorkflowContext) -> str:
    answer = await ctx.wait_for_approval("boss", title="Go?", details={"cost": 3})
    return f"{answer.approved} by {answer.by}: {answer.comment} {answer.data}"
"""
MAIN = """
import sys
sys.path.insert(0, {folder!r})
import functions_framework.aio
import cli_world
from tinyworkflow_core import App, create_app
front = create_app(App.from_env(), emulate=True)

@functions_framework.aio.http
async def app(request):
    return front
"""
IMPATIENT = """
import sys
from datetime import timedelta
from tinyworkflow_core.cli import main
from tinyworkflow_core.stores import firestore
for module in list(sys.modules.values()):
    if hasattr(module, "GRACE"):
        module.GRACE = timedelta(0)
main()
"""
"""A worker that looks at once for what others have sent: on Firestore nobody tells it."""
KEY = "the-key-of-a-deployment"


class Terminal:
    """The command line at one place. It notes what everything that it is asked has printed."""

    def __init__(self, *options: str, **environ: str) -> None:
        self._options = [*options, "-w", "cli_world"]
        self._environ: dict[str, str | None] = {"TINYWORKFLOW_URL": None, "TINYWORKFLOW_DATABASE_URL": None, **environ}
        self.noted: list[tuple[str, int, Any, str]] = []
        self.asked: set[str] = set()
        self._known: dict[str, str] = {}

    def __call__(self, *arguments: str, code: int = 0, note: bool = True) -> Any:
        given = [*self._options, *arguments]
        done = CliRunner().invoke(cli, given, prog_name="tinyworkflow", env=self._environ)
        assert isinstance(done.exception, SystemExit | None), done.exc_info
        assert done.exit_code == code, f"{arguments}: {done.output}"
        self.asked.add(" ".join(arguments[: 2 if arguments[0] == "schedule" else 1]))
        if note:
            printed: Any = self._plain(done.stdout)
            if "--json" in arguments and printed and "--follow" not in arguments:
                printed = json.loads(printed)  # a store may keep the fields of an object in another order
            self.noted.append((self._plain(" ".join(arguments)), done.exit_code, printed, self._plain(done.stderr)))
        return json.loads(done.stdout) if "--json" in arguments and not code and "--follow" not in arguments else None

    def name(self, shown: str, as_: str) -> str:
        """From now on an id that is made by chance is noted as that."""
        self._known[shown] = as_
        return shown

    def until(self, run_id: str, status: str) -> None:
        """Whoever works on the run is another process."""
        deadline = time.monotonic() + 20
        while (run := self("status", run_id, "--json", note=False))["status"] != status:
            assert time.monotonic() < deadline, run
            time.sleep(0.05)

    def _plain(self, text: str) -> str:
        for shown, known in self._known.items():
            text = text.replace(shown, known)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(?:\+00:00|Z)", "MOMENT", text)
        return re.sub(r',\s*"way": "api"', "", text)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module, in a process that has declared nothing else."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "cli_world.py").write_text(WORLD)
    (folder / "main.py").write_text(MAIN.format(folder=str(folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyworkflow_core.registry._declared", WeakValueDictionary())
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(folder)
        yield folder
    sys.modules.pop("cli_world", None)


@contextmanager
def worker(folder: Path, url: str, **environ: str) -> Iterator[None]:
    command = [sys.executable, "-c", IMPATIENT, "--db", url, "-w", "cli_world", "worker"]
    inherited = os.environ | {"PYTHONPATH": str(ROOT), "TINYWORKFLOW_TICK": "0.1s"} | environ
    process = subprocess.Popen(command, cwd=folder, env=inherited, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "world-talk" in process.stderr.readline()
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def sqlite(world: Path) -> Iterator[Terminal]:
    url = f"sqlite:///{world}/runs.db"
    with worker(world, url):
        yield Terminal("--db", url)


@pytest.fixture(scope="module")
def firestore(world: Path, firestore_emulator: str) -> Iterator[Terminal]:
    url = f"firestore://test-{fresh_id()}?collection=tinyworkflow"
    with worker(world, url, FIRESTORE_EMULATOR_HOST=firestore_emulator):
        yield Terminal("--db", url, FIRESTORE_EMULATOR_HOST=firestore_emulator)


@pytest.fixture(scope="module")
def deployment(world: Path) -> Iterator[Terminal]:
    environ = {
        "TINYWORKFLOW_API_KEYS": KEY,
        "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{world}/deployed.db",
        "TINYWORKFLOW_TICK": "0.1s",
        "PYTHONPATH": str(ROOT),
    }
    with ExitStack() as stack:
        front = stack.enter_context(server("app", environ, source=str(world / "main.py")))
        front.wait_until_up()
        yield Terminal("--url", front.url, TINYWORKFLOW_API_KEY=KEY)


@pytest.fixture(scope="module")
def expected(sqlite: Terminal) -> Terminal:
    """What the walk has noted on SQLite."""
    walk(sqlite)
    return sqlite


@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", ["sqlite", "firestore", "deployment"])
def test_every_command_says_the_same_wherever_the_runs_are(
    place: str, expected: Terminal, request: pytest.FixtureRequest
) -> None:
    terminal: Terminal = request.getfixturevalue(place)
    if terminal is not expected:
        walk(terminal)
    for here, there in zip(terminal.noted, expected.noted, strict=True):
        assert here == there
    group: Any = typer.main.get_command(cli)
    commands = {
        " ".join(filter(None, (name, below)))
        for name, one in group.commands.items()
        for below in (getattr(one, "commands", None) or [""])
    }
    assert terminal.asked == commands - LOCAL


def walk(ask: Terminal) -> None:
    """Every command, well and badly."""
    for part in (code_here, starting, talking, steering, deciding, scheduling, histories, forgetting):
        part(ask)


def code_here(ask: Terminal) -> None:
    assert [one["name"] for one in ask("workflows", "--json")] == ["world-ask", "world-pack", "world-talk"]
    assert [one["name"] for one in ask("activities", "--json")] == ["world_pack"]
    ask("workflows")


def starting(ask: Terminal) -> None:
    done = ask("start", "world-pack", "-i", '"cup"', "--run-id", "cup", "--wait", "--json")
    assert done == {"run_id": "cup", "result": {"packed": "cup"}}
    ask("start", "world-pack", "-i", '"stone"', "--run-id", "stone", "--wait", "--json", code=4)
    options = ["--workflow-id", "w1", "--attribute", "shop=bern", "--attribute", "vip=true", "--delay", "2h"]
    ask("start", "world-pack", "--run-id", "later", *options, "--json")
    ask("start", "world-pack", "--run-id", "later", code=1)
    ask("start", "world-pak", code=3)
    ask("start", "world-pack", "-i", "5", code=1)
    again = [ask("start", "world-pack", "--idempotency-key", "k", "--wait", "--json", note=False) for _ in range(2)]
    assert again[0] == again[1]
    run = ask("status", "cup", "--json")
    assert (run["workflow"], run["status"], run["output"]) == ("world-pack", "completed", {"packed": "cup"})
    assert ask("status", "later", "--json", note=False)["attributes"] == {"shop": "bern", "vip": True}
    ask("status", "nobody", code=3)
    ask("result", "cup", "--json")
    ask("result", "stone", code=4)
    ask("result", "later", "--timeout", "0.1", code=5)
    assert [one["run_id"] for one in ask("list", "--workflow-id", "w1", "--json", note=False)] == ["later"]
    assert [one["run_id"] for one in ask("list", "-s", "failed", "-w", "world-pack", "--json")] == ["stone"]
    assert ask("list", "--started-after", "2100-01-01", "--json") == []
    assert len(ask("list", "--limit", "2", "--json", note=False)) == 2
    assert [one["type"] for one in ask("events", "cup", "--json")] == [
        "RunStarted", "ActivityCompleted", "RunCompleted",
    ]  # fmt: skip
    assert len(ask("events", "cup", "--limit", "1", "--json")) == 1
    ask("events", "cup", "--after", "1", "--follow", "--json")


def talking(ask: Terminal) -> None:
    ask("start", "world-talk", "--run-id", "talk", "--json")
    assert ask("update", "talk", "add", "-i", '"one"', "--update-id", "u1", "--json") == 1
    assert ask("update", "talk", "add", "-i", '"one"', "--update-id", "u1", "--json") == 1
    assert ask("query", "talk", "words", '"-"', "--json") == "one"
    ask("query", "talk", "wrods", code=1)
    ask("query", "talk", "words", "5", code=1)
    ask("signal", "talk", "word", "--payload", '"end"', "--json")
    assert ask("result", "talk", "--json") == ["one", "end"]
    ask("signal", "talk", "word", code=1)


def steering(ask: Terminal) -> None:
    ask("start", "world-talk", "--run-id", "steer", "--json")
    ask.until("steer", "waiting")
    ask("suspend", "steer", "--reason", "lunch", "--json")
    ask.until("steer", "suspended")
    ask("resume", "steer", "--json")
    ask.until("steer", "waiting")
    ask("terminate", "steer", "--reason", "enough", "--json")
    ask.until("steer", "terminated")
    ask("result", "steer", code=4)
    ask("retry", "steer", "--json")
    ask.until("steer", "waiting")
    ask("cancel", "steer", "--reason", "done", "--json")
    ask.until("steer", "cancelled")
    ask("cancel", "steer", code=1)
    ask("retry", "steer", code=1)
    forked = ask.name(ask("fork", "cup", "--at-event", "1", "-i", '"pot"', "--json", note=False)["run_id"], "FORK")
    assert ask("result", forked, "--json") == {"packed": "pot"}
    ask("fork", "cup", "--at-event", "9", code=1)


def deciding(ask: Terminal) -> None:
    for run_id in ("ask1", "ask2"):
        ask("start", "world-ask", "--run-id", run_id, "--json")
        ask.until(run_id, "paused")
    shown = ask("approvals", "--json")
    assert [(one["run_id"], one["key"], one["details"]) for one in shown] == [
        ("ask2", "boss", {"cost": 3}), ("ask1", "boss", {"cost": 3}),
    ]  # fmt: skip
    assert len(ask("approvals", "--approver", "ada", "--json")) == 2
    ask("approve", "ask1", "--by", "ada", "--comment", "fine", "--data", "[1]", "--json")
    assert ask("result", "ask1", "--json") == "True by ada: fine [1]"
    ask("approve", "ask1", "--by", "ada", "--json")
    ask("reject", "ask1", "boss", code=1)
    ask("reject", "ask2", "boss", "--by", "ada", "--json")
    assert ask("result", "ask2", "--json") == "False by ada: None None"
    ask("approve", "ask2", "other", code=1)
    ask("approve", "cup", code=1)
    ask("approve", "later", code=3)


def scheduling(ask: Terminal) -> None:
    add = ["schedule", "add", "world-pack"]
    ask(*add, "0 9 * * *", "--id", "daily", "-i", '"pen"', "--timezone", "Europe/Zurich", "--catch-up", "all", "--json")
    ask(*add, "--every", "2h", "--id", "often", "--jitter", "5s", "--json")
    ask(*add, "--at", "2100-01-01", "--id", "once", "--json")
    ask(*add, "61 * * * *", code=1)
    ask("schedule", "change", "daily", "--overlap", "queue", "-i", '"cap"', "--json")
    ask("schedule", "pause", "daily", "--note", "holidays", "--json")
    assert [one["paused"] for one in ask("schedule", "list", "--json")] == [True, False, False]
    ask("schedule", "resume", "daily", "--json")
    made = ask("schedule", "trigger", "daily", "--json", note=False)["run_id"]
    assert ask("result", ask.name(made, "TRIGGERED"), "--json") == {"packed": "cap"}
    window = ["daily", "2026-01-01", "2026-01-04"]
    assert len(ask("schedule", "backfill", *window, "--json")["times"]) == 3
    begun = ask("schedule", "backfill", *window, "--go", "--wait", "--json", note=False)["backfill_id"]
    [kept] = ask("schedule", "backfills", ask.name("daily", "daily"), "--json", note=False)
    assert (kept["id"], kept["state"], kept["started"], kept["failed"]) == (begun, "done", 3, 0)
    ask("schedule", "cancel-backfill", "daily", ask.name(begun, "BACKFILL"), "--json")
    ask("schedule", "cancel-backfill", "daily", "none", code=3)
    for schedule_id in ("daily", "often", "once"):
        ask("schedule", "delete", schedule_id, "--json")
    ask("schedule", "pause", "daily", code=3)


def histories(ask: Terminal) -> None:
    exported = ask("export", "cup", "--json", note=False)
    assert [one["kind"] for one in exported["history"]] == ["RunStarted", "ActivityCompleted", "RunCompleted"]
    ask("export", "nobody", code=3)
    checked = ask("check", "--json")
    assert (checked["checked"], checked["misfits"], checked["complete"]) == (1, 0, True)
    ask("check", "--workflow", "world-talk")
    ask("terminate", "later", "--json")
    ask.until("later", "terminated")


def forgetting(ask: Terminal) -> None:
    assert ask("cleanup", "--json") == {"forgotten": 0}
    count = len(ask("list", "--limit", "100", "--json", note=False))
    assert ask("cleanup", "--days", "0", "--json") == {"forgotten": count}
    assert ask("list", "--json") == []
