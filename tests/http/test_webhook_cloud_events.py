"""CloudEvents: what the SDK makes is taken, in both modes, from a sender that somebody knows; a batch is refused."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from standardwebhooks.webhooks import Webhook as StandardLibrary

from tests.http.front import WORKFLOWS, assert_problem, calling, echo
from tinyworkflow_core import (
    App,
    Start,
    WebhookEvent,
    cloud_events,
    hmac_signature,
    on_cloud_event,
    platform_only,
    standard_webhooks,
    webhook,
)
from tinyworkflow_core.errors import DefinitionError, RunNotFoundError
from tinyworkflow_core.http.problems import HttpProblem
from tinyworkflow_core.http.webhooks import Webhook
from tinyworkflow_core.testing import VirtualClock

CLOCK = VirtualClock()
MARKER = "marker-77ab"
KEY = base64.b64encode(b"the secret of 24 bytes..").decode()
SIGNED = standard_webhooks(secret_env="EVENTS_SECRET", clock=CLOCK)


def told(event: WebhookEvent) -> Start:
    return Start(echo, {"type": event.type, "id": event.id, "data": event.body, "about": dict(event.attributes)})


async def by_token(headers: Any, body: bytes) -> None:
    if headers.get("authorization") != "Bearer right":
        raise HttpProblem(401, "who are you?")


signed = webhook("signed", verify=cloud_events(verify=SIGNED))(told)
tokened = webhook("tokened", verify=cloud_events(verify=by_token))(told)
internal = webhook("internal", verify=platform_only)(told)
heard = webhook("heard", verify=platform_only, signals=("word", lambda event: event.body["run"]))
HOOKS: list[Webhook] = [signed, tokened, internal, heard]
TOKEN = {"Authorization": "Bearer right"}
ATTRIBUTES = {"type": "example.made", "source": "/shop", "id": "1", "subject": "lamp", "time": "2026-01-01T00:00:00Z"}


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_SECRET", KEY)


@pytest.fixture
async def sender(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app, webhooks=HOOKS, peer="203.0.113.9", base_url="https://flows.example") as sender:
        yield sender


def with_signature(headers: dict[str, str], body: bytes, *, late: float = 0) -> dict[str, str]:
    at = CLOCK.now() - timedelta(seconds=late)
    return headers | {
        "webhook-id": "m-1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": StandardLibrary(KEY).sign("m-1", at, body.decode()),
    }


def made(data: Any = None, **attributes: Any) -> CloudEvent:
    return CloudEvent({**ATTRIBUTES, **attributes}, data)


async def count(app: App) -> int:
    return len(await app.client.list_workflow_executions())


@pytest.mark.parametrize("write", [to_binary, to_structured])
async def test_an_event_that_the_sdk_makes_starts_one_run_and_altered_stale_or_replayed_none(
    app: App, sender: httpx.AsyncClient, write: Any
) -> None:
    headers, body = write(made({"item": "lamp"}, datacontenttype="application/json"))
    answers = [
        await sender.post("/hooks/signed", content=body, headers=with_signature(headers, body)) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202], answers[0].text
    output = await app.client.get_result(answers[0].json()["run_id"], timeout=5)
    assert output["data"] == {"item": "lamp"}
    assert (output["type"], output["id"]) == ("example.made", "/shop#1")
    assert output["about"]["subject"] == "lamp"
    assert answers[1].json()["run_id"] == answers[0].json()["run_id"]

    altered = bytes(body).replace(b"lamp", b"rug ")
    for wrong, content in (
        (with_signature(headers, body), altered),
        (with_signature(headers, body, late=301), body),
        (headers, body),
    ):
        assert_problem(await sender.post("/hooks/signed", content=content, headers=wrong), 401)
    assert await count(app) == 1


async def test_an_id_counts_within_its_source(app: App, sender: httpx.AsyncClient) -> None:
    for source in ("/shop", "/depot", "/shop"):
        headers, body = to_structured(made({}, source=source))
        assert (await sender.post("/hooks/tokened", content=body, headers={**headers, **TOKEN})).status_code == 202
    assert await count(app) == 2


async def test_who_sends_is_asked_before_the_event_is_read(app: App, sender: httpx.AsyncClient) -> None:
    for body in (b"{", b"{}"):
        assert_problem(await sender.post("/hooks/tokened", content=body), 401, "who are you")
    with pytest.raises(DefinitionError, match="who may send"):
        cloud_events(verify=None)  # type: ignore[arg-type]  # whatever people write


@pytest.mark.parametrize("kind", ["text", "bytes", "nothing"])
async def test_data_that_is_no_json_comes_as_it_is(app: App, sender: httpx.AsyncClient, kind: str) -> None:
    content_type, data, expected = {
        "text": ("text/plain", "grüße", "grüße"),
        "bytes": ("image/png", b"\x89PNG\xff", b"\x89PNG\xff"),
        "nothing": ("application/json", None, None),
    }[kind]
    content: Any = data.encode() if isinstance(data, str) else data or b""
    headers = {f"ce-{name}": str(value) for name, value in ATTRIBUTES.items()} | {"ce-specversion": "1.0", **TOKEN}
    answer = await sender.post("/hooks/tokened", content=content, headers={**headers, "content-type": content_type})
    assert answer.status_code == 202, answer.text
    output = await app.client.get_result(answer.json()["run_id"], timeout=5)
    assert output["data"] == expected


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/cloudevents-batch+json", b"[]", 415),
        ("application/cloudevents+avro", b"x", 415),
        ("application/cloudevents+json", b"{", 400),
        ("application/cloudevents+json", b"[]", 400),
        ("application/cloudevents+json", b"[" * 10_000, 400),
        ("application/cloudevents+json", b'{"specversion": "9", "type": "t", "source": "s", "id": "1"}', 400),
        ("application/cloudevents+json", b'{"specversion": [], "type": "t", "source": "s", "id": "1"}', 400),
        ("application/cloudevents+json", b'{"specversion": "1.0", "type": "t", "source": "s"}', 400),
        ("application/cloudevents+json", b'{"specversion": "1.0", "type": "t", "source": "s", "id": ""}', 400),
        ("application/cloudevents+json", b'{"specversion": "1.0", "type": 5, "source": "s", "id": "1"}', 400),
        (
            "application/cloudevents+json",
            b'{"specversion": "1.0", "type": "t", "source": "s", "id": "1", "data_base64": 1}',
            400,
        ),
        ("application/json", b"{}", 400),
    ],
)
async def test_what_is_no_single_cloud_event_is_refused_and_nothing_of_it_is_repeated(
    app: App,
    sender: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    content_type: str,
    body: bytes,
    status: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    body = body.replace(b'"t"', f'"{MARKER}"'.encode())
    answer = await sender.post("/hooks/tokened", content=body, headers={"content-type": content_type, **TOKEN})
    assert_problem(answer, status)
    assert MARKER not in answer.text + caplog.text
    assert await count(app) == 0


async def test_headers_of_binary_mode_do_not_change_a_structured_event(app: App, sender: httpx.AsyncClient) -> None:
    headers, body = to_structured(made({"item": "lamp"}))
    ce = {"ce-id": "2", "ce-type": "other", "ce-source": "/other", "ce-specversion": "9"}
    answer = await sender.post("/hooks/tokened", content=body, headers={**headers, **ce, **TOKEN})
    output = await app.client.get_result(answer.json()["run_id"], timeout=5)
    assert (output["type"], output["id"]) == ("example.made", "/shop#1")


async def test_a_signature_counts_however_its_scheme_would_read_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = cloud_events(verify=hmac_signature(secret_env="EVENTS_SECRET", header="X-Sig", id_header="X-Id"))
    import hmac

    body = "grüße".encode()
    headers = {f"ce-{name}": str(value) for name, value in ATTRIBUTES.items()} | {"ce-specversion": "1.0"}
    headers |= {"content-type": "text/plain", "x-sig": hmac.new(KEY.encode(), body, "sha256").hexdigest()}
    assert (await verify(headers, body)).body == "grüße"
    with pytest.raises(HttpProblem, match="X-Sig"):
        await verify(headers, body + b"!")


# --- delivered by the platform -----------------------------------------------------------------------


def published(data: bytes, **message: Any) -> CloudEvent:
    message |= {"data": base64.b64encode(data).decode(), "messageId": "m-1"}
    about = {
        "type": "google.cloud.pubsub.topic.v1.messagePublished",
        "source": "//pubsub.googleapis.com/projects/p/topics/orders",
        "id": "m-1",
    }
    return CloudEvent(about, {"message": message, "subscription": "projects/p/subscriptions/s"})


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b'{"item": "lamp"}', {"item": "lamp"}), (b"hello", "hello"), (b"\xff\x00", b"\xff\x00"), (b"", None)],
)
async def test_the_payload_of_a_pubsub_message_is_unpacked_and_its_attributes_are_kept(
    app: App, data: bytes, expected: Any
) -> None:
    for _ in range(2):  # Pub/Sub delivers at least once
        await on_cloud_event(app, "internal", published(data, attributes={"origin": "till"}), webhooks=HOOKS)
    (run,) = await app.client.list_workflow_executions()
    output = await app.client.get_result(run.run_id, timeout=5)
    assert output["data"] == expected
    assert output["about"]["message"] == {"attributes": {"origin": "till"}, "messageId": "m-1"}


async def test_a_pubsub_message_that_is_none_is_refused(app: App) -> None:
    for data in (None, {}, {"message": 5}, {"message": {"data": "%%%"}}, {"message": {"data": 5}}):
        event = published(b"x")
        event.data = data
        with pytest.raises(HttpProblem, match="no CloudEvent"):
            await on_cloud_event(app, "internal", event, webhooks=HOOKS)


async def test_a_webhook_for_the_platform_alone_takes_nothing_over_http(app: App, sender: httpx.AsyncClient) -> None:
    headers, body = to_structured(made({}))
    assert_problem(await sender.post("/hooks/internal", content=body, headers={**headers, **TOKEN}), 403)


async def test_an_event_that_was_not_taken_raises_so_that_it_is_delivered_again(app: App) -> None:
    with pytest.raises(DefinitionError, match="'nobody' is declared"):
        await on_cloud_event(app, "nobody", made({}), webhooks=HOOKS)
    with pytest.raises(RunNotFoundError):
        await on_cloud_event(app, "heard", made({"run": "not-there"}), webhooks=HOOKS)
    with pytest.raises(HttpProblem, match="something went wrong"):
        await on_cloud_event(app, "heard", made({}), webhooks=HOOKS)
    assert await count(app) == 0
    assert echo in WORKFLOWS
