"""The demo: a release train on real function processes, with kill -9 in the middle.

`make demo`, `make demo STORE=firestore`. It plays GitHub, a crash and a person, and then counts: what the history says
against what the activities themselves wrote to a file. Exit 0 when everything holds, 1 when something does not, 2 when
it could not be tried here. It shows the library from outside; nothing of the library is made here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx

from demo_stage import (
    LEASE_SECONDS,
    ROOT,
    STEP_SECONDS,
    Body,
    CannotTry,
    DemoError,
    Function,
    Json,
    Stage,
    stage,
    until,
)
from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.store import Run
from tinyworkflow_core.stores import open_store

PAYLOADS = ROOT / "tests/data/github"
KILL_AFTER = 2
"""So many of the six packages are made when the process is killed."""


@dataclass(frozen=True)
class Interruption:
    """What the kill hit."""

    step: int
    seconds: float
    """How long it took until another process went on with the run."""
    alone: bool
    """Whether nothing was left running."""


# --- the play -----------------------------------------------------------------------------------------


def call_the_webhook(to: Function, event: str, action: str, secret: str, delivery: str) -> httpx.Response:
    """Deliver a real payload of GitHub's, signed as GitHub signs."""
    body = (PAYLOADS / f"{event}.{action}.json").read_bytes()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }
    return to.client.post("/hooks/github", content=body, headers=headers)


def publish_a_release(on: Stage) -> str:
    """GitHub tells of a release, and of other things. Returns the run's id."""
    say("GitHub calls POST /hooks/github")
    first, other = on.functions[0], on.functions[-1]
    answer = call_the_webhook(first, "release", "published", on.secret, "delivery-1")
    run_id = str(answer.json().get("run_id"))
    expect(answer, 202, f"release published, signed          -> {answer.status_code}, run {run_id}")
    again = call_the_webhook(other, "release", "published", on.secret, "delivery-1")
    expect(again, 202, f"the same delivery once more        -> {again.status_code}, run {again.json().get('run_id')}")
    if again.json().get("run_id") != run_id:
        raise DemoError("the second delivery made a second run")
    ignored = call_the_webhook(first, "issues", "opened", on.secret, "delivery-2")
    expect(ignored, 202, f"issue opened, signed               -> {ignored.status_code}, {ignored.json().get('status')}")
    forged = call_the_webhook(first, "release", "published", fresh_id(40), "delivery-3")
    expect(forged, 401, f"release signed with another secret -> {forged.status_code}")
    if len(first.get("/v1/runs")["runs"]) != 1:
        raise DemoError("there should be one run now")
    return run_id


def kill_in_the_middle(on: Stage, run_id: str) -> Interruption:
    """kill -9 while a packaging step is at work, and wait until another process goes on."""
    until(lambda: packages_made(on, run_id) >= KILL_AFTER, 30, "the train does not get on")
    time.sleep(STEP_SECONDS / 3)  # into the body of the next
    victim = on.holder()
    victim.kill()
    killed_at, last, alone = time.monotonic(), on.bodies()[-1], not on.alive()
    say(f"{KILL_AFTER} of 6 packages are made, process {last.pid} is inside step {last.step} ({last.name})")
    say(f"kill -9 of its process group (port {victim.port})")
    if alone:
        victim.start()
        say(f"the function is up again, {time.monotonic() - killed_at:.1f} s later; nobody tells it about the run")
    else:
        others = len(on.alive())
        say(f"nothing is restarted: the other {others} find the run when its lease of {LEASE_SECONDS:g} s is over")
    until(lambda: on.bodies()[-1].pid != last.pid, 30, "nobody goes on with the run")
    took, resumed = time.monotonic() - killed_at, next(one for one in on.bodies() if one.pid != last.pid)
    say(f"process {resumed.pid} goes on with step {resumed.step} ({resumed.name}), {took:.1f} s after the kill")
    return Interruption(last.step, took, alone)


def packages_made(on: Stage, run_id: str) -> int:
    """How many packages the history has."""
    events = events_of(on.functions[0], run_id)
    return sum((one["type"], one.get("name")) == ("ActivityCompleted", "package") for one in events)


def wait_for_the_question(on: Stage, run_id: str) -> None:
    """Until the run asks; then show that asking takes nobody's time."""
    asked = on.alive()[-1]
    until(lambda: asked.get(f"/v1/runs/{run_id}")["status"] == "paused", 30, "the run does not come to its question")
    view, before = asked.get(f"/v1/runs/{run_id}"), activity_so_far(on, run_id)
    say(f"the run is paused and asks: {view['open_approvals'][0]['title']}")
    time.sleep(1)  # something could happen now
    record = asyncio.run(stored(on.url, run_id))
    if record.lease_owner is not None or activity_so_far(on, run_id) != before:
        raise DemoError(f"the run is at work while it waits: {record}")
    say("a second later: no lease, nothing at work, no new event; the run is a record in the store and nothing else")


