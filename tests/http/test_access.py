"""Access: what each key and each identity may do, and for which workflows. Who is let in at all is in test_auth.py."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.http.front import assert_problem, calling, new_app, paused
from tests.http.tokens import Issuer, issuer, with_header
from tinyworkflow_core import App
from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.http import identity_tokens
from tinyworkflow_core.http.access_document import document_from_env
from tinyworkflow_core.http.operations import Scope
from tinyworkflow_core.http.settings import HttpSettings
from tinyworkflow_core.testing import VirtualClock

es256: Any = import_module("google.auth.crypt.es256")  # untyped
jwt: Any = import_module("google.auth.jwt")

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
SITE = "https://flows.example"
IAP = "/projects/1/global/backendServices/2"


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def granted(key: str, *scopes: str, **more: Any) -> dict[str, Any]:
    """The record of a key that is also its own name."""
    return {"name": key, "sha256": sha256(key), "scopes": list(scopes), **more}


@asynccontextmanager
async def front(app: App, **document: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A caller from somewhere of a front with that access document."""
    access = document_from_env({"TINYWORKFLOW_ACCESS": json.dumps(document)})
    settings = HttpSettings(access=access)
    async with calling(app, emulate=False, peer="203.0.113.9", base_url=SITE, settings=settings) as caller:
        yield caller


