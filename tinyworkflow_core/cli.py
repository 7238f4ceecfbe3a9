"""The `tinyworkflow` command: a worker for one's own machine, and a look at runs from a terminal.

Errors go to stderr and exit non-zero; `--json` prints data for programs. `-w module` imports the workflows; the
current folder is importable.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from .app import DEFAULT_DATABASE_URL, App
from .embedded import TinyWorkflowClient
from .errors import TinyWorkflowError
from .serialization import Codec
from .store import OpenApproval
from .timeline import WorkflowExecution

T = TypeVar("T")

_CODEC = Codec(max_bytes=sys.maxsize)

cli = typer.Typer(
    name="tinyworkflow", help="Durable workflows in plain Python.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Argument(help="The run's id.")]
Key = Annotated[str | None, typer.Argument(help="Which question, where there are several.")]
By = Annotated[str | None, typer.Option(help="Who decides.")]
Comment = Annotated[str | None, typer.Option(help="For those who read the decision.")]


@dataclass(frozen=True)
class _Settings:
    database_url: str


@cli.callback()
def _settings(
    context: typer.Context,
    db: Annotated[str | None, typer.Option(help="Database URL; else TINYWORKFLOW_DATABASE_URL.")] = None,
    workflows: Annotated[list[str] | None, typer.Option("-w", "--workflows", help="Module to import.")] = None,
) -> None:
    sys.path.insert(0, os.getcwd())
    for module in workflows or ():
        try:
            importlib.import_module(module)
        except Exception as error:  # a module may raise anything while it is imported
            raise typer.BadParameter(f"module {module!r} cannot be imported: {type(error).__name__}: {error}") from None
    context.obj = _Settings(db or os.environ.get("TINYWORKFLOW_DATABASE_URL", DEFAULT_DATABASE_URL))


@cli.command()
def worker(context: typer.Context) -> None:
    """Work on runs until interrupted. Several workers, clients and functions may share one SQLite file."""

    async def work() -> None:
        app = App.from_env(store=context.obj.database_url)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await app.start_worker()
        names = (
            ", ".join(sorted({one.name for one in app.registry.workflows()})) or "no workflows: name a module with -w"
        )
        typer.echo(f"worker {os.getpid()} on {context.obj.database_url}: {names}", err=True)
        await stop.wait()
        await app.close()

    _run(work())


@cli.command()
def start(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The workflow's name.")],
    input_data: Annotated[str | None, typer.Option("--input", help="Input as JSON.")] = None,
    run_id: Annotated[str | None, typer.Option(help="An id of your own.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start a run and print its id."""
    data = _parse("--input", input_data)
    made = _ask(context, lambda client: client.start_workflow(name, data, run_id=run_id))
    _show({"run_id": made} if as_json else made)