def decide(on: Stage, run_id: str) -> None:
    """A person approves, through whichever process is not the one that worked last; then the run ends."""
    worked_last = on.holder()
    person = next((one for one in on.alive() if one is not worked_last), worked_last)
    decision = {"approved": True, "by": "ada", "comment": "ship it"}
    answer = person.client.post(f"/v1/runs/{run_id}/approvals/publish", json=decision)
    expect(answer, 200, f"ada approves at port {person.port} -> {answer.status_code}")
    until(lambda: has_ended(person, run_id), 30, "the run does not end")
    say(f"the run has ended: {person.get(f'/v1/runs/{run_id}')['status']}")


def has_ended(at: Function, run_id: str) -> bool:
    """GET /v1/runs/{id} answers 202 while the run is open, and 200 afterwards."""
    return at.client.get(f"/v1/runs/{run_id}").status_code == 200


def activity_so_far(on: Stage, run_id: str) -> tuple[int, int]:
    """How many lines the bodies have written, and how many events there are."""
    return len(on.bodies()), len(events_of(on.alive()[0], run_id))


async def stored(url: str, run_id: str) -> Run:
    """The run's record as the store has it: HTTP does not show leases."""
    store = open_store(url)
    try:
        run = await store.get(run_id)
    finally:
        await store.close()
    if run is None:
        raise DemoError(f"the run {run_id} is gone")
    return run


def events_of(at: Function, run_id: str) -> list[Json]:
    """The run's whole history, by GET /v1/runs/{id}/events."""
    events: list[Json] = []
    after: int | None = 0
    while after is not None:
        page = at.get(f"/v1/runs/{run_id}/events?after={after}")
        events, after = [*events, *page["events"]], page["next_after"]
    return events


# --- the reckoning ------------------------------------------------------------------------------------


def show_timeline(events: list[Json]) -> None:
    """The history as a table."""
    start = datetime.fromisoformat(events[0]["at"])
    print(f"\n{'#':>3} {'seconds':>8}  {'event':<18} {'step':<24} {'attempt':<8} note")
    for one in events:
        number, passed, attempt = one["event_id"], seconds_between(start, one["at"]), one.get("attempt", "")
        line = f"{number:>3} {passed:>+8.2f}  {one['type']:<18} {label(one):<24} {attempt:<8} {note(one, start)}"
        print(line.rstrip())


def seconds_between(start: datetime, moment: str) -> float:
    """From the start to a moment in ISO text."""
    return (datetime.fromisoformat(moment) - start).total_seconds()


def label(event: Json) -> str:
    """The step that an event is about: its number, and the activity with its last argument where that is a text."""
    if "id" not in event:
        return ""
    arguments = (event.get("input") or [[]])[0]
    last = f"({arguments[-1]})" if arguments and isinstance(arguments[-1], str) else ""
    return f"{event['id']:>2} {event.get('name') or event.get('key') or 'timer'}{last}"


def note(event: Json, start: datetime) -> str:
    """What an event says, in short."""
    match event["type"]:
        case "ActivityFailed":
            retry_at = event.get("retry_at")
            again = f"; again at {seconds_between(start, retry_at):+.2f}" if retry_at else ""
            return f"{event['error']['type']}: {event['error']['message']}{again}"
        case "TimerStarted":
            away = seconds_between(datetime.fromisoformat(event["at"]), event["due"])
            return f"due in {timedelta(seconds=round(away))}"
        case "LeaseTaken":
            return f"process {pid_of(event['previous_owner'])} fell silent, process {pid_of(event['owner'])} goes on"
        case "ApprovalDecided":
            return f"{'approved' if event['approved'] else 'rejected'} by {event['by']}: {event['comment']}"
    said = next((event[one] for one in ("result", "title", "output") if one in event), None)
    return "" if said is None else (said if isinstance(said, str) else json.dumps(said))[:50]


def pid_of(owner: str) -> str:
    """The process in a lease holder's name."""
    return owner.split("/")[1]


