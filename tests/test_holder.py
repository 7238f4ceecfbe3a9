"""Who holds a lease, and whether that process still lives: a wrong "gone" would let two work on one run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tinyworkflow_core import holder
from tinyworkflow_core.holder import is_gone, new_owner

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc to tell processes apart")


@contextmanager
def a_process(first: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Another process on this machine, and the owner that it names itself."""
    code = f"{first}\nfrom tinyworkflow_core.holder import new_owner; print(new_owner(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            owner = process.stdout.readline().strip()
            assert owner
            yield owner, process
        finally:
            process.kill()


def parts_of(owner: str) -> list[str]:
    machine, pid, started, nonce = owner.split("/")
    assert machine
    return [machine, pid, started, nonce]


def test_an_owner_is_of_this_process_and_no_two_are_the_same() -> None:
    owners = [new_owner() for _ in range(100)]
    assert len(set(owners)) == 100
    assert {tuple(parts_of(owner)[:3]) for owner in owners} == {tuple(parts_of(owners[0])[:3])}
    assert parts_of(owners[0])[1] == str(os.getpid())


def test_this_process_is_not_gone() -> None:
    assert not is_gone(new_owner())


def test_a_process_is_gone_once_it_is_killed_and_not_before() -> None:
    with a_process() as (owner, process):
        assert not is_gone(owner)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but its parent has not looked yet
        assert is_gone(owner)
        process.wait()
        assert is_gone(owner)


def test_a_process_that_calls_itself_something_odd_is_not_gone() -> None:
    with a_process("open('/proc/self/comm', 'wb').write(b'\\xff) Z (')") as (owner, _):
        assert not is_gone(owner)


def test_a_process_that_got_a_dead_ones_number_is_not_taken_for_it() -> None:
    machine, pid, started, nonce = parts_of(new_owner())
    assert is_gone(f"{machine}/{pid}/{int(started) - 1}/{nonce}")


def test_a_process_that_may_not_be_looked_at_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Mounted with hidepid, /proc shows nobody the processes of other users.
    with a_process() as (owner, process):
        monkeypatch.setattr(holder, "_stat", lambda pid: None)
        assert not is_gone(owner)
        process.kill()
        process.wait()
        assert is_gone(owner)


def test_a_process_of_another_user_that_may_not_be_looked_at_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    owner = new_owner()
    monkeypatch.setattr(holder, "_stat", lambda pid: None)
    monkeypatch.setattr(os, "kill", forbidden)
    assert not is_gone(owner)


def test_a_holder_on_another_machine_is_never_gone() -> None:
    machine, pid, started, nonce = parts_of(new_owner())
    other = f"{int(machine, 16) ^ 1:016x}"
    assert not is_gone(f"{other}/{pid}/{int(started) - 1}/{nonce}")
    assert not is_gone(f"/{pid}/{int(started) - 1}/{nonce}")


MALFORMED = [
    "",
    "/",
    "///",
    "{machine}",
    "{machine}/",
    "{machine}/{pid}",
    "{machine}/{pid}/",
    "{machine}/{pid}/0",
    "{machine}/{pid}//nonce",
    "{machine}/{pid}/x/nonce",
    "{machine}/{pid}/0/nonce/more",
    "{machine}//0/nonce",
    "{machine}/self/0/nonce",
    "{machine}/../0/nonce",
    "{machine}/-1/0/nonce",
    "{machine}/0/0/nonce",
    "{machine}/0{pid}/0/nonce",
    "{machine}/ {pid}/0/nonce",
    "{machine}/²/0/nonce",
    "{machine}/٣/0/nonce",
    "{machine}/" + "9" * 30 + "/0/nonce",
    "{machine}/" + "9" * 5000 + "/0/nonce",
    "process-1/nonce",
    "somebody",
]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:30] or "nothing")
def test_what_is_no_owner_is_never_gone(text: str) -> None:
    machine, pid, _, _ = parts_of(new_owner())
    assert not is_gone(text.format(machine=machine, pid=pid))


def test_on_the_managed_platform_nobody_is_ever_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_process() as (owner, process):
        process.kill()
        process.wait()
        assert is_gone(owner)
        monkeypatch.setenv("K_SERVICE", "worker")
        assert not is_gone(owner)
        own = new_owner()
        assert own != new_owner()
        assert not is_gone(own)
        pid = own.split("/")[1]
        assert not is_gone(own.replace(f"/{pid}/", "/999999999/"))
        monkeypatch.delenv("K_SERVICE")
        assert not is_gone(own)


def test_a_machine_that_cannot_be_told_from_others_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: str) -> str:
        raise OSError

    monkeypatch.setattr(os, "readlink", unreadable)
    holder._this_process.cache_clear()
    assert new_owner().startswith("/")
    assert not is_gone(new_owner())
    holder._this_process.cache_clear()
