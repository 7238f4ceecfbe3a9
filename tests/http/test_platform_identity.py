"""Who is taken for the platform: a table of identity tokens that are right, and of the ways in which they are not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from tests.http.front import new_app
from tests.http.tokens import AUDIENCE, INVOKER, Issuer, certificate_of, issuer, with_header, without_signature
from tinyworkflow_core import create_app
from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.http import platform_identity
from tinyworkflow_core.http.platform_identity import PlatformIdentity, PlatformSettings
from tinyworkflow_core.http.problems import HttpProblem
from tinyworkflow_core.http.settings import HttpSettings

OTHERS = "other@project.iam.gserviceaccount.com"


@pytest.fixture
def google() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@pytest.fixture
def identity(google: Issuer) -> PlatformIdentity:
    return identity_by(google)


@pytest.fixture(scope="module")
def old_google() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@pytest.fixture(scope="module")
def old_identity(old_google: Issuer) -> PlatformIdentity:
    """One that has certificates, and keeps them from test to test: to fetch them costs more than a test."""
    return identity_by(old_google)


def identity_by(google: Issuer, **settings: Any) -> PlatformIdentity:
    known = {"audiences": ("https://tick.example", AUDIENCE), "invokers": (INVOKER, "second@example.com")}
    return PlatformIdentity(PlatformSettings(certificates_url=google.url, **(known | settings)))


def bringing(*tokens: str, **headers: str) -> Request:
    """A request with these Bearers, and other headers."""
    sent = [(b"authorization", f"Bearer {token}".encode()) for token in tokens]
    sent += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/internal/tick", "headers": sent})


async def refusal(identity: PlatformIdentity, request: Request) -> HttpProblem:
    with pytest.raises(HttpProblem) as caught:
        await identity.admits(request)
    return caught.value


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"iss": "accounts.google.com"},
        {"aud": "https://tick.example"},
        {"email": "second@example.com"},
        {"exp": -5},  # within what clocks may differ
        {"iat": 5},
    ],
    ids=str,
)
async def test_a_right_token_of_an_invoker_is_the_platforms(
    old_google: Issuer, old_identity: PlatformIdentity, claims: dict[str, Any]
) -> None:
    assert await old_identity.admits(bringing(old_google.token(**in_time(claims))))


def in_time(claims: dict[str, Any]) -> dict[str, Any]:
    """Times, given in seconds from now, as moments."""
    return {name: int(time.time()) + value if name in ("exp", "iat") else value for name, value in claims.items()}


WRONG: dict[str, Callable[[Issuer], str]] = {
    "another audience": lambda google: google.token(aud="https://elsewhere.example"),
    "two audiences": lambda google: google.token(aud=[AUDIENCE]),
    "no audience": lambda google: google.token(aud=None),
    "another issuer": lambda google: google.token(iss="https://accounts.example.com"),
    "no issuer": lambda google: google.token(iss=None),
    "a strange issuer": lambda google: google.token(iss=["https://accounts.google.com"]),
    "expired": lambda google: google.token(**in_time({"exp": -60})),
    "never expires": lambda google: google.token(exp=None),
    "expires sometime": lambda google: google.token(exp="tomorrow"),
    "not yet": lambda google: google.token(**in_time({"iat": 120})),
    "a key that nobody knows": lambda google: google.token("key-9"),
    "no key": lambda google: google.token(None),
    "another's key": lambda google: google.token("key-1", key="key-9"),
    "nothing signed": lambda google: unsigned(google, {"alg": "none", "typ": "JWT"}),
    "nothing signed, a key named": lambda google: unsigned(google, {"alg": "none", "kid": "key-1"}),
    # Whoever trusts the algorithm in the header takes the certificate, which everybody has, for a shared secret.
    "signed with the certificate": lambda google: signed_by_hmac(google, certificate_of("key-1")),
    "another algorithm": lambda google: with_header(google.token(), {"alg": "ES256", "kid": "key-1"}),
    "a key of no text": lambda google: with_header(google.token(), {"alg": "RS256", "kid": ["key-1"]}),
    "altered": lambda google: altered(google.token(email=OTHERS)),
    "cut off": lambda google: google.token()[:-8],
    "no JSON": lambda google: f"{base64.urlsafe_b64encode(b'[[').decode()}.e30.e30",
    "no base64": lambda google: "a.b.c",
    "long": lambda google: google.token(more="x" * 9000),
    "deep": lambda google: f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.e30.e30",
    "its signature removed": lambda google: without_signature(google.token()),
}


def unsigned(google: Issuer, header: dict[str, str]) -> str:
    return with_header(google.token(), header).rpartition(".")[0] + "."


def signed_by_hmac(google: Issuer, secret: str) -> str:
    text = with_header(google.token(), {"alg": "HS256", "kid": "key-1"}).rpartition(".")[0]
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def altered(token: str) -> str:
    header, claims, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    said["email"] = INVOKER
    return ".".join([header, base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode(), signature])


@pytest.mark.parametrize("kind", WRONG)
async def test_a_wrong_token_is_401_and_is_not_repeated(
    old_google: Issuer, old_identity: PlatformIdentity, kind: str
) -> None:
    token = WRONG[kind](old_google)
    problem = await refusal(old_identity, bringing(token))
    assert (problem.status, problem.kind) == (401, "invalid-identity")
    assert "invalid_token" in problem.headers["WWW-Authenticate"]
    assert not any(part in problem.detail for part in token.split(".") if len(part) > 3)


@pytest.mark.parametrize(
    "claims",
    [
        {"email": OTHERS},
        {"email": INVOKER.upper()},
        {"email": f"{INVOKER}.example.com"},
        {"email": [INVOKER]},
        {"email": None},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
    ],
    ids=str,
)
async def test_a_right_token_of_anybody_else_is_403(
    old_google: Issuer, old_identity: PlatformIdentity, claims: dict[str, Any]
) -> None:
    problem = await refusal(old_identity, bringing(old_google.token(**claims)))
    assert (problem.status, problem.kind) == (403, "wrong-caller")


async def test_whoever_brings_no_identity_token_is_not_the_platform(google: Issuer, identity: PlatformIdentity) -> None:
    right = google.token()
    for request in (
        bringing(),
        bringing("an-api-key"),
        bringing(""),
        bringing(right, right),
        bringing(authorization=f"Basic {right}"),
        bringing(x_api_key=right),
        bringing(x_serverless_authorization=f"Bearer {right}"),
    ):
        assert await identity.admits(request) is False
    assert google.fetches == 0


async def test_nobody_is_the_platform_where_nothing_is_configured(google: Issuer) -> None:
    for settings in ({"audiences": (), "invokers": ()}, {"audiences": ()}, {"invokers": ()}):
        unconfigured = identity_by(google, **settings)
        assert not unconfigured.configured
        assert await unconfigured.admits(bringing(google.token())) is False
    assert google.fetches == 0


async def test_the_internal_routes_let_in_the_platform_and_keys_and_nobody_else(old_google: Issuer) -> None:
    app = new_app(dispatcher="none", api_keys=["key"])
    settings = HttpSettings(
        platform=PlatformSettings(audiences=(AUDIENCE,), invokers=(INVOKER,), certificates_url=old_google.url)
    )
    front = create_app(app, emulate=True, settings=settings)
    right = old_google.token()
    unsigned_ = unsigned(old_google, {"alg": "none", "kid": "key-1"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://127.0.0.1") as caller:
        for path in ("advance", "activity", "tick"):
            answers = [
                (await caller.post(f"/internal/{path}", headers={"Authorization": f"Bearer {token}"})).status_code
                for token in (right, "key", old_google.token(aud="x"), old_google.token(email=OTHERS), unsigned_, "no")
            ]
            let_in = 200 if path == "tick" else 422  # its body is looked at
            assert answers == [let_in, let_in, 401, 403, 401, 401]
            assert (await caller.post(f"/internal/{path}")).status_code == 401  # on this very machine, too
        reading = await caller.get("/v1/runs", headers={"Authorization": f"Bearer {right}"})
        assert reading.status_code == 401  # the queue has no business there
    await app.close()


# --- behind Cloud Run's own check -------------------------------------------------------------------------


async def test_a_token_that_cloud_run_has_checked_counts_on_a_private_service_alone(
    google: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = identity_by(google, iam_in_front=True), identity_by(google)
    checked = bringing(without_signature(google.token()))
    assert (await refusal(private, checked)).status == 401  # not on Cloud Run: nobody has checked it
    monkeypatch.setenv("K_SERVICE", "worker")
    assert await private.admits(checked)
    assert "TINYWORKFLOW_IAM_IN_FRONT" in (await refusal(public, checked)).detail
    for claims, status in (
        ({"aud": "https://elsewhere.example"}, 401),
        ({"iss": "https://accounts.example.com"}, 401),
        ({"email": OTHERS}, 403),
        ({"email_verified": False}, 403),
    ):
        assert (await refusal(private, bringing(without_signature(google.token(**claims))))).status == status
    assert (await refusal(private, bringing(f"a.b.{platform_identity._SIGNATURE_REMOVED}"))).status == 401
    assert google.fetches == 0
    assert await private.admits(bringing(google.token()))  # and a whole one is checked as everywhere


async def test_what_cloud_run_has_not_looked_at_proves_nothing(google: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SERVICE", "worker")
    private = identity_by(google, iam_in_front=True)
    made_up = without_signature(google.token())
    for sent, status in (
        (f"Bearer {without_signature(google.token(email=OTHERS))}", 403),
        ("Bearer ", 401),
        ("", 401),
        (f"Basic {made_up}", 401),
    ):
        request = bringing(made_up, x_serverless_authorization=sent)
        assert (await refusal(private, request)).status == status
    assert await private.admits(bringing(made_up, x_serverless_authorization=f"Bearer {made_up}"))


# --- certificates ------------------------------------------------------------------------------------------


class Hand:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(platform_identity, "time", hand)
    return hand


async def test_certificates_are_fetched_once_for_all_and_again_when_they_are_out_of_date(
    google: Issuer, identity: PlatformIdentity, hand: Hand
) -> None:
    google.cache_control = "public, max-age=600, must-revalidate"
    right = google.token()
    assert all(await asyncio.gather(*[identity.admits(bringing(right)) for _ in range(20)]))
    hand.time += 599
    assert await identity.admits(bringing(right))
    assert google.fetches == 1
    hand.time += 2
    assert await identity.admits(bringing(right))
    assert google.fetches == 2
    google.served = []  # withdrawn
    hand.time += 601
    assert (await refusal(identity, bringing(right))).status == 401


async def test_a_new_key_is_fetched_at_once_and_made_up_ones_make_no_flood(
    google: Issuer, identity: PlatformIdentity, hand: Hand
) -> None:
    assert await identity.admits(bringing(google.token()))
    google.served = ["key-1", "key-2"]
    hand.time += platform_identity.REFETCH_SECONDS
    assert await identity.admits(bringing(google.token("key-2")))
    for number in range(20):
        token = with_header(google.token(), {"alg": "RS256", "kid": f"made-up-{number}"})
        assert (await refusal(identity, bringing(token))).status == 401
    assert google.fetches == 2


async def test_without_certificates_it_is_503_and_old_ones_go_on_for_a_day(
    google: Issuer, identity: PlatformIdentity, hand: Hand
) -> None:
    google.broken = True
    for _ in range(3):
        problem = await refusal(identity, bringing(google.token()))
        assert (problem.status, problem.kind) == (503, "identity-unavailable")
        assert int(problem.headers["Retry-After"]) > 0
    assert google.fetches == 1
    google.broken = False
    hand.time += platform_identity.REFETCH_SECONDS
    assert await identity.admits(bringing(google.token()))
    google.broken = True
    hand.time += 86_399
    assert await identity.admits(bringing(google.token()))
    hand.time += 2
    assert (await refusal(identity, bringing(google.token()))).status == 503


def test_certificates_serve_every_event_loop(google: Issuer, identity: PlatformIdentity) -> None:
    async def together() -> list[bool]:
        return await asyncio.gather(*[identity.admits(bringing(google.token(key))) for key in ("key-1", "key-1")])

    assert [asyncio.run(together()) for _ in range(2)] == [[True, True]] * 2


# --- the environment ----------------------------------------------------------------------------------------


def test_the_environment_says_whose_tokens_are_taken() -> None:
    environ = {
        "TINYWORKFLOW_AUDIENCE": "https://a.example, https://b.example",
        "TINYWORKFLOW_INVOKERS": f"{INVOKER},{OTHERS}",
        "TINYWORKFLOW_IAM_IN_FRONT": "true",
    }
    settings = HttpSettings.from_env(environ).platform
    assert settings == PlatformSettings(
        audiences=("https://a.example", "https://b.example"), invokers=(INVOKER, OTHERS), iam_in_front=True
    )
    assert not PlatformIdentity(PlatformSettings.from_env({})).configured


@pytest.mark.parametrize(
    ("variable", "environ"),
    [
        ("INVOKERS", {"AUDIENCE": AUDIENCE}),
        ("AUDIENCE", {"INVOKERS": INVOKER, "AUDIENCE": " , "}),
        ("INVOKERS", {"AUDIENCE": AUDIENCE, "INVOKERS": "caller"}),
        ("IAM_IN_FRONT", {"IAM_IN_FRONT": "yes"}),
        ("INVOKERS", {"IAM_IN_FRONT": "true"}),
    ],
)
def test_a_variable_that_does_not_fit_is_named(variable: str, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=f"^TINYWORKFLOW_{variable}"):
        PlatformSettings.from_env({f"TINYWORKFLOW_{name}": value for name, value in environ.items()})
