"""Notifications: signed so that the library of Standard Webhooks takes them, repeated by its schedule under one id,
sent to the public internet only, and nothing of the answer kept."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks.webhooks import Webhook

from tinyworkflow_core import RetryPolicy, WorkflowContext, WorkflowFailedError, notify, outbound, workflow
from tinyworkflow_core.testing import WorkflowEnvironment

MARKER = "marker-c0de"
OLD = "whsec_" + base64.b64encode(b"the old secret, 24 bytes").decode()
NEW = "whsec_" + base64.b64encode(f"the new one of {MARKER}".encode()).decode()
ALLOW = "TINYWORKFLOW_ALLOW_PRIVATE_ADDRESSES"

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Receiver:
    """Somebody who is notified: the answers that it gives in turn, the last one again and again."""

    port: int = 0
    answers: list[Answer] = field(default_factory=lambda: [(204, {}, b"")])
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/inbox?who=me"


def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            receiver.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status, headers, content = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(content)
            except OSError:
                pass  # nobody reads on

        def log_message(self, *about: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from receiving()


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTNER_SECRET", NEW)
    monkeypatch.setenv(ALLOW, "127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # a proxy would resolve the name by itself
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")


@workflow
async def tells(ctx: WorkflowContext, about: dict[str, Any]) -> Any:
    options = {"event_type": "order.paid", "secret_env": "PARTNER_SECRET", "occurred_at": ctx.now()}
    return await ctx.execute_activity(
        notify, about["url"], about.get("payload"), **{**options, **about.get("more", {})}
    )


@workflow
async def tells_once(ctx: WorkflowContext, url: str) -> Any:
    once = notify.options(retry_policy=RetryPolicy(max_retries=0))
    return await ctx.execute_activity(once, url, {}, event_type="order.paid", secret_env="PARTNER_SECRET")


async def failure(env: WorkflowEnvironment, url: str, **about: Any) -> tuple[str, int]:
    """How the run fails that does not get through, and after how many attempts."""
    run_id = await env.start(tells, {"url": url, **about})
    with pytest.raises(WorkflowFailedError) as failed:
        await env.result(run_id)
    attempts = await env.events(run_id, "ActivityFailed")
    return str(failed.value), len(attempts)


async def history(env: WorkflowEnvironment, run_id: str) -> str:
    """All that is stored of a run's past."""
    state = await env.client.store.load(run_id)
    assert state is not None
    return repr(state.history)


async def test_a_notification_is_what_the_library_of_standard_webhooks_takes(receiver: Receiver) -> None:
    async with WorkflowEnvironment([tells]) as env:
        payload = {"amount": 5, "at": datetime(2026, 1, 1, tzinfo=UTC), "much": float("inf"), "who": "Grüße"}
        run_id = await env.start(tells, {"url": receiver.url, "payload": payload})
        result = await env.result(run_id)
    ((path, headers, body),) = receiver.seen
    said = Webhook(NEW).verify(body, headers)
    assert said == {
        "type": "order.paid",
        "timestamp": "2026-01-01T09:00:00Z",
        "data": {"amount": 5, "at": "2026-01-01T00:00:00Z", "much": None, "who": "Grüße"},
    }
    assert headers["webhook-id"] == f"{run_id}/0/1"
    assert result == {"webhook_id": f"{run_id}/0/1", "status": 204}
    assert (path, headers["host"]) == ("/inbox?who=me", f"127.0.0.1:{receiver.port}")
    assert headers["content-type"] == "application/json"


