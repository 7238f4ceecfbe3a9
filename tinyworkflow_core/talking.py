"""Talking: asking a run's own code, by replaying it, and waiting for what it answers to an update.

Nothing here writes. A query is answered from the history alone, whoever holds the run.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, cast

from .engine.context import RunFacts
from .engine.history import RunStarted, UpdateAccepted, UpdateCompleted, UpdateRejected
from .engine.replay import Execution, Mismatch
from .errors import RunClosedError, RunNotFoundError, RunStateError, UpdateRejectedError
from .registry import Registry
from .serialization import Codec, Failure
from .store import RunState, Store

POLL_SECONDS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""How soon a waiting caller looks again; the last one repeats. Only a fall-back where the store says itself what
changes."""

Answer = UpdateCompleted | UpdateRejected


def query(
    state: RunState, registry: Registry, codec: Codec, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What the run's query handler says. Raises QueryError, UnknownWorkflowError, NonDeterminismError, and what the
    handler raises."""
    execution = _replayed(state, registry, codec)
    try:
        return codec.decode(execution.query(name, args, kwargs))
    finally:
        execution.close()


def check_update(state: RunState, registry: Registry, codec: Codec, name: str, payload: str) -> None:
    """Raise UpdateRejectedError for an update that the run's validator refuses as things stand."""
    execution = _replayed(state, registry, codec)
    try:
        execution.validate_update(name, payload)
    except Exception as error:
        run_id = state.run.run_id
        raise UpdateRejectedError(f"update {name!r} of run {run_id!r}: {error}", run_id=run_id) from error
    finally:
        execution.close()


def answer_of(state: RunState, message_id: str) -> Answer | None:
    """The answer to the update of that id, when the history holds it."""
    answers = (event for event in state.history if isinstance(event, UpdateCompleted | UpdateRejected))
    return next((one for one in answers if one.message_id == message_id), None)


def is_in_hand(state: RunState, message_id: str) -> bool:
    """Whether the run has that update already, waiting or accepted: it is not for us to refuse it any more."""
    accepted = (event for event in state.history if isinstance(event, UpdateAccepted))
    return any(one.id == message_id for one in state.inbox) or any(one.message_id == message_id for one in accepted)


async def wait_answered(store: Store, run_id: str, message_id: str) -> Answer:
    """Wait for the answer. Raises RunClosedError when the run ends without one, RunNotFoundError when it is purged,
    RunStateError when it was given generations ago."""
    for pause in itertools.chain(POLL_SECONDS, itertools.repeat(POLL_SECONDS[-1])):
        # Reading the whole history is what costs: not while the message has not even been taken up.
        if all(one.id != message_id for one in await store.inbox(run_id)):
            state = await store.load(run_id)
            if state is None:
                raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
            if (answer := answer_of(state, message_id)) is not None:
                return answer
            if state.run.status.closed:
                raise RunClosedError(f"run {run_id!r} ended before it answered the update", run_id=run_id)
            started = state.history[0]
            if isinstance(started, RunStarted) and message_id in started.seen:
                raise RunStateError(f"run {run_id!r} has continued as new and forgotten the answer", run_id=run_id)
        await asyncio.sleep(pause)
    raise AssertionError("unreachable")


def value_of(answer: Answer, codec: Codec, *, run_id: str, name: str) -> Any:
    """What the update gave. Raises what its handler raised, and UpdateRejectedError."""
    if isinstance(answer, UpdateCompleted) and answer.result is not None:
        return codec.decode(answer.result)
    error = codec.exception(cast("Failure", answer.error))
    if isinstance(answer, UpdateRejected):
        raise UpdateRejectedError(f"update {name!r} of run {run_id!r}: {error}", run_id=run_id) from error
    raise error


def _replayed(state: RunState, registry: Registry, codec: Codec) -> Execution:
    run = state.run
    facts = RunFacts(
        run_id=run.run_id,
        workflow_id=run.workflow_id,
        name=run.name,
        version=run.version,
        generation=run.generation,
        parent_run_id=run.parent_run_id,
    )
    execution = Execution(registry.workflow(run.name, run.version), state.history, facts=facts, codec=codec)
    if isinstance(execution.outcome, Mismatch):
        execution.close()
        raise execution.outcome.error
    return execution
