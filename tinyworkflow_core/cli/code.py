"""Commands about the code that is here: what it declares, and what in it could not be replayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import typer

from ..embedded import TinyWorkflowClient
from ..lint import check as lint_check
from ..registry import Registry
from .console import JsonFlag, Modules, ask, cli, import_modules, saying_what_failed, show


@cli.command(name="workflows")
def list_workflows(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the workflows that `-w` has brought in."""
    _list(context, lambda client: client.list_registered_workflows(), as_json)


@cli.command(name="activities")
def list_activities(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the activities that `-w` has brought in."""
    _list(context, lambda client: client.list_registered_activities(), as_json)


def _list(context: typer.Context, request: Callable[[TinyWorkflowClient], list[str]], as_json: bool) -> None:
    async def names(client: TinyWorkflowClient) -> list[str]:
        return request(client)

    found = ask(context, names)
    if as_json:
        show(found)
    for name in () if as_json else found:
        typer.echo(name)


@cli.command()
def lint(workflows: Modules = None, as_json: JsonFlag = False) -> None:
    """Name every line of the workflows that could not be replayed. Exit code 1 when there are any."""
    import_modules(workflows, lint=False)
    found = []
    with saying_what_failed(2):
        declared = declared_workflows().workflows()
    for one in declared:
        for finding in lint_check(one) if one.lint != "off" else ():
            found.append({"workflow": one.name, "version": one.version, **asdict(finding)})
            if not as_json:
                typer.echo(f"{finding} (workflow {one.name!r})")
    if as_json:
        show(found)
    raise typer.Exit(1 if found else 0)


def declared_workflows() -> Registry:
    """All that was imported. Raises ValueError when that is no workflow at all."""
    registry = Registry()
    if not registry.workflows():
        raise ValueError("there are no workflows: name a module with -w")
    return registry
