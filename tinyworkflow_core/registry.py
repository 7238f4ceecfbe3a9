"""Definitions: what @workflow and @activity make, and the registry that finds them by name and version.

A decorator only returns a definition. A `Registry` is given definitions, or (the default of an App) looks through all
that this process has declared; either way two definitions of one (name, version) from different places are refused.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import re
import typing
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, ParamSpec, TypeVar, overload

from .clock import Duration, seconds
from .errors import DefinitionError, DuplicateDefinitionError, InvalidInputError, UnknownWorkflowError
from .retry import RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,100}")
"""Names are part of run ids and of URLs."""

_declared: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""All that this process has declared and still holds, in that order."""
_numbers = itertools.count()


@dataclass(frozen=True, eq=False)
class ActivityDefinition(Generic[P, R]):
    """One activity. Calling it runs the plain function; inside a workflow pass it to `ctx.execute_activity`."""

    fn: Callable[P, R]
    name: str
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    """Seconds one attempt may take; None: no limit."""

    def __post_init__(self) -> None:
        _look_like(self, self.fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def options(
        self, *, name: str | None = None, retry_policy: RetryPolicy | None = None, timeout: Duration | None = None
    ) -> ActivityDefinition[P, R]:
        """The same activity with other settings, for one call or many:
        `ctx.execute_activity(charge.options(timeout="5s"), 10)`."""
        return replace(
            self,
            name=name or self.name,
            retry_policy=retry_policy or self.retry_policy,
            timeout=self.timeout if timeout is None else seconds(timeout),
        )


@dataclass(frozen=True, eq=False)
class WorkflowDefinition(Generic[R]):
    """One version of one workflow."""

    fn: Callable[..., Any]
    name: str
    version: int = 1

    def __post_init__(self) -> None:
        _look_like(self, self.fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the plain function: for unit tests that bring a context of their own."""
        return self.fn(*args, **kwargs)

    @functools.cached_property
    def _input_parameter(self) -> inspect.Parameter | None:
        parameters = list(inspect.signature(self.fn).parameters.values())
        return parameters[1] if len(parameters) > 1 else None

    @functools.cached_property
    def input_type(self) -> Any:
        """The annotation of the second parameter, resolved; None when there is none."""
        parameter = self._input_parameter
        if parameter is None or parameter.annotation is inspect.Parameter.empty:
            return None
        return _resolve(self.fn, parameter.annotation)

    @functools.cached_property
    def _adapter(self) -> Any:
        from pydantic import TypeAdapter  # pydantic is a tenth of a second of cold start: only for typed workflows

        return TypeAdapter(self.input_type)

    def validate(self, input_data: Any) -> Any:
        """The input as the workflow will receive it. Raises InvalidInputError naming each field that does not fit, and
        DefinitionError when the annotation is none that an input could be validated by."""
        parameter = self._input_parameter
        if parameter is None or self.input_type is None:
            return input_data
        if input_data is None and parameter.default is not inspect.Parameter.empty:
            return None
        from pydantic import PydanticUserError, ValidationError

        try:
            return self._adapter.validate_python(input_data)
        except PydanticUserError as error:
            raise DefinitionError(f"input of workflow {self.name!r} cannot be validated: {error.message}") from error
        except ValidationError as error:
            errors = [
                {"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors(include_url=False)
            ]
            first = errors[0]
            place = ".".join(str(part) for part in first["loc"]) or "input"
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            raise InvalidInputError(f"input of workflow {self.name!r}: {place}: {first['msg']}{more}", errors) from None

    def input_schema(self) -> dict[str, Any] | None:
        """JSON schema of the input; None for a workflow that takes anything."""
        if self.input_type is None:
            return None
        return typing.cast("dict[str, Any]", self._adapter.json_schema())

    def call(self, context: Any, input_data: Any) -> Any:
        """The workflow's coroutine, given what its signature asks for."""
        if self._input_parameter is None or (
            input_data is None and self._input_parameter.default is not inspect.Parameter.empty
        ):
            return self.fn(context)
        return self.fn(context, input_data)


@overload
def activity(fn: Callable[P, R], /) -> ActivityDefinition[P, R]: ...
@overload
def activity(
    name: str | None = None, retry_policy: RetryPolicy | None = None, timeout: Duration | None = None
) -> Callable[[Callable[P, R]], ActivityDefinition[P, R]]: ...
def activity(name: Any = None, retry_policy: RetryPolicy | None = None, timeout: Duration | None = None) -> Any:
    """Declare an activity: a function that touches the world, run once per step and retried by its policy.

    - name: how the history calls it; the function's own name unless given.
    - retry_policy: `RetryPolicy()` unless given.
    - timeout: the longest that one attempt may take; it fails with TimeoutError. A sync function runs in a thread,
      which cannot be stopped: its result is then ignored.
    """

    def declare(fn: Callable[P, R]) -> ActivityDefinition[P, R]:
        if not callable(fn):
            raise DefinitionError(f"@activity goes on a function, not on {fn!r}")
        called = name if isinstance(name, str) else getattr(fn, "__name__", "")
        if not called:
            raise DefinitionError(f"{fn!r} has no name of its own; give it one: @activity(name=...)")
        return _declare(
            ActivityDefinition(
                fn=fn,
                name=called,
                retry_policy=retry_policy or RetryPolicy(),
                timeout=None if timeout is None else seconds(timeout),
            )
        )

    return declare(name) if callable(name) else declare


@overload
def workflow(fn: Callable[..., R], /) -> WorkflowDefinition[R]: ...
@overload
def workflow(name: str | None = None, *, version: int = 1) -> Callable[[Callable[..., R]], WorkflowDefinition[R]]: ...
def workflow(name: Any = None, *, version: int = 1) -> Any:
    """Declare a workflow: an `async def` whose first parameter is the WorkflowContext.

    A second parameter receives the input; with an annotation (pydantic model, dataclass, TypedDict, builtin) the input
    is validated before a run exists. Raises DefinitionError for a function that cannot be one.
    """

    def declare(fn: Callable[..., R]) -> WorkflowDefinition[R]:
        if not inspect.iscoroutinefunction(fn):
            raise DefinitionError(f"@workflow goes on an `async def` function, not on {fn!r}")
        parameters = inspect.signature(fn).parameters.values()
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if not 1 <= len(parameters) <= 2 or any(one.kind not in positional for one in parameters):
            raise DefinitionError(f"workflow {fn.__name__!r} takes the context and at most one input, by position")
        if type(version) is not int or version < 1:  # True is an int as well
            raise DefinitionError(f"version of workflow {fn.__name__!r} must be a whole number from 1, not {version!r}")
        called = name if isinstance(name, str) else fn.__name__
        if not _NAME.fullmatch(called):
            raise DefinitionError(f"workflow name {called!r}: use 1 to 100 printable characters, and no slash")
        return _declare(WorkflowDefinition(fn=fn, name=called, version=version))

    return declare(name) if callable(name) else declare


class Registry:
    """Finds definitions. Without arguments it knows all that this process has declared, now and later."""

    def __init__(
        self, definitions: Iterable[WorkflowDefinition[Any] | ActivityDefinition[Any, Any]] | None = None
    ) -> None:
        self._knows_all = definitions is None
        self._given: list[Any] = []
        for one in definitions or ():
            self.add(one)

    def add(self, definition: WorkflowDefinition[Any] | ActivityDefinition[Any, Any]) -> None:
        """Know one more. Raises DuplicateDefinitionError when its (name, version) is taken by another place."""
        if isinstance(definition, WorkflowDefinition):
            _unique([*(one for one in self._workflows() if one.name == definition.name), definition])
        self._given.append(definition)

    def workflow(self, name: str, version: int | None = None) -> WorkflowDefinition[Any]:
        """The definition of that version, or of the highest. Raises UnknownWorkflowError."""
        found = {d.version: d for d in _unique(d for d in self._workflows() if d.name == name)}
        if not found:
            names = sorted({d.name for d in self._workflows()})
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names) or 'none'}"
            raise UnknownWorkflowError(f"no workflow {name!r} is registered; {hint}")
        if version is None:
            return found[max(found)]
        if version not in found:
            known = ", ".join(str(v) for v in sorted(found))
            raise UnknownWorkflowError(f"workflow {name!r} has no version {version} here; known: {known}")
        return found[version]

    def workflows(self) -> list[WorkflowDefinition[Any]]:
        """All workflows, by name and version."""
        return sorted(_unique(self._workflows()), key=lambda d: (d.name, d.version))

    def activities(self) -> list[ActivityDefinition[Any, Any]]:
        """All activities, by name."""
        found = {d.name: d for d in self._known() if isinstance(d, ActivityDefinition)}
        return [found[name] for name in sorted(found)]

    def _workflows(self) -> list[WorkflowDefinition[Any]]:
        return [d for d in self._known() if isinstance(d, WorkflowDefinition)]

    def _known(self) -> list[Any]:
        return [*self._given, *(_declared.values() if self._knows_all else ())]


