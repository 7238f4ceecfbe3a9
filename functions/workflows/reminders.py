"""A reminder that comes later, or not at all when its matter is done before.

It costs nothing while it waits, and no process has to live that long. Where a run has nothing to hear meanwhile, it may
as well begin later: `client.schedule_delayed_workflow(name, delay_seconds=300)`, or `start_delay` when starting it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyworkflow_core import WorkflowContext, workflow

from .notices import notify


@dataclass
class Reminder:
    """Whom to remind of what, and after how long ("30s", "3d" or seconds)."""

    to: str
    text: str
    after: str | float = "1d"


@workflow
async def delayed_reminder(ctx: WorkflowContext, reminder: Reminder) -> str:
    """Remind, unless the signal `done` comes first."""
    try:
        await ctx.wait_for_signal("done", timeout=reminder.after)
    except TimeoutError:
        await ctx.execute_activity(notify, reminder.to, reminder.text)
        return "reminded"
    return "done before"
