"""Where the command line finds runs, how it asks a deployment, and what it shows to whom."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from tinyworkflow_core import WorkflowContext, registry, workflow
from tinyworkflow_core.cli import by_http, cli, completing, printing
from tinyworkflow_core.cli.by_http import HttpReach
from tinyworkflow_core.errors import (
    ConfigurationError,
    InvalidInputError,
    RunClosedError,
    StoreUnavailableError,
    TinyWorkflowError,
)

NASTY = "evil\x1b[31m\u202e\nline"


@workflow(name="reach-again")
async def again(ctx: WorkflowContext, left: int = 0) -> str:
    if left:
        ctx.continue_as_new(left - 1)
    return "over"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("TINYWORKFLOW_DATABASE_URL", "TINYWORKFLOW_URL", "TINYWORKFLOW_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop("found_here", None)


def call(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="tinyworkflow", env=environ)


# --- where the runs are ----------------------------------------------------------------------------------


def test_the_nearest_pyproject_names_the_code_and_the_database(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "pyproject.toml").write_text(
        '[tool.tinyworkflow]\nworkflows = ["found_here"]\ndatabase_url = "sqlite:///here.db"\n'
    )
    (folder / "found_here.py").write_text(
        "from tinyworkflow_core import workflow\n\n@workflow(name='reach-found')\nasync def found(ctx):\n    return 1\n"
    )
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    started = call("-q", "start", "reach-found", "--run-id", "a", "--wait")
    assert started.stdout == "a\n1\n", started.output
    assert [one["run_id"] for one in json.loads(call("list", "--json").stdout)] == ["a"]
    assert (folder / "here.db").exists()
    assert json.loads(call("list", "--json", TINYWORKFLOW_DATABASE_URL="sqlite:///other.db").stdout) == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("workflows = 'shop'", "workflows is a list of modules"),
        ("databse_url = 'x'", "there is no setting 'databse_url'"),
        ("url = 5", "url is a text"),
        ("url =", "pyproject.toml"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(folder: Path, table: str, words: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.tinyworkflow]\n{table}\n")
    done = call("list")
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_store_and_a_deployment_named_in_one_place_are_refused() -> None:
    both = call("--db", "sqlite:///a.db", "--url", "https://flows.example", "list")
    assert (both.exit_code, "not both" in both.stderr) == (2, True)
    both = call("list", TINYWORKFLOW_URL="https://flows.example", TINYWORKFLOW_DATABASE_URL="sqlite:///a.db")
    assert (both.exit_code, "the environment names a database and a deployment" in both.stderr) == (1, True)
    chosen = call("--db", "sqlite:///a.db", "list", TINYWORKFLOW_URL="https://flows.example")
    assert (chosen.exit_code, chosen.output) == (0, "")
    worker = call("--url", "https://flows.example", "worker")
    assert (worker.exit_code, "give --db" in worker.stderr) == (1, True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://flows.example", "in the open"),
        ("https://ada:pw@flows.example", "holds no user"),
        ("flows.example", "is no address"),
        ("ftp://flows.example", "is no address"),
    ],
)
def test_a_key_goes_nowhere_where_others_could_read_it(url: str, words: str) -> None:
    done = call("--url", url, "list", TINYWORKFLOW_API_KEY="secret-key")
    assert (done.exit_code, words in done.stderr, "secret-key" in done.output) == (1, True, False)
    with pytest.raises(ConfigurationError, match=words):
        HttpReach(url, "secret-key")


def test_nobody_there_has_an_exit_code_of_its_own() -> None:
    done = call("--url", "http://127.0.0.1:9", "list")
    assert (done.exit_code, "does not answer" in done.stderr, done.stdout) == (6, True, "")


# --- asking a deployment ---------------------------------------------------------------------------------


def deployment(answer: Callable[[httpx.Request], httpx.Response], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every HttpReach asks that from now on. Gives the pauses that it makes."""
    pauses: list[float] = []
    client = httpx.AsyncClient

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    def made(**options: Any) -> httpx.AsyncClient:
        return client(**options | {"transport": httpx.MockTransport(answer)})

    monkeypatch.setattr(httpx, "AsyncClient", made)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


def reach() -> HttpReach:
    return HttpReach("https://flows.example/base/", "secret-key")


def problem(status: int, kind: str, detail: str, **more: Any) -> httpx.Response:
    content = {"type": f"urn:tinyworkflow:problem:{kind}", "status": status, "detail": detail, **more}
    return httpx.Response(status, json=content, headers={"content-type": "application/problem+json"})


async def test_a_busy_deployment_is_asked_again_when_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [httpx.Response(503, headers={"Retry-After": "7"}), httpx.Response(429, headers={"Retry-After": "9000"})]
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return left.pop(0) if left else httpx.Response(202, json={"run_id": "a"})

    pauses = deployment(answer, monkeypatch)
    assert await reach().start("my/flow", idempotency_key=None, input=1, run_id=None) == "a"
    assert pauses == [7.0, by_http.LONGEST_PAUSE]
    assert {one.headers["Idempotency-Key"] for one in seen} == {seen[0].headers["Idempotency-Key"]}
    assert seen[0].headers["X-API-Key"] == "secret-key"
    assert seen[0].url.raw_path == b"/base/v1/workflows/my%2Fflow/runs"
    assert json.loads(seen[0].content) == {"input": 1}


