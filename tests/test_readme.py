"""README and docs say what is: their code is run, their commands are run, their tables are compared with the code."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.functions.server import server
from tests.services import do_without
from tinyworkflow_core import App, TinyWorkflowClient, create_app
from tinyworkflow_core.checking import exported
from tinyworkflow_core.cli import cli
from tinyworkflow_core.errors import SerializationError, UpdateRejectedError, WorkflowFailedError
from tinyworkflow_core.serialization import Codec
from tinyworkflow_core.testing import WorkflowEnvironment

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *DOCS]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


# --- code --------------------------------------------------------------------------------------------


async def test_the_first_workflow_survives_a_kill_and_greets_once(tmp_path: Path) -> None:
    [code] = blocks(README, "python")
    (tmp_path / "first.py").write_text(code)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "first.py"]
    with (tmp_path / "printed").open("wb") as output:
        first = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=output, stderr=output)  # noqa: ASYNC220  # nothing else runs in this loop
        try:
            await _until_it_naps(f"sqlite:///{tmp_path}/first.db")
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    second = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=True)  # noqa: ASYNC221  # as above
    assert (tmp_path / "printed").read_text() == "greeting World\n"
    assert second.stdout == "Hello, World!\n"


async def _until_it_naps(url: str) -> None:
    deadline = time.monotonic() + 30
    async with TinyWorkflowClient(url) as client:
        while not [one for one in await client.list_workflow_executions() if one.status == "waiting"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports all Python blocks of a page of the docs as one module."""
    monkeypatch.syspath_prepend(tmp_path)
    imported: list[str] = []

    def import_page(name: str) -> ModuleType:
        code = "\n\n".join(blocks(ROOT / "docs" / f"{name}.md", "python"))
        imported.append(f"page_{name}")
        (tmp_path / f"page_{name}.py").write_text(code)
        return importlib.import_module(f"page_{name}")

    yield import_page
    for name in imported:
        del sys.modules[name]


async def test_the_workflows_of_the_workflows_page_do_what_it_says(pages: Any) -> None:
    page = pages("workflows")
    async with WorkflowEnvironment([page.fulfil, page.cheapest, page.trial]) as env:
        order = {"item": "lamp", "amount": 20}
        assert await env.result(await env.start(page.fulfil, order)) == ["lamp is reserved", "20 paid"]

        run_id = await env.start(page.cheapest, "lamp")
        await env.advance("1h")
        await env.signal(run_id, "offer", 3)
        assert await env.result(run_id) == 3

        run_id = await env.start(page.trial, "ada")
        await env.advance("10d")
        await env.cancel(run_id)
        await env.run()
        assert (await env.status(run_id)).status == "cancelled"
        done = await env.events(run_id, "ActivityCompleted")
        assert [one["name"] for one in done] == ["open_account", "close_account"]


async def test_the_activity_of_the_activities_page_does_what_it_says(pages: Any) -> None:
    page = pages("activities")
    from tinyworkflow_core import ApplicationError, WorkflowContext, workflow

    @workflow
    async def pays(ctx: WorkflowContext, amount: int) -> Any:
        try:
            return await ctx.execute_activity(page.charge, amount)
        except ApplicationError as error:
            return error.type, error.details

    async with WorkflowEnvironment([pays]) as env:
        run_id = await env.start(pays, 10)
        assert await env.result(run_id) == f"paid 10 under {run_id}/0/1"
        assert [one["attempt"] for one in await env.events(run_id, "ActivityFailed")] == [1]
        assert await env.result(await env.start(pays, 2000)) == ("CardDeclined", {"limit": 1000})

    async with WorkflowEnvironment([page.checkout, page.launch_day, page.book, page.weekend]) as env:
        assert (await env.result(await env.start(page.checkout, 10))).startswith("paid 10")
        assert await env.result(await env.start(page.launch_day, "hello")) == "said hello"
        run_id = await env.start(page.book, 3)
        assert await env.result(run_id) == ["page 0", "page 1", "page 2"]
        assert len(await env.events(run_id, "ActivityScheduled")) == 3
        run_id = await env.start(page.weekend, "ada")
        with pytest.raises(WorkflowFailedError, match="over the limit"):
            await env.result(run_id)
        assert [one["name"] for one in await env.events(run_id, "ActivityCompleted")][-1] == "release_room"


async def test_a_step_of_the_activities_page_that_was_interrupted_asks_a_person(pages: Any) -> None:
    page = pages("activities")
    async with WorkflowEnvironment([page.launch_day], activities={"announce": lambda text: env.kill()}) as env:
        run_id = await env.start(page.launch_day, "hello")
        await env.run()
        assert (await env.status(run_id)).status == "paused"
        await env.decide(run_id, "announced")
        assert await env.result(run_id) == "it was said"


