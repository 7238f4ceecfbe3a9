"""Definitions: one activity, one version of one workflow, as frozen records, checked when they are made.

The decorators that make them, and the registry that finds them, are in registry.py.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import types
import typing
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import field, replace
from datetime import datetime
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from .clock import Duration, seconds
from .errors import DefinitionError, InvalidInputError
from .records import dataclass
from .redaction import NOTHING, Redaction
from .retry import RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")

RunOn = Literal["here", "queue"]
Lint = Literal["error", "warn", "off"]


@dataclass(frozen=True, eq=False)
class ActivityDefinition(Generic[P, R]):
    """One activity. Calling it runs the plain function; inside a workflow pass it to `ctx.execute_activity`.

    Raises DefinitionError for settings that make no sense. Times are in seconds; None: no limit.
    """

    fn: Callable[P, R]
    name: str
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    """The longest that one attempt may take."""
    total_timeout: float | None = None
    """The longest that the step may take: all attempts and the pauses between them."""
    heartbeat_timeout: float | None = None
    """The longest that an attempt may go without a heartbeat."""
    compensate: ActivityDefinition[Any, Any] | None = None
    """What undoes it: called with its result when the run fails later."""
    at_most_once: bool = False
    """Whether it is never begun a second time, come what may."""
    run_on: RunOn = "here"
    """Whether an attempt is made in the call that advances the run, or is a call of its own."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise DefinitionError(f"the name of an activity is a text, not {self.name!r}")
        self._check()
        _look_like(self, self.fn)

    def _check(self) -> None:
        about = f"activity {self.name!r}"
        if not isinstance(self.retry_policy, RetryPolicy):
            raise DefinitionError(f"{about}: retry_policy takes a RetryPolicy(...), not {self.retry_policy!r}")
        undo: Any = self.compensate  # whatever people write
        if undo is not None and not isinstance(undo, ActivityDefinition):
            hint = f"put @activity on {getattr(undo, '__name__', undo)!r}" if callable(undo) else "declare one"
            raise DefinitionError(f"{about}: compensate takes an activity, not {undo!r}; {hint}")
        if type(self.at_most_once) is not bool:
            raise DefinitionError(f"{about}: at_most_once is True or False, not {self.at_most_once!r}")
        if self.run_on not in ("here", "queue"):
            raise DefinitionError(f"{about}: run_on is 'here' or 'queue', not {self.run_on!r}")
        if self.at_most_once and self.run_on == "queue":
            raise DefinitionError(
                f"{about}: at_most_once cannot be kept with run_on='queue', for a queue may deliver a call twice; "
                "use run_on='here', or drop at_most_once and hand activity_context().idempotency_key to the service"
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def options(
        self,
        *,
        name: str | None = None,
        retry_policy: RetryPolicy | None = None,
        timeout: Duration | None = None,
        total_timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        compensate: ActivityDefinition[Any, Any] | None = None,
        at_most_once: bool | None = None,
        run_on: RunOn | None = None,
    ) -> ActivityDefinition[P, R]:
        """The same activity with other settings, for one call or many; what is left out stays as it is:
        `ctx.execute_activity(charge.options(timeout="5s"), 10)`. Raises DefinitionError as `@activity` does."""
        about = f"activity {self.name if name is None else name!r}"
        settings = {
            "name": name,
            "retry_policy": retry_policy,
            "timeout": positive_seconds(about, "timeout", timeout),
            "total_timeout": positive_seconds(about, "total_timeout", total_timeout),
            "heartbeat_timeout": positive_seconds(about, "heartbeat_timeout", heartbeat_timeout),
            "compensate": compensate,
            "at_most_once": at_most_once,
            "run_on": run_on,
        }
        changed: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
        return replace(self, **changed)

    def is_in_time(self, moment: datetime, first_started_at: datetime) -> bool:
        """Whether an attempt may still begin at `moment`, by `total_timeout` and the `total` of the policy."""
        after, total = (moment - first_started_at).total_seconds(), self.retry_policy.total
        if total is not None and after > seconds(total):
            return False
        return self.total_timeout is None or after < self.total_timeout  # else nothing would be left of it


@dataclass(frozen=True, eq=False)
class WorkflowDefinition(Generic[R]):
    """One version of one workflow. `R` is what its coroutine gives."""

    fn: Callable[..., Coroutine[Any, Any, R]]
    name: str
    version: int = 1
    retry_policy: RetryPolicy | None = None
    """When a failed run goes on from where it failed; None: never by itself."""
    timeout: float | None = None
    """Seconds that the whole run may take; None: no limit."""
    lint: Lint = "error"
    """What became of code that would not do the same on every replay, when it was declared."""
    redaction: Redaction = NOTHING
    """What is hidden from those who look at its runs over HTTP."""

    def __post_init__(self) -> None:
        _look_like(self, self.fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, R]:
        """Run the plain function: for unit tests that bring a context of their own."""
        return self.fn(*args, **kwargs)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the function's code, and not with its comments, docstring, layout or
        decorators. What it calls is not part of it."""
        from .lint.source import of_function, plain_function  # what reads source is loaded when it is asked for

        fn = plain_function(self.fn)
        source = of_function(fn) if fn is not None else None
        text = None if source is None else _as_python_writes_it(source.tree)
        if text is None:  # no source, or another one than the code was made of
            text = "\n".join(_parts((fn or self.fn).__code__))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

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

    def call(self, context: Any, input_data: Any) -> Coroutine[Any, Any, R]:
        """The workflow's coroutine, given what its signature asks for."""
        if self._input_parameter is None or (
            input_data is None and self._input_parameter.default is not inspect.Parameter.empty
        ):
            return self.fn(context)
        return self.fn(context, input_data)


def positive_seconds(about: str, field: str, duration: Duration | None) -> float | None:
    """The duration in seconds. Raises DefinitionError that names the field for anything but a positive duration."""
    if duration is None:
        return None
    try:
        value = seconds(duration)
    except (ValueError, TypeError) as error:
        raise DefinitionError(f"{about}: {field}: {error}") from None
    if not value:
        raise DefinitionError(f"{about}: {field} must be more than 0 seconds; leave it out for no limit")
    return value


def _look_like(definition: Any, fn: Callable[..., Any]) -> None:
    """functools.update_wrapper for a frozen record."""
    for name in functools.WRAPPER_ASSIGNMENTS:
        if hasattr(fn, name):
            object.__setattr__(definition, name, getattr(fn, name))
    object.__setattr__(definition, "__wrapped__", fn)


def _as_python_writes_it(node: ast.AST) -> str | None:
    """No comments, no layout, no docstring, no decorators. None: too deep."""
    if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
        node.decorator_list = []
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    try:
        return ast.unparse(node)
    except RecursionError:
        return None


def _parts(code: types.CodeType) -> Iterator[str]:
    """What the code does, without where it was written."""
    yield code.co_code.hex()
    yield repr(code.co_names)
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _parts(one)
        else:  # the order of a set is another in every process
            yield repr(sorted(map(repr, one)) if isinstance(one, frozenset) else one)


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
