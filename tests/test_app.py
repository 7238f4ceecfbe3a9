"""App: what the environment says, and a worker that picks up what is due and lets go when it is told to."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.listening import listeners
from tinyworkflow_core import AdvanceSettings, App, TinyWorkflowClient, WorkflowContext, activity, workflow
from tinyworkflow_core.advance import Progress
from tinyworkflow_core.clock import SystemClock
from tinyworkflow_core.dispatcher import Task
from tinyworkflow_core.dispatchers.local import LocalDispatcher, NoDispatcher
from tinyworkflow_core.errors import ConfigurationError, StoreUnavailableError
from tinyworkflow_core.store import Run, Status
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.stores.sqlite import SqliteStore

MEMORY = "sqlite:///:memory:"
SECOND = timedelta(seconds=1)


class Gate:
    """An activity's body that never comes to its end, and how often it was begun."""

    def __init__(self) -> None:
        self.visits = 0
        self.at_work = asyncio.Event()

    async def stand(self, number: int) -> int:
        self.visits += 1
        self.at_work.set()
        await asyncio.Event().wait()
        return number


@activity
async def add_one(number: int) -> int:
    return number + 1


@workflow
async def adds(ctx: WorkflowContext, number: int) -> int:
    first: int = await ctx.execute_activity(add_one, number)
    return await ctx.execute_activity(add_one, first)


WORKFLOWS = (adds, add_one)


