"""Real processes fight for one run: whatever they do, its history stays one line."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.stores.conftest import StoreFactory
from tests.stores.records import make
from tinyworkflow_core.engine.history import LeaseTaken, RunStarted, SideEffectRecorded
from tinyworkflow_core.stores import open_store

RACERS = 8
NUMBERS = {"sqlite-file": 200, "firestore": 40}


async def test_eight_processes_that_fight_for_a_run_write_one_linear_history(
    shared_store_factory: StoreFactory,
) -> None:
    url, total = shared_store_factory.url(), NUMBERS[shared_store_factory.kind]
    store = open_store(url)
    await make(store)

    racers = [
        subprocess.Popen(  # noqa: ASYNC220  # nothing else runs in this loop
            [sys.executable, "-m", "tests.stores.racer", url, "run-1", f"racer-{number}", str(total)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(RACERS)
    ]
    try:
        acknowledged = [json.loads(racer.communicate(timeout=100)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()

    state = await store.load("run-1")
    await store.close()
    assert state is not None
    assert [event.id for event in state.history if isinstance(event, SideEffectRecorded)] == list(range(1, total + 1))
    assert sorted(number for ours in acknowledged for number in ours) == list(range(1, total + 1))
    assert {type(event) for event in state.history} == {RunStarted, SideEffectRecorded, LeaseTaken}
    assert state.sequence == len(state.history) - 1
