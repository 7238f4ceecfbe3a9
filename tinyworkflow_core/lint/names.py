"""What a name in a function stands for, found without running anything.

Scopes are Python's: parameters and assignments hide what is outside, imports inside of the function are followed as far
as sys.modules knows them. Attributes are looked up on modules and classes, in their dictionaries; an instance is known
only by its class, so no property and no `__getattr__` ever runs. What cannot be found is None.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

from .rules import NAMES
from .source import Source

UNKNOWN: Final = object()
"""The value of what has only a name: an attribute of a module that is not imported, say."""

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Known(NamedTuple):
    """What a name stands for."""

    names: tuple[str, ...]
    """What a rule may call it, the name as it is written first."""
    value: Any = UNKNOWN
    is_path: bool = False
    """A path made in this function; then the value is its class."""

    @property
    def is_class(self) -> bool:
        return issubclass(type(self.value), type) and not self.is_path


Scope = dict[str, Known | ast.expr | None]
"""What is bound in a function: an import, the expression of the one assignment, or something unknown."""


class Names:
    """The names of one function. The scopes inside of it are opened and closed by whoever reads the tree."""

    def __init__(self, source: Source, documented: Mapping[int, str]) -> None:
        """`documented`: of `documented_names()`."""
        self._source = source
        self._scopes: list[Scope] = []
        self._documented = documented

    @contextmanager
    def scope(self, nodes: Iterable[ast.AST], arguments: ast.arguments | None = None) -> Iterator[None]:
        """Everything that these nodes bind is local until the end of the block."""
        bound = _Bindings(self, walrus=":=" in self._source.text)
        if arguments is not None:
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            bound.found.update({one.arg: None for one in every if one is not None})
        for node in nodes:
            bound.visit(node)
        self._scopes.append({name: value for name, value in bound.found.items() if name not in bound.elsewhere})
        try:
            yield
        finally:
            self._scopes.pop()

    def known(self, node: ast.expr) -> Known | None:
        """What this expression stands for."""
        match node:
            case ast.Name(id=name):
                return self._look_up(name)
            case ast.Attribute(value=value, attr=attribute):
                base = self.known(value)
                return self.attribute(base, attribute) if base else None
            case ast.Call(func=ast.Attribute(value=value, attr="options")):
                base = self.known(value)
                return base if base and is_activity(base.value) else None  # a variant of an activity is one as well
            case ast.Call(func=func):
                made = self.known(func)
                if made is None or not made.is_class:
                    return None
                # Of all that a workflow may make here, only a path reaches out of the process once it is used.
                return made._replace(is_path=True) if _is_path_class(made.value) else None
            case ast.BinOp(left=left, op=ast.Div()):
                made = self.known(left)
                if made is None or made.is_path:
                    return made
                kind = type(made.value)  # ROOT / "x", and ROOT is a variable of the module
                return made._replace(value=kind, is_path=True) if _is_path_class(kind) else None
        return None

    def is_unheard_of(self, name: str) -> bool:
        """Neither bound in the function nor outside of it, so far."""
        inside = any(name in scope for scope in self._scopes)
        return not (inside or any(name in outside for outside in self._outside()))

    def attribute(self, base: Known, attribute: str) -> Known | None:
        """What `base.attribute` stands for."""
        written = tuple(f"{name}.{attribute}" for name in base.names)
        if base.value is UNKNOWN:
            return Known(written)
        kind = type(base.value)
        if issubclass(kind, ModuleType):
            value = _contents(base.value).get(attribute, UNKNOWN)
            return Known(written if value is UNKNOWN else written + self._names_of(value), value)
        found: list[str] = []
        for one in (base.value if issubclass(kind, type) else kind).__mro__:
            found += [f"{name}.{attribute}" for name in self._names_of(one)]
            if attribute in vars(one):
                return Known(tuple(found), vars(one)[attribute])
        return Known(tuple(found))

    def imported(self, module: str, level: int = 0) -> Known:
        """A module by the name that an import statement gives it."""
        if level:
            package = self._source.globals.get("__package__")
            try:
                module = importlib.util.resolve_name("." * level + module, package)
            except (ImportError, TypeError):
                return Known(())
        value = sys.modules.get(module)
        return Known((module,), UNKNOWN if value is None else value)

    def _outside(self) -> tuple[Mapping[str, Any], ...]:
        return self._source.closure, self._source.globals, vars(builtins)

    def _look_up(self, name: str) -> Known | None:
        for scope in reversed(self._scopes):
            if name in scope:
                bound = scope[name]
                if bound is None or isinstance(bound, Known):
                    return bound
                scope[name] = None  # `path = path / "x"` would ask for ever
                made = self.known(bound)
                scope[name] = kept = made if made and (made.is_path or is_activity(made.value)) else None
                return kept
        for outside in self._outside():
            if name in outside:
                return Known(self._names_of(outside[name]), outside[name])
        return None

    def _names_of(self, value: Any) -> tuple[str, ...]:
        if documented := self._documented.get(id(value)):
            return (documented,)
        kind = type(value)
        if issubclass(kind, ModuleType):
            title = _contents(value).get("__name__")
            return (title,) if title else ()
        if issubclass(kind, type | FunctionType):
            return (f"{value.__module__}.{value.__qualname__}",)
        if issubclass(kind, BuiltinFunctionType) or (kind is MethodType and type(value.__func__) is FunctionType):
            owner = value.__self__ if issubclass(type(value.__self__), type) else type(value.__self__)
            module = value.__module__ or owner.__module__
            name, full_name = value.__name__, value.__qualname__
            if _contents(sys.modules.get(module)).get(name) is value:
                return (f"{module}.{name}",)  # random.randint is a method of a hidden instance
            return (f"{module}.{full_name}",)
        return ()


class _Bindings(ast.NodeVisitor):
    """Collects what a scope binds, without entering the scopes inside of it."""

    def __init__(self, names: Names, walrus: bool) -> None:
        self.names = names
        self.walrus = walrus
        self.found: Scope = {}
        self.elsewhere: set[str] = set()
        """Declared `global` or `nonlocal`."""

    def visit(self, node: ast.AST) -> None:
        # An expression that is read binds nothing, unless there is a walrus in it: most of a tree is skipped here.
        if self.walrus or not isinstance(node, ast.expr) or isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
            super().visit(node)

    def bind(self, name: str, value: Known | ast.expr | None = None) -> None:
        before = self.found.get(name)
        same = isinstance(before, Known) and isinstance(value, Known) and before.names == value.names
        self.found[name] = value if same or name not in self.found else None

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.bind(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        match node.targets:
            case [ast.Name(id=name)]:
                self.bind(name, node.value)
                self.visit(node.value)
            case _:
                self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for one in node.names:
            top = one.name.partition(".")[0]
            self.bind(one.asname or top, self.names.imported(one.name if one.asname else top))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self.names.imported(node.module or "", node.level)
        for one in node.names:
            self.bind(one.asname or one.name, self.names.attribute(module, one.name))

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.elsewhere.update(node.names)

    visit_Nonlocal = visit_Global

    def visit_definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.bind(node.name)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_definition

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def visit_comprehension_of_any_kind(self, node: Comprehension) -> None:
        for inside in ast.walk(node):
            if isinstance(inside, ast.NamedExpr):  # the one way out of a comprehension
                self.bind(inside.target.id)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_of_any_kind

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bind(node.name)
        self.generic_visit(node)

    def visit_pattern(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self.bind(node.name)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = visit_pattern

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self.bind(node.rest)
        self.generic_visit(node)


def _is_path_class(value: type) -> bool:
    return any(one.__module__.startswith("pathlib") for one in value.__mro__)


def is_activity(value: Any) -> bool:
    """A definition made by @activity: known by its class's name, because that class stands above this module."""
    return _is_ours(type(value), "ActivityDefinition")


