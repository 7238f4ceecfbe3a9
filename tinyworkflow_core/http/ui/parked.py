"""Parked: why a run was put aside, told as two sides: what its history holds, and what the code asks for."""

from __future__ import annotations

import re

from ...checking import Finding, Kind
from ...records import dataclass

_MISMATCH = re.compile(
    r"step (?P<step>\d+): the history records (?P<recorded>.*?), but the code asks for (?P<asked>.*?)"
    r"(?: at (?P<where>\S+:\d+))?\. Deploy code that fits[^\n]*(?P<more>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """Both sides of a mismatch at one step. `where`: the code's file:line. `more`: what else there is to say."""

    step: int
    recorded: str
    asked: str
    where: str | None
    more: str = ""


def sides(problem: str) -> Sides | None:
    """What the problem of a parked run says, which is the text of a NonDeterminismError and notes. None: it was parked
    for another reason."""
    found = _MISMATCH.match(problem)
    if found is None:
        return None
    return Sides(
        step=int(found["step"]),
        recorded=found["recorded"],
        asked=found["asked"],
        where=found["where"],
        more=found["more"].strip(),
    )


def sides_of(finding: Finding) -> Sides | None:
    """What a check of the code that is here has found. None: no mismatch."""
    if finding.kind is not Kind.MISMATCH or finding.step is None:
        return None
    return Sides(
        step=finding.step, recorded=finding.recorded or "", asked=finding.asked or "", where=finding.where or None
    )
