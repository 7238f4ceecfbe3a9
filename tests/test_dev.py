"""The development server, as a real process: what is saved answers, what does not load is told, nothing is left."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.dev_process import Dev, serving
from tests.functions.server import ROOT, until
from tests.services import do_without
from tests.test_readme import blocks
from tinyworkflow_core.cli import cli
from tinyworkflow_core.dev.listening import listen
from tinyworkflow_core.dev.served import Served, choose
from tinyworkflow_core.dev.trying import curl, sample
from tinyworkflow_core.dev.watching import Watch
from tinyworkflow_core.errors import ConfigurationError

[FLOWS] = blocks(ROOT / "docs/development.md", "python")
MAIN = "import functions_framework.aio\n"

_SEEN = re.compile(r"^Saved: flows\.py", re.M)
_SERVES = re.compile(r"^(Serving flows|This code does not load)", re.M)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the module of the documentation."""
    (tmp_path / "flows.py").write_text(FLOWS)
    return tmp_path


class Saving:
    """A served folder with one module, into which the tests save."""

    def __init__(self, dev: Dev, file: Path) -> None:
        self.dev = dev
        self._file = file
        self._saved = 0
        self._last = ""

    def save(self, code: str, *, until_it_serves: bool = True) -> None:
        """Save it, if it is not what was saved last, and wait until the process before it is gone; where
        `until_it_serves` is not set, only until the change was seen: the process before it may still answer."""
        if code == self._last:
            return
        self._last = code
        taken_up = _SERVES if until_it_serves else _SEEN
        before = len(taken_up.findall(self.dev.printed()))
        self._saved += 1
        written = self._file.with_suffix(".part")
        written.write_text(f"{code}\n# {self._saved}\n")
        written.replace(self._file)  # in one go: what is seen half written is taken up twice
        until(lambda: len(taken_up.findall(self.dev.printed())) > before, 30, self.dev.printed)