def is_workflow(value: Any) -> bool:
    """A definition made by @workflow."""
    return _is_ours(type(value), "WorkflowDefinition")


def declares(value: Any) -> str | None:
    """ "activity" or "workflow", when that is the decorator."""
    return next((name for name in ("activity", "workflow") if _is_ours(value, name)), None)


def _is_ours(value: Any, name: str) -> bool:
    if not issubclass(type(value), type | FunctionType):
        return False
    house = __name__.partition(".")[0] + "."
    return value.__name__ == name and str(value.__module__).startswith(house)


def _contents(module: Any) -> dict[str, Any]:
    # Past the module's own __getattribute__: a lazily loaded one would be imported by the question.
    return object.__getattribute__(module, "__dict__") if issubclass(type(module), ModuleType) else {}


_PLACES = tuple(dict.fromkeys(part for place, _ in NAMES for part in (place, place.rpartition(".")[0]) if part))


def documented_names() -> Mapping[int, str]:
    """The table's names for objects and modules that call themselves otherwise: os.stat is `posix.stat`."""
    modules = [sys.modules.get(place) for place in _PLACES]
    # By their sizes too: a module may load some of its names late, or be in the middle of its import.
    return _documented(tuple((id(one), len(_contents(one))) for one in modules))[0]


@functools.lru_cache(maxsize=1)
def _documented(modules: tuple[tuple[int, int], ...]) -> tuple[dict[int, str], list[Any]]:
    """By these modules, and what has to be kept so that nothing else gets one of the ids."""
    found: dict[int, str] = {}
    kept: list[Any] = [sys.modules.get(place) for place in _PLACES]
    for place, names in NAMES:
        module = sys.modules.get(place)
        if module is not None:
            found.setdefault(id(module), place)
            contents = _contents(module)
            for name in names:
                if name in contents:
                    found.setdefault(id(contents[name]), f"{place}.{name}")
                    kept.append(contents[name])
        else:
            above, _, last = place.rpartition(".")
            if (value := _contents(sys.modules.get(above)).get(last)) is not None:  # a class
                found[id(value)] = place
                kept.append(value)
    return found, kept
