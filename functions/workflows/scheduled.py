"""Housekeeping by the clock: a backup every night, a report every Monday, a look every hour, a sweep every month.

`declare_schedules` puts them into the store. Do that once per deployment; doing it again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tinyworkflow_core import TinyWorkflowClient, WorkflowContext, activity, workflow

from .notices import notify

DAY = timedelta(days=1)


@activity(timeout="10m")
def back_up(source: str, folder: str, name: str) -> dict[str, Any]:
    """Copy a file to `folder/name`, whole or not at all."""
    target = Path(folder) / name
    unfinished = target.with_suffix(".unfinished")
    shutil.copyfile(source, unfinished)
    os.replace(unfinished, target)
    return {"path": str(target), "sha256": hashlib.sha256(target.read_bytes()).hexdigest()}


@activity
def remove_all_but_newest(folder: str, keep: int) -> int:
    """Remove the oldest backups by name. Returns how many."""
    surplus = sorted(Path(folder).glob("backup-*"), reverse=True)[keep:]
    for path in surplus:
        path.unlink(missing_ok=True)
    return len(surplus)


@activity
def count_results(log: str, since: datetime, until: datetime) -> dict[str, int]:
    """How many lines of a log, each `{"at": ..., "result": ...}`, fall into the period, by result."""
    counts: dict[str, int] = {}
    for line in Path(log).read_text().splitlines():
        entry = json.loads(line)
        if since <= datetime.fromisoformat(entry["at"]) < until:
            counts[entry["result"]] = counts.get(entry["result"], 0) + 1
    return counts


@activity(timeout="30s")
def free_space(folder: str) -> float:
    """The share of the disk that is free."""
    usage = shutil.disk_usage(folder)
    return usage.free / usage.total


@activity(timeout="30s")
def is_writable(folder: str) -> bool:
    """Whether a file can be made there."""
    return os.access(folder, os.W_OK)


@activity
def remove_older(folder: str, before: datetime) -> int:
    """Remove the files that were last changed before that moment. Returns how many."""
    old = [path for path in Path(folder).iterdir() if path.is_file() and path.stat().st_mtime < before.timestamp()]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


@workflow
async def daily_backup(ctx: WorkflowContext) -> dict[str, Any]:
    """Copy `source` to `folder` under the day's name, and keep the newest `keep`.

    The day is the workflow's own, so a run that is repeated or resumed after midnight still writes the same file.
    """
    folder = ctx.get_input("folder", ".")
    name = f"backup-{ctx.now():%Y-%m-%d}"
    made = await ctx.execute_activity(back_up, ctx.get_input("source", "tinyworkflow.db"), folder, name)
    removed = await ctx.execute_activity(remove_all_but_newest, folder, ctx.get_input("keep", 7))
    return {**made, "removed": removed}


@workflow
async def weekly_report(ctx: WorkflowContext) -> dict[str, Any]:
    """Count what the last seven days have brought and tell somebody."""
    until = ctx.now()
    counts = await ctx.execute_activity(count_results, ctx.get_input("log", "results.jsonl"), until - 7 * DAY, until)
    total = sum(counts.values())
    share = counts.get("completed", 0) / total if total else 1.0
    await ctx.execute_activity(notify, ctx.get_input("to", "everybody"), f"{total} runs, {share:.0%} completed")
    return {"counts": counts, "share": share}


@workflow
async def hourly_health_check(ctx: WorkflowContext) -> dict[str, Any]:
    """Two looks at once; somebody is told only when something is wrong."""
    folder = ctx.get_input("folder", ".")
    free, writable = await ctx.execute_parallel((free_space, (folder,)), (is_writable, (folder,)))
    healthy = writable and free >= ctx.get_input("at_least", 0.1)
    if not healthy:
        text = f"{folder}: {free:.0%} free, {'' if writable else 'not '}writable"
        await ctx.execute_activity(notify, ctx.get_input("to", "the one on call"), text)
    return {"healthy": healthy, "free": free, "writable": writable}


@workflow
async def monthly_cleanup(ctx: WorkflowContext) -> dict[str, int]:
    """Remove what is older than `days`, by the workflow's own time."""
    before = ctx.now() - ctx.get_input("days", 90) * DAY
    removed = await ctx.execute_activity(remove_older, ctx.get_input("folder", "outbox"), before)
    return {"removed": removed}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When which workflow starts. Monday is 1, as everywhere with cron."""

    workflow: str
    cron: str
    timezone: str = "UTC"
    input_data: dict[str, Any] = field(default_factory=dict)


SCHEDULES = (
    Schedule(workflow="daily_backup", cron="0 2 * * *"),
    Schedule(workflow="weekly_report", cron="0 9 * * 1", timezone="Europe/Berlin"),
    Schedule(workflow="hourly_health_check", cron="0 * * * *"),
    Schedule(workflow="monthly_cleanup", cron="0 3 1 * *"),
)


async def declare_schedules(client: TinyWorkflowClient) -> list[str]:
    """Put SCHEDULES into the client's store, each under the name of its workflow. Returns their ids."""
    return [
        await client.schedule_workflow(one.workflow, one.cron, one.input_data, timezone=one.timezone, id=one.workflow)
        for one in SCHEDULES
    ]
