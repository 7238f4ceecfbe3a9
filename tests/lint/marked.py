"""Modules whose lines say what is refused in them.

A line that ends in `#! a & b` is refused for exactly a and b, and every other line is fine.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from tinyworkflow_core.lint import Finding, check

Import = Callable[[str], ModuleType]

_MARK = "#! "


def refused(findings: list[Finding]) -> list[tuple[int, str]]:
    """The lines of the findings and what stands there."""
    return [(one.line, one.what) for one in findings]


def marked(module: ModuleType) -> list[tuple[int, str]]:
    """The same, as the module's lines say."""
    lines = Path(str(module.__file__)).read_text().splitlines()
    return [
        (number, what)
        for number, line in enumerate(lines, 1)
        if _MARK in line
        for what in sorted(line.partition(_MARK)[2].split(" & "))
    ]


def hold(module: ModuleType) -> None:
    """The findings in the module's `wf` are those that its lines are marked with."""
    assert refused(check(module.wf)) == marked(module)


def body_of(*lines: str) -> str:
    """A module whose workflow has these lines."""
    return "async def wf(ctx, order=None):\n" + textwrap.indent("\n".join(lines), "    ") + "\n"
