"""Commands for operators: a worker, and what is done to runs from outside."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Annotated

import typer

from ..app import App
from .console import InputText, JsonFlag, Modules, RunId, ask, cli, import_modules, parse, run, show, show_done

Reason = Annotated[str | None, typer.Option(help="Why, for the history.")]


@cli.command()
def worker(context: typer.Context, workflows: Modules = None) -> None:
    """Work on runs until interrupted. Several workers, clients and functions may share one SQLite file."""
    import_modules(workflows)

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

    run(work())


@cli.command()
def terminate(context: typer.Context, run_id: RunId, reason: Reason = None, as_json: JsonFlag = False) -> None:
    """End a run by force: its code is not asked, nothing is cleaned up."""
    ask(context, lambda client: client.terminate_workflow(run_id, reason))
    show_done(as_json, run_id=run_id)


@cli.command()
def suspend(context: typer.Context, run_id: RunId, reason: Reason = None, as_json: JsonFlag = False) -> None:
    """Put a run aside until it is resumed."""
    ask(context, lambda client: client.suspend_workflow(run_id, reason))
    show_done(as_json, run_id=run_id)


@cli.command()
def resume(context: typer.Context, run_id: RunId, as_json: JsonFlag = False) -> None:
    """Let a suspended run go on; have a parked one tried again."""
    ask(context, lambda client: client.resume_workflow(run_id))
    show_done(as_json, run_id=run_id)


@cli.command()
def retry(context: typer.Context, run_id: RunId, as_json: JsonFlag = False) -> None:
    """Have a failed or terminated run go on from where it failed."""
    ask(context, lambda client: client.retry_workflow(run_id))
    show_done(as_json, run_id=run_id)


@cli.command()
def fork(
    context: typer.Context,
    run_id: RunId,
    at_event: Annotated[int, typer.Option(help="The last event to take over, as `events` numbers them.", min=1)],
    input_data: InputText = None,
    as_json: JsonFlag = False,
) -> None:
    """Start a new run from the first events of another and print its id. Its module is needed: -w."""
    data = parse("--input", input_data)
    made = ask(context, lambda client: client.fork_workflow(run_id, at_event, data))
    show({"run_id": made} if as_json else made)


@cli.command()
def cleanup(
    context: typer.Context,
    days: Annotated[float, typer.Option(help="Keep what ended within so many days.", min=0)] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Forget runs that ended long ago, history and all, and print how many."""
    count = ask(context, lambda client: client.cleanup_old_workflows(days))
    show({"forgotten": count} if as_json else str(count))
