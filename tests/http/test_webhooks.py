"""Webhooks: a real GitHub payload that is signed right starts one run; everything else starts none."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http.front import assert_problem, calling, ended
from tinyworkflow_core import App, Start, WebhookEvent, github_signature, webhook
from tinyworkflow_core.errors import DefinitionError, DuplicateDefinitionError
from tinyworkflow_core.http.webhooks import Webhooks

DATA = Path(__file__).parent.parent / "data" / "github"
RELEASE = (DATA / "release.published.json").read_bytes()
SECRET = "It's a Secret to Everybody"
VERIFY = github_signature(secret_env="HOOK_SECRET")


@webhook("github", verify=VERIFY)
def github(event: WebhookEvent) -> Start | None:
    if event.type != "release":
        return None
    return Start("echo", {"tag": event.body["release"]["tag_name"], "id": event.id}, attributes={"event": event.type})


@webhook("later", verify=VERIFY)
async def later(event: WebhookEvent) -> Start | None:
    return Start("order", {"amount": "many"})


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.fixture
async def sender(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody far away, to whom nothing but the hooks is open."""
    async with calling(app, webhooks=[github, later], peer="203.0.113.9", base_url="https://flows.example") as sender:
        yield sender


def signed(body: bytes, *, secret: str = SECRET, event: str = "release", delivery: str = "d-1") -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }


async def all_runs(app: App) -> list[Any]:
    async with calling(app) as caller:
        runs: list[Any] = (await caller.get("/v1/runs")).json()["runs"]
        return runs


def test_the_signature_is_that_of_githubs_own_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {
        "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "content-type": "application/json",
        "x-github-event": "ping",
        "x-github-delivery": "1",
    }
    with pytest.raises(Exception, match="not JSON"):  # the signature is right, "Hello, World!" is not JSON
        VERIFY(headers, b"Hello, World!")


async def test_a_real_release_that_is_signed_right_starts_a_run(app: App, sender: httpx.AsyncClient) -> None:
    answer = await sender.post("/hooks/github", content=RELEASE, headers=signed(RELEASE))
    assert answer.status_code == 202, answer.text
    async with calling(app) as caller:
        view = await ended(caller, answer.json()["run_id"])
    assert (view["output"], view["attributes"]) == ({"tag": "0.0.1", "id": "d-1"}, {"event": "release"})


async def test_the_same_delivery_twice_is_one_run_and_another_is_another(app: App, sender: httpx.AsyncClient) -> None:
    answers = [
        await sender.post("/hooks/github", content=RELEASE, headers=signed(RELEASE, delivery=delivery))
        for delivery in ("d-1", "d-1", "d-2")
    ]
    first, again, other = (answer.json()["run_id"] for answer in answers)
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert first == again != other
    assert len(await all_runs(app)) == 2


@pytest.mark.parametrize("file", ["issues.opened.json", "ping.json"])
async def test_an_event_of_no_interest_is_ignored(app: App, sender: httpx.AsyncClient, file: str) -> None:
    body = (DATA / file).read_bytes()
    answer = await sender.post("/hooks/github", content=body, headers=signed(body, event=file.partition(".")[0]))
    assert (answer.status_code, answer.json()) == (202, {"status": "ignored"})
    assert await all_runs(app) == []


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        "sha256=\xff\xfe",
        signed(RELEASE, secret="another")["X-Hub-Signature-256"],
        signed(RELEASE + b" ")["X-Hub-Signature-256"],
        signed(RELEASE)["X-Hub-Signature-256"].removeprefix("sha256="),
        signed(RELEASE)["X-Hub-Signature-256"].upper(),
        "sha1=" + hmac.new(SECRET.encode(), RELEASE, hashlib.sha1).hexdigest(),
    ],
)
async def test_a_wrong_or_missing_signature_is_401_and_nothing_is_stored(
    app: App, sender: httpx.AsyncClient, signature: str | None
) -> None:
    headers: Any = {name: value.encode("latin-1") for name, value in signed(RELEASE).items()}
    del headers["X-Hub-Signature-256"]
    if signature is not None:
        headers["X-Hub-Signature-256"] = signature.encode("latin-1")
    assert_problem(await sender.post("/hooks/github", content=RELEASE, headers=headers), 401, "X-Hub-Signature-256")
    assert await all_runs(app) == []


