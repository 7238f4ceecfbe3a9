"""Runs that go on by task deliveries alone, and the names that let no wake-up be swallowed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from tests.dispatchers.cloud_tasks_peer import HANGS, REPLY_LOST, CloudTasks
from tests.dispatchers.conftest import ACTIVITY_QUEUE, DONE, QUEUE, dispatcher_to, order, patient
from tests.http.tokens import AUDIENCE, INVOKER
from tinyworkflow_core import App
from tinyworkflow_core.dispatcher import Advance, Perform
from tinyworkflow_core.dispatchers import cloud_tasks, open_dispatcher
from tinyworkflow_core.dispatchers.cloud_tasks import CloudTasksDispatcher
from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.testing import START, VirtualClock

status: Any = import_module("grpc").StatusCode  # untyped

RESULT = "a lamp reserved, charged"
ADVANCE, PERFORM = "/internal/advance", "/internal/activity"


async def kinds(app: App, run_id: str) -> list[str]:
    """The types of the run's events."""
    state = await app.store.load(run_id)
    assert state is not None
    return [type(one).__name__ for one in state.history]


async def test_a_run_comes_to_its_end_by_task_deliveries_alone(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(order, 60)
    assert [(one.path, one.queue) for one in cloud.waiting] == [(ADVANCE, "runs")]
    days = []
    while cloud.waiting:
        days.append(((cloud.next.due - START) / timedelta(days=1), cloud.next.path, cloud.next.queue))
        assert await cloud.deliver() == 200
    assert await app.client.get_result(run_id) == RESULT
    assert DONE == ["reserve", "charge"]
    now, first, second, due = (day for day, path, _ in days[:4] if path == ADVANCE)
    assert (now, due) == (0, 60)
    assert now < first < 29 < second <= first + 29 < due  # each within what a task may lie
    assert days[4:6] == [(60, PERFORM, "activities"), (60, ADVANCE, "runs")]
    [(deadline, path, _)] = days[6:]  # when the attempt would have counted as lost
    assert (deadline > 60, path) == (True, ADVANCE)


async def test_what_a_lost_task_was_to_do_is_done_after_the_next_tick(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(order, 20)
    lost = []
    for _ in range(2):  # the start, and the timer
        lost.append(cloud.lose_next())
        cloud.clock.move_to(lost[-1].due)
        assert (await app.tick()).dispatched == (run_id,)
        assert await cloud.deliver() == 200
    assert cloud.next.path == PERFORM
    await cloud.deliver_all()
    assert await app.client.get_result(run_id) == RESULT
    assert DONE == ["reserve", "charge"]


async def test_a_lost_attempt_is_found_at_its_deadline_and_made_again(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(order, 0.5)
    while cloud.next.path != PERFORM:
        await cloud.deliver()
    cloud.lose_next()
    await cloud.deliver_all()
    assert await app.client.get_result(run_id) == RESULT
    assert (await kinds(app, run_id)).count("ActivityScheduled") == 2
    assert DONE == ["reserve", "charge"]


async def test_tasks_that_are_delivered_twice_at_once_do_everything_once(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(order, 20)
    while cloud.waiting:
        one = cloud.next
        await asyncio.gather(cloud.deliver(one), cloud.deliver(one))
    assert await app.client.get_result(run_id) == RESULT
    assert DONE[0] == "reserve"
    assert DONE.count("reserve") == 1
    history = await kinds(app, run_id)
    assert (history.count("ActivityCompleted"), history.count("TimerFired")) == (2, 1)
    assert {answer for _, answer in cloud.answers} <= {200, 409}


async def test_a_run_in_other_hands_is_called_again_when_retry_after_says(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(order, 1)
    assert await app.store.acquire(run_id, owner="other", now=cloud.clock.now(), ttl=timedelta(seconds=2.5))
    assert [await cloud.deliver() for _ in range(3)] == [409, 409, 409]
    assert cloud.next.due - START == timedelta(seconds=3)
    assert await cloud.deliver() == 200  # the other one died
    await cloud.deliver_all()
    assert await app.client.get_result(run_id) == RESULT


async def test_tasks_that_come_late_do_all_that_has_become_due(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(order, 20)
    while cloud.waiting:
        assert await cloud.deliver(late=timedelta(minutes=20)) == 200
    assert await app.client.get_result(run_id) == RESULT
    assert cloud.clock.now() > START + timedelta(days=20, hours=1)
    assert DONE == ["reserve", "charge"]


async def test_a_task_for_a_run_that_was_deleted_is_done(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(order, 20)
    await cloud.deliver()
    await app.store.purge(run_id)
    assert await cloud.deliver() == 200  # anything else would be tried again, and again
    assert cloud.waiting == []


# --- names -------------------------------------------------------------------------------------------------


async def test_a_run_has_one_task_for_one_moment_however_often_it_asks(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(patient, 60)
    await cloud.deliver()
    for number in range(5):
        cloud.clock.move_to(START + timedelta(hours=number))
        await app.client.send_signal(run_id, "word", number)
        await cloud.deliver()
    assert cloud.refused == 5
    assert len(cloud.waiting) == 1  # on the way to a moment that is too far, too
    await cloud.deliver_all()
    assert await app.client.get_result(run_id) == [0, 1, 2, 3, 4]


async def test_each_piece_of_news_has_a_task_of_its_own(app: App, cloud: CloudTasks) -> None:
    run_id = await app.client.start_workflow(patient, 1)
    await cloud.deliver()
    asked = len(cloud.waiting)
    await app.client.send_signal(run_id, "word", "a")
    await cloud.deliver()
    await app.client.send_signal(run_id, "word", "b")  # in the same moment, after the run was looked at and left
    await app.client.send_signal(run_id, "word", "c")
    assert len(cloud.waiting) == asked + 2
    await cloud.deliver_all()
    assert sorted(await app.client.get_result(run_id)) == ["a", "b", "c"]  # of one moment, in the order of their ids


async def test_a_timer_whose_task_comes_before_its_time_by_the_workers_clock_gets_another(
    app: App, cloud: CloudTasks
) -> None:
    run_id = await app.client.start_workflow(patient, 1)
    await cloud.deliver()
    timer = cloud.next
    due, timer.due = timer.due, timer.due - timedelta(seconds=20)  # the queue's clock is ahead
    assert await cloud.deliver() == 200
    assert cloud.refused == 0
    assert cloud.next.due == due
    await cloud.deliver_all()
    assert await app.client.get_result(run_id) == []


async def test_a_run_under_the_id_of_one_that_was_deleted_has_tasks_of_its_own(app: App, cloud: CloudTasks) -> None:
    for round_ in range(2):
        cloud.clock.move_to(START + timedelta(hours=round_))
        run_id = await app.client.start_workflow(order, 0.01, run_id="daily")
        await cloud.deliver_all()
        assert await app.client.get_result(run_id) == RESULT
        await app.store.purge(run_id)
    assert cloud.refused == 0
    assert DONE == ["reserve", "charge"] * 2


async def test_names_are_hashes_and_tell_runs_moments_and_hand_outs_apart(cloud: CloudTasks) -> None:
    dispatcher = dispatcher_to(cloud)
    later = START + timedelta(days=2)
    attempt = Perform(run_id="a", generation=0, activity_id=1, attempt=1)
    for run_id, at in (("a", later), ("b", later), ("a", later + timedelta(microseconds=1)), ("a", later)):
        await dispatcher.dispatch(Advance(run_id=run_id), at=at)
    for _ in range(2):
        await dispatcher.dispatch(attempt)
    named = [one.task.name.rpartition("/")[2] for one in cloud.waiting if one.task.name]
    assert (cloud.refused, len(named), len({name[:4] for name in named})) == (1, 5, 5)
    assert all(len(name) >= 32 and int(name, 16) for name in named)
    await dispatcher.close()


# --- what is handed over -------------------------------------------------------------------------------------


async def test_a_task_says_whom_to_call_with_what_and_how_long_to_wait(cloud: CloudTasks) -> None:
    dispatcher = dispatcher_to(cloud)
    await dispatcher.dispatch(Perform(run_id="r\n/ü", generation=2, activity_id=3, attempt=4), at=START)
    [one] = cloud.waiting
    asked = one.task.http_request
    assert asked.url == f"{AUDIENCE}/internal/activity"
    assert json.loads(asked.body) == {"run_id": "r\n/ü", "generation": 2, "activity_id": 3, "attempt": 4}
    assert (asked.oidc_token.service_account_email, asked.oidc_token.audience) == (INVOKER, AUDIENCE)
    assert asked.headers["Content-Type"] == "application/json"
    assert one.task.dispatch_deadline == timedelta(minutes=30)
    assert (one.queue, one.due) == ("activities", START)
    await dispatcher.close()


async def test_a_reply_that_was_lost_makes_no_second_attempt(cloud: CloudTasks) -> None:
    dispatcher = dispatcher_to(cloud)
    cloud.troubles = [status.UNAVAILABLE, REPLY_LOST]
    await dispatcher.dispatch(Perform(run_id="r", generation=0, activity_id=1, attempt=1))
    assert (len(cloud.waiting), cloud.created, cloud.refused) == (1, 2, 1)
    await dispatcher.close()


@pytest.mark.parametrize("trouble", [status.PERMISSION_DENIED, status.NOT_FOUND, status.INVALID_ARGUMENT], ids=str)
async def test_what_the_queue_refuses_is_logged_and_never_raised(
    cloud: CloudTasks, caplog: pytest.LogCaptureFixture, trouble: Any
) -> None:
    dispatcher = dispatcher_to(cloud)
    cloud.troubles = [trouble]
    await dispatcher.dispatch(Advance(run_id="r"))
    [record] = caplog.records
    assert (record.levelno, vars(record)["run_id"]) == (logging.ERROR, "r")
    assert QUEUE in record.getMessage()
    assert cloud.waiting == []
    await dispatcher.close()


async def test_a_queue_that_does_not_answer_is_waited_for_a_bounded_time_and_then_less(
    cloud: CloudTasks, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_tasks, "TOTAL_SECONDS", 0.5)
    monkeypatch.setattr(cloud_tasks, "SHORT_SECONDS", 0.01)
    dispatcher = dispatcher_to(cloud)
    await dispatcher.dispatch(Advance(run_id="warm"))
    cloud.troubles = [HANGS] * 11
    took = []
    for _ in range(11):
        began = time.monotonic()
        await dispatcher.dispatch(Advance(run_id="r"))
        took.append(time.monotonic() - began)
    assert 0.5 <= took[0] < 3
    assert sum(took[1:]) < 3
    assert caplog.text.count("could not be handed") == 11
    await dispatcher.close()


async def test_a_client_that_cannot_be_made_is_logged_and_never_raised(caplog: pytest.LogCaptureFixture) -> None:
    def nobody() -> Any:
        raise RuntimeError("no credentials here")

    dispatcher = CloudTasksDispatcher.from_env(ENVIRON, clock=VirtualClock())
    dispatcher._new_client = nobody
    await dispatcher.dispatch(Advance(run_id="r"))
    assert "no credentials here" in caplog.text
    await dispatcher.close()


def test_each_event_loop_has_a_client_of_its_own() -> None:
    made: list[CloudTasks] = []

    async def once(dispatcher: CloudTasksDispatcher) -> None:
        cloud = CloudTasks(VirtualClock(), lambda email, audience: "")
        made.append(cloud)
        async with cloud.listening():
            await asyncio.gather(*[dispatcher.dispatch(Advance(run_id=run_id)) for run_id in "ab"])
            assert len(cloud.waiting) == 2
            await dispatcher.close()

    dispatcher = CloudTasksDispatcher.from_env(ENVIRON, clock=VirtualClock())
    dispatcher._new_client = lambda: made[-1].client()  # noqa: PLW0108  # the last one of each call
    for _ in range(2):
        asyncio.run(once(dispatcher))


# --- the environment ------------------------------------------------------------------------------------------

ENVIRON = {
    "TINYWORKFLOW_DISPATCHER": "cloud-tasks",
    "TINYWORKFLOW_QUEUE": QUEUE,
    "TINYWORKFLOW_WORKER_URL": f"{AUDIENCE}/",
    "TINYWORKFLOW_INVOKER": INVOKER,
}


def test_the_environment_names_the_queues_the_worker_and_the_caller() -> None:
    app = App.from_env(ENVIRON | {"TINYWORKFLOW_DATABASE_URL": "sqlite:///:memory:"})
    made = app.dispatcher
    assert isinstance(made, CloudTasksDispatcher)
    assert (made.queue, made.activity_queue, made.worker.url, made.invoker) == (QUEUE, QUEUE, AUDIENCE, INVOKER)
    other = open_dispatcher(ENVIRON | {"TINYWORKFLOW_ACTIVITY_QUEUE": ACTIVITY_QUEUE}, clock=VirtualClock())
    assert isinstance(other, CloudTasksDispatcher)
    assert other.activity_queue == ACTIVITY_QUEUE


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QUEUE", None),
        ("QUEUE", "runs"),
        ("QUEUE", f"{QUEUE}/tasks/t"),
        ("QUEUE", f"{QUEUE}_1"),
        ("ACTIVITY_QUEUE", "activities"),
        ("WORKER_URL", None),
        ("WORKER_URL", "worker.example"),
        ("WORKER_URL", "http://worker.example"),
        ("WORKER_URL", "https://worker.example/?a=b"),
        ("WORKER_URL", "https://user:password@worker.example"),
        ("WORKER_URL", "https://worker.example:port"),
        ("WORKER_URL", "https://[::1"),
        ("WORKER_URL", "https:// worker.example"),
        ("INVOKER", None),
        ("INVOKER", "caller"),
        ("DISPATCHER", "cloudtasks"),
        ("DISPATCHER", ""),
    ],
)
def test_a_variable_that_does_not_fit_is_named(variable: str, value: str | None) -> None:
    environ = {**ENVIRON, f"TINYWORKFLOW_{variable}": value}
    with pytest.raises(ConfigurationError, match=rf"^TINYWORKFLOW_{variable}\b") as caught:
        open_dispatcher({name: one for name, one in environ.items() if one is not None}, clock=VirtualClock())
    assert "password@" not in str(caught.value)


def test_a_missing_library_is_said_when_the_app_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_tasks, "_is_installed", lambda: False)
    with pytest.raises(ConfigurationError, match=r"tinyworkflow-core\[gcp\]"):
        open_dispatcher(ENVIRON, clock=VirtualClock())
