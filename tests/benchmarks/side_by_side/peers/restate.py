"""Restate's Python SDK for the driver, with its server (npm @restatedev/restate-server; RocksDB log, with fsync).

Service endpoint (Hypercorn, as in its templates), ingress client and driver share one process; the server is a second
one. Documented defaults: the server's own configuration, one Workflow of each kind, steps by ctx.run_typed, a signal is
a durable promise. RESTATE_SERVER names another binary."""

# No postponed annotations here: the SDK reads those of handlers and steps.
import asyncio
import glob
import json
import os
import sys
import urllib.request
from datetime import timedelta
from importlib.metadata import version

from .. import adapter as driver

PORTS = ("INGRESS", "ADMIN", "NODE", "SERVICE")


def binary():
    packages = os.path.join(sys.prefix, "node/node_modules/@restatedev")
    found = glob.glob(f"{packages}/restate-server-*/bin/restate-server")
    return os.environ.get("RESTATE_SERVER") or found[0]


async def inc(x: int) -> int:
    return x + 1


async def same(i: int) -> int:
    return i


async def mark(key: str) -> str:
    return driver.mark_step(key)


async def crash_step(i: int, path: str, victim: int) -> int:
    return driver.crash_step(i, path, victim)


async def seq(ctx, args):
    x = 0
    for _ in range(args[0]):
        x = await ctx.run_typed("inc", inc, x=x)
    return x


async def fan(ctx, args):
    import restate

    steps = [ctx.run_typed("same", same, i=i) for i in range(args[0])]
    return sum([await step for step in await restate.gather(*steps)])


async def sig(ctx, args):
    await ctx.run_typed("mark", mark, key=args[0])
    return await ctx.promise("go").value()


async def seqsig(ctx, args):
    n, key = args
    driver.stamp(key, "enter")
    x = 0
    for _ in range(n):
        x = await ctx.run_typed("inc", inc, x=x)
    driver.stamp(key, "looped")
    return await ctx.promise("go").value()


async def crash(ctx, args):
    n, path = args
    for i in range(n):
        await ctx.run_typed("crash_step", crash_step, i=i, path=path, victim=n // 2)
    return n


async def nap(ctx, args):
    key, seconds = args
    driver.stamp(key, "before")
    await ctx.sleep(timedelta(seconds=seconds))
    driver.stamp(key, "after")


def service(body):
    import restate

    made = restate.Workflow(body.__name__)

    async def run(ctx: restate.WorkflowContext, args: list) -> object:
        return await body(ctx, args)

    async def go(ctx: restate.WorkflowSharedContext, value: str) -> None:
        await ctx.promise("go").resolve(value)

    made.main()(run)
    made.handler()(go)
    return made


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


class Restate(driver.Adapter):
    peer, version = "restate", version("restate-sdk")
    store = "its server: RocksDB log, fsync on (the server's default)"
    imports = "import restate"

    def start_server(self, folder):
        ports = {name: driver.free_port() for name in PORTS}
        env = os.environ | {
            "HOME": folder,
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_IP": "127.0.0.1",
            "RESTATE_BIND_PORT": str(ports["NODE"]),
            "RESTATE_INGRESS__BIND_PORT": str(ports["INGRESS"]),
            "RESTATE_ADMIN__BIND_PORT": str(ports["ADMIN"]),
        }
        command = [binary(), "--base-dir", f"{folder}/restate", "--node-name", "bench", "--no-logo"]
        driver.spawn_server([*command, "--log-filter", "error"], f"{folder}/server.log", env)
        for name in ("INGRESS", "ADMIN"):
            driver.wait_port(ports[name])
        return ports

    async def open(self, folder, address):
        import httpx
        import hypercorn
        import hypercorn.asyncio
        import restate
        from restate.client import Client

        config = hypercorn.Config()
        config.bind, config.loglevel = [f"127.0.0.1:{address['SERVICE']}"], "ERROR"
        config.accesslog = config.errorlog = None
        # What its documentation says for Hypercorn.
        config.h2_max_concurrent_streams = config.keep_alive_max_requests = config.keep_alive_timeout = 2147483647
        app = restate.app([service(body) for body in (seq, fan, sig, seqsig, crash, nap)])
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=self.stop.wait))
        await asyncio.to_thread(driver.wait_port, address["SERVICE"])
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{address['INGRESS']}", http2=True, timeout=None)
        self.client = Client(self.http)
        if self.options.phase not in (
            "w5_resume",
            "w7_recover",
        ):  # a deployment is registered once, not at every restart
            await self._register(address)

    async def _register(self, address):
        url, body = (
            f"http://127.0.0.1:{address['ADMIN']}/deployments",
            {"uri": f"http://127.0.0.1:{address['SERVICE']}"},
        )
        for attempt in range(100):
            try:
                await asyncio.to_thread(post, url, body)
                return
            except Exception:
                if attempt == 99:
                    raise
                await asyncio.sleep(0.1)

    async def run(self, workflow, *args, id):
        # Submit and wait in one call, as its documentation does.
        return json.loads(await self._call(workflow, "run", args, id) or b"null")

    async def _call(self, workflow, handler, value, id):
        headers = {"content-type": "application/json"}
        return await self.client.generic_call(workflow, handler, json.dumps(value).encode(), key=id, headers=headers)

    async def start(self, workflow, *args, id):
        headers = {"content-type": "application/json"}
        await self.client.generic_send(workflow, "run", json.dumps(args).encode(), key=id, headers=headers)
        return workflow, id

    async def result(self, handle):
        answer = await self.http.get(f"/restate/workflow/{handle[0]}/{handle[1]}/attach")
        answer.raise_for_status()
        return answer.json()

    async def signal(self, handle, value):
        await self._call(handle[0], "go", value, handle[1])

    async def attach(self, id):
        return driver.PHASE_NAMES[id], id

    async def close(self):
        self.stop.set()
        await asyncio.wait_for(self.task, 10)
        await self.http.aclose()


ENGINE = Restate
