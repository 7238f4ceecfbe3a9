"""Who carries out SQLite's operations, and when: the thread of the loop, the writer's, the reader's; forks and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stores.records import T0, TTL, a_message, happened, make, take
from tests.stores.test_sqlite import threads_of, until
from tinyworkflow_core.errors import LeaseLost, StoreError, StoreUnavailableError
from tinyworkflow_core.store import Commit, RunQuery
from tinyworkflow_core.stores import sqlite_connections, sqlite_writer
from tinyworkflow_core.stores.sqlite import SqliteStore
from tinyworkflow_core.stores.sqlite_connections import connect
from tinyworkflow_core.stores.sqlite_transactions import Changes

MESSAGES = "SELECT message_id FROM inbox ORDER BY message_id"


@pytest.fixture(autouse=True)
def _a_disk_that_is_never_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "SLOW_COMMIT_SECONDS", 3600.0)


class Seen:
    """What the connections of a test were told, and in whose thread."""

    def __init__(self) -> None:
        self.connections = 0
        self.waits: dict[str, float | None] = {}
        """How long each place's connection waits for another process; None: as long as it is allowed to."""
        self.statements: list[tuple[str, str]] = []
        self.refusals: list[int] = []
        """SQLite's error codes for the next COMMITs; they commit nothing."""

    def connect(self, path: str, **how: Any) -> sqlite3.Connection:
        self.connections += 1
        self.waits[_place()] = how.get("wait")
        db = connect(path, **how)
        db.set_trace_callback(lambda sql: self.statements.append((_place(), sql)))
        return Refusing(db, self.refusals)  # type: ignore[return-value]  # all that is used of a connection

    def where(self, beginning: str) -> list[str]:
        """The places of the statements that begin like this; forgets everything so far."""
        found = [place for place, sql in self.statements if sql.startswith(beginning)]
        self.statements.clear()
        return found


def _place() -> str:
    name = threading.current_thread().name
    return "reader" if "BEGIN /" in name else "writer" if "BEGIN IMMEDIATE /" in name else "loop"


class Refusing:
    """A connection whose next COMMITs are refused as planned."""

    def __init__(self, db: sqlite3.Connection, refusals: list[int]) -> None:
        self._db = db
        self._refusals = refusals

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        if sql != "COMMIT" or not self._refusals:
            return self._db.execute(sql, values)
        error = sqlite3.OperationalError("refused")
        error.sqlite_errorcode = self._refusals.pop(0)
        raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    monkeypatch.setattr(sqlite_connections, "connect", seen.connect)
    return seen


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "runs.db")


@pytest.fixture
async def store(path: str, seen: Seen) -> AsyncIterator[SqliteStore]:
    """A store whose file is there: the first operation is always the writer's."""
    opened = SqliteStore(path)
    await make(opened)
    await opened.inbox("run-1")  # the loop's own connection
    seen.statements.clear()
    yield opened
    await opened.close()


def in_the_file(path: str, sql: str) -> list[Any]:
    db = connect(path)
    rows = [row[0] for row in db.execute(sql).fetchall()]
    db.close()
    return rows


def delivering(store: SqliteStore, *names: str) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(store.deliver("run-1", a_message(name))) for name in names]


# --- one turn, one transaction -------------------------------------------------------------------


async def test_what_one_turn_asks_for_is_one_transaction_in_the_loops_own_thread(
    store: SqliteStore, seen: Seen
) -> None:
    await asyncio.gather(*delivering(store, *(f"m-{number}" for number in range(50))))
    assert seen.where("COMMIT") == ["loop"]

    await asyncio.gather(*delivering(store, "next-1", "next-2"))
    assert seen.where("BEGIN") == ["loop"]
    assert len(await store.inbox("run-1")) == 52


