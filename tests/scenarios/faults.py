"""Steps that fail for as long as they are told to, and what a history says was done. The scenarios of runs that fail,
are retried and are undone share these."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tinyworkflow_core import RetryPolicy, WorkflowFailedError, activity, activity_context
from tinyworkflow_core.testing import WorkflowEnvironment

LOG: list[str] = []
"""Steps whose bodies were run."""
KEYS: defaultdict[str, list[str]] = defaultdict(list)
"""The idempotency keys that they saw."""
BROKEN: set[str] = set()
"""What fails now."""

AT_ONCE = RetryPolicy(max_retries=0)


class FaultError(Exception):
    pass


def begin(*broken: str) -> None:
    """A scenario is run many times: each time from nothing."""
    LOG.clear()
    KEYS.clear()
    BROKEN.clear()
    BROKEN.update(broken)


def run_body(what: str) -> str:
    LOG.append(what)
    KEYS[what].append(activity_context().idempotency_key)
    if what in BROKEN:
        raise FaultError(what)
    return what


@activity(retry_policy=AT_ONCE)
async def step(what: str) -> str:
    return run_body(what)


@activity(retry_policy=AT_ONCE)
async def undo(what: str) -> str:
    return run_body(f"un-{what}")


@activity(retry_policy=AT_ONCE, compensate=undo)
async def book(what: str) -> str:
    return run_body(what)


async def done(env: WorkflowEnvironment, run_id: str) -> list[str]:
    """What the steps that completed have given, in the order of the history."""
    return [str(one["result"]) for one in await env.events(run_id, "ActivityCompleted")]


async def failure(env: WorkflowEnvironment, run_id: str) -> BaseException | None:
    """What the run failed with. Fails when it has not."""
    with pytest.raises(WorkflowFailedError) as raised:
        await env.result(run_id)
    assert (await env.status(run_id)).status == "failed"
    return raised.value.__cause__


def at_most_twice(env: WorkflowEnvironment) -> bool:
    """Whether no body has run more often than it may: once, and once more when a process died or two were called."""
    return max((LOG.count(one) for one in LOG), default=0) <= (1 if env.plain else 2)
