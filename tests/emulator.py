"""Starting and stopping Google's Firestore emulator. No pytest here: the demo uses it too.

The emulator is a Java program that comes with the Google Cloud CLI. It is started directly, in a process group of its
own: `gcloud beta emulators firestore start` would leave java behind when it is ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

JAR = Path("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
MAIN_CLASS = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
START_SECONDS = 40.0


class EmulatorMissing(Exception):
    """There is no emulator on this machine; the message says what to install."""


class EmulatorFailed(Exception):
    """The emulator is there and does not start; the message has what it printed."""


@contextmanager
def firestore_emulator() -> Iterator[str]:
    """A running emulator as "host:port", ended on the way out. One that FIRESTORE_EMULATOR_HOST names is used as it is.

    Sets nothing in the environment. Raises EmulatorMissing and EmulatorFailed.
    """
    if given := os.environ.get("FIRESTORE_EMULATOR_HOST"):
        yield given
        return
    java, jar = _java(), _jar()
    host = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryFile() as output:
        process = _start(java, jar, host, output)
        try:
            _wait(process, host, output)
            yield host
        finally:
            _stop(process)


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise EmulatorMissing("the Firestore emulator needs java: install a JRE of version 11 or newer")
    return java


def _jar() -> Path:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        raise EmulatorMissing("the Firestore emulator comes with the Google Cloud CLI: there is no gcloud on the PATH")
    jar = Path(gcloud).resolve().parents[1] / JAR
    if not jar.exists():  # gcloud is a wrapper: ask it; that takes a second
        asked = subprocess.run(
            [gcloud, "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True, check=False
        )
        jar = Path(asked.stdout.strip()) / JAR
    if not jar.exists():
        raise EmulatorMissing("no Firestore emulator: run `gcloud components install cloud-firestore-emulator`")
    return jar


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(java: str, jar: Path, host: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
    name, port = host.split(":")
    command = [java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Duser.language=en"]
    command += ["-cp", str(jar), MAIN_CLASS, f"--host={name}", f"--port={port}"]
    if setpriv := shutil.which("setpriv"):  # Linux: java ends even when this process is killed
        command = [setpriv, "--pdeathsig", "TERM", *command]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def _wait(process: subprocess.Popen[bytes], host: str, output: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{host}/", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    output.seek(0)
    printed = output.read().decode(errors="replace")[-2000:]
    raise EmulatorFailed(f"the Firestore emulator did not answer within {START_SECONDS:.0f} s; it printed:\n{printed}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
