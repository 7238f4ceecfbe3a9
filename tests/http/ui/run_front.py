"""What the tests of the pages about runs share: workflows with much to see, histories made by hand, and forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import httpx
from pydantic import BaseModel

from tests.http.front import WORKFLOWS
from tinyworkflow_core import App, RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.engine.history import ActivityCompleted, Event, RunStarted
from tinyworkflow_core.store import Run, Status

START = datetime(2026, 1, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'&amp;\u202e\0"


class Parcel(BaseModel):
    """A typed input."""

    weight: int
    to: str = "Bern"


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=0.01, jitter=False))
async def weigh(weight: int) -> int:
    if weight < 0:
        try:
            raise KeyError("the scale")
        except KeyError as error:
            raise ValueError("no weight") from error
    return weight * 2


@workflow
async def ship(ctx: WorkflowContext, parcel: Parcel) -> int:
    first = await ctx.execute_activity(weigh, parcel.weight)
    return await ctx.execute_activity(weigh, first + 1)


@workflow(redact=("card", "payload"))
async def discreet(ctx: WorkflowContext, value: dict[str, Any]) -> dict[str, Any]:
    return value


ALL_WORKFLOWS = (*WORKFLOWS, ship, discreet)


def new_app() -> App:
    """An App in memory that knows them."""
    return App("sqlite:///:memory:", workflows=ALL_WORKFLOWS)


async def made(app: App, run_id: str, events: Sequence[Event], **about: Any) -> None:
    """A run whose history was made by hand."""
    opening = RunStarted(at=START, name="echo", version=1, input="null", engine=1, python="3.12")
    record = {"workflow_id": run_id, "name": "echo", "version": 1, "input": "null", "status": Status.COMPLETED}
    run = Run(run_id=run_id, created_at=START, started_at=START, **{**record, **about})
    assert await app.store.create(run, [opening, *events])


def long_history(steps: int) -> list[Event]:
    """So many activities, one after the other."""
    return [
        ActivityCompleted(
            at=START + timedelta(seconds=step + 1),
            id=step,
            name=f"work {step % 7}",
            digest="0123456789abcdef",
            input='[[1,"two"]]',
            attempt=1,
            started_at=START + timedelta(seconds=step),
            result='{"total":12,"lines":["a","b"]}',
        )
        for step in range(1, steps + 1)
    ]


async def page(caller: httpx.AsyncClient, path: str, status: int = 200) -> str:
    """A page of that status, as HTML."""
    answer = await caller.get(path)
    assert answer.status_code == status, answer.text[-2000:]
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text


async def send(caller: httpx.AsyncClient, run_id: str, action: str, **fields: str) -> httpx.Response:
    """A form of the run's page, sent as a browser would; what it answers, not followed."""
    token = await page(caller, f"/ui/runs/{run_id}")
    found = re.search(r'name="csrf" value="(\w+)"', token)
    assert found, "the page has no form"
    return await caller.post(f"/ui/runs/{run_id}/{action}", data={"csrf": found[1], **fields})


def words(html: str) -> str:
    """The text of a page, without tags and runs of space."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def field_of(html: str, name: str) -> str:
    """What a field with that HTML id holds."""
    found = re.search(rf'id="{name}"[^>]*?value="([^"]*)"|<textarea id="{name}"[^>]*>\n?([^<]*)</textarea>', html)
    assert found, name
    return unescape(found[1] if found[1] is not None else found[2])