async def test_an_operation_that_raises_harms_none_of_its_neighbours_and_is_not_announced(
    store: SqliteStore, seen: Seen
) -> None:
    times = dict.fromkeys(("first", "lost", "wrong", "last"), 0)
    heard: list[str] = []
    store.subscribe(lambda run_id, _: heard.append(run_id) if run_id in times else None)
    await store.purge("nobody")  # queued behind the registration
    seen.statements.clear()

    def operation(name: str, error: BaseException | None) -> Callable[[sqlite3.Connection, Changes], str]:
        def write(db: sqlite3.Connection, changed: Changes) -> str:
            times[name] += 1
            changed[name] = False
            db.execute("INSERT INTO inbox VALUES ('run-1', ?, 'signal', '', 1)", (name,))
            if error is not None:
                raise error
            return f"{name} {times[name]}"

        return write

    errors = {"lost": LeaseLost("gone"), "wrong": ValueError("wrong")}
    outcomes = await asyncio.gather(
        *(store._writer.run(operation(name, errors.get(name))) for name in times), return_exceptions=True
    )

    assert outcomes == ["first 2", errors["lost"], errors["wrong"], "last 1"]
    assert in_the_file(store.path, MESSAGES) == ["first", "last"]
    assert seen.where("COMMIT") == ["loop"]
    await until(lambda: len(heard) >= 2)
    assert heard == ["first", "last"]


# --- what would hold up the loop -----------------------------------------------------------------


async def test_while_another_process_writes_the_loop_goes_on_and_the_call_waits_elsewhere(
    store: SqliteStore, seen: Seen, path: str
) -> None:
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")
    before = seen.connections

    waiting = delivering(store, "m-1", "m-2")
    await until(lambda: ("writer", "BEGIN IMMEDIATE") in seen.statements)
    assert (await store.get("run-1")) is not None  # readers do not wait
    for _ in range(100):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    other.execute("ROLLBACK")
    other.close()
    await asyncio.gather(*waiting)

    assert seen.waits == {"loop": 0, "writer": None}
    assert set(seen.where("COMMIT")) == {"writer"}  # one or two: it may begin with the first before it has the second
    await store.deliver("run-1", a_message("m-3"))
    assert seen.where("COMMIT") == ["loop"]
    assert seen.connections == before, "being told to wait is no reason for a new connection"


