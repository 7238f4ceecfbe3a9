"""Voting: what the votes of a question with a quorum come to. Pure; the journal, the record and the history ask it.

- Approved as soon as `quorum` people have approved.
- Rejected by the first rejection (a veto, as reviewers of a deployment have it); without the veto as soon as too few
  are left who could still approve.
- A person has one vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Rule(Protocol):
    """A question, as a command, an event or an entry of the run's record."""

    @property
    def quorum(self) -> int: ...
    @property
    def veto(self) -> bool: ...
    @property
    def approvers(self) -> tuple[str, ...]: ...
    @property
    def escalate_to(self) -> tuple[str, ...]: ...


class Voted(Protocol):
    """A vote."""

    @property
    def approved(self) -> bool: ...


def verdict(rule: Rule, votes: Sequence[Voted]) -> bool | None:
    """Approved, rejected, or (None) not decided yet."""
    approvals = sum(one.approved for one in votes)
    rejections = len(votes) - approvals
    if approvals >= rule.quorum:
        return True
    if rejections and rule.veto:
        return False
    left = len(persons(rule)) - rejections
    return False if rule.approvers and left < rule.quorum else None


def persons(rule: Rule) -> set[str]:
    """Those who may vote, now or after the escalation; empty: whoever can reach the question."""
    return distinct([*rule.approvers, *rule.escalate_to])


def distinct(names: Iterable[str]) -> set[str]:
    """Whom the names stand for."""
    return {person(one) for one in names}


def person(name: str) -> str:
    """Who that is: the same however it is written, in capitals or not."""
    return name.strip().casefold()