@pytest.fixture(scope="module")
def saving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saving]:
    """Begins with code that does not load."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "flows.py").write_text(FLOWS + "begins = (\n")
    with serving(folder, "-w", "flows", "dev") as dev:
        dev.wait_for("SyntaxError: '(' was never closed")
        yield Saving(dev, folder / "flows.py")


# --- saving ------------------------------------------------------------------------------------------


def test_code_that_does_not_load_is_told_and_the_next_save_is_served(saving: Saving) -> None:
    dev = saving.dev
    answer = dev.get("/v1/workflows")
    assert (answer.status_code, answer.json()["status"], answer.headers["Retry-After"]) == (503, 503, "1")
    assert "flows" not in answer.text  # what is wrong is for the terminal
    saving.save("import nothing_of_that_name\n" + FLOWS)
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in dev.printed()
    assert "importlib" not in dev.printed()
    saving.save(FLOWS, until_it_serves=False)
    assert dev.start("report", "ada")["output"] == "report of old ada"
    assert [one["name"] for one in dev.get("/v1/workflows").json()["workflows"]] == ["report"]
    assert dev.printed().count("    curl ") == 1


def test_a_process_that_was_killed_is_started_again(saving: Saving) -> None:
    saving.save(FLOWS)
    os.kill(saving.dev.server(), signal.SIGKILL)
    assert saving.dev.start("report", "ada")["output"] == "report of old ada"
    assert "has ended (SIGKILL)" in saving.dev.printed()


def test_what_was_saved_last_answers_and_goes_on_with_the_run_in_hand(saving: Saving) -> None:
    dev = saving.dev
    saving.save(FLOWS.replace('    return f"old', '    await asyncio.sleep(60)\n    return f"old'))
    in_hand = dev.start("report", "ada", wait=0)["run_id"]
    until(lambda: dev.get(f"/v1/runs/{in_hand}").json()["times"]["started"])
    with ThreadPoolExecutor() as threads:
        held = threads.submit(dev.ask, "report", "eve", wait=30)
        until(lambda: len(dev.get("/v1/runs?status=running").json()["runs"]) == 2)
        saving.save(FLOWS.replace("old", "new"), until_it_serves=False)
        assert (held.result().status_code, held.result().headers["Retry-After"]) == (503, "1")
    assert dev.start("report", "bob")["output"] == "report of new bob"
    until(lambda: dev.get(f"/v1/runs/{in_hand}").json()["status"] == "completed")
    assert dev.get(f"/v1/runs/{in_hand}").json()["output"] == "report of new ada"
    events = [one["type"] for one in dev.get(f"/v1/runs/{in_hand}/events").json()["events"]]
    assert events.count("ActivityCompleted") == 1
    assert "LeaseTaken" not in events  # a save is no death: a run that sees many of those is failed
    assert "ERROR" not in dev.printed()


@pytest.mark.parametrize("command", ["dev", "server"])
def test_a_port_that_is_taken_is_said(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWORKFLOW_DATABASE_URL", "sqlite:///:memory:")
    with closing(listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(cli, [command, "--examples", "--port", str(port)])
    assert done.exit_code == 1
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert "--port" in done.stderr


def test_only_source_files_are_watched_and_others_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("pkg/a.py", ".hidden/b.py", "env/pyvenv.cfg", "env/c.py", "node_modules/d.py", "e.txt", "f.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    watch = Watch([tmp_path, tmp_path / "pkg"])
    assert watch.changes() == []
    for name in (".hidden/b.py", "env/c.py", "node_modules/d.py", "e.txt"):
        (tmp_path / name).write_text("22")
    assert watch.changes() == []
    (tmp_path / "pkg/a.py").write_text("22")
    (tmp_path / "pkg/new.py").write_text("1")
    (tmp_path / "f.py").unlink()
    assert watch.changes() == [str(tmp_path / one) for one in ("f.py", "pkg/a.py", "pkg/new.py")]
    assert watch.changes() == []


def test_a_file_that_is_still_being_written_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.py"
    file.write_text("1")
    watch = Watch([tmp_path])
    file.write_text("22")
    with monkeypatch.context() as writing:
        writing.setattr(time, "sleep", lambda seconds: file.write_text("333"))
        assert watch.changes() == []
    assert watch.changes() == [str(file)]


# --- ending ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda one: one.name)
def test_no_process_is_left_however_the_command_ends(project: Path, number: signal.Signals) -> None:
    with serving(project, "-w", "flows", "dev") as dev:
        dev.wait_for("Serving")
        assert len(dev.processes()) == 2
        dev.process.send_signal(number)
        until(lambda: not dev.processes(), 20, dev.printed)
        assert dev.process.wait() == (0 if number != signal.SIGKILL else -signal.SIGKILL)
        assert "Traceback" not in dev.printed()


# --- what is served ----------------------------------------------------------------------------------


def test_the_curl_that_is_printed_starts_a_run_and_the_examples_are_started_once(project: Path) -> None:
    if shutil.which("curl") is None:
        do_without(FileNotFoundError("there is no curl on the PATH"))
    key = {"TINYWORKFLOW_API_KEYS": "a-key-of-some-length"}
    for command in ("dev", "server"):
        with serving(project, "-w", "flows", command, "--examples", "--access-log", environ=key) as dev:
            dev.wait_for("Try")
            [line] = re.findall(r"^    (curl .*)$", dev.printed(), re.MULTILINE)
            ran = subprocess.run(
                ["sh", "-c", line], env={**os.environ, "KEY": "a-key-of-some-length"}, capture_output=True, check=True
            )
            assert json.loads(ran.stdout)["output"] == "report of old text"
            headers = {"X-API-Key": "a-key-of-some-length"}
            runs = httpx.get(f"{dev.url}/v1/runs", headers=headers).json()["runs"]
            examples = {one["run_id"] for one in runs if one["workflow"].startswith("example_")}
            assert examples == {"example-expense", "example-greeting", "example-reminder", "example-trip"}
            schedules = httpx.get(f"{dev.url}/v1/schedules", headers=headers).json()["schedules"]
            assert [one["id"] for one in schedules] == ["example-hourly"]
            assert dev.get("/v1/runs").status_code == 401
            assert "not started" not in dev.printed()
            assert "GET /v1/runs" in dev.printed()
            dev.process.send_signal(signal.SIGINT)
            assert dev.process.wait(20) == 0
            assert "Traceback" not in dev.printed()


def test_a_server_does_not_start_with_code_that_does_not_load(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "flows_that_fail.py").write_text("1 / 0\n")
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    monkeypatch.setenv("TINYWORKFLOW_DATABASE_URL", "sqlite:///:memory:")
    done = CliRunner().invoke(cli, ["-w", "flows_that_fail", "server", "--port", "0"])
    assert done.exit_code == 1
    assert done.stderr.count("ZeroDivisionError") == 1
    assert 'flows_that_fail.py", line 1' in done.stderr
    assert done.stderr.count("File ") == 1


def test_what_is_served_is_what_was_asked_for_else_a_main_for_functions_framework_else_what_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(*given: str, source: str | None = None, examples: bool = False) -> Served:
        declared = ("declared",) if (tmp_path / "pyproject.toml").exists() else ()
        return choose(source=source, target="app", given=given, declared=declared, folder=tmp_path, examples=examples)

    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(ConfigurationError, match="nothing to serve: name a module with -w"):
        chosen()
    assert chosen(examples=True).modules == ()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "main.py").write_text("print('a program of another kind')\n")
    assert (chosen().source, chosen().modules) == (None, ("declared",))
    (tmp_path / "main.py").write_text(MAIN)
    assert (chosen().source, chosen().modules) == (str(tmp_path / "main.py"), ())
    assert (chosen("given").source, chosen("given").modules) == (None, ("given",))
    (tmp_path / "below/main.py").write_text(MAIN)
    assert chosen().source == "main.py"
    assert chosen("given", source="../main.py").source == "../main.py"
    with pytest.raises(ConfigurationError, match=r"there is no file 'else\.py'"):
        chosen(source="else.py")


# --- a curl to try -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "exclusiveMinimum": 0}, 1),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "string", "minLength": 6}, "textxx"),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"enum": ["b", "a"]}, "b"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        (
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"type": "string"}},
                "required": ["a"],
                "$defs": {"A": {"type": "object", "properties": {"x": {"default": 7}}, "required": ["x"]}},
            },
            {"a": {"x": 7}},
        ),
    ],
)
def test_an_example_fits_its_schema(schema: Mapping[str, Any], value: Any) -> None:
    assert sample(schema) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^[0-9]{9}$"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": "#/$defs/B"},
    ],
)
def test_a_workflow_for_whose_input_there_is_no_example_is_passed_over(schema: Mapping[str, Any]) -> None:
    hard = {"name": "hard", "versions": [{"version": 1, "input_schema": schema}]}
    easy = {"name": "e'; rm -rf / #", "versions": [{"version": 1, "input_schema": {"const": "it's"}}]}
    words = shlex.split(curl("http://127.0.0.1:1", [hard, easy], with_key=False))
    assert "http://127.0.0.1:1/v1/workflows/e%27%3B%20rm%20-rf%20%2F%20%23/runs" in words
    assert json.loads(words[-1]) == {"input": "it's"}
    assert shlex.split(curl("http://127.0.0.1:1", [hard], with_key=False))[-1].endswith("/v1/workflows")
