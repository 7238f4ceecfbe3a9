"""EncryptionCodec: what it seals nobody reads without the key; and a store file from which nothing can be read."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworkflow_core import App, ApplicationError, RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.approvals import Decision
from tinyworkflow_core.encryption import EncryptionCodec, generate_key
from tinyworkflow_core.errors import (
    ConfigurationError,
    IdempotencyConflictError,
    SerializationError,
    WorkflowCancelledError,
    WorkflowFailedError,
)
from tinyworkflow_core.serialization import Codec

OLD, NEW = "b2xkLS1vbGQtLW9sZC0tb2xkLS1vbGQtLW9sZC0tb2w=", "bmV3LS1uZXctLW5ldy0tbmV3LS1uZXctLW5ldy0tbmU="
SECRET = "a secret that nobody may read"


# --- sealing -----------------------------------------------------------------------------------------


@given(text=st.text(st.characters(codec="utf-8")))
def test_every_text_comes_back_and_is_never_sealed_the_same_way_twice(text: str) -> None:
    encryption = EncryptionCodec([OLD])
    one, other = encryption.seal(text), encryption.seal(text)
    assert encryption.unseal(one) == encryption.unseal(other) == text
    assert one != other
    assert one.isascii()


def test_the_first_key_seals_and_all_open() -> None:
    old, both, new = EncryptionCodec([OLD]), EncryptionCodec([NEW, OLD]), EncryptionCodec([NEW])
    assert both.unseal(old.seal(SECRET)) == SECRET
    assert new.unseal(both.seal(SECRET)) == SECRET
    assert both.key_ids == (*new.key_ids, *old.key_ids)


def test_a_value_whose_key_is_not_there_is_refused_with_the_ids_of_the_key_and_of_those_that_are() -> None:
    old, new = EncryptionCodec([OLD]), EncryptionCodec([NEW])
    with pytest.raises(SerializationError) as caught:
        new.unseal(old.seal(SECRET))
    assert f"sealed with key {old.key_ids[0]}" in str(caught.value)
    assert f"({new.key_ids[0]})" in str(caught.value)
    assert "put it back behind them" in str(caught.value)


def test_what_was_changed_or_cut_short_is_refused() -> None:
    encryption = EncryptionCodec([OLD])
    key_id, _, encoded = encryption.seal("1").partition(":")
    sealed = base64.b64decode(encoded)
    changed = [bytes(byte ^ (i == at) for i, byte in enumerate(sealed)) for at in range(len(sealed))]
    for one in (*changed, *(sealed[:end] for end in range(len(sealed))), sealed + b"\0"):
        with pytest.raises(SerializationError, match=f"key {key_id} was changed or damaged"):
            encryption.unseal(f"{key_id}:{base64.b64encode(one).decode()}")
    for text in (f"{key_id}:?", f"{key_id}:\xe4", f"{key_id}:a", f"{key_id}:", key_id):
        with pytest.raises(SerializationError, match="changed or damaged"):
            encryption.unseal(text)
    for text in ("", ":", "nonsense"):
        with pytest.raises(SerializationError, match="not among the keys here"):
            encryption.unseal(text)


def test_the_key_stands_in_no_repr_and_no_message() -> None:
    encryption = EncryptionCodec([OLD, base64.b64decode(NEW)])
    assert repr(encryption) == f"EncryptionCodec(key_ids={list(encryption.key_ids)})"
    for wrong in (OLD[:-4], OLD + OLD, "hunter2", "schlüssel", b"short", b""):
        with pytest.raises(ConfigurationError) as caught:
            EncryptionCodec([NEW, wrong])
        assert str(caught.value) == "key 2 of 2 is not 32 bytes in base64; generate_key() makes such a key"
        assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_key_is_given_as_base64_text_or_bytes_or_raw() -> None:
    standard = base64.b64encode(b"\xfb\xff" * 16)
    ways: list[str | bytes] = [
        standard,
        standard.decode(),
        base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(),
        b"\xfb\xff" * 16,
    ]
    assert len({EncryptionCodec([one]).key_ids for one in ways}) == 1
    assert len(EncryptionCodec(ways).key_ids) == 1


@pytest.mark.parametrize("keys", [[], (), OLD, OLD.encode()])
def test_no_key_at_all_is_refused(keys: Sequence[str | bytes]) -> None:
    with pytest.raises(ConfigurationError, match="at least one key"):
        EncryptionCodec(keys)


def test_two_keys_with_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyworkflow_core.encryption._key_id", lambda key: "00000000")
    with pytest.raises(ConfigurationError, match="same key id"):
        EncryptionCodec([OLD, NEW])
    assert EncryptionCodec([OLD, OLD]).key_ids == ("00000000",)


def test_fresh_keys_are_keys_and_differ() -> None:
    one, other = generate_key(), generate_key()
    assert one != other
    assert EncryptionCodec([one, other]).unseal(EncryptionCodec([other]).seal(SECRET)) == SECRET


# --- the environment ---------------------------------------------------------------------------------


def test_keys_come_from_the_environment_separated_by_commas() -> None:
    read = EncryptionCodec.from_env({"TINYWORKFLOW_ENCRYPTION_KEYS": f" {NEW} ,\n{OLD},"})
    assert read is not None
    assert read.key_ids == EncryptionCodec([NEW, OLD]).key_ids
    other = EncryptionCodec.from_env({"KEYS": OLD}, name="KEYS")
    assert other is not None
    assert other.key_ids == EncryptionCodec([OLD]).key_ids


def test_without_the_variable_there_is_no_encryption_and_an_empty_or_wrong_one_is_an_error_that_names_it() -> None:
    assert EncryptionCodec.from_env({}) is None
    for text in ("", " , "):
        with pytest.raises(ConfigurationError, match="TINYWORKFLOW_ENCRYPTION_KEYS is set but holds no key"):
            EncryptionCodec.from_env({"TINYWORKFLOW_ENCRYPTION_KEYS": text})
    with pytest.raises(ConfigurationError, match="TINYWORKFLOW_ENCRYPTION_KEYS: key 2 of 2") as caught:
        EncryptionCodec.from_env({"TINYWORKFLOW_ENCRYPTION_KEYS": f"{OLD},hunter2"})
    assert "hunter2" not in str(caught.value)


def test_cryptography_is_needed_only_by_those_who_encrypt_and_its_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = "import sys, tinyworkflow_core.app, tinyworkflow_core.encryption; sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    for need in (lambda: EncryptionCodec([OLD]), generate_key):
        with pytest.raises(ConfigurationError, match=r"pip install 'tinyworkflow-core\[encryption\]'"):
            need()


def test_a_codec_with_encryption_shows_nothing_of_a_value() -> None:
    codec = Codec(EncryptionCodec([OLD]))
    for stored in (
        codec.encode({SECRET: [SECRET]}),
        str(codec.failure(ValueError(SECRET)).to_dict()),
        str(codec.seal_text(SECRET)),
    ):
        assert SECRET not in stored
        assert "sealed" in stored


# --- a store file ------------------------------------------------------------------------------------

PLACES = {
    "input", "argument", "result", "local", "error", "details", "cause", "signal", "title", "shown", "comment", "data",
    "side-effect", "status", "output", "failure", "reason",
}  # fmt: skip


def leak(place: str) -> str:
    """A word that is to be found in no store."""
    return f"leak-{place}."


@dataclasses.dataclass(frozen=True)
class Order:
    card: str


@activity
async def charge(order: Order, note: dict[str, str]) -> dict[str, Any]:
    return {"receipt": leak("result"), "for": order}


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=0.01, jitter=False))
async def decline(local: dict[str, str]) -> None:
    try:
        raise KeyError(leak("cause"))
    except KeyError as error:
        raise ApplicationError(leak("error"), type="Declined", details=leak("details"), retryable=True) from error


@workflow
async def pay(ctx: WorkflowContext, order: Order) -> Any:
    ctx.set_status(leak("status"))
    receipt = await ctx.execute_activity(charge, order, {"note": leak("argument")})
    effect = await ctx.side_effect(lambda: leak("side-effect"))
    word = await ctx.wait_for_signal("word")
    asked = await ctx.wait_for_approval("boss", title=leak("title"), details={"shown": leak("shown")})
    try:
        await ctx.execute_activity(decline, {"local": leak("local")})
    except ApplicationError as error:
        declined = (error.message, error.type, error.details, str(error.__cause__))
    return [leak("output"), receipt, effect, word, asked.comment, asked.data, declined]


@workflow
async def fail(ctx: WorkflowContext) -> None:
    raise ValueError(leak("failure"))


@workflow
async def wait(ctx: WorkflowContext, order: Order) -> Any:
    return [order.card, await ctx.wait_for_signal("word"), await ctx.wait_for_signal("word")]


@workflow
async def cope(ctx: WorkflowContext) -> Any:
    try:
        await ctx.execute_activity(decline, {})
    except ApplicationError as error:
        await ctx.wait_for_signal("word")
        return error.type


class Shop:
    """One store file, and processes that open it with keys of their own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.asynccontextmanager
    async def open(self, *keys: str) -> AsyncIterator[App]:
        """A process with these keys; without any it stores values as they are."""
        codec = Codec(EncryptionCodec(keys)) if keys else Codec()
        workflows = [pay, fail, wait, cope]
        app = App(f"sqlite:///{self._path}", workflows=workflows, dispatcher="none", codec=codec)
        try:
            yield app
        finally:
            await app.close()

    def leaks(self) -> set[str]:
        """The places whose words can be read in the file, its log and its shared memory."""
        files = [path for path in self._path.parent.iterdir() if path.name.startswith(self._path.name)]
        return {place.decode() for path in files for place in re.findall(rb"leak-([a-z-]+)\.", path.read_bytes())}

    async def have_everything_happen(self, app: App) -> Any:
        """One run of each kind, with a leak in every place. The result of the one that completes."""
        client = app.client
        run_id = await client.start_workflow(pay, Order(leak("input")))
        await app.advance(run_id)
        await client.send_signal(run_id, "word", {"signal": leak("signal")})
        await app.advance(run_id)
        decision = Decision(approved=True, by="ada", comment=leak("comment"), data={"data": leak("data")})
        await app.decide(run_id, "boss", decision)
        await app.advance(run_id)

        failed = await client.start_workflow(fail)
        await app.advance(failed)
        with pytest.raises(WorkflowFailedError, match="leak-failure") as caught:
            await client.get_result(failed)
        assert str(caught.value.__cause__) == leak("failure")

        cancelled = await client.start_workflow(wait, Order(leak("input")))
        await app.advance(cancelled)
        await client.cancel_workflow(cancelled, leak("reason"))
        await app.advance(cancelled)
        with pytest.raises(WorkflowCancelledError):
            await client.get_result(cancelled)
        return await client.get_result(run_id)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "runs.db")