async def test_what_could_happen_twice_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = deployment(lambda request: problem(503, "store-unavailable", "away"), monkeypatch)
    for asked in (reach().fork("a", 1, None), reach().steer("retry", "a")):
        with pytest.raises(StoreUnavailableError, match="away"):
            await asked
    assert pauses == []
    with pytest.raises(StoreUnavailableError):
        await reach().run("a")
    assert len(pauses) == by_http.TRIES - 1


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (problem(410, "run-closed", "run 'a' has ended", run_id="a"), RunClosedError, "has ended"),
        (problem(422, "invalid-input", "input: no", errors=[{"loc": ["x"]}]), InvalidInputError, "input: no"),
        (problem(409, "code-does-not-fit", "step 1"), TinyWorkflowError, "step 1"),
        (problem(401, "no-valid-key", "send a key"), PermissionError, "send a key"),
        (problem(403, "no-scope", "no scope"), PermissionError, "no scope"),
        (httpx.Response(404, text="<html>"), TinyWorkflowError, "is this the address of a deployment"),
        (httpx.Response(502, text="<html>"), StoreUnavailableError, "answered 502"),
        (httpx.Response(200, text="<html>"), TinyWorkflowError, "no JSON"),
        (httpx.Response(302, headers={"Location": "https://evil.example"}), TinyWorkflowError, "answered 302"),
    ],
    ids=lambda value: str(value.status_code) if isinstance(value, httpx.Response) else "",
)
async def test_a_problem_becomes_the_error_that_it_stands_for(
    answer: httpx.Response, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment(lambda request: answer, monkeypatch)
    with pytest.raises(error, match=words) as raised:
        await reach().run("a")
    assert type(raised.value) is error


def test_exit_codes_tell_the_kinds_of_failure_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[httpx.Response] = []
    deployment(lambda request: given[0], monkeypatch)
    for answer, code in ((problem(404, "run-not-found", "no"), 3), (problem(403, "no-scope", "no"), 7)):
        given[:] = [answer]
        assert call("--url", "https://flows.example", "status", "a").exit_code == code


# --- what is shown ---------------------------------------------------------------------------------------


def test_text_of_others_does_not_move_the_cursor() -> None:
    call("start", "reach-again", "--run-id", "a", "--workflow-id", "w")
    call("schedule", "add", "reach-again", "@daily", "--id", "s")
    call("schedule", "pause", "s", "--note", NASTY)
    shown = call("schedule", "list").stdout
    assert "evil\\x1b[31m\\x202e\\nline" in shown
    assert not any(one in shown for one in "\x1b\u202e")
    assert "\x1b" not in printing.json_text({"x": "\x1b[31m\x9b"})
    assert json.loads(printing.json_text({"x": NASTY})) == {"x": NASTY}


def test_quiet_prints_ids_and_values_alone() -> None:
    assert call("-q", "start", "reach-again", "--run-id", "a", "--wait").output == "a\nover\n"
    assert call("-q", "list").output == "a\n"
    assert call("-q", "status", "a").output == "completed\n"
    call("schedule", "add", "reach-again", "@daily", "--id", "s")
    assert call("-q", "schedule", "list").output == "s\n"


def test_colours_are_for_a_terminal_and_not_with_no_color(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    printing.say("a ", printing.styled("failed"))
    assert capsys.readouterr().out == "a failed\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    printing.say("a ", printing.styled("failed"))
    assert "\x1b[31mfailed" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    printing.say("a ", printing.styled("failed"))
    assert "\x1b[31m" not in capsys.readouterr().out


def test_events_are_followed_through_all_generations_to_the_end() -> None:
    call("-q", "start", "reach-again", "-i", "2", "--run-id", "a", "--wait")
    lines = call("events", "a", "--follow", "--json").stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["RunStarted", "RunCompleted"]
    assert call("events", "a", "--follow", "--limit", "1").exit_code == 2


def test_the_shell_is_told_ids_and_names_and_nothing_when_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # This process has declared what all tests use, some of it twice.
    monkeypatch.setattr(registry, "_declared", {1: again})
    root: Any = typer.main.get_command(cli)
    with root.make_context("tinyworkflow", ["list"], resilient_parsing=True) as context:
        assert completing.run_ids(context, "") == []
        assert not Path("tinyworkflow.db").exists()
        call("start", "reach-again", "--run-id", "abc")
        call("start", "reach-again", "--run-id", "xyz")
        call("schedule", "add", "reach-again", "@daily", "--id", "daily")
        assert completing.run_ids(context, "a") == ["abc"]
        assert "reach-again" in completing.workflow_names(context, "reach-")
        assert completing.schedule_ids(context, "d") == ["daily"]
    with root.make_context("tinyworkflow", ["--url", "http://127.0.0.1:9", "list"], resilient_parsing=True) as context:
        assert completing.run_ids(context, "") == []


def test_a_long_wait_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = {"run_id": "a", "status": "waiting", "open_approvals": []}
    sleep = asyncio.sleep
    deployment(lambda request: httpx.Response(202, json=run), monkeypatch)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    done = call("--url", "https://flows.example", "result", "a", "--timeout", "0.2")
    assert (done.exit_code, done.stderr) == (5, "tinyworkflow: run 'a' has not ended within 0.2 s\n")
