"""Commands that talk to a run: signals, queries, updates."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .completing import RunId
from .console import InputText, JsonFlag, ask, cli, parse
from .printing import show_done
from .reach import Reach
from .runs import Seconds, show_value


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
    ask(context, lambda reach: reach.signal(run_id, name, data))
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
    show_value(ask(context, lambda reach: reach.query(run_id, name, given), code=True), as_json)


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

    async def wait(reach: Reach) -> Any:
        try:
            return await reach.update(run_id, name, data, update_id, timeout)
        except TimeoutError:
            raise TimeoutError(f"run {run_id!r} has not answered within {timeout:g} s") from None

    show_value(ask(context, wait, code=True), as_json)