RESULT = [
    leak("output"),
    {"receipt": leak("result"), "for": Order(leak("input"))},
    leak("side-effect"),
    {"signal": leak("signal")},
    leak("comment"),
    {"data": leak("data")},
    (leak("error"), "Declined", leak("details"), f"'{leak('cause')}'"),
]


async def test_no_word_of_a_run_can_be_read_in_the_store_file(shop: Shop) -> None:
    async with shop.open(OLD) as app:
        assert await shop.have_everything_happen(app) == RESULT
        assert shop.leaks() == set()
    assert shop.leaks() == set()


async def test_without_encryption_every_word_can_be_read_in_the_store_file(shop: Shop) -> None:
    async with shop.open() as app:
        assert await shop.have_everything_happen(app) == RESULT
        assert shop.leaks() == PLACES


async def test_people_with_the_key_see_everything_and_those_without_see_which_key_they_lack(shop: Shop) -> None:
    async with shop.open(OLD) as app:
        await shop.have_everything_happen(app)
        seen = await everything_shown(app)
    assert PLACES - {"cause", "details"} <= set(re.findall(r"leak-([a-z-]+)\.", seen))
    for keys in ((), (NEW,)):
        async with shop.open(*keys) as app:
            seen = await everything_shown(app)
        assert "leak" not in seen
        assert f"sealed with key {EncryptionCodec([OLD]).key_ids[0]}" in seen


