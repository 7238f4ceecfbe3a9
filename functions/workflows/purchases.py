"""Two people agree to a purchase: they are told by mail or in Slack, reminded every day, and after three days their
head may decide as well. After two weeks it lapses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tinyworkflow_core import WorkflowContext, workflow

from .approval_notices import mail_approvers, post_to_slack


@dataclass
class Purchase:
    """What is to be bought, and who is asked."""

    what: str
    price: float
    approvers: list[str]
    head: str
    tell_by: Literal["mail", "slack"] = "mail"

    def __post_init__(self) -> None:
        if not self.price > 0:
            raise ValueError("the price must be more than 0")
        if len(self.approvers) < 2:
            raise ValueError("two people have to agree: name two approvers")


@workflow
async def purchase_approval(ctx: WorkflowContext, purchase: Purchase) -> dict[str, Any]:
    """From a wish to an order, with the names of those who agreed."""
    from .forms import Budget

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
