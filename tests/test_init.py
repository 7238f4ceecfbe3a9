"""A new project passes its own tests, is served by functions-framework as it stands, and takes nobody's place."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tests.dev_process import serving
from tests.functions.server import ROOT, server
from tinyworkflow_core.cli import cli
from tinyworkflow_core.cli.project import find_project

FILES = [".gcloudignore", "README.md", "main.py", "pyproject.toml", "test_workflows.py", "workflows.py"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("made")
        patch.chdir(folder)
        done = CliRunner().invoke(cli, ["init", "order-desk"])
    assert done.exit_code == 0, done.output
    return folder / "order-desk"


def test_a_new_project_has_five_files_and_passes_its_own_tests_and_checks(project: Path) -> None:
    assert sorted(one.name for one in project.iterdir()) == FILES
    assert not any("$name" in one.read_text() or "$$" in one.read_text() for one in project.iterdir())
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TINYWORKFLOW_"))}
    for command, told in (
        (["pytest", "-q", "-W", "error", "-p", "no:cacheprovider"], "5 passed"),
        (["ruff", "check", "--isolated", "--no-cache", "--line-length", "120"], "All checks passed"),
        (["ruff", "format", "--check", "--isolated", "--no-cache", "--line-length", "120"], "already formatted"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", *command],
            check=False,
            cwd=project,
            env=environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert told in ended.stdout


def test_a_new_project_is_served_by_functions_framework_as_it_is_deployed(project: Path, tmp_path: Path) -> None:
    environ = {"FUNCTION_TARGET": "app", "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db"}
    with server("app", environ, source=str(project / "main.py")) as app:
        app.wait_until_up()
        assert httpx.get(f"{app.url}/ui", follow_redirects=True).status_code == 200
        started = httpx.post(
            f"{app.url}/v1/workflows/order/runs",
            json={"input": {"customer": "Ada", "amount": 2000}},
            headers={"Prefer": "wait=1"},
        )
        assert started.json()["status"] == "paused"


def test_dev_serves_a_new_project_and_the_command_line_finds_its_workflows(project: Path, tmp_path: Path) -> None:
    environ = {"TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db"}
    with serving(project, "dev", environ=environ) as dev:
        dev.wait_for("Serving app of main.py: order")
        assert dev.start("order", {"customer": "Ada", "amount": 20})["status"] == "completed"
    assert find_project(project).workflows == ("workflows",)


def test_the_commands_that_deploy_a_new_project_are_read_by_bash_and_name_it(project: Path) -> None:
    [script] = re.findall(r"^```sh\n(.*?)^```$", (project / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "NAME=order-desk" in script
    deployed = (ROOT / "infra/deploy.sh").read_text()
    told = set(re.findall(r"TINYWORKFLOW_[A-Z_]+(?==)", script))
    needed = set(re.findall(r"TINYWORKFLOW_[A-Z_]+", deployed))
    assert needed - told == {"TINYWORKFLOW_ACTIVITY_QUEUE", "TINYWORKFLOW_LEASE"}  # which have defaults
    assert told - needed == set()


@pytest.mark.parametrize(
    "name",
    ["", "Order", "1st", "a_b", "a--b", "-a", "a-", "../a", "a/b", ".", "ä", "a" * 41, "tinyworkflow-core", "a\n"],
)
def test_a_name_that_no_service_can_have_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["init", "--", name])
    assert done.exit_code == 1
    assert "NAME" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_left_as_it_is_and_an_empty_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/main.py").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        done = CliRunner().invoke(cli, ["init", name])
        assert (done.exit_code, "not an empty folder" in done.stderr) == (1, True)
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["main.py"]
    assert (tmp_path / "full/main.py").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(cli, ["init", "empty", "--json"])
    assert sorted(json.loads(done.stdout)["files"]) == FILES
    assert 'name = "empty"' in (tmp_path / "empty/pyproject.toml").read_text()
