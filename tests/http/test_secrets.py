"""Nothing that was given in confidence gets out: not into a log, not to those whom a workflow hides it from."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.functions.server import server
from tests.http.front import assert_problem, calling, ended, paused
from tests.http.test_access import PAGE, by, front, granted, sha256
from tinyworkflow_core import (
    App,
    RetryPolicy,
    Start,
    WebhookEvent,
    WorkflowContext,
    activity,
    github_signature,
    webhook,
    workflow,
)
from tinyworkflow_core.approval_links import LinkClaims, LinkSettings
from tinyworkflow_core.errors import DefinitionError
from tinyworkflow_core.http.settings import HttpSettings

MARKER = "m4rk3r-7f3a9c"
ONCE = RetryPolicy(max_retries=0)


@activity(retry_policy=ONCE)
async def leaks(data: Any) -> None:
    raise ValueError(f"cannot charge {data}")


@activity(retry_policy=ONCE)
async def undo(data: Any) -> None:
    raise RuntimeError(f"cannot undo {data}")


@activity(compensate=undo)
async def book(data: Any) -> Any:
    return data


@workflow
async def careless(ctx: WorkflowContext, data: Any) -> None:
    empty: dict[str, Any] = {}
    ctx.set_status({"at": data})
    ctx.on_query("ask", lambda: empty[str(data)])
    ctx.on_update("set", lambda payload: empty[payload])

    def falls() -> None:
        raise LookupError(f"nobody waits for {data}")

    asyncio.get_running_loop().call_soon(falls)
    await ctx.execute_activity(book, data)
    await ctx.wait_for_signal("word")
    await ctx.wait_for_approval("go", title=f"For {data}?", details=data)
    await ctx.execute_activity(leaks, data)


@webhook("careless", verify=github_signature(secret_env="CARELESS_SECRET"))
def on_event(event: WebhookEvent) -> Start:
    raise ValueError(f"cannot take {event.body}")


async def test_nothing_confidential_is_logged_at_any_level_whatever_goes_wrong(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CARELESS_SECRET", MARKER)
    key, link_key = f"key-{MARKER}", f"{MARKER}-{'k' * 32}"
    app = App("sqlite:///:memory:", workflows=[careless], api_keys=[key])
    links = LinkSettings(keys=(link_key,), public_url="https://flows.example")
    settings = HttpSettings(links=links)
    async with calling(app, webhooks=[on_event], headers=by(key), settings=settings) as caller:
        start = {"input": {MARKER: MARKER}, "run_id": "r", "attributes": {"who": MARKER}}
        assert (await caller.post("/v1/workflows/careless/runs", json=start)).status_code == 202
        for wrong in (start, start | {"more": MARKER}, start | {"input": float(1), "version": MARKER}):
            await caller.post("/v1/workflows/careless/runs", json=wrong, headers={"Idempotency-Key": MARKER})
        await caller.post("/v1/workflows/careless/runs", content=f'{{"input": {MARKER}')
        await app.start_worker()
        assert (await caller.post("/v1/runs/r/signals/word", json={"card": MARKER})).status_code == 202
        link = (await paused(caller, "r"))["open_approvals"][0]["links"]["decide"]
        assert_problem(await caller.post("/v1/runs/r/queries/ask"), 422)
        assert_problem(await caller.post("/v1/runs/r/updates/set", json=MARKER), 422)

        for token in (MARKER, links.sign(
            LinkClaims(run_id="r", key=MARKER, expires_at=app.clock.now() + timedelta(days=1), by=MARKER),
            now=app.clock.now(),
        )):  # fmt: skip
            for accept in ("text/html", "application/json"):
                await caller.get(f"/approvals/{token}", headers={"Accept": accept})
                await caller.post(f"/approvals/{token}", json={"approved": True}, headers={"Accept": accept})
        signed = {"Content-Type": "application/json", "X-GitHub-Event": MARKER, "X-GitHub-Delivery": MARKER}
        body = f'{{"card": "{MARKER}"}}'.encode()
        signature = hmac.new(MARKER.encode(), body, hashlib.sha256).hexdigest()
        right = signed | {"X-Hub-Signature-256": f"sha256={signature}"}
        assert_problem(await caller.post("/hooks/careless", content=body, headers=right), 500)
        forged = signed | {"X-Hub-Signature-256": MARKER}
        assert_problem(await caller.post("/hooks/careless", content=body, headers=forged), 401)
        assert_problem(await caller.get("/v1/runs", headers=by(f"wrong-{MARKER}")), 401)
        assert_problem(await caller.get("/v1/runs", headers=by(f"{MARKER}.{MARKER}.{MARKER}")), 401)

        decision = {"approved": True, "by": f"{MARKER}@example.com", "comment": MARKER, "data": MARKER}
        assert (await caller.post(link, json=decision)).status_code == 200
        assert MARKER in (await ended(caller, "r"))["error"]["message"]

        async def bug(*args: Any, **options: Any) -> Any:
            raise KeyError(f"row {MARKER}") from ValueError(MARKER)

        monkeypatch.setattr(app.store, "get", bug)
        monkeypatch.setattr(app.store, "due", bug)
        token = links.sign(
            LinkClaims(run_id=MARKER, key="go", expires_at=app.clock.now() + timedelta(days=1)), now=app.clock.now()
        )
        for path in ("/v1/runs/r", f"/approvals/{token}"):
            assert_problem(await caller.get(path), 500)
        async with asyncio.timeout(10):
            while "a tick failed" not in caplog.text:  # noqa: ASYNC110  # a log has no event
                await asyncio.sleep(0.02)
    await app.close()

    ours = [one for one in caplog.records if one.name.partition(".")[0] not in ("httpx", "httpcore")]  # the caller's
    said = "\n".join(
        logging.Formatter("%(name)s %(message)s").format(one) + repr(vars(one).get("args")) for one in ours
    )
    for word in ("a tick failed", "compensation undo", "/v1/runs/r failed", "/approvals/{token} failed", "LookupError"):
        assert word in said  # it was said, and what it was about was not
    assert MARKER not in said, said
    assert token not in said
    printed = capfd.readouterr()
    assert MARKER not in printed.err + printed.out


def test_a_server_stays_up_and_says_nothing_when_it_is_given_what_it_cannot_take(tmp_path: Path) -> None:
    key = f"key-{MARKER}"
    environ = {
        "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db",
        "TINYWORKFLOW_ACCESS": f'{{"keys": [{{"name": "k", "sha256": "{sha256(key)}", "scopes": ["all"]}}]}}',
        "GITHUB_WEBHOOK_SECRET": MARKER,
    }
    with server("app", environ) as app, httpx.Client(base_url=app.url, timeout=20, headers=by(key)) as client:
        app.wait_until_up()
        start = "/v1/workflows/release_train/runs"
        nested = b"[" * 10_000 + b'"' + MARKER.encode() + b'"' + b"]" * 10_000
        objects = b'{"input": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}"
        signature = {"X-Hub-Signature-256": "sha256=" + hmac.new(MARKER.encode(), nested, hashlib.sha256).hexdigest()}
        signature |= {"Content-Type": "application/json", "X-GitHub-Event": "push", "X-GitHub-Delivery": "1"}
        for path in (start, "/v1/runs/r/signals/s", "/v1/runs/r/cancel", "/v1/runs/r/approvals/k", "/internal/advance"):
            for body in (nested, objects, b"{" + MARKER.encode(), b"\xff\xfe"):
                assert client.post(path, content=body).status_code == 400, path
            assert client.post(path, content=b" " * 2_000_000 + MARKER.encode()).status_code == 413, path
        assert client.post("/hooks/github", content=nested, headers=signature).status_code == 400
        assert client.post("/hooks/github", content=nested, headers={}).status_code == 401
        assert client.get("/v1/runs", headers=by(f"wrong-{MARKER}")).status_code == 401
        assert client.get(f"/approvals/{MARKER}").status_code in (403, 503)
        assert app.process.poll() is None
        assert client.get("/healthz").headers["x-content-type-options"] == "nosniff"
        assert "Traceback" not in app.printed()
        assert MARKER not in app.printed()


# --- hidden fields -------------------------------------------------------------------------------------

SECRETS = {"card": {"number": MARKER, "brand": "visa"}, "iban": [MARKER], "number": 7}


@activity
async def charge(order: Any, iban: Any = None) -> Any:
    return {"receipt": [order]}


@workflow(redact=("card.number", "iban"))
async def discreet(ctx: WorkflowContext, order: Any) -> Any:
    ctx.set_status(order)
    ctx.on_query("order", lambda: order)
    ctx.on_update("set", lambda payload: {"was": payload})
    await ctx.execute_activity(charge, order, iban=MARKER)
    await ctx.wait_for_signal("word")
    await ctx.wait_for_approval("go", details=order)
    return order


@workflow(name="discreet", version=2)
async def discreet_2(ctx: WorkflowContext, order: Any) -> Any:
    return order


@workflow(redact=True)
async def silent(ctx: WorkflowContext, order: Any) -> Any:
    await ctx.execute_activity(charge, order)
    raise ValueError(f"no {order}")


@workflow
async def forgotten(ctx: WorkflowContext, order: Any) -> Any:
    return order


@pytest.fixture
async def shown() -> AsyncIterator[App]:
    app = App("sqlite:///:memory:", workflows=[discreet, discreet_2, silent])
    yield app
    await app.close()


KEYS = [granted("all", "all"), granted("reveals", "all", "reveal")]


async def everything_shown(caller: httpx.AsyncClient, run_id: str) -> str:
    paths = (f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/events?limit=1000", "/v1/runs", "/v1/approvals", "/v1/schedules")
    return "\n".join([(await caller.get(path)).text for path in paths])


async def test_what_a_workflow_hides_is_shown_nowhere_but_to_those_who_may_have_it_revealed(shown: App) -> None:
    async with front(shown, keys=KEYS) as caller:
        caller.headers.update(by("all"))
        start = {"input": SECRETS, "run_id": "r", "version": 1, "attributes": {"iban": MARKER, "plain": "yes"}}
        assert (await caller.post("/v1/workflows/discreet/runs", json=start)).status_code == 202
        schedule = {"id": "s", "workflow": "discreet", "timing": {"interval": "1d"}, "input": SECRETS}
        made = await caller.post("/v1/schedules", json=schedule)
        assert made.status_code == 201, made.text
        await shown.start_worker()
        await caller.post("/v1/runs/r/signals/word", json=SECRETS)
        link = (await paused(caller, "r"))["open_approvals"][0]["links"]["decide"]

        for key, is_hidden in (("all", True), ("reveals", False)):
            caller.headers.update(by(key))
            asked = [
                await caller.post("/v1/runs/r/queries/order"),
                await caller.post("/v1/runs/r/updates/set", json=SECRETS),
            ]
            texts = [await everything_shown(caller, "r"), *[one.text for one in asked]]
            assert [MARKER in one for one in texts] == [not is_hidden] * 3
            view = (await caller.get("/v1/runs/r")).json()
            assert view["input"]["card"] == {"number": "[redacted]" if is_hidden else MARKER, "brand": "visa"}
            assert (view["input"]["number"], view["attributes"]["plain"]) == (7, "yes")
            events = (await caller.get("/v1/runs/r/events?limit=1000")).json()["events"]
            assert {one["digest"] == "[redacted]" for one in events if "digest" in one} == {is_hidden}

        caller.headers.update(by("all"))
        assert (await caller.post(link, json={"approved": True, "data": SECRETS})).status_code == 200
        assert (await ended(caller, "r"))["output"]["iban"] == "[redacted]"
        assert MARKER not in await everything_shown(caller, "r")
        waited = await caller.post("/v1/workflows/discreet/runs", json={"input": SECRETS}, headers={"Prefer": "wait=5"})
        assert (waited.status_code, waited.json()["version"]) == (200, 2)
        assert MARKER not in waited.text  # by what version 1 says
    client = shown.client
    assert (await client.get_workflow_status("r")).input_data == SECRETS


async def test_everything_hidden_is_also_the_words_of_errors_and_what_has_no_name(shown: App) -> None:
    async with front(shown, keys=KEYS) as caller:
        caller.headers.update(by("all"))
        await caller.post("/v1/workflows/silent/runs", json={"input": MARKER, "run_id": "r"})
        await shown.start_worker()
        view = await ended(caller, "r")
        assert (view["input"], view["error"]) == ("[redacted]", {"type": "ValueError", "message": "[redacted]"})
        assert MARKER not in await everything_shown(caller, "r")
        caller.headers.update(by("reveals"))
        assert MARKER in (await caller.get("/v1/runs/r")).json()["error"]["message"]


async def test_of_a_workflow_that_is_not_known_here_everything_is_hidden(shown: App) -> None:
    async with front(shown, keys=KEYS) as caller:
        caller.headers.update(by("all"))
        other = App(shown.store, workflows=[forgotten])
        await other.client.start_workflow(forgotten, {"name": MARKER}, run_id="r")
        assert MARKER not in await everything_shown(caller, "r")
        assert (await caller.get("/v1/runs/r")).json()["input"] == "[redacted]"
        caller.headers.update(by("reveals"))
        assert (await caller.get("/v1/runs/r")).json()["input"] == {"name": MARKER}


@pytest.mark.parametrize("wrong", ["iban", 7, ("card.",), ("",), (7,), [["card", "number"]], None])
def test_what_names_no_fields_is_refused_when_the_workflow_is_declared(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="redact"):

        @workflow(name="hides-badly", redact=wrong)
        async def hides(ctx: WorkflowContext) -> None: ...


async def test_the_workflow_on_the_security_page_hides_what_the_page_says() -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    page: dict[str, Any] = {"__name__": "page_security"}
    exec(compile(code, "<the security page>", "exec"), page)
    app = App("sqlite:///:memory:", workflows=[page["pay_out"]])
    async with front(app, keys=KEYS) as caller:
        caller.headers.update(by("all"))
        start = {"input": {"iban": "CH1", "card": {"number": 4}, "number": 5}}
        await app.start_worker()
        view = (await caller.post("/v1/workflows/pay_out/runs", json=start, headers={"Prefer": "wait=5"})).json()
    assert view["input"] == {"iban": "[redacted]", "card": {"number": "[redacted]"}, "number": 5}
    assert view["output"] == {"to": "CH1", "iban": "[redacted]"}
    await app.close()
