"""What the TinyWorkflow 0.1 library got wrong, each sentence of it a test that fails there. How it was broken stands in
the first lines of each test.

The dashboard's two, a script run from a workflow's name and a 400 shown as success, are tested with the dashboard.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.eventually import eventually
from tests.http.front import assert_problem, calling, new_app
from tinyworkflow_core import (
    App,
    RetryPolicy,
    TinyWorkflowClient,
    WorkflowContext,
    WorkflowFailedError,
    activity,
    activity_context,
    workflow,
)
from tinyworkflow_core.cli import cli
from tinyworkflow_core.dispatcher import Advance, Perform
from tinyworkflow_core.errors import ApprovalClosedError, InvalidInputError, SerializationError, UnknownWorkflowError
from tinyworkflow_core.schedule_store import Schedule
from tinyworkflow_core.testing import START, VirtualClock, WorkflowEnvironment

ROOT = Path(__file__).parents[1]
ONCE = RetryPolicy(max_retries=0)
CALLS: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _count_from_nothing() -> None:
    CALLS.clear()


@activity
async def note(what: str) -> str:
    CALLS[what] += 1
    await asyncio.sleep(0.01)
    return what


@workflow
async def notes(ctx: WorkflowContext, what: str) -> str:
    return await ctx.execute_activity(note, what)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


def client_of(url: str, **options: Any) -> TinyWorkflowClient:
    return TinyWorkflowClient(url, workflows=options.pop("workflows", [notes, asks, asks_twice, asks_late]), **options)


# --- who works on a run ------------------------------------------------------------------------------


async def test_two_workers_run_a_run_once(url: str) -> None:
    # 0.1: each worker listed the pending rows once a second and ran them, without taking them first.
    async with client_of(url, auto_start_worker=True) as one, client_of(url, auto_start_worker=True) as other:
        run_ids = [await (one, other)[n % 2].start_workflow("notes", f"n{n}") for n in range(20)]
        for run_id in run_ids:
            await one.get_result(run_id, timeout=30)
    assert Counter({f"n{n}": 1 for n in range(20)}) == CALLS


DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from tinyworkflow_core import TinyWorkflowClient, WorkflowContext, activity, workflow

@activity
def die_the_first_time():
    if not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"

@workflow
async def mortal(ctx: WorkflowContext):
    return await ctx.execute_activity(die_the_first_time)

async def main():
    async with TinyWorkflowClient("sqlite:///runs.db", auto_start_worker=True) as client:
        await client.start_workflow(mortal, run_id="r", on_conflict="use_existing")
        print(await client.get_result("r", timeout=30))

asyncio.run(main())
"""


