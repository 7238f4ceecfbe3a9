"""Events by way of the platform: a functions-framework target of the signature `cloudevent` hands them to a webhook,
and identity tokens say who sends them over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent

from tests.functions.server import server, until
from tests.http.front import assert_problem, calling, echo
from tests.http.tokens import AUDIENCE, INVOKER, Issuer, issuer
from tinyworkflow_core import App, TinyWorkflowClient, cloud_events, google_identity, webhook

MAIN = """
import functions_framework.aio
from cloudevents.http import CloudEvent

from tinyworkflow_core import App, WorkflowContext, on_cloud_event, platform_only, webhook, workflow


@workflow
async def fulfil(ctx: WorkflowContext, order: dict[str, str]) -> str:
    return f"{order['item']} is on its way"


orders = webhook("orders", verify=platform_only, starts=fulfil)
app = App.from_env()


@functions_framework.aio.cloud_event
async def events(event: CloudEvent) -> None:
    await on_cloud_event(app, "orders", event)
"""
MARKER = "marker-d00d"


def published(data: bytes, identity: str) -> CloudEvent:
    about = {
        "type": "google.cloud.pubsub.topic.v1.messagePublished",
        "source": "//pubsub.googleapis.com/projects/p/topics/orders",
        "id": identity,
    }
    message = {"data": base64.b64encode(data).decode(), "messageId": identity, "publishTime": "2026-01-01T00:00:00Z"}
    return CloudEvent(about, {"message": message, "subscription": "projects/p/subscriptions/s"})


async def test_a_deployed_function_starts_one_run_for_each_event_that_the_platform_delivers(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    url = f"sqlite:///{tmp_path}/runs.db"
    with server("events", {"TINYWORKFLOW_DATABASE_URL": url}, source=f"{tmp_path}/main.py") as events:

        def post(event: CloudEvent, write: Any) -> int:
            headers, body = write(event)
            return httpx.post(events.url, content=body, headers=headers, timeout=10).status_code

        def is_up() -> bool:
            try:
                return httpx.get(events.url, timeout=5).status_code == 405
            except httpx.TransportError:
                return False

        until(is_up, 30, events.printed)
        order = json.dumps({"item": "lamp"}).encode()
        for write in (to_binary, to_structured, to_binary):  # Eventarc delivers at least once
            assert post(published(order, "m-1"), write) == 200, events.printed()
        # What cannot be taken is refused, so that it is delivered again or ends up among the dead letters.
        assert post(published(json.dumps([MARKER]).encode(), "m-2"), to_binary) == 500
        assert MARKER not in events.printed()
        async with TinyWorkflowClient(url) as client:
            (run,) = await client.list_workflow_executions()
            assert await client.get_result(run.run_id, timeout=10) == "lamp is on its way"


# --- identity tokens ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def google() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


async def test_a_cloud_event_is_taken_from_the_service_account_that_its_token_names_and_from_nobody_else(
    app: App, google: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTS_AUDIENCE", AUDIENCE)
    monkeypatch.setenv("EVENTS_SENDERS", f"other@example.com, {INVOKER}")
    monkeypatch.setenv("NO_PROXY", "*")
    verify = google_identity(audience_env="EVENTS_AUDIENCE", senders_env="EVENTS_SENDERS", certificates_url=google.url)
    hook = webhook("pushed", verify=cloud_events(verify=verify), starts=echo)
    headers, body = to_binary(published(b'"hello"', "m-1"))
    async with calling(app, webhooks=[hook], peer="203.0.113.9", base_url="https://flows.example") as sender:

        async def push(token: str | None) -> httpx.Response:
            proof = {} if token is None else {"Authorization": f"Bearer {token}"}
            return await sender.post("/hooks/pushed", content=body, headers=headers | proof)

        for refused in (None, "x", google.token(aud="https://elsewhere.example"), google.token(key="key-2")):
            assert_problem(await push(refused), 401)
        assert_problem(await push(google.token(exp=1)), 401)
        assert_problem(await push(google.token(email="stranger@example.com")), 403, "EVENTS_SENDERS")
        assert await app.client.list_workflow_executions() == []
        assert (await push(google.token())).status_code == 202
        (run,) = await app.client.list_workflow_executions()
        assert await app.client.get_result(run.run_id, timeout=5) == "hello"
        assert google.fetches == 1  # the certificates are kept
        monkeypatch.setenv("EVENTS_SENDERS", " ,")
        assert_problem(await push(google.token()), 503, "EVENTS_SENDERS")
