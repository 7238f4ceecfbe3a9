"""Health: what waits is told with how long it has, up to a cap; and nothing is said to be well that is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

import tinyworkflow_core
from tests.eventually import eventually
from tests.http.test_schedules import _Broken
from tests.http.ui.visitor import HOSTILE, visiting, visitors
from tests.scheduling import START, report
from tests.stores.records import make, make_waiting
from tinyworkflow_core import App
from tinyworkflow_core.cron import CronSchedule
from tinyworkflow_core.dispatcher import Advance, FailedCalls
from tinyworkflow_core.dispatchers.direct import DirectDispatcher
from tinyworkflow_core.dispatchers.local import LocalDispatcher
from tinyworkflow_core.dispatchers.worker import WorkerAddress
from tinyworkflow_core.errors import StoreUnavailableError
from tinyworkflow_core.http.ui import health
from tinyworkflow_core.store import Message, MessageKind, Status
from tinyworkflow_core.testing import VirtualClock

WELL = "Nothing is late, parked or failing"
LATE = "Something waits for longer than 2 min"
HOURLY = CronSchedule("0 * * * *")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture
async def app(clock: VirtualClock) -> AsyncIterator[App]:
    made = App("sqlite:///:memory:", workflows=[report], dispatcher="none", clock=clock)
    yield made
    await made.close()


async def test_all_is_well_when_nothing_waits_and_the_process_says_what_it_is_made_of(app: App) -> None:
    await make_waiting(app.store, "later", wake_at=START + timedelta(hours=1))
    await app.schedules.create("report", HOURLY, id="hourly")
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/health")
    assert WELL in page.words
    assert f"Version {tinyworkflow_core.__version__} Store sqlite Dispatcher none Python" in page.words
    assert "0 runs due now" in page.words
    assert "the oldest waits 0 runs parked 0 schedules due now 0 schedules with a problem" in page.words


async def test_what_is_due_for_longest_is_told_with_its_time_and_the_rest_is_counted_to_a_cap(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MOST_DUE", 3)
    for seconds in (10, 30, 119):
        await make(app.store, f"due-{seconds}", wake_at=START - timedelta(seconds=seconds))
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/health")
        assert "3 runs due now 1 min 59 s the oldest waits: due-119" in page.words
        assert WELL in page.words
        await make(app.store, "due-121", wake_at=START - timedelta(seconds=121))
        page = await visitor.see("/ui/health")
        assert "3+ runs due now 2 min 1 s the oldest waits: due-121" in page.words
        assert LATE in page.words


async def test_a_run_that_is_due_for_a_message_is_told_as_such(app: App, clock: VirtualClock) -> None:
    await make_waiting(app.store, "asleep")
    await app.store.deliver("asleep", Message(id="m", kind=MessageKind.SIGNAL, received_at=START, body={"name": "go"}))
    clock.move_to(START + timedelta(minutes=1))
    async with visiting(app) as visitor:
        assert "1 run due now a message the oldest waits: asleep" in (await visitor.see("/ui/health")).words


async def test_parked_runs_are_told_with_their_problem(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST_PARKED", 2)
    for number in range(2):
        await make_waiting(app.store, f"stuck-{number}", Status.PARKED, problem=f"no code {HOSTILE}")
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/health")
        assert "2 runs parked" in page.words
        assert "no code </title></textarea></pre><script>" in page.words
        assert WELL not in page.words
        assert LATE not in page.words
        await make_waiting(app.store, "stuck-2", Status.PARKED, problem=None)
        page = await visitor.see("/ui/health")
        assert "2+ runs parked" in page.words
        assert "not told" in page.words


async def test_a_schedule_that_is_late_fails_or_is_damaged_is_told(app: App, clock: VirtualClock) -> None:
    for name in ("fails", "broken", "well"):
        await app.schedules.create("report", HOURLY, id=name)
    found = await app.schedules.get("broken")
    damaged: Any = _Broken(found)
    damaged.wake_at = found.wake_at
    assert await app.store.schedules.put(damaged, expected=found.etag)
    clock.move_to(START + timedelta(hours=1, minutes=3))
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/health")
        assert "2 schedules due now, the oldest for 3 min" in page.words
        assert LATE in page.words
        next_deployment = App(app.store, workflows=[], dispatcher="none", clock=clock)
        await next_deployment.tick()
        page = await visitor.see("/ui/health")
        assert "no workflow 'report' is registered" in page.words
        assert "3 schedules with a problem" in page.words
        assert {"/ui/schedules/fails", "/ui/schedules/broken"} <= set(page.links)
        assert "0 schedules due now" in page.words, "they are tried again later, and told all the same"


async def _is_idle(dispatcher: Any) -> bool:
    return not dispatcher.busy


async def test_calls_that_failed_are_counted_with_the_kind_of_the_last_and_without_its_words(
    clock: VirtualClock,
) -> None:
    class _Refusing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if (await request.aread()).find(b"busy") >= 0:
                return httpx.Response(409)
            raise httpx.ConnectError("http://key-of-ours@worker <script>")

    worker = WorkerAddress("https://worker.example")
    dispatcher = DirectDispatcher(worker, clock=clock, transport=_Refusing())
    app = App("sqlite:///:memory:", workflows=[report], dispatcher=dispatcher, clock=clock)
    async with visiting(app) as visitor:
        assert "0 calls failed in this process" in (await visitor.see("/ui/health")).words
        for run_id in ("a", "busy", "b"):
            await dispatcher.dispatch(Advance(run_id=run_id))
        await eventually(lambda: _is_idle(dispatcher))
        clock.move_to(START + timedelta(minutes=3))
        page = await visitor.see("/ui/health")
        assert "2 calls failed in this process, the last 3 min ago : ConnectError" in page.words
        assert WELL not in page.words
        assert "key-of-ours" not in page.html
        clock.move_to(START + timedelta(hours=3))
        assert WELL in (await visitor.see("/ui/health")).words, "it is long ago"
    await app.close()


async def test_a_run_whose_call_raises_is_counted_where_calls_are_made_in_this_process(clock: VirtualClock) -> None:
    app = App("sqlite:///:memory:", workflows=[report], clock=clock)
    assert isinstance(app.dispatcher, LocalDispatcher)

    async def away(*args: Any, **named: Any) -> None:
        raise StoreUnavailableError("sqlite:///secret.db")

    app.store.acquire = away  # type: ignore[method-assign]  # the store is away for this call alone
    await app.dispatcher.dispatch(Advance(run_id="r"))
    await eventually(lambda: _is_idle(app.dispatcher))
    assert app.dispatcher.failed == FailedCalls(count=1, last_error="StoreUnavailableError", last_at=START)
    await app.close()


async def test_health_is_for_readers_of_all_workflows(app: App) -> None:
    async with visitors(app, few={"scopes": ["read"], "workflows": ["report"]}, starter=["start"], all=["read"]) as by:
        await by["few"].see("/ui/health", 403)
        await by["starter"].see("/ui/health", 403)
        await by["all"].see("/ui/health")
