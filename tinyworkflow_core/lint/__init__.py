"""A static check of a workflow function: what in it could not be repeated by a replay.

Read is the source of the function, of what is defined inside of it, and of the plain functions of the same module
that it calls by name, two calls deep. Not read: activities, other workflows, methods, other modules, and whatever is
handed to `ctx.side_effect(...)`. Nothing of the user's code runs.

Better silent than wrong: a name that cannot be traced to a module, a class or a function (a parameter, an attribute of
an object made elsewhere, a name assigned twice) is not reported, nor is a function without source. The replay itself
still refuses what gets past.

A comment `# tinyworkflow: ok` silences a line, on that line or on the first or last one of its statement; a reason may
follow. At a call of a helper it says that the helper is fine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .names import documented_names
from .reader import Finding, Reader
from .source import Source, of_function, plain_function

__all__ = ["Finding", "check", "describe"]

_CALLS_DEEP = 2


def check(fn: Callable[..., Any]) -> list[Finding]:
    """All findings in a workflow function (or its definition), by file and line, each once. Raises nothing."""
    function = plain_function(fn)
    first = function and of_function(function)
    findings: set[Finding] = set()
    seen: set[tuple[str, int]] = set()
    level: list[Source] = [first] if first else []
    documented = documented_names()
    for _ in range(1 + _CALLS_DEEP):
        below: list[Source] = []
        for source in level:
            if source.place not in seen:
                seen.add(source.place)
                reader = Reader(source, documented)
                reader.read()
                findings |= reader.findings
                below += reader.helpers
        level = below
    return sorted(findings, key=lambda one: (one.file, one.line, one.what))


def describe(findings: Iterable[Finding]) -> str:
    """A line for each."""
    return "\n".join(map(str, findings))
