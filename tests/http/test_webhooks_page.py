"""docs/webhooks.md says what is: its code is run, its events are sent."""

from __future__ import annotations

import base64
import importlib
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import httpx
import pytest
import stripe
from cloudevents.conversion import to_structured
from cloudevents.http import CloudEvent
from standardwebhooks.webhooks import Webhook

from tests.http.front import calling, ended
from tinyworkflow_core import App

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
KEY = base64.b64encode(b"the secret of 24 bytes..").decode()


async def test_the_code_of_the_webhooks_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    (tmp_path / "page_webhooks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("tinyworkflow_core.registry._declared", WeakValueDictionary())  # other pages' code has its own
    monkeypatch.setenv("TINYWORKFLOW_DATABASE_URL", "sqlite:///:memory:")
    for name in ("SHOP_SECRET", "BANK_SECRET", "STRIPE_SECRET", "DEPOT_SECRET"):
        monkeypatch.setenv(name, KEY)
    page: Any = importlib.import_module("page_webhooks")
    sent: list[Any] = []

    async def told(url: str, payload: Any, **about: Any) -> None:
        sent.append((url, payload, about["event_type"]))

    app = App("sqlite:///:memory:", workflows=[page.fulfil], replaced_activities={page.notify.name: told})
    try:
        hooks = [page.orders, page.paid, page.charged, page.stock, page.pushed, page.uploads]
        async with calling(app, webhooks=hooks) as sender:
            await _play(page, app, sender)
            platform = [await _start(page, app, sender, event) for event in ("stock", "events")]
        assert len(set(platform)) == 2
        assert sent == [("https://partner.example/inbox", {"item": "lamp"}, "order.fulfilled")] * 2
    finally:
        await app.close()
        await page.app.close()
        del sys.modules["page_webhooks"]


def _signed(body: bytes, identity: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "webhook-id": identity,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(KEY).sign(identity, now, body.decode()),
    }


async def _post(sender: httpx.AsyncClient, hook: str, said: Any, headers: Any = None) -> dict[str, Any]:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    answer = await sender.post(f"/hooks/{hook}", content=body, headers=headers or _signed(body, f"{hook}-1"))
    assert answer.status_code == 202, answer.text
    content: dict[str, Any] = answer.json()
    return content


async def _play(page: Any, app: App, sender: httpx.AsyncClient) -> None:
    first = (await _post(sender, "orders", {"item": "lamp"}))["run_id"]
    assert (await _post(sender, "payments", {"type": "payment.sent"})) == {"status": "ignored"}
    payment = {"type": "payment.received", "reference": first, "amount": 5}
    assert (await _post(sender, "payments", payment))["run_id"] == first
    assert (await ended(sender, first))["output"] == "lamp for 5"

    body = json.dumps({"item": "lamp"}).encode()
    second = (await _post(sender, "orders", body, _signed(body, "orders-2")))["run_id"]
    charge = {"object": {"amount": 7, "metadata": {"run_id": second}}}
    said = json.dumps({"id": "evt_1", "type": "charge.succeeded", "data": charge})
    generate: Any = stripe.WebhookSignature.generate_signature_header
    headers = {"content-type": "application/json", "stripe-signature": generate(said, KEY)}
    assert (await _post(sender, "stripe", said.encode(), headers))["run_id"] == second
    assert (await ended(sender, second))["output"] == "lamp for 7"


async def _start(page: Any, app: App, sender: httpx.AsyncClient, way: str) -> str:
    event = CloudEvent({"type": "stock.low", "source": "/depot", "id": way}, {"item": "rug"})
    if way == "events":
        await page.events(event)
        (run,) = await page.app.client.list_workflow_executions()
        return str(run.run_id)
    headers, body = to_structured(event)
    return str((await _post(sender, "stock", body, {**_signed(body, "stock-1"), **headers}))["run_id"])


def test_the_page_names_every_verifier_and_every_pause() -> None:
    from tinyworkflow_core.http import signatures
    from tinyworkflow_core.notifications import SCHEDULE

    for name in signatures.__all__:
        assert name[0].isupper() or f"{name}" in PAGE, name
    assert ", ".join(re.sub(r"(\d+)(\w+)", r"\1 \2", str(one).replace("m", "min")) for one in SCHEDULE.delays[:-1]) in (
        PAGE.replace("\n", " ").replace("  ", " ")
    )
