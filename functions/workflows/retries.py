"""What fails is tried again: by a policy for every activity, by one for the whole run, and by what the other side says.

The service pretends: it is away for the first attempts of a step, as often as the input says.
"""

from __future__ import annotations

from typing import Any

from tinyworkflow_core import (
    ApplicationError,
    RetryAfter,
    RetryPolicy,
    WorkflowContext,
    activity,
    activity_context,
    workflow,
)


def _away(times: int) -> None:
    if activity_context().attempt <= times:
        raise ConnectionError(f"no answer at attempt {activity_context().attempt}")


@activity(retry_policy=RetryPolicy(max_retries=5, initial_delay=1.0, max_delay=10.0))
async def call_flaky_api(endpoint: str, away: int = 2) -> dict[str, Any]:
    """An API that cannot be reached now and then. Waits of 1, 2, 4, 8 and 10 seconds, a tenth more or less."""
    _away(away)
    return {"endpoint": endpoint, "attempts": activity_context().attempt}


@activity(retry_policy=RetryPolicy(max_retries=3))
async def call_busy_api(endpoint: str, away: int = 1) -> dict[str, Any]:
    """An API that says itself when it will be free: a 429 with `Retry-After: 30`. No policy knows better."""
    if activity_context().attempt <= away:
        raise RetryAfter(30)
    return {"endpoint": endpoint, "attempts": activity_context().attempt}


@activity(retry_policy=RetryPolicy(max_retries=4, never_on=(PermissionError, ValueError)))
async def query_database(query: str, away: int = 1) -> dict[str, Any]:
    """A lost connection is worth another attempt; a query that is wrong stays wrong."""
    if not query.startswith("SELECT"):
        raise PermissionError(f"only reading is allowed, not {query!r}")
    _away(away)
    return {"rows": 42, "attempts": activity_context().attempt}


@activity(retry_policy=RetryPolicy(max_retries=0))
async def charge(amount: float, away: int = 0) -> str:
    """Money: a failure is for a person to look at. Where the process dies in between, the bank is asked again under the
    same key, by which it knows the order."""
    if amount <= 0:
        raise ApplicationError(f"{amount} cannot be charged", type="WrongAmount")
    _away(away)
    return f"charged {amount:.2f} under {activity_context().idempotency_key}"


@workflow
async def api_with_retries(ctx: WorkflowContext) -> dict[str, Any]:
    """One flaky call; the input is `{"endpoint": ..., "away": how often it fails}`."""
    return await ctx.execute_activity(call_flaky_api, ctx.get_input("endpoint", "/data"), ctx.get_input("away", 2))


@workflow
async def policy_per_activity(ctx: WorkflowContext) -> dict[str, Any]:
    """Four steps and four policies: a patient one, the service's own, a choosy one, and one attempt only."""
    return {
        "flaky": await ctx.execute_activity(call_flaky_api, "/users"),
        "busy": await ctx.execute_activity(call_busy_api, "/quota"),
        "database": await ctx.execute_activity(query_database, ctx.get_input("query", "SELECT * FROM users")),
        "charge": await ctx.execute_activity(charge, ctx.get_input("amount", 10.0)),
    }


@workflow(retry_policy=RetryPolicy(max_retries=2, initial_delay="1m", max_delay="1h", jitter=False))
async def workflow_level_retry(ctx: WorkflowContext) -> dict[str, Any]:
    """The run as a whole is tried again after one minute and after two more; what had succeeded is not done again.

    `away` of the input is how often the payment fails; a run that has used up its policy fails with the last error,
    and `retry_workflow` takes it up from there.
    """
    order = await ctx.execute_activity(query_database, "SELECT * FROM orders", 0)
    if ctx.retry_count < ctx.get_input("away", 2):
        raise ConnectionError("the payment gateway is closed for now")
    payment = await ctx.execute_activity(charge, 10.0)
    return {"rows": order["rows"], "payment": payment, "tried": ctx.retry_count + 1}


@workflow
async def parallel_with_retries(ctx: WorkflowContext) -> dict[str, int]:
    """Three calls at once, each with its own policy: one that waits holds up none of the others."""
    flaky, busy, database = await ctx.execute_parallel(
        (call_flaky_api, ("/users",), {"away": 3}),
        (call_busy_api, ("/products",)),
        (query_database, ("SELECT * FROM orders",)),
    )
    return {"flaky": flaky["attempts"], "busy": busy["attempts"], "database": database["attempts"]}
