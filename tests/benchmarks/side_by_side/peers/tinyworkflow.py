"""TinyWorkflow 0.1 (PyPI tinyworkflow), the predecessor, for the driver: it writes status rows to SQLite and never
replays them. Documented defaults: TinyWorkflowClient with its worker in this process (1 s poll, 10 runs at a time).

W1 and W3 call start_workflow(wait=True), which runs the workflow at once in the caller's task; W2, W4 and W7 leave runs
to the worker, its documented way for runs that nobody awaits. Variant `direct` (W2): the engine without the worker. A
signal is wait_for_approval, the only wait that it has; it polls every second."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from .. import adapter as driver

CLOSED = ("completed", "failed", "cancelled")


def declare():
    from tinyworkflow import activity, workflow

    @activity(name="inc")
    async def inc(x):
        return x + 1

    @activity(name="mark")
    async def mark(key):
        return driver.mark_step(key)

    @activity(name="crash_step")
    async def crash_step(i, path, victim):
        return driver.crash_step(i, path, victim)

    @workflow(name="seq")
    async def seq(ctx):
        x = 0
        for _ in range(ctx.get_input("args")[0]):
            x = await ctx.execute_activity(inc, x)
        driver.finished(ctx.workflow_id)
        return x

    @workflow(name="fan")
    async def fan(ctx):
        return sum(await ctx.execute_parallel(*((inc, (i - 1,), {}) for i in range(ctx.get_input("args")[0]))))

    @workflow(name="sig")
    async def sig(ctx):
        await ctx.execute_activity(mark, ctx.get_input("args")[0])
        approved = await ctx.wait_for_approval("go")
        driver.finished(ctx.workflow_id)
        return "go" if approved else "no"

    @workflow(name="crash")
    async def crash(ctx):
        n, path = ctx.get_input("args")
        for i in range(n):
            await ctx.execute_activity(crash_step, i, path, n // 2)
        driver.finished(ctx.workflow_id)
        return n


class TinyWorkflow01(driver.Adapter):
    peer, version = "tinyworkflow", version("tinyworkflow")
    store = "SQLite file in this process; journal DELETE, synchronous FULL (it leaves SQLite's defaults)"
    imports = "from tinyworkflow import workflow, activity, TinyWorkflowClient"
    unsupported = {  # noqa: RUF012  # read only
        "W5": "no replay: a run that is restarted starts over, and nothing restarts it",
        "W8": "no durable sleep: delayed starts live in memory",
    }
    w7_cap = 60.0

    def __init__(self, options):
        super().__init__(options)
        self.worker = options.workload in ("W2", "W4", "W7") and options.variant != "direct"

    async def open(self, folder, address):
        from tinyworkflow import TinyWorkflowClient

        self.path = f"{folder}/tinyworkflow.db"
        declare()
        self.client = TinyWorkflowClient(f"sqlite+aiosqlite:///{self.path}", auto_start_worker=self.worker)
        await self.client.initialize()

    async def run(self, workflow, *args, id):
        if self.worker:
            return await self.result(await self.start(workflow, *args, id=id))
        if self.options.variant == "direct":  # what wait=True calls; that itself returns whichever run is newest
            return await self.client.workflow_engine.execute_workflow(workflow, id, {"args": args})
        run_id = await self.client.start_workflow(workflow, {"args": args}, workflow_id=id, wait=True)
        return (await self.client.get_workflow_status(run_id)).output_data["result"]

    async def start(self, workflow, *args, id):
        return await self.client.start_workflow(workflow, {"args": args}, workflow_id=id), id

    async def result(self, handle):
        await driver.until_finished(handle[1])  # its API has no wait for the end
        while (found := await self.client.get_workflow_status(handle[0])).status not in CLOSED:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.002)
        if found.status != "completed":
            raise RuntimeError(f"{found.status}: {found.error}")
        return found.output_data["result"]

    async def signal(self, handle, value):
        await self.client.approve_workflow(handle[0])

    async def attach(self, id):
        runs = await self.client.list_workflow_executions()
        return next(run.run_id for run in runs if run.workflow_id == id), id

    async def close(self):
        await asyncio.wait_for(self.client.close(), 20)  # its worker's stop waits for the poll loop

    def extra(self):
        return {"journal": driver.sqlite_journal(self.path)} if hasattr(self, "path") else {}


ENGINE = TinyWorkflow01