async def test_a_disk_that_is_slow_moves_the_commits_to_the_thread_and_later_back(
    store: SqliteStore, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "SLOW_COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(sqlite_writer, "SLOW_FOR_SECONDS", 0.5)

    await store.deliver("run-1", a_message("notices"))
    assert seen.where("COMMIT") == ["loop"]
    await store.deliver("run-1", a_message("avoids"))
    assert seen.where("COMMIT") == ["writer"]
    await asyncio.sleep(0.5)  # it is measured in real time
    await store.deliver("run-1", a_message("tries again"))
    assert seen.where("COMMIT") == ["loop"]


async def test_a_long_history_is_read_by_the_readers_thread_and_a_short_one_by_the_loops(
    store: SqliteStore, seen: Seen
) -> None:
    lease = await take(store)
    await store.commit(lease, Commit(sequence=1, events=(happened(1),)))
    seen.statements.clear()
    await store.load("run-1")
    assert seen.where("SELECT sequence, events") == ["loop"]
    assert len(threads_of(store.path)) == 1

    long = [happened(number, f'"{"x" * 10_000}"') for number in range(2, 20)]
    for number, event in enumerate(long, 2):
        await store.commit(lease, Commit(sequence=number, events=(event,)))
    seen.statements.clear()
    state = await store.load("run-1")
    assert seen.where("SELECT sequence, events") == ["loop", "reader"]
    assert state is not None
    assert list(state.history[2:]) == long
    assert state.sequence == 19


async def test_a_long_history_is_not_read_by_whoever_takes_its_run(store: SqliteStore, seen: Seen) -> None:
    lease = await take(store)
    for number in range(1, 15):
        event = happened(number, f'"{"x" * 10_000}"')
        await store.commit(lease, Commit(sequence=number, events=(event,)))
    seen.statements.clear()

    taken = await store.acquire("run-1", owner="b", now=lease.until, ttl=TTL)

    assert taken is not None
    assert taken.state is None
    assert seen.where("SELECT sequence, events") == ["loop"]  # and left there


async def test_a_long_history_in_memory_is_read_once(seen: Seen) -> None:
    store = SqliteStore(":memory:")
    await make(store)
    lease = await take(store)
    await store.commit(lease, Commit(sequence=1, events=tuple(happened(n, f'"{"x" * 1000}"') for n in range(200))))
    seen.statements.clear()

    await store.load("run-1")

    assert len(seen.where("SELECT sequence, events")) == 1
    await store.close()


async def test_a_run_is_purged_by_the_thread_because_its_history_may_be_long(store: SqliteStore, seen: Seen) -> None:
    await store.purge("run-1")
    assert seen.where("DELETE FROM history") == ["writer"]


# --- errors --------------------------------------------------------------------------------------


async def test_a_commit_that_has_to_wait_is_carried_out_by_the_thread_and_its_first_errors_are_forgotten(
    store: SqliteStore, seen: Seen
) -> None:
    times = 0

    def fails_at_first(db: sqlite3.Connection, changed: Changes) -> int:
        nonlocal times
        times += 1
        if times <= 2:  # together with its neighbour, and alone
            raise LeaseLost("not yet")
        return times

    seen.refusals.append(sqlite3.SQLITE_BUSY)  # as on a file system that cannot have the write-ahead log
    outcomes = await asyncio.gather(store._writer.run(fails_at_first), *delivering(store, "m-1"))

    assert outcomes[0] == 3
    assert set(seen.where("COMMIT")) == {"writer"}  # one commit, or two where it begins before both are handed over
    assert in_the_file(store.path, MESSAGES) == ["m-1"]


async def test_a_commit_that_the_disk_refuses_fails_all_that_shared_it_and_the_next_is_carried_out(
    store: SqliteStore, seen: Seen
) -> None:
    seen.refusals.append(sqlite3.SQLITE_IOERR_FSYNC)
    outcomes = await asyncio.gather(*delivering(store, "m-1", "m-2"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 2

    await store.deliver("run-1", a_message("m-3"))
    assert in_the_file(store.path, MESSAGES) == ["m-3"]


async def test_an_id_that_no_file_can_hold_is_a_store_error_in_the_loops_thread_too(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="cannot hold"):
        await store.get("\udcff")
    with pytest.raises(StoreError, match="cannot hold"):
        await store.deliver("\udcff", a_message())
    assert await store.get("run-1") is not None


# --- ends ----------------------------------------------------------------------------------------


async def test_close_answers_the_calls_that_wait(store: SqliteStore) -> None:
    waiting = delivering(store, "m-1", "m-2")
    await asyncio.sleep(0)  # so that they have asked; their turn's transaction is still to come

    await store.close()

    assert all(task.done() for task in waiting) or all(await asyncio.gather(*waiting))
    assert in_the_file(store.path, MESSAGES) == ["m-1", "m-2"]
    for again in (store.deliver("run-1", a_message("m-3")), store.get("run-1"), store.list(RunQuery())):
        with pytest.raises(StoreError, match="closed"):
            await again


async def test_a_caller_that_stops_waiting_before_the_turn_ends_keeps_no_neighbour_from_its_answer(
    store: SqliteStore,
) -> None:
    gone, stays = delivering(store, "m-1", "m-2")
    await asyncio.sleep(0)
    gone.cancel()

    await stays
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert in_the_file(store.path, MESSAGES) == ["m-1", "m-2"]  # what was asked for happens all the same


@pytest.mark.parametrize("first_is", ["closed", "stopped"])
def test_what_a_loop_asked_for_in_its_last_turn_is_carried_out_when_the_next_loop_asks(
    path: str, first_is: str
) -> None:
    store = SqliteStore(path)
    first = asyncio.new_event_loop()
    first.run_until_complete(make(store))

    async def ask_and_stop() -> None:
        asked.append(first.create_task(store.deliver("run-1", a_message("m-1"))))
        first.call_soon(first.stop)

    asked: list[asyncio.Task[Any]] = []
    asking = first.create_task(ask_and_stop())
    first.run_forever()
    assert asking.done()
    assert not asked[0].done()
    assert in_the_file(path, MESSAGES) == []
    if first_is == "closed":
        first.close()

    async def goes_on() -> None:
        await store.deliver("run-1", a_message("m-2"))
        await store.close()

    with asyncio.Runner() as second:
        second.run(goes_on())
    assert sorted(in_the_file(path, MESSAGES)) == ["m-1", "m-2"]
    if first_is == "stopped":  # it can still hear of it
        first.run_until_complete(asked.pop())
        first.close()
    for lost in asked:
        lost._log_destroy_pending = False  # type: ignore[attr-defined]  # nobody can wait for it any more


def test_closing_in_one_loop_answers_everybody_in_another_loops_thread(path: str) -> None:
    store = SqliteStore(path)
    acknowledged: list[str] = []
    refused: list[StoreError] = []

    async def deliver(name: str) -> None:
        with contextlib.suppress(StoreUnavailableError):
            await store.deliver("run-1", a_message(name))
            acknowledged.append(name)

    async def deliver_until_closed() -> None:
        number = 0
        while not refused:
            number += 1
            try:
                async with asyncio.timeout(20):
                    await asyncio.gather(*(deliver(f"{number}-{one}") for one in range(5)))
            except StoreError as error:
                refused.append(error)
                await asyncio.sleep(0.1)  # the others of the turn are refused too

    async def close_later() -> None:
        await make(store)
        thread.start()
        await until(lambda: len(acknowledged) > 50)
        await store.close()

    thread = threading.Thread(target=lambda: asyncio.run(deliver_until_closed()))
    asyncio.run(close_later())
    thread.join(30)

    assert not thread.is_alive()
    assert "closed" in str(refused[0])
    assert set(acknowledged) <= set(in_the_file(path, MESSAGES))
    assert os.listdir(os.path.dirname(path)) == ["runs.db"], "no connection was left open"


# --- forks ---------------------------------------------------------------------------------------


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads: that is the point
        return os.fork()


def in_a_child(work: Callable[[], None]) -> int:
    """Its process id. It ends with 0 when nothing was raised."""
    child = fork()
    if child != 0:
        return child
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def ended_well(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_what_a_forked_process_was_acknowledged_stays_when_its_parent_closes(path: str) -> None:
    store = SqliteStore(path)
    parent_closed, child_wrote = os.pipe(), os.pipe()

    async def before() -> None:
        await make(store)
        await store.list(RunQuery())
        await store.deliver("run-1", a_message("before"))  # now the loop, the writer and the reader are connected

    async def child() -> None:
        await store.deliver("run-1", a_message("child-1"))
        os.write(child_wrote[1], b"x")
        os.read(parent_closed[0], 1)
        await store.deliver("run-1", a_message("child-2"))

    async def parent() -> None:
        await store.deliver("run-1", a_message("parent"))
        await store.close()

    with asyncio.Runner() as runner:
        runner.run(before())
        pid = in_a_child(lambda: asyncio.run(child()))
        os.read(child_wrote[0], 1)
        runner.run(parent())
    os.write(parent_closed[1], b"x")
    assert ended_well(pid)

    assert in_the_file(path, MESSAGES) == ["before", "child-1", "child-2", "parent"]
    for descriptor in (*parent_closed, *child_wrote):
        os.close(descriptor)


@needs_fork
async def test_a_taking_that_waits_while_a_fork_happens_is_not_handed_back_by_the_child(
    store: SqliteStore, path: str
) -> None:
    asyncio.get_running_loop().call_soon(lambda: None)  # somebody else's turn: so it waits
    taking: Any = store.acquire("run-1", owner="parent", now=T0, ttl=TTL)
    waits_for = taking.send(None)

    def child() -> None:  # its copy of the call is cancelled, as when asyncio.run ends there
        with pytest.raises(asyncio.CancelledError):
            taking.throw(asyncio.CancelledError())

    assert ended_well(in_a_child(child))
    waits_for._asyncio_future_blocking = False
    await waits_for
    with pytest.raises(StopIteration) as ended:
        taking.send(None)
    assert ended.value.value.lease.owner == "parent"
    assert in_the_file(path, "SELECT lease_owner FROM runs") == ["parent"]


@needs_fork
async def test_calls_that_wait_while_a_fork_happens_are_the_parents_alone(store: SqliteStore, path: str) -> None:
    waiting = delivering(store, "m-1")
    await asyncio.sleep(0)

    def child() -> None:
        async def close() -> None:
            await store.close()

        asyncio._set_running_loop(None)
        asyncio.run(close())
        assert in_the_file(path, MESSAGES) == []

    assert ended_well(in_a_child(child))
    await asyncio.gather(*waiting)
    assert in_the_file(path, MESSAGES) == ["m-1"]


@needs_fork
async def test_a_fork_waits_for_a_transaction_that_another_thread_is_in(store: SqliteStore) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def long(db: sqlite3.Connection, changed: Changes) -> str:
        inside.set()
        go_on.wait(10)
        return "undisturbed"

    waiting = asyncio.create_task(store._thread.run(long))
    await asyncio.to_thread(inside.wait, 10)
    threading.Timer(0.2, go_on.set).start()

    assert ended_well(in_a_child(lambda: None if go_on.is_set() else os._exit(2)))
    assert await waiting == "undisturbed"
