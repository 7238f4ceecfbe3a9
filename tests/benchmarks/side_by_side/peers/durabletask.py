"""Microsoft's durabletask SDK for Python (the engine behind Azure Durable Functions) for the driver, with the
InMemoryOrchestrationBackend that is in the package.

NOT durable: the real backends (Azure Storage, Durable Task Scheduler) need a cloud or a container, so its figures are
what SDK and protocol cost. The backend is a second process, so W5 and W7 restart only the worker. Default options."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import version

from .. import adapter as driver

BACKEND = """import signal, sys
from durabletask.testing import InMemoryOrchestrationBackend
InMemoryOrchestrationBackend(max_history_size=1000000, port=int(sys.argv[1])).start()
signal.pause()"""


def inc(ctx, x):
    return x + 1


def mark(ctx, key):
    return driver.mark_step(key)


def crash_step(ctx, args):
    return driver.crash_step(*args)


def seq(ctx, args):
    x = 0
    for _ in range(args[0]):
        x = yield ctx.call_activity(inc, input=x)
    driver.finished(ctx.instance_id)
    return x


def fan(ctx, args):
    from durabletask import task

    return sum((yield task.when_all([ctx.call_activity(inc, input=i - 1) for i in range(args[0])])))


def sig(ctx, args):
    yield ctx.call_activity(mark, input=args[0])
    return (yield ctx.wait_for_external_event("go"))


def seqsig(ctx, args):
    n, key = args
    driver.stamp(key, "enter")
    x = 0
    for _ in range(n):
        x = yield ctx.call_activity(inc, input=x)
    driver.stamp(key, "looped")
    return (yield ctx.wait_for_external_event("go"))


def crash(ctx, args):
    n, path = args
    for i in range(n):
        yield ctx.call_activity(crash_step, input=[i, path, n // 2])
    return n


def nap(ctx, args):
    key, seconds = args
    driver.stamp(key, "before")
    yield ctx.create_timer(timedelta(seconds=seconds))
    driver.stamp(key, "after")
    driver.finished(ctx.instance_id)


OPEN = ("PENDING", "RUNNING")
WORKFLOWS = {one.__name__: one for one in (seq, fan, sig, seqsig, crash, nap)}


class DurableTask(driver.Adapter):
    peer, version = "durabletask", version("durabletask")
    store = "memory of a second process (the test backend)"
    durable = False
    imports = "from durabletask import task, worker, client"
    w7_cap = 60.0  # the backend never hands a lost work item out again

    def start_server(self, folder):
        logging.disable(logging.INFO)
        port = driver.free_port()
        driver.spawn_server([sys.executable, "-c", BACKEND, str(port)], f"{folder}/backend.log")
        driver.wait_port(port)
        return port

    async def open(self, folder, address):
        from durabletask import client, worker

        logging.disable(logging.INFO)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
        self.worker = worker.TaskHubGrpcWorker(host_address=f"127.0.0.1:{address}")
        for workflow in WORKFLOWS.values():
            self.worker.add_orchestrator(workflow)
        for activity in (inc, mark, crash_step):
            self.worker.add_activity(activity)
        self.worker.start()
        self.client = client.TaskHubGrpcClient(host_address=f"127.0.0.1:{address}")

    async def start(self, workflow, *args, id):
        schedule = self.client.schedule_new_orchestration
        return await asyncio.to_thread(schedule, WORKFLOWS[workflow], input=list(args), instance_id=id)

    async def result(self, handle):
        if self.options.workload in ("W2", "W8"):  # it has 10 request threads: 50 blocking waits would starve it
            await driver.until_finished(handle)
            look = self.client.get_orchestration_state
            while (state := await asyncio.to_thread(look, handle)).runtime_status.name in OPEN:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.002)
        else:
            state = await asyncio.to_thread(self.client.wait_for_orchestration_completion, handle, timeout=600)
        if state.runtime_status.name != "COMPLETED":
            raise RuntimeError(state.runtime_status.name)
        return json.loads(state.serialized_output) if state.serialized_output else None

    async def signal(self, handle, value):
        await asyncio.to_thread(self.client.raise_orchestration_event, handle, "go", data=value)

    async def attach(self, id):
        return id

    async def close(self):
        await asyncio.to_thread(self.worker.stop)


ENGINE = DurableTask
