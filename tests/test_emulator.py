"""The emulator that tests and the demo start: it comes, it goes, and its absence is told."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tests.emulator import EmulatorMissing, firestore_emulator
from tests.services import do_without


def is_listening(host: str) -> bool:
    name, port = host.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((name, int(port))) == 0


def test_an_emulator_that_was_started_answers_and_nothing_of_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    if shutil.which("java") is None or shutil.which("gcloud") is None:
        do_without(EmulatorMissing("needs java and gcloud"))

    with firestore_emulator() as host:
        assert is_listening(host)

    assert not is_listening(host)


def test_an_emulator_that_runs_already_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "somewhere:1234")

    with firestore_emulator() as host:
        assert host == "somewhere:1234"


def test_a_machine_without_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EmulatorMissing, match="java"), firestore_emulator():
        pass

    (tmp_path / "java").touch(mode=0o755)
    with pytest.raises(EmulatorMissing, match="Google Cloud CLI"), firestore_emulator():
        pass


def test_a_missing_service_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such thing"):
        do_without(EmulatorMissing("no such thing"))

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such thing"):
        do_without(EmulatorMissing("no such thing"))
