"""Records for the stores' suites: runs, events and messages that are easy to tell apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tinyworkflow_core.engine.history import Event, RunStarted, SideEffectRecorded
from tinyworkflow_core.store import Commit, Lease, Message, MessageKind, Release, Run, Status, Store

T0 = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
TTL = timedelta(seconds=30)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


def a_run(run_id: str = "run-1", **fields: Any) -> Run:
    """A run that has just been made, at T0 unless told otherwise."""
    values: dict[str, Any] = {
        "workflow_id": f"of-{run_id}",
        "name": "order",
        "version": 1,
        "input": '{"n":1}',
        "created_at": T0,
    }
    return Run(run_id=run_id, **(values | fields))


def opening(run: Run) -> list[Event]:
    """The events that a run begins with."""
    started = RunStarted(
        at=run.created_at, name=run.name, version=run.version, input=run.input, engine=1, python="3.11"
    )
    return [started]


def happened(number: int, result: str = "null") -> Event:
    """An event that carries a number and a value."""
    return SideEffectRecorded(at=T0 + number * MICROSECOND, id=number, result=result)


def a_message(message_id: str = "m-1", *, at: datetime = T0, **fields: Any) -> Message:
    """A signal, received at T0 unless told otherwise."""
    values: dict[str, Any] = {"kind": MessageKind.SIGNAL, "body": {"name": "go", "payload": message_id}}
    return Message(id=message_id, received_at=at, **(values | fields))


async def make(store: Store, run_id: str = "run-1", **fields: Any) -> Run:
    """Create a run and return it."""
    run = a_run(run_id, **fields)
    assert await store.create(run, opening(run))
    return run


async def take(store: Store, run_id: str = "run-1", *, owner: str = "a", now: datetime = T0) -> Lease:
    """Acquire a run that nobody holds."""
    taken = await store.acquire(run_id, owner=owner, now=now, ttl=TTL)
    assert taken is not None
    return taken.lease


async def let_go(store: Store, lease: Lease, status: Status = Status.WAITING, **fields: Any) -> None:
    """Release a run without an event."""
    await store.commit(lease, Commit(sequence=0, release=Release(status=status, **fields)))


async def make_waiting(store: Store, run_id: str, status: Status = Status.WAITING, **fields: Any) -> None:
    """Create a run, take it and let it go as it would be left by a call."""
    await make(store, run_id)
    await let_go(store, await take(store, run_id), status, **fields)
