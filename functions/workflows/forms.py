"""What people fill in when they decide, as pydantic models: each field becomes one of the page, with its checks.

Imported where somebody is asked: pydantic would nearly double what these functions add to a cold start, and most calls
ask nobody.
"""

from __future__ import annotations

from pydantic import BaseModel, Field, PositiveFloat


class Consent(BaseModel):
    """What a manager may fill in: an amount other than the one that was asked for."""

    amount: PositiveFloat | None = None


class Budget(BaseModel):
    """What those who approve a purchase fill in."""

    cost_centre: str = Field(pattern=r"^\d{4}$", description="Four digits")
    most: PositiveFloat | None = Field(None, title="At most", description="If it may not cost what was asked for")
