"""DBOS Transact (PyPI dbos) for the driver. Documented defaults: SQLite system database (as without any URL), sync
@DBOS.step and @DBOS.workflow as in its quickstart; async steps and asyncio.gather for the fan-out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from .. import adapter as driver


class Dbos(driver.Adapter):
    peer, version = "dbos", version("dbos")
    store = "SQLite file in this process; journal DELETE, synchronous FULL (it leaves SQLite's defaults)"
    imports = "from dbos import DBOS, DBOSConfig, SetWorkflowID"

    async def open(self, folder, address):
        from dbos import DBOS, SetWorkflowID

        self.dbos, self.with_id, self.path = DBOS, SetWorkflowID, f"{folder}/dbos.sqlite"
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))  # only for the driver's 50 waiters
        DBOS(
            config={"name": "bench", "system_database_url": f"sqlite:///{self.path}", "log_level": "ERROR"},
        )
        self.workflows = declared(DBOS)
        await asyncio.to_thread(DBOS.launch)

    async def start(self, workflow, *args, id):
        if workflow == "fan":
            with self.with_id(id):
                return await self.dbos.start_workflow_async(self.workflows[workflow], *args)

        def go():
            with self.with_id(id):
                return self.dbos.start_workflow(self.workflows[workflow], *args)

        return await asyncio.to_thread(go)

    async def result(self, handle):
        wait = handle.get_result
        return await (wait() if asyncio.iscoroutinefunction(wait) else asyncio.to_thread(wait))

    async def signal(self, handle, value):
        await asyncio.to_thread(self.dbos.send, handle.workflow_id, value, "go")

    async def attach(self, id):
        return await asyncio.to_thread(self.dbos.retrieve_workflow, id)

    async def close(self):
        await asyncio.to_thread(self.dbos.destroy)

    def extra(self):
        return {"journal": driver.sqlite_journal(self.path)} if hasattr(self, "path") else {}


def declared(dbos):
    @dbos.step()
    def inc(x):
        return x + 1

    @dbos.step()
    async def same(i):
        return i

    @dbos.step()
    def mark(key):
        return driver.mark_step(key)

    @dbos.step()
    def crash_step(i, path, victim):
        return driver.crash_step(i, path, victim)

    @dbos.workflow()
    def seq(n):
        x = 0
        for _ in range(n):
            x = inc(x)
        return x

    @dbos.workflow()
    async def fan(n):
        return sum(await asyncio.gather(*(same(i) for i in range(n))))

    @dbos.workflow()
    def sig(key):
        mark(key)
        return dbos.recv("go", timeout_seconds=600)

    @dbos.workflow()
    def seqsig(n, key):
        driver.stamp(key, "enter")
        x = 0
        for _ in range(n):
            x = inc(x)
        driver.stamp(key, "looped")
        return dbos.recv("go", timeout_seconds=600)

    @dbos.workflow()
    def crash(n, path):
        for i in range(n):
            crash_step(i, path, n // 2)
        return n

    @dbos.workflow()
    def nap(key, seconds):
        driver.stamp(key, "before")
        dbos.sleep(seconds)
        driver.stamp(key, "after")

    return {"seq": seq, "fan": fan, "sig": sig, "seqsig": seqsig, "crash": crash, "nap": nap}


ENGINE = Dbos
