"""What is SQLite's own: group commit, plans, errors, threads, forks and the wake-ups between processes."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.stores.records import SECOND, T0, TTL, a_message, a_run, happened, let_go, make, make_waiting, opening, take
from tinyworkflow_core import App
from tinyworkflow_core.dispatchers.local import NoDispatcher
from tinyworkflow_core.errors import ConfigurationError, LeaseLost, StoreError, StoreUnavailableError
from tinyworkflow_core.store import Commit, NewRun, Release, RunQuery, Status, after_prefix
from tinyworkflow_core.stores import sqlite_connections
from tinyworkflow_core.stores.sqlite import SELECT_DUE, SELECT_HELD, SELECT_HOLDERS, SqliteStore
from tinyworkflow_core.stores.sqlite_connections import connect
from tinyworkflow_core.stores.sqlite_rows import find_statement, list_statement, microseconds
from tinyworkflow_core.testing.virtual_clock import VirtualClock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "runs.db")


@pytest.fixture
async def store(path: str) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    await opened.close()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that the stores of this test carry out."""
    statements: list[str] = []

    def watching(path: str, **how: Any) -> sqlite3.Connection:
        db = connect(path, **how)
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr(sqlite_connections, "connect", watching)
    return statements


class Unreliable:
    """A connection whose COMMITs are spoilt: "before" fails instead of committing, "after" commits and then fails."""

    def __init__(self, db: sqlite3.Connection, spoils: list[str]) -> None:
        self._db = db
        self._spoils = spoils

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        if sql != "COMMIT" or not self._spoils:
            return self._db.execute(sql, values)
        if self._spoils.pop(0) == "after":
            self._db.execute(sql)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.fixture