def by(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def operations(caller: httpx.AsyncClient) -> list[tuple[str, str, str | None]]:
    """Method, path and scope of all that is served."""
    paths = (await caller.get("/openapi.json")).json()["paths"]
    return [
        (method.upper(), path, one.get("x-scope")) for path, methods in paths.items() for method, one in methods.items()
    ]


# --- scopes --------------------------------------------------------------------------------------------


async def test_a_key_opens_the_operations_of_its_scopes_and_no_others(app: App) -> None:
    """Every operation with every scope: whatever is added is in it."""
    keys = [granted(scope.value, scope.value) for scope in Scope]
    async with front(app, keys=keys) as caller:
        asked = [one for one in await operations(caller) if one[2] is not None]
        assert {scope for _, _, scope in asked} == set(Scope) - {Scope.REVEAL}
        for method, path, needed in asked:
            place = re.sub(r"\{\w+\}", "none", path)
            for scope in Scope:
                answer = await caller.request(method, place, headers=by(scope.value))
                kind = answer.json().get("type", "") if answer.content else ""
                assert (answer.status_code == 403 and kind.endswith(":no-scope")) is (scope != needed), (place, scope)


async def test_all_is_every_scope_but_to_reveal(app: App) -> None:
    async with front(app, keys=[granted("k", "all"), granted("w", "all", workflows=["echo"])]) as caller:
        assert (await caller.post("/internal/tick", headers=by("k"))).status_code == 200
        assert_problem(await caller.post("/internal/tick", headers=by("w")), 403, "platform")
    document = document_from_env({"TINYWORKFLOW_ACCESS": json.dumps({"keys": [granted("k", "all")]})})
    assert document is not None
    assert document.keys[0].scopes == set(Scope) - {Scope.REVEAL}


async def test_the_security_page_lists_every_operation_under_its_scope(app: App, caller: httpx.AsyncClient) -> None:
    rows = re.findall(r"^\| `?([\w ]+?)`? \| ((?:`[A-Z]+ /[^`]*`(?:, )?)+) \|$", PAGE.read_text(), re.MULTILINE)
    told = {(scope, one) for scope, cell in rows for one in re.findall(r"`([^`]+)`", cell)}
    served = {(scope or "no scope", f"{method} {path}") for method, path, scope in await operations(caller)}
    assert told == served


# --- workflows -----------------------------------------------------------------------------------------


async def test_a_key_for_some_workflows_starts_only_those_and_meets_no_others(app: App) -> None:
    keys = [
        granted("boss", "all"),
        granted("few", "all", workflows=["ec*", "asker"]),
        granted("one", "read", workflows=["echo"]),
    ]
    async with front(app, keys=keys) as caller:
        for name in ("echo", "asker", "pair", "sleeper"):
            started = await caller.post(f"/v1/workflows/{name}/runs", json={"run_id": name}, headers=by("boss"))
            assert started.status_code == 202
        for name in ("asker", "pair"):
            while not (await app.store.get(name)).open_approvals:  # type: ignore[union-attr]  # it was just started
                await app.advance(name)

        assert (await caller.post("/v1/workflows/echo/runs", headers=by("few"))).status_code == 202
        for name in ("sleeper", "no-such-workflow", "Echo", "my-echo"):
            assert_problem(await caller.post(f"/v1/workflows/{name}/runs", headers=by("few")), 403, name)
        listed = (await caller.get("/v1/workflows", headers=by("few"))).json()["workflows"]
        assert [one["name"] for one in listed] == ["asker", "echo"]

        for key, names in (
            ("few", {"echo", "asker"}),
            ("one", {"echo"}),
            ("boss", {"echo", "asker", "pair", "sleeper"}),
        ):
            runs = (await caller.get("/v1/runs", headers=by(key))).json()["runs"]
            assert {one["workflow"] for one in runs} == names
        assert (await caller.get("/v1/runs?workflow=pair", headers=by("few"))).json()["runs"] == []
        asked = (await caller.get("/v1/approvals", headers=by("few"))).json()["approvals"]
        assert [one["run_id"] for one in asked] == ["asker"]
        assert (await caller.get("/v1/runs/echo", headers=by("few"))).status_code in (200, 202)


async def test_a_run_of_another_workflow_is_one_that_does_not_exist_whatever_is_asked_of_it(app: App) -> None:
    async with front(app, keys=[granted("boss", "all"), granted("few", "all", workflows=["echo"])]) as caller:
        await caller.post("/v1/workflows/sleeper/runs", json={"run_id": "hidden"}, headers=by("boss"))
        runs = [one for one in await operations(caller) if "{run_id}" in one[1]]
        assert len(runs) > 8
        for method, path, _ in runs:
            found = path.replace("{run_id}", "hidden").replace("{name}", "n").replace("{key}", "k")
            there = assert_problem(await caller.request(method, found, headers=by("few")), 404, "'hidden'")
            other = found.replace("hidden", "absent")
            absent = assert_problem(await caller.request(method, other, headers=by("few")), 404, "'absent'")
            assert json.dumps(there).replace("hidden", "absent") == json.dumps(absent)
    run = await app.store.get("hidden")
    assert run is not None
    assert not run.status.closed


async def test_a_key_for_some_workflows_is_refused_where_nothing_says_which_workflow_it_is_about(app: App) -> None:
    async with front(app, keys=[granted("few", "all", workflows=["echo"])]) as caller:
        for method, path, scope in await operations(caller):
            if scope is None or "{run_id}" in path or path in ("/v1/runs", "/v1/workflows", "/v1/approvals"):
                continue
            answer = await caller.request(method, re.sub(r"\{\w+\}", "none", path), headers=by("few"))
            assert_problem(answer, 403)


# --- the document --------------------------------------------------------------------------------------


async def test_a_key_ends_when_it_expires_and_two_hashes_let_an_old_and_a_new_key_in() -> None:
    clock = VirtualClock()
    app = new_app(clock=clock)
    until = (clock.now() + timedelta(hours=1)).isoformat()
    both = {"name": "shop", "sha256": [sha256("old"), sha256("new")], "scopes": ["read"], "expires": until}
    async with front(app, keys=[both]) as caller:
        for key in ("old", "new"):
            assert (await caller.get("/v1/runs", headers=by(key))).status_code == 200
        clock.move_to(clock.now() + timedelta(hours=1))
        assert_problem(await caller.get("/v1/runs", headers=by("old")), 401, "expired")
        assert "expired" not in (await caller.get("/v1/runs", headers=by("wrong"))).text
    await app.close()


async def test_plain_keys_count_beside_the_document_and_the_hash_is_no_key() -> None:
    app = new_app(api_keys=["plain"])
    async with front(app, keys=[granted("hashed", "read")]) as caller:
        assert (await caller.get("/v1/runs", headers=by("plain"))).status_code == 200
        assert (await caller.get("/v1/runs", headers=by("hashed"))).status_code == 200
        for wrong in (sha256("hashed"), sha256("plain"), "", "hashe"):
            assert (await caller.get("/v1/runs", headers=by(wrong))).status_code == 401
    await app.close()


KEY = "0123456789abcdef" * 4
SOMEBODY = {"name": "ops", "scopes": ["read"], "emails": ["ada@example.com"]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"keys": [{"name": "shop", "sha256": KEY[:-1], "scopes": ["start"]}]}, "sha256.*'shop'"),
        ({"keys": [{"name": "shop", "sha256": KEY.upper(), "scopes": ["start"]}]}, "sha256.*'shop'"),
        ({"keys": [{"name": "shop", "sha256": KEY, "scopes": ["strat"]}]}, "scopes.*'shop'.*'start', 'signal'"),
        ({"keys": [{"name": "shop", "sha256": KEY, "scopes": []}]}, "scopes.*'shop'"),
        ({"keys": [{"name": "shop", "sha256": KEY, "scopes": ["all"], "workflows": []}]}, "workflows.*'shop'"),
        ({"keys": [{"name": "shop", "sha256": KEY, "scopes": ["platform"], "workflows": ["a"]}]}, "'shop'.*platform"),
        ({"keys": [{"name": "shop", "sha256": KEY, "scopes": ["all"], "expires": "2027-01-01T00:00:00"}]}, "expires"),
        ({"keys": [{"name": "shop", "sha256": KEY, "scopes": ["all"], "scope": "x"}]}, "scope .*'shop'.*not permitted"),
        ({"keys": [{"name": KEY + "!", "sha256": KEY, "scopes": ["all"]}]}, r"keys\[0\].name"),
        ({"keys": [{"sha256": KEY, "scopes": ["all"]}]}, r"keys\[0\].name: Field required"),
        ({"keys": [{"name": n, "sha256": KEY, "scopes": ["all"]} for n in ("a", "b")]}, "two of the keys are the same"),
        ({"keys": [{"name": "a", "sha256": x * 64, "scopes": ["all"]} for x in "ab"]}, "the name a is there twice"),
        (
            {"keys": [{"name": "a", "sha256": KEY, "scopes": ["all"], "rate": {"per_second": 0, "burst": 1}}]},
            "per_second",
        ),
        ({"identities": [SOMEBODY]}, "audiences"),
        ({"audiences": [SITE]}, "identities"),
        ({"audiences": [SITE], "identities": [{"name": "ops", "scopes": ["read"]}]}, "'ops'.*emails"),
        ({"audiences": [SITE], "identities": [SOMEBODY | {"domains": ["*.com"]}]}, "domains.*'ops'"),
        ("{", "not JSON"),
        ("", "neither a JSON object nor a file"),
        ("/no/such/file", "neither a JSON object nor a file"),
        ("twk_" + KEY, "neither a JSON object nor a file"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_a_document_that_does_not_fit_is_refused_by_the_name_of_the_key_and_never_repeated(
    document: Any, words: str
) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(ConfigurationError, match=f"^TINYWORKFLOW_ACCESS.*{words}") as caught:
        HttpSettings.from_env({"TINYWORKFLOW_ACCESS": text})
    assert KEY[:20] not in str(caught.value).lower()


def test_the_document_may_be_a_file_that_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "access.json").write_text(json.dumps({"keys": [granted("k", "read")]}))
    found = HttpSettings.from_env({"TINYWORKFLOW_ACCESS": f"{tmp_path}/access.json"}).access
    assert found is not None
    assert [one.name for one in found.keys] == ["k"]


