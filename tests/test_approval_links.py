"""Signed links: genuine, for one question and one person, for a limited time, and as good after a key rotation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tinyworkflow_core import WorkflowContext, activity, workflow
from tinyworkflow_core.approval_links import KEYS, URL, LinkClaims, LinkSettings, approval_link
from tinyworkflow_core.engine.approving import ApprovalRequest
from tinyworkflow_core.errors import ConfigurationError, LinkExpiredError, LinkInvalidError
from tinyworkflow_core.testing import START, VirtualClock, WorkflowEnvironment

OLD, NEW = "old-" + "o" * 40, "new-" + "n" * 40
HERE = "https://approve.example.org"
LINKS = LinkSettings(keys=(OLD,), public_url=HERE)
DAY = timedelta(days=1)

ASKED = ApprovalRequest(
    run_id="run/1 é",
    generation=2,
    approval_id=7,
    workflow="pay",
    key="go/no go",
    title=None,
    details=None,
    approvers=("ada", "bob"),
    requested_at=START,
    expires_at=START + DAY,
)


def token_of(link: str) -> str:
    assert link.startswith(f"{HERE}/approvals/")
    return link.rpartition("/")[2]


def read(link: str, settings: LinkSettings = LINKS, after: timedelta = timedelta()) -> LinkClaims:
    return settings.read(token_of(link), now=START + after)


def test_a_link_names_its_question_and_its_person_and_ends_with_the_question() -> None:
    link = approval_link(ASKED, by="ada", settings=LINKS, clock=VirtualClock())
    claims = read(link)
    assert (claims.run_id, claims.key, claims.question, claims.by) == ("run/1 é", "go/no go", (2, 7), "ada")
    assert claims.expires_at == START + DAY
    short = approval_link(ASKED, expires_in="1h", settings=LINKS, clock=VirtualClock())
    assert (read(short).expires_at, read(short).by) == (START + timedelta(hours=1), None)
    bare = read(approval_link("run-1", "go", settings=LINKS, clock=VirtualClock()))
    assert (bare.run_id, bare.question, bare.expires_at) == ("run-1", None, START + 7 * DAY)


def test_a_link_expires_to_the_moment_by_the_clock_that_is_given() -> None:
    link = approval_link(ASKED, settings=LINKS, clock=VirtualClock())
    assert read(link, after=DAY - timedelta(microseconds=1)).key == "go/no go"
    with pytest.raises(LinkExpiredError, match="could be used until"):
        read(link, after=DAY)


def test_a_link_that_was_altered_anywhere_is_not_genuine() -> None:
    token = token_of(approval_link(ASKED, by="ada", settings=LINKS, clock=VirtualClock()))
    for i, letter in enumerate(token):
        altered = token[:i] + ("A" if letter != "A" else "B") + token[i + 1 :]
        if i == len(token) - 1:
            altered = token[:-1]  # the last letter holds bits that mean nothing
        with pytest.raises(LinkInvalidError):
            LINKS.read(altered, now=START)
    for other in ("", ".", "a.b.c", token + "x", token.partition(".")[0], "é" * 9):
        with pytest.raises(LinkInvalidError):
            LINKS.read(other, now=START)


def test_a_token_made_with_the_same_key_for_another_purpose_is_no_link() -> None:
    from itsdangerous import URLSafeTimedSerializer

    claims = {"r": "run-1", "k": "go", "e": 9e9, "g": None, "i": None, "b": "ada"}
    for salt in ("itsdangerous", "session", "tinyworkflow/other/1"):
        with pytest.raises(LinkInvalidError):
            LINKS.read(str(URLSafeTimedSerializer(OLD, salt=salt).dumps(claims)), now=START)


def test_links_outlive_the_rotation_of_their_key_until_it_is_taken_out() -> None:
    link = approval_link(ASKED, settings=LINKS, clock=VirtualClock())
    rotated = replace(LINKS, keys=(NEW, OLD))
    assert read(link, rotated).key == "go/no go"
    fresh = approval_link(ASKED, settings=rotated, clock=VirtualClock())
    only_new = replace(LINKS, keys=(NEW,))
    assert read(fresh, only_new).key == "go/no go"
    for lost, settings in ((link, only_new), (fresh, LINKS)):
        with pytest.raises(LinkInvalidError):
            read(lost, settings)


def test_settings_come_from_the_environment_and_never_show_a_key() -> None:
    settings = LinkSettings.from_env({KEYS: f" {NEW} ,{OLD},", URL: f"{HERE}/"})
    assert settings == LinkSettings(keys=(NEW, OLD), public_url=HERE)
    assert "n" * 40 not in repr(settings)
    assert LinkSettings.from_env({}) == LinkSettings()
    with pytest.raises(ConfigurationError, match=f"{KEYS}: key 2 has 5 characters; at least 32") as raised:
        LinkSettings.from_env({KEYS: f"{NEW},short"})
    assert "short" not in str(raised.value).replace("shorter", "")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("approve.example.org", "does not fit"),
        ("ftp://approve.example.org", "does not fit"),
        ("https://approve.example.org/?a=1", "does not fit"),
        ("https://user@approve.example.org", "does not fit"),
        ("https://[bad", "does not fit"),
        ("http://approve.example.org", "in the clear"),
    ],
)
def test_a_public_url_that_does_not_fit_is_refused_at_the_start(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{URL}: .*{words}"):
        LinkSettings.from_env({URL: url})


def test_no_link_is_made_without_keys_or_url_nor_for_somebody_who_may_not_decide() -> None:
    with pytest.raises(ConfigurationError, match=f"{KEYS} is not set"):
        approval_link(ASKED, settings=replace(LINKS, keys=()))
    with pytest.raises(ConfigurationError, match=f"{URL} is not set"):
        approval_link(ASKED, settings=replace(LINKS, public_url=None))
    with pytest.raises(ConfigurationError, match="no approval link can be made or read"):
        LinkSettings().read("x", now=START)
    with pytest.raises(ValueError, match="'eve' may not decide"):
        approval_link(ASKED, by="eve", settings=LINKS)
    with pytest.raises(ValueError, match="a run_id and the approval's key"):
        approval_link("run-1", settings=LINKS)


LINKS_MADE: list[str] = []


@activity
async def send_link(asked: ApprovalRequest) -> None:
    LINKS_MADE.append(approval_link(asked, by="ada"))


@workflow
async def asks_by_link(ctx: WorkflowContext) -> bool:
    return (await ctx.wait_for_approval("go", "2h", approvers=["ada"], notify=send_link)).approved


async def test_an_activity_makes_links_by_the_clock_of_its_run(monkeypatch: Any) -> None:
    monkeypatch.setenv(KEYS, OLD)
    monkeypatch.setenv(URL, HERE)
    LINKS_MADE.clear()
    async with WorkflowEnvironment([asks_by_link, send_link]) as env:
        run_id = await env.start(asks_by_link)
        await env.run()
        (claims,) = (LINKS.read(token_of(link), now=env.clock.now()) for link in LINKS_MADE)
        assert (claims.run_id, claims.by, claims.expires_at) == (run_id, "ada", START + timedelta(hours=2))
        assert all(LINKS_MADE[0] not in str(event) for event in await env.events(run_id))
        await env.decide(run_id, "go", by="ada")
        assert await env.result(run_id) is True
