"""Temporal's Python SDK for the driver, with `temporal server start-dev --db-filename` (SQLite file). Worker, client
and driver share one process, the dev server is a second one. Documented defaults: default Worker options, async
activities with a start_to_close_timeout of 10 s (as in the official samples), workflow sandbox on.

Variants: `local` makes steps local activities (documented for short steps; recorded when the workflow task completes);
`mem` is the server without --db-filename, nothing durable; `rps` (NOT a default) lifts the server's
history.transferProcessorMaxPollRPS, 20 a second for each history shard. The dev server has one shard, so this limiter
is what plain W1 shows."""

# No postponed annotations here: the SDK reads those of workflows and activities.
import asyncio
import os
import sys
from datetime import timedelta
from importlib.metadata import version

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    # By name: the sandbox loads the package itself once more, and would find another module of stamps in that.
    from ..adapter import Adapter, crash_step, free_port, mark_step, spawn_server, sqlite_journal, stamp, wait_port

TIMEOUT = {"start_to_close_timeout": timedelta(seconds=10)}
VARIANT = sys.argv[sys.argv.index("--variant") + 1] if "--variant" in sys.argv else None
step = workflow.execute_local_activity if VARIANT == "local" else workflow.execute_activity


@activity.defn
async def inc(x: int) -> int:
    return x + 1


@activity.defn
async def mark(key: str) -> str:
    return mark_step(key)


@activity.defn
async def hang_once(i: int, path: str, victim: int) -> int:
    return crash_step(i, path, victim)


class Waits:
    def __init__(self):
        self.value = None

    async def wait(self):
        await workflow.wait_condition(lambda: self.value is not None)
        return self.value


@workflow.defn(name="seq")
class Seq:
    @workflow.run
    async def run(self, n: int) -> int:
        x = 0
        for _ in range(n):
            x = await step(inc, x, **TIMEOUT)
        return x


@workflow.defn(name="fan")
class Fan:
    @workflow.run
    async def run(self, n: int) -> int:
        return sum(await asyncio.gather(*(step(inc, i - 1, **TIMEOUT) for i in range(n))))


@workflow.defn(name="sig")
class Sig(Waits):
    @workflow.run
    async def run(self, key: str) -> str:
        await step(mark, key, **TIMEOUT)
        return await self.wait()

    @workflow.signal
    def go(self, value: str) -> None:
        self.value = value


@workflow.defn(name="seqsig")
class SeqSig(Waits):
    @workflow.run
    async def run(self, n: int, key: str) -> str:
        stamp(key, "enter")
        x = 0
        for _ in range(n):
            x = await step(inc, x, **TIMEOUT)
        stamp(key, "looped")
        return await self.wait()

    @workflow.signal
    def go(self, value: str) -> None:
        self.value = value


@workflow.defn(name="crash")
class Crash:
    @workflow.run
    async def run(self, n: int, path: str) -> int:
        for i in range(n):
            await step(hang_once, args=[i, path, n // 2], **TIMEOUT)
        return n


@workflow.defn(name="nap")
class Nap:
    @workflow.run
    async def run(self, key: str, seconds: float) -> None:
        stamp(key, "before")
        await workflow.sleep(seconds)
        stamp(key, "after")


class Temporal(Adapter):
    peer, version = "temporal", version("temporalio")
    durable = VARIANT != "mem"
    store = (
        "its dev server: SQLite file; journal DELETE, synchronous FULL (it leaves SQLite's defaults)"
        if durable
        else "its dev server: SQLite in memory"
    )
    imports = (
        "from temporalio import workflow, activity; from temporalio.client import Client; "
        "from temporalio.worker import Worker"
    )

    def start_server(self, folder):
        ports = [str(free_port()) for _ in range(3)]
        command = [os.path.join(os.path.dirname(sys.executable), "temporal"), "server", "start-dev", "--headless"]
        command += ["--ip", "127.0.0.1", "--port", ports[0], "--http-port", ports[1], "--metrics-port", ports[2]]
        command += ["--log-level", "error"]
        if self.durable:
            command += ["--db-filename", f"{folder}/temporal.db"]
        if VARIANT == "rps":
            command += ["--dynamic-config-value", "history.transferProcessorMaxPollRPS=10000"]
        spawn_server(command, f"{folder}/server.log", os.environ | {"HOME": folder})
        wait_port(int(ports[0]))
        return ports[0]

    async def open(self, folder, address):
        from temporalio.client import Client
        from temporalio.worker import Worker

        self.path = f"{folder}/temporal.db"
        for attempt in range(200):  # a fresh dev server needs a moment until its namespace answers
            try:
                self.client = await Client.connect(f"127.0.0.1:{address}")
                await self.client.count_workflows()
                break
            except Exception:
                if attempt == 199:
                    raise
                await asyncio.sleep(0.1)
        workflows, activities = [Seq, Fan, Sig, SeqSig, Crash, Nap], [inc, mark, hang_once]
        self.worker = Worker(self.client, task_queue="bench", workflows=workflows, activities=activities)
        self.task = asyncio.create_task(self.worker.run())

    async def start(self, workflow, *args, id):
        return await self.client.start_workflow(workflow, args=args, id=id, task_queue="bench")

    async def result(self, handle):
        return await handle.result()

    async def signal(self, handle, value):
        await handle.signal("go", value)

    async def attach(self, id):
        return self.client.get_workflow_handle(id)

    async def close(self):
        await self.worker.shutdown()
        await self.task

    def extra(self):
        return {"journal": sqlite_journal(self.path)} if hasattr(self, "path") and self.durable else {}


ENGINE = Temporal
