"""Narrowing: a process has Typer make the one command that it was started for. All of them take as long to make as
Typer takes to import, at every start."""

from __future__ import annotations

from collections.abc import Sequence

import typer

_WITH_VALUE = frozenset({"--db", "--url", "-w", "--workflows", "--import-workflows"})
_WITHOUT = frozenset({"-q", "--quiet"})


def narrow(cli: typer.Typer, words: Sequence[str]) -> None:
    """Leave out of `cli` all commands but the one that these words name. Nothing is left out where they name none: all
    are needed to list them, and to say what an unknown word may have meant."""
    name = _named(words)
    commands = [one for one in cli.registered_commands if name == (one.name or getattr(one.callback, "__name__", ""))]
    groups = [one for one in cli.registered_groups if name == one.name]
    if commands or groups:
        cli.registered_commands, cli.registered_groups = commands, groups


def _named(words: Sequence[str]) -> str | None:
    """The word that stands where the command does; None where only the parser can say."""
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            return word
        if word in _WITH_VALUE:
            next(rest, None)
        elif word not in _WITHOUT and word.partition("=")[0] not in _WITH_VALUE:
            return None
    return None
