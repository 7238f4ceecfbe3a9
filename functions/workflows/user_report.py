"""A report from three sources that are asked at once: it takes as long as the slowest, not as long as all together.

When one source says no, the others are cancelled, and the run fails with that answer.
"""

from __future__ import annotations

from typing import Any

from tinyworkflow_core import ApplicationError, WorkflowContext, activity, workflow

_USERS = {"u-1": "Ada", "u-2": "Grace"}
_ORDERS = {"u-1": [12.5, 30.0], "u-2": []}
_PREFERENCES = {"u-1": {"theme": "dark"}, "u-2": {"theme": "light"}}


@activity
async def fetch_user(user_id: str) -> dict[str, str]:
    """Who that is. Nobody of that id: it is of no use to ask again."""
    if user_id not in _USERS:
        raise ApplicationError(f"there is no user {user_id}", type="UnknownUser")
    return {"id": user_id, "name": _USERS[user_id]}


@activity
async def fetch_orders(user_id: str) -> list[float]:
    """The amounts of that user's orders."""
    return _ORDERS.get(user_id, [])


@activity
async def fetch_preferences(user_id: str) -> dict[str, str]:
    """What that user has chosen."""
    return _PREFERENCES.get(user_id, {})


@workflow
async def user_report(ctx: WorkflowContext) -> dict[str, Any]:
    """Everything about one user; the input is `{"user_id": ...}`."""
    user_id = ctx.get_input("user_id", "u-1")
    user, orders, preferences = await ctx.execute_parallel(
        (fetch_user, (user_id,)), (fetch_orders, (user_id,)), (fetch_preferences, (user_id,))
    )
    return {"name": user["name"], "orders": len(orders), "spent": sum(orders), "preferences": preferences}
