"""Saga: undoing what was done, in reverse, when a run will not succeed.

Each compensation is an activity like any other: durable, retried by its own policy, run once. One that fails for good
stays in the history as it is, and the others still run.
"""

from __future__ import annotations

from dataclasses import replace

from ..tracebacks import told
from .asking import Asking, Compensation
from .step import ReplayLogger


async def compensate(asking: Asking, logger: ReplayLogger) -> list[Compensation]:
    """Run all compensations, the latest first. Returns those that have succeeded."""
    done: list[Compensation] = []
    while asking.compensations:
        one = asking.compensations.pop()
        try:
            # What undoes is not itself to be undone.
            await asking.activity(replace(one.activity, compensate=None), one.args, one.kwargs)
        except Exception as error:
            logger.error("compensation %s of step %d failed: %s", one.activity.name, one.undoes, told(error))
        else:
            done.append(one)
    return done