# --- identities ----------------------------------------------------------------------------------------

ADA, ROBOT = "Ada@example.com", "robot@project.iam.gserviceaccount.com"
IDENTITIES = {
    "audiences": [SITE, "https://other.example"],
    "iap_audiences": [IAP],
    "keys": [granted("boss", "all")],
    "identities": [
        {"name": "ada", "scopes": ["read", "approve"], "emails": [ADA]},
        {"name": "robots", "scopes": ["start", "read"], "emails": [ROBOT], "workflows": ["echo"]},
        {"name": "house", "scopes": ["read"], "domains": ["example.com"]},
        {"name": "gone", "scopes": ["all"], "emails": ["gone@example.org"], "expires": "2020-01-01T00:00:00Z"},
    ],
}


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    with issuer() as made:
        monkeypatch.setattr(identity_tokens, "GOOGLE_CERTIFICATES", made.url)
        yield made


def token(google: Issuer, **claims: Any) -> dict[str, str]:
    return by(google.token(**({"aud": SITE, "email": ADA} | claims)))


async def test_a_person_and_a_service_account_may_do_what_is_granted_to_them(app: App, google: Issuer) -> None:
    async with front(app, **IDENTITIES) as caller:
        assert (await caller.get("/v1/runs", headers=token(google))).status_code == 200
        assert (await caller.get("/v1/runs", headers=token(google, aud="https://other.example"))).status_code == 200
        assert_problem(await caller.post("/v1/workflows/echo/runs", headers=token(google)), 403, "ada@example.com")
        robot = token(google, email=ROBOT)
        assert (await caller.post("/v1/workflows/echo/runs", headers=robot)).status_code == 202
        assert_problem(await caller.post("/v1/workflows/sleeper/runs", headers=robot), 403, "sleeper")
        colleague = token(google, email="bob@example.com", hd="example.com")
        assert (await caller.get("/v1/runs", headers=colleague)).status_code == 200