async def everything_shown(app: App) -> str:
    runs = await app.client.list_workflow_executions()
    return repr([runs, *[await app.client.get_workflow_events(run.run_id) for run in runs]])


# --- keys that change --------------------------------------------------------------------------------


async def test_a_run_goes_on_after_its_key_was_replaced_and_after_encryption_was_turned_on(shop: Shop) -> None:
    async with shop.open() as app:
        run_id = await app.client.start_workflow(pay, Order("4711"))
        await app.advance(run_id)
    async with shop.open(OLD) as app:
        await app.client.send_signal(run_id, "word", "one")
        await app.advance(run_id)
    async with shop.open(NEW, OLD) as app:
        await app.decide(run_id, "boss", Decision(approved=True))
        await app.advance(run_id)
        assert (await app.client.get_result(run_id))[3] == "one"
    async with shop.open(NEW) as app:  # the result was sealed with the new key
        assert (await app.client.get_result(run_id))[3] == "one"


async def test_a_run_without_its_key_is_parked_and_goes_on_when_it_is_back(shop: Shop) -> None:
    async with shop.open(OLD) as app:
        run_id = await app.client.start_workflow(wait, Order("4711"))
        await app.advance(run_id)
        await app.client.send_signal(run_id, "word", "one")
        await app.advance(run_id)
    key_id = EncryptionCodec([OLD]).key_ids[0]
    for keys in ((NEW,), ()):
        async with shop.open(*keys) as app:
            await app.client.send_signal(run_id, "word", "two")
            await app.advance(run_id)
            run = await app.client.get_workflow_status(run_id)
            assert run.status == "parked"
            assert f"sealed with key {key_id}" in str(run.problem)
    async with shop.open(NEW, OLD) as app:
        await app.advance(run_id)
        assert await app.client.get_result(run_id) == ["4711", "one", "two"]