@pytest.mark.parametrize("position", [0, len(RELEASE) // 2, len(RELEASE) - 1])
async def test_a_body_with_one_altered_byte_is_401(app: App, sender: httpx.AsyncClient, position: int) -> None:
    altered = bytearray(RELEASE)
    altered[position] ^= 1
    answer = await sender.post("/hooks/github", content=bytes(altered), headers=signed(RELEASE))
    assert_problem(answer, 401)
    assert await all_runs(app) == []


@pytest.mark.parametrize("secret", [None, "", "  \n"])
async def test_without_a_secret_everything_is_refused(
    app: App, sender: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    monkeypatch.delenv("HOOK_SECRET")
    if secret is not None:
        monkeypatch.setenv("HOOK_SECRET", secret)
    headers = signed(RELEASE, secret=secret or "")
    assert_problem(await sender.post("/hooks/github", content=RELEASE, headers=headers), 503, "HOOK_SECRET")
    assert await all_runs(app) == []


async def test_a_secret_is_read_at_every_request(sender: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "rotated")
    assert_problem(await sender.post("/hooks/github", content=RELEASE, headers=signed(RELEASE)), 401)
    rotated = signed(RELEASE, secret="rotated")
    assert (await sender.post("/hooks/github", content=RELEASE, headers=rotated)).status_code == 202


async def test_a_signed_body_that_is_no_json_is_400(app: App, sender: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"[" * 10_000):
        assert_problem(await sender.post("/hooks/github", content=body, headers=signed(body)), 400)


@pytest.mark.parametrize("missing", ["X-GitHub-Event", "X-GitHub-Delivery"])
async def test_a_signed_call_without_type_or_id_is_400(sender: httpx.AsyncClient, missing: str) -> None:
    headers = signed(RELEASE)
    del headers[missing]
    assert_problem(await sender.post("/hooks/github", content=RELEASE, headers=headers), 400, missing)


async def test_githubs_form_encoding_is_415_that_says_what_to_choose(sender: httpx.AsyncClient) -> None:
    body = b"payload=%7B%7D"
    headers = signed(body) | {"Content-Type": "application/x-www-form-urlencoded"}
    assert_problem(await sender.post("/hooks/github", content=body, headers=headers), 415, "application/json")


async def test_a_body_over_the_limit_is_413_before_its_signature_is_looked_at(sender: httpx.AsyncClient) -> None:
    body = json.dumps("x" * 1_100_000).encode()
    assert_problem(await sender.post("/hooks/github", content=body, headers=signed(body)), 413)


async def test_a_hook_that_is_not_declared_is_404(sender: httpx.AsyncClient) -> None:
    assert_problem(await sender.post("/hooks/gitlab", content=RELEASE, headers=signed(RELEASE)), 404, "gitlab")


async def test_an_input_that_the_workflow_does_not_take_is_422(app: App, sender: httpx.AsyncClient) -> None:
    assert_problem(await sender.post("/hooks/later", content=RELEASE, headers=signed(RELEASE)), 422, "item")
    assert await all_runs(app) == []


# --- declaring ---------------------------------------------------------------------------------------


def test_all_that_is_declared_is_found_by_its_name() -> None:
    found = Webhooks().find("later")
    assert found is not None
    assert found.handle is later.handle


def test_two_functions_of_one_name_are_refused() -> None:
    @webhook("later", verify=VERIFY)
    def other(event: WebhookEvent) -> Start | None:
        return None

    with pytest.raises(DuplicateDefinitionError, match="later"):
        Webhooks([later, other])


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ä", "a?"])
def test_a_name_that_does_not_fit_into_a_path_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError):
        webhook(name, verify=VERIFY)
