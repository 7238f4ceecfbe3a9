"""Webhooks: a real GitHub payload that is signed right starts or signals one run; everything else starts none, and
nothing of it gets into a log."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import workflows
from tests.http.front import assert_problem, calling, echo, ended
from tinyworkflow_core import App, Signal, Start, WebhookEvent, github_signature, webhook
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


@webhook("named", verify=VERIFY, starts="echo")
async def named(event: WebhookEvent) -> Any:
    if event.type == "ping":
        return None
    return Start(echo, "by itself") if event.type == "push" else event.body["action"]


@webhook("heard", verify=VERIFY, signals="word")
def heard(event: WebhookEvent) -> Any:
    return event.body["run"]


@webhook("told", verify=VERIFY)
def told(event: WebhookEvent) -> Signal:
    return Signal(event.body["run"], "word", event.type)


whole = webhook("whole", verify=VERIFY, starts=echo)
picked = webhook("picked", verify=VERIFY, signals=("word", lambda event: event.body["run"]))
MARKER = "marker-9f3c"


@webhook("careless", verify=VERIFY)
def careless(event: WebhookEvent) -> Start | None:
    if event.type == "unreadable":
        raise ValueError(f"cannot read {event.body}")
    return event.body  # type: ignore[no-any-return]  # it is no Start: that is what is tried


def broken_verifier(headers: Any, body: bytes) -> WebhookEvent:
    raise ValueError(f"cannot read {body!r}")


clumsy = webhook("clumsy", verify=broken_verifier, starts=echo)
HOOKS = [github, later, named, heard, told, whole, picked, careless, clumsy]


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.fixture
async def sender(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody far away, to whom nothing but the hooks is open."""
    async with calling(app, webhooks=HOOKS, peer="203.0.113.9", base_url="https://flows.example") as sender:
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


async def test_a_hook_takes_posts_and_nothing_else(sender: httpx.AsyncClient) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = await sender.request(method, "/hooks/github", headers=signed(b""))
        assert_problem(answer, 405)
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("file", sorted(path.name for path in DATA.glob("*.json")))
async def test_every_payload_of_github_is_taken_by_the_examples_webhook(
    monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET)
    event = file.partition(".")[0]
    body = (DATA / file).read_bytes()
    app = App("sqlite:///:memory:", workflows=[workflows.release_train], dispatcher="none")
    async with calling(app, webhooks=[workflows.github]) as sender:
        answer = await sender.post("/hooks/github", content=body, headers=signed(body, event=event))
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted" if event == "release" else "ignored")
        assert len((await sender.get("/v1/runs")).json()["runs"]) == (event == "release")
    await app.close()


# --- rotation ----------------------------------------------------------------------------------------


