"""AWS Lambda's durable execution SDK for Python for the driver, with the local runner of its testing SDK and the SQLite
store of that runner (WAL, synchronous NORMAL: the runner sets it). The runner is AWS's test tool and stands in for the
service: figures are what SDK and runner cost here, not Lambda.

In this process by default (its documented use in tests). W5, W7 and variant `web`: the runner is a server in a second
process, and this one is the "Lambda", a threaded HTTP endpoint; checkpoints go over boto3, as in production."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from .. import adapter as driver

SERVER = "aws_durable_execution_sdk_python_testing.cli"
ACCOUNT = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-west-2"}
callbacks: dict = {}
"""key -> callback id, as it was handed to the submitter."""


def made_handler(folder=None):
    from aws_durable_execution_sdk_python import durable_execution, durable_step
    from aws_durable_execution_sdk_python.config import Duration

    @durable_step
    def inc(_, x):
        return x + 1

    @durable_step
    def crash_step(_, i, path, victim):
        return driver.crash_step(i, path, victim)

    def until_signalled(ctx, key):
        def submit(callback_id, _):
            callbacks[key] = callback_id
            if folder:
                write(f"{folder}/callback-{key}", callback_id)
            driver.mark_step(key)

        return ctx.wait_for_callback(submit, name="signal")

    def steps(ctx, n):
        x = 0
        for _ in range(n):
            x = ctx.step(inc(x))
        return x

    def body(workflow, args, ctx):
        match workflow:
            case "seq":
                return steps(ctx, args[0])
            case "seqsig":
                driver.stamp(args[1], "enter")
                steps(ctx, args[0])
                driver.stamp(args[1], "looped")
                return until_signalled(ctx, args[1])
            case "fan":
                return sum(ctx.map(list(range(args[0])), lambda ctx, i, *_: ctx.step(inc(i - 1))).get_results())
            case "sig":
                return until_signalled(ctx, args[0])
            case "crash":
                for i in range(args[0]):
                    ctx.step(crash_step(i, args[1], args[0] // 2))
                return args[0]
            case "nap":
                driver.stamp(args[0], "before")
                ctx.wait(Duration.from_seconds(args[1]))
                driver.stamp(args[0], "after")
                return None

    @durable_execution
    def handler(event, ctx):
        result = body(event["workflow"], event["args"], ctx)
        driver.finished(event["id"])  # only the web mode asks for it
        return result

    return handler


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read()


def endpoint(handler, port):
    """The "Lambda"."""

    class Lambda(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_POST(self):
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = json.dumps(handler(event, None)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", port), Lambda)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Aws(driver.Adapter):
    peer, version = "aws", version("aws-durable-execution-sdk-python")
    store = "its local runner: SQLite file; journal WAL, synchronous NORMAL (the runner sets it)"
    imports = "from aws_durable_execution_sdk_python import DurableContext, durable_execution, durable_step"

    def __init__(self, options):
        super().__init__(options)
        logging.disable(logging.WARNING)
        self.web = options.workload in ("W5", "W7") or options.variant == "web"

    def start_server(self, folder):
        if not self.web:
            return None
        port, function = driver.free_port(), driver.free_port()
        command = [sys.executable, "-m", SERVER, "start-server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--store-type", "sqlite", "--store-path", f"{folder}/runs.db", "--log-level", "ERROR"]
        command += ["--lambda-endpoint", f"http://127.0.0.1:{function}"]
        driver.spawn_server(command, f"{folder}/server.log", os.environ | ACCOUNT)
        driver.wait_port(port)
        return {"port": port, "function": function}

    async def open(self, folder, address):
        self.path, self.folder = f"{folder}/runs.db", folder
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
        if not self.web:
            from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner
            from aws_durable_execution_sdk_python_testing.stores.sqlite import SQLiteExecutionStore

            kept = SQLiteExecutionStore.create_and_initialize(self.path)
            self.runner = DurableFunctionTestRunner(made_handler(), store=kept, skip_time=False)
            return
        self.base = f"http://127.0.0.1:{address['port']}"
        os.environ.update(ACCOUNT, AWS_ENDPOINT_URL_LAMBDA=self.base)
        import boto3

        self.server = endpoint(made_handler(folder), address["function"])
        self.service = boto3.client("lambda")

    async def start(self, workflow, *args, id):
        event = json.dumps({"workflow": workflow, "args": args, "id": id})
        if self.web:
            arn = await asyncio.to_thread(self._start_by_web, event, id)
            if self.options.phase:
                write(f"{self.folder}/arn-{id}", arn)
        else:
            arn = await asyncio.to_thread(self.runner.run_async, input=event, execution_timeout=3600, execution_name=id)
        return arn, id, args[-1] if workflow == "seqsig" else args[0]

    def _start_by_web(self, event, id):
        body = {
            "AccountId": "123456789012",
            "FunctionName": "f",
            "FunctionQualifier": "$LATEST",
            "ExecutionName": id,
            "Input": event,
            "ExecutionTimeoutSeconds": 3600,
            "ExecutionRetentionPeriodDays": 7,
            "InvocationId": id,
        }
        request = urllib.request.Request(
            f"{self.base}/start-durable-execution", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["ExecutionArn"]

    async def result(self, handle):
        if not self.web:
            result = (await asyncio.to_thread(self.runner.wait_for_result, handle[0], 3600)).result
            return json.loads(result) if result else None
        await driver.until_finished(handle[1])
        look = self.service.get_durable_execution
        while (found := await asyncio.to_thread(look, DurableExecutionArn=handle[0]))["Status"] == "RUNNING":  # noqa: ASYNC110  # no wait
            await asyncio.sleep(0.002)
        if found["Status"] != "SUCCEEDED":
            raise RuntimeError(str(found.get("Error") or found["Status"])[:300])
        return json.loads(found["Result"]) if found.get("Result") else None

    async def signal(self, handle, value):
        body = value.encode()  # a callback's result is passed through as text
        if not self.web:
            await asyncio.to_thread(self.runner.send_callback_success, callbacks[handle[2]], body)
            return
        callback = callbacks.get(handle[2]) or read(f"{self.folder}/callback-{handle[2]}")
        send = self.service.send_durable_execution_callback_success
        await asyncio.to_thread(send, CallbackId=callback, Result=body)

    async def attach(self, id):
        return read(f"{self.folder}/arn-{id}"), id, id

    async def close(self):
        await asyncio.to_thread(self.server.shutdown if self.web else self.runner.close)

    def extra(self):
        return {"mode": "web" if self.web else "in-process"} | (
            {"journal": driver.sqlite_journal(self.path)} if hasattr(self, "path") else {}
        )


ENGINE = Aws
