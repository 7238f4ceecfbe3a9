"""A worker that is called by Cloud Tasks alone: the queue's real protocol before it, its own HTTP front behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.dispatchers.cloud_tasks_peer import CloudTasks
from tests.http.tokens import AUDIENCE, INVOKER, Issuer, issuer
from tinyworkflow_core import App, WorkflowContext, activity, create_app, workflow
from tinyworkflow_core.advance import AdvanceSettings
from tinyworkflow_core.dispatchers.cloud_tasks import CloudTasksDispatcher
from tinyworkflow_core.dispatchers.worker import WorkerAddress
from tinyworkflow_core.http.platform_identity import PlatformSettings
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.testing import VirtualClock

QUEUE = "projects/p/locations/europe-west1/queues/runs"
ACTIVITY_QUEUE = "projects/p/locations/europe-west1/queues/activities"
DONE: list[str] = []
"""Activities whose bodies have run, in order."""


@activity
async def reserve(what: str) -> str:
    DONE.append("reserve")
    return f"{what} reserved"


@activity(run_on="queue")
async def charge(what: str) -> str:
    DONE.append("charge")
    await asyncio.sleep(0)
    return f"{what}, charged"


@workflow
async def order(ctx: WorkflowContext, days: float) -> str:
    reserved = await ctx.execute_activity(reserve, "a lamp")
    await ctx.sleep(f"{days}d")
    return await ctx.execute_activity(charge, reserved)


@workflow
async def patient(ctx: WorkflowContext, days: float) -> list[str]:
    heard: list[str] = []
    ctx.on_signal("word", heard.append)
    await ctx.sleep(f"{days}d")
    return heard


@pytest.fixture
def google() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@pytest.fixture
async def cloud(google: Issuer) -> AsyncIterator[CloudTasks]:
    """Cloud Tasks, which signs its calls as Google does."""
    made = CloudTasks(VirtualClock(), lambda email, audience: google.token(email=email, aud=audience))
    async with made.listening():
        yield made


@pytest.fixture
async def app(google: Issuer, cloud: CloudTasks) -> AsyncIterator[App]:
    """A worker whose calls all go through the queue, and that answers to the queue alone."""
    DONE.clear()
    app = App(
        "sqlite:///:memory:",
        workflows=[order, patient],
        clock=cloud.clock,
        dispatcher=dispatcher_to(cloud),
        settings=AdvanceSettings(patience_seconds=0),
    )
    identity = PlatformSettings(audiences=(AUDIENCE,), invokers=(INVOKER,), certificates_url=google.url)
    front = create_app(app, parts=["worker"], settings=HttpSettings(platform=identity))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front)) as cloud.worker:
        yield app
    await app.close()


def dispatcher_to(cloud: CloudTasks) -> CloudTasksDispatcher:
    return CloudTasksDispatcher(
        queue=QUEUE,
        activity_queue=ACTIVITY_QUEUE,
        worker=WorkerAddress(AUDIENCE),
        invoker=INVOKER,
        clock=cloud.clock,
        client=cloud.client,
    )