async def test_the_batch_of_the_batches_page_stops_when_it_says(pages: Any) -> None:
    page = pages("batches")
    async with WorkflowEnvironment([page.two_offers]) as env:
        assert await env.result(await env.start(page.two_offers, ["ab", "", "abc"])) == [2, 3]
        with pytest.raises(WorkflowFailedError, match="a shop without a name"):
            await env.result(await env.start(page.two_offers, ["", "", "abc"]))


async def test_the_workflow_of_the_retries_page_goes_on_where_it_failed(pages: Any) -> None:
    page = pages("retries")
    names: list[Any] = []

    async def broken(given: list[str]) -> int:
        names.append(given)
        if len(names) < 13:  # each of the four tries has three attempts
            raise OSError("disk full")
        return len(given)

    async with WorkflowEnvironment([page.import_names], activities={"load": broken}) as env:
        run_id = await env.start(page.import_names, "file")
        await env.advance("1m")
        assert (len(names), (await env.status(run_id)).status) == (3, "retrying")
        with pytest.raises(WorkflowFailedError, match="disk full"):
            await env.result(run_id)
        assert (len(names), (await env.status(run_id)).retry_count) == (12, 3)
        await page.try_again(env.client, run_id)
        assert await env.result(run_id) == 2
        assert [one["name"] for one in await env.events(run_id, "ActivityCompleted")] == ["read", "load"]


async def test_the_trip_of_the_saga_page_is_undone_as_it_says(pages: Any) -> None:
    page = pages("saga")
    async with WorkflowEnvironment([page.trip]) as env:
        assert await env.result(await env.start(page.trip, 500)) == ["a room", "paid 100", "a seat", "paid 500"]
        run_id = await env.start(page.trip, 2000)
        with pytest.raises(WorkflowFailedError, match="declined"):
            await env.result(run_id)
        undone = [one["result"] for one in await env.events(run_id, "ActivityCompleted")][3:]
        assert undone == ["a seat is cancelled", "100 back to ada", "a room is cancelled"]


async def test_the_workflows_of_the_waiting_page_do_what_it_says(pages: Any) -> None:
    page = pages("waiting")
    async with WorkflowEnvironment([page.collect, page.expense]) as env:
        run_id = await env.start(page.collect, 2)
        await env.signal(run_id, "name", "ann")
        await env.signal(run_id, "name", "bob")
        assert await env.result(run_id) == ["ann", "bob"]

        decided = {}
        for approved in (True, False):
            run_id = await env.start(page.expense, 5)
            await env.run()
            assert (await env.status(run_id)).status == "paused"
            await env.decide(run_id, "boss", approved=approved, by="ada", comment="no" if not approved else None)
            decided[approved] = await env.result(run_id)
        assert decided == {True: "paid 5", False: "rejected by ada: no"}

    async with WorkflowEnvironment([page.embargo, page.remind, page.monitor]) as env:
        run_id = await env.start(page.embargo, env.clock.now() + timedelta(hours=1))
        await env.signal(run_id, "move", env.clock.now() + timedelta(hours=3))
        await env.advance("2h")
        assert (await env.status(run_id)).status == "waiting"
        assert await env.result(run_id) == f"published at {env.clock.now():%H:%M}"

        run_id = await env.start(page.remind)
        await env.advance("90d")
        await env.signal(run_id, "complete")
        assert await env.result(run_id) == 4

        until = (env.clock.now() + timedelta(days=2)).isoformat()
        assert await env.result(await env.start(page.monitor, {"parcel": "delivered", "until": until})) is True
        assert await env.result(await env.start(page.monitor, {"parcel": "lost", "until": until})) is False
        assert env.clock.now().isoformat() == until

    async with WorkflowEnvironment([page.expense]) as env:
        assert await env.result(await env.start(page.expense, 5)) == "nobody decided"


