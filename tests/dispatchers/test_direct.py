"""DirectDispatcher: calls are posted to the worker in the background, and none of it ever fails who dispatches."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from tinyworkflow_core import App
from tinyworkflow_core.dispatcher import Advance, Perform, Task
from tinyworkflow_core.dispatchers import direct, open_dispatcher
from tinyworkflow_core.dispatchers.direct import DirectDispatcher
from tinyworkflow_core.dispatchers.worker import WorkerAddress
from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.testing import START, VirtualClock

PERFORM = Perform(run_id="p", generation=1, activity_id=2, attempt=3)


class Worker:
    """A worker on a real socket that writes down what it is asked, and answers when it may."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, str | None]] = []
        self.status = "200 OK"
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.port = 0
        self._open: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.asked.append((lines[0].split()[1], body, headers.get("authorization")))
                await self.may_answer.wait()
                writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[Worker]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.may_answer.set()
            for writer in self._open:
                writer.close()
            await asyncio.gather(*[one for one in self._open.values() if one is not None])
            await asyncio.gather(*[one.wait_closed() for one in self._open], return_exceptions=True)

    def dispatcher(self, **options: Any) -> DirectDispatcher:
        return DirectDispatcher(WorkerAddress(f"http://127.0.0.1:{self.port}/base"), clock=VirtualClock(), **options)


async def ended(dispatcher: DirectDispatcher) -> None:
    async def is_idle() -> bool:
        return dispatcher.busy == 0

    await eventually(is_idle)


async def test_calls_are_posted_and_nobody_waits_for_the_answer() -> None:
    async with Worker().listening() as worker:
        dispatcher = worker.dispatcher(key="the-key")
        worker.may_answer.clear()
        for task in (Advance(run_id="a"), PERFORM):
            await dispatcher.dispatch(task, at=START)  # now

        async def both_came() -> bool:
            return len(worker.asked) == 2

        await eventually(both_came)
        assert dispatcher.busy == 2
        worker.may_answer.set()
        await ended(dispatcher)
        assert sorted(worker.asked, key=str) == [
            (
                "/base/internal/activity",
                {"run_id": "p", "generation": 1, "activity_id": 2, "attempt": 3},
                "Bearer the-key",
            ),
            ("/base/internal/advance", {"run_id": "a"}, "Bearer the-key"),
        ]
        await dispatcher.close()


async def test_a_call_that_waits_its_turn_is_made_once_however_often_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct, "MAX_CONCURRENT_CALLS", 1)
    async with Worker().listening() as worker:
        dispatcher = worker.dispatcher()
        worker.may_answer.clear()
        await dispatcher.dispatch(Advance(run_id="a"))

        async def it_came() -> bool:
            return len(worker.asked) == 1

        await eventually(it_came)
        for _ in range(3):  # ticks that find the same runs again
            for run_id in "ab":
                await dispatcher.dispatch(Advance(run_id=run_id))
        assert dispatcher.busy == 3, "the one of a that has been sent may have looked already"
        worker.may_answer.set()
        await ended(dispatcher)
        assert [body["run_id"] for _, body, _ in worker.asked] == ["a", "a", "b"]
        await dispatcher.dispatch(Advance(run_id="a"))
        await ended(dispatcher)
        assert len(worker.asked) == 4
        await dispatcher.close()


async def test_a_call_for_later_is_left_to_the_tick() -> None:
    async with Worker().listening() as worker:
        dispatcher = worker.dispatcher()
        await dispatcher.dispatch(Advance(run_id="a"), at=START + timedelta(milliseconds=1))
        assert dispatcher.busy == 0
        await dispatcher.close()


@pytest.mark.parametrize(("answer", "logged"), [("200 OK", 0), ("409 Conflict", 0), ("401 No", 1), ("503 No", 1)])
async def test_what_the_worker_did_not_take_is_logged_and_never_raised(
    answer: str, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with Worker().listening() as worker:
        worker.status = answer
        dispatcher = worker.dispatcher(key="the-key")
        await dispatcher.dispatch(Advance(run_id="a"))
        await ended(dispatcher)
        told = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [vars(record)["run_id"] for record in told] == ["a"] * logged
        assert "the-key" not in caplog.text
        await dispatcher.close()


async def test_a_worker_that_is_being_started_is_waited_for() -> None:
    async with Worker().listening() as gone:
        port = gone.port
    worker = Worker()
    worker.port = port
    dispatcher = worker.dispatcher()
    await dispatcher.dispatch(PERFORM)
    await asyncio.sleep(0.1)  # the first tries are refused
    async with worker.listening(port):
        await ended(dispatcher)
        assert [path for path, _, _ in worker.asked] == ["/base/internal/activity"]
        await dispatcher.close()


async def test_a_worker_that_is_away_is_no_error_for_who_dispatches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(direct, "CONNECT_TRIES", 0)
    async with Worker().listening() as gone:
        dispatcher = gone.dispatcher()
    await dispatcher.dispatch(Advance(run_id="a"))
    await ended(dispatcher)
    assert "did not take a call for run a" in caplog.text
    await dispatcher.close()


async def test_closing_waits_for_no_answer_and_nothing_is_asked_after_it() -> None:
    async with Worker().listening() as worker:
        worker.may_answer.clear()
        dispatcher = worker.dispatcher()
        await dispatcher.dispatch(Advance(run_id="a"))

        async def it_came() -> bool:
            return bool(worker.asked)

        await eventually(it_came)
        await dispatcher.close()
        await dispatcher.dispatch(Advance(run_id="b"))
        assert dispatcher.busy == 0


ENVIRON = {
    "TINYWORKFLOW_DISPATCHER": "direct",
    "TINYWORKFLOW_WORKER_URL": "http://worker:8080",
    "TINYWORKFLOW_DATABASE_URL": "sqlite:///:memory:",
}


def test_the_environment_names_the_worker() -> None:
    made = App.from_env(ENVIRON).dispatcher
    assert isinstance(made, DirectDispatcher)
    assert made.worker.of(Advance(run_id="a")) == "http://worker:8080/internal/advance"


@pytest.mark.parametrize(
    ("variable", "environ"),
    [
        ("URL", {"URL": ""}),
        ("URL", {"URL": "worker:8080"}),
        ("KEY", {"KEY": "secret"}),  # in the clear, to another machine
        ("KEY", {"KEY": "sécret", "URL": "https://worker.example"}),
        ("KEY", {"KEY": "sec\nret", "URL": "http://localhost:8080"}),
    ],
)
def test_a_variable_that_does_not_fit_is_named_and_no_key_repeated(variable: str, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=f"^TINYWORKFLOW_WORKER_{variable}") as caught:
        open_dispatcher(
            ENVIRON | {f"TINYWORKFLOW_WORKER_{name}": value for name, value in environ.items()}, clock=VirtualClock()
        )
    assert "cret" not in str(caught.value)


def test_each_event_loop_has_connections_of_its_own() -> None:
    made: list[DirectDispatcher] = []

    async def once(task: Task) -> int:
        worker = Worker()
        async with worker.listening():
            if not made:
                made.append(worker.dispatcher())
            made[0].worker = WorkerAddress(f"http://127.0.0.1:{worker.port}")
            await made[0].dispatch(task)
            await ended(made[0])
            await made[0]._lane().client.aclose()  # as whoever ends a loop for good would
            return len(worker.asked)

    assert [asyncio.run(once(PERFORM)) for _ in range(2)] == [1, 1]
