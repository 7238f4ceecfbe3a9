"""Replayed: executions of runs that were only looked at, kept for the next who looks.

The attempts of a fan-out are calls of their own, and each has to find its command in the same run. Were each to replay
it, n attempts would cost n times n. What was replayed is kept instead and taken on by the events that came since.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence

from ..engine.context import RunFacts
from ..engine.history import Event, RunForked, RunRetried
from ..engine.replay import Blocked, Execution
from ..records import dataclass
from ..registry import WorkflowDefinition
from ..serialization import Codec

MOST_EVENTS = 20_000
"""Events of all kept executions together: some 30 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    execution: Execution
    definition: WorkflowDefinition[object]
    history: Sequence[Event]


class Replayed:
    """Executions by run and generation, those used last first. Not for those who change anything: they are shared."""

    def __init__(self, codec: Codec) -> None:
        self.lock = threading.RLock()
        """To be held while one of them is looked at."""
        self._codec = codec
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()
        # Code that is dropped in the middle must find that it is put away, also at the end of the process.
        weakref.finalize(self, _put_away, self._kept)

    def get(self, definition: WorkflowDefinition[object], history: Sequence[Event], facts: RunFacts) -> Execution:
        """The run's code where this history leads it; good as long as the lock is held. Raises what an Execution
        raises."""
        key = (facts.run_id, facts.generation)
        kept = self._kept.pop(key, None)
        if kept is not None and not _goes_on(kept, definition, history):
            kept.execution.close()
            kept = None
        if kept is None:
            execution = Execution(definition, history, facts=facts, codec=self._codec)
        else:
            execution = kept.execution
            self._step(execution, history[len(kept.history) :])
        self._kept[key] = _Kept(execution=execution, definition=definition, history=history)
        self._make_room()
        return execution

    def _step(self, execution: Execution, events: Sequence[Event]) -> None:
        if events:
            try:
                execution.step(events)
            except BaseException:
                execution.close()
                raise

    def _make_room(self) -> None:
        events = sum(len(kept.history) for kept in self._kept.values())
        while events > MOST_EVENTS and len(self._kept) > 1:
            _, kept = self._kept.popitem(last=False)
            kept.execution.close()
            events -= len(kept.history)

    def close(self) -> None:
        """Put all of them away."""
        with self.lock:
            _put_away(self._kept)


def _put_away(kept: OrderedDict[tuple[str, int], _Kept]) -> None:
    while kept:
        kept.popitem()[1].execution.close()


def _goes_on(kept: _Kept, definition: WorkflowDefinition[object], history: Sequence[Event]) -> bool:
    """Whether this history is what was replayed, and more. A history is only ever appended to; but a run may have been
    purged, and another one have taken its id."""
    known = len(kept.history)
    return (
        kept.definition is definition
        and isinstance(kept.execution.outcome, Blocked)
        and len(history) >= known
        and (history[0], history[known - 1]) == (kept.history[0], kept.history[-1])
        and not any(isinstance(event, (RunRetried, RunForked)) for event in history[known:])  # they void what was
    )
