"""Served: what is served, in which manner, and loading it: main.py by functions-framework, or modules by create_app."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigurationError
from ..records import dataclass

if TYPE_CHECKING:
    from starlette.types import ASGIApp

DEFAULT_SOURCE = "main.py"
DEFAULT_TARGET = "app"
EXAMPLES_PREFIX = "example_"
"""How the names of the packaged examples begin."""
_OF_FUNCTIONS_FRAMEWORK = "functions_framework"
_MACHINERY = (f"{os.sep}functions_framework{os.sep}", f"{os.sep}importlib{os.sep}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What one process serves. The store is the one of TINYWORKFLOW_DATABASE_URL."""

    source: str | None
    """The file whose function `target` is served, as functions-framework does. None: `modules` are."""

    target: str = DEFAULT_TARGET
    """The function's name."""

    modules: tuple[str, ...] = ()
    """What declares workflows."""

    folder: str = "."
    """Where `modules` can be imported from."""

    examples: bool = False
    """Whether the packaged examples are declared, too, and some of them started."""

    @property
    def named(self) -> str:
        """What it is, for people."""
        return ", ".join(self.modules) if self.source is None else f"{self.target} of {self.source}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How a process serves."""

    patience_seconds: float
    """How long requests under way may take when it is to stop."""

    access_log: bool = False
    """Whether each request is printed."""

    greet: bool = True
    """Whether a curl to try is printed, and the examples are started."""

    quiet: bool = False
    """Whether only what is wrong is printed."""


def choose(
    *,
    source: str | None,
    target: str,
    given: tuple[str, ...],
    declared: tuple[str, ...],
    folder: Path,
    examples: bool = False,
) -> Served:
    """What to serve: the file that was asked for; else the modules that were `given`; else the main.py that is here or
    in the project's `folder`, where that is one for functions-framework; else the modules that the project has
    `declared`; else the examples alone.

    Raises ConfigurationError when there is nothing of all that.
    """
    if source is not None and not Path(source).is_file():
        raise ConfigurationError(f"--source: there is no file {source!r}")
    if source is None and not given:
        here = [Path(DEFAULT_SOURCE), folder / DEFAULT_SOURCE]
        source = next((str(one) for one in here if _is_for_functions_framework(one)), None)
    modules = given if source is not None else given or declared
    if source is None and not modules and not examples:
        raise ConfigurationError(
            "there is nothing to serve: name a module with -w, or have a main.py for functions-framework here "
            "(`tinyworkflow init NAME` makes a project; --examples serves some examples)"
        )
    return Served(source=source, target=target, modules=modules, folder=str(folder), examples=examples)


def _is_for_functions_framework(file: Path) -> bool:
    """Whether it says so. It is not run to find out: many a main.py is something else."""
    try:
        return _OF_FUNCTIONS_FRAMEWORK in file.read_text(errors="replace")
    except OSError:
        return False


def load(served: Served) -> ASGIApp:
    """Import the code and return what answers. Raises whatever the user's code raises."""
    if served.examples:
        importlib.import_module(".examples", __package__)
    if served.modules:
        sys.path[:0] = [os.getcwd(), served.folder]
    for module in served.modules:
        importlib.import_module(module)
    if served.source is None:
        from ..app import App
        from ..http import create_app

        return create_app(App.from_env(), emulate=True)
    from functions_framework import aio

    create: Any = aio.create_asgi_app  # it has no types
    os.environ["FUNCTION_TARGET"] = served.target  # as the platform and functions-framework's own command do
    return cast("ASGIApp", create(served.target, served.source))


def why_it_does_not_load(error: BaseException) -> str:
    """A traceback from the user's first line on, without what led there."""
    told = traceback.TracebackException.from_exception(error)
    for one in _chain(told):
        begun = [place for place, frame in enumerate(one.stack) if frame.filename == __file__]
        del one.stack[: begun[-1] + 1 if begun else 0]
        while len(one.stack) > 0 and _is_machinery(one.stack[0].filename):
            del one.stack[0]
    return "".join(told.format()).rstrip()


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or any(one in filename for one in _MACHINERY)


def _chain(told: traceback.TracebackException) -> list[traceback.TracebackException]:
    found, waiting = [], [told]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
    return found
