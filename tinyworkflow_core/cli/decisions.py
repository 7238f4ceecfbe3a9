"""Commands for those who decide: which approvals are open, approve, reject."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .completing import RunId
from .console import JsonFlag, ask, cli, parse
from .printing import say, show_done, show_json

Key = Annotated[str | None, typer.Argument(help="Which question, where there are several.")]
By = Annotated[str | None, typer.Option(help="Who decides.")]
Comment = Annotated[str | None, typer.Option(help="For those who read the decision.")]
DataText = Annotated[str | None, typer.Option("--data", help="What the question's form asks for, as JSON.")]


@cli.command()
def approvals(
    context: typer.Context,
    approver: Annotated[str | None, typer.Option(help="Only what this person may decide.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List open approvals."""
    found = ask(context, lambda reach: reach.approvals(approver))
    if as_json:
        show_json(found)
    for one in () if as_json else found:
        say(f"{one['run_id']}  {one['key']}", "" if context.obj.quiet else f"  {one['title'] or ''}")


@cli.command()
def approve(
    context: typer.Context,
    run_id: RunId,
    key: Key = None,
    approved: Annotated[bool, typer.Option("--approve/--reject", help="Reject instead.")] = True,
    by: By = None,
    comment: Comment = None,
    data: DataText = None,
    as_json: JsonFlag = False,
) -> None:
    """Approve what a run asks."""
    _decide(context, run_id, key, as_json, approved=approved, by=by, comment=comment, data=parse("--data", data))


@cli.command()
def reject(
    context: typer.Context,
    run_id: RunId,
    key: Key = None,
    by: By = None,
    comment: Comment = None,
    data: DataText = None,
    as_json: JsonFlag = False,
) -> None:
    """Reject what a run asks."""
    _decide(context, run_id, key, as_json, approved=False, by=by, comment=comment, data=parse("--data", data))


def _decide(context: typer.Context, run_id: str, key: str | None, as_json: bool, **decision: Any) -> None:
    decided = ask(context, lambda reach: reach.decide(run_id, key, **decision))
    show_done(as_json, run_id=run_id, key=decided, approved=decision["approved"])
