"""Project: what the nearest pyproject.toml says in `[tool.tinyworkflow]`, so that nobody has to say it on every call.

    [tool.tinyworkflow]
    workflows = ["my_workflows"]
    database_url = "sqlite:///runs.db"      # a relative path begins at the folder of this file
    url = "https://flows.example.com"       # or a deployment

It never holds a key: that is TINYWORKFLOW_API_KEY.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..records import dataclass

_KNOWN = frozenset({"workflows", "database_url", "url"})
_SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """The table, checked. Without one all of it is empty."""

    folder: Path | None = None
    """Where the file is; its modules can be imported from there."""
    workflows: tuple[str, ...] = ()
    database_url: str | None = None
    url: str | None = None


def find_project(start: Path) -> Project:
    """The table of the nearest pyproject.toml, from `start` upwards. Raises ConfigurationError for one that does not
    fit; it names the file and the field."""
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            return _read(file)
    return Project()


def _read(file: Path) -> Project:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{file}: {error}") from None
    tool = data.get("tool", {})
    table = tool.get("tinyworkflow", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict) or (unknown := set(table) - _KNOWN):
        what = f"there is no setting {sorted(unknown)[0]!r}" if isinstance(table, dict) else "a table is needed"
        raise ConfigurationError(f"{file}, [tool.tinyworkflow]: {what}; there are {', '.join(sorted(_KNOWN))}")
    modules = table.get("workflows", [])
    if not isinstance(modules, list) or not all(isinstance(one, str) and one for one in modules):
        raise ConfigurationError(f"{file}, [tool.tinyworkflow]: workflows is a list of modules, such as ['shop']")
    return Project(
        folder=file.parent,
        workflows=tuple(modules),
        database_url=_from_here(_text(file, table, "database_url"), file.parent),
        url=_text(file, table, "url"),
    )


def _text(file: Path, table: dict[str, Any], name: str) -> str | None:
    value = table.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise ConfigurationError(f"{file}, [tool.tinyworkflow]: {name} is a text, not {value!r}")
    return value


def _from_here(url: str | None, folder: Path) -> str | None:
    """The URL, with the path of an SQLite file as it is meant from that folder."""
    if url is None or not url.startswith(_SQLITE):
        return url
    path = url.removeprefix(_SQLITE)
    return url if path.startswith((":", "/")) or not path else f"{_SQLITE}{folder / path}"
