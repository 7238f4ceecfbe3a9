"""Writes the golden histories that are missing: `python -m tests.engine.make_golden`. What is there stays for ever.

Beside every history stands what the engine said after each of its events when the history was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.engine.activities import DeclinedError
from tests.engine.golden_workflows import GOLDEN, before_the_patch
from tests.engine.history_builder import codec, picture, replayed, retry_plan
from tests.engine.owned_run import OwnedRun
from tinyworkflow_core.engine.commands import RunSideEffect
from tinyworkflow_core.engine.history import ActivityFailed, RunForked, SignalReceived, history_to_json
from tinyworkflow_core.errors import RunExistsError, StepInterruptedError

FOLDER = Path(__file__).parent / "golden"

INPUTS: dict[str, Any] = {"sequential": {"amount": 5, "item": "ball"}, "generations": 0, "forked": 5}
TIMEOUTS = {"times_out": 3600.0}
"""Seconds that a run may take."""
MADE_BY = {"unpatched": before_the_patch}
"""Where the history was made by code that has changed since."""


def sequential(run: OwnedRun) -> None:
    run.later(1).fail(run.activities[0], ConnectionError("down"), retry_in=2)
    run.later(2).complete(run.activities[0], "receipt 7")
    run.later(1).let_go()
    run.later(1).complete(run.activities[0], ("ball", 1))
    run.let_go().fire(run.timers[0])


def parallel_with_failure(run: OwnedRun) -> None:
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


def timers_and_signals(run: OwnedRun) -> None:
    run.signal("note", 1).let_go()
    run.fire(run.timers[0])
    run.later(3).signal("other").signal("go", {"late": True}).signal("go", "kept")
    run.later(1).let_go().signal("note", "enough")
    for timer in sorted(run.timers, key=lambda timer: timer.due):
        run.fire(timer)


def approvals(run: OwnedRun) -> None:
    run.let_go()
    run.fire(min(run.timers, key=lambda timer: timer.due))
    run.let_go().later(1).decide("legal", by="ada", comment="fine", data={"amount": 3})
    run.let_go().later(5).decide("boss", False, by="bob")


def approval_by_vote(run: OwnedRun) -> None:
    run.let_go().later(1).complete(run.activities[0])
    run.let_go().fire(min(run.timers, key=lambda timer: timer.due))
    run.later(1).complete(run.activities[0])
    run.let_go().later(1).vote("boss", "ada", comment="fine", data={"amount": 3})
    run.fire(min(run.timers, key=lambda timer: timer.due))
    run.later(1).complete(run.activities[0])
    run.let_go().fire(min(run.timers, key=lambda timer: timer.due))
    run.later(1).fail(run.activities[0], ConnectionError("down"))
    run.let_go().later(5).vote("boss", "eve")


def task_group_cleanup(run: OwnedRun) -> None:
    run.let_go()
    run.later(9).fail(run.activities[0], ValueError("declined"))
    for command in run.activities:
        run.later(1).complete(command)


def chances(run: OwnedRun) -> None:
    for _ in range(2):
        for command in run.commands:
            if isinstance(command, RunSideEffect):
                run.later(1).record_side_effect(command)
        if run.execution.journal.open:
            run.let_go().fire(run.timers[0])


def cancelled_with_cleanup(run: OwnedRun) -> None:
    first, second = run.activities
    run.later(5).let_go().cancel("no longer needed")
    run.later(1).cancel("hurry").end_withdrawn(second)
    run.later(1).complete(first, "1 EUR")
    run.later(1).complete(run.activities[0])


def first_of_many(run: OwnedRun) -> None:
    run.later(1).complete(run.activities[2], 3)
    run.end_withdrawn()
    for _ in range(3):
        run.later(1).complete(run.activities[0], run.activities[0].args[0] * 10)
    for command in reversed(run.activities):
        run.later(1).complete(command, command.args[0] + 1)


def saga_retried(run: OwnedRun) -> None:
    run.later(1).complete(run.activities[0], "room 7")
    run.later(1).fail(run.activities[0], ConnectionError("down"), retry_in=2)
    run.later(2).complete(run.activities[0], "seat 7")
    run.later(1).fail(run.activities[0], DeclinedError("card"))
    run.later(1).complete(run.activities[0])
    run.later(1).fail(run.activities[0], ConnectionError("down"), retry_in=5)
    run.later(5).complete(run.activities[0])
    run.end()
    run.retry()
    for result in ("room 8", "seat 8", "5 EUR"):
        run.later(1).complete(run.activities[0], result)
    run.end()


def parent(run: OwnedRun) -> None:
    run.later(1).happen(run.child_started(run.children[0]))
    run.later(1).happen(run.child_started(run.children[1]))
    run.later(1).happen(run.child_started(run.children[2]))
    told, _, given = run.children
    run.later(1).happen(run.child_ended(given, result="done"))
    run.happen(run.sent(run.messages[0]))
    run.happen(run.child_refused(run.children[2], RunExistsError("its run_id is taken", run_id="run-1.0.5")))
    run.later(1).happen(run.child_started(run.children[2]))
    run.later(1).happen(run.child_ended(run.children[2], error=DeclinedError("broken")))
    run.happen(run.sent(run.messages[0]))
    run.later(1).happen(run.child_ended(told, status="cancelled"))
    run.happen(run.sent(run.messages[0], reached=False))
    run.happen(run.child_started(run.children[1])).let_go()
    run.fire(run.timers[0])
    run.later(1).happen(run.child_ended(run.children[1], status="cancelled"))
    run.end()


def generations(run: OwnedRun) -> None:
    run.later(1).signal("note", "kept").signal("go", 1)
    late = SignalReceived(at=run.now, message_id="signal/late", name="go", payload=codec.encode(2))
    run.history.append(late)
    run.taken_up().end().end()
    assert run.facts.generation == 2
    run.later(1).signal("go", 3)
    run.end()


def patched(run: OwnedRun) -> None:
    run.later(1).complete(run.activities[0], 2)
    run.later(1).complete(run.activities[0], "result")
    run.let_go().fire(run.timers[0]).end()


def updates_and_queries(run: OwnedRun) -> None:
    run.later(1).happen(run.updated("add", 3))
    run.later(1).happen(run.updated("add", -1))
    run.happen(run.updated("fail", "no"))
    run.later(1).happen(*run.answered())
    run.happen(run.updated("add", 5))
    for command, total in zip(reversed(run.activities), (6, 10), strict=True):
        run.later(1).complete(command, command.args[0] + 1)
        assert json.loads(run.execution.query("total")) == total
    run.end()


def at_most_once_interrupted(run: OwnedRun) -> None:
    run.later(1).happen(run.begun(run.activities[0]))
    run.later(1).complete(run.activities[0], 1)
    run.later(1).happen(run.begun(run.activities[0]))
    run.later(60).taken_over()
    run.fail(run.activities[0], StepInterruptedError("whether it took effect is not known"))
    run.end()


def queue_activities(run: OwnedRun) -> None:
    first, second = run.activities
    run.happen(run.handed_out(first), run.handed_out(second))
    run.later(1).happen(run.beaten(first, {"at": 5}))
    run.later(5).complete(second, "B")
    lost = ActivityFailed(
        at=run.later(60).now,
        **first.about(),
        attempt=1,
        started_at=run.now,
        error=codec.failure(TimeoutError("nothing was heard of it in time")),
        retry_at=run.now,
        heartbeat=codec.encode({"at": 5}),
    )
    run.happen(lost).happen(run.handed_out(first))
    run.later(1).complete(first, "A")
    for number in range(4):
        command = run.activities[0]
        run.happen(run.handed_out(command))
        if number == 1:
            run.later(1).fail(command, ValueError("one"))
        else:
            run.later(1).complete(command, number * 10)
    run.end()


def times_out(run: OwnedRun) -> None:
    run.later(1).complete(run.activities[0], "room 7")
    run.later(1).complete(run.activities[0], "car 7")
    run.let_go().happen(run.timed_out())
    run.later(1).complete(run.activities[0])
    run.later(1).fail(run.activities[0], ConnectionError("down"))
    run.later(1).complete(run.activities[0])
    run.end()


def forked(run: OwnedRun) -> OwnedRun:
    run.later(1).happen(run.child_started(run.children[0]))
    run.later(1).complete(run.activities[0], "5 EUR")
    run.let_go().later(50)
    with run.forked(len(run.history), "run-2", input_data=7) as fork:
        fork.happen(fork.child_started(fork.children[0]))
        fork.let_go().fire(fork.timers[0])
        fork.later(1).happen(fork.child_ended(fork.children[0], result="own"))
        return fork.end()


STORIES: dict[str, Callable[[OwnedRun], OwnedRun | None]] = {
    "sequential": sequential,
    "parallel_with_failure": parallel_with_failure,
    "timers_and_signals": timers_and_signals,
    "approvals": approvals,
    "approval_by_vote": approval_by_vote,
    "task_group_cleanup": task_group_cleanup,
    "chances": chances,
    "cancelled_with_cleanup": cancelled_with_cleanup,
    "first_of_many": first_of_many,
    "saga_retried": saga_retried,
    "parent": parent,
    "generations": generations,
    "patched": patched,
    "unpatched": patched,
    "updates_and_queries": updates_and_queries,
    "at_most_once_interrupted": at_most_once_interrupted,
    "queue_activities": queue_activities,
    "times_out": times_out,
    "forked": forked,
}


def golden(name: str) -> dict[str, Any]:
    """The history that the story makes (that of its last generation, or of the run that the story gives), and what the
    engine says after each event."""
    with OwnedRun(MADE_BY.get(name, GOLDEN[name]), INPUTS.get(name), timeout=TIMEOUTS.get(name)) as run:
        told = STORIES[name](run) or run
        history, facts = told.history, told.facts
    begins = max((i for i, one in enumerate(history) if isinstance(one, RunForked)), default=0)
    events: list[dict[str, Any]] = []
    for i, one in enumerate(history_to_json(history)):
        if i < begins:  # a fork comes into being with all that it has lived through
            events.append({"event": one, "then": None})
            continue
        outcome = replayed(GOLDEN[name], history[: i + 1], facts=facts)
        events.append({"event": one, "then": picture(outcome), "retry": retry_plan(outcome)})
    return {"workflow": name, "run_id": facts.run_id, "generation": facts.generation, "events": events}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in GOLDEN:
        path = FOLDER / f"{name}.json"
        if path.exists():
            print(f"kept {path.name}")
        else:
            path.write_text(json.dumps(golden(name), indent=1) + "\n")
            print(f"wrote {path.name}")
