"""Console: what the commands share: the application and its options, how a command asks, prints and fails."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from ..app import DEFAULT_DATABASE_URL
from ..embedded import TinyWorkflowClient
from ..encryption import EncryptionCodec
from ..errors import TinyWorkflowError
from ..serialization import Codec

T = TypeVar("T")

_LINT = "TINYWORKFLOW_LINT"
_PLAIN = Codec(max_bytes=sys.maxsize)

cli = typer.Typer(
    name="tinyworkflow", help="Durable workflows in plain Python.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Argument(help="The run's id.")]
InputText = Annotated[str | None, typer.Option("--input", "-i", help="Input as JSON.")]
Modules = Annotated[list[str] | None, typer.Option("-w", "--workflows", "--import-workflows", help="Module to import.")]


@dataclass(frozen=True)
class Settings:
    """What stands before the command."""

    database_url: str


@cli.callback()
def settings(
    context: typer.Context,
    db: Annotated[str | None, typer.Option(help="Database URL; else TINYWORKFLOW_DATABASE_URL.")] = None,
    workflows: Modules = None,
) -> None:
    """Durable workflows in plain Python."""
    sys.path.insert(0, os.getcwd())
    import_modules(workflows, lint=context.invoked_subcommand != "lint")
    context.obj = Settings(db or os.environ.get("TINYWORKFLOW_DATABASE_URL", DEFAULT_DATABASE_URL))


def import_modules(modules: Iterable[str] | None, *, lint: bool = True) -> None:
    """Import what declares the workflows; without `lint` also what would be refused. Raises BadParameter."""
    with contextlib.nullcontext() if lint else _lint_off():
        for module in modules or ():
            try:
                importlib.import_module(module)
            except Exception as error:  # a module may raise anything while it is imported
                raise typer.BadParameter(
                    f"module {module!r} cannot be imported: {type(error).__name__}: {error}"
                ) from None


@contextlib.contextmanager
def _lint_off() -> Iterator[None]:
    before = os.environ.get(_LINT)
    os.environ[_LINT] = "off"
    try:
        yield
    finally:
        del os.environ[_LINT]
        os.environ |= {} if before is None else {_LINT: before}


# --- asking ----------------------------------------------------------------------------------------------


def ask(context: typer.Context, request: Callable[[TinyWorkflowClient], Awaitable[T]], *, failure: int = 1) -> T:
    """What a client of the database answers. An error ends the command, on stderr and with that exit code."""

    async def asked() -> T:
        async with TinyWorkflowClient(context.obj.database_url) as client:
            return await request(client)

    return run(asked(), failure=failure)


def run(coro: Coroutine[Any, Any, T], *, failure: int = 1) -> T:
    """The coroutine's result; an error ends the command, on stderr and with that exit code."""
    with saying_what_failed(failure):
        return asyncio.run(coro)


@contextlib.contextmanager
def saying_what_failed(failure: int = 1) -> Iterator[None]:
    """Turns an error into words on stderr and that exit code."""
    try:
        yield
    except (TinyWorkflowError, OSError, ValueError) as error:
        typer.echo(f"tinyworkflow: {str(error) or type(error).__name__}", err=True)
        raise typer.Exit(failure) from None


def parse(option: str, text: str | None) -> Any:
    """JSON from the command line. Raises BadParameter."""
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} is not JSON: {error}") from None


# --- printing --------------------------------------------------------------------------------------------


def codec() -> Codec:
    """What reads stored values here, however large."""
    return Codec(EncryptionCodec.from_env(os.environ), max_bytes=sys.maxsize)


def plain(value: Any) -> Any:
    """Any value that can be stored as plain JSON data."""
    return _PLAIN.plain(_PLAIN.encode(value))


def json_text(value: Any) -> str:
    """JSON data for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def show(value: Any) -> None:
    """Print text as it is, and everything else as JSON."""
    typer.echo(value if isinstance(value, str) else json_text(value))


def show_done(as_json: bool, **what: Any) -> None:
    """What a command prints that has only done something: nothing, unless for a program."""
    if as_json:
        show(what)
