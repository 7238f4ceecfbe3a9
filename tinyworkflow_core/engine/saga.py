"""Saga: undoing what was done, in reverse, when a run will not succeed.

Each compensation is an activity like any other: durable, retried by its own policy, run once. One that fails for good
stays in the history as it is, and the others still run.
"""

from __future__ import annotations

from .asking import Asking
from .step import ReplayLogger


async def compensate(asking: Asking, logger: ReplayLogger) -> list[int]:
    """Run all compensations, the latest first. Returns the steps that are undone."""
    undone: list[int] = []
    while asking.compensations:
        one = asking.compensations.pop()
        try:
            await asking.activity(one.activity, one.args, one.kwargs)
        except Exception as error:
            logger.error("compensation %s of step %d failed: %s", one.activity.name, one.undoes, error)
        else:
            undone.append(one.undoes)
    return undone
