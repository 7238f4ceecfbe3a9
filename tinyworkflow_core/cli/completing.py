"""Completing: ids and names for the shell, where they are found at once. Whatever goes wrong there is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import Settings, import_modules
from .project import find_project
from .reach import Data, Reach

SECONDS = 1.5
"""The longest that somebody who presses TAB waits."""
_LATEST = 50


def run_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the latest runs."""

    async def latest(reach: Reach) -> list[Data]:
        found: list[Data] = (await reach.runs(limit=_LATEST))["runs"]
        return found

    return [one["run_id"] for one in _found(ctx, latest) if one["run_id"].startswith(incomplete)]


def workflow_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the workflows that can be started."""
    found = _found(ctx, lambda reach: reach.workflows(), code=True)
    return [one["name"] for one in found if one["name"].startswith(incomplete)]


def schedule_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the first schedules."""
    found = _found(ctx, lambda reach: reach.schedules(limit=_LATEST, after=None))
    return [one["id"] for one in found if one["id"].startswith(incomplete)]


def _found(ctx: typer.Context, request: Callable[[Reach], Awaitable[list[Data]]], *, code: bool = False) -> list[Data]:
    options: dict[str, Any] = ctx.find_root().params

    async def asked(settings: Settings) -> list[Data]:
        async with asyncio.timeout(SECONDS), settings.reach() as reach:
            return await request(reach)

    try:
        # What a module prints while it is imported would be taken for completions.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            project = find_project(Path.cwd())
            modules = options.get("workflows") or []
            found = Settings(db=options.get("db"), url=options.get("url"), project=project, has_modules=bool(modules))
            db, _ = found.target()
            if db is not None and db.startswith("sqlite:///") and not Path(db.removeprefix("sqlite:///")).exists():
                return []  # looking would make the file
            if code and db is not None:
                sys.path[:0] = [os.getcwd(), *([str(project.folder)] if project.folder else [])]
                import_modules(modules)
                found.load_code()
            return asyncio.run(asked(found))
    except Exception:  # the shell shows whatever is said here in the middle of the line
        return []


RunId = Annotated[str, typer.Argument(help="The run's id.", autocompletion=run_ids)]
WorkflowName = Annotated[str, typer.Argument(help="The workflow's name.", autocompletion=workflow_names)]
ScheduleId = Annotated[str, typer.Argument(help="The schedule's id.", autocompletion=schedule_ids)]
