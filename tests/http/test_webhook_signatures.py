"""The schemes besides GitHub's: what the senders' own libraries sign is taken, and what is altered, stale, from the
future or replayed starts nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import stripe
from standardwebhooks.webhooks import Webhook as StandardLibrary

from tests.http.front import assert_problem, calling, echo
from tinyworkflow_core import (
    App,
    hmac_signature,
    slack_signature,
    standard_webhooks,
    stripe_signature,
    webhook,
)
from tinyworkflow_core.errors import DefinitionError
from tinyworkflow_core.http.webhooks import Webhook
from tinyworkflow_core.testing import VirtualClock

CLOCK = VirtualClock()
MARKER = "marker-5e1d"
KEY = base64.b64encode(f"{MARKER}-24-bytes-of-chance".encode()).decode()
BODY = json.dumps({"id": "evt_1", "event_id": "evt_1", "type": "order.paid", "text": MARKER}).encode()

Sign = Callable[[bytes, str, datetime], dict[str, str]]
"""(body, secret, time) -> headers."""


def by_standard(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    signature = StandardLibrary(secret).sign("evt_1", at, body.decode())
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": f"v1a,of-another-kind garbage {signature}",
    }


def by_stripe(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    generate: Any = stripe.WebhookSignature.generate_signature_header
    header: str = generate(body.decode(), secret, int(at.timestamp()))
    return {"Stripe-Signature": header.replace(",v1=", ",v0=00,v1=00,v1=")}


def by_slack(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    sent = str(int(at.timestamp()))
    made = hmac.new(secret.encode(), f"v0:{sent}:{body.decode()}".encode(), hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": sent, "X-Slack-Signature": f"v0={made}"}


def by_hmac(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    return {"X-Signature": "sha512=" + base64.b64encode(hmac.digest(secret.encode(), body, "sha512")).decode()}


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One scheme: its webhook, how its sender signs, the headers that the signature and its time are in."""

    hook: Webhook
    sign: Sign
    signature: str
    time: str | None = None

    def __str__(self) -> str:
        return self.hook.name


SCHEMES = [
    Scheme(
        hook=webhook("standard", verify=standard_webhooks(secret_env="SECRETS", clock=CLOCK), starts=echo),
        sign=by_standard,
        signature="webhook-signature",
        time="webhook-timestamp",
    ),
    Scheme(
        hook=webhook("stripe", verify=stripe_signature(secret_env="SECRETS", clock=CLOCK), starts=echo),
        sign=by_stripe,
        signature="Stripe-Signature",
        time="Stripe-Signature",
    ),
    Scheme(
        hook=webhook("slack", verify=slack_signature(secret_env="SECRETS", clock=CLOCK), starts=echo),
        sign=by_slack,
        signature="X-Slack-Signature",
        time="X-Slack-Request-Timestamp",
    ),
    Scheme(
        hook=webhook(
            "plain",
            verify=hmac_signature(
                secret_env="SECRETS",
                header="X-Signature",
                algorithm="sha512",
                encoding="base64",
                prefix="sha512=",
                id_field="id",
                type_field="type",
            ),
            starts=echo,
        ),
        sign=by_hmac,
        signature="X-Signature",
    ),
]
TIMED = [one for one in SCHEMES if one.time is not None]
every = pytest.mark.parametrize("scheme", SCHEMES, ids=str)
every_timed = pytest.mark.parametrize("scheme", TIMED, ids=str)


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS", KEY)


@pytest.fixture
async def sender(app: App) -> AsyncIterator[httpx.AsyncClient]:
    hooks = [one.hook for one in SCHEMES]
    headers = {"Content-Type": "application/json"}
    async with calling(
        app, webhooks=hooks, peer="203.0.113.9", base_url="https://flows.example", headers=headers
    ) as it:
        yield it


async def count(app: App) -> int:
    return len(await app.client.list_workflow_executions())


async def send(
    sender: httpx.AsyncClient, scheme: Scheme, headers: Mapping[str, str] | None = None, body: bytes = BODY
) -> httpx.Response:
    headers = scheme.sign(body, KEY, CLOCK.now()) if headers is None else headers
    return await sender.post(f"/hooks/{scheme}", content=body, headers=headers)


