"""The workflows that are walked through by a browser.

BROWSER_VAN names a file: while it is not there, no van is there to be loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, workflow


class Order(BaseModel):
    """What somebody orders."""

    item: str = Field(description="As it is called in the catalogue")
    amount: int = Field(default=1, ge=1, le=100)
    packing: Literal["box", "bag"] = "box"
    gift: bool = False


class Terms(BaseModel):
    """What somebody who agrees to a journey has to say."""

    hotel: str = Field(description="Where the traveller stays")
    nights: int = Field(ge=1, le=30)


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=0.01, jitter=False))
async def reserve(item: str, amount: int) -> str:
    return f"{amount} x {item}"


@activity
async def send(parcel: str) -> str:
    return f"sent {parcel}"


@activity(retry_policy=RetryPolicy(max_retries=0))
def load(parcel: str) -> str:
    if not Path(os.environ["BROWSER_VAN"]).exists():
        try:
            raise FileNotFoundError("the yard is empty")
        except FileNotFoundError as error:
            raise RuntimeError("there is no van") from error
    return f"loaded {parcel}"


@workflow
async def order(ctx: WorkflowContext, order: Order) -> str:
    """Reserves what was ordered, waits for the money, and sends it."""
    parcel = await ctx.execute_activity(reserve, order.item, order.amount)
    ctx.set_status("waits for the money")
    await ctx.wait_for_signal("paid")
    ctx.set_status(None)
    return await ctx.execute_activity(send, parcel)


@workflow
async def delivery(ctx: WorkflowContext, parcel: str) -> str:
    """Loads a van."""
    reserved = await ctx.execute_activity(reserve, parcel, 1)
    return await ctx.execute_activity(load, reserved)


@workflow
async def expense(ctx: WorkflowContext, amount: float) -> str:
    """Somebody has to agree."""
    decision = await ctx.wait_for_approval(
        "manager", "7d", title=f"Pay {amount:.2f}?", details={"amount": amount, "limit": 1000}, approvers=["ada", "bob"]
    )
    return f"{'paid' if decision.approved else 'refused'} by {decision.by}"


@workflow
async def journey(ctx: WorkflowContext, to: str) -> Any:
    """Somebody has to agree, and says to what; then it is paid for in a run of its own."""
    decision = await ctx.wait_for_approval("journey", title=f"Send somebody to {to}?", form=Terms)
    await ctx.execute_child(expense, 12.5)
    return decision.data


@workflow
async def nightly(ctx: WorkflowContext, ledger: str = "main") -> str:
    """What a schedule starts."""
    return f"{ledger} is closed"


@workflow
async def move(ctx: WorkflowContext, house: str) -> str:
    """Its code has changed since the runs of an earlier release were started."""
    await ctx.wait_for_signal("go")
    packed = await ctx.execute_activity(reserve, house, 2)
    return await ctx.execute_activity(send, packed)


ALL = (order, delivery, expense, journey, nightly, move)
