"""Two people agree to a purchase: they are told by mail or in Slack, reminded every day, and after three days their
head may decide as well. After two weeks it lapses.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, PositiveFloat

from tinyworkflow_core import WorkflowContext, workflow

from .approval_notices import mail_approvers, post_to_slack


class Purchase(BaseModel):
    """What is to be bought, and who is asked."""

    what: str
    price: PositiveFloat
    approvers: list[str] = Field(min_length=2)
    head: str
    tell_by: Literal["mail", "slack"] = "mail"


class Budget(BaseModel):
    """What those who approve fill in."""

    cost_centre: str = Field(pattern=r"^\d{4}$", description="Four digits")
    most: PositiveFloat | None = Field(None, title="At most", description="If it may not cost what was asked for")


@workflow
async def purchase_approval(ctx: WorkflowContext, purchase: Purchase) -> dict[str, Any]:
    """From a wish to an order, with the names of those who agreed."""
    try:
        decision = await ctx.wait_for_approval(
            "purchase",
            timeout="14d",
            title=f"Buy {purchase.what} for {purchase.price:.2f}?",
            details=purchase,
            approvers=purchase.approvers,
            form=Budget,
            quorum=2,
            notify=post_to_slack if purchase.tell_by == "slack" else mail_approvers,
            remind_every="1d",
            max_reminders=10,
            escalate_after="3d",
            escalate_to=[purchase.head],
        )
    except TimeoutError:
        return {"status": "lapsed"}
    said = [{"by": one.by, "approved": one.approved, "comment": one.comment} for one in decision.votes]
    if not decision:
        return {"status": "rejected", "votes": said}
    budgets = [Budget.model_validate(one.data) for one in decision.votes]
    limits = [purchase.price, *(one.most for one in budgets if one.most is not None)]
    return {"status": "approved", "most": min(limits), "cost_centre": budgets[-1].cost_centre, "votes": said}
