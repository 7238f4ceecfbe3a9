"""Repeating: the stored events that the code meets again, in order, and which of them it can meet without being put to
sleep.

Code that waits is put to sleep and woken by the event that ends the wait: by a future, a callback and a turn of the
loop. While it only repeats itself the event is mostly the very next one and nothing else is ready to run, so that it
would be woken at once, to go on exactly where it is. Then it is handed the event there and then, which takes half the
time; whether it may be is for `Execution` to say.
"""

from __future__ import annotations

from collections.abc import Sequence

from .history import ActivityCompleted, Event


class Repeating:
    """`whole` as it is stored and `history` without what is void, both with the event that the run began with.

    Of the last event that moves the code (`until`, a place in `history`) and what follows, each is met asleep: there
    the code stops repeating itself.
    """

    def __init__(self, whole: Sequence[Event], history: Sequence[Event], until: int) -> None:
        self._whole = whole
        self._history = history
        self._until = until
        self._place = 0
        self._index = 0

    @property
    def is_last(self) -> bool:
        """Whether the event taken last is the last one that is stored."""
        return self._place == len(self._whole) - 1

    @property
    def is_last_to_move(self) -> bool:
        """Whether the event taken last is the last one that moves the code."""
        return self._index == self._until

    def take(self) -> tuple[Event, bool] | None:
        """The next event, and whether it counts: False for one that is void. None: there is none."""
        place = self._place + 1
        if place >= len(self._whole):
            return None
        self._place, event = place, self._whole[place]
        index = self._index + 1
        if index < len(self._history) and event is self._history[index]:
            self._index = index
            return event, True
        return event, False

    def completed(self, command_id: int) -> ActivityCompleted | None:
        """The next event, where it completes this activity and need not be met asleep. It is not taken."""
        index = self._index + 1
        if index >= self._until:
            return None
        event = self._history[index]
        if type(event) is ActivityCompleted and event.id == command_id and event is self._whole[self._place + 1]:
            return event
        return None
