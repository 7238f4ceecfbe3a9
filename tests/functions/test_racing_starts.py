"""Many callers, several processes, one run_id."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from tests.functions.server import server


async def test_a_hundred_simultaneous_starts_of_one_run_id_in_two_processes_make_one_run(tmp_path: Path) -> None:
    environ = {"TINYWORKFLOW_API_KEYS": "key", "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db"}
    source = "tests/http/described_main.py"
    with server("app", environ, source=source) as one, server("app", environ, source=source) as other:
        one.wait_until_up()
        other.wait_until_up()
        async with httpx.AsyncClient(headers={"X-API-Key": "key"}, timeout=30) as caller:
            starts = [
                caller.post(f"{(one, other)[number % 2].url}/v1/workflows/order/runs", json=body)
                for number, body in enumerate([{"run_id": "only", "input": {"item": "x", "amount": 2}}] * 100)
            ]
            answers = [answer.status_code for answer in await asyncio.gather(*starts)]
            assert (answers.count(202), answers.count(409)) == (1, 99)
            assert len((await caller.get(f"{one.url}/v1/runs")).json()["runs"]) == 1
            ended = await caller.get(f"{other.url}/v1/runs/only")
            while ended.status_code == 202:
                await asyncio.sleep(0.05)  # the run goes on in other processes
                ended = await caller.get(f"{other.url}/v1/runs/only")
            assert ended.json()["output"] == 4
