"""Console: what the commands share: the application and its options, how a command asks, and how it fails.

Exit codes: 0 done; 1 refused, or failed for another reason; 2 the command line does not fit (`check` and `lint`: nobody
can say); 3 there is nothing of that name; 4 the run that was waited for did not complete; 5 it was not done in time;
6 the store or the deployment does not answer; 7 not allowed. `check` and `lint` end with 1 when they found something.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..errors import (
    ApprovalForbiddenError,
    ApprovalNotFoundError,
    ConfigurationError,
    RunNotFoundError,
    ScheduleNotFoundError,
    StoreUnavailableError,
    TinyWorkflowError,
    UnknownWorkflowError,
    WorkflowFailedError,
)
from ..records import dataclass
from .printing import safe
from .project import Project, find_project
from .reach import Reach

T = TypeVar("T")

_LINT = "TINYWORKFLOW_LINT"
_LOAD_THEMSELVES = frozenset({"dev", "init", "server"})
"""Commands that outlive code which does not load, or need none."""

_CODES: tuple[tuple[int, tuple[type[Exception], ...]], ...] = (
    (3, (RunNotFoundError, UnknownWorkflowError, ApprovalNotFoundError, ScheduleNotFoundError)),
    (4, (WorkflowFailedError,)),
    (5, (TimeoutError,)),
    (6, (StoreUnavailableError, ConnectionError)),
    (7, (PermissionError, ApprovalForbiddenError)),
)

cli = typer.Typer(
    name="tinyworkflow", help="Durable workflows in plain Python.", no_args_is_help=True, pretty_exceptions_enable=False
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
InputText = Annotated[str | None, typer.Option("--input", "-i", help="Input as JSON.")]
Modules = Annotated[list[str] | None, typer.Option("-w", "--workflows", "--import-workflows", help="Module to import.")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stands before the command, and what stands in for it."""

    db: str | None
    url: str | None
    project: Project
    quiet: bool = False
    has_modules: bool = False
    """Whether -w has named some; then those of the project are not looked at."""

    def target(self) -> tuple[str | None, str | None]:
        """A database's URL, or a deployment's: by the options, else the environment, else the project. Raises
        ConfigurationError where one of these names both."""
        environ, project = os.environ, self.project
        for where, db, url in (
            ("the command line", self.db, self.url),
            ("the environment", environ.get("TINYWORKFLOW_DATABASE_URL"), environ.get("TINYWORKFLOW_URL")),
            ("pyproject.toml", project.database_url, project.url),
        ):
            if db and url:
                raise ConfigurationError(f"{where} names a database and a deployment: say --db or --url, and not both")
            if db or url:
                return db or None, url or None
        return _default_database_url(), None

    def database_url(self) -> str:
        """The database, for what works on one itself. Raises ConfigurationError when --url was given."""
        if self.url:
            raise ConfigurationError("this command works on a store: give --db in place of --url")
        given = self.db or os.environ.get("TINYWORKFLOW_DATABASE_URL") or self.project.database_url
        return given or _default_database_url()

    def reach(self) -> Reach:
        """Where the runs are. Raises ConfigurationError."""
        db, url = self.target()
        if url is not None:
            from .by_http import HttpReach

            return HttpReach(url, os.environ.get("TINYWORKFLOW_API_KEY"))
        from .by_store import StoreReach  # with the engine, of which nothing is needed to ask a deployment

        return StoreReach(db or _default_database_url())

    def load_code(self, *, lint: bool = True) -> None:
        """Import the project's modules, unless -w has named others. Raises BadParameter."""
        if not self.has_modules:
            import_modules(self.project.workflows, lint=lint)


def _default_database_url() -> str:
    from ..app import DEFAULT_DATABASE_URL

    return DEFAULT_DATABASE_URL


@cli.callback()
def settings(
    context: typer.Context,
    db: Annotated[str | None, typer.Option(help="Database URL; else TINYWORKFLOW_DATABASE_URL.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Or a deployment's; else TINYWORKFLOW_URL. The key: TINYWORKFLOW_API_KEY.")
    ] = None,
    workflows: Modules = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids and values alone.")] = False,
) -> None:
    """Durable workflows in plain Python."""
    with saying_what_failed(2):
        project = find_project(Path.cwd())
    if project.folder is not None:
        sys.path.insert(0, str(project.folder))
    sys.path.insert(0, os.getcwd())
    if context.invoked_subcommand not in _LOAD_THEMSELVES:
        import_modules(workflows, lint=context.invoked_subcommand != "lint")
    found = Settings(db=db, url=url, project=project, quiet=quiet, has_modules=bool(workflows))
    if db and url:
        raise typer.BadParameter("give --db or --url, and not both")
    context.obj = found


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


def ask(
    context: typer.Context, request: Callable[[Reach], Awaitable[T]], *, failure: int | None = None, code: bool = False
) -> T:
    """What is answered by wherever the runs are. An error ends the command, on stderr and with its exit code, or with
    `failure`. `code`: the project's modules are needed where the runs are in a store."""
    found: Settings = context.obj

    async def asked() -> T:
        async with found.reach() as reach:
            return await request(reach)

    with saying_what_failed(failure):
        if code and found.target()[1] is None:
            found.load_code()
    return run(asked(), failure=failure)


def run(coro: Coroutine[Any, Any, T], *, failure: int | None = None) -> T:
    """The coroutine's result; an error ends the command, on stderr and with its exit code."""
    with saying_what_failed(failure):
        return asyncio.run(coro)


@contextlib.contextmanager
def saying_what_failed(failure: int | None = None) -> Iterator[None]:
    """Turns an error into words on stderr and an exit code: its own, or that one."""
    try:
        yield
    except (TinyWorkflowError, OSError, ValueError) as error:
        typer.echo(safe(f"tinyworkflow: {str(error) or type(error).__name__}"), err=True)
        raise typer.Exit(exit_code_of(error) if failure is None else failure) from None


def exit_code_of(error: Exception) -> int:
    """The exit code that tells this error from others."""
    return next((code for code, errors in _CODES if isinstance(error, errors)), 1)


def parse(option: str, text: str | None) -> Any:
    """JSON from the command line. Raises BadParameter."""
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} is not JSON: {error}") from None
