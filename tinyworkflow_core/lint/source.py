"""The source of one function: its syntax tree with the line numbers of the file, and the lines a comment says are fine.

Reads files, runs nothing. What has no source, or another one than the code was made of, is None.
"""

from __future__ import annotations

import ast
import functools
import inspect
import io
import linecache
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import field
from types import CellType, FunctionType, MethodType
from typing import Any

from ..records import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_OK = re.compile(r"#\s*tinyworkflow:\s*ok\b")
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError)
"""What Python's own parsers raise for text that is no Python, or too deep."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """One function to be read."""

    file: str
    module: str
    tree: Function
    above: int
    """Lines of the file above the tree's line 1."""
    text: str
    """What the tree was made of."""
    globals: Mapping[str, Any]
    closure: Mapping[str, Any] = field(default_factory=dict)
    """Without those variables that have no value yet."""

    @functools.cached_property
    def ok_lines(self) -> frozenset[int]:
        """Lines of the tree with the comment `# tinyworkflow: ok`."""
        return _ok_lines(self.text)

    @property
    def place(self) -> tuple[str, int]:
        """Tells it from every other function."""
        return self.file, self.above + self.tree.lineno


def plain_function(fn: Any) -> FunctionType | None:
    """The function below decorators, partials and caches; None for anything else that can be called."""
    for _ in range(100):  # wrappers may form a circle
        kind = type(fn)  # never isinstance: it asks the object for its __class__, and a proxy runs code for that
        if issubclass(kind, MethodType):
            fn = fn.__func__
        elif issubclass(kind, functools.partial):
            fn = fn.func
        elif "__wrapped__" in (own := _own_names(fn)):
            fn = own["__wrapped__"]
        else:
            return fn if issubclass(kind, FunctionType) else None
    return None


def of_function(fn: FunctionType) -> Source | None:
    """The source that this function was compiled from."""
    code = fn.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, fn.__globals__)
    found = _parse(lines, code.co_firstlineno - 1, code.co_name)
    if found is None:
        return None
    tree, above, text = found
    arguments = tree.args.posonlyargs + tree.args.args
    if tuple(one.arg for one in arguments) != code.co_varnames[: code.co_argcount]:
        return None  # the file was changed since
    return Source(
        file=code.co_filename,
        module=fn.__module__,
        tree=tree,
        above=above,
        text=text,
        globals=fn.__globals__,
        closure=_closure(fn),
    )


def further_down(here: Source, name: str) -> Source | None:
    """The function of that name at the top level of the same file: while a module is still being imported, what stands
    below does not exist yet."""
    lines = linecache.getlines(here.file)
    header = re.compile(rf"(async\s+)?def\s+{re.escape(name)}\b")
    at = next((number for number, line in enumerate(lines) if header.match(line)), None)
    if at is None:
        return None
    top = at
    while top and lines[top - 1].strip():
        top -= 1
    first = next((number for number in range(top, at) if lines[number].startswith("@")), at)
    found = _parse(lines, first, name)
    if found is None:
        return None
    tree, above, text = found
    return Source(file=here.file, module=here.module, tree=tree, above=above, text=text, globals=here.globals)


def _own_names(fn: Any) -> Mapping[str, Any]:
    try:
        own = object.__getattribute__(fn, "__dict__")
    except AttributeError:
        return {}
    return own if type(own) is dict else {}


def _closure(fn: FunctionType) -> dict[str, Any]:
    found = {}
    cells: Sequence[CellType] = fn.__closure__ or ()
    for name, cell in zip(fn.__code__.co_freevars, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # assigned further down
            continue
    return found


def _parse(lines: list[str], start: int, name: str) -> tuple[Function, int, str] | None:
    if not 0 <= start < len(lines):
        return None
    # Indented code stands under an `if`: taking the indentation away would change the text inside of strings.
    under = "if 1:\n" if lines[start][:1].isspace() else ""
    for block in (_indented_block, inspect.getblock):
        try:
            text = under + "".join(block(lines[start:]))
            found = _find(ast.parse(text), name)
        except _UNREADABLE:
            continue
        return None if found is None else (found, start - bool(under), text)
    return None


def _indented_block(lines: list[str]) -> list[str]:
    """The lines of a function by their indentation: far faster than by their tokens. Text in the first columns can cut
    it short, but only where what is left is no Python."""
    margin = len(lines[0]) - len(lines[0].lstrip())
    begun = not lines[0].lstrip().startswith("@")
    for number, line in enumerate(lines[1:], 1):
        bare = line.lstrip()
        if not bare or bare.startswith("#") or len(line) - len(bare) > margin:
            continue
        if begun and not bare.startswith((")", "]", "}")):
            return lines[:number]
        begun = begun or bare.startswith(("def ", "async "))
    return lines


def _find(tree: ast.Module, name: str) -> Function | None:
    if name == "<lambda>":
        lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
        return lambdas[0] if len(lambdas) == 1 else None  # of two in a line nobody can tell which one it is
    first = tree.body[0] if tree.body else None  # comments alone, where the file was changed since
    if isinstance(first, ast.If):
        first = first.body[0]
    return first if isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) and first.name == name else None


def _ok_lines(text: str) -> frozenset[int]:
    if "tinyworkflow:" not in text:
        return frozenset()
    found = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and _OK.search(token.string):
                found.add(token.start[0])
    except _UNREADABLE:
        pass  # a lambda out of the middle of its statement: what was found so far counts
    return frozenset(found)
