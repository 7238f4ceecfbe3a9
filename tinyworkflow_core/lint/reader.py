"""Reads the tree of one function: what it does that a replay could not repeat, and which helpers it calls."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from contextlib import suppress
from types import FunctionType

from ..records import dataclass
from .names import UNKNOWN, Comprehension, Known, Names, declares, is_activity, is_workflow
from .rules import A_GLOBAL, A_SET, AN_ACTIVITY, BY_ATTRIBUTE, Rule, rule_for
from .source import Source, further_down, of_function, plain_function

_ORDER_DOES_NOT_MATTER = frozenset(
    f"builtins.{name}" for name in ("sorted", "set", "frozenset", "sum", "min", "max", "any", "all", "len")
)
_SETS = frozenset({"builtins.set", "builtins.frozenset"})
_COMPOUND = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.With,
             ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing in a workflow's code that a replay could not repeat."""

    file: str
    line: int
    what: str
    """What stands there: "uuid.uuid4()"."""
    why: str
    """Why it cannot: "gives another value on each replay"."""
    instead: str
    """What to write: "ctx.uuid4()"."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what} {self.why}; write {self.instead} instead"


class Reader(ast.NodeVisitor):
    """After `read()`: the findings, and the sources of the helpers that are called."""

    def __init__(self, source: Source, documented: Mapping[int, str]) -> None:
        self.findings: set[Finding] = set()
        self.helpers: list[Source] = []
        self._source = source
        self._names = Names(source, documented)
        self._statement: ast.stmt | None = None
        self._recorded: set[str] = set()
        """Names handed to `side_effect`, whose functions run once."""
        self._order_free: set[ast.expr] = set()

    def read(self) -> None:
        """Read the function, but not its decorators and defaults: those ran when it was defined."""
        tree = self._source.tree
        if "side_effect" in self._source.text:
            self._recorded = _recorded(tree)
        with suppress(RecursionError):  # of generated code, deeper than Python's stack
            self._body(tree)

    # --- what is refused ----------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        func = node.func
        if isinstance(func, ast.Attribute) and func.attr == "side_effect":
            return  # what it is given runs once, and its result is recorded
        known = self._names.known(func)
        if isinstance(func, ast.Attribute) and func.attr in BY_ATTRIBUTE:
            self._refuse(node, f"{func.attr}()", BY_ATTRIBUTE[func.attr])
        elif known is not None:
            self._judge_call(node, known)
        elif isinstance(func, ast.Name) and self._names.is_unheard_of(func.id):
            self._call_further_down(node, func.id)
        match func:
            case ast.Name():
                pass
            case ast.Attribute(value=value):
                self.visit(value)
            case _:
                self.visit(func)
        for argument in (*node.args, *node.keywords):
            self.visit(argument)

    def _judge_call(self, node: ast.Call, known: Known) -> None:
        if is_activity(known.value):
            self._refuse_activity(node)
        elif isinstance(node.func, ast.Name) and not is_workflow(known.value):
            self._follow(node, plain_function(known.value))
        if _ORDER_DOES_NOT_MATTER.intersection(known.names):
            self._order_free.update(node.args[:1])
        if found := _rule(known):
            name, rule, _ = found
            if rule.enough is None or _given(node) < rule.enough:
                self._refuse(node, f"{name}()", rule)

    def _follow(self, node: ast.Call, helper: FunctionType | None) -> None:
        if helper and helper.__module__ == self._source.module and not self._is_ok(node):
            source = of_function(helper)
            self.helpers += [source] if source else []

    def _call_further_down(self, node: ast.Call, name: str) -> None:
        source = further_down(self._source, name)
        if source is None:
            return
        match self._declared(source.tree):
            case "activity":
                self._refuse_activity(node)
            case None if not self._is_ok(node):
                self.helpers.append(source)

    def _refuse_activity(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        self._refuse(node, f"{name}()", AN_ACTIVITY, name)

    def visit_Name(self, node: ast.Name) -> None:
        self._judge_mention(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._judge_mention(node):
            self.visit(node.value)

    def _judge_mention(self, node: ast.Name | ast.Attribute) -> bool:
        """A function that is handed on will be called; classes and constants are only named."""
        known = self._names.known(node) if isinstance(node.ctx, ast.Load) else None
        found = _rule(known) if known else None
        if known is None or found is None or known.value is UNKNOWN or known.is_class:
            return False
        name, rule, itself = found
        if rule.enough is not None or not (itself or callable(known.value)):
            return False
        self._refuse(node, name, rule)
        return True

    def visit_Global(self, node: ast.Global) -> None:
        self._refuse(node, f"global {', '.join(node.names)}", A_GLOBAL)

    def visit_For(self, node: ast.For) -> None:
        self._judge_order(node.iter)
        self.generic_visit(node)

    def _judge_order(self, iterated: ast.expr) -> None:
        if self._is_set(iterated):
            self._refuse(iterated, "a loop over a set", A_SET)

    def _is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set(elts=elements):  # numbers are their own hash
                return not all(isinstance(one, ast.Constant) and isinstance(one.value, int) for one in elements)
            case ast.SetComp():
                return True
            case ast.Call(func=func, args=[_, *_]):
                known = self._names.known(func)
                return known is not None and not _SETS.isdisjoint(known.names)
            case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub()):
                return self._is_set(left) or self._is_set(right)
        return False

    # --- scopes -------------------------------------------------------------------------------

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, ast.stmt):
            super().visit(node)
            return
        outer, self._statement = self._statement, node
        super().visit(node)
        self._statement = outer

    def visit_nested_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all(*node.decorator_list, node.args)
        if node.name not in self._recorded and self._declared(node) is None:
            self._body(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_nested_function

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all(*node.decorator_list, *node.bases, *node.keywords)
        with self._names.scope(node.body):
            self._visit_all(*node.body)

    def visit_comprehension_of_any_kind(self, node: Comprehension) -> None:
        if not isinstance(node, ast.SetComp) and node not in self._order_free:
            for one in node.generators:
                self._judge_order(one.iter)
        self.visit(node.generators[0].iter)  # in the scope outside
        with self._names.scope(one.target for one in node.generators):
            self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_of_any_kind

    def visit_Assign(self, node: ast.Assign) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Lambda()) if name in self._recorded:
                return
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all(node.target, *(() if node.value is None else (node.value,)))

    def visit_arg(self, node: ast.arg) -> None:
        pass  # an annotation

    def visit_Constant(self, node: ast.Constant) -> None:
        pass

    def _body(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
        with self._names.scope(body, node.args):
            self._visit_all(*body)

    def _visit_all(self, *nodes: ast.AST) -> None:
        for node in nodes:
            self.visit(node)

    def _declared(self, tree: ast.AST) -> str | None:
        """ "activity" or "workflow" when a decorator makes one of the function."""
        for decorator in getattr(tree, "decorator_list", ()):
            known = self._names.known(decorator.func if isinstance(decorator, ast.Call) else decorator)
            if known and (kind := declares(known.value)):
                return kind
        return None

    # --- findings -----------------------------------------------------------------------------

    def _refuse(self, node: ast.expr | ast.stmt, what: str, rule: Rule, name: str | None = None) -> None:
        if self._is_ok(node):
            return
        what = what.removeprefix("builtins.")
        last = name or what.removesuffix("()").rpartition(".")[2]
        self.findings.add(
            Finding(
                file=self._source.file,
                line=self._source.above + node.lineno,
                what=what,
                why=rule.why,
                instead=rule.instead.replace("{name}", last),
            )
        )

    def _is_ok(self, node: ast.expr | ast.stmt) -> bool:
        lines = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if statement := self._statement:
            lines.add(statement.lineno)
            if not isinstance(statement, _COMPOUND) and statement.end_lineno:
                lines.add(statement.end_lineno)
        return not lines.isdisjoint(self._source.ok_lines)


def _rule(known: Known) -> tuple[str, Rule, bool] | None:
    """The first name that is refused, the rule, and whether it names just this."""
    if known.is_class and issubclass(known.value, BaseException):
        return None
    return next(((name, *found) for name in known.names if (found := rule_for(name))), None)


def _given(node: ast.Call) -> float:
    """How many arguments say something; None says as much as nothing, and `*args` may be many."""
    arguments = [*node.args, *(one.value for one in node.keywords)]
    if any(isinstance(one, ast.Starred) for one in arguments) or any(one.arg is None for one in node.keywords):
        return float("inf")
    return sum(not (isinstance(one, ast.Constant) and one.value is None) for one in arguments)


def _recorded(tree: ast.AST) -> set[str]:
    """The names in the arguments of `side_effect`, without those that the code also calls itself."""
    handed: set[str] = set()
    called: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="side_effect"), args=args, keywords=keywords):
                inside = [one for argument in (*args, *keywords) for one in ast.walk(argument)]
                handed.update(one.id for one in inside if isinstance(one, ast.Name))
            case ast.Call(func=ast.Name(id=name)):
                called.add(name)
    return handed - called
