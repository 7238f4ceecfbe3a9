"""@workflow and @activity, and the registry that finds what they declare by name and version.

A decorator only returns a definition. A `Registry` is given definitions, or (the default of an App) looks through all
that this process has declared; either way two definitions of one (name, version) from different places are refused.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar, overload

from .clock import Duration
from .definitions import ActivityDefinition, Lint, RunOn, WorkflowDefinition, positive_seconds
from .errors import (
    DefinitionError,
    DeterminismError,
    DeterminismWarning,
    DuplicateDefinitionError,
    UnknownWorkflowError,
)
from .redaction import redaction
from .retry import RetryPolicy

__all__ = ["ActivityDefinition", "Registry", "WorkflowDefinition", "activity", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,100}")
"""Names are part of run ids and of URLs."""

_declared: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""All that this process has declared and still holds, in that order."""
_declaring = threading.Lock()
_newest = 0
"""The number of what was declared last."""


@overload
def activity(fn: Callable[P, R], /) -> ActivityDefinition[P, R]: ...
@overload
def activity(
    name: str | None = None,
    retry_policy: RetryPolicy | None = None,
    timeout: Duration | None = None,
    *,
    total_timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    compensate: ActivityDefinition[Any, Any] | None = None,
    at_most_once: bool = False,
    run_on: RunOn = "here",
) -> Callable[[Callable[P, R]], ActivityDefinition[P, R]]: ...
def activity(
    name: Any = None,
    retry_policy: RetryPolicy | None = None,
    timeout: Duration | None = None,
    *,
    total_timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    compensate: ActivityDefinition[Any, Any] | None = None,
    at_most_once: bool = False,
    run_on: RunOn = "here",
) -> Any:
    """Declare an activity: a function that touches the world, run once per step and retried by its policy.

    - name: how the history calls it; the function's own name unless given.
    - retry_policy: `RetryPolicy()` unless given.
    - timeout: the longest that one attempt may take; it fails with TimeoutError. A sync function runs in a thread,
      which cannot be stopped: its result is then ignored.
    - total_timeout: the longest that the step may take, all attempts and the pauses between them; TimeoutError.
    - heartbeat_timeout: the longest that an attempt may go without `activity_context().heartbeat()`; it fails with
      HeartbeatTimeoutError, and the next attempt finds the last details in `last_heartbeat`.
    - compensate: the activity that undoes this one, called with its result when the run fails, is cancelled or times
      out later on.
    - at_most_once: begun once and never again, neither after a failure nor after the process died in it (the workflow
      then sees StepInterruptedError).
    - run_on: "here", in the call that advances the run, or "queue", as a call of its own.

    Raises DefinitionError, naming the setting, for what cannot work.
    """

    def declare(fn: Callable[P, R]) -> ActivityDefinition[P, R]:
        if not callable(fn):
            raise DefinitionError(f"@activity goes on a function, not on {fn!r}")
        called = getattr(fn, "__name__", "") if name is None or callable(name) else name
        if called == "":
            raise DefinitionError(f"{fn!r} has no name of its own; give it one: @activity(name=...)")
        about = f"activity {called!r}"
        return _declare(
            ActivityDefinition(
                fn=fn,
                name=called,
                retry_policy=RetryPolicy() if retry_policy is None else retry_policy,
                timeout=positive_seconds(about, "timeout", timeout),
                total_timeout=positive_seconds(about, "total_timeout", total_timeout),
                heartbeat_timeout=positive_seconds(about, "heartbeat_timeout", heartbeat_timeout),
                compensate=compensate,
                at_most_once=at_most_once,
                run_on=run_on,
            )
        )

    return declare(name) if callable(name) else declare


