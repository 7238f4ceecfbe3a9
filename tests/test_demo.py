"""The demo, for real and as a user runs it; and that its reckoning would notice."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo import Interruption, verdicts
from demo_stage import Body
from tests.services import do_without

ROOT = Path(__file__).parents[1]
DEMO = [sys.executable, "functions/demo.py"]


@contextmanager
def running(store: str, environ: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The demo; whatever becomes of the test, it gets the chance to end its own processes."""
    # A suite that a shell runs in the background ignores Ctrl-C, and so would every process that it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*DEMO, store], cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def ports_that_answer(printed: str) -> list[int]:
    """Those of the ports that the demo named at which somebody still listens."""
    found = re.search(r"\(port ([\d, ]+)\)", printed)
    assert found is not None, printed
    return [port for port in map(int, found[1].split(", ")) if _answers(port)]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("store", ["sqlite", "firestore"])
def test_the_demo_holds_what_it_shows_and_leaves_no_process_behind(store: str) -> None:
    with running(store) as demo:
        printed, _ = demo.communicate(timeout=110)
    if (store, demo.returncode) == ("firestore", 2):  # it starts its own emulator, and could not try here
        do_without(RuntimeError(printed))
    assert demo.returncode == 0, printed
    assert "kill -9" in printed
    assert "Everything holds" in printed
    assert "FAILED" not in printed
    assert ports_that_answer(printed) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_demo_that_is_interrupted_ends_its_functions(number: int, code: int) -> None:
    with running("sqlite") as demo:
        assert demo.stdout is not None
        printed = ""
        while "GitHub calls" not in printed:
            line = demo.stdout.readline()
            assert line, printed
            printed += line
        assert ports_that_answer(printed) != []
        demo.send_signal(number)
        demo.communicate(timeout=20)
        assert demo.returncode == code
        assert ports_that_answer(printed) == []


def test_without_an_emulator_the_demo_says_what_is_missing(tmp_path: Path) -> None:
    without_java = {name: value for name, value in os.environ.items() if name != "FIRESTORE_EMULATOR_HOST"}
    with running("firestore", {**without_java, "PATH": str(tmp_path)}) as demo:
        printed, _ = demo.communicate(timeout=20)
    assert (demo.returncode, "needs java" in printed) == (2, True), printed


def test_a_store_that_there_is_not_is_named() -> None:
    with running("oracle") as demo:
        printed, _ = demo.communicate(timeout=20)
    assert (demo.returncode, printed) == (2, "demo: STORE is sqlite or firestore, not oracle\n")


# --- the reckoning ------------------------------------------------------------------------------------


def outcome() -> dict[str, Any]:
    """What a demo finds in which everything holds: a build that failed once, and a kill inside step 2."""
    types: list[tuple[str, dict[str, Any]]] = [
        ("RunStarted", {}),
        ("ActivityFailed", {"id": 1, "name": "build", "attempt": 1}),
        ("ActivityCompleted", {"id": 1, "name": "build", "attempt": 2}),
        ("LeaseTaken", {}),
        ("ActivityCompleted", {"id": 2, "name": "package", "attempt": 1}),
        ("ApprovalRequested", {"id": 3}),
        ("ApprovalDecided", {"id": 3}),
        ("ActivityCompleted", {"id": 4, "name": "publish", "attempt": 1}),
        ("RunCompleted", {}),
    ]
    return {
        "view": {"status": "completed", "output": {"published": True}},
        "events": [{"event_id": i, "type": kind, **more} for i, (kind, more) in enumerate(types, start=1)],
        "bodies": [Body(step=step, name="", pid=1, what="start") for step in (1, 1, 2, 2, 4)],
        "interrupted": Interruption(step=2, seconds=1.0, alone=False),
    }


def failures(found: dict[str, Any]) -> list[str]:
    return [statement for statement, holds in verdicts(**found).items() if not holds]


def test_the_reckoning_passes_what_is_right() -> None:
    assert failures(outcome()) == []


@pytest.mark.parametrize(
    ("wrong", "noticed"),
    [
        ({"view": {"status": "failed", "output": None}}, "the run completed"),
        ({"bodies": [*outcome()["bodies"], Body(step=4, name="", pid=1, what="start")]}, "every step's body ran once"),
        ({"bodies": [*outcome()["bodies"], Body(step=2, name="", pid=1, what="start")]}, "the step that the kill"),
        ({"bodies": [*outcome()["bodies"], Body(step=9, name="", pid=1, what="start")]}, "no body ran that"),
        ({"events": outcome()["events"][:2] + outcome()["events"][3:]}, "each of the"),
        ({"events": [*outcome()["events"], outcome()["events"][-1]]}, "the history has no gap"),
        ({"events": outcome()["events"][:1] + outcome()["events"][2:]}, "build failed once"),
        ({"interrupted": Interruption(step=2, seconds=60.0, alone=False)}, "another process went on"),
    ],
)
def test_the_reckoning_notices_what_is_wrong(wrong: dict[str, Any], noticed: str) -> None:
    assert any(one.startswith(noticed) for one in failures(outcome() | wrong)), failures(outcome() | wrong)
