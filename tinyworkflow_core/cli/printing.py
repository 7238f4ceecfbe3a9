"""Printing: lines for people, JSON for programs, colours and progress where somebody looks.

Colours and bars are for a terminal only, and no colours where NO_COLOR is set. Text of others that goes to a terminal,
or into a line, has its control characters spelled out: a name must not move the cursor or hide what follows.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

Part = str | tuple[str, str]
"""A text, or a text and its style."""

STYLES = {
    "completed": "green", "failed": "red", "terminated": "red", "cancelled": "yellow", "parked": "bold red",
    "running": "blue", "retrying": "yellow", "waiting": "cyan", "paused": "magenta", "suspended": "yellow",
}  # fmt: skip
"""Of the statuses that have one."""

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def say(*parts: Part, err: bool = False) -> None:
    """Print one line, whatever is in its parts."""
    pieces = [(one, "") if isinstance(one, str) else one for one in parts]
    pieces = [(safe(text).replace("\n", "\\n").replace("\t", "\\t"), style) for text, style in pieces]
    if not is_terminal(err):
        typer.echo("".join(text for text, _ in pieces).rstrip(), err=err)
        return
    from rich.console import Console
    from rich.text import Text

    # Neither cut nor wrapped by rich: the terminal does that, and what is copied from it stays whole.
    Console(stderr=err, highlight=False).print(Text.assemble(*pieces), soft_wrap=True)


def show(value: Any) -> None:
    """Print text as it is, and everything else as JSON."""
    text = value if isinstance(value, str) else json_text(value)
    typer.echo(safe(text) if is_terminal() else text)


def show_json(value: Any) -> None:
    """Print JSON."""
    typer.echo(json_text(value))


def show_done(as_json: bool, **what: Any) -> None:
    """What a command prints that has only done something: nothing, unless for a program."""
    if as_json:
        show_json(what)


def json_text(value: Any) -> str:
    """JSON data for people."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, indent=2, ensure_ascii=False))


def short(value: Any) -> str:
    """A value in a line: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def safe(text: str) -> str:
    """The text with its control characters, but for tabs and line ends, spelled out."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def styled(status: str, width: int = 0) -> Part:
    """A status in its colour."""
    return f"{status:{width}}", STYLES.get(status, "")


def is_terminal(err: bool = False) -> bool:
    """Whether somebody looks at what is printed."""
    return (sys.stderr if err else sys.stdout).isatty()


@contextmanager
def progress(what: str, *, total: int | None = None, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while something long is done; gives what tells how many are. Nothing unless it is a terminal."""
    if quiet or not is_terminal(err=True):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