async def test_the_workflows_of_the_approvals_page_do_what_it_says(
    pages: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYWORKFLOW_LINK_KEYS", "k" * 32)
    monkeypatch.setenv("TINYWORKFLOW_PUBLIC_URL", "https://approve.example.org")
    page = pages("approvals")
    async with WorkflowEnvironment([page.pay, page.tell]) as env:
        run_id = await env.start(page.pay, 9)
        await env.run()
        assert capsys.readouterr().out.count("Pay 9.00? https://approve.example.org/approvals/") == 2
        await env.advance("3d")
        assert "to eve@example.org" in capsys.readouterr().out
        for person in ("eve@example.org", "ada@example.org"):
            await env.decide(run_id, "pay", by=person, data={"amount": 8})
            await env.run()
        assert await env.result(run_id) == "paid 8.00 with the consent of eve@example.org and ada@example.org"

        run_id = await env.start(page.pay, 9)
        await env.run()
        await env.decide(run_id, "pay", approved=False, by="bob@example.org")
        assert await env.result(run_id) == "rejected by bob@example.org"
        assert await env.result(await env.start(page.pay, 9)) == "lapsed"


async def test_the_workflows_of_the_children_page_do_what_it_says(pages: Any) -> None:
    page = pages("children")
    async with WorkflowEnvironment([page.ship, page.order, page.patient_order]) as env:
        assert await env.result(await env.start(page.order, ["lamp", "unicorn"])) == ["T-4", "no unicorn"]
        run_id = await env.start(page.patient_order, "lamp")
        assert (await env.result(run_id)).tracking == "T-4"
        assert await env.result(await env.start(page.patient_order, "lamp")) == "is being shipped already"


async def test_the_workflows_of_the_versions_page_do_what_it_says(pages: Any) -> None:
    page = pages("versions")
    async with WorkflowEnvironment([page.billing_1, page.billing_2, page.invoice, page.meter]) as env:
        assert await env.result(await env.start("billing", 5)) == "charged 5 and tax"
        assert await env.result(await env.start("billing", 5, version=1)) == "charged 5"
        run_id = await env.start(page.invoice, 5)
        await env.signal(run_id, "delivered")
        assert await env.result(run_id) == "charged 5 and tax"
        run_id = await env.start(page.meter, 0)
        for reading in (4, 6, 1, None):
            await env.signal(run_id, "reading", reading)
        assert await env.result(run_id) == 11
        run = await env.status(run_id)
        assert (run.generation, run.custom_status) == (1, {"total": 11})


async def test_the_workflows_of_the_talking_page_do_what_it_says(pages: Any) -> None:
    page = pages("talking")
    async with WorkflowEnvironment([page.account, page.closes]) as env:
        run_id = await env.start(page.account, 100)
        assert await env.update(run_id, "withdraw", 30, update_id="order-17") == 70
        with pytest.raises(UpdateRejectedError, match="only 70 left"):
            await env.update(run_id, "withdraw", 80)
        assert await env.query(run_id, "balance") == 70
        await env.start(page.closes, run_id)
        assert await env.result(run_id) == 70
        assert (await env.status(run_id)).custom_status == {"balance": 70}


async def test_the_tests_of_the_testing_page_pass_as_they_stand(pages: Any, tmp_path: Path) -> None:
    page = pages("testing")
    async with WorkflowEnvironment([page.remind], activities={page.send: lambda text: text}) as env:
        run_id = await env.start(page.remind, "Ada")
        await env.advance("3d")
        state = await env.store.load(run_id)
        assert state is not None
    (tmp_path / "histories").mkdir()
    (tmp_path / "histories/ada.json").write_text(json.dumps(exported(state)))
    (tmp_path / "page_testing.py").rename(tmp_path / "test_example.py")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--asyncio-mode=auto"]
    ended = subprocess.run(  # noqa: ASYNC221  # nothing else runs in this loop
        [*command, "test_example.py"],
        check=False,
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout
    assert "6 passed" in ended.stdout


async def test_the_thirty_days_of_the_testing_page_take_less_than_a_second(
    pages: Any, workflow_environment: type[WorkflowEnvironment]
) -> None:
    page = pages("testing")
    began, worked = time.monotonic(), time.process_time()
    await page.test_thirty_days_without_money(workflow_environment)
    took, worked = time.monotonic() - began, time.process_time() - worked
    print(f"\n30 days took {took:.2f} s, {worked:.2f} s of them at work")
    assert worked < 1  # on a machine with nothing else to do that is all of it


async def test_the_runs_of_the_encryption_page_can_be_read_with_its_keys_alone(pages: Any, tmp_path: Path) -> None:
    page = pages("encryption")
    [script] = blocks(ROOT / "docs/encryption.md", "sh")
    made = [
        subprocess.run(  # noqa: ASYNC221  # nothing else runs in this loop
            ["sh", "-eu", "-c", script.replace("python ", f"{sys.executable} ")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    url = f"sqlite:///{tmp_path}/runs.db"
    app = page.open_app(url, made[:1])
    run_id = await app.client.start_workflow(page.refund, "DE02120300000000202051")
    await app.advance(run_id)
    assert await app.client.get_result(run_id) == "20 paid to DE02120300000000202051"
    await app.close()
    assert b"DE0212" not in _bytes_below(tmp_path)
    app = page.open_app(url, [made[1], made[0]])
    assert await app.client.get_result(run_id) == "20 paid to DE02120300000000202051"
    await app.close()
    app = page.open_app(url, made[1:])
    with pytest.raises(SerializationError, match="sealed with key"):
        await app.client.get_result(run_id)
    await app.close()

    compressed = Codec(page.Compressed(page.EncryptionCodec(made)))
    assert compressed.decode(compressed.encode(["long " * 1000])) == ["long " * 1000]
    assert len(compressed.encode(["long " * 1000])) < 1000


def _bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("runs.db*"))


# --- commands ----------------------------------------------------------------------------------------


def shell(script: str, port: int) -> list[Any]:
    """Run a page's commands against the server at that port; the JSON that they print."""
    ended = subprocess.run(
        ["sh", "-eu", "-c", script.replace(":8080", f":{port}")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    decoder, rest, found = json.JSONDecoder(), ended.stdout.strip(), []
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].lstrip()
    return found


@pytest.fixture(scope="module")
def curl() -> None:
    for command in ("curl", "openssl"):
        if shutil.which(command) is None:
            do_without(FileNotFoundError(f"there is no {command} on the PATH"))


@pytest.mark.usefixtures("curl")
def test_the_curl_commands_of_the_readme_bring_a_release_to_its_end(tmp_path: Path) -> None:
    [script] = blocks(README, "sh")
    environ = {"TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db", "TRAIN_STEP_SECONDS": "0.1"}
    with server("app", environ) as app:
        app.wait_until_up()
        started, asked, decided, run, history = shell(script, app.port)
    assert started == {"run_id": "train-1", "status": "paused", "links": started["links"]}
    assert [one["key"] for one in asked["approvals"]] == ["publish"]
    assert decided["approved"] is True
    assert (run["status"], run["output"]["by"]) == ("completed", "ada")
    assert history["events"][-1]["type"] == "RunCompleted"


@pytest.mark.usefixtures("curl")
def test_the_signed_curl_command_of_the_webhooks_page_starts_a_run(tmp_path: Path) -> None:
    [script] = blocks(ROOT / "docs/webhooks.md", "sh")
    environ = {"TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db", "GITHUB_WEBHOOK_SECRET": "secret"}
    with server("app", environ) as app:
        app.wait_until_up()
        [answer] = shell(script, app.port)
    assert answer["status"] == "accepted"


# --- tables and references ---------------------------------------------------------------------------


def test_the_readme_lists_every_environment_variable_that_is_read() -> None:
    code = "".join(
        path.read_text() for path in [*ROOT.glob("tinyworkflow_core/**/*.py"), *ROOT.glob("functions/workflows/*.py")]
    )
    read = set(re.findall(r'"((?:TINYWORKFLOW|TRAIN|GITHUB|FIRESTORE|SLACK)_[A-Z_]+)"', code))
    section = README.read_text().partition("## Environment variables")[2].partition("\n## ")[0]
    by_google = {"FIRESTORE_EMULATOR_HOST"}
    assert read | by_google == set(re.findall(r"`([A-Z]+_[A-Z_]+)`", section))


def test_the_http_page_lists_every_route_and_every_kind_of_problem() -> None:
    page = (ROOT / "docs/http.md").read_text()
    routes: list[Any] = list(create_app(App("sqlite:///:memory:")).routes)
    api = [one for one in routes if not one.path.startswith("/ui")]  # pages, and not part of the API
    there = {(method, route.path.replace(":path}", "}")) for route in api for method in route.methods - {"HEAD"}}
    assert set(re.findall(r"\| (GET|POST|DELETE|PATCH) (/\S+) \|", page)) == there
    code = "".join(path.read_text() for path in ROOT.glob("tinyworkflow_core/http/**/*.py"))
    kinds = {"query-failed", "update-failed"}  # talking.py makes these of two words
    kinds |= set(re.findall(r'HttpProblem\((?:[^()]|\([^()]*\))*?kind="([a-z-]+)"', code))
    kinds |= set(re.findall(r'\(\d{3}, "([a-z-]+)"\)', code))
    section = page.partition("## Problems")[2].partition("\n## ")[0]
    listed = {
        kind for line in section.splitlines() if re.match(r"\| \d", line) for kind in re.findall(r"`([a-z-]+)`", line)
    }
    assert listed == kinds


def test_the_operations_page_lists_every_command() -> None:
    page = (ROOT / "docs/operations.md").read_text().partition("## Looking at runs")[2]
    commands = {one.name or getattr(one.callback, "__name__", "") for one in cli.registered_commands}
    listed = {
        word for line in page.splitlines() if line.startswith("| `") for word in re.findall(r"[`(]([a-z]+)", line)
    }
    assert commands <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_link_and_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if not path.startswith("http"):
            linked = (page.parent / path) if path else page
            assert linked.exists(), target
            assert not anchor or anchor in _anchors(linked), target
    for path in re.findall(r"`((?:tests|functions|tinyworkflow_core|docs)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
