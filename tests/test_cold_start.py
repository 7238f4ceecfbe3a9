"""A cold start loads what it needs and nothing else. Modules are counted here, never milliseconds; those are printed by
`python -m tests.benchmarks.cold_start`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer.main

from tests.benchmarks.cold_start import FIRST_RUN, NAMES, ROOT, command
from tinyworkflow_core.cli import cli
from tinyworkflow_core.cli.narrowing import narrow

SERVERS = frozenset({"functions_framework", "httpx", "jinja2", "starlette", "uvicorn"})
TERMINALS = frozenset({"rich", "typer"})
CHECKERS = frozenset({"croniter", "jsonschema", "pydantic", "zoneinfo"})
CLOUD = frozenset({"cryptography", "google.auth", "google.cloud", "grpc", "opentelemetry"})
RUNNING = frozenset(
    f"tinyworkflow_core.{name}" for name in ("app", "advance", "client", "embedded", "engine.replay", "stores.sqlite")
)
MODELS = frozenset({"http.access_document", "http.fields", "http.run_requests", "http.schedule_requests", "http.ui"})
"""What a front loads when a request needs it."""
_TELL = """
import atexit, json, sys
before = set(sys.modules)  # `site` loads some by itself
atexit.register(lambda: print("\\n" + json.dumps(sorted(set(sys.modules) - before)), flush=True))
"""


def loaded_by(code: str, environ: Mapping[str, str] | None = None, *, exit_code: int = 0) -> set[str]:
    """The modules that there are in a fresh process after this code, whether it ended by itself or by sys.exit."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TINYWORKFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", _TELL + code],
        cwd=ROOT,
        env=inherited | dict(environ or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == exit_code, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_names_that_a_workflow_needs_bring_no_server_no_terminal_no_checker_and_no_cloud() -> None:
    loaded = loaded_by(NAMES)
    assert "tinyworkflow_core.embedded" in loaded
    assert loaded & (SERVERS | TERMINALS | CHECKERS | CLOUD | {"sqlite3"}) == set()


def test_a_first_run_on_sqlite_with_plain_values_adds_the_store_alone() -> None:
    loaded = loaded_by(FIRST_RUN)
    assert "tinyworkflow_core.stores.sqlite" in loaded
    assert loaded & (SERVERS | TERMINALS | CHECKERS | CLOUD) == set()
    assert not {name for name in loaded if name.startswith(("tinyworkflow_core.http", "tinyworkflow_core.testing"))}


def test_declaring_a_webhook_brings_no_server_and_no_engine() -> None:
    loaded = loaded_by("from tinyworkflow_core import Start, WebhookEvent, activity, webhook, workflow")
    assert "tinyworkflow_core.http.webhooks" in loaded
    assert loaded & (SERVERS | TERMINALS | CHECKERS | CLOUD | RUNNING | {"asyncio"}) == set()


def test_help_brings_neither_engine_nor_server() -> None:
    loaded = loaded_by(command("--help"))
    assert loaded & (SERVERS | CHECKERS | CLOUD | RUNNING | {"sqlite3"}) == set()


def test_a_command_on_a_store_brings_no_server(tmp_path: Path) -> None:
    loaded = loaded_by(command("--db", f"sqlite:///{tmp_path}/runs.db", "list"))
    assert "tinyworkflow_core.stores.sqlite" in loaded
    assert loaded & (SERVERS | CLOUD | {"croniter", "jsonschema", "rich"}) == set()


def test_a_command_on_a_deployment_brings_no_store_no_engine_and_no_server() -> None:
    loaded = loaded_by(command("--url", "http://127.0.0.1:9", "list"), exit_code=6)  # nobody is there
    assert "httpx" in loaded
    assert loaded & ((SERVERS - {"httpx"}) | CLOUD | RUNNING | {"croniter", "jsonschema", "sqlite3"}) == set()


def test_drawing_a_timeline_on_a_terminal_brings_no_pages() -> None:
    loaded = loaded_by("from tinyworkflow_core.cli import drawing")
    assert "tinyworkflow_core.http.ui.timeline" in loaded
    assert loaded & (SERVERS | CHECKERS | CLOUD | RUNNING | {"tinyworkflow_core.http.ui.dashboard"}) == set()


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("list --help", {"list"}),
        ("--db list -q status one", {"status"}),
        ("--url=list -w list schedule list", {"schedule"}),
        ("keys new", {"keys"}),
        ("--help list", None),
        ("--nonsense list", None),
        ("lst", None),
        ("-w", None),
        ("", None),
    ],
)
def test_a_process_makes_the_one_command_that_its_line_names(
    line: str, made: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("registered_commands", "registered_groups"):
        monkeypatch.setattr(cli, kind, list(getattr(cli, kind)))
    every = set(vars(typer.main.get_command(cli))["commands"])
    narrow(cli, line.split())
    assert set(vars(typer.main.get_command(cli))["commands"]) == (made or every)


FIRST_ANSWER = """
import os
sys.path.insert(0, "functions")
import main
from starlette.applications import Starlette
import asyncio
def ask(front, method, path, body):
    sent = []
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"here"), (b"x-api-key", b"key")], "client": ("203.0.113.9", 1), "scheme": "https",
        "server": ("here", 443), "http_version": "1.1",
    }
    asyncio.run(front(scope, receive, send))
    return sent[0]["status"]
front = asyncio.run(getattr(main, os.environ["FUNCTION_TARGET"])(None))
assert ask(front, *ASKED) == 200, ASKED
import gc
assert gc.isenabled() and gc.get_freeze_count() > 10_000  # what was loaded is not looked through again
"""


@pytest.mark.parametrize(
    ("target", "asked", "others"),
    [
        ("app", ("GET", "/v1/runs", b""), set()),
        (
            "worker",
            ("POST", "/internal/advance", b'{"run_id": "gone"}'),
            {"http.schedules", "http.approval_page", "http.hooks"},
        ),
    ],
)
def test_a_function_answers_first_without_pages_documents_checkers_or_the_cloud(
    tmp_path: Path, target: str, asked: tuple[str, str, bytes], others: set[str]
) -> None:
    environ = {
        "FUNCTION_TARGET": target,
        "TINYWORKFLOW_API_KEYS": "key",
        "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db",
    }
    loaded = loaded_by(f"ASKED = {asked!r}\n{FIRST_ANSWER}", environ)
    assert "tinyworkflow_core.http.front" in loaded
    assert loaded & (CLOUD | TERMINALS | CHECKERS | {"httpx"}) == set()  # the examples' inputs are dataclasses
    assert loaded & {f"tinyworkflow_core.{name}" for name in others | MODELS} == set()