def spoils(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the next COMMITs of this test go wrong."""
    planned: list[str] = []
    monkeypatch.setattr(sqlite_connections, "connect", lambda path, **how: Unreliable(connect(path, **how), planned))
    return planned


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread or process brings about."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come about in ten seconds")


# --- durability and speed ------------------------------------------------------------------------


def test_a_commit_is_on_disk_when_it_returns(path: str) -> None:
    db = connect(path)

    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    db.close()


async def test_what_was_acknowledged_outlives_a_killed_process(path: str) -> None:
    code = (
        "import asyncio, os, signal\n"
        "from tests.stores.records import *\n"
        "from tinyworkflow_core.stores import open_store\n"
        "async def main():\n"
        f"    store = open_store('sqlite:///{path}')\n"
        "    await make(store)\n"
        "    await store.commit(await take(store), Commit(sequence=1, events=(happened(1),)))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=30)  # noqa: ASYNC221  # nothing else runs here

    store = SqliteStore(path)
    state = await store.load("run-1")
    await store.close()

    assert state is not None
    assert list(state.history) == [*opening(a_run()), happened(1)]


async def test_writes_that_wait_at_the_same_time_share_one_transaction(store: SqliteStore, watched: list[str]) -> None:
    leases = []
    for number in range(50):
        await make(store, f"r{number}")
        leases.append(await take(store, f"r{number}"))
    watched.clear()

    await asyncio.gather(*(store.commit(lease, Commit(sequence=1, events=(happened(1),))) for lease in leases))

    assert 1 <= watched.count("COMMIT") <= 10
    watched.clear()
    await store.commit(leases[0], Commit(sequence=2, events=(happened(2),)))
    assert len(watched) == 3, watched  # BEGIN, the one INSERT, COMMIT


async def test_a_lost_lease_undoes_its_own_commit_and_no_other_in_the_transaction(
    store: SqliteStore, watched: list[str]
) -> None:
    leases = []
    for number in range(20):
        await make(store, f"r{number}")
        leases.append(await take(store, f"r{number}"))
        if number % 3 == 0:
            assert await store.acquire(f"r{number}", owner="b", now=T0 + TTL, ttl=TTL) is not None
    watched.clear()
    commit = Commit(sequence=1, events=(happened(1),), consumed=("x",), release=Release(status=Status.WAITING))

    outcomes = await asyncio.gather(*(store.commit(lease, commit) for lease in leases), return_exceptions=True)

    assert "ROLLBACK TO one" in watched
    for number, outcome in enumerate(outcomes):
        state = await store.load(f"r{number}")
        assert state is not None
        assert isinstance(outcome, LeaseLost) is (number % 3 == 0)
        assert (happened(1) in state.history) is (number % 3 != 0)
        assert (state.run.lease_owner is None) is (number % 3 != 0)


def plan_of(db: sqlite3.Connection, sql: str, values: Any) -> str:
    return "; ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values))


def test_no_question_of_the_tick_scans_the_runs(path: str) -> None:
    db = connect(path)

    for sql, values, index in (
        (SELECT_DUE, (1, 1), "runs_due (due_at<?)"),
        (SELECT_HELD, ("a", 1, 1), "runs_held (lease_owner=? AND due_at>?)"),
        (SELECT_HOLDERS, (), "runs_held"),  # the whole of that index: it holds runs that are held, and no others
    ):
        plan = plan_of(db, sql, values)
        assert index in plan
        assert "TEMP B-TREE FOR ORDER BY" not in plan
    db.close()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(), "runs_newest"),
        (RunQuery(status=Status.WAITING), "runs_by_status"),
        (RunQuery(name="n"), "runs_by_name"),
        (RunQuery(workflow_id="w"), "runs_by_workflow_id"),
        (RunQuery(parent_run_id="p"), "runs_by_parent"),
        (RunQuery(open_approvals=True), "runs_asking"),
        (RunQuery(started_after=T0, started_before=T0), "runs_newest"),
    ],
)
def test_lists_read_an_index_in_order_and_sort_nothing(path: str, query: RunQuery, index: str) -> None:
    db = connect(path)

    plan = plan_of(db, *list_statement(query))

    assert index in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan  # by workflow_id it sorts the runs of each one
    db.close()


@pytest.mark.parametrize("by", ["run_id", "workflow_id"])
@pytest.mark.parametrize("prefix", ["order_", chr(sys.maxunicode)])
def test_runs_are_found_by_a_range_of_an_index(path: str, prefix: str, by: Literal["run_id", "workflow_id"]) -> None:
    db = connect(path)

    plan = plan_of(db, *find_statement(prefix, by, 10))

    assert "SEARCH runs USING INDEX" in plan
    assert f"({by}>" in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan  # by workflow_id it sorts the runs of each one
    db.close()


def test_what_comes_after_a_prefix_is_the_first_text_that_does_not_begin_like_it() -> None:
    assert after_prefix("ab") == "ac"
    assert after_prefix("a" + chr(sys.maxunicode)) == "b"
    assert after_prefix(chr(sys.maxunicode)) is None
    assert after_prefix("\ud7ff") == "\ue000", "what lies between are no characters"


async def test_finding_ten_due_runs_costs_the_same_among_ten_and_among_twenty_thousand(
    store: SqliteStore, path: str
) -> None:
    for number in range(10):
        await make_waiting(store, f"due-{number}", wake_at=T0 + number * SECOND)
    db = connect(path)
    now = microseconds(T0 + timedelta(minutes=1))
    steps = [0]

    def cost() -> int:
        steps[0] = 0
        db.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 1)
        assert len(db.execute(SELECT_DUE, (now, 100)).fetchall()) == 10
        db.set_progress_handler(None, 1)
        return steps[0]

    among_ten = cost()
    columns = [row[1] for row in db.execute("PRAGMA table_info(runs)")]
    values = ", ".join({"run_id": "'w' || n.value", "due_at": f"{now} + 1 + n.value"}.get(one, one) for one in columns)
    db.execute(
        f"INSERT INTO runs SELECT {values} FROM runs, "
        "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 20000) "
        "SELECT * FROM n) n WHERE run_id = 'due-0'"
    )

    assert db.execute("SELECT COUNT(*) FROM runs").fetchone() == (20010,)
    assert cost() <= among_ten + 2  # a step or two to see that the next one is not due
    db.close()
    assert await store.due(now=T0 + timedelta(minutes=1), limit=3) == ["due-0", "due-1", "due-2"]


async def test_a_tick_over_two_thousand_open_runs_touches_the_ten_that_are_due(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[str] = []
    steps = [0]

    def watching(path: str, **how: Any) -> sqlite3.Connection:
        db = connect(path, **how)
        db.set_trace_callback(watched.append)
        db.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 1)
        return db

    monkeypatch.setattr(sqlite_connections, "connect", watching)
    apps = [App(SqliteStore(f"{path}-{name}"), dispatcher=NoDispatcher(), clock=VirtualClock(T0)) for name in "ab"]
    for app, others in zip(apps, (0, 2000), strict=True):
        waiting = {"status": Status.WAITING, "wake_at": T0 + TTL}
        await asyncio.gather(*(make(app.store, f"open-{number}", **waiting) for number in range(others)))
        await asyncio.gather(*(make(app.store, f"due-{number}", wake_at=T0) for number in range(10)))
        await app.tick(limit=0)  # makes the table of the schedules

    told = []
    for app in apps:
        watched.clear()
        steps[0] = 0
        report = await app.tick()
        told.append((list(watched), steps[0]))
        assert sorted(report.dispatched) == [f"due-{number}" for number in range(10)]
        await app.close()

    (few, cost_of_few), (many, cost_of_many) = told
    assert few == many
    assert cost_of_many <= cost_of_few + 2  # a step or two to see that the next one is not due


async def test_runs_held_by_a_dead_owner_are_due_at_once_behind_those_that_are_overdue(store: SqliteStore) -> None:
    await make_waiting(store, "overdue", wake_at=T0)
    for name, owner in (("held-1", "dead"), ("held-2", "alive"), ("held-3", "dead")):
        await make(store, name)
        await take(store, name, owner=owner, now=T0 + int(name[-1]) * SECOND)

    assert await store.due(now=T0, limit=10) == ["overdue"]
    assert await store.due(now=T0, limit=10, gone=lambda owner: owner == "dead") == ["overdue", "held-1", "held-3"]
    assert await store.due(now=T0, limit=2, gone=lambda owner: owner == "dead") == ["overdue", "held-1"]


async def test_whoever_held_a_purged_run_cannot_write_into_its_successor(store: SqliteStore) -> None:
    await make(store)
    lease = await take(store)
    await store.purge("run-1")

    with pytest.raises(LeaseLost):
        await store.commit(lease, Commit(sequence=1, events=(happened(1),)))
    await make(store)
    with pytest.raises(LeaseLost):
        await store.commit(lease, Commit(sequence=1, events=(happened(1),)))


async def test_a_run_that_goes_on_for_ever_keeps_one_row_of_history(store: SqliteStore, path: str) -> None:
    await make(store)
    await make(store, "neighbour")

    for generation in range(1000):
        lease = await take(store)
        for number in (1, 2):
            await store.commit(lease, Commit(sequence=number, events=(happened(number),)))
        going_on = Release(status=Status.PENDING, next_generation=(happened(generation),))
        await store.commit(lease, Commit(sequence=3, events=(happened(3),), release=going_on))

    db = connect(path)
    assert db.execute("SELECT run_id, generation, sequence FROM history ORDER BY run_id").fetchall() == [
        ("neighbour", 0, 0),
        ("run-1", 1000, 0),
    ]
    db.close()


async def test_only_the_release_that_was_written_counts_as_asked_again(store: SqliteStore) -> None:
    await make(store)
    lease = await take(store)
    await let_go(store, lease)
    closing = Release(status=Status.COMPLETED, output="1", closed_at=T0)

    await let_go(store, lease)
    with pytest.raises(LeaseLost):
        await store.commit(lease, Commit(sequence=0, release=closing))
    with pytest.raises(LeaseLost):
        await let_go(store, lease, wake_at=T0)


# --- errors --------------------------------------------------------------------------------------


async def test_a_database_that_another_process_keeps_locked_is_unavailable_and_later_works(
    store: SqliteStore, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connections, "BUSY_SECONDS", 0.05)
    await make(store)
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailableError, match="locked") as caught:
        await make(store, "run-2")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert await store.get("run-1") is not None  # readers do not wait

    other.execute("ROLLBACK")
    other.close()
    await make(store, "run-2")


async def test_a_full_disk_is_unavailable_and_nothing_of_the_commit_is_written(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(path: str, **how: Any) -> sqlite3.Connection:
        db = connect(path, **how)
        db.execute("PRAGMA max_page_count = 60")
        return db

    monkeypatch.setattr(sqlite_connections, "connect", small)
    await make(store)
    lease = await take(store)

    with pytest.raises(StoreUnavailableError, match="full"):
        await store.commit(lease, Commit(sequence=1, events=(happened(1, "x" * 500_000),)))

    state = await store.load("run-1")
    assert state is not None
    assert state.sequence == 0
    await store.commit(lease, Commit(sequence=1, events=(happened(1),)))


GOING_ON = Release(status=Status.PENDING, next_generation=(happened(1),))


@pytest.mark.parametrize("spoil", ["before", "after"])
@pytest.mark.parametrize("release", [None, Release(status=Status.WAITING), GOING_ON])
async def test_a_commit_whose_answer_was_lost_can_be_asked_again_whatever_became_of_it(
    store: SqliteStore, spoils: list[str], spoil: str, release: Release | None
) -> None:
    await make(store)
    await make(store, "neighbour")
    lease = await take(store)
    child = NewRun(run=a_run("child"), events=tuple(opening(a_run("child"))))
    commit = Commit(
        sequence=1,
        events=(happened(1),),
        release=release,
        outbox=(("neighbour", a_message()),),
        new_runs=(child,),
    )
    spoils.append(spoil)

    with pytest.raises(StoreUnavailableError):
        await store.commit(lease, commit)
    await store.commit(lease, commit)

    state = await store.load("run-1")
    assert state is not None
    assert list(state.history) == [*([] if release is GOING_ON else opening(a_run())), happened(1)]
    assert list(await store.inbox("neighbour")) == [a_message()]
    assert await store.get("child") == child.run


@pytest.mark.parametrize("spoil", ["before", "after"])
async def test_an_opening_again_whose_answer_was_lost_can_be_asked_again(
    store: SqliteStore, spoils: list[str], spoil: str
) -> None:
    await make_waiting(store, "run-1", Status.FAILED, closed_at=T0)
    spoils.append(spoil)

    with pytest.raises(StoreUnavailableError):
        await store.reopen("run-1", sequence=1, events=[happened(1)], retry_count=1, now=T0)

    assert await store.reopen("run-1", sequence=1, events=[happened(1)], retry_count=1, now=T0)
    state = await store.load("run-1")
    assert state is not None
    assert state.sequence == 1


@pytest.mark.parametrize("spoil", ["before", "after"])
async def test_a_create_whose_answer_was_lost_can_be_asked_again(
    store: SqliteStore, spoils: list[str], spoil: str
) -> None:
    run = a_run()
    spoils.append(spoil)

    with pytest.raises(StoreUnavailableError):
        await store.create(run, opening(run))

    assert await store.create(run, opening(run))


async def test_a_file_of_a_newer_release_is_refused_and_left_alone(path: str) -> None:
    db = connect(path)
    db.execute("PRAGMA user_version = 999")
    db.close()
    store = SqliteStore(path)

    with pytest.raises(StoreError, match=r"newer release \(schema 999; this one knows 2\)"):
        await make(store)

    await store.close()


async def test_a_file_of_the_first_schema_is_brought_up_to_date_with_all_that_is_in_it(path: str) -> None:
    old = sqlite3.connect(path)
    old.executescript((Path(__file__).parent / "schema_1.sql").read_text())
    old.close()
    stores = [SqliteStore(path) for _ in range(4)]  # as when several processes start on it

    states = await asyncio.gather(*(store.load("child") for store in stores))

    state = states[0]
    assert state is not None
    assert states == [state] * 4
    assert list(state.history) == [*opening(a_run()), happened(1)]
    assert (state.run.status, state.run.problem, state.run.parent_run_id) == (Status.PARKED, "p", "parent")
    assert list(state.inbox) == [a_message()]
    assert [run.run_id for run in (await stores[0].list(RunQuery(parent_run_id="parent"))).items] == ["child"]
    assert schema_of(path) == schema_of(":memory:")
    for store in stores:
        await store.close()


def schema_of(path: str) -> tuple[int, list[tuple[str, str]]]:
    db = connect(path)
    number = db.execute("PRAGMA user_version").fetchone()[0]
    things = db.execute("SELECT name, sql FROM sqlite_schema WHERE tbl_name != 'schedules' ORDER BY name").fetchall()
    db.close()
    return number, things


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(b"this is a text, and a long one\n" * 100)  # nothing else runs here
    store = SqliteStore(str(path))

    with pytest.raises(StoreError, match="not a database") as caught:
        await store.get("run-1")

    assert not isinstance(caught.value, StoreUnavailableError)
    await store.close()


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "missing" / "runs.db"))

    with pytest.raises(ConfigurationError, match=r"no directory .*missing"):
        await store.get("run-1")

    await store.close()


async def test_an_id_that_no_file_can_hold_is_refused_as_a_store_error(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="cannot hold"):
        await store.get("\udcff")


# --- threads, loops, forks -----------------------------------------------------------------------


def threads_of(path: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if path in thread.name]


async def test_threads_start_with_the_first_use_and_end_with_close(path: str) -> None:
    store = SqliteStore(path)
    assert threads_of(path) == []

    await make(store)
    await store.get("run-1")
    assert len(threads_of(path)) == 1
    await store.list(RunQuery())
    assert len(threads_of(path)) == 2

    await store.close()
    await store.close()
    await until(lambda: threads_of(path) == [])
    assert os.listdir(os.path.dirname(path)) == ["runs.db"]  # the write-ahead log went into it
    with pytest.raises(StoreError, match="closed"):
        await store.get("run-1")
    await SqliteStore(path).close()  # one that was never used


async def test_callers_that_stop_waiting_harm_nobody(store: SqliteStore) -> None:
    await make(store)
    lease = await take(store)
    commits = [Commit(sequence=number, events=(happened(number),)) for number in range(1, 21)]
    tasks = [asyncio.create_task(store.commit(lease, commit)) for commit in commits]
    await asyncio.sleep(0)  # so that all of them are queued

    for task in tasks[::2]:
        task.cancel()
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert all(outcome is None for outcome in outcomes[1::2])
    state = await store.load("run-1")
    assert state is not None
    assert state.sequence == 20  # what was queued has happened all the same


def test_event_loops_in_several_threads_share_one_instance(path: str) -> None:
    store = SqliteStore(path)
    failures: list[BaseException] = []

    async def work(name: str) -> None:
        await make(store, name)
        lease = await take(store, name)
        for number in range(1, 21):
            await store.commit(lease, Commit(sequence=number, events=(happened(number),)))

    def thread(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(f"r{number}",)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    async def check() -> list[int]:
        states = [await store.load(f"r{number}") for number in range(4)]
        await store.close()
        return [state.sequence for state in states if state is not None]

    assert failures == []
    assert asyncio.run(check()) == [20, 20, 20, 20]


async def test_many_that_open_a_new_file_at_once_all_get_it(path: str) -> None:
    stores = [SqliteStore(path) for _ in range(8)]

    await asyncio.gather(*(make(store, f"r{number}") for number, store in enumerate(stores)))

    assert len((await stores[0].list(RunQuery())).items) == 8
    for store in stores:
        await store.close()


async def test_a_new_file_that_somebody_else_is_writing_to_is_waited_for(path: str) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE theirs (x)")
    other.execute("BEGIN IMMEDIATE")
    store = SqliteStore(path)

    making = asyncio.create_task(make(store))
    await asyncio.sleep(0.05)  # so that the store has met the lock
    other.execute("COMMIT")
    other.close()
    await making

    await store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("child_listens", ["first", "later"])
def test_an_instance_goes_on_in_a_forked_process_and_in_its_parent(path: str, child_listens: str) -> None:
    store = SqliteStore(path)
    heard: list[str] = []

    async def begin() -> None:
        store.subscribe(lambda run_id, _: heard.append(run_id))
        await make(store, "before")

    async def go_on_in_the_child() -> None:
        own: list[str] = []
        if child_listens == "later":
            await make(store, "child-1")
        store.subscribe(lambda run_id, _: own.append(run_id))
        await make(store, "child-2")
        await until(lambda: "child-2" in own)
        await store.close()  # the parent is told after this process's own listeners are

    async def go_on_in_the_parent() -> list[str]:
        await until(lambda: "child-2" in heard)
        await make(store, "after")
        runs = (await store.list(RunQuery())).items
        await store.close()
        return sorted(run.run_id for run in runs)

    with asyncio.Runner() as runner:
        runner.run(begin())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads: that is the point
            child = os.fork()
        if child == 0:
            try:
                asyncio.run(go_on_in_the_child())
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        between = ["child-1", "child-2"] if child_listens == "later" else ["child-2"]
        assert runner.run(go_on_in_the_parent()) == ["after", "before", *between]
        assert ("child-1" in heard) is ("child-1" in between)


# --- wake-ups ------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [True, False])
async def test_whoever_listens_hears_of_new_runs_messages_ends_and_reopenings_and_of_nothing_else(
    path: str, in_memory: bool
) -> None:
    store = SqliteStore(":memory:" if in_memory else path)
    heard: list[str] = []
    end = store.subscribe(lambda run_id, _: heard.append(run_id))

    async def hears(*expected: str) -> None:
        await until(lambda: len(heard) >= len(expected))
        assert sorted(heard) == sorted(expected)
        heard.clear()

    await make(store)
    await hears("run-1")
    await make(store, "neighbour")
    await hears("neighbour")
    await store.deliver("run-1", a_message())
    await hears("run-1")
    await store.deliver("run-1", a_message())  # again: nothing has changed
    lease = await take(store)
    await store.commit(lease, Commit(sequence=1, events=(happened(1),)))
    await store.commit(lease, Commit(sequence=2, outbox=(("neighbour", a_message()),)))
    await hears("neighbour")
    await let_go(store, lease)  # a run that waits is nobody's business: see the worker in app.py
    child = NewRun(run=a_run("child"), events=tuple(opening(a_run("child"))))
    await store.commit(await take(store), Commit(sequence=3, events=(happened(3),), new_runs=(child,)))
    await hears("child")
    await let_go(store, await take(store, now=T0 + TTL), Status.COMPLETED)
    await hears("run-1")
    assert not await store.reopen("run-1", sequence=3, events=[happened(5)], retry_count=0, now=T0)
    assert await store.reopen("run-1", sequence=5, events=[happened(5)], retry_count=0, now=T0)
    await hears("run-1")
    going_on = Release(status=Status.PENDING, next_generation=(happened(1),))
    await store.commit(await take(store), Commit(sequence=6, release=going_on))  # its holder dispatches it

    end()
    end()
    await store.deliver("neighbour", a_message("m-2"))
    await store.close()
    assert heard == []


async def test_a_change_in_one_process_reaches_the_listener_in_another_at_once(store: SqliteStore, path: str) -> None:
    await make(store)
    listener = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.stores.listener", f"sqlite:///{path}", stdout=asyncio.subprocess.PIPE
    )
    assert listener.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await listener.stdout.readline() == b"ready\n"
            times = []
            for number in range(20):
                began = time.monotonic()
                await store.deliver("run-1", a_message(f"m-{number}"))
                assert await listener.stdout.readline() == b"run-1\n"
                times.append(time.monotonic() - began)
    finally:
        listener.kill()
        await listener.wait()

    print(f"deliver here to callback there: median {sorted(times)[10] * 1000:.1f} ms, worst {max(times) * 1000:.1f} ms")
    assert sorted(times)[10] < 0.5  # generous: the machine may be busy; a poll would take longer on purpose
    await store.deliver("run-1", a_message("nobody is there any more"))


def listeners_in(path: str) -> list[tuple[int, int]]:
    db = connect(path)
    rows = db.execute("SELECT port, pid FROM listeners").fetchall()
    db.close()
    return rows


async def test_listeners_that_have_died_are_forgotten_and_those_that_stop_take_their_leave(path: str) -> None:
    store = SqliteStore(path)
    await make(store)
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await dead.wait()
    db = connect(path)
    db.execute("INSERT INTO listeners VALUES (1, ?), (2, ?)", (dead.pid, os.getpid()))
    db.close()

    end = store.subscribe(lambda run_id, _: None)
    await until(lambda: [pid for _, pid in listeners_in(path)] == [os.getpid(), os.getpid()])
    assert 1 not in dict(listeners_in(path))

    end()
    await until(lambda: list(dict(listeners_in(path))) == [2])
    store.subscribe(lambda run_id, _: None)
    await store.close()
    assert list(dict(listeners_in(path))) == [2]


async def test_datagrams_from_strangers_do_no_harm(store: SqliteStore, path: str) -> None:
    heard: list[str] = []
    store.subscribe(lambda run_id, _: heard.append(run_id))
    await make(store, "run-0")
    await until(lambda: bool(listeners_in(path)))
    port = listeners_in(path)[0][0]
    await until(lambda: heard == ["run-0"])
    heard.clear()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for datagram in (
            b"",
            b"\xff\xfe",
            b"{",
            b"7",
            b'["run-1"]',
            b"[1, null, []]",
            b"[" * 60000,
            b"x" * 65000,
        ):
            stranger.sendto(datagram, ("127.0.0.1", port))
        stranger.sendto(b'{"forged": 7}', ("127.0.0.1", port))
        await until(lambda: heard == ["forged"])

    await make(store)
    await until(lambda: heard == ["forged", "run-1"])


async def test_who_waits_for_a_run_is_told_to_look_again_once_other_processes_can_tell_it(tmp_path: Path) -> None:
    # It may have ended after the first look, and before its process knew whom to tell.
    store = SqliteStore(str(tmp_path / "a.db"))
    told: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
    end = store.subscribe(lambda run_id, ended: told.put_nowait((run_id, ended)), run_id="mine")
    assert await asyncio.wait_for(told.get(), timeout=30) == ("mine", True)
    end()
    await store.close()
