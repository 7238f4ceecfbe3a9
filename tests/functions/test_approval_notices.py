"""Approvers are told by mail and in Slack, through a real SMTP server and a real HTTP server, with links that work."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope

from tinyworkflow_core.approval_links import KEYS, URL, LinkClaims, LinkSettings
from tinyworkflow_core.testing import VirtualClock, WorkflowEnvironment
from workflows import approval_notices
from workflows.purchases import purchase_approval

KEY, HERE = "k" * 40, "https://approve.example.org"
WORKFLOWS: list[Any] = [purchase_approval, approval_notices.mail_approvers, approval_notices.post_to_slack]
WISH = {
    "what": "a <lathe>", "price": 900.0, "approvers": ["ada@example.org", "bob@example.org"],
    "head": "eve@example.org",
}  # fmt: skip


@pytest.fixture(autouse=True)
def links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, KEY)
    monkeypatch.setenv(URL, HERE)


class Mailbox:
    """An SMTP server's handler: keeps the mails, and refuses those to `refused` once."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refused: set[str] = set()

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        (to,) = envelope.rcpt_tos
        if to in self.refused:
            self.refused.remove(to)
            return "451 come again"
        self.mails.append(message_from_bytes(envelope.content or b"", policy=policy.default))  # type: ignore[arg-type]  # bytes, as decode_data is off
        return "250 OK"


@pytest.fixture
async def mailbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mailbox]:
    mailbox, loop = Mailbox(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailbox, hostname="localhost", loop=loop), "127.0.0.1", 0)
    monkeypatch.setenv("TINYWORKFLOW_SMTP_URL", f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("TINYWORKFLOW_MAIL_FROM", "workflows@example.org")
    yield mailbox
    server.close()
    await server.wait_closed()


class Slack(ThreadingHTTPServer):
    """Keeps what is posted; answers with the statuses in `answers` first."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.answers: list[int] = []
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                slack.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(slack.answers.pop(0) if slack.answers else 200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slack]:
    with Slack() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv(
            "SLACK_APPROVALS_WEBHOOK_URL", f"http://127.0.0.1:{server.server_address[1]}/services/SECRET"
        )
        yield server
        server.shutdown()
        thread.join()


def claims_of(text: str, clock: VirtualClock) -> LinkClaims:
    (token,) = re.findall(rf"{HERE}/approvals/(\S+)", text)
    return LinkSettings(keys=(KEY,)).read(token, now=clock.now())


async def test_every_approver_gets_a_mail_with_a_link_of_their_own_then_reminders_then_the_head_too(
    mailbox: Mailbox,
) -> None:
    async with WorkflowEnvironment(WORKFLOWS) as env:
        run_id = await env.start(purchase_approval, WISH)
        await env.run()
        assert [mail["To"] for mail in mailbox.mails] == WISH["approvers"]
        for mail in mailbox.mails:
            assert mail["From"] == "workflows@example.org"
            assert mail["Subject"] == "Buy a <lathe> for 900.00?"
            claims = claims_of(mail.get_content().replace("=\n", ""), env.clock)
            assert (claims.run_id, claims.by, claims.key) == (run_id, mail["To"], "purchase")
        for day, (subject, people) in enumerate(
            [("Reminder 1", 2), ("Reminder 2", 2), ("Still undecided", 3), ("Still undecided", 3)], start=1
        ):
            mailbox.mails.clear()
            await env.advance("1d")
            assert [mail["Subject"].startswith(subject) for mail in mailbox.mails] == [True] * people, day
        assert mailbox.mails[-1]["To"] == "eve@example.org"
        budget = {"cost_centre": "1234"}
        await env.decide(run_id, "purchase", by="eve@example.org", data={**budget, "most": 800.0}, comment="fine")
        await env.run()
        await env.decide(run_id, "purchase", by="ada@example.org", data=budget)
        assert await env.result(run_id) == {
            "status": "approved",
            "most": 800.0,
            "cost_centre": "1234",
            "votes": [
                {"by": "eve@example.org", "approved": True, "comment": "fine"},
                {"by": "ada@example.org", "approved": True, "comment": None},
            ],
        }


async def test_a_mail_that_was_refused_is_sent_again_and_the_others_are_not(mailbox: Mailbox) -> None:
    mailbox.refused = {"bob@example.org"}
    async with WorkflowEnvironment(WORKFLOWS) as env:
        run_id = await env.start(purchase_approval, WISH)
        await env.advance("10m")
        assert [mail["To"] for mail in mailbox.mails] == WISH["approvers"]
        await env.decide(run_id, "purchase", approved=False, by="bob@example.org")
        assert (await env.result(run_id))["status"] == "rejected"


async def test_slack_is_told_with_a_button_that_leads_to_the_page_and_with_nothing_that_is_markup(
    slack: Slack,
) -> None:
    slack.answers = [503]
    async with WorkflowEnvironment(WORKFLOWS) as env:
        run_id = await env.start(purchase_approval, {**WISH, "tell_by": "slack"})
        await env.advance("10m")
        assert len(slack.posted) == 2
        blocks = {block["type"]: block for block in slack.posted[1]["blocks"]}
        (button,) = blocks["actions"]["elements"]
        claims = claims_of(button["url"], env.clock)
        assert (button["type"], claims.run_id, claims.by) == ("button", run_id, None)
        assert "a &lt;lathe&gt;" in blocks["section"]["text"]["text"]
        assert "ada@example.org, bob@example.org" in blocks["context"]["elements"][0]["text"]
        events = json.dumps(await env.events(run_id))
        assert HERE not in events
        assert "SECRET" not in events
        await env.decide(run_id, "purchase", approved=False, by="ada@example.org")
        assert (await env.result(run_id))["status"] == "rejected"


async def test_without_a_mail_server_the_question_is_open_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYWORKFLOW_SMTP_URL", raising=False)
    async with WorkflowEnvironment(WORKFLOWS) as env:
        run_id = await env.start(purchase_approval, WISH)
        await env.run()
        failed = await env.events(run_id, "ActivityFailed")
        assert "TINYWORKFLOW_SMTP_URL is not set" in str(failed[0]["error"])
        await env.decide(run_id, "purchase", approved=False, by="ada@example.org")
        assert (await env.result(run_id))["status"] == "rejected"
