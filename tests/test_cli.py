"""The command line: every command for people and for programs, a real worker process, and errors that say what is
wrong on stderr."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import tinyworkflow_core
from tinyworkflow_core.cli import cli
from tinyworkflow_core.encryption import generate_key

ROOT = Path(tinyworkflow_core.__file__).parents[1]
SHOP = '''
import asyncio
from decimal import Decimal
from pydantic import BaseModel
from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, workflow

class Parcel(BaseModel):
    item: str
    price: Decimal

@activity
async def pack(item: str) -> Parcel:
    if item == "slow":
        await asyncio.sleep(60)
    return Parcel(item=item, price=Decimal("1.50"))

@activity(retry_policy=RetryPolicy(max_retries=0))
def break_it() -> None:
    raise RuntimeError("it broke")

@workflow(name="cli-pack")
async def packs(ctx: WorkflowContext, item: str = "thing"):
    """Packs."""
    return await ctx.execute_activity(pack, item)

@workflow(name="cli-text")
async def text(ctx: WorkflowContext) -> str:
    return "Grüße"

@workflow(name="cli-odd")
async def odd(ctx: WorkflowContext) -> dict:
    return {(1, 2): float("inf")}

@workflow(name="cli-listen")
async def listens(ctx: WorkflowContext):
    return await ctx.wait_for_signal("word")

@workflow(name="cli-ask")
async def asks(ctx: WorkflowContext) -> str:
    answer = await ctx.wait_for_approval("boss", title="Go?", details={"cost": 3}, approvers=["ada"])
    return f"{answer.approved} by {answer.by}: {answer.comment}"

@workflow(name="cli-ask-two")
async def asks_two(ctx: WorkflowContext) -> list:
    return await asyncio.gather(ctx.wait_for_approval("boss"), ctx.wait_for_approval("law"))

@workflow(name="cli-break")
async def breaks(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(break_it)

@workflow(name="cli-talk")
async def talks(ctx: WorkflowContext) -> list:
    words = []

    def add(word: str) -> Parcel:
        words.append(word)
        return Parcel(item=word, price=Decimal(len(words)))

    def check(word: str) -> None:
        if word == "bad":
            raise ValueError("not that word")

    def nothing_there() -> None:
        raise LookupError("nothing there")

    ctx.on_query("words", lambda glue=",", times=1: glue.join(words * times))
    ctx.on_query("nothing", nothing_there)
    ctx.on_update("add", add, validator=check)
    ctx.on_update("nothing", lambda payload: nothing_there())
    await ctx.wait_until(lambda: "end" in words)
    return words
'''
STAYING = ("worker", "server", "dev")
"""Commands that give no answer."""
NAMES = ["cli-ask", "cli-ask-two", "cli-break", "cli-listen", "cli-odd", "cli-pack", "cli-talk", "cli-text"]
COMMANDS = [
    *("activities", "approvals", "approve", "cancel", "check", "cleanup", "events", "export", "fork", "keys", "lint"),
    *("list", "query", "reject", "result", "resume", "retry", "schedule", "signal", "start", "status"),
    *("suspend", "terminate", "update", "worker", "workflows"),
]


class Shop:
    """A folder with a module of workflows and a database, and the command line as one would use it there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/runs.db"
        (folder / "cli_shop.py").write_text(SHOP)

    def invoke(self, *arguments: str, module: str | None = "cli_shop") -> Result:
        given = ["--db", self.url, *(["-w", module] if module else []), *arguments]
        return CliRunner().invoke(cli, given, prog_name="tinyworkflow")

    def say(self, *arguments: str) -> str:
        """What the command prints, without its last line's end; it must succeed and complain of nothing."""
        done = self.invoke(*arguments)
        assert (done.exit_code, done.stderr) == (0, ""), done.output
        return done.stdout.removesuffix("\n")

    def data(self, *arguments: str) -> Any:
        """What the command prints with --json."""
        return json.loads(self.say(*arguments, "--json"))

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tinyworkflow_core.cli", "--db", self.url, *arguments]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "TINYWORKFLOW_TICK": "0.2s"}
        return subprocess.Popen(
            command, cwd=self.folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @contextmanager
    def worker(self, *spelled: str) -> Iterator[subprocess.Popen[str]]:
        """A real worker process, which has to end with exit code 0 by SIGTERM."""
        process = self.process(*(spelled or ("-w", "cli_shop", "worker")))
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"worker {process.pid} on {self.url}: {', '.join(NAMES)}\n"
            yield process
            process.terminate()
            _, errors = process.communicate(timeout=10)
            assert (process.returncode, errors) == (0, "")
        finally:
            process.kill()
            process.communicate()

    def until(self, run_id: str, status: str) -> None:
        deadline = time.monotonic() + 10
        while self.data("status", run_id)["status"] != status:
            assert time.monotonic() < deadline, self.say("status", run_id)
            time.sleep(0.02)  # the worker is another process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("shop")
    sys.modules.pop("cli_shop", None)


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Nobody works there."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command puts the current folder there
    return Shop(folder)


@pytest.fixture(scope="module")
def staff(folder: Path) -> Iterator[None]:
    with Shop(folder).worker():
        yield


@pytest.fixture
def open_shop(shop: Shop, staff: None) -> Shop:
    """A real worker is at work there."""
    return shop


# --- every command ---------------------------------------------------------------------------------------


def test_start_prints_the_id_and_result_what_came_of_it(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-pack", "--input", '"book"')
    assert re.fullmatch(r"cli-pack_[0-9a-f]{12}", run_id)
    assert json.loads(open_shop.say("result", run_id, "--timeout", "10")) == {"item": "book", "price": "1.50"}
    assert open_shop.data("result", run_id) == {"item": "book", "price": "1.50"}
    assert open_shop.data("start", "cli-pack", "--run-id", "mine") == {"run_id": "mine"}
    assert open_shop.data("result", "mine")["item"] == "thing"


def test_a_text_is_printed_as_it_is_and_with_json_as_json(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-text")
    assert open_shop.say("result", run_id) == "Grüße"
    assert open_shop.say("result", run_id, "--json") == '"Grüße"'


def test_a_result_that_is_no_json_is_shown_as_near_to_it_as_can_be(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-odd")
    assert open_shop.data("result", run_id) == {"[1, 2]": "inf"}
    assert open_shop.data("status", run_id)["output"] == {"[1, 2]": "inf"}


def test_status_shows_one_run(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-pack", "--input", '"cup"')
    open_shop.until(run_id, "completed")
    data = open_shop.data("status", run_id)
    assert data["run_id"] == run_id
    assert (data["workflow"], data["version"], data["input"]) == ("cli-pack", 1, "cup")
    assert data["output"] == {"item": "cup", "price": "1.50"}
    lines = open_shop.say("status", run_id).splitlines()
    assert f"{'status':16} completed" in lines
    assert f"{'input':16} cup" in lines
    assert f"{'output':16} " + '{"item": "cup", "price": "1.50"}' in lines
    assert not any(line.startswith(("error", "problem", "open_approvals", "attributes")) for line in lines)
    assert re.fullmatch(r"pack +│ *█+ *│ done  \d+\.\d{3} s", lines[-1])
    assert open_shop.say("-q", "status", run_id) == "completed"


def test_list_shows_runs_newest_first_and_narrows(open_shop: Shop) -> None:
    first, second = (open_shop.say("start", "cli-listen") for _ in range(2))
    open_shop.until(second, "waiting")
    lines = open_shop.say("list", "--workflow", "cli-listen").splitlines()
    assert [line.split()[-1] for line in lines] == [second, first]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  waiting    cli-listen +\S+", lines[0])
    assert [run["run_id"] for run in open_shop.data("list", "--workflow", "cli-listen")] == [second, first]
    assert [run["run_id"] for run in open_shop.data("list", "--limit", "1")] == [second]
    assert open_shop.data("list", "--status", "parked") == []
    assert open_shop.say("list", "--status", "parked") == ""
    for run_id in (first, second):
        assert open_shop.say("cancel", run_id, "--reason", "enough") == ""


def test_events_show_what_happened(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-pack")
    open_shop.until(run_id, "completed")
    types = ["RunStarted", "ActivityCompleted", "RunCompleted"]
    assert [event["type"] for event in open_shop.data("events", run_id)] == types
    lines = open_shop.say("events", run_id).splitlines()
    assert [line.split()[2] for line in lines] == types
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert '"result": {"item": "thing", "price": "1.50"}' in lines[1]


def test_signal_is_heard(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-listen")
    assert open_shop.say("signal", run_id, "other", "--payload", "[1]") == ""
    assert open_shop.data("signal", run_id, "word", "--payload", '{"n": 1}') == {"run_id": run_id, "signal": "word"}
    assert open_shop.data("result", run_id) == {"n": 1}


@pytest.mark.parametrize("command", ["approve", "reject", "approve --approve", "approve --reject"])
def test_approvals_are_shown_and_decided(open_shop: Shop, command: str) -> None:
    decided = "reject" not in command
    run_id = open_shop.say("start", "cli-ask")
    open_shop.until(run_id, "paused")
    assert open_shop.say("approvals") == f"{run_id}  boss  Go?"
    (shown,) = open_shop.data("approvals")
    assert (shown["run_id"], shown["key"], shown["details"], shown["approvers"]) == (
        run_id, "boss", {"cost": 3}, ["ada"],
    )  # fmt: skip
    assert open_shop.data("status", run_id)["open_approvals"] == [shown]
    assert open_shop.say(*command.split(), run_id, "--by", "ada", "--comment", "so be it") == ""
    assert open_shop.say("result", run_id) == f"{decided} by ada: so be it"
    assert open_shop.say("approvals") == ""
    again = open_shop.data(*command.split(), run_id, "boss")
    assert again == {"run_id": run_id, "key": "boss", "approved": decided}


def test_a_query_is_answered_and_an_update_carried_out(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-talk")
    assert open_shop.say("query", run_id, "words") == ""
    assert open_shop.data("update", run_id, "add", "--input", '"one"') == {"item": "one", "price": "1"}
    assert json.loads(open_shop.say("update", run_id, "add", "-i", '"two"', "--update-id", "u2"))["price"] == "2"
    assert open_shop.data("update", run_id, "add", "-i", '"two"', "--update-id", "u2")["price"] == "2"
    assert open_shop.say("query", run_id, "words") == "one,two"
    assert open_shop.say("query", run_id, "words", '"-"', "2", "--json") == '"one-two-one-two"'
    refused(open_shop.invoke("query", run_id, "wrods"), "'wrods'")
    refused(open_shop.invoke("query", run_id, "nothing"), "LookupError: nothing there")
    refused(open_shop.invoke("update", run_id, "nothing"), "LookupError: nothing there")
    refused(open_shop.invoke("update", run_id, "add", "--input", '"bad"'), "not that word")
    assert open_shop.data("update", run_id, "add", "--input", '"end"')["price"] == "3"
    assert open_shop.data("result", run_id) == ["one", "two", "end"]
    assert open_shop.say("query", run_id, "words") == "one,two,end"


def test_an_update_that_nobody_carries_out_is_given_up_in_time(shop: Shop, tmp_path: Path) -> None:
    shop = Shop(tmp_path)  # where nobody works
    run_id = shop.say("start", "cli-talk")
    began = time.monotonic()
    done = shop.invoke("update", run_id, "add", "--input", '"one"', "--timeout", "0.1")
    assert time.monotonic() - began < 4
    refused(done, f"run '{run_id}' has not answered within 0.1 s")


def test_a_run_is_put_aside_and_goes_on(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-listen")
    open_shop.until(run_id, "waiting")
    assert open_shop.say("suspend", run_id, "--reason", "lunch") == ""
    open_shop.until(run_id, "suspended")
    open_shop.say("signal", run_id, "word", "--payload", "7")
    assert open_shop.data("resume", run_id) == {"run_id": run_id}
    assert open_shop.say("result", run_id, "--timeout", "10") == "7"
    assert [event["reason"] for event in open_shop.data("events", run_id) if event["type"] == "RunSuspended"] == [
        "lunch"
    ]


def test_a_run_is_ended_by_force_and_retried(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-listen")
    open_shop.until(run_id, "waiting")
    assert open_shop.say("terminate", run_id, "--reason", "wrong one") == ""
    open_shop.until(run_id, "terminated")
    assert open_shop.data("events", run_id)[-1]["reason"] == "wrong one"
    assert open_shop.data("retry", run_id) == {"run_id": run_id}
    open_shop.say("signal", run_id, "word", "--payload", "8")
    assert open_shop.say("result", run_id, "--timeout", "10") == "8"
    refused(open_shop.invoke("retry", run_id), "only one that failed can be retried")


def test_a_run_is_forked_off_another_at_one_of_its_events(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-pack", "--input", '"book"')
    open_shop.until(run_id, "completed")
    again = open_shop.say("fork", run_id, "--at-event", "2")
    assert open_shop.data("result", again)["item"] == "book"
    other = open_shop.data("fork", run_id, "--at-event", "1", "--input", '"cup"')["run_id"]
    assert open_shop.data("result", other)["item"] == "cup"
    assert open_shop.data("events", again)[2]["from_run_id"] == run_id
    refused(open_shop.invoke("fork", run_id, "--at-event", "9"), "has the events 1 to 3, not 9")


def test_what_ended_long_ago_is_forgotten(shop: Shop, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    run_id = shop.say("-q", "start", "cli-text", "--wait").splitlines()[0]
    assert shop.say("cleanup", "--days", "1") == "0"
    assert shop.data("status", run_id)["status"] == "completed"
    assert shop.data("cleanup", "--days", "0") == {"forgotten": 1}
    refused(shop.invoke("status", run_id), "there is no run")
    assert shop.say("cleanup") == "0"


def test_a_run_that_is_waited_for_needs_no_worker(shop: Shop, tmp_path: Path) -> None:
    shop = Shop(tmp_path)  # where nobody works
    done = shop.invoke("start", "cli-pack", "-i", '"cup"', "--wait")
    run_id, returned = done.stdout.split("\n", 1)
    assert json.loads(returned) == {"item": "cup", "price": "1.50"}
    assert [line.split(maxsplit=1)[1] for line in done.stderr.splitlines()] == [
        "RunStarted cli-pack", "ActivityCompleted pack", "RunCompleted",
    ]  # fmt: skip
    assert shop.data("result", run_id)["item"] == "cup"
    assert shop.data("start", "cli-text", "--wait", "--run-id", "mine") == {"run_id": "mine", "result": "Grüße"}
    refused(shop.invoke("start", "cli-text", "--wait", "--run-id", "mine"), "run_id 'mine' is taken")
    failed = shop.invoke("start", "cli-break", "--wait", "--json")
    refused(failed, "failed: RuntimeError: it broke")


def test_the_short_options_of_the_0_1_library_are_understood(shop: Shop, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    first, second = shop.say("-q", "start", "cli-text", "--wait").splitlines()[0], shop.say("start", "cli-listen")
    assert [run["run_id"] for run in shop.data("list", "-s", "completed")] == [first]
    assert [run["run_id"] for run in shop.data("list", "-w", "cli-listen")] == [second]
    assert [run["run_id"] for run in shop.data("list", "-l", "1")] == [second]
    assert [event["type"] for event in shop.data("events", first, "-l", "1")] == ["RunCompleted"]
    assert [event["event_id"] for event in shop.data("events", first, "--limit", "50")] == [1, 2]


def test_what_is_sealed_is_read_with_the_keys_of_the_environment(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path)
    monkeypatch.setenv("TINYWORKFLOW_ENCRYPTION_KEYS", generate_key())
    run_id = shop.say("start", "cli-ask")
    with shop.worker():
        shop.until(run_id, "paused")
    [shown] = shop.data("approvals")
    assert (shown["title"], shown["details"]) == ("Go?", {"cost": 3})
    monkeypatch.delenv("TINYWORKFLOW_ENCRYPTION_KEYS")
    [shown] = shop.data("approvals")
    assert "sealed with key" in str(shown["title"])
    assert "cost" not in str(shown)
    monkeypatch.setenv("TINYWORKFLOW_ENCRYPTION_KEYS", "nonsense")
    refused(shop.invoke("approvals"), "TINYWORKFLOW_ENCRYPTION_KEYS")


def test_cancel_ends_a_run(open_shop: Shop) -> None:
    run_id = open_shop.say("start", "cli-listen")
    assert open_shop.data("cancel", run_id, "--reason", "enough") == {"run_id": run_id}
    open_shop.until(run_id, "cancelled")
    assert open_shop.data("events", run_id)[-1]["reason"] == "enough"


def test_workflows_lists_what_was_brought_in(shop: Shop) -> None:
    # In a process of its own: here others have declared theirs.
    plain, data = (shop.process("-w", "cli_shop", "workflows", *more) for more in ([], ["--json"]))
    assert plain.communicate(timeout=20) == ("\n".join(NAMES) + "\n", "")
    found = json.loads(data.communicate(timeout=20)[0])
    assert [one["name"] for one in found] == NAMES
    assert found[NAMES.index("cli-pack")]["versions"] == [{"version": 1, "input_schema": {"type": "string"}}]
    assert [plain.returncode, data.returncode] == [0, 0]


def test_activities_lists_what_was_brought_in(shop: Shop) -> None:
    plain, data = (shop.process("-w", "cli_shop", "activities", *more) for more in ([], ["--json"]))
    assert plain.communicate(timeout=20) == ("break_it\npack\n", "")
    assert json.loads(data.communicate(timeout=20)[0]) == [
        {"name": name, "run_on": "here", "at_most_once": False} for name in ("break_it", "pack")
    ]


def test_the_database_is_the_environments_unless_given(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWORKFLOW_DATABASE_URL", f"sqlite:///{shop.folder}/other.db")
    assert json.loads(CliRunner().invoke(cli, ["list", "--json"]).stdout) == []
    assert (shop.folder / "other.db").exists()


@pytest.mark.parametrize(
    ("stop", "spelled"),
    [
        (signal.SIGTERM, ("worker", "-w", "cli_shop")),
        (signal.SIGINT, ("worker", "--import-workflows", "cli_shop")),
    ],
)
def test_a_worker_that_is_told_to_stop_lets_go_and_ends_well(
    shop: Shop, stop: signal.Signals, spelled: tuple[str, ...], tmp_path: Path
) -> None:
    shop = Shop(tmp_path)  # where it is alone
    with shop.worker(*spelled) as process:
        run_id = shop.say("start", "cli-pack", "--input", '"slow"')
        shop.until(run_id, "running")
        process.send_signal(stop)
        began = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
    assert shop.data("status", run_id)["status"] == "pending"
    assert [event["type"] for event in shop.data("events", run_id)] == ["RunStarted"]


# --- help ------------------------------------------------------------------------------------------------


def test_every_command_explains_itself_and_all_but_the_worker_speak_json() -> None:
    group: Any = typer.main.get_command(cli)
    assert set(COMMANDS) <= set(group.commands)
    groups = ("keys", "schedule")
    below = {f"{of} {name}": one for of in groups for name, one in group.commands[of].commands.items()}
    for name, command in (group.commands | below).items():
        done = CliRunner().invoke(cli, [*name.split(), "--help"])
        assert done.exit_code == 0
        assert command.help is not None
        words = re.sub(r"\W+", " ", done.stdout)
        assert re.sub(r"\W+", " ", command.help.split("\n")[0]).strip() in words
        assert name in (*STAYING, *groups) or " json " in words
        assert all(getattr(one, "help", None) for one in command.params), f"{name} has an option without help"


def test_without_a_command_it_shows_its_help() -> None:
    done = CliRunner().invoke(cli, [])
    assert "Durable workflows in plain Python" in done.output
    assert all(name in done.output for name in COMMANDS)


# --- errors ----------------------------------------------------------------------------------------------


def refused(done: Result, *words: str, code: int | None = None) -> None:
    """The command failed, with that exit code, said so on stderr and printed nothing else."""
    assert isinstance(done.exception, SystemExit), done.exc_info
    assert done.exit_code in ((1, 2, 3, 4, 5) if code is None else (code,))
    assert done.stdout == ""
    said = re.sub(r"[\s│╭╮╰╯─]+", " ", done.stderr)
    for word in words:
        assert word in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "nobody"],
        ["events", "nobody"],
        ["result", "nobody"],
        ["signal", "nobody", "word"],
        ["approve", "nobody"],
        ["reject", "nobody", "boss"],
        ["cancel", "nobody"],
        ["terminate", "nobody"],
        ["suspend", "nobody"],
        ["resume", "nobody"],
        ["retry", "nobody"],
        ["fork", "nobody", "--at-event", "1"],
        ["query", "nobody", "words"],
        ["update", "nobody", "add"],
        ["export", "nobody"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_run_that_there_is_not_is_an_error(shop: Shop, arguments: list[str]) -> None:
    refused(shop.invoke(*arguments), "tinyworkflow: there is no run 'nobody'", code=3)
    refused(shop.invoke(*arguments, "--json"), "there is no run 'nobody'", code=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["start", "cli-pak"], "no workflow 'cli-pak' is registered; did you mean 'cli-pack'?"),
        (["start", "cli-pack", "--input", "5"], "input of workflow 'cli-pack': input: Input should be a valid string"),
        (["start", "cli-pack", "--input", "{"], "--input is not JSON"),
        (["start", "cli-pack", "--run-id", "a/b"], "run_id: 'a/b' does not fit"),
        (["signal", "any", "word", "--payload", "nope"], "--payload is not JSON"),
        (["list", "--status", "odd"], "'odd' is not a valid Status"),
        (["list", "--limit", "0"], "Invalid value for '--limit'"),
        (["result", "any", "--timeout", "soon"], "Invalid value for '--timeout'"),
        (["query", "any", "words", "nope"], "argument 'nope' is not JSON"),
        (["update", "any", "add", "--input", "nope"], "--input is not JSON"),
        (["fork", "any"], "Missing option '--at-event'"),
        (["cleanup", "--days", "-1"], "Invalid value for '--days'"),
        (["export"], "name one run, or ask for all that are open with --open"),
        (["export", "any", "--open"], "name one run, or ask for all that are open with --open"),
        (["status"], "Missing argument"),
        (["dance"], "No such command 'dance'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_by_name(shop: Shop, arguments: list[str], words: str) -> None:
    refused(shop.invoke(*arguments), words)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "module 'cli_bad' cannot be imported: ModuleNotFoundError: No module named 'cli_bad'"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def f(:", "module 'cli_bad' cannot be imported: SyntaxError"),
        ("1 / 0", "module 'cli_bad' cannot be imported: ZeroDivisionError: division by zero"),
        (
            "from tinyworkflow_core import workflow\n@workflow\ndef sync(ctx): ...",
            "DefinitionError: @workflow goes on an `async def` function",
        ),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "missing",
)
def test_a_module_that_cannot_be_imported_is_an_error(shop: Shop, code: str | None, words: str) -> None:
    if code is not None:
        (shop.folder / "cli_bad.py").write_text(code)
    try:
        refused(shop.invoke("list", module="cli_bad"), words)
    finally:
        (shop.folder / "cli_bad.py").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:secret@host/db", "'mysql://', which is not supported"),
        ("sqlite:////no/such/folder/runs.db", "there is no directory /no/such/folder"),
    ],
)
def test_a_database_that_cannot_be_opened_is_an_error(url: str, words: str) -> None:
    done = CliRunner().invoke(cli, ["--db", url, "list"])
    refused(done, words)
    assert "secret" not in done.stderr


def test_workflows_and_worker_too_refuse_a_database_that_is_not_supported() -> None:
    for command in ("workflows", "worker"):
        refused(CliRunner().invoke(cli, ["--db", "mysql://host/db", command]), "which is not supported")


def test_a_run_that_failed_or_does_not_end_gives_an_error_instead_of_a_result(open_shop: Shop) -> None:
    failed, endless = open_shop.say("start", "cli-break"), open_shop.say("start", "cli-listen")
    refused(open_shop.invoke("result", failed), f"run '{failed}' failed: RuntimeError: it broke", code=4)
    late = open_shop.invoke("result", endless, "--timeout", "0.1")
    refused(late, f"run '{endless}' has not ended within 0.1 s", code=5)
    assert f"{'error':16} RuntimeError: it broke" in open_shop.say("status", failed).splitlines()
    refused(open_shop.invoke("signal", failed, "word"), "has ended")
    refused(open_shop.invoke("cancel", failed), "has ended")
    open_shop.say("cancel", endless)


def test_a_decision_that_nobody_waits_for_is_an_error(open_shop: Shop) -> None:
    two, quiet = open_shop.say("start", "cli-ask-two"), open_shop.say("start", "cli-listen")
    open_shop.until(two, "paused")
    refused(open_shop.invoke("approve", two), "has several open approvals, name one of 'boss', 'law'")
    refused(open_shop.invoke("reject", quiet), "has not asked for an approval")
    open_shop.say("approve", two, "law")
    refused(open_shop.invoke("reject", two, "law"), "is already approved")
    for run_id in (two, quiet):
        open_shop.say("cancel", run_id)


def test_a_real_process_says_what_is_wrong_and_nothing_else(shop: Shop) -> None:
    unknown, module = shop.process("status", "nobody"), shop.process("-w", "cli_bad", "list")
    assert unknown.communicate(timeout=20) == ("", "tinyworkflow: there is no run 'nobody'\n")
    printed, said = module.communicate(timeout=20)
    assert (unknown.returncode, module.returncode, printed) == (3, 2, "")
    assert "cannot be imported" in said
    assert "Traceback" not in said