def _declare(definition: D) -> D:
    _declared[next(_numbers)] = definition
    return definition


def _look_like(definition: Any, fn: Callable[..., Any]) -> None:
    """functools.update_wrapper for a frozen record."""
    for name in functools.WRAPPER_ASSIGNMENTS:
        if hasattr(fn, name):
            object.__setattr__(definition, name, getattr(fn, name))
    object.__setattr__(definition, "__wrapped__", fn)


def _unique(definitions: Iterable[WorkflowDefinition[Any]]) -> list[WorkflowDefinition[Any]]:
    found: dict[tuple[str, int], WorkflowDefinition[Any]] = {}
    for one in definitions:
        other = found.get((one.name, one.version), one)
        found[one.name, one.version] = one  # the latest: an earlier one is of a module that was since reloaded
        if not _same_place(one.fn, other.fn):
            raise DuplicateDefinitionError(
                f"workflow {one.name!r} version {one.version} is defined twice: at {_place(other.fn)} and at "
                f"{_place(one.fn)}; give one of them another name or version"
            )
    return list(found.values())


def _same_place(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    # A reloaded module defines the same name again; a script is also importable under its own name.
    named = (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
    return named or _place(one) == _place(other)


def _place(fn: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{fn.__module__}:{fn.__qualname__}"


def _resolve(fn: Callable[..., Any], annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    fn = inspect.unwrap(fn)  # a decorator's wrapper lives in the decorator's module

    def holder() -> None: ...

    # Only this one annotation: the context's is often imported for type checkers alone and cannot be resolved.
    holder.__annotations__ = {"input": annotation}
    try:
        return typing.get_type_hints(holder, fn.__globals__, dict(inspect.getclosurevars(fn).nonlocals))["input"]
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise DefinitionError(
            f"the input annotation {annotation!r} of workflow {fn.__name__!r} cannot be resolved ({error}); "
            "import or define that class at module level"
        ) from error