def show_executions(events: list[Json], bodies: list[Body], interrupted: int) -> None:
    """How often each activity's body really ran, beside what the history has."""
    print(f"\n{'step':<26} {'body started':>12} {'ended':>6}   the history has")
    for step, name in steps_of(events).items():
        what = Counter(one["type"] for one in events if one.get("id") == step)
        has = ", ".join(f"{what[one]} {one.removeprefix('Activity').lower()}" for one in sorted(what) if what[one])
        mark = "   <- killed here" if step == interrupted else ""
        print(f"{name:<26} {times(bodies, step, 'start'):>12} {times(bodies, step, 'end'):>6}   {has}{mark}")


def steps_of(events: list[Json]) -> dict[int, str]:
    """All activities of a history, by number."""
    return {one["id"]: label(one) for one in events if one["type"].startswith("Activity")}


def times(bodies: list[Body], step: int, what: str) -> int:
    """How often this was written about that step."""
    return sum((one.step, one.what) == (step, what) for one in bodies)


def verdicts(view: Json, events: list[Json], bodies: list[Body], interrupted: Interruption) -> dict[str, bool]:
    """What has to hold, and whether it does."""
    steps, types = steps_of(events), Counter(one["type"] for one in events)
    completed = Counter(one["id"] for one in events if one["type"] == "ActivityCompleted")
    failed = [(one["name"], one["attempt"]) for one in events if one["type"] == "ActivityFailed"]
    tries = completed + Counter(one["id"] for one in events if one["type"] == "ActivityFailed")
    once = all(times(bodies, one, "start") == tries[one] for one in steps if one != interrupted.step)
    edges = ("RunStarted", "LeaseTaken", "ApprovalRequested", "ApprovalDecided", "RunCompleted")
    found = {
        "the run completed and the release is published": view["status"] == "completed" and view["output"]["published"],
        f"each of the {len(steps)} steps completed once": completed == Counter(list(steps)),
        "every step's body ran once, and once more for a failed attempt": once,
        "the step that the kill interrupted ran twice at most": 1 <= times(bodies, interrupted.step, "start") <= 2,
        "build failed once, and its second attempt was the last": failed == [("build", 1)],
        "no body ran that the history does not know": {one.step for one in bodies} == set(steps),
        "the history has no gap, and nothing twice": all(types[one] == 1 for one in edges)
        and [one["event_id"] for one in events] == [*range(1, len(events) + 1)],
    }
    if not interrupted.alone:
        bound = LEASE_SECONDS + 5  # a tick, and what a busy machine takes
        found[f"another process went on within {bound:g} s, without a restart"] = interrupted.seconds < bound
    return found


# --- small parts --------------------------------------------------------------------------------------


def say(text: str) -> None:
    """One line of the play."""
    print(f"  {text}", flush=True)


def expect(answer: httpx.Response, status: int, text: str) -> None:
    """Tell what came, and stop when it is something else."""
    say(text)
    if answer.status_code != status:
        raise DemoError(f"expected {status}, got {answer.status_code}: {answer.text}")


def play(store: str) -> int:
    """The whole demo; the exit code."""
    began = time.monotonic()
    with stage(store) as on:
        ports = ", ".join(str(one.port) for one in on.functions)
        say(f"{len(on.functions)} x functions-framework (port {ports}) on {on.url}")
        try:
            run_id = publish_a_release(on)
            interrupted = kill_in_the_middle(on, run_id)
            wait_for_the_question(on, run_id)
            decide(on, run_id)
            at = on.alive()[0]
            view, events, bodies = at.get(f"/v1/runs/{run_id}"), events_of(at, run_id), on.bodies()
        except (DemoError, httpx.HTTPError):
            for one in on.functions:
                print(f"\nthe function at port {one.port} printed:\n{one.printed()}")
            raise
    show_timeline(events)
    show_executions(events, bodies, interrupted.step)
    found = verdicts(view, events, bodies, interrupted)
    print()
    for statement, holds in found.items():
        print(f"  {'ok    ' if holds else 'FAILED'}  {statement}")
    outcome = "Everything holds" if all(found.values()) else "Not everything holds"
    print(f"\n{outcome}; {time.monotonic() - began:.1f} s")
    return 0 if all(found.values()) else 1


def main() -> int:
    """Run it with the store that the command line names."""
    store = sys.argv[1] if len(sys.argv) > 1 else "sqlite"
    if store not in ("sqlite", "firestore"):
        print(f"demo: STORE is sqlite or firestore, not {store}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return play(store)
    except CannotTry as reason:
        print(f"demo: cannot be tried here: {reason}", file=sys.stderr)
        return 2
    except (DemoError, httpx.HTTPError) as problem:
        print(f"demo: FAILED: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; all its processes have been ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
