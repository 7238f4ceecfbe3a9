"""`tinyworkflow init`: a new project that can be tested, served here and deployed as it stands."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from ..errors import ConfigurationError
from .console import JsonFlag, cli, saying_what_failed
from .printing import show_json

MOST_CHARACTERS = 40
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_TAKEN = frozenset({"functions-framework", "pytest", "pytest-asyncio", "test", "tinyworkflow", "tinyworkflow-core"})
_FILES = {
    "main.py": "main.py.txt",
    "workflows.py": "workflows.py.txt",
    "test_workflows.py": "test_workflows.py.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    ".gcloudignore": "gcloudignore.txt",
}
"""Each file of a project, and its template in the folder `project_files`. In these, $$ is a dollar sign."""


@cli.command()
def init(
    name: Annotated[str, typer.Argument(help="The project's name, and the folder that is made for it here.")],
    as_json: JsonFlag = False,
) -> None:
    """Make a project: functions to deploy, a workflow, and its test."""
    with saying_what_failed():
        folder = make_project(name, Path.cwd())
    if as_json:
        show_json({"folder": str(folder), "files": list(_FILES)})
        return
    typer.echo(f"Made {name}: {', '.join(_FILES)}\n\n    cd {name}\n    pytest\n    tinyworkflow dev\n")


def make_project(name: str, parent: Path) -> Path:
    """Write the files into the folder `name` in `parent` and return it.

    Raises ConfigurationError for a name that is none and for a folder that is not empty; nothing is written then.
    """
    _check(name)
    folder = parent / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is there already, and not an empty folder: choose another name")
    written = {file: _filled(template, name) for file, template in _FILES.items()}
    folder.mkdir(exist_ok=True)
    for file, text in written.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def _check(name: str) -> None:
    if len(name) > MOST_CHARACTERS or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"NAME: {name!r} cannot be the name of a service; take at most {MOST_CHARACTERS} small letters, digits and "
            "single hyphens, beginning with a letter, such as order-desk"
        )
    if name in _TAKEN:
        raise ConfigurationError(f"NAME: {name!r} is the name of a package that the project needs; choose another one")


def _filled(template: str, name: str) -> str:
    text = files(__package__).joinpath("project_files", template).read_text(encoding="utf-8")
    # Asked of the package that is loaded: the project is known to work with that release.
    release = sys.modules[__name__.partition(".")[0]].__version__
    return Template(text).substitute(name=name, version=release)
