"""A deployable for tests: workflows that answer to everything, served whole by functions-framework."""

from __future__ import annotations

from typing import Any

import functions_framework.aio
from pydantic import BaseModel
from starlette.requests import Request

from tinyworkflow_core import App, WorkflowContext, activity, create_app, github_signature, webhook, workflow


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
async def order(ctx: WorkflowContext, order: Order) -> int:
    return await ctx.execute_activity(double, order.amount)


@workflow
async def asker(ctx: WorkflowContext) -> bool:
    heard: list[Any] = []

    def hear(value: Any) -> int:
        heard.append(value)
        return len(heard)

    ctx.on_query("heard", lambda *asked: [len(heard), list(asked)])
    ctx.on_update("hear", hear)
    ctx.on_signal("word", heard.append)
    return (await ctx.wait_for_approval("go", title="Go?")).approved


@workflow
async def broken(ctx: WorkflowContext) -> None:
    raise ValueError("as it must be")


pushes = webhook("pushes", verify=github_signature(secret_env="PUSHES_SECRET"), starts=echo)

_front = create_app(App.from_env(), emulate=True)


@functions_framework.aio.http
async def app(request: Request) -> Any:
    """Everything."""
    return _front
