"""The functions over a real socket, as functions-framework serves them: a signed webhook starts a release train, a
person decides, and neither kill -9 nor SIGTERM loses anything."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.functions.server import ROOT, Server, server, until
from tinyworkflow_core.store import Run
from tinyworkflow_core.stores import open_store

RELEASE = (ROOT / "tests/data/github/release.published.json").read_bytes()
SECRET = "It's a Secret to Everybody"
STEPS = ["check_changelog", "check_licence", "run_tests", "build"]
STEPS += [f"package_{kind}" for kind in ("wheel", "archive", "image", "signature", "checksums", "manifest")]
AFTER = ["publish", "announce"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db",
        "GITHUB_WEBHOOK_SECRET": SECRET,
        "TRAIN_LOG": str(tmp_path / "train.log"),
        "TRAIN_STEP_SECONDS": "0.1",
    }


def deliver(to: Server, secret: str = SECRET) -> httpx.Response:
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "release",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), RELEASE, hashlib.sha256).hexdigest(),
    }
    return httpx.post(f"{to.url}/hooks/github", content=RELEASE, headers=headers, timeout=20)


def run_of(on: Server, run_id: str) -> dict[str, Any]:
    view: dict[str, Any] = httpx.get(f"{on.url}/v1/runs/{run_id}", timeout=20).json()
    return view


def lines(environ: dict[str, str]) -> list[list[str]]:
    """The log that the activities keep: name, key, pid, start or end."""
    path = Path(environ["TRAIN_LOG"])
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def count(environ: dict[str, str], what: str) -> Counter[str]:
    return Counter(line[0] for line in lines(environ) if line[3] == what)


def stored(environ: dict[str, str], run_id: str) -> Run:
    async def get() -> Run | None:
        store = open_store(environ["TINYWORKFLOW_DATABASE_URL"])
        try:
            return await store.get(run_id)
        finally:
            await store.close()

    run = asyncio.run(get())
    assert run is not None
    return run


def approve(on: Server, run_id: str) -> httpx.Response:
    return httpx.post(f"{on.url}/v1/runs/{run_id}/approvals/publish", json={"approved": True, "by": "ada"}, timeout=20)


def test_a_signed_release_is_built_decided_and_published_and_each_step_runs_once(
    environ: dict[str, str], tmp_path: Path
) -> None:
    switch = tmp_path / "no-builder"
    switch.touch()
    with server("app", {**environ, "TRAIN_FAIL_BUILD": str(switch)}) as app:
        app.wait_until_up()
        assert deliver(app, secret="wrong").status_code == 401
        answers = [deliver(app) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        run_id = answers[0].json()["run_id"]
        assert answers[1].json()["run_id"] == run_id
        assert len(httpx.get(f"{app.url}/v1/runs").json()["runs"]) == 1

        until(lambda: run_of(app, run_id)["status"] == "paused", message=app.printed)
        (asked,) = httpx.get(f"{app.url}/v1/approvals").json()["approvals"]
        assert asked["title"] == "Publish Codertocat/Hello-World 0.0.1?"
        assert asked["details"]["files"][0] == "Hello-World-0.0.1.wheel"
        assert count(environ, "end") == Counter(STEPS)
        assert count(environ, "start") == Counter([*STEPS, "build"])  # it failed once
        assert len({line[1] for line in lines(environ)}) == len(STEPS)  # one key for both attempts

        assert httpx.post(f"{app.url}{asked['links']['decide']}", json={"approved": True, "by": "ada"}).is_success
        until(lambda: run_of(app, run_id)["status"] == "completed", message=app.printed)
        output = run_of(app, run_id)["output"]
        assert (output["published"], output["by"], len(output["files"])) == (True, "ada", 6)
        assert count(environ, "end") == Counter([*STEPS, *AFTER])
        types = [one["type"] for one in httpx.get(f"{app.url}/v1/runs/{run_id}/events").json()["events"]]
        assert types.count("ActivityFailed") == 1


def test_a_rejected_release_is_not_published(environ: dict[str, str]) -> None:
    with server("app", {**environ, "TRAIN_STEP_SECONDS": "0"}) as app:
        app.wait_until_up()
        run_id = deliver(app).json()["run_id"]
        until(lambda: run_of(app, run_id)["status"] == "paused", message=app.printed)
        body = {"approved": False, "by": "bob", "comment": "on a Friday?"}
        assert httpx.post(f"{app.url}/v1/runs/{run_id}/approvals/publish", json=body).is_success
        until(lambda: run_of(app, run_id)["status"] == "completed", message=app.printed)
        assert run_of(app, run_id)["output"] == {"published": False, "by": "bob", "comment": "on a Friday?"}
        assert count(environ, "start") == Counter(STEPS)


def test_a_restarted_server_goes_on_by_itself_after_kill_9_and_repeats_one_step_at_most(
    environ: dict[str, str],
) -> None:
    with server("app", environ) as app:
        app.wait_until_up()
        run_id = deliver(app).json()["run_id"]
        until(lambda: count(environ, "start")["package_image"] > 0, message=app.printed)
        app.kill()
    killed_after = count(environ, "end")
    assert killed_after["package_manifest"] == 0

    with server("app", environ, app.port) as app:
        # No request is made: the log alone says that it goes on.
        until(lambda: count(environ, "end")["package_manifest"] > 0, message=app.printed)
        assert len({line[2] for line in lines(environ)}) == 2
        until(lambda: run_of(app, run_id)["status"] == "paused", message=app.printed)
        assert approve(app, run_id).status_code == 200
        until(lambda: run_of(app, run_id)["status"] == "completed", message=app.printed)

    ends, starts = count(environ, "end"), count(environ, "start")
    assert set(ends) == {*STEPS, *AFTER}
    assert sum(starts.values()) - len(ends) <= 1  # the step that was under way, and no other, ran again
    assert all(starts[name] == 1 for name in killed_after if name != "package_image")


def test_a_server_that_is_asked_to_stop_lets_go_of_its_runs(environ: dict[str, str]) -> None:
    with server("app", environ) as app:
        app.wait_until_up()
        run_id = deliver(app).json()["run_id"]
        until(lambda: count(environ, "start")["package_wheel"] > 0, message=app.printed)
        assert stored(environ, run_id).lease_owner is not None
        app.process.send_signal(signal.SIGTERM)
        app.process.wait(timeout=10)
        printed = app.printed()
    run = stored(environ, run_id)
    assert (run.status, run.lease_owner) == ("pending", None), printed
    assert "Traceback" not in printed


PROBES = {
    "api": ("GET", "/v1/runs?limit=5", 200),
    "approvals": ("GET", "/v1/approvals", 200),
    "hooks": ("POST", "/hooks/github", 401),
    "worker": ("POST", "/internal/advance", 422),
    "tick": ("POST", "/internal/tick", 200),
    "ui": ("GET", "/ui", 200),
}


@pytest.fixture
def parts(environ: dict[str, str]) -> Iterator[dict[str, Server]]:
    """Every single target, as it is deployed: with keys."""
    with ExitStack() as stack:
        keyed = {**environ, "TINYWORKFLOW_API_KEYS": "key"}
        parts = {target: stack.enter_context(server(target, keyed)) for target in PROBES}
        for part in parts.values():
            part.wait_until_up()
        yield parts


def test_each_target_answers_its_own_routes_and_no_others(parts: dict[str, Server]) -> None:
    for target, part in parts.items():
        with httpx.Client(base_url=part.url, headers={"X-API-Key": "key"}) as client:
            for other, (method, path, status) in PROBES.items():
                answer = client.request(method, path)
                assert answer.status_code == (status if other == target else 404), (target, path, answer.text)
                if answer.status_code >= 400:
                    assert answer.headers["content-type"] == "application/problem+json"
    refused = httpx.get(f"{parts['api'].url}/v1/runs")
    assert refused.status_code == 401


def test_the_front_stands_as_it_is_behind_the_framework(environ: dict[str, str]) -> None:
    """Paths, queries, methods, bodies and headers reach it; bad requests get their problem; it stays up; and only this
    machine can reach it."""
    with server("app", environ) as app, httpx.Client(base_url=app.url, timeout=20) as client:
        app.wait_until_up()
        assert listening_addresses(app.port) == {"0100007F"}

        start = "/v1/workflows/release_train/runs"
        assert client.post(start, content=b'{"input": ' + b"[" * 10_000).status_code == 400
        assert client.post(start, content=b"{").status_code == 400
        assert client.post(start, content=b'"' + b"x" * 3_000_000 + b'"').status_code == 413
        assert client.post(start, content=iter([b" " * 100_000] * 20)).status_code == 413
        assert client.post(start, json={"input": {}}).json()["errors"][0]["loc"] == ["repository"]
        assert client.get("/v1/runs?limit=0").status_code == 422
        assert client.delete("/v1/runs").status_code == 405
        assert client.get("/nothing/here").json()["title"] == "Not Found"
        assert client.get("/v1/runs", headers={"Host": "attacker.example"}).status_code == 403
        assert client.get("/v1/runs", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 403
        assert client.head("/healthz").status_code == 200

        release = {"repository": "a/b", "tag": "1", "url": "u", "author": "ada"}
        answer = client.post(start, json={"input": release, "run_id": "r:1"}, headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.headers["location"]) == (202, "/v1/runs/r:1")
        assert client.post("/v1/runs/r:1/signals/some%2Fname?x=1", json=[1]).status_code == 202
        assert client.post("/v1/runs/r:1/cancel").status_code == 202
        until(lambda: client.get("/v1/runs/r:1").json()["status"] == "cancelled", message=app.printed)
        assert "Traceback" not in app.printed()


def listening_addresses(port: int) -> set[str]:
    """Local addresses, as the kernel writes them, of the sockets that listen at this port."""
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
