"""Telling approvers of a question: by e-mail, and in Slack. Examples of `notify` activities: take what you need.

- E-mail: TINYWORKFLOW_SMTP_URL, such as smtps://user:password@mail.example.org:465 or smtp://mail.example.org:587 (with
  STARTTLS where the server offers it), and TINYWORKFLOW_MAIL_FROM. Every approver gets a link of their own.
- Slack: SLACK_APPROVALS_WEBHOOK_URL, an incoming webhook. A channel is read by many, so its link names nobody: the page
  asks who decides.

Links need TINYWORKFLOW_LINK_KEYS and TINYWORKFLOW_PUBLIC_URL. They are made here, in the activity, so that none of
them is ever stored with the run.
"""

from __future__ import annotations

import os
import smtplib
import ssl
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from tinyworkflow_core import (
    ApplicationError,
    ApprovalRequest,
    RetryPolicy,
    activity,
    activity_context,
    approval_link,
)

PATIENT = RetryPolicy(max_retries=8, initial_delay=5.0, max_delay=600.0)


@activity(retry_policy=PATIENT, timeout="2m")
def mail_approvers(asked: ApprovalRequest) -> list[str]:
    """A mail to every approver, with their own link. A retry goes on where the attempt before it stopped."""
    attempt = activity_context()
    sent: list[str] = list(attempt.last_heartbeat or [])
    with _mail_server() as server:
        for approver in asked.approvers:
            if approver in sent:
                continue
            mail = EmailMessage()
            mail["From"] = _needed("TINYWORKFLOW_MAIL_FROM")
            mail["To"] = approver
            mail["Subject"] = _one_line(_headline(asked))
            mail["X-Idempotency-Key"] = attempt.idempotency_key
            mail.set_content(f"{_headline(asked)}\n\nLook and decide:\n{approval_link(asked, by=approver)}\n")
            server.send_message(mail)
            sent.append(approver)
            attempt.heartbeat(sent)
    return sent


@activity(retry_policy=PATIENT, timeout="30s")
async def post_to_slack(asked: ApprovalRequest) -> None:
    """A message with a button that leads to the page."""
    facts = [f"*{name}*: {_escaped(str(value))}" for name, value in _facts(asked)]
    button = {
        "type": "button",
        "text": {"type": "plain_text", "text": "Look and decide"},
        "url": approval_link(asked),
        "style": "primary",
    }
    headline = _escaped(_headline(asked))
    message = {
        "text": headline,
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"*{headline}*"[:3000]}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": "\n".join(facts)[:3000]}]},
            {"type": "actions", "elements": [button]},
        ],
    }
    import httpx  # it takes a while to load: not before somebody is to be told

    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.post(_needed("SLACK_APPROVALS_WEBHOOK_URL"), json=message)
    if answer.status_code >= 400:  # not raise_for_status: the webhook's URL is a secret, and would stand in the error
        raise ApplicationError(
            f"Slack answered {answer.status_code}", type="SlackError", retryable=answer.status_code in (429, 500, 503)
        )


def _headline(asked: ApprovalRequest) -> str:
    what = asked.title or asked.key
    if asked.escalated:
        return f"Still undecided, and now yours to decide: {what}"
    return f"Reminder {asked.reminder}: {what}" if asked.reminder else what


def _facts(asked: ApprovalRequest) -> list[tuple[str, object]]:
    until = [] if asked.expires_at is None else [("Open until", f"{asked.expires_at:%Y-%m-%d %H:%M} UTC")]
    return [("Approvers", ", ".join(asked.approvers) or "anybody"), ("Run", asked.run_id), *until]


def _mail_server() -> smtplib.SMTP:
    url = urlsplit(_needed("TINYWORKFLOW_SMTP_URL"))
    secure = ssl.create_default_context()
    server: smtplib.SMTP
    if url.scheme == "smtps":
        server = smtplib.SMTP_SSL(url.hostname or "", url.port or 465, timeout=30, context=secure)
    else:
        server = smtplib.SMTP(url.hostname or "", url.port or 587, timeout=30)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=secure)
    if url.username:
        server.login(unquote(url.username), unquote(url.password or ""))
    return server


def _needed(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise ApplicationError(f"{name} is not set", type="NotConfigured")
    return value


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
