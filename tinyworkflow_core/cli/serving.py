"""A command that stays: a worker on a store, until it is interrupted. (`server` and `dev` are in dev.py.)"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import typer

from .code import bring_in
from .console import Modules, cli, run, saying_what_failed

if TYPE_CHECKING:
    from ..app import App


@cli.command()
def worker(context: typer.Context, workflows: Modules = None) -> None:
    """Work on runs until interrupted. Several workers, clients and functions may share one SQLite file."""
    from ..app import App

    bring_in(context, workflows)
    with saying_what_failed():
        url = context.obj.database_url()

    async def work() -> None:
        app = App.from_env(store=url)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await app.start_worker()
        if not context.obj.quiet:
            typer.echo(f"worker {os.getpid()} on {url}: {_names(app)}", err=True)
        await stop.wait()
        await app.close()

    run(work())


def _names(app: App) -> str:
    return ", ".join(sorted({one.name for one in app.registry.workflows()})) or "no workflows: name a module with -w"
