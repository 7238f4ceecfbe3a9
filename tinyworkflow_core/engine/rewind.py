"""Rewind: what a history says once retries have made parts of it void.

A history is only ever appended to. `RunRetried` names what counts no more: the events of the steps that failed, of
those that were undone, and of everything that the workflow asked for after the failure had begun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .history import CLOSING, ActivityStarted, ChildStarted, Event, RunRetried, RunTimedOut


def effective(history: Sequence[Event]) -> Sequence[Event]:
    """The history without the events that later retries have made void."""
    if not any(isinstance(event, RunRetried) for event in history):
        return history
    kept: list[Event] = []
    for event in history:
        if isinstance(event, RunRetried):
            kept = [one for one in kept if not _is_void(one, event)]
        kept.append(event)
    return kept


def children_lost(history: Sequence[Event]) -> Counter[int]:
    """How many child runs of each command were started, and are void by now."""
    started = Counter(event.id for event in history if isinstance(event, ChildStarted))
    return started - Counter(event.id for event in effective(history) if isinstance(event, ChildStarted))


def times_void(history: Iterable[Event], command_id: int) -> int:
    """How often what the history said about this command was made void."""
    return sum(_names(retried, command_id) for retried in history if isinstance(retried, RunRetried))


def times_redone(history: Iterable[Event], command_id: int) -> int:
    """How often this command became another step than before: it was undone, or its place was given to another."""
    return sum(
        command_id in retried.undone or _is_after(retried, command_id)
        for retried in history
        if isinstance(retried, RunRetried)
    )


def _is_void(event: Event, retried: RunRetried) -> bool:
    if isinstance(event, (*CLOSING, RunTimedOut)):
        return True
    command_id: int | None = getattr(event, "id", None)
    if isinstance(event, ActivityStarted) and command_id in retried.forgotten and command_id not in retried.undone:
        return False  # it runs at most once, and a retry does not make that void
    if isinstance(event, ChildStarted) and not _is_after(retried, event.id):
        return False  # the workflow may have gone on beside it, long before it failed
    return command_id is not None and _names(retried, command_id)


def _names(retried: RunRetried, command_id: int) -> bool:
    return command_id in retried.forgotten or _is_after(retried, command_id)


def _is_after(retried: RunRetried, command_id: int) -> bool:
    return retried.position is not None and command_id > retried.position
