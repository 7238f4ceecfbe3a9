"""Programs for the TinyWorkflow 0.1 library run here with their import changed, and with nothing else.

Each program below is written as 0.1 code is, runs there as well, and is started as a script of its own. `DB` in its
text stands for a database URL in the form that 0.1 knows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Change the import of a program, run it, and give the lines that it printed."""

    def run_program(program: str, **environ: str) -> list[str]:
        changed, imports = re.subn(r"\bfrom tinyworkflow import\b", "from tinyworkflow_core import", program)
        assert imports == 1
        (tmp_path / "program.py").write_text(changed.replace("DB", f"sqlite+aiosqlite:///{tmp_path}/runs.db"))
        ended = subprocess.run(
            [sys.executable, "-W", "error", "program.py"],
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.splitlines()

    return run_program


ETL = '''
import asyncio
from tinyworkflow import workflow, activity, WorkflowContext, TinyWorkflowClient, RetryPolicy

@activity(name="fetch_data", retry_policy=RetryPolicy(max_retries=3), timeout=30.0)
async def fetch_data(url: str):
    await asyncio.sleep(0.01)
    return {"data": f"Data from {url}", "count": 42}

@activity(name="process_data")
async def process_data(data: dict):
    return {"processed": True, "result": data["count"] * 2}

@activity(name="save_result")
def save_result(result: dict, table: str = "results"):
    return {"saved": True, "id": f"{table}_{result['result']}"}

@workflow(name="simple_etl", retry_policy=RetryPolicy(max_retries=2))
async def simple_etl_workflow(ctx: WorkflowContext):
    """Extract, transform, load."""
    url = ctx.get_input("url", "https://api.example.com/data")
    data = await ctx.execute_activity(fetch_data, url)
    processed = await ctx.execute_activity(process_data, data)
    saved = await ctx.execute_activity(save_result, processed, table="numbers")
    return {"status": "completed", "result_id": saved["id"], "url": url}

async def main():
    async with TinyWorkflowClient(database_url="DB") as client:
        run_id = await client.start_workflow(
            "simple_etl", input_data={"url": "https://api.example.com/users"}, wait=True
        )
        print(run_id)
        workflow = await client.get_workflow_status(run_id)
        print(workflow.status, workflow.workflow_name, workflow.run_id == run_id, workflow.error)
        print(workflow.input_data)
        print(workflow.output_data)
        print(f"Retries: {workflow.retry_count}/{workflow.max_retries}")
        print(workflow.created_at.isoformat() <= workflow.completed_at.isoformat())
        run_id = await client.start_workflow("simple_etl", wait=True)
        print((await client.get_workflow_status(run_id)).output_data["result"]["url"])

asyncio.run(main())
'''


def test_a_client_without_a_worker_runs_what_it_waits_for(run: Run) -> None:
    run_id, status, given, output, retries, ordered, default = run(ETL)
    assert re.fullmatch(r"simple_etl_[0-9a-f]{12}", run_id)
    assert status == "completed simple_etl True None"
    assert given == "{'url': 'https://api.example.com/users'}"
    assert (
        output
        == "{'result': {'status': 'completed', 'result_id': 'numbers_84', 'url': 'https://api.example.com/users'}}"
    )
    assert retries == "Retries: 0/2"
    assert (ordered, default) == ("True", "https://api.example.com/data")


PARALLEL = """
import asyncio
from tinyworkflow import workflow, activity, WorkflowContext, TinyWorkflowClient, RetryPolicy

@activity(name="fetch_user")
async def fetch_user(user_id: str):
    await asyncio.sleep(0.05)
    return {"user_id": user_id, "name": "John Doe"}

@activity(name="fetch_orders")
async def fetch_orders(user_id: str, limit: int = 10):
    return {"orders": [{"id": f"order{n}"} for n in range(limit)]}

@workflow(name="user_report", retry_policy=RetryPolicy(max_retries=2))
async def user_report_workflow(ctx: WorkflowContext):
    user_id = ctx.get_input("user_id", "user_123")
    print(f"Fetching data for {user_id} in parallel...")
    user, orders = await ctx.execute_parallel(
        (fetch_user, (user_id,), {}),
        (fetch_orders, (user_id,), {"limit": 2}),
    )
    tasks = [(fetch_orders, (user_id,), {"limit": n}) for n in range(3)]
    many = await ctx.execute_parallel(*tasks)
    assert await ctx.execute_parallel() == []
    first, second = await asyncio.gather(
        ctx.execute_activity(fetch_user, "a"), ctx.execute_activity(fetch_user, "b")
    )
    await asyncio.sleep(0.01)
    return {
        "name": user["name"], "order_count": len(orders["orders"]),
        "counts": [len(one["orders"]) for one in many], "ids": [first["user_id"], second["user_id"]],
        "facts": [ctx.workflow_name, ctx.workflow_id, ctx.run_id.startswith("user_report_"), ctx.retry_count],
    }

async def main():
    async with TinyWorkflowClient(database_url="DB") as client:
        run_id = await client.start_workflow("user_report", {"user_id": "user_456"}, "reports", True)
        workflow = await client.get_workflow_status(run_id)
        print(workflow.output_data["result"])

asyncio.run(main())
"""


def test_parallel_activities_give_their_results_in_order(run: Run) -> None:
    *said, output = run(PARALLEL)
    assert set(said) == {"Fetching data for user_456 in parallel..."}
    assert output == str(
        {
            "name": "John Doe",
            "order_count": 2,
            "counts": [0, 1, 2],
            "ids": ["a", "b"],
            "facts": ["user_report", "reports", True, 0],
        }
    )


APPROVAL = """
import asyncio
from tinyworkflow import workflow, activity, WorkflowContext, TinyWorkflowClient

@activity(name="process_payment")
async def process_payment(amount: float):
    return {"payment_id": "pay_456", "amount": amount}

@workflow(name="expense_approval")
async def expense_approval_workflow(ctx: WorkflowContext):
    amount = ctx.get_input("amount", 0)
    approved = True
    if amount > 1000:
        approved = await ctx.wait_for_approval("manager_approval", timeout=300)
        if not approved:
            return {"status": "rejected"}
    payment = await ctx.execute_activity(process_payment, amount)
    return {"status": "completed", "payment_id": payment["payment_id"]}

async def until(client, run_id, status):
    for _ in range(1000):
        workflow = await client.get_workflow_status(run_id)
        if workflow.status == status:
            return workflow
        await asyncio.sleep(0.01)
    raise SystemExit(f"still {workflow.status}, not {status}")

async def main():
    async with TinyWorkflowClient(database_url="DB", auto_start_worker=True) as client:
        small = await client.start_workflow("expense_approval", input_data={"amount": 500}, wait=True)
        print((await client.get_workflow_status(small)).output_data)
        for decide in (client.approve_workflow, client.reject_workflow):
            run_id = await client.start_workflow("expense_approval", input_data={"amount": 2500}, wait=False)
            await until(client, run_id, "paused")
            pending = await client.get_pending_approvals()
            for w in pending:
                print(w.run_id == run_id, w.workflow_name, w.approval_required)
            await decide(run_id)
            print((await until(client, run_id, "completed")).output_data)
        print(await client.get_pending_approvals())

asyncio.run(main())
"""


def test_an_approval_is_asked_listed_and_decided(run: Run) -> None:
    asked = "True expense_approval manager_approval"
    paid = "{'result': {'status': 'completed', 'payment_id': 'pay_456'}}"
    assert run(APPROVAL) == [paid, asked, paid, asked, "{'result': {'status': 'rejected'}}", "[]"]


RETRIES = """
import asyncio
from tinyworkflow import workflow, activity, WorkflowContext, TinyWorkflowClient, RetryPolicy

attempts = {"flaky": 0, "service": 0}

@activity(name="flaky_api_call", retry_policy=RetryPolicy(
    max_retries=5, initial_delay=0.01, max_delay=10.0, backoff_multiplier=2.0, jitter=True, jitter_factor=0.1))
async def flaky_api_call(endpoint: str):
    attempts["flaky"] += 1
    if attempts["flaky"] <= 2:
        raise Exception(f"API Error: Connection timeout (attempt {attempts['flaky']})")
    return {"status": "success", "attempts": attempts["flaky"]}

@activity(name="external_service_call", retry_policy=RetryPolicy(0, 0.01))
async def external_service_call(service: str):
    attempts["service"] += 1
    if attempts["service"] < 2:
        raise RuntimeError("ServiceError: Service temporarily unavailable")
    return {"service": service}

@activity(name="too_slow", retry_policy=RetryPolicy(max_retries=0), timeout=0.05)
async def too_slow():
    await asyncio.sleep(30)

@workflow(name="api_workflow_with_retry")
async def api_workflow_with_retry(ctx: WorkflowContext):
    result = await ctx.execute_activity(flaky_api_call, "/api/data")
    try:
        await ctx.execute_activity(too_slow)
    except TimeoutError:
        result["slow"] = "timed out"
    return result

@workflow(name="workflow_level_retry", retry_policy=RetryPolicy(max_retries=2, initial_delay=0.05))
async def workflow_level_retry(ctx: WorkflowContext):
    result = await ctx.execute_activity(external_service_call, "payment-gateway")
    return {"workflow_attempt": ctx.retry_count + 1, "service_result": result}

@workflow(name="hopeless", retry_policy=RetryPolicy(max_retries=0))
async def hopeless(ctx: WorkflowContext):
    raise ValueError("No text provided for analysis")

@workflow("late", None, 0.05)
async def late(ctx: WorkflowContext):
    await asyncio.sleep(30)

async def main():
    async with TinyWorkflowClient(database_url="DB") as client:
        for name in ("api_workflow_with_retry", "workflow_level_retry"):
            run_id = await client.start_workflow(name, wait=True)
            result = await client.get_workflow_status(run_id)
            print(result.output_data["result"])
        for name in ("hopeless", "late"):
            try:
                await client.start_workflow(name, wait=True)
            except Exception:
                print("raised")
        for w in await client.list_workflow_executions(status="failed", limit=10, offset=0):
            print(w.workflow_name, w.status, "text" in w.error)

asyncio.run(main())
"""


def test_retry_policies_and_timeouts_take_effect(run: Run) -> None:
    assert run(RETRIES) == [
        "{'status': 'success', 'attempts': 3, 'slow': 'timed out'}",
        "{'workflow_attempt': 2, 'service_result': {'service': 'payment-gateway'}}",
        "raised",
        "raised",
        "late failed False",
        "hopeless failed True",
    ]


EVENTS = """
import asyncio
from tinyworkflow import workflow, activity, WorkflowContext, TinyWorkflowClient

@activity(name="add_numbers")
async def add_numbers(a: int, b: int):
    return a + b

@workflow(name="simple_workflow")
async def simple_workflow(ctx: WorkflowContext):
    result = await ctx.execute_activity(add_numbers, ctx.get_input("a", 0), ctx.get_input("b", 0))
    return {"result": result}

async def main():
    client = TinyWorkflowClient("DB")
    await client.initialize()
    await client.initialize()
    run_id = await client.start_workflow("simple_workflow", {"a": 5, "b": 3}, wait=True)
    await client.close()

    async with TinyWorkflowClient("DB") as client:
        wf = await client.get_workflow_status(run_id)
        assert wf is not None
        print(wf.status == "completed", wf.output_data["result"]["result"])
        found = await client.list_workflow_executions(workflow_name="simple_workflow", limit=1)
        print([w.run_id == run_id for w in found], await client.list_workflow_executions(status="running"))
        events = await client.get_workflow_events(run_id, limit=50)
        for event in events:
            line = f"{event.timestamp}: {event.event_type} {event.event_data}"
        print(len(events) > 2, len(await client.get_workflow_events(run_id, limit=2)))
        print(client.list_registered_workflows(), client.list_registered_activities())
        await client.cleanup_old_workflows(days=30)
        print((await client.get_workflow_status(run_id)).status)

asyncio.run(main())
"""


def test_what_one_client_has_run_another_can_look_at(run: Run) -> None:
    assert run(EVENTS) == [
        "True 8",
        "[True] []",
        "True 2",
        "['simple_workflow'] ['add_numbers']",
        "completed",
    ]


SCHEDULING = """
import asyncio
from tinyworkflow import workflow, activity, WorkflowContext, TinyWorkflowClient

@activity(name="send_notification")
async def send_notification(message: str):
    print(f"Notification: {message}")
    return {"sent": True}

@workflow(name="delayed_task")
async def delayed_task_workflow(ctx: WorkflowContext):
    message = ctx.get_input("message", "Time to follow up!")
    await ctx.execute_activity(send_notification, message)
    return {"status": "completed"}

async def main():
    async with TinyWorkflowClient(database_url="DB", auto_start_worker=True) as client:
        job1 = await client.schedule_workflow("delayed_task", cron_expression="0 2 * * *", input_data={})
        job2 = await client.schedule_workflow("delayed_task", "*/5 * * * *")
        job3 = await client.schedule_delayed_workflow(
            "delayed_task", delay_seconds=0.2, input_data={"message": "now"}
        )
        print([isinstance(job, str) for job in (job1, job2, job3)], len({job1, job2, job3}))
        for _ in range(1000):
            done = await client.list_workflow_executions(status="completed")
            if done:
                break
            await asyncio.sleep(0.01)
        print([w.output_data for w in done])
        await client.stop_worker()
        await client.start_worker()

asyncio.run(main())
"""


def test_schedules_are_taken_and_a_delayed_workflow_runs(run: Run) -> None:
    assert run(SCHEDULING) == ["[True, True, True] 3", "Notification: now", "[{'result': {'status': 'completed'}}]"]


IN_MEMORY = """
import asyncio
from tinyworkflow import *

async def test_retry_policy():
    call_count = 0

    @activity(name="flaky_activity", retry_policy=RetryPolicy(max_retries=2, initial_delay=0.01))
    async def flaky_activity():
        nonlocal call_count
        call_count += 1
        if call_count < 2:
            raise ValueError("Simulated failure")
        return {"success": True}

    @workflow(name="retry_test_workflow")
    async def retry_test_wf(ctx: WorkflowContext):
        result = await ctx.execute_activity(flaky_activity)
        return result

    @workflow()
    async def sums(ctx: WorkflowContext):
        return sum([await ctx.execute_activity(plain, n) for n in range(ctx.get_input("n"))])

    @activity()
    def plain(n: int):
        return n

    async with TinyWorkflowClient(database_url="sqlite+aiosqlite:///:memory:") as client:
        run_id = await client.start_workflow("retry_test_workflow", wait=True)
        wf = await client.get_workflow_status(run_id)
        print(wf.status, wf.output_data, call_count)
        run_ids = await asyncio.gather(*[client.start_workflow("sums", {"n": n}, wait=True) for n in (3, 4)])
        print([(await client.get_workflow_status(one)).output_data for one in run_ids])
        print(plain(7), await flaky_activity())

asyncio.run(test_retry_policy())
"""


def test_a_client_in_memory_runs_what_is_declared_inside_a_function(run: Run) -> None:
    assert run(IN_MEMORY) == [
        "completed {'result': {'success': True}} 2",
        "[{'result': 3}, {'result': 6}]",
        "7 {'success': True}",
    ]
