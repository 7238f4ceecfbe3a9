"""Examples: a few workflows and runs of them, so that there is something to look at before one has written anything.

Nothing here calls anybody. The runs have fixed ids, so they are started once in a store, however often this is served.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..activities import activity_context
from ..engine.context import WorkflowContext
from ..errors import ApplicationError
from ..registry import activity, workflow
from ..retry import RetryPolicy

_SOON = RetryPolicy(max_retries=3, initial_delay=1.0, max_delay=5.0)
_LIMIT = 1000


@activity
async def look_up(name: str) -> str:
    """What somebody is called."""
    await asyncio.sleep(0.3)
    return name.title()


@activity(retry_policy=_SOON)
async def translate(text: str, language: str) -> str:
    """A text in another language, from a service that is away at first."""
    if activity_context().attempt < 3:
        raise ConnectionError("the translation service is away")
    return {"de": "Guten Tag", "fr": "Bonjour"}.get(language, text)


@workflow
async def example_greeting(ctx: WorkflowContext, name: str = "ada") -> str:
    """Two steps at once, one of them with retries, then a nap and a third step."""
    found, greeting = await asyncio.gather(
        ctx.execute_activity(look_up, name), ctx.execute_activity(translate, "Good day", "de")
    )
    await asyncio.sleep(2)
    return await ctx.execute_activity(say, f"{greeting}, {found}!")


@activity
async def say(text: str) -> str:
    """The text."""
    return text


@workflow
async def example_expense(ctx: WorkflowContext, amount: float = 1200.0) -> str:
    """Above a limit somebody has to agree, within a week."""
    if amount > _LIMIT:
        try:
            decision = await ctx.wait_for_approval(
                "manager", timeout="7d", title=f"Pay {amount:.2f}?", details={"amount": amount, "limit": _LIMIT}
            )
        except TimeoutError:
            return "lapsed"
        if not decision:
            return f"rejected by {decision.by}"
    return await ctx.execute_activity(say, f"paid {amount:.2f}")


@activity
async def cancel_room(room: str) -> str:
    """Undoes book_room."""
    return f"{room} is free again"


@activity(compensate=cancel_room)
async def book_room(room: str) -> str:
    """A room for the night."""
    return room


@activity
async def charge(amount: float) -> None:
    """A payment that the bank declines."""
    raise ApplicationError(f"the card was declined for {amount:.2f}", type="CardDeclined", retryable=False)


@workflow
async def example_trip(ctx: WorkflowContext, amount: float = 300.0) -> None:
    """Fails, and undoes what it had done."""
    await ctx.execute_activity(book_room, "room 12")
    await ctx.execute_activity(charge, amount)


@workflow
async def example_reminder(ctx: WorkflowContext, name: str = "ada") -> str:
    """A mail a day until the signal `paid` comes."""
    for day in range(1, 31):
        await ctx.execute_activity(say, f"{name}, please pay (day {day})")
        try:
            await ctx.wait_for_signal("paid", timeout="1d")
        except TimeoutError:
            continue
        return f"paid on day {day}"
    return "never paid"


RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("example_greeting", {"run_id": "example-greeting", "input": "grace hopper"}),
    ("example_expense", {"run_id": "example-expense", "input": 1800.0}),
    ("example_trip", {"run_id": "example-trip", "input": 300.0}),
    ("example_reminder", {"run_id": "example-reminder", "input": "ada"}),
)
"""What is started: a workflow's name, and the body of POST /v1/workflows/{name}/runs."""

SCHEDULE: dict[str, Any] = {
    "id": "example-hourly",
    "workflow": "example_greeting",
    "timing": {"cron": "0 * * * *", "timezone": "Europe/Berlin"},
    "input": "the hour",
}
"""The body of POST /v1/schedules."""
