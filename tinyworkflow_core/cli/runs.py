"""Commands on runs: start them, look at them, wait for them. Talking to them is in talking.py."""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC
from typing import Annotated, Any

import typer

from ..clock import SystemClock
from .completing import RunId, WorkflowName, workflow_names
from .console import InputText, JsonFlag, ask, cli, parse, saying_what_failed
from .following import all_events, coming_events, event_line, watched
from .moments import moment
from .printing import say, short, show, show_json, styled
from .reach import MOST, Data, Reach, result_of

Seconds = Annotated[float | None, typer.Option("--timeout", help="Wait at most so many seconds.")]

_DRAWN = 5 * MOST
"""Events that a timeline is drawn of; a longer history is for the dashboard."""


@cli.command()
def start(
    context: typer.Context,
    name: WorkflowName,
    input_data: InputText = None,
    run_id: Annotated[str | None, typer.Option(help="An id of your own.")] = None,
    workflow_id: Annotated[str | None, typer.Option(help="What it is about, for finding it again.")] = None,
    version: Annotated[int | None, typer.Option(help="The highest unless given.", min=1)] = None,
    delay: Annotated[str | None, typer.Option(help="Begin so much later, such as 30s or 2h.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, for finding it again; may be given several times.")
    ] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key again is the same run.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the run's end, and print the result.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start a run and print its id. On a store --wait brings the run to its end here. Its module is needed: -w."""
    data, attributes = parse("--input", input_data), _attributes(attribute or ())
    quiet = as_json or context.obj.quiet

    async def begin(reach: Reach) -> Data:
        made = await reach.start(
            name,
            idempotency_key=idempotency_key,
            input=data,
            run_id=run_id,
            workflow_id=workflow_id,
            version=version,
            start_delay=delay,
            attributes=attributes,
        )
        if not as_json:
            typer.echo(made)
        if not wait:
            return {"run_id": made}
        await watched(reach, made, quiet=quiet)
        return {"run_id": made, "result": result_of(await reach.run(made))}

    done = ask(context, begin, code=True)
    if as_json:
        show_json(done)
    elif wait:
        show(done["result"])


@cli.command()
def status(context: typer.Context, run_id: RunId, as_json: JsonFlag = False) -> None:
    """Show one run, and its timeline."""
    drawing = not as_json and not context.obj.quiet

    async def look(reach: Reach) -> tuple[Data, list[Data]]:
        run = await reach.run(run_id)
        events: list[Data] = []
        if drawing:
            async for event in all_events(reach, run_id):
                events.append(event)
                if len(events) == _DRAWN:
                    break
        return run, events

    run, events = ask(context, look)
    if as_json:
        show_json(run)
    elif context.obj.quiet:
        show(run["status"])
    else:
        _describe(run)
        _draw(events)


@cli.command(name="list")
def list_runs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option("--status", "-s", help="Only runs of this status.")] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", help="Only runs of this workflow.", autocompletion=workflow_names)
    ] = None,
    workflow_id: Annotated[str | None, typer.Option(help="Only runs of this workflow_id.")] = None,
    started_after: Annotated[str | None, typer.Option(help="A moment in ISO format; UTC unless it says so.")] = None,
    started_before: Annotated[str | None, typer.Option(help="A moment in ISO format; UTC unless it says so.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", help="At most so many.", min=1)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first."""
    from ..store import Status

    with saying_what_failed():
        wanted = None if status is None else Status(status).value
    narrowed: dict[str, Any] = {
        "status": wanted,
        "workflow": workflow,
        "workflow_id": workflow_id,
        "started_after": None if started_after is None else moment("--started-after", started_after),
        "started_before": None if started_before is None else moment("--started-before", started_before),
    }

    async def gather(reach: Reach) -> list[Data]:
        found: list[Data] = []
        cursor = None
        while len(found) < limit:
            page = await reach.runs(limit=min(limit - len(found), MOST), cursor=cursor, **narrowed)
            found, cursor = found + page["runs"], page["next_cursor"]
            if cursor is None:
                break
        return found

    runs = ask(context, gather)
    if as_json:
        show_json(runs)
    for run in () if as_json else runs:
        created = run["times"]["created"][:19].replace("T", " ")
        line = [f"{created}  ", styled(run["status"], 10), f" {run['workflow']:24} {run['run_id']}"]
        say(*([run["run_id"]] if context.obj.quiet else line))


@cli.command()
def events(
    context: typer.Context,
    run_id: RunId,
    limit: Annotated[int | None, typer.Option("--limit", "-l", help="Only the latest so many.", min=1)] = None,
    after: Annotated[int, typer.Option(help="Only those after this number.", min=0)] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended; with --json an object a line.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show a run's history, oldest first."""
    if follow and limit is not None:
        raise typer.BadParameter("--limit and --follow do not go together; say --after")

    async def gather(reach: Reach) -> list[Data]:
        if follow:
            async for event in coming_events(reach, run_id, after):
                _show_event(event, as_json)
            return []
        return list(deque([one async for one in all_events(reach, run_id, after)], maxlen=limit))

    found = ask(context, gather)
    if as_json and not follow:
        show_json(found)
    for event in () if as_json else found:
        _show_event(event, as_json)


@cli.command()
def result(context: typer.Context, run_id: RunId, timeout: Seconds = None, as_json: JsonFlag = False) -> None:
    """Wait for a run to end and print what it returned: text as it is (with --json as JSON), all else as JSON."""

    async def wait(reach: Reach) -> Any:
        try:
            return result_of(await reach.wait(run_id, timeout))
        except TimeoutError:
            raise TimeoutError(f"run {run_id!r} has not ended within {timeout:g} s") from None

    show_value(ask(context, wait), as_json)


def show_value(value: Any, as_json: bool) -> None:
    """Print a value of a run."""
    (show_json if as_json else show)(value)


def _show_event(event: Data, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(event))
    else:
        say(*event_line(event))


def _describe(run: Data) -> None:
    error = run["error"]
    told = {name: value for name, value in run.items() if name not in ("times", "error", "status")}
    head = {"run_id": told.pop("run_id"), "status": run["status"]}
    told |= {"error": None if error is None else f"{error['type']}: {error['message']}", **run["times"]}
    for key, value in (head | told).items():
        if value not in (None, {}, [], 0):
            say(f"{key:16} ", styled(value) if key == "status" else short(value))


def _draw(events: list[Data]) -> None:
    from .drawing import drawn, timeline_of

    found = timeline_of(events, SystemClock().now().astimezone(UTC))
    lines = [] if found is None else drawn(found)
    if lines:
        say()
    for line in lines:
        say(*line)
    if len(events) == _DRAWN:
        say(f"(drawn of the first {_DRAWN} events)")


def _attributes(texts: Any) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for text in texts:
        name, there, value = text.partition("=")
        if not there or not name:
            raise typer.BadParameter(f"--attribute: {text!r} is not NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:  # a text, as it stands
            found[name] = value
        if isinstance(found[name], dict | list) or found[name] is None:
            found[name] = value
    return found or None