@every
async def test_what_the_senders_library_signs_starts_one_run_however_often_it_comes(
    app: App, sender: httpx.AsyncClient, scheme: Scheme
) -> None:
    answers = [await send(sender, scheme) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202], answers[0].text
    first, again = (answer.json()["run_id"] for answer in answers)
    assert first == again
    assert await app.client.get_result(first, timeout=5) == json.loads(BODY)
    assert await count(app) == 1


@every
async def test_what_is_altered_or_signed_by_somebody_else_is_401(
    app: App, sender: httpx.AsyncClient, scheme: Scheme
) -> None:
    right = scheme.sign(BODY, KEY, CLOCK.now())
    altered = BODY.replace(b"paid", b"Paid")
    assert_problem(await send(sender, scheme, right, altered), 401)
    stranger = base64.b64encode(b"another key of 24 bytes!").decode()
    assert_problem(await send(sender, scheme, scheme.sign(BODY, stranger, CLOCK.now())), 401)
    for wrong in ("", "v1,", "v1", ",", "=", "t=", "v1=,v1", "\xff", "v1," * 1000, right[scheme.signature][:-2]):
        headers: Any = {name: value.encode("latin-1") for name, value in right.items()}
        headers[scheme.signature] = wrong.encode("latin-1")
        assert_problem(await send(sender, scheme, headers), 401)
    assert_problem(await send(sender, scheme, {}), 401)
    assert await count(app) == 0


@every_timed
async def test_a_signature_that_is_stale_or_from_the_future_is_401(
    app: App, sender: httpx.AsyncClient, scheme: Scheme
) -> None:
    for off in (timedelta(seconds=-301), timedelta(seconds=301), timedelta(days=-400)):
        headers = scheme.sign(BODY, KEY, CLOCK.now() + off)
        assert_problem(await send(sender, scheme, headers), 401, "0:05:00")
    assert await count(app) == 0
    for off in (timedelta(seconds=-299), timedelta(seconds=299)):
        assert (await send(sender, scheme, scheme.sign(BODY, KEY, CLOCK.now() + off))).status_code == 202
    assert await count(app) == 1


@every_timed
async def test_a_time_is_under_the_signature_and_nothing_but_seconds(
    app: App, sender: httpx.AsyncClient, scheme: Scheme
) -> None:
    old = scheme.sign(BODY, KEY, CLOCK.now() - timedelta(hours=1))
    then, now = (str(int(at.timestamp())) for at in (CLOCK.now() - timedelta(hours=1), CLOCK.now()))
    assert scheme.time is not None
    for instead in (now, f"{now}.0", "", "soon", "1e9", "-1", "9" * 400, "٣"):
        headers: Any = {name: value.replace(then, instead).encode() for name, value in old.items()}
        assert_problem(await send(sender, scheme, headers), 401)
    assert await count(app) == 0


async def test_the_id_of_standard_webhooks_is_under_the_signature(app: App, sender: httpx.AsyncClient) -> None:
    headers = by_standard(BODY, KEY, CLOCK.now()) | {"webhook-id": "evt_2"}
    assert_problem(await send(sender, SCHEMES[0], headers), 401)


@every
async def test_old_and_new_secret_fit_side_by_side_and_nothing_fits_without_one(
    app: App, sender: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, scheme: Scheme
) -> None:
    new = base64.b64encode(b"the new key of 24 bytes!").decode()
    monkeypatch.setenv("SECRETS", f" {new} , {KEY}, ")
    for secret in (new, KEY):
        assert (await send(sender, scheme, scheme.sign(BODY, secret, CLOCK.now()))).status_code == 202
    for nothing in ("", " , ,"):
        monkeypatch.setenv("SECRETS", nothing)
        headers = scheme.sign(BODY, KEY, CLOCK.now())
        assert_problem(await send(sender, scheme, headers), 503, "SECRETS")


