"""Commands that serve: `dev` for one's own machine, which follows every save, and `server`, which does not."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Modules, Settings, cli, saying_what_failed

if TYPE_CHECKING:
    from ..dev.served import Served

DEFAULT_PORT = 8080
_LOCAL_HOST = "127.0.0.1"
_DEV_PATIENCE = 1.0
_SERVER_PATIENCE = 10.0

Port = Annotated[int, typer.Option(min=0, max=65535, envvar="PORT", help="Where to listen; 0 takes a free port.")]
Source = Annotated[
    str | None,
    typer.Option(help="A file for functions-framework; else main.py, where that is one and -w is not given."),
]
Target = Annotated[str, typer.Option(envvar="FUNCTION_TARGET", help="The function in it that is served.")]
Examples = Annotated[bool, typer.Option("--examples", help="Serve some example workflows as well, and start runs.")]
AccessLog = Annotated[bool, typer.Option("--access-log", help="Print every request.")]


@cli.command()
def dev(
    context: typer.Context,
    workflows: Modules = None,
    port: Port = DEFAULT_PORT,
    source: Source = None,
    target: Target = "app",
    examples: Examples = False,
    access_log: AccessLog = False,
) -> None:
    """Serve your functions on this machine, dashboard and all, and take up every file that you save. Ctrl-C ends it."""
    from ..dev.listening import url_of
    from ..dev.served import Manner
    from ..dev.supervising import Supervisor

    served, sock = _prepare(context, workflows, (_LOCAL_HOST, port), source, target, examples)
    folders = [Path.cwd(), *([Path(served.source).parent] if served.source else [Path(served.folder)])]
    quiet = context.obj.quiet
    if not quiet:
        _say(f"{_addresses(url_of(sock))}\nEvery save is taken up; Ctrl-C ends.")
    manner = Manner(patience_seconds=_DEV_PATIENCE, access_log=access_log, quiet=quiet)
    with sock:
        Supervisor(served, sock, folders, manner, _say).run()


@cli.command()
def server(
    context: typer.Context,
    workflows: Modules = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at; beyond this machine callers need keys.")
    ] = _LOCAL_HOST,
    port: Port = DEFAULT_PORT,
    source: Source = None,
    target: Target = "app",
    examples: Examples = False,
    access_log: AccessLog = False,
) -> None:
    """Serve your functions and work on their runs in this one process, until it is told to end."""
    from ..dev.listening import url_of
    from ..dev.served import Manner, load, why_it_does_not_load
    from ..dev.serving import log_to_terminal, serve_loaded  # with the HTTP front: only where it is asked for

    served, sock = _prepare(context, workflows, (host, port), source, target, examples)
    log_to_terminal()
    try:
        app = load(served)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        sock.close()
        typer.echo(f"{why_it_does_not_load(error)}\ntinyworkflow: this code does not load", err=True)
        raise typer.Exit(1) from None
    quiet = context.obj.quiet
    if not quiet:
        _say(_addresses(url_of(sock)))
    manner = Manner(patience_seconds=_SERVER_PATIENCE, access_log=access_log, quiet=quiet)
    try:
        serve_loaded(app, served, sock, manner, say=_say, ready=lambda names: None)
    except KeyboardInterrupt:  # Ctrl-C, after everything has ended in order
        pass


def _prepare(
    context: typer.Context,
    workflows: list[str] | None,
    address: tuple[str, int],
    source: str | None,
    target: str,
    examples: bool,
) -> tuple[Served, socket.socket]:
    """What to serve, and the socket for it. The store's URL goes to the environment, where functions look for it."""
    from ..dev.listening import listen
    from ..dev.served import choose

    settings: Settings = context.obj
    before = context.parent.params.get("workflows") if context.parent is not None else None
    with saying_what_failed():
        served = choose(
            source=source,
            target=target,
            given=(*(before or ()), *(workflows or ())),
            declared=settings.project.workflows,
            folder=settings.project.folder or Path.cwd(),
            examples=examples,
        )
        os.environ["TINYWORKFLOW_DATABASE_URL"] = settings.database_url()
        return served, listen(*address)


def _addresses(url: str) -> str:
    store = os.environ["TINYWORKFLOW_DATABASE_URL"]
    return f"Dashboard  {url}/ui\nAPI        {url}/v1 (described at {url}/openapi.json)\nStore      {store}"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