def test_a_run_whose_process_was_killed_is_taken_up_by_the_next(tmp_path: Path) -> None:
    # 0.1: workers looked for `pending` only; a run stayed `running` for ever when its process was gone.
    (tmp_path / "dies.py").write_text(DIES)
    command, environ = [sys.executable, "dies.py"], os.environ | {"PYTHONPATH": str(ROOT)}
    ended = [
        subprocess.run(command, check=False, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
        for _ in range(2)
    ]
    assert [one.returncode for one in ended] == [-signal.SIGKILL, 0]
    assert ended[1].stdout == "alive\n"


@activity
async def take_for_ever() -> None:
    CALLS["begun"] += 1
    try:
        await asyncio.sleep(3600)
    finally:
        CALLS["stopped"] += 1


@workflow
async def endless(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(take_for_ever)
    return await ctx.execute_activity(note, "after")


async def test_cancel_stops_what_a_run_is_doing(url: str) -> None:
    # 0.1: cancel wrote `cancelled` into the row; the run went on, and wrote `completed` over it in the end.
    async with client_of(url, workflows=[endless], auto_start_worker=True) as client:
        run_id = await client.start_workflow("endless")
        await eventually(_is(lambda: CALLS["begun"] == 1))
        await client.cancel_workflow(run_id)
        await eventually(_is(lambda: CALLS["stopped"] == 1))
        await eventually(lambda: _has_status(client, run_id, "cancelled"))
    assert CALLS["after"] == 0


def _is(condition: Callable[[], bool]) -> Callable[[], Any]:
    async def ask() -> bool:
        return condition()

    return ask


async def _has_status(client: TinyWorkflowClient, run_id: str, status: str) -> bool:
    return (await client.get_workflow_status(run_id)).status == status


# --- approvals ---------------------------------------------------------------------------------------


@workflow
async def asks(ctx: WorkflowContext) -> bool:
    return bool(await ctx.wait_for_approval("boss"))


@workflow
async def asks_twice(ctx: WorkflowContext) -> list[bool]:
    return [bool(await ctx.wait_for_approval("first")), bool(await ctx.wait_for_approval("second"))]


@workflow(retry_policy=RetryPolicy(max_retries=3, initial_delay=1))
async def asks_late(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(note, "before")
    try:
        await ctx.wait_for_approval("boss", timeout="1h")
    except TimeoutError:
        return "nobody answered"
    return "answered"


@pytest.fixture
async def world() -> AsyncIterator[WorkflowEnvironment]:
    async with WorkflowEnvironment([notes, asks, asks_twice, asks_late]) as environment:
        yield environment


async def test_one_approval_answers_one_checkpoint(world: WorkflowEnvironment) -> None:
    # 0.1: the answer was one column of the run and never cleared: the second checkpoint found the first one's answer.
    run_id = await world.start(asks_twice)
    await world.run()
    await world.decide(run_id)
    await world.advance("1h")
    run = await world.status(run_id)
    assert (run.status, [one.key for one in run.open_approvals]) == ("paused", ["second"])
    await world.decide(run_id, approved=False)
    assert await world.result(run_id) == [True, False]


async def test_a_rejected_run_is_never_shown_as_failed(world: WorkflowEnvironment) -> None:
    # 0.1: reject_workflow wrote `failed`; a second later the workflow went on, and wrote `completed`.
    run_id = await world.start(asks)
    await world.run()
    await world.decide(run_id, approved=False)
    seen = [(await world.status(run_id)).status]
    await world.run()
    seen.append((await world.status(run_id)).status)
    assert seen == ["paused", "completed"]
    assert await world.result(run_id) is False


async def test_approving_an_ended_run_is_refused_and_changes_nothing(url: str) -> None:
    # 0.1: approve_workflow wrote `running` into whatever row it was given, and reported success for unknown ids too.
    async with client_of(url, auto_start_worker=True) as client:
        run_id = await client.start_workflow("notes", "x", wait=True)
        with pytest.raises(ApprovalClosedError):
            await client.approve_workflow(run_id)
        assert (await client.get_workflow_status(run_id)).status == "completed"
        with pytest.raises(Exception, match="there is no run 'nobody'"):
            await client.approve_workflow("nobody")


async def test_an_approval_that_times_out_repeats_nothing_and_can_no_longer_be_given(
    world: WorkflowEnvironment,
) -> None:
    # 0.1: the TimeoutError failed the run where it was not caught, whose retry began at the top.
    run_id = await world.start(asks_late)
    assert await world.result(run_id) == "nobody answered"
    assert CALLS["before"] == 1
    with pytest.raises(ApprovalClosedError):
        await world.decide(run_id)


@workflow(retry_policy=RetryPolicy(max_retries=1, initial_delay=1))
async def never_answered(ctx: WorkflowContext) -> None:
    await ctx.execute_activity(note, "before")
    await ctx.wait_for_approval("boss", timeout="1h")


async def test_an_approval_timeout_that_fails_its_run_repeats_no_activity_when_the_run_is_retried() -> None:
    # 0.1: the same, where nobody caught it: every activity before the approval ran again.
    async with WorkflowEnvironment([never_answered]) as world:
        run_id = await world.start(never_answered)
        with pytest.raises(WorkflowFailedError, match="TimeoutError"):
            await world.result(run_id)
        assert (await world.status(run_id)).retry_count == 1
        assert CALLS == {"before": 1}


# --- retries and results -----------------------------------------------------------------------------


@activity(retry_policy=ONCE)
async def fail_three_times() -> str:
    CALLS["tried"] += 1
    if CALLS["tried"] <= 3:
        raise ConnectionError("not yet")
    return "done"


@workflow(retry_policy=RetryPolicy(max_retries=3, initial_delay=1))
async def fragile_run(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(note, "finished")
    return await ctx.execute_activity(fail_three_times)


async def test_a_workflow_retry_repeats_only_what_failed_and_as_often_as_its_policy_says() -> None:
    # 0.1: a retry called the function again from its first line, and there was one retry whatever max_retries said.
    async with WorkflowEnvironment([fragile_run]) as world:
        run_id = await world.start(fragile_run)
        assert await world.result(run_id) == "done"
        assert CALLS == {"finished": 1, "tried": 4}
        assert (await world.status(run_id)).retry_count == 3

        CALLS["tried"] = -1
        run_id = await world.start(fragile_run)
        with pytest.raises(WorkflowFailedError, match="not yet"):
            await world.result(run_id)
        assert CALLS["tried"] == 3


@activity(retry_policy=RetryPolicy(max_retries=5, initial_delay=2, jitter=False))
async def fail_twice() -> int:
    if activity_context().attempt <= 2:
        raise ConnectionError(f"attempt {activity_context().attempt}")
    return activity_context().attempt


@workflow
async def persistent(ctx: WorkflowContext) -> int:
    return await ctx.execute_activity(fail_twice)


async def test_every_attempt_of_an_activity_is_recorded_with_its_error_and_the_time_of_the_next() -> None:
    # 0.1: attempts were a loop inside of one call; the row's retry_count stayed 0 and no event was written.
    async with WorkflowEnvironment([persistent]) as world:
        run_id = await world.start(persistent)
        assert await world.result(run_id) == 3
        failed = await world.events(run_id, "ActivityFailed")
        assert [(one["attempt"], one["error"]["message"], one["retry_at"]) for one in failed] == [
            (1, "attempt 1", (START + timedelta(seconds=2)).isoformat()),
            (2, "attempt 2", (START + timedelta(seconds=6)).isoformat()),
        ]
        [completed] = await world.events(run_id, "ActivityCompleted")
        assert completed["attempt"] == 3


@activity(retry_policy=ONCE, timeout=0.2)
def block_a_thread() -> None:
    until = time.monotonic() + 20
    while not activity_context().cancelled and time.monotonic() < until:
        time.sleep(0.01)


@workflow
async def blocking(ctx: WorkflowContext) -> float:
    try:
        await ctx.execute_activity(block_a_thread)
    except TimeoutError:
        return 0.2
    return 20


async def test_a_sync_activity_blocks_nobody_and_keeps_to_its_timeout(url: str) -> None:
    # 0.1: it was called on the event loop, where everything else stood still, and its timeout was never looked at.
    async with client_of(url, workflows=[blocking, notes], auto_start_worker=True) as client:
        began = time.monotonic()
        slow = await client.start_workflow("blocking")
        await client.start_workflow("notes", "meanwhile", wait=True)
        assert (await client.get_workflow_status(slow)).status == "running"
        assert await client.get_result(slow, timeout=10) == 0.2
        assert 0.2 <= time.monotonic() - began < 5


@activity
async def give_what_json_does_not_know() -> dict[str, Any]:
    CALLS["given"] += 1
    return {"at": START, "tags": {"a", "b"}}


@activity
async def give_what_nobody_can_store() -> Any:
    CALLS["unstorable"] += 1
    return lambda: None


@workflow(retry_policy=RetryPolicy(max_retries=2, initial_delay=1))
async def odd_results(ctx: WorkflowContext) -> dict[str, Any]:
    given = await ctx.execute_activity(give_what_json_does_not_know)
    try:
        await ctx.execute_activity(give_what_nobody_can_store)
    except SerializationError:
        return given
    raise AssertionError("it was stored")


async def test_a_result_that_is_not_json_does_not_run_its_activity_again() -> None:
    # 0.1: the write of the result failed, the run with it, and the run's retry ran the activity a second time.
    async with WorkflowEnvironment([odd_results]) as world:
        assert await world.result(await world.start(odd_results)) == {"at": START, "tags": {"a", "b"}}
    assert CALLS == {"given": 1, "unstorable": 1}


@activity(retry_policy=ONCE)
async def fail_once_others_run() -> None:
    await eventually(_is(lambda: CALLS["begun"] == 1))
    raise ValueError("one branch")


@workflow
async def branches(ctx: WorkflowContext) -> str:
    try:
        await ctx.execute_parallel((take_for_ever,), (fail_once_others_run,))
    except ValueError:
        CALLS["seen"] = CALLS["stopped"]
    return "caught"


async def test_a_failing_parallel_branch_stops_its_siblings_before_it_is_raised() -> None:
    # 0.1: a bare asyncio.gather: the siblings ran on behind the back of a run that had failed, and wrote to its rows.
    async with WorkflowEnvironment([branches]) as world:
        assert await world.result(await world.start(branches)) == "caught"
    assert CALLS == {"begun": 1, "stopped": 1, "seen": 1}


async def test_concurrent_waiting_starts_return_their_own_run_ids(url: str) -> None:
    # 0.1: `wait=True` returned the newest run of that name, whoever had started it.
    async with client_of(url) as client:
        names = [f"n{n}" for n in range(8)]
        run_ids = await asyncio.gather(*[client.start_workflow("notes", name, wait=True) for name in names])
        assert [await client.get_result(run_id) for run_id in run_ids] == names


# --- time --------------------------------------------------------------------------------------------


async def test_a_delay_is_the_same_in_every_timezone_and_outlives_the_process(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.1: utcnow() plus the delay was handed on as local time, hours off; and it was kept in memory only.
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        clock = VirtualClock()
        async with client_of(url, clock=clock) as client:
            await client.schedule_delayed_workflow("notes", delay_seconds=300, input_data="later")
        for seconds, done in ((299, 0), (300, 1)):
            clock.move_to(START + timedelta(seconds=seconds))
            async with client_of(url, clock=clock) as client:
                await client.app.tick()
                await asyncio.sleep(0.05)  # time for what must not happen at 299
                assert CALLS["later"] <= done
                await (_settled(client) if done else client.app.tick())
        assert CALLS == {"later": 1}
    finally:
        monkeypatch.undo()
        time.tzset()


async def _settled(client: TinyWorkflowClient) -> None:
    """Tick until every run has ended."""

    async def nothing_is_open() -> bool:
        await client.app.tick()
        return all(one.completed_at for one in await client.list_workflow_executions())

    await eventually(nothing_is_open)


async def test_weekdays_of_cron_are_those_of_cron(url: str) -> None:
    # 0.1: APScheduler counts weekdays from Monday = 0, so `1` fired on Tuesdays, and Sundays never by 7.
    async with client_of(url, clock=VirtualClock()) as client:
        days = {}
        for day in ("0", "1", "5", "7", "MON"):
            schedule_id = await client.schedule_workflow("notes", f"0 9 * * {day}", "x")
            [found] = [one for one in await client.list_schedules() if one.id == schedule_id]
            assert isinstance(found, Schedule)
            assert found.next_at is not None
            days[day] = found.next_at.strftime("%A %H:%M")
    assert days == {
        "0": "Sunday 09:00",
        "1": "Monday 09:00",
        "5": "Friday 09:00",
        "7": "Sunday 09:00",
        "MON": "Monday 09:00",
    }


async def test_each_due_time_fires_once_however_many_processes_look(url: str) -> None:
    # 0.1: every process loaded all schedules into a scheduler of its own, and each of them fired.
    clock = VirtualClock()
    async with client_of(url, clock=clock) as one, client_of(url, clock=clock) as other:
        await one.schedule_workflow("notes", "0 * * * *", "x")
        for hour in range(1, 4):
            clock.move_to(START + timedelta(hours=hour))
            await asyncio.gather(one.app.tick(), other.app.tick(), one.app.tick())
            await _settled(one)
        assert len(await one.list_workflow_executions()) == 3
    assert CALLS == {"x": 3}


async def test_times_that_nobody_looked_at_are_made_up_for(url: str) -> None:
    # 0.1: what fell due while no process was up was lost: the schedulers lived in memory.
    clock = VirtualClock()
    async with client_of(url, clock=clock) as client:
        await client.schedule_workflow("notes", "0 * * * *", "x", catch_up="all", overlap="allow")
    clock.move_to(START + timedelta(hours=3, minutes=5))
    async with client_of(url, clock=clock) as client:
        for _ in range(4):
            await client.app.tick()
        assert len(await client.list_workflow_executions()) == 3


async def test_a_bad_schedule_is_refused_and_one_that_is_stored_holds_up_nobody(url: str) -> None:
    # 0.1: a bad line was stored before it was parsed, and from then on killed every worker as it started, in silence.
    clock = VirtualClock()
    async with client_of(url, clock=clock) as client:
        with pytest.raises(InvalidInputError):
            await client.schedule_workflow("notes", "61 * * * *", "x")
        assert await client.list_schedules() == []
        await client.schedule_workflow("notes", "0 * * * *", "x", id="good")
        bad = {"kind": "cron", "expression": "61 * * * *", "timezone": "UTC"}
        fields = {"created_at": START, "due_at": START, "next_at": START, "etag": "e", "input": '"x"'}
        damaged = Schedule(id="bad", workflow="notes", timing=bad, **fields)  # type: ignore[arg-type]  # a mapping
        assert await client.store.schedules.put(damaged, expected=None)
        clock.move_to(START + timedelta(hours=1))
        report = await client.app.tick()
        assert len(report.started) == 1
        assert set(report.problems) == {"bad"}


class Notebook:
    """A dispatcher that only writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def dispatch(self, task: Advance | Perform, at: object = None) -> None:
        self.asked.append(task.run_id)

    async def close(self) -> None: ...


async def test_the_longest_waiting_run_is_taken_first_however_many_new_ones_come(url: str) -> None:
    # 0.1: a worker looked at the ten newest pending runs; with ten new ones a second it never came to the others.
    clock, taken = VirtualClock(), Notebook()
    app = App(url, workflows=[notes], clock=clock, dispatcher=taken)
    started: list[str] = []
    for _ in range(5):
        for _ in range(3):
            started.append(await app.client.start_workflow("notes", "x"))
            clock.move_to(clock.now() + timedelta(seconds=1))
        taken.asked.clear()
        await app.tick(limit=2)
        assert taken.asked == started[:2]
        for run_id in taken.asked:
            await app.advance(run_id)
        del started[:2]
    await app.close()


async def test_an_unknown_workflow_is_refused_before_anything_is_stored(url: str) -> None:
    # 0.1: it was stored as `pending`, and every worker tried it again every second for as long as it lived.
    async with client_of(url) as client:
        with pytest.raises(UnknownWorkflowError, match="did you mean 'notes'"):
            await client.start_workflow("note")
        assert await client.list_workflow_executions() == []


# --- the command line and the front door -------------------------------------------------------------


def test_the_command_line_sees_the_users_code(tmp_path: Path) -> None:
    # 0.1: only `server` and `worker` imported it: `workflows` was always empty, `start --wait` never found anything.
    (tmp_path / "mended_shop.py").write_text(
        "from tinyworkflow_core import workflow\n\n@workflow(name='mended-sale')\nasync def sale(ctx):\n    return 1\n"
    )

    def tinyworkflow(*arguments: str) -> str:  # a process of its own: this one has declared what other tests use
        command = [sys.executable, "-m", "tinyworkflow_core.cli", "--db", "sqlite:///runs.db", "-w", "mended_shop"]
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        called = subprocess.run(
            [*command, *arguments], check=True, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
        )
        return called.stdout

    assert tinyworkflow("workflows").split() == ["mended-sale"]
    assert tinyworkflow("start", "mended-sale").startswith("mended-sale_")


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "nobody"],
        ["cancel", "nobody"],
        ["start", "nothing"],
        ["start", "x", "--input", "{"],
        ["approve", "n"],
    ],
    ids=" ".join,
)
def test_an_error_of_the_command_line_goes_to_stderr_and_exits_non_zero(arguments: list[str], tmp_path: Path) -> None:
    # 0.1: it printed the error and exited 0, so that no script could tell; cancelling nobody was even a success.
    result = CliRunner().invoke(cli, ["--db", f"sqlite:///{tmp_path}/runs.db", *arguments])
    assert result.exit_code != 0
    assert (result.stdout, bool(result.stderr)) == ("", True)


async def test_nobody_starts_sees_or_decides_anything_without_a_key() -> None:
    # 0.1: there were no keys.
    app = new_app(api_keys=["secret"])
    async with calling(app, emulate=False, peer="203.0.113.9", base_url="https://flows.example") as caller:
        for method, path in [
            ("POST", "/v1/workflows/echo/runs"),
            ("GET", "/v1/runs"),
            ("POST", "/v1/runs/r/approvals/go"),
            ("POST", "/v1/runs/r/cancel"),
        ]:
            assert_problem(await caller.request(method, path, json={}), 401, "API key")
        with_key = {"Authorization": "Bearer secret"}
        assert (await caller.post("/v1/workflows/echo/runs", headers=with_key)).status_code == 202
    await app.close()


async def test_without_any_keys_only_this_machine_is_answered() -> None:
    # 0.1: whoever could reach the port could start, cancel and approve.
    app = new_app()
    async with calling(app, emulate=True, peer="203.0.113.9") as caller:
        assert (await caller.get("/v1/runs")).status_code in (401, 403)
    async with calling(app, emulate=True) as caller:
        assert (await caller.get("/v1/runs")).status_code == 200
    await app.close()


def test_a_server_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    # 0.1: --host was 0.0.0.0 by default.
    serve = re.search(r"^serve:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert serve is not None
    assert "--host 127.0.0.1" in serve[1]
    for command in cli.registered_commands:
        assert command.callback is not None
        host = inspect.signature(command.callback).parameters.get("host")
        assert host is None or host.default == "127.0.0.1", command.name
