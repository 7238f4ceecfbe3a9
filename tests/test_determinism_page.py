"""docs/determinism.md says what is: its examples are refused, run and checked, and print what stands there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinyworkflow_core
from tinyworkflow_core import App, workflow
from tinyworkflow_core.errors import DeterminismError
from tinyworkflow_core.testing import WorkflowEnvironment

ROOT = Path(tinyworkflow_core.__file__).parents[1]
PAGE = ROOT / "docs/determinism.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def loaded(code: str, path: Path) -> dict[str, object]:
    """The names of a module of that code, which lies in that file."""
    path.write_text(code)
    names: dict[str, object] = {"__name__": path.stem}
    exec(compile(code, str(path), "exec"), names)  # the page's own code
    return names


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PYTHONPATH": str(ROOT), "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{folder}/runs.db"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-u", "-e", "-c", script],
        check=False,
        cwd=folder,
        env=os.environ | environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_dangerous_example_is_refused_with_the_lines_that_the_page_shows(tmp_path: Path) -> None:
    with pytest.raises(DeterminismError) as refused:
        loaded(blocks("py")[0], tmp_path / "bad.py")
    assert "\n".join(str(refused.value).splitlines()[1:]).replace(f"{tmp_path}/", "") + "\n" == blocks("text")[0]


async def test_the_mended_and_the_silenced_example_run(tmp_path: Path) -> None:
    good = workflow(loaded(blocks("python")[0], tmp_path / "good.py")["good_example"].fn)  # type: ignore[attr-defined]  # a definition
    polite = workflow(loaded(blocks("python")[1], tmp_path / "polite.py")["polite"].fn)  # type: ignore[attr-defined]  # a definition
    async with WorkflowEnvironment([good, polite], always_replay=True) as env:
        assert re.fullmatch(r"[0-9a-f-]{36} 2026-01-01 \d+", await env.result(await env.start(good)))
        assert await env.result(await env.start(polite, "Ada")) == "Hello, Ada!"


def test_the_pipeline_stops_the_change_with_the_report_that_the_page_shows(tmp_path: Path) -> None:
    code = blocks("python")[2]
    before = loaded(code, tmp_path / "orders.py")["order"]

    async def run_one() -> None:
        app = App(f"sqlite:///{tmp_path}/runs.db", workflows=[before], dispatcher="none")  # type: ignore[list-item]  # a definition
        await app.client.start_workflow("order", 5, run_id="order-17")
        await app.advance("order-17")
        await app.close()

    asyncio.run(run_one())
    both = "".join(blocks("sh"))
    fits = shell(both, tmp_path)
    assert (fits.returncode, fits.stderr) == (0, "")
    assert fits.stdout == "order v1: 1 checked, 1 fit\n" * 2

    (tmp_path / "orders.py").write_text(code[: code.index("@workflow")] + blocks("py")[1])
    for script in blocks("sh"):
        stopped = shell(script, tmp_path)
        assert (stopped.returncode, stopped.stderr) == (1, "")
        assert stopped.stdout.replace(f"{tmp_path}/", "") == blocks("text")[1]
