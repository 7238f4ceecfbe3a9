"""Commands about code: what can be started and called, and what in it could not be replayed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from .console import JsonFlag, Modules, ask, cli, import_modules, saying_what_failed
from .printing import say, show_json
from .reach import Data

if TYPE_CHECKING:
    from ..registry import Registry


@cli.command(name="workflows")
def list_workflows(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the workflows that `-w` has brought in, or those of a deployment."""
    _list(ask(context, lambda reach: reach.workflows(), code=True), as_json)


@cli.command(name="activities")
def list_activities(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the activities that `-w` has brought in, or those of a deployment."""
    _list(ask(context, lambda reach: reach.activities(), code=True), as_json)


def _list(found: list[Data], as_json: bool) -> None:
    if as_json:
        show_json(found)
    for one in () if as_json else found:
        say(one["name"])


@cli.command()
def lint(context: typer.Context, workflows: Modules = None, as_json: JsonFlag = False) -> None:
    """Name every line of the workflows that could not be replayed. Exit code 1 when there are any."""
    from ..lint import check as lint_check

    bring_in(context, workflows, lint=False)
    found = []
    with saying_what_failed(2):
        declared = declared_workflows().workflows()
    for one in declared:
        for finding in lint_check(one) if one.lint != "off" else ():
            found.append({"workflow": one.name, "version": one.version, **asdict(finding)})
            if not as_json:
                say(f"{finding} (workflow {one.name!r})")
    if as_json:
        show_json(found)
    raise typer.Exit(1 if found else 0)


def bring_in(context: typer.Context, modules: list[str] | None, *, lint: bool = True) -> None:
    """Import the modules that stand behind the command, else those before it, else the project's."""
    import_modules(modules, lint=lint)
    if not modules:
        context.obj.load_code(lint=lint)


def declared_workflows() -> Registry:
    """All that was imported. Raises ValueError when that is no workflow at all."""
    from ..registry import Registry

    registry = Registry()
    if not registry.workflows():
        raise ValueError("there are no workflows: name a module with -w")
    return registry