async def test_every_secret_signs_so_that_the_receiver_can_change_over(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTNER_SECRET", f" {NEW}, {OLD},")
    async with WorkflowEnvironment([tells]) as env:
        await env.result(await env.start(tells, {"url": receiver.url}))
    ((_, headers, body),) = receiver.seen
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(body, headers)["type"] == "order.paid"


async def test_the_schedule_is_that_of_the_specification_and_all_attempts_share_one_id(receiver: Receiver) -> None:
    receiver.answers = [(500, {}, b"no")]
    async with WorkflowEnvironment([tells]) as env:
        run_id = await env.start(tells, {"url": receiver.url})
        with pytest.raises(WorkflowFailedError, match="answered 500"):
            await env.result(run_id)
        failures = await env.events(run_id, "ActivityFailed")
    pauses = [
        (datetime.fromisoformat(one["retry_at"]) - datetime.fromisoformat(one["at"])).total_seconds()
        for one in failures[:-1]
    ]
    expected = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert len(failures) == 10
    assert all(0.9 * wanted <= pause <= 1.1 * wanted for pause, wanted in zip(pauses, expected, strict=True)), pauses
    assert "retry_at" not in failures[-1]
    assert {headers["webhook-id"] for _, headers, _ in receiver.seen} == {f"{run_id}/0/1"}
    assert len({body for _, _, body in receiver.seen}) == 1
    assert len(receiver.seen) == 10


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_obeyed(receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {"Retry-After": "1234"}, b""), (200, {}, b"")]
    async with WorkflowEnvironment([tells]) as env:
        run_id = await env.start(tells, {"url": receiver.url})
        assert (await env.result(run_id))["status"] == 200
        (failed,) = await env.events(run_id, "ActivityFailed")
    waited = datetime.fromisoformat(failed["retry_at"]) - datetime.fromisoformat(failed["at"])
    assert waited == timedelta(seconds=1234)


async def test_gone_is_the_end_of_it(receiver: Receiver) -> None:
    receiver.answers = [(410, {}, b"")]
    async with WorkflowEnvironment([tells]) as env:
        said, attempts = await failure(env, receiver.url)
    assert "EndpointGone" in said
    assert attempts == len(receiver.seen) == 1


async def test_a_redirect_is_a_failure_and_not_followed(receiver: Receiver) -> None:
    receiver.answers = [(307, {"Location": receiver.url.replace("inbox", "elsewhere")}, b"")]
    async with WorkflowEnvironment([tells_once]) as env:
        run_id = await env.start(tells_once, receiver.url)
        with pytest.raises(WorkflowFailedError, match="answered 307"):
            await env.result(run_id)
    assert len(receiver.seen) == 1


async def test_of_an_answer_a_few_characters_are_kept_and_of_a_success_nothing(receiver: Receiver) -> None:
    receiver.answers = [(500, {"X-Secret": MARKER}, b"x" * 150 + MARKER.encode() + b"y" * 10_000_000 + b"the end")]
    async with WorkflowEnvironment([tells_once]) as env:
        run_id = await env.start(tells_once, receiver.url)
        with pytest.raises(WorkflowFailedError):
            await env.result(run_id)
        stored = await history(env, run_id)
        assert "x" * 150 + MARKER in stored
        assert "y" * 100 not in stored
        assert "the end" not in stored
        receiver.answers = [(200, {"X-Secret": MARKER}, MARKER.encode())]
        run_id = await env.start(tells_once, receiver.url)
        await env.result(run_id)
        assert MARKER not in await history(env, run_id)