@cli.command()
def status(context: typer.Context, run_id: RunId, as_json: JsonFlag = False) -> None:
    """Show one run."""
    run = _run_view(_ask(context, lambda client: client.get_workflow_status(run_id)))
    if as_json:
        _show(run)
    for key, value in () if as_json else run.items():
        if value not in (None, {}, []):
            typer.echo(f"{key:16} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@cli.command(name="list")
def list_runs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only runs of this status.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first."""
    runs = _ask(context, lambda client: client.list_workflow_executions(status, workflow, limit=limit))
    if as_json:
        _show([_run_view(run) for run in runs])
    for run in () if as_json else runs:
        typer.echo(f"{run.created_at:%Y-%m-%d %H:%M:%S}  {run.status:10} {run.workflow_name:24} {run.run_id}")


@cli.command()
def events(context: typer.Context, run_id: RunId, as_json: JsonFlag = False) -> None:
    """Show a run's history, oldest first."""
    found = _ask(context, lambda client: client.get_workflow_events(run_id))
    if as_json:
        _show(found)
    for event in () if as_json else found:
        rest = {key: value for key, value in event.items() if key not in ("event_id", "type", "at", "digest")}
        text = json.dumps(rest, ensure_ascii=False)[:160]
        typer.echo(f"{event['event_id']:5}  {event['at'][11:23]}  {event['type']:18} {text}")


@cli.command()
def result(
    context: typer.Context,
    run_id: RunId,
    timeout: Annotated[float | None, typer.Option(help="At most so many seconds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Wait for a run to end and print what it returned: text as it is (with --json as JSON), all else as JSON."""

    async def wait(client: TinyWorkflowClient) -> Any:
        try:
            return await client.get_result(run_id, timeout)
        except TimeoutError:
            raise TimeoutError(f"run {run_id!r} has not ended within {timeout:g} s") from None

    returned = _plain(_ask(context, wait))
    typer.echo(returned if isinstance(returned, str) and not as_json else _json(returned))


@cli.command(name="signal")
def send_signal(
    context: typer.Context,
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="The signal's name.")],
    payload: Annotated[str | None, typer.Option(help="Payload as JSON.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send a signal to a run."""
    data = _parse("--payload", payload)
    _ask(context, lambda client: client.send_signal(run_id, name, data))
    if as_json:
        _show({"run_id": run_id, "signal": name})


@cli.command()
def approvals(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List open approvals."""
    found = _ask(context, lambda client: client.get_pending_approvals())
    if as_json:
        _show([{"run_id": one.run.run_id, **_approval_view(one.approval)} for one in found])
    for one in () if as_json else found:
        typer.echo(f"{one.run.run_id}  {one.approval.key}  {one.approval.title or ''}")


@cli.command()
def approve(
    context: typer.Context,
    run_id: RunId,
    key: Key = None,
    reject: Annotated[bool, typer.Option("--reject", help="Reject instead.")] = False,
    by: By = None,
    comment: Comment = None,
    as_json: JsonFlag = False,
) -> None:
    """Approve what a run asks."""
    _decide(context, run_id, key, approved=not reject, by=by, comment=comment, as_json=as_json)


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


@cli.command()
def cancel(
    context: typer.Context,
    run_id: RunId,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask a run to end; it may clean up first."""
    _ask(context, lambda client: client.cancel_workflow(run_id, reason))
    if as_json:
        _show({"run_id": run_id})


@cli.command(name="workflows")
def list_workflows(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the workflows that `-w` has brought in."""

    async def names(client: TinyWorkflowClient) -> list[str]:
        return client.list_registered_workflows()

    found = _ask(context, names)
    if as_json:
        _show(found)
    for name in () if as_json else found:
        typer.echo(name)


def _ask(context: typer.Context, request: Callable[[TinyWorkflowClient], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with TinyWorkflowClient(context.obj.database_url) as client:
            return await request(client)

    return _run(ask())


def _run(coro: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(coro)
    except (TinyWorkflowError, TimeoutError, ValueError) as error:
        typer.echo(f"tinyworkflow: {str(error) or type(error).__name__}", err=True)
        raise typer.Exit(1) from None


def _decide(
    context: typer.Context, run_id: str, key: str | None, *, approved: bool, as_json: bool, **about: Any
) -> None:
    async def decide(client: TinyWorkflowClient) -> None:
        await (client.approve_workflow if approved else client.reject_workflow)(run_id, key, **about)

    _ask(context, decide)
    if as_json:
        _show({"run_id": run_id, "key": key, "approved": approved})


def _parse(option: str, text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} is not JSON: {error}") from None


def _run_view(run: WorkflowExecution) -> dict[str, Any]:
    view: dict[str, Any] = _plain(run)
    return view | {"open_approvals": [_approval_view(one) for one in run.open_approvals]}


def _approval_view(approval: OpenApproval) -> dict[str, Any]:
    view: dict[str, Any] = _plain(approval)
    for name in ("details", "form"):
        view[name] = None if view[name] is None else _CODEC.plain(view[name])
    return view


def _plain(value: Any) -> Any:
    """Any value that can be stored as plain JSON data."""
    return _CODEC.plain(_CODEC.encode(value))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _show(value: Any) -> None:
    typer.echo(value if isinstance(value, str) else _json(value))


def main() -> None:
    """The entry point of the `tinyworkflow` script."""
    cli()


if __name__ == "__main__":
    main()
