"""What the tests of the HTTP front share: workflows to start, an App in memory, a caller, the look of a problem."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import httpx
from pydantic import BaseModel

from tinyworkflow_core import App, WorkflowContext, activity, create_app, workflow
from tinyworkflow_core.http import ALL
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.http.webhooks import Webhook

HERE = "http://127.0.0.1:8080"


class Order(BaseModel):
    """A typed input."""

    item: str
    amount: int = 1


@activity
async def double(number: int) -> int:
    return 2 * number


@workflow
async def echo(ctx: WorkflowContext, value: Any = None) -> Any:
    return value


@workflow
async def order(ctx: WorkflowContext, order: Order) -> Order:
    return Order(item=order.item, amount=await ctx.execute_activity(double, order.amount))


@workflow
async def listener(ctx: WorkflowContext) -> list[Any]:
    heard = [await ctx.wait_for_signal("word"), await ctx.wait_for_signal("word")]
    return heard


@workflow
async def asker(ctx: WorkflowContext) -> str:
    decision = await ctx.wait_for_approval("go/no go", title="Go?", details={"cost": 3}, approvers=["ada"])
    return f"{decision.approved} by {decision.by}"


@workflow
async def pair(ctx: WorkflowContext) -> list[str | None]:
    decision = await ctx.wait_for_approval("go", approvers=["ada", "bob"], quorum=2)
    return [one.by for one in decision.votes]


@workflow
async def broken(ctx: WorkflowContext) -> None:
    raise ValueError("the secret plan")


@workflow
async def sleeper(ctx: WorkflowContext) -> None:
    await asyncio.sleep(3600)


WORKFLOWS = (echo, order, listener, asker, pair, broken, sleeper)


def new_app(**arguments: Any) -> App:
    """An App in memory that knows the workflows above."""
    return App("sqlite:///:memory:", workflows=WORKFLOWS, **arguments)


@asynccontextmanager
async def calling(
    app: App,
    *,
    parts: Iterable[str] = ALL,
    emulate: bool = True,
    webhooks: Iterable[Webhook] = (),
    peer: str = "127.0.0.1",
    base_url: str = HERE,
    headers: Mapping[str, str] | None = None,
    settings: HttpSettings | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the app's HTTP front."""
    front = create_app(app, parts=frozenset(parts), emulate=emulate, webhooks=webhooks, settings=settings)
    transport = httpx.ASGITransport(front, client=(peer, 50_000))
    async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=dict(headers or {})) as caller:
        yield caller


def assert_problem(answer: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """The answer is a problem of that status whose detail has these words. Returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = answer.json()
    assert set(problem) >= {"type", "title", "status", "detail", "instance"}
    assert problem["status"] == status
    assert unquote(problem["instance"]) == answer.request.url.path
    assert problem["instance"].isascii()
    for word in words:
        assert word in problem["detail"], problem
    return problem


async def ended(caller: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run, once it has ended."""
    return await seen(caller, run_id, lambda view: bool(view["times"]["ended"]))


async def paused(caller: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run, once it asks for a decision."""
    return await seen(caller, run_id, lambda view: view["status"] == "paused")


async def seen(caller: httpx.AsyncClient, run_id: str, wanted: Any) -> dict[str, Any]:
    """The run as soon as it is as wanted."""
    async with asyncio.timeout(10):
        while True:
            view: dict[str, Any] = (await caller.get(f"/v1/runs/{run_id}")).json()
            if wanted(view):
                return view
            await asyncio.sleep(0.01)  # the run goes on in this very loop