class Worlds:
    """Apps on one SQLite file, all closed in the end."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "runs.db"
        self.url = f"sqlite:///{self.file}"
        self._apps: list[App] = []

    def app(self, **arguments: Any) -> App:
        made = App(arguments.pop("store", self.url), workflows=WORKFLOWS, **({"tick_seconds": 60} | arguments))
        self._apps.append(made)
        return made

    async def worker(self, **arguments: Any) -> App:
        made = self.app(**arguments)
        await made.start_worker()
        return made

    async def run(self, run_id: str) -> Run:
        store = open_store(self.url)
        run = await store.get(run_id)
        await store.close()
        assert run is not None
        return run

    async def close(self) -> None:
        for app in self._apps:
            await app.close()


@pytest.fixture
async def worlds(tmp_path: Path) -> AsyncIterator[Worlds]:
    made = Worlds(tmp_path)
    yield made
    await made.close()


async def at_work(app: App, gate: Gate) -> str:
    """A run of `adds` whose first activity stands at the gate."""
    run_id = await app.client.start_workflow(adds, 1)
    async with asyncio.timeout(5):
        await gate.at_work.wait()
    return run_id


# --- the environment -----------------------------------------------------------------------------------


def test_without_an_environment_it_is_a_file_here_and_calls_in_this_process() -> None:
    app = App.from_env({})
    assert isinstance(app.store, SqliteStore)
    assert isinstance(app.dispatcher, LocalDispatcher)
    assert (app.api_keys, app.request_seconds, app.tick_seconds) == ((), None, 1.0)
    assert settings_of(app) == AdvanceSettings()


def test_each_variable_of_the_environment_is_read(tmp_path: Path) -> None:
    environ = {
        "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/here.db",
        "TINYWORKFLOW_API_KEYS": "one, two,,three ",
        "TINYWORKFLOW_DISPATCHER": "none",
        "TINYWORKFLOW_LEASE": "1m",
        "TINYWORKFLOW_REQUEST_TIMEOUT": "9.5",
        "TINYWORKFLOW_TICK": "250ms",
    }
    app = App.from_env(environ)
    assert isinstance(app.dispatcher, NoDispatcher)
    assert app.api_keys == ("one", "two", "three")
    assert settings_of(app) == AdvanceSettings(lease_seconds=60.0)
    assert (app.request_seconds, app.tick_seconds) == (9.5, 0.25)
    asyncio.run(store_something(app))
    assert (tmp_path / "here.db").exists()


def test_arguments_win_over_the_environment() -> None:
    store = open_store(MEMORY)
    environ = {"TINYWORKFLOW_DATABASE_URL": "nonsense", "TINYWORKFLOW_TICK": "5s", "TINYWORKFLOW_DISPATCHER": "odd"}
    app = App.from_env(environ, store=store, tick_seconds=2.0, dispatcher="local")
    assert app.store is store
    assert app.tick_seconds == 2.0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DATABASE_URL", "mysql://user:secret@host/db", "'mysql://', which is not supported"),
        ("DATABASE_URL", "", "without a scheme"),
        ("DATABASE_URL", "sqlite:///", "a SQLite URL is"),
        ("DISPATCHER", "locale", "'locale' is not known"),
        ("DISPATCHER", "", "'' is not known"),
        ("LEASE", "soon", "not a duration: 'soon'"),
        ("LEASE", "0", "more than 0"),
        ("LEASE", "", "not a duration"),
        ("LEASE", "²", "²"),
        ("REQUEST_TIMEOUT", "-5", "not a duration"),
        ("REQUEST_TIMEOUT", "0s", "more than 0"),
        ("TICK", "1.5.2", "not a duration"),
        ("TICK", "0.0", "more than 0"),
    ],
)
def test_a_variable_that_does_not_fit_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        App.from_env({f"TINYWORKFLOW_{name}": value})
    assert f"TINYWORKFLOW_{name}" in str(raised.value)
    assert "secret" not in str(raised.value)


def settings_of(app: App) -> AdvanceSettings:
    return app._advancer._around.settings


async def store_something(app: App) -> None:
    await app.store.due(now=app.clock.now(), limit=1)
    await app.close()


# --- putting it together -------------------------------------------------------------------------------


def test_making_an_app_connects_to_nothing_starts_nothing_and_needs_no_loop(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    app = App(f"sqlite:///{tmp_path}/here.db", workflows=WORKFLOWS)
    assert set(threading.enumerate()) == threads
    assert list(tmp_path.iterdir()) == []

    async def use() -> int:
        run_id = await app.client.start_workflow(adds, 1)
        result: int = await app.client.get_result(run_id, timeout=5)
        await app.close()
        return result

    assert asyncio.run(use()) == 3


async def test_closing_an_app_that_was_never_used_is_fine_and_so_is_closing_twice() -> None:
    for _ in range(2):
        app = App(MEMORY)
        await app.close()
        await app.close()


async def test_a_dispatcher_is_known_by_name_or_brought_along() -> None:
    class Own:
        asked: list[str] = []  # noqa: RUF012  # one test, one list
        closed = False

        async def dispatch(self, task: Task, at: datetime | None = None) -> None:
            self.asked.append(task.run_id)

        async def close(self) -> None:
            self.closed = True

    own = Own()
    app = App(MEMORY, workflows=WORKFLOWS, dispatcher=own)
    assert own.asked == [] != [await app.client.start_workflow(adds, 1, run_id="r")]
    assert own.asked == ["r"]
    assert await app.advance("r") is Progress.CLOSED
    await app.close()
    assert own.closed
    odd: Any = "cloud"
    with pytest.raises(ConfigurationError, match="dispatcher 'cloud' is not known"):
        App(MEMORY, dispatcher=odd)


async def test_a_call_ends_within_the_time_that_a_request_may_take(worlds: Worlds) -> None:
    gate = Gate()
    app = worlds.app(dispatcher="none", request_seconds=0.05, replaced_activities={"add_one": gate.stand})
    run_id = await app.client.start_workflow(adds, 1)
    began = time.monotonic()
    assert await app.advance(run_id) is Progress.CONTINUES
    assert time.monotonic() - began < 2
    assert (await worlds.run(run_id)).status is Status.PENDING


# --- being a worker ------------------------------------------------------------------------------------


async def test_a_worker_needs_a_dispatcher_that_makes_calls_here() -> None:
    app = App(MEMORY, dispatcher="none")
    with pytest.raises(ConfigurationError, match="needs dispatcher='local'"):
        await app.start_worker()
    await app.close()


async def test_a_worker_is_told_at_once_what_another_process_has_started(worlds: Worlds) -> None:
    await worlds.worker(tick_seconds=60)
    await until(lambda: listeners(worlds.file) == 1)
    other = worlds.app(dispatcher="none")
    assert await seconds_to_result(other) < 30  # no tick comes before that
    await asyncio.sleep(0.1)
    assert await seconds_to_result(other) < 30


async def test_a_worker_finds_by_its_tick_what_nobody_told_it(worlds: Worlds) -> None:
    await worlds.worker(store=Deaf(open_store(worlds.url)), tick_seconds=0.05)
    other = worlds.app(dispatcher="none")
    for _ in range(2):
        assert await seconds_to_result(other) < 10


async def test_what_was_started_while_no_worker_lived_is_done_by_the_next_one(worlds: Worlds) -> None:
    client = worlds.app(dispatcher="none").client
    run_ids = [await client.start_workflow(adds, number) for number in range(5)]
    await worlds.worker()
    assert [await client.get_result(run_id, timeout=5) for run_id in run_ids] == [2, 3, 4, 5, 6]


async def test_a_worker_with_more_to_do_than_room_for_does_not_wait_for_its_next_tick(worlds: Worlds) -> None:
    client = worlds.app(dispatcher="none").client
    run_ids = [await client.start_workflow(adds, number) for number in range(20)]

    async def call(task: Task) -> None:
        await worker.carry_out(task)

    narrow = LocalDispatcher(call, clock=SystemClock(), max_calls=3)
    worker = worlds.app(store=Deaf(open_store(worlds.url)), dispatcher=narrow, tick_seconds=60)
    await worker.start_worker()
    assert sorted([await client.get_result(run_id, timeout=20) for run_id in run_ids]) == list(range(2, 22))


class Deaf:
    """A store that tells nobody of changes, and says how often it was asked what is due."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.looks = 0
        self.troubles: list[Exception] = []
        self.max_event_bytes = store.max_event_bytes

    def __getattr__(self, name: str) -> Any:
        if name == "subscribe":
            raise AttributeError(name)
        return getattr(self._store, name)

    async def due(self, **arguments: Any) -> list[str]:
        self.looks += 1
        if self.troubles:
            raise self.troubles.pop()
        found: list[str] = await self._store.due(**arguments)
        return found


