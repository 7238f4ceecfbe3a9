"""replay_history: an exported history against the code as it stands. No store, no clock, no activity is run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..checking import check_history, read_exported
from ..engine.commands import describe
from ..engine.replay import Blocked, Cancelled, Completed, ContinuedAsNew, Execution, Failed, Mismatch
from ..errors import SerializationError
from ..records import dataclass
from ..registry import Registry, WorkflowDefinition
from ..serialization import Codec

Workflows = WorkflowDefinition[Any] | Registry | Iterable[WorkflowDefinition[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """Where a history leads the code. `status` says which of the other fields hold something."""

    status: Literal["completed", "failed", "cancelled", "continued_as_new", "waiting"]
    output: Any = None
    """What the workflow returned."""
    error: Exception | None = None
    """What it raised."""
    reason: str | None = None
    """Why it was cancelled."""
    input_data: Any = None
    """What it continues as new with."""
    open_steps: tuple[str, ...] = ()
    """The activities, timers, approvals and children that it waits for, in words. (A signal is no step.)"""
    note: str | None = None
    """How it ends otherwise than recorded: the steps fit, but the code ends where the run had not, or in another way,
    or with another result. None: it does not."""


def replay_history(
    workflows: Workflows, history: Mapping[str, Any] | str | Path, *, codec: Codec | None = None
) -> Replayed:
    """Replay what `tinyworkflow export` writes: its data, its JSON text, or the path of a file with it.

    - workflows: the one that the run is of; of several, or of a registry, its name and version choose.
    - codec: for a history whose values are encrypted.

    Raises NonDeterminismError when code and history differ; UnknownWorkflowError when there is no code for that name
    and version; SerializationError for what is no exported history, or holds what cannot be read here.
    """
    registry, codec = _registry(workflows), codec or Codec()
    data = _data(history)
    facts, events = read_exported(data)
    if isinstance(events, SerializationError):
        raise events
    execution = Execution(registry.workflow(facts.name, facts.version), events, facts=facts, codec=codec)
    try:
        replayed = _replayed(execution, codec)
    finally:
        execution.close()
    found = check_history(registry, codec, data)
    return replayed if found is None else replace(replayed, note=found.problem)


def _replayed(execution: Execution, codec: Codec) -> Replayed:
    match execution.outcome:
        case Completed(output=output):
            return Replayed(status="completed", output=codec.decode(output))
        case Failed(error=failure):
            return Replayed(status="failed", error=codec.exception(failure))
        case Cancelled(reason=reason):
            return Replayed(status="cancelled", reason=codec.unseal_text(reason))
        case ContinuedAsNew(input=text):
            return Replayed(status="continued_as_new", input_data=codec.decode(text))
        case Blocked(pending=pending):
            return Replayed(status="waiting", open_steps=tuple(describe(one.command.signature) for one in pending))
        case Mismatch(error=mismatch):
            raise mismatch


def _registry(workflows: Workflows) -> Registry:
    if isinstance(workflows, Registry):
        return workflows
    return Registry([workflows] if isinstance(workflows, WorkflowDefinition) else workflows)


def _data(history: Mapping[str, Any] | str | Path) -> Any:
    if isinstance(history, Mapping):
        return history
    is_text = isinstance(history, str) and history.lstrip().startswith("{")
    text = str(history) if is_text else Path(history).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        place = "the text" if is_text else str(history)
        raise SerializationError(f"{place} is no exported history: it is not JSON ({error})") from None