async def test_a_run_is_parked_and_not_failed_when_only_the_error_of_a_step_cannot_be_read(shop: Shop) -> None:
    async with shop.open(NEW) as app:
        run_id = await app.client.start_workflow(cope)
    async with shop.open(OLD, NEW) as app:
        await app.advance(run_id)
    async with shop.open(NEW) as app:
        await app.client.send_signal(run_id, "word")
        await app.advance(run_id)
        run = await app.client.get_workflow_status(run_id)
        assert run.status == "parked"
        assert EncryptionCodec([OLD]).key_ids[0] in str(run.problem)
    async with shop.open(NEW, OLD) as app:
        await app.advance(run_id)
        assert await app.client.get_result(run_id) == "Declined"


async def test_a_failed_run_is_reported_as_failed_to_those_who_cannot_read_why(shop: Shop) -> None:
    async with shop.open(OLD) as app:
        run_id = await app.client.start_workflow(fail)
        await app.advance(run_id)
    async with shop.open(NEW) as app:
        with pytest.raises(WorkflowFailedError, match="ValueError: sealed with key") as caught:
            await app.client.get_result(run_id)
        assert isinstance(caught.value.__cause__, SerializationError)


async def test_the_same_request_under_the_same_idempotency_key_is_the_same_run(shop: Shop) -> None:
    async with shop.open() as app:
        plain = await app.client.start_workflow(wait, Order("1"), idempotency_key="plain")
    async with shop.open(OLD) as app:
        first = await app.client.start_workflow(wait, Order("1"), idempotency_key="sealed")
    async with shop.open(NEW) as app:
        assert await app.client.start_workflow(wait, Order("1"), idempotency_key="plain") == plain
        assert await app.client.start_workflow(wait, Order("1"), idempotency_key="sealed") == first
        with pytest.raises(IdempotencyConflictError):
            await app.client.start_workflow(wait, Order("2"), idempotency_key="sealed")
