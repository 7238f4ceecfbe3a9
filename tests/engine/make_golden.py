"""Writes the golden histories that are missing: `python -m tests.engine.make_golden`. What is there stays for ever.

Beside every history stands what the engine said after each of its events when the history was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.engine.activities import DeclinedError
from tests.engine.golden_workflows import GOLDEN
from tests.engine.history_builder import LiveRun, picture, replayed
from tinyworkflow_core.engine.commands import RunSideEffect
from tinyworkflow_core.engine.history import history_to_json

FOLDER = Path(__file__).parent / "golden"

INPUTS: dict[str, Any] = {"sequential": {"amount": 5, "item": "ball"}}


def sequential(run: LiveRun) -> None:
    run.later(1).fail(run.activities[0], ConnectionError("down"), retry_in=2)
    run.later(2).complete(run.activities[0], "receipt 7")
    run.later(1).let_go()
    run.later(1).complete(run.activities[0], ("ball", 1))
    run.let_go().fire(run.timers[0])


def parallel_with_failure(run: LiveRun) -> None:
    first, second, third, fourth, fifth = run.activities
    run.later(1).complete(second, 2)
    run.later(1).fail(fourth, ValueError("fourth"))
    run.later(1).end_withdrawn(first)
    run.complete(third, 3)
    run.end_withdrawn(fifth)
    for command in reversed(run.activities):
        run.later(1).complete(command, command.args)
    cause = DeclinedError("card")
    cause.__cause__ = KeyError("number")
    run.fail(run.activities[0], cause)


def timers_and_signals(run: LiveRun) -> None:
    run.signal("note", 1).let_go()
    run.fire(run.timers[0])
    run.later(3).signal("other").signal("go", {"late": True}).signal("go", "kept")
    run.later(1).let_go().signal("note", "enough")
    for timer in sorted(run.timers, key=lambda timer: timer.due):
        run.fire(timer)


def approvals(run: LiveRun) -> None:
    run.let_go()
    run.fire(min(run.timers, key=lambda timer: timer.due))
    run.let_go().later(1).decide("legal", by="ada", comment="fine", data={"amount": 3})
    run.let_go().later(5).decide("boss", False, by="bob")


def task_group_cleanup(run: LiveRun) -> None:
    run.let_go()
    run.later(9).fail(run.activities[0], ValueError("declined"))
    for command in run.activities:
        run.later(1).complete(command)


def chances(run: LiveRun) -> None:
    for _ in range(2):
        for command in run.commands:
            if isinstance(command, RunSideEffect):
                run.later(1).record_side_effect(command)
        if run.execution.journal.open:
            run.let_go().fire(run.timers[0])


def cancelled_with_cleanup(run: LiveRun) -> None:
    first, second = run.activities
    run.later(5).let_go().cancel("no longer needed")
    run.later(1).cancel("hurry").end_withdrawn(second)
    run.later(1).complete(first, "1 EUR")
    run.later(1).complete(run.activities[0])


def first_of_many(run: LiveRun) -> None:
    run.later(1).complete(run.activities[2], 3)
    run.end_withdrawn()
    for _ in range(3):
        run.later(1).complete(run.activities[0], run.activities[0].args[0] * 10)
    for command in reversed(run.activities):
        run.later(1).complete(command, command.args[0] + 1)


STORIES: dict[str, Callable[[LiveRun], None]] = {
    story.__name__: story
    for story in (
        sequential,
        parallel_with_failure,
        timers_and_signals,
        approvals,
        task_group_cleanup,
        chances,
        cancelled_with_cleanup,
        first_of_many,
    )
}


def golden(name: str) -> dict[str, Any]:
    """The history that the story makes, and what the engine says after each event."""
    with LiveRun(GOLDEN[name], INPUTS.get(name)) as run:
        STORIES[name](run)
        history = history_to_json(run.history)
        said = [picture(replayed(run.code, run.history[: i + 1])) for i in range(len(run.history))]
    return {"workflow": name, "events": [{"event": one, "then": then} for one, then in zip(history, said, strict=True)]}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in GOLDEN:
        path = FOLDER / f"{name}.json"
        if path.exists():
            print(f"kept {path.name}")
        else:
            path.write_text(json.dumps(golden(name), indent=1) + "\n")
            print(f"wrote {path.name}")