async def test_starting_a_worker_twice_starts_one(worlds: Worlds) -> None:
    store = Deaf(open_store(worlds.url))
    worker = await worlds.worker(store=store)
    await worker.start_worker()
    await asyncio.sleep(0.1)
    assert store.looks == 1
    await worker.stop_worker()
    await worker.stop_worker()
    await worker.start_worker()
    await asyncio.sleep(0.1)
    assert store.looks == 2


async def test_a_worker_that_was_stopped_picks_nothing_up(worlds: Worlds) -> None:
    worker = await worlds.worker(tick_seconds=0.02)
    other = worlds.app(dispatcher="none")
    await seconds_to_result(other)  # it is told of changes, and ticks
    await worker.stop_worker()
    run_id = await other.client.start_workflow(adds, 1)
    await asyncio.sleep(0.15)
    assert (await worlds.run(run_id)).started_at is None


async def test_a_tick_that_fails_is_logged_and_the_worker_lives_on(
    worlds: Worlds, caplog: pytest.LogCaptureFixture
) -> None:
    store = Deaf(open_store(worlds.url))
    store.troubles = [StoreUnavailableError("away"), OSError("disk"), ValueError("a bug")]
    client = worlds.app(dispatcher="none").client
    run_id = await client.start_workflow(adds, 1)
    with caplog.at_level(logging.ERROR, "tinyworkflow.worker"):
        await worlds.worker(store=store, tick_seconds=0.02)
        assert await client.get_result(run_id, timeout=5) == 3
    assert [record.getMessage() for record in caplog.records] == ["a tick failed; the next one follows"] * 3


async def test_a_delayed_start_is_on_time_here_and_in_another_process(worlds: Worlds) -> None:
    clock = SystemClock()
    await worlds.worker(tick_seconds=0.05)
    for client in (worlds.app().client, worlds.app(dispatcher="none").client):
        run_id = await client.start_workflow(adds, 1, start_delay="600ms")
        starts_at = clock.now() + timedelta(milliseconds=600)
        await asyncio.sleep(0.05)
        assert (await worlds.run(run_id)).status is Status.PENDING
        assert await client.get_result(run_id, timeout=5) == 3
        state = await client.store.load(run_id)
        assert state is not None
        first = next(event.at for event in state.history[1:])
        assert abs(first - starts_at) < 3 * SECOND
        assert first >= state.history[0].at


# --- letting go ----------------------------------------------------------------------------------------


async def assert_let_go_in_the_middle(worlds: Worlds, run_id: str) -> None:
    """Nothing is written of what was cut off, and anybody may go on at once."""
    run = await worlds.run(run_id)
    now = SystemClock().now()
    assert (run.status, run.lease_owner, run.lease_until) == (Status.PENDING, None, None)
    assert run.wake_at is not None
    assert now - 5 * SECOND < run.wake_at <= now
    client = worlds.app(dispatcher="none").client
    assert [event["type"] for event in await client.get_workflow_events(run_id)] == ["RunStarted"]


