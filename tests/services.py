"""Real services that tests talk to, as fixtures. Not here locally: skipped, with the reason. Not here in CI: failed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import NoReturn

import pytest

from tests.chromium import ChromiumMissing, find_chromium
from tests.emulator import EmulatorMissing
from tests.emulator import firestore_emulator as running_emulator


@pytest.fixture(scope="session")
def firestore_emulator() -> Iterator[str]:
    """A Firestore emulator as "host:port", one for the session. Keep tests apart by a fresh project id for each."""
    with ExitStack() as stack:
        try:
            host = stack.enter_context(running_emulator())
        except EmulatorMissing as reason:
            do_without(reason)
        _first_call(host)
        yield host


def _first_call(host: str) -> None:
    """The first write takes a fresh emulator seconds, on a busy machine more than a store's patience."""
    from google.cloud.firestore import Client

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", host)
        client = Client(project="first-call")
    with closing(client):
        client.document("first/call").set({"made": True}, timeout=60)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the Chromium that drives pages; `tests.chromium.started` starts it."""
    try:
        return find_chromium()
    except ChromiumMissing as reason:
        do_without(reason)


def do_without(reason: Exception) -> NoReturn:
    """Skip what needs a service that is not here; in CI, where it must be, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have this service: {reason}")
    pytest.skip(str(reason))
