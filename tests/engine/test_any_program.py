"""Whatever the workflow and whatever happens: every replay stands where the live run stood."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
import weakref
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.engine.history_builder import codec, picture, stand, stored
from tests.engine.owned_run import OwnedRun
from tests.engine.programs import Program, code_of, programs, retries, schedules
from tests.engine.world import live
from tinyworkflow_core.engine.history import RunRetried
from tinyworkflow_core.engine.replay import Execution

quick = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

timeouts = st.none() | st.integers(5, 60)


def since_the_latest_retry(run: OwnedRun) -> int:
    """The shortest part of the history that may be stepped on from: over a retry nobody steps."""
    return 1 + max((i for i, one in enumerate(run.history) if isinstance(one, RunRetried)), default=0)


@quick
@given(program=programs, retries=retries, timeout=timeouts, schedule=schedules)
def test_a_replay_of_every_prefix_stands_where_the_live_run_stood(
    program: Program, retries: int, timeout: int | None, schedule: list[int]
) -> None:
    with OwnedRun(code_of(retries), program, timeout=timeout) as run:  # checks its replay after every commit
        live(run, schedule)
        event(type(run.outcome).__name__)
        event(f"about {len(run.history) // 5 * 5} events")
        for one in {type(one).__name__ for one in [*run.history, *(one for part in run.earlier for one in part)]}:
            event(one)


@quick
@given(program=programs, retries=retries, timeout=timeouts, schedule=schedules, data=st.data())
def test_how_events_are_grouped_into_commits_makes_no_difference(
    program: Program, retries: int, timeout: int | None, schedule: list[int], data: st.DataObject
) -> None:
    with OwnedRun(code_of(retries), program, timeout=timeout, always_replay=False) as run:
        live(run, schedule)
        history, least = run.history, since_the_latest_retry(run)
        wanted = stand(run.execution) if not run.has_ended else None
        facts = run.facts
        # Closed whatever happens, and a draw may end the example: code that is thrown away instead runs its `finally`
        # when the collector comes, in the middle of whichever execution is at work then.
        with ExitStack() as to_close:
            whole = Execution(run.code, stored(history), facts=facts, codec=codec)
            to_close.callback(whole.close)
            assert wanted is None or stand(whole) == wanted
            cuts = sorted(data.draw(st.sets(st.integers(least, len(history)), max_size=6)) | {least, len(history)})
            execution = Execution(run.code, stored(history[: cuts[0]]), facts=facts, codec=codec)
            to_close.callback(execution.close)
            for begin, end in pairwise(cuts):
                execution.step(stored(history[begin:end]))
            assert _without_marks(stand(execution)) == _without_marks(stand(whole))


def _without_marks(seen: dict[str, Any]) -> dict[str, Any]:
    """Stepped over its marks, an execution still holds those that it would have recorded itself."""
    withdrawn, patches, _ = seen["withdrawn"]
    return seen | {"withdrawn": [withdrawn, patches]}


@quick
@given(program=programs, retries=retries, schedule=schedules, data=st.data())
def test_a_fork_of_any_part_of_a_history_goes_on_from_there(
    program: Program, retries: int, schedule: list[int], data: st.DataObject
) -> None:
    with OwnedRun(code_of(retries), program, always_replay=False) as run:
        live(run, schedule)
        if run.facts.generation:
            return  # a fork begins with the generation that is there
        at_event = data.draw(st.integers(1, len(run.history)))
        with run.forked(at_event, "run-2") as fork:
            assert picture(fork.outcome)[0] != "mismatch", picture(fork.outcome)
            live(fork, data.draw(schedules))
            event(type(fork.outcome).__name__)


@settings(quick, max_examples=10)
@given(program=programs, retries=retries, schedule=schedules, data=st.data())
def test_a_run_that_is_put_away_at_any_moment_leaves_nothing_behind(
    program: Program, retries: int, schedule: list[int], data: st.DataObject
) -> None:
    with OwnedRun(code_of(retries), program, always_replay=False) as run:
        live(run, schedule)
        history, code, facts = stored(run.history), run.code, run.facts
    until = data.draw(st.integers(1, len(history)))
    gc.collect()  # what others have left is not this run's
    hooks, said, heard = sys.get_asyncgen_hooks(), _Heard(), []
    logging.getLogger("tinyworkflow.workflow").addHandler(said)
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda one: heard.append(repr(one.exc_value))
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            execution = Execution(code, history[:until], facts=facts, codec=codec)
            said.records.clear()
            before = _footprint(execution)
            left = weakref.ref(execution.journal)
            execution.close()
            assert _footprint(execution) == before
            del execution
            gc.collect()
            assert left() is None
        assert (heard, [str(one.message) for one in warned], said.records) == ([], [], [])
    finally:
        sys.unraisablehook = unraisable
        logging.getLogger("tinyworkflow.workflow").removeHandler(said)
    assert asyncio._get_running_loop() is None
    assert sys.get_asyncgen_hooks() == hooks


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())


def _footprint(execution: Execution) -> dict[str, Any]:
    """What its owner would write of it."""
    seen = stand(execution)
    return {name: seen[name] for name in ("outcome", "open", "outward", "position", "answers", "status", "withdrawn")}