async def test_a_token_that_is_not_right_in_every_respect_lets_nobody_in(app: App, google: Issuer) -> None:
    google.served.append("key-2")
    wrong = {
        "audience": token(google, aud="https://elsewhere.example"),
        "no audience": token(google, aud=None),
        "issuer": token(google, iss="https://issuer.example"),
        "iap's issuer": token(google, iss="https://cloud.google.com/iap"),
        "expired": token(google, exp=int(time.time()) - 60),
        "not yet": token(google, iat=int(time.time()) + 600),
        "address not verified": token(google, email_verified=False),
        "address said to be verified": token(google, email_verified="true"),
        "no address": token(google, email=None),
        "another key": by(google.token("key-1", key="key-2", aud=SITE, email=ADA)),
        "unknown key": by(google.token("key-3", aud=SITE, email=ADA)),
        "no algorithm": by(with_header(google.token(aud=SITE, email=ADA), {"alg": "none", "kid": "key-1"})),
        "a symmetric one": by(with_header(google.token(aud=SITE, email=ADA), {"alg": "HS256", "kid": "key-1"})),
        "too long": token(google, more="x" * 10_000),
        "no token": by("a.b.c"),
    }
    unknown = {
        "somebody else": token(google, email="eve@example.com"),
        "a consumer's account with a house's address": token(google, email="eve@example.com", hd=None),
        "expired grant": token(google, email="gone@example.org"),
    }
    async with front(app, **IDENTITIES) as caller:
        for why, headers in wrong.items():
            problem = assert_problem(await caller.get("/v1/runs", headers=headers), 401)
            assert problem["type"].endswith(":invalid-identity"), why
        for headers in unknown.values():
            assert_problem(await caller.get("/v1/runs", headers=headers), 403, "TINYWORKFLOW_ACCESS")


async def test_what_identity_aware_proxy_asserts_counts_and_a_right_key_goes_before_it(
    app: App, google: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    monkeypatch.setattr(google, "certificates", lambda: {"iap-1": public.decode()})
    monkeypatch.setattr(identity_tokens, "IAP_CERTIFICATES", google.url)
    now = int(time.time())
    right = {"iss": "https://cloud.google.com/iap", "aud": IAP, "email": ADA, "iat": now - 1, "exp": now + 60}

    def asserted(**claims: Any) -> dict[str, str]:
        signer = es256.ES256Signer.from_string(private, "iap-1")
        return {"X-Goog-IAP-JWT-Assertion": jwt.encode(signer, right | claims).decode()}

    async with front(app, **IDENTITIES) as caller:
        assert (await caller.get("/v1/runs", headers=asserted())).status_code == 200
        for wrong in ({"aud": SITE}, {"iss": "https://accounts.google.com"}, {"exp": now - 60}, {"email": None}):
            assert_problem(await caller.get("/v1/runs", headers=asserted(**wrong)), 401)
        bearer = by(asserted()["X-Goog-IAP-JWT-Assertion"])
        assert_problem(await caller.get("/v1/runs", headers=bearer), 401)
        assert (await caller.post("/internal/tick", headers=asserted() | by("boss"))).status_code == 200
    async with front(app, keys=[granted("boss", "all")]) as caller:
        assert_problem(await caller.get("/v1/runs", headers=asserted()), 401, "API key")


async def test_a_decision_of_a_person_whose_address_was_verified_is_in_their_name_and_in_no_other(
    google: Issuer,
) -> None:
    ada = "ada"
    app = new_app()
    grants = IDENTITIES | {
        "identities": [{"name": "ada", "scopes": ["approve", "read"], "emails": ["ada@example.com"]}]
    }
    async with front(app, **grants) as caller:
        await caller.post("/v1/workflows/pair/runs", json={"run_id": "r"}, headers=by("boss"))
        async with httpx.AsyncClient(transport=caller._transport, base_url=SITE, headers=by("boss")) as boss:
            view = await paused(boss, "r")
        decide = view["open_approvals"][0]["links"]["decide"]
        forged = await caller.post(decide, json={"approved": True, "by": ada}, headers=token(google))
        assert_problem(forged, 403, "your own name")
        own = await caller.post(decide, json={"approved": True}, headers=token(google))
        assert_problem(own, 403, "ada@example.com")  # who is not among the approvers ada and bob
        assert (await caller.post(decide, json={"approved": True, "by": ada}, headers=by("boss"))).status_code == 200
    await app.close()


def test_the_document_on_the_security_page_is_one() -> None:
    [text] = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    document = document_from_env({"TINYWORKFLOW_ACCESS": text})
    assert document is not None
    assert [one.name for one in document.keys + document.identities] == ["shop", "deciders", "nightly"]