async def assert_goes_on_at_once(worlds: Worlds, run_id: str) -> None:
    began = time.monotonic()
    worker = await worlds.worker()
    assert await worker.client.get_result(run_id, timeout=5) == 3
    assert time.monotonic() - began < 1
    events = await worker.client.get_workflow_events(run_id)
    assert [event["type"] for event in events] == ["RunStarted", *["ActivityCompleted"] * 2, "RunCompleted"]
    assert [event["attempt"] for event in events[1:3]] == [1, 1]


async def test_closing_in_the_middle_of_an_activity_lets_go_and_the_next_worker_goes_on_at_once(
    worlds: Worlds,
) -> None:
    gate = Gate()
    app = await worlds.worker(replaced_activities={"add_one": gate.stand})
    run_id = await at_work(app, gate)
    await app.close()
    assert gate.visits == 1
    await assert_let_go_in_the_middle(worlds, run_id)
    await assert_goes_on_at_once(worlds, run_id)


async def test_closing_does_not_wait_for_an_activity_in_a_thread(worlds: Worlds) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def stubborn(number: int) -> int:
        at_work.set()
        go_on.wait(10)
        return number + 1000

    app = await worlds.worker(replaced_activities={"add_one": stubborn})
    run_id = await app.client.start_workflow(adds, 1)
    await until(at_work.is_set)
    began = time.monotonic()
    await app.close()
    assert time.monotonic() - began < 2
    await assert_let_go_in_the_middle(worlds, run_id)
    go_on.set()
    await assert_goes_on_at_once(worlds, run_id)


async def test_closing_an_app_lets_go_of_many_runs_and_loses_none(worlds: Worlds) -> None:
    gate = Gate()
    app = await worlds.worker(replaced_activities={"add_one": gate.stand})
    run_ids = [await app.client.start_workflow(adds, number) for number in range(30)]
    await until(lambda: gate.visits == 30)
    await app.close()
    worker = await worlds.worker()
    assert [await worker.client.get_result(run_id, timeout=5) for run_id in run_ids] == list(range(2, 32))


# --- TinyWorkflowClient ----------------------------------------------------------------------------------


async def test_a_client_without_a_worker_leaves_the_work_to_others(worlds: Worlds) -> None:
    async with TinyWorkflowClient(worlds.url, workflows=WORKFLOWS) as client:
        run_id = await client.start_workflow(adds, 1)
        await asyncio.sleep(0.05)
        assert (await client.get_workflow_status(run_id)).status == "pending"
        await worlds.worker()
        assert await client.get_result(run_id, timeout=5) == 3


async def test_a_client_starts_its_worker_with_its_first_start(worlds: Worlds) -> None:
    waiting = await worlds.app(dispatcher="none").client.start_workflow(adds, 5)
    client = TinyWorkflowClient(worlds.url, auto_start_worker=True, workflows=WORKFLOWS)
    assert await client.get_result(await client.start_workflow(adds, 1), timeout=5) == 3
    assert await client.get_result(waiting, timeout=5) == 7
    await client.close()


async def test_a_client_that_stops_its_worker_lets_go_and_may_start_it_again(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    client = TinyWorkflowClient(worlds.url, auto_start_worker=True, workflows=WORKFLOWS)
    monkeypatch.setattr(client.app, "_advancer", worlds.app(replaced_activities={"add_one": gate.stand})._advancer)
    run_id = await at_work(client.app, gate)
    await client.start_worker()
    await client.stop_worker()
    await assert_let_go_in_the_middle(worlds, run_id)
    later = await client.app.client.start_workflow(adds, 1, start_delay="50ms")
    monkeypatch.undo()
    await client.start_worker()
    for one in (run_id, later):
        assert await client.get_result(one, timeout=5) == 3
    await client.close()


async def test_a_client_takes_its_url_from_the_environment(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWORKFLOW_DATABASE_URL", worlds.url)
    async with TinyWorkflowClient(workflows=WORKFLOWS) as client:
        run_id = await client.start_workflow(adds, 1)
    assert (await worlds.run(run_id)).name == "adds"


# --- small parts -----------------------------------------------------------------------------------------


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # a thread, or another event loop's work
            await asyncio.sleep(0.005)


async def seconds_to_result(app: App) -> float:
    began = time.monotonic()
    assert await app.client.start_workflow(adds, 1, wait=True)
    return time.monotonic() - began