async def test_a_secret_of_standard_webhooks_may_have_its_prefix_and_must_be_base64(
    app: App, sender: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRETS", f"whsec_{KEY}")
    assert (await send(sender, SCHEMES[0])).status_code == 202
    for broken in (f"{MARKER} is no base64", "whsec_", "whsec_ü"):
        monkeypatch.setenv("SECRETS", broken)
        problem = assert_problem(await send(sender, SCHEMES[0]), 503, "SECRETS")
        assert MARKER not in problem["detail"]


@every
async def test_a_signed_request_that_cannot_be_read_is_a_problem_of_the_sender(
    app: App, sender: httpx.AsyncClient, scheme: Scheme
) -> None:
    for body in (b"", b"{", b"[" * 10_000, b'{"id": {}}' * 2):
        assert_problem(await send(sender, scheme, scheme.sign(body, KEY, CLOCK.now()), body), 400)
    if scheme.sign is not by_standard:  # which has its id in a header
        for body in (b"[]", b'{"type": "t"}', b'{"id": "", "event_id": ""}', b'{"id": true, "event_id": true}'):
            assert_problem(await send(sender, scheme, scheme.sign(body, KEY, CLOCK.now()), body), 400)
    form = scheme.sign(BODY, KEY, CLOCK.now()) | {"Content-Type": "application/x-www-form-urlencoded"}
    assert_problem(await send(sender, scheme, form), 415)
    assert await count(app) == 0


async def test_slacks_question_for_the_address_is_answered_when_it_is_signed(
    app: App, sender: httpx.AsyncClient
) -> None:
    slack = SCHEMES[2]
    body = json.dumps({"type": "url_verification", "token": "x", "challenge": "3eZbrw1a"}).encode()
    answer = await send(sender, slack, body=body)
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1a"})
    assert_problem(await send(sender, slack, {}, body), 401)
    assert await count(app) == 0


def test_slacks_signature_is_that_of_its_own_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS", "8f742231b10e8888abcd99yyyzzz85a5")
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    then = VirtualClock(datetime.fromisoformat("2018-07-12T18:36:58+00:00"))
    slack_signature(secret_env="SECRETS", clock=then).check(headers, body)


async def test_an_event_of_slack_is_known_by_its_inner_type(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = slack_signature(secret_env="SECRETS", clock=CLOCK)
    body = json.dumps({"type": "event_callback", "event_id": "Ev1", "event": {"type": "app_mention"}}).encode()
    headers = {name.lower(): value for name, value in by_slack(body, KEY, CLOCK.now()).items()}
    event: Any = verify({**headers, "content-type": "application/json"}, body)
    assert (event.id, event.type) == ("Ev1", "app_mention")


@pytest.mark.parametrize("id_where", ["header", "field"])
def test_plain_hmac_finds_id_and_type_where_it_is_told(id_where: str) -> None:
    body = json.dumps({"meta": {"id": 7, "kind": "made"}}).encode()
    places: dict[str, Any] = (
        {"id_header": "X-Id", "type_header": "X-Kind"}
        if id_where == "header"
        else {"id_field": "meta.id", "type_field": "meta.kind"}
    )
    verify = hmac_signature(secret_env="SECRETS", header="X-Sig", **places)
    signature = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest().upper()
    event: Any = verify({"x-sig": signature, "x-id": "7", "x-kind": "made", "content-type": "application/json"}, body)
    assert (event.id, event.type) == ("7", "made")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "id_header="),
        ({"id_header": "X-Id", "id_field": "id"}, "id_header="),
        ({"id_field": "id", "type_field": "a", "type_header": "b"}, "type_header="),
        ({"id_field": "id", "algorithm": "md5"}, "algorithm="),
        ({"id_field": "id", "encoding": "rot13"}, "encoding="),
        ({"id_field": "id", "header": ""}, "header="),
    ],
)
def test_settings_of_plain_hmac_that_cannot_work_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        hmac_signature(**{"secret_env": "SECRETS", "header": "X-Sig", **arguments})


def test_a_tolerance_of_nothing_is_refused() -> None:
    with pytest.raises(DefinitionError, match="tolerance="):
        standard_webhooks(secret_env="SECRETS", tolerance=0)


@every
async def test_neither_body_nor_secret_gets_into_a_log_or_an_answer(
    sender: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, scheme: Scheme
) -> None:
    caplog.set_level(logging.DEBUG)
    broken = f"{{{MARKER}".encode()
    for body, headers in ((BODY, {}), (broken, scheme.sign(broken, KEY, CLOCK.now())), (BODY, None)):
        answer = await send(sender, scheme, headers, body)
        assert MARKER not in answer.text
        assert KEY not in answer.text
    assert MARKER not in caplog.text
    assert KEY not in caplog.text