async def test_any_of_several_secrets_fits_and_an_empty_one_never_does(
    app: App, sender: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", " new , ,old,\n")
    for secret in ("new", "old"):
        headers = signed(RELEASE, secret=secret, delivery=secret)
        assert (await sender.post("/hooks/github", content=RELEASE, headers=headers)).status_code == 202
    assert len(await all_runs(app)) == 2
    for secret in ("", " ", "new ", " new , ,old,\n", "new,old"):
        headers = signed(RELEASE, secret=secret)
        assert_problem(await sender.post("/hooks/github", content=RELEASE, headers=headers), 401)


def test_a_secret_in_place_of_its_variables_name_is_refused_without_repeating_it() -> None:
    with pytest.raises(DefinitionError, match="NAME of an environment variable") as refused:
        github_signature(secret_env=SECRET)
    assert SECRET not in str(refused.value)


# --- what an event starts or signals -----------------------------------------------------------------


async def test_a_workflow_that_is_named_gets_the_body_or_what_the_function_makes_of_it(
    app: App, sender: httpx.AsyncClient
) -> None:
    body = json.dumps({"action": "go"}).encode()
    outputs = []
    for hook, event in (("whole", "any"), ("named", "any"), ("named", "push")):
        answer = await sender.post(f"/hooks/{hook}", content=body, headers=signed(body, event=event, delivery=event))
        assert answer.status_code == 202, answer.text
        async with calling(app) as caller:
            outputs.append((await ended(caller, answer.json()["run_id"]))["output"])
    assert outputs == [{"action": "go"}, "go", "by itself"]
    ignored = await sender.post("/hooks/named", content=body, headers=signed(body, event="ping"))
    assert ignored.json() == {"status": "ignored"}


async def test_a_body_of_null_is_an_input_and_no_reason_to_ignore_the_event(sender: httpx.AsyncClient) -> None:
    answer = await sender.post("/hooks/whole", content=b"null", headers=signed(b"null"))
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")


async def test_one_delivery_at_two_webhooks_is_two_events(app: App, sender: httpx.AsyncClient) -> None:
    for hook in ("whole", "named", "whole"):
        await sender.post(f"/hooks/{hook}", content=RELEASE, headers=signed(RELEASE))
    assert len(await all_runs(app)) == 2


async def test_a_delivery_that_now_asks_for_something_else_names_its_run_and_starts_nothing(
    app: App, sender: httpx.AsyncClient
) -> None:
    first, again = b'{"a": 1}', b'{"a": 2}'
    answers = [await sender.post("/hooks/whole", content=body, headers=signed(body)) for body in (first, again)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["run_id"] == answers[1].json()["run_id"]
    assert len(await all_runs(app)) == 1


@pytest.mark.parametrize("hook", ["heard", "picked", "told"])
async def test_a_signal_reaches_the_run_that_the_event_names_once_a_delivery(
    app: App, sender: httpx.AsyncClient, hook: str
) -> None:
    run_id = await app.client.start_workflow("listener")
    body = json.dumps({"run": run_id}).encode()
    for delivery in ("d-1", "d-1", "d-2"):
        answer = await sender.post(f"/hooks/{hook}", content=body, headers=signed(body, delivery=delivery))
        assert (answer.status_code, answer.json()["status"], answer.json()["run_id"]) == (202, "accepted", run_id)
    payload = "release" if hook == "told" else {"run": run_id}
    assert await app.client.get_result(run_id, timeout=5) == [payload, payload]
    events = await app.client.get_workflow_events(run_id)
    assert len([one for one in events if one["type"] == "SignalReceived"]) == 2

    late = await sender.post(f"/hooks/{hook}", content=body, headers=signed(body, delivery="d-3"))
    assert (late.status_code, late.json()["status"], late.json()["run_id"]) == (202, "ignored", run_id)


@pytest.mark.parametrize("run_id", ["nobody", "", "a\u0000b", "\ud800", "x" * 501])
async def test_a_signal_for_a_run_that_is_not_there_is_404_so_that_it_is_sent_again(
    app: App, sender: httpx.AsyncClient, run_id: str
) -> None:
    body = json.dumps({"run": run_id}).encode()
    assert_problem(await sender.post("/hooks/heard", content=body, headers=signed(body)), 404)


async def test_an_id_that_no_key_can_hold_still_makes_one_run(app: App, sender: httpx.AsyncClient) -> None:
    headers: Any = {name: value.encode() for name, value in signed(RELEASE).items()}
    headers["X-GitHub-Delivery"] = "\x80\x81".encode("latin-1")
    answers = [await sender.post("/hooks/github", content=RELEASE, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len(await all_runs(app)) == 1


# --- what is kept out of logs ------------------------------------------------------------------------


async def test_no_body_and_no_secret_gets_into_a_log_or_an_answer(
    app: App, sender: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = f"secret-{MARKER}"
    monkeypatch.setenv("HOOK_SECRET", secret)
    good, bad = json.dumps({"run": "nobody", "text": MARKER}).encode(), f"{{{MARKER}".encode()
    asked = [
        ("github", good, signed(good), 401),
        ("github", bad, signed(bad, secret=secret), 400),
        ("whole", good, signed(good, secret=secret), 202),
        ("heard", good, signed(good, secret=secret), 404),
        ("careless", good, signed(good, secret=secret), 500),
        ("careless", good, signed(good, secret=secret, event="unreadable"), 500),
        ("clumsy", good, {}, 500),
    ]
    for hook, body, headers, status in asked:
        answer = await sender.post(f"/hooks/{hook}", content=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert MARKER not in answer.text
    assert "careless" in caplog.text  # what failed is told
    assert "broken_verifier" in caplog.text
    assert "ValueError" in caplog.text
    assert MARKER not in caplog.text
    event = WebhookEvent(type="t", id="1", headers={"x": MARKER}, body=MARKER)
    assert MARKER not in repr(event)


# --- declaring ---------------------------------------------------------------------------------------


def test_all_that_is_declared_is_found_by_its_name() -> None:
    found = Webhooks().find("later")
    assert found is not None
    assert found.handle is later.handle
    assert Webhooks().find("whole") is whole
    assert Webhooks().find("named") is named  # and not what it was before it took its function


def test_two_functions_of_one_name_are_refused() -> None:
    @webhook("later", verify=VERIFY)
    def other(event: WebhookEvent) -> Start | None:
        return None

    with pytest.raises(DuplicateDefinitionError, match="later"):
        Webhooks([later, other])


def test_two_declarations_of_one_name_without_a_function_are_refused() -> None:
    one = webhook("twins", verify=VERIFY, starts=echo)
    other = webhook("twins", verify=VERIFY, starts=echo)
    with pytest.raises(DuplicateDefinitionError, match="twins"):
        Webhooks([one, other])


def test_a_declared_webhook_is_still_its_function() -> None:
    event = WebhookEvent(type="ping", id="1", headers={}, body={"run": "r"})
    assert heard(event) == "r"
    assert whole(event) == Start(echo, {"run": "r"})


def test_what_contradicts_itself_is_refused() -> None:
    broken: Any = webhook
    with pytest.raises(DefinitionError, match="starts= or signals="):
        broken("both", verify=VERIFY, starts=echo, signals="word")
    with pytest.raises(DefinitionError, match="who may call"):
        broken("open", verify=None)
    with pytest.raises(DefinitionError, match="goes on a function"):
        broken("closed", verify=VERIFY)(5)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ä", "a?"])
def test_a_name_that_does_not_fit_into_a_path_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError):
        webhook(name, verify=VERIFY)
