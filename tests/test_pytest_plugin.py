"""The plugin of pytest: its fixture works with every plugin for async tests and without any, and nobody else notices
it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tinyworkflow_core.errors import StoreError
from tinyworkflow_core.testing import WorkflowEnvironment, plugin

WORKFLOW = """
import asyncio, pytest
from tinyworkflow_core import WorkflowContext, activity, workflow
from tinyworkflow_core.testing import WorkflowEnvironment
MADE = []

@activity
async def note(what: str) -> str:
    return what

@workflow
async def naps(ctx: WorkflowContext) -> str:
    await asyncio.sleep(86_400)
    return await ctx.execute_activity(note, "awake")

async def scenario(workflow_environment):
    env = workflow_environment([naps], activities={note: str.upper})
    MADE.append(env)
    assert isinstance(env, WorkflowEnvironment)
    assert await env.result(await env.start(naps)) == "AWAKE"
    async with workflow_environment([naps]) as other:
        assert await other.result(await other.start(naps)) == "awake"

async def is_closed(env):
    try:
        await env.store.get("any")
    except Exception as error:
        return "closed" in str(error)
    return False

def teardown_module():
    assert MADE
    assert all(asyncio.run(is_closed(env)) for env in MADE)
"""


def run_pytest(folder: Path, code: str, *options: str) -> str:
    """What pytest says of a file with that code, in a process of its own with all plugins that are installed."""
    (folder / "test_it.py").write_text(code)
    (folder / "pytest.ini").write_text(
        '[pytest]\nfilterwarnings =\n  error\n  ignore:The configuration option "asyncio_default_fixture_loop_scope"'
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_it.py"],
        check=False,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_installed_package_brings_the_plugin() -> None:
    [found] = [one for one in entry_points(group="pytest11") if one.value.startswith("tinyworkflow_core")]
    assert found.load() is plugin


@pytest.mark.parametrize(
    ("test", "options"),
    [
        ("async def test_it(workflow_environment):\n    await scenario(workflow_environment)", ["--asyncio-mode=auto"]),
        (
            "@pytest.mark.asyncio\nasync def test_it(workflow_environment):\n    await scenario(workflow_environment)",
            ["--asyncio-mode=strict"],
        ),
        (
            "@pytest.mark.anyio\n@pytest.mark.parametrize('anyio_backend', ['asyncio'])\n"
            "async def test_it(workflow_environment, anyio_backend):\n    await scenario(workflow_environment)",
            ["--asyncio-mode=strict"],
        ),
        (
            "def test_it(workflow_environment):\n    asyncio.run(scenario(workflow_environment))",
            ["-p", "no:asyncio", "-p", "no:anyio"],
        ),
    ],
    ids=["asyncio auto", "asyncio strict", "anyio", "no plugin"],
)
def test_the_fixture_makes_environments_that_are_closed_with_the_test(
    tmp_path: Path, test: str, options: list[str]
) -> None:
    assert "1 passed" in run_pytest(tmp_path, f"{WORKFLOW}\n\n{test}\n", *options)


def test_nothing_of_the_kit_is_loaded_by_those_who_do_not_use_it(tmp_path: Path) -> None:
    code = """
import sys

def test_what_is_loaded():
    ours = {name for name in sys.modules if name.startswith("tinyworkflow_core")}
    assert ours == {"tinyworkflow_core", "tinyworkflow_core.testing", "tinyworkflow_core.testing.plugin"}
    assert "asyncio" not in sys.modules
"""
    others = [f"-pno:{one.name}" for one in entry_points(group="pytest11") if "tinyworkflow" not in one.value]
    assert "1 passed" in run_pytest(tmp_path, code, *others)


async def test_what_a_test_made_is_closed_while_its_own_loop_runs(
    workflow_environment: type[WorkflowEnvironment],
) -> None:
    env = workflow_environment([])
    await env.client.list_workflow_executions()
    plugin._close([env, workflow_environment([])])
    with pytest.raises(StoreError, match="closed"):
        await env.client.list_workflow_executions()