@overload
def workflow(fn: Callable[..., Coroutine[Any, Any, R]], /) -> WorkflowDefinition[R]: ...
@overload
def workflow(
    name: str | None = None,
    retry_policy: RetryPolicy | None = None,
    timeout: Duration | None = None,
    *,
    version: int = 1,
    lint: Lint = "error",
    redact: bool | Iterable[str] = (),
) -> Callable[[Callable[..., Coroutine[Any, Any, R]]], WorkflowDefinition[R]]: ...
def workflow(
    name: Any = None,
    retry_policy: RetryPolicy | None = None,
    timeout: Duration | None = None,
    *,
    version: int = 1,
    lint: Lint = "error",
    redact: bool | Iterable[str] = (),
) -> Any:
    """Declare a workflow: an `async def` whose first parameter is the WorkflowContext.

    A second parameter receives the input; with an annotation (pydantic model, dataclass, TypedDict, builtin) the input
    is validated before a run exists.

    - name: the function's own name unless given.
    - retry_policy: a failed run goes on by itself from where it failed; without one it stays failed.
    - timeout: the longest that the whole run may take; it then fails with TimeoutError.
    - version: runs stay on the version that they began with; a new run takes the highest.
    - lint: what becomes of code that would not do the same on every replay: "error" refuses it, "warn" warns of each
      place with DeterminismWarning, "off" does not look. TINYWORKFLOW_LINT=off in the environment looks at no workflow,
      for a quicker cold start of what was checked before it was deployed.
    - redact: names of fields whose values are shown as "[redacted]" over HTTP, wherever they are in what its runs were
      given and have made: "iban" is any field of that name, "card.number" a `number` inside a `card`. True hides all
      values. What is stored, and what code receives, stays as it is.

    Raises DefinitionError for a function that cannot be a workflow, and DeterminismError (one of them) by `lint`.
    """

    def declare(fn: Callable[..., Coroutine[Any, Any, R]]) -> WorkflowDefinition[R]:
        if not inspect.iscoroutinefunction(fn) or isinstance(fn, functools.partial):
            raise DefinitionError(f"@workflow goes on an `async def` function, not on {fn!r}")
        parameters = inspect.signature(fn).parameters.values()
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if not 1 <= len(parameters) <= 2 or any(one.kind not in positional for one in parameters):
            raise DefinitionError(f"workflow {fn.__name__!r} takes the context and at most one input, by position")
        if type(version) is not int or version < 1:  # True is an int as well
            raise DefinitionError(f"version of workflow {fn.__name__!r} must be a whole number from 1, not {version!r}")
        called = fn.__name__ if name is None or callable(name) else name
        if not isinstance(called, str) or not _NAME.fullmatch(called):
            raise DefinitionError(f"workflow name {called!r}: use 1 to 100 printable characters, and no slash")
        about = f"workflow {called!r}"
        if retry_policy is not None and not isinstance(retry_policy, RetryPolicy):
            raise DefinitionError(f"{about}: retry_policy takes a RetryPolicy(...), not {retry_policy!r}")
        longest = positive_seconds(about, "timeout", timeout)
        if lint not in ("error", "warn", "off"):
            raise DefinitionError(f"{about}: lint is 'error', 'warn' or 'off', not {lint!r}")
        hidden = redaction(about, redact)
        _look_for_chance(fn, about, lint)
        return _declare(
            WorkflowDefinition(
                fn=fn,
                name=called,
                version=version,
                retry_policy=retry_policy,
                timeout=longest,
                lint=lint,
                redaction=hidden,
            )
        )

    return declare(name) if callable(name) else declare


class Registry:
    """Finds definitions. Without arguments it knows all that this process has declared, now and later."""

    def __init__(
        self, definitions: Iterable[WorkflowDefinition[Any] | ActivityDefinition[Any, Any]] | None = None
    ) -> None:
        self._knows_all = definitions is None
        self._given: list[Any] = []
        self._found: weakref.WeakValueDictionary[tuple[str, int | None], WorkflowDefinition[Any]]
        self._found = weakref.WeakValueDictionary()
        self._found_among: tuple[object, ...] = ()
        for one in definitions or ():
            self.add(one)

    def add(self, definition: WorkflowDefinition[Any] | ActivityDefinition[Any, Any]) -> None:
        """Know one more. Raises DuplicateDefinitionError when its (name, version) is taken by another place."""
        if isinstance(definition, WorkflowDefinition):
            _unique([*(one for one in self._workflows() if one.name == definition.name), definition])
        self._given.append(definition)

    def workflow(self, name: str, version: int | None = None) -> WorkflowDefinition[Any]:
        """The definition of that version, or of the highest. Raises UnknownWorkflowError."""
        among = (_declared, _newest, len(self._given))
        if among != self._found_among:
            self._found.clear()
            self._found_among = among
        found = self._found.get((name, version))
        if found is None:
            found = self._found[name, version] = self._look_for(name, version)
        return found

    def _look_for(self, name: str, version: int | None) -> WorkflowDefinition[Any]:
        found = {d.version: d for d in _unique(d for d in self._workflows() if d.name == name)}
        if not found:
            import difflib  # for a mistake only

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
    global _newest  # noqa: PLW0603  # by which every registry knows whether what it has found still holds
    with _declaring:
        _declared[_newest + 1] = definition
        _newest += 1  # last: whoever looks meanwhile will look again
    return definition


def _look_for_chance(fn: Callable[..., Any], about: str, lint: Lint) -> None:
    if lint == "off" or os.environ.get("TINYWORKFLOW_LINT") == "off":
        return
    from .lint import check  # with all that parses source: part of the cold start only where it is wanted

    findings = check(fn)
    if lint == "warn":
        for one in findings:
            warnings.warn_explicit(
                f"{about}: {one}", DeterminismWarning, filename=one.file, lineno=one.line, module=fn.__module__
            )
    elif findings:
        listed = "\n".join(str(one) for one in findings)
        raise DeterminismError(
            f"{about} would not do the same on every replay (mend it, or declare it with lint='warn'):\n{listed}",
            findings,
        )


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
