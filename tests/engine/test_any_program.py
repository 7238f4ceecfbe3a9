"""Whatever the workflow and whatever happens: every replay stands where the live run stood."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.engine.history_builder import FACTS, LiveRun, codec, defined, picture, replayed, stored
from tests.engine.programs import Program, answer, interpreter, programs, schedules
from tinyworkflow_core.engine.replay import Execution

quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(program=programs, schedule=schedules)
def test_a_replay_of_every_prefix_stands_where_the_live_run_stood(program: Program, schedule: list[int]) -> None:
    with LiveRun(interpreter, program) as run:  # checks its replay after every event
        answer(run, schedule)
        event(type(run.outcome).__name__)
        event(f"about {len(run.history) // 5 * 5} events")


@quick
@given(program=programs, schedule=schedules, data=st.data())
def test_how_events_are_grouped_into_commits_makes_no_difference(
    program: Program, schedule: list[int], data: st.DataObject
) -> None:
    with LiveRun(interpreter, program, always_replay=False) as run:
        answer(run, schedule)
        history, wanted = run.history, picture(run.outcome)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(history)), max_size=6)) | {1, len(history)})
    execution = Execution(defined(interpreter), stored(history[: cuts[0]]), facts=FACTS, codec=codec)
    for begin, end in pairwise(cuts):
        execution.step(stored(history[begin:end]))
    assert picture(execution.outcome) == wanted
    execution.close()
    assert picture(replayed(interpreter, history)) == wanted
