"""The release train: check a release, build and package it, ask a person, publish. Started by the webhook `github`.

The activities pretend: each takes TRAIN_STEP_SECONDS (default 0.3). For trying things out:

- TRAIN_LOG names a file that gets a line at the start and at the end of every execution of an activity's body.
- TRAIN_FAIL_BUILD names a file; while it is there the build fails, and takes it away.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, activity_context, workflow

PACKAGING = ("wheel", "archive", "image", "signature", "checksums", "manifest")


@dataclass
class Release:
    """What a release event says about the release."""

    repository: str
    tag: str
    url: str
    author: str
    body: str | None = None


@asynccontextmanager
async def _working(name: str) -> AsyncIterator[None]:
    """The time that an activity takes, with a line in the log at either end."""
    _log(name, "start")
    await asyncio.sleep(float(os.environ.get("TRAIN_STEP_SECONDS", "0.3")))
    yield
    _log(name, "end")


def _log(name: str, what: str) -> None:
    if path := os.environ.get("TRAIN_LOG"):
        line = f"{name} {activity_context().idempotency_key} {os.getpid()} {what}\n"
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(log, line.encode())
        finally:
            os.close(log)


def _builder_is_away() -> bool:
    switch = os.environ.get("TRAIN_FAIL_BUILD")
    if not switch or not Path(switch).exists():
        return False
    Path(switch).unlink()
    return True


@activity
async def check_changelog(release: Release) -> str:
    """Whether the release says what has changed."""
    async with _working("check_changelog"):
        return "told" if release.body else "empty"


@activity
async def check_licence(release: Release) -> str:
    """Whether the repository may be given away."""
    async with _working("check_licence"):
        return f"{release.repository} is free"


@activity
async def run_tests(release: Release) -> str:
    """Whether the tests pass at the tag."""
    async with _working("run_tests"):
        return f"green at {release.tag}"


@activity(retry_policy=RetryPolicy(initial_delay=0.3))
async def build(release: Release) -> str:
    """Build the tag; tried again when the builder is away."""
    async with _working("build"):
        if _builder_is_away():
            raise ConnectionError("the builder is away")
        return f"{release.repository.rpartition('/')[2]}-{release.tag}"


@activity
async def package(built: str, kind: str) -> str:
    """Make one of the files that a release consists of."""
    async with _working(f"package_{kind}"):
        return f"{built}.{kind}"


@activity
async def publish(release: Release, files: list[str]) -> str:
    """Give the files away."""
    async with _working("publish"):
        return release.url


@activity
async def announce(release: Release, by: str | None) -> None:
    """Tell everybody."""
    async with _working("announce"):
        return None


@workflow
async def release_train(ctx: WorkflowContext, release: Release) -> dict[str, Any]:
    """From a tag to a published release, with a person's consent."""
    changelog, licence, tests = await ctx.execute_parallel(
        (check_changelog, (release,)), (check_licence, (release,)), (run_tests, (release,))
    )
    built = await ctx.execute_activity(build, release)
    files = [await ctx.execute_activity(package, built, kind) for kind in PACKAGING]
    decision = await ctx.wait_for_approval(
        "publish",
        timeout="7d",
        title=f"Publish {release.repository} {release.tag}?",
        details={"release": release, "changelog": changelog, "licence": licence, "tests": tests, "files": files},
    )
    if not decision:
        return {"published": False, "by": decision.by, "comment": decision.comment}
    url = await ctx.execute_activity(publish, release, files)
    await ctx.execute_activity(announce, release, decision.by)
    return {"published": True, "by": decision.by, "url": url, "files": files}