# --- where it may go ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]", "2130706433"]
)
async def test_a_private_address_is_refused_at_once_and_nothing_is_sent(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.delenv(ALLOW)
    async with WorkflowEnvironment([tells]) as env:
        said, attempts = await failure(env, f"http://{host}:{receiver.port}/")
    assert "AddressRefused" in said
    assert ALLOW in said
    assert (attempts, receiver.seen) == (1, [])


async def test_an_argument_lets_private_addresses_in(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW)
    async with WorkflowEnvironment([tells]) as env:
        await env.result(await env.start(tells, {"url": receiver.url, "more": {"allow_private_addresses": True}}))
    assert len(receiver.seen) == 1


def names(monkeypatch: pytest.MonkeyPatch, answers: list[list[str]]) -> list[str]:
    """A name server for receiver.example: the addresses that it gives in turn. Returns the names it is asked for."""
    asked: list[str] = []
    real = asyncio.base_events.BaseEventLoop.getaddrinfo

    async def getaddrinfo(self: Any, host: Any, port: Any, **how: Any) -> Any:
        if host != "receiver.example":
            return await real(self, host, port, **how)
        asked.append(host)
        return [(2, 1, 6, "", (one, port)) for one in (answers.pop(0) if len(answers) > 1 else answers[0])]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_that_changes_its_address_after_the_check_gains_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = names(monkeypatch, [["127.0.0.1"], ["127.0.0.2"]])
    async with WorkflowEnvironment([tells_once]) as env:
        await env.result(await env.start(tells_once, f"http://receiver.example:{receiver.port}/"))
        ((_, headers, _),) = receiver.seen
        assert headers["host"] == f"receiver.example:{receiver.port}"
        assert asked == ["receiver.example"]  # once: the connection goes to what was checked
        with pytest.raises(WorkflowFailedError, match="AddressRefused"):
            await env.result(await env.start(tells_once, f"http://receiver.example:{receiver.port}/"))


async def test_one_private_address_among_several_is_enough_to_refuse(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, [["127.0.0.1", "10.0.0.1"]])
    async with WorkflowEnvironment([tells_once]) as env:
        with pytest.raises(WorkflowFailedError, match="AddressRefused"):
            await env.result(await env.start(tells_once, f"http://receiver.example:{receiver.port}/"))
    assert receiver.seen == []


def certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for that name, and the file that makes it trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, private, public = serialization.Encoding.PEM, directory / "key.pem", directory / "certificate.pem"
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(made.public_bytes(encoding))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(public, private)
    return tls, public


@pytest.mark.parametrize("name", ["receiver.example", "somebody.example"])
async def test_over_tls_the_certificate_must_be_that_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tls, trusted = certificate(tmp_path, name)
    monkeypatch.setattr(outbound, "_tls", lambda: ssl.create_default_context(cafile=str(trusted)))
    names(monkeypatch, [["127.0.0.1"]])
    for receiver in receiving(tls):
        async with WorkflowEnvironment([tells_once]) as env:
            run_id = await env.start(tells_once, f"https://receiver.example:{receiver.port}/")
            if name == "receiver.example":
                assert (await env.result(run_id))["status"] == 204
            else:
                with pytest.raises(WorkflowFailedError, match="certificate"):
                    await env.result(run_id)
        assert len(receiver.seen) == (name == "receiver.example")


# --- what cannot be sent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "kind"),
    [
        ({"url": "ftp://receiver.example/"}, "InvalidNotification"),
        ({"url": "http://user:pass@receiver.example/"}, "InvalidNotification"),
        ({"more": {"event_type": ""}}, "InvalidNotification"),
        ({"more": {"event_type": "two words"}}, "InvalidNotification"),
        ({"more": {"occurred_at": datetime(2026, 1, 1)}}, "InvalidNotification"),
        ({"more": {"secret_env": NEW}}, "MissingCredential"),
        ({"more": {"secret_env": "NOT_SET"}}, "MissingCredential"),
        ({"more": {"secret_env": "NOT_BASE64"}}, "MissingCredential"),
    ],
)
async def test_what_no_repetition_can_mend_fails_at_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, about: dict[str, Any], kind: str
) -> None:
    monkeypatch.setenv("NOT_BASE64", f"{MARKER}!")
    async with WorkflowEnvironment([tells]) as env:
        said, attempts = await failure(env, **{"url": receiver.url, **about})
    assert kind in said
    assert NEW not in said
    assert MARKER not in said
    assert (attempts, receiver.seen) == (1, [])


async def test_a_receiver_that_is_away_is_tried_again(receiver: Receiver) -> None:
    async with WorkflowEnvironment([tells]) as env:
        _, attempts = await failure(env, "http://127.0.0.1:9/")
    assert attempts == 10


async def test_the_secret_gets_into_no_history(receiver: Receiver) -> None:
    receiver.answers = [(500, {}, b""), (200, {}, b"")]
    async with WorkflowEnvironment([tells]) as env:
        run_id = await env.start(tells, {"url": receiver.url})
        await env.result(run_id)
        stored = await history(env, run_id)
    assert NEW not in stored
    assert NEW.removeprefix("whsec_") not in stored
