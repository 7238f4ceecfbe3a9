"""Commands on runs: start them, look at them, talk to them."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

import typer

from ..embedded import TinyWorkflowClient
from ..errors import QueryError, TinyWorkflowError
from ..store import OpenApproval
from ..timeline import WorkflowExecution
from .console import InputText, JsonFlag, RunId, ask, cli, codec, json_text, parse, plain, show, show_done

T = TypeVar("T")

Seconds = Annotated[float | None, typer.Option("--timeout", help="Wait at most so many seconds.")]


@cli.command()
def start(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The workflow's name.")],
    input_data: InputText = None,
    run_id: Annotated[str | None, typer.Option(help="An id of your own.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Bring the run to its end here, and print the result.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start a run and print its id."""
    data = parse("--input", input_data)

    async def begin(client: TinyWorkflowClient) -> dict[str, Any]:
        made = await client.start_workflow(name, data, run_id=run_id)
        if not as_json:
            typer.echo(made)
        if not wait:
            return {"run_id": made}
        await client.start_workflow(name, data, run_id=made, on_conflict="use_existing", wait=True)
        return {"run_id": made, "result": plain(await client.get_result(made))}

    done = ask(context, begin)
    if as_json:
        show(done)
    elif wait:
        show(done["result"])


@cli.command()
def status(context: typer.Context, run_id: RunId, as_json: JsonFlag = False) -> None:
    """Show one run."""
    run = _run_view(ask(context, lambda client: client.get_workflow_status(run_id)))
    if as_json:
        show(run)
    for key, value in () if as_json else run.items():
        if value not in (None, {}, []):
            typer.echo(f"{key:16} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@cli.command(name="list")
def list_runs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option("--status", "-s", help="Only runs of this status.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", "-w", help="Only runs of this workflow.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", help="At most so many.", min=1)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first."""
    runs = ask(context, lambda client: client.list_workflow_executions(status, workflow, limit=limit))
    if as_json:
        show([_run_view(run) for run in runs])
    for run in () if as_json else runs:
        typer.echo(f"{run.created_at:%Y-%m-%d %H:%M:%S}  {run.status:10} {run.workflow_name:24} {run.run_id}")


@cli.command()
def events(
    context: typer.Context,
    run_id: RunId,
    limit: Annotated[int | None, typer.Option("--limit", "-l", help="Only the latest so many.", min=1)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a run's history, oldest first."""
    found = ask(context, lambda client: client.get_workflow_events(run_id))
    found = found if limit is None else found[-limit:]
    if as_json:
        show(found)
    for event in () if as_json else found:
        rest = {key: value for key, value in event.items() if key not in ("event_id", "type", "at", "digest")}
        text = json.dumps(rest, ensure_ascii=False)[:160]
        typer.echo(f"{event['event_id']:5}  {event['at'][11:23]}  {event['type']:18} {text}")


@cli.command()
def result(context: typer.Context, run_id: RunId, timeout: Seconds = None, as_json: JsonFlag = False) -> None:
    """Wait for a run to end and print what it returned: text as it is (with --json as JSON), all else as JSON."""

    async def wait(client: TinyWorkflowClient) -> Any:
        try:
            return await client.get_result(run_id, timeout)
        except TimeoutError:
            raise TimeoutError(f"run {run_id!r} has not ended within {timeout:g} s") from None

    _show_value(ask(context, wait), as_json)


@cli.command(name="signal")
def send_signal(
    context: typer.Context,
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="The signal's name.")],
    payload: Annotated[str | None, typer.Option(help="Payload as JSON.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send a signal to a run."""
    data = parse("--payload", payload)
    ask(context, lambda client: client.send_signal(run_id, name, data))
    show_done(as_json, run_id=run_id, signal=name)


@cli.command()
def query(
    context: typer.Context,
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="The query's name.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Its arguments, each as JSON.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask a run's own code, and print the answer; nothing of it is recorded. Its module is needed: -w."""
    given = [parse(f"argument {text!r}", text) for text in arguments or ()]
    _show_value(ask(context, lambda client: _handled(client.query_workflow(run_id, name, *given))), as_json)


@cli.command()
def update(
    context: typer.Context,
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="The update's name.")],
    input_data: InputText = None,
    update_id: Annotated[str | None, typer.Option(help="The same id twice counts once.")] = None,
    timeout: Seconds = None,
    as_json: JsonFlag = False,
) -> None:
    """Have a run do something, wait for it, and print what it gave. Its module is needed: -w."""
    data = parse("--input", input_data)

    async def wait(client: TinyWorkflowClient) -> Any:
        try:
            return await _handled(
                client.update_workflow(run_id, name, data, update_id=update_id, timeout=timeout),
            )
        except TimeoutError:
            if timeout is None:  # the handler's own
                raise
            raise TimeoutError(f"run {run_id!r} has not answered within {timeout:g} s") from None

    _show_value(ask(context, wait), as_json)


@cli.command()
def cancel(
    context: typer.Context,
    run_id: RunId,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask a run to end; it may clean up first."""
    ask(context, lambda client: client.cancel_workflow(run_id, reason))
    show_done(as_json, run_id=run_id)


async def _handled(answer: Awaitable[T]) -> T:
    """What a handler gives. It is the user's code: whatever it raises is told, not traced."""
    try:
        return await answer
    except (TinyWorkflowError, TimeoutError):
        raise
    except Exception as error:
        raise QueryError(f"{type(error).__name__}: {error}") from error


def _show_value(value: Any, as_json: bool) -> None:
    value = plain(value)
    typer.echo(value if isinstance(value, str) and not as_json else json_text(value))


def _run_view(run: WorkflowExecution) -> dict[str, Any]:
    view: dict[str, Any] = plain(run)
    return view | {"open_approvals": [approval_view(one) for one in run.open_approvals]}


def approval_view(approval: OpenApproval) -> dict[str, Any]:
    """An open approval as plain JSON data."""
    view: dict[str, Any] = plain(approval)
    for name in ("details", "form"):
        view[name] = None if view[name] is None else codec().plain(view[name])
    return view
