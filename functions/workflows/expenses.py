"""Somebody has to agree: an expense over a limit waits for the manager's decision, without a process, for up to a week.

- The manager may agree to less than was asked: what the form brings back is validated.
- Nobody decides in time: the claim lapses, and a later decision is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyworkflow_core import WorkflowContext, activity, activity_context, workflow

from .notices import notify

SELF_SERVICE = 1000
"""Up to this amount nobody is asked."""


@dataclass
class Claim:
    """What an employee has spent."""

    employee: str
    amount: float
    purpose: str
    manager: str = "the manager"

    def __post_init__(self) -> None:
        if not self.amount > 0:
            raise ValueError("the amount must be more than 0")


@activity
async def pay(employee: str, amount: float) -> str:
    """Pay, under a key by which a bank recognises a repeated order."""
    return f"paid {amount:.2f} to {employee} under {activity_context().idempotency_key}"


@workflow
async def expense_approval(ctx: WorkflowContext, claim: Claim) -> dict[str, Any]:
    """From a claim to a payment, with a person's consent where it takes one."""
    amount = claim.amount
    if amount > SELF_SERVICE:
        from .forms import Consent

        await ctx.execute_activity(notify, claim.manager, f"{claim.employee} asks for {amount:.2f}")
        try:
            decision = await ctx.wait_for_approval(
                "manager",
                timeout="7d",
                title=f"{amount:.2f} for {claim.purpose}?",
                details=claim,
                approvers=[claim.manager],
                form=Consent,
            )
        except TimeoutError:
            return {"status": "lapsed"}
        if not decision:
            return {"status": "rejected", "by": decision.by, "comment": decision.comment}
        amount = Consent.model_validate(decision.data or {}).amount or amount
    payment = await ctx.execute_activity(pay, claim.employee, amount)
    return {"status": "paid", "amount": amount, "payment": payment}
