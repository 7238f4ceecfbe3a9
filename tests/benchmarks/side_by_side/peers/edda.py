"""Edda (PyPI edda-framework) for the driver, embedded, SQLite file. Documented defaults: EddaApp(service_name, db_url),
uvloop installed before the loop starts (its README), async activities, ids for concurrent activities (its README).

Starting a run executes it in the caller's task until it ends or waits; the app's poll loop resumes a run that waits."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from .. import adapter as driver

CLOSED = ("completed", "failed", "cancelled")


def declared():
    from edda import activity, receive, sleep, subscribe, workflow

    # Its decorators read annotations at run time, and the postponed ones of this module would be text: there are none.
    @activity
    async def inc(ctx, x):
        return x + 1

    @activity
    async def same(ctx, i):
        return i

    @activity
    async def mark(ctx, key):
        return driver.mark_step(key)

    @activity
    async def crash_step(ctx, i, path, victim):
        return driver.crash_step(i, path, victim)

    @workflow
    async def seq(ctx, args, id):
        x = 0
        for _ in range(args[0]):
            x = await inc(ctx, x)
        driver.finished(id)
        return x

    @workflow
    async def fan(ctx, args, id):
        total = sum(await asyncio.gather(*(same(ctx, i, activity_id=f"same:{i}") for i in range(args[0]))))
        driver.finished(id)
        return total

    @workflow
    async def sig(ctx, args, id):
        await subscribe(ctx, id)
        await mark(ctx, args[0])
        message = await receive(ctx, id)
        driver.finished(id)
        return message.data["value"]

    @workflow
    async def seqsig(ctx, args, id):
        n, key = args
        driver.stamp(key, "enter")
        await subscribe(ctx, id)
        x = 0
        for _ in range(n):
            x = await inc(ctx, x)
        driver.stamp(key, "looped")
        message = await receive(ctx, id)
        driver.finished(id)
        return message.data["value"]

    @workflow
    async def crash(ctx, args, id):
        n, path = args
        for i in range(n):
            await crash_step(ctx, i, path, n // 2)
        driver.finished(id)
        return n

    @workflow
    async def nap(ctx, args, id):
        key, seconds = args
        driver.stamp(key, "before")
        await sleep(ctx, seconds)
        driver.stamp(key, "after")
        driver.finished(id)

    return {"seq": seq, "fan": fan, "sig": sig, "seqsig": seqsig, "crash": crash, "nap": nap}


class Edda(driver.Adapter):
    peer, version = "edda", version("edda-framework")
    store = "SQLite file in this process; journal DELETE, synchronous FULL (it leaves SQLite's defaults)"
    imports = "from edda import EddaApp, WorkflowContext, activity, workflow, wait_event, sleep"
    w7_cap = 480.0  # its lock times out after 300 s, and it looks for such locks every 60 to 78 s

    async def open(self, folder, address):
        from edda import EddaApp

        self.path = f"{folder}/edda.db"
        self.workflows = declared()
        self.app = EddaApp(service_name="bench", db_url=f"sqlite:///{self.path}")
        await self.app.initialize()

    async def start(self, workflow, *args, id):
        task = asyncio.create_task(self.workflows[workflow].start(args=list(args), id=id))
        await asyncio.sleep(0)
        return {"task": task, "id": id}

    async def result(self, handle):
        instance_id = handle.get("instance_id") or await handle["task"]
        await driver.until_finished(handle["id"])  # its API has no wait for the end
        while (found := await self.app.storage.get_instance(instance_id))["status"] not in CLOSED:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.002)
        if found["status"] != "completed":
            raise RuntimeError(f"{found['status']}: {found.get('output_data')}"[:300])
        return found["output_data"]["result"]

    async def signal(self, handle, value):
        from edda import publish

        await publish(self.app.storage, handle["id"], {"value": value}, worker_id=self.app.worker_id)

    async def attach(self, id):
        found = await self.app.storage.list_instances(limit=10)
        rows = found["instances"] if isinstance(found, dict) else found
        [instance_id] = [row["instance_id"] for row in rows if row["workflow_name"] == driver.PHASE_NAMES[id]]
        return {"instance_id": instance_id, "id": id}

    async def close(self):
        await self.app.shutdown()

    def extra(self):
        return {"journal": driver.sqlite_journal(self.path)} if hasattr(self, "path") else {}

    def loop(self, main):
        import uvloop

        uvloop.install()
        return asyncio.run(main)


ENGINE = Edda
