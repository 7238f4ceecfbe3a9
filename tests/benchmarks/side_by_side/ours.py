"""TinyWorkflow Core for the driver: the client with a worker in this process, on an SQLite file, all defaults."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from tinyworkflow_core import TinyWorkflowClient, WorkflowContext, activity, workflow

from . import adapter as driver


@activity
async def inc(x: int) -> int:
    return x + 1


@activity
async def same(i: int) -> int:
    return i


@activity
async def mark(key: str) -> str:
    return driver.mark_step(key)


@activity
def hang_once(i: int, path: str, victim: int) -> int:
    return driver.crash_step(i, path, victim)


@workflow(name="benchmark_seq")
async def seq(ctx: WorkflowContext, args: list[int]) -> int:
    x = 0
    for _ in range(args[0]):
        x = await ctx.execute_activity(inc, x)
    return x


@workflow(name="benchmark_fan")
async def fan(ctx: WorkflowContext, args: list[int]) -> int:
    return sum(await asyncio.gather(*(ctx.execute_activity(same, i) for i in range(args[0]))))


@workflow(name="benchmark_sig")
async def sig(ctx: WorkflowContext, args: list[str]) -> Any:
    await ctx.execute_activity(mark, args[0])
    return await ctx.wait_for_signal("go")


@workflow(name="benchmark_seqsig")
async def seqsig(ctx: WorkflowContext, args: list[Any]) -> Any:
    n, key = args
    driver.stamp(key, "enter")
    x = 0
    for _ in range(n):
        x = await ctx.execute_activity(inc, x)
    driver.stamp(key, "looped")
    return await ctx.wait_for_signal("go")


@workflow(name="benchmark_crash")
async def crash(ctx: WorkflowContext, args: list[Any]) -> int:
    n, path = args
    for i in range(n):
        await ctx.execute_activity(hang_once, i, path, n // 2)
    return int(n)


@workflow(name="benchmark_nap")
async def nap(ctx: WorkflowContext, args: list[Any]) -> None:
    key, seconds = args
    driver.stamp(key, "before")
    await asyncio.sleep(seconds)
    driver.stamp(key, "after")


class Ours(driver.Adapter):
    """One client, which is starter, caller and worker."""

    peer, version = "ours", version("tinyworkflow-core")
    store = "SQLite file in this process; journal WAL, synchronous FULL (the library's default)"
    imports = "import tinyworkflow_core"
    names = "from tinyworkflow_core import TinyWorkflowClient, WorkflowContext, activity, workflow"

    async def open(self, folder: str, address: Any) -> None:
        self._path = f"{folder}/runs.db"
        self._client = TinyWorkflowClient(f"sqlite:///{self._path}", auto_start_worker=True)
        await self._client.initialize()

    async def start(self, workflow: str, *args: Any, id: str) -> str:
        return await self._client.start_workflow(f"benchmark_{workflow}", list(args), run_id=id)

    async def result(self, handle: Any) -> Any:
        return await self._client.get_result(handle)

    async def signal(self, handle: Any, value: str) -> None:
        await self._client.send_signal(handle, "go", value)

    async def attach(self, id: str) -> str:
        return id

    async def close(self) -> None:
        await self._client.close()

    def extra(self) -> dict[str, Any]:
        """The journal that the file has."""
        return {"journal": driver.sqlite_journal(self._path)} if hasattr(self, "_path") else {}


ENGINE = Ours
