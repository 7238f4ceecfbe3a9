"""Commands for those who decide: which approvals are open, approve, reject."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..embedded import TinyWorkflowClient
from .console import JsonFlag, RunId, ask, cli, show, show_done
from .runs import approval_view

Key = Annotated[str | None, typer.Argument(help="Which question, where there are several.")]
By = Annotated[str | None, typer.Option(help="Who decides.")]
Comment = Annotated[str | None, typer.Option(help="For those who read the decision.")]


@cli.command()
def approvals(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List open approvals."""
    found = ask(context, lambda client: client.get_pending_approvals())
    if as_json:
        show([{"run_id": one.run.run_id, **approval_view(one.approval)} for one in found])
    for one in () if as_json else found:
        typer.echo(f"{one.run.run_id}  {one.approval.key}  {one.approval.title or ''}")


@cli.command()
def approve(
    context: typer.Context,
    run_id: RunId,
    key: Key = None,
    approved: Annotated[bool, typer.Option("--approve/--reject", help="Reject instead.")] = True,
    by: By = None,
    comment: Comment = None,
    as_json: JsonFlag = False,
) -> None:
    """Approve what a run asks."""
    _decide(context, run_id, key, approved=approved, by=by, comment=comment, as_json=as_json)


@cli.command()
def reject(
    context: typer.Context,
    run_id: RunId,
    key: Key = None,
    by: By = None,
    comment: Comment = None,
    as_json: JsonFlag = False,
) -> None:
    """Reject what a run asks."""
    _decide(context, run_id, key, approved=False, by=by, comment=comment, as_json=as_json)


def _decide(
    context: typer.Context, run_id: str, key: str | None, *, approved: bool, as_json: bool, **about: Any
) -> None:
    async def decide(client: TinyWorkflowClient) -> None:
        await (client.approve_workflow if approved else client.reject_workflow)(run_id, key, **about)

    ask(context, decide)
    show_done(as_json, run_id=run_id, key=key, approved=approved)
