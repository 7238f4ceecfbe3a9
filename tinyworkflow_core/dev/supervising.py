"""Supervising: the process above the one that serves. It owns the port, so that callers wait while code is exchanged.

It imports none of the user's code, so nothing that is saved can end it. Its child learns by a closed socket when it is
gone, however it ended, and ends, too.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from .served import Manner, Served
from .watching import Watch

_READY = b"r"
_LET_GO_SECONDS = 8.0
"""More than a process takes to let go of its runs in order."""


class Supervisor:
    """Has `served` served on `sock`, and starts the process anew when a file in `folders` is saved."""

    def __init__(
        self, served: Served, sock: socket.socket, folders: Iterable[Path], manner: Manner, say: Callable[[str], None]
    ) -> None:
        self._served = served
        self._sock = sock
        self._manner = manner
        self._say = say
        self._watch = Watch(folders)
        self._stops = 0
        self._greeted = False

    def run(self) -> None:
        """Until SIGINT or SIGTERM comes; then no process is left."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        while not self._stops:
            child = _Child(self._served, self._sock, self._manner, greet=not self._greeted)
            try:
                self._wait(child)
            finally:
                child.end(lambda: self._stops > 1)

    def _stop(self, number: int, frame: object) -> None:
        self._stops += 1

    def _wait(self, child: _Child) -> None:
        """Until the child is to be replaced, or all is to end."""
        told_of_its_end = False
        while not self._stops:
            was_ready = child.is_ready
            child.hear(0 if child.has_ended else self._watch.pause_seconds)
            self._greeted = self._greeted or child.is_ready
            if child.has_ended and not told_of_its_end:
                told_of_its_end = True
                self._say(f"The process that served has ended ({child.ending}).")
                if was_ready:  # otherwise it would only end again
                    return
            if child.has_ended:
                time.sleep(self._watch.pause_seconds)
            if changes := self._watch.changes():
                more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
                if not self._manner.quiet:
                    self._say(f"Saved: {os.path.relpath(changes[0])}{more}")
                return


class _Child:
    """One process that serves."""

    def __init__(self, served: Served, sock: socket.socket, manner: Manner, *, greet: bool) -> None:
        self._line, theirs = socket.socketpair()
        told = {
            "served": asdict(served),
            "manner": asdict(manner) | {"greet": greet},
            "socket": sock.fileno(),
            "line": theirs.fileno(),
        }
        # -P: what can be imported is what the platform can import, and not whatever lies in the current folder.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __package__ or "", json.dumps(told)],
            pass_fds=(sock.fileno(), theirs.fileno()),
        )
        theirs.close()
        self.is_ready = False

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def ending(self) -> str:
        code = self._process.returncode
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def hear(self, seconds: float) -> None:
        """Wait so long for a word of it."""
        heard, _, _ = select.select([self._line], [], [], seconds)
        if heard:
            if self._line.recv(1) == _READY:
                self.is_ready = True
            else:  # the other end is closed: it ends, or is about to
                time.sleep(seconds)

    def end(self, hurry: Callable[[], bool]) -> None:
        """Have it let go of its runs and end; by force where that takes too long, or a second Ctrl-C comes."""
        deadline = time.monotonic() + _LET_GO_SECONDS
        self._process.terminate()
        while self._process.poll() is None:
            if time.monotonic() > deadline or hurry():
                self._process.kill()
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                pass
        self._line.close()


def be_the_child(text: str) -> None:
    """Serve what the supervisor has told."""
    from .serving import log_to_terminal, serve_or_wait  # with the HTTP front, which the supervisor does without

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without words, as long as nothing is served
    told = json.loads(text)
    line = socket.socket(fileno=told["line"])
    threading.Thread(target=_end_with_the_supervisor, args=(line,), name="supervisor", daemon=True).start()
    log_to_terminal()
    served = Served(**(told["served"] | {"modules": tuple(told["served"]["modules"])}))
    serve_or_wait(
        served,
        socket.socket(fileno=told["socket"]),
        Manner(**told["manner"]),
        say=_say,
        ready=lambda names: line.sendall(_READY),
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _end_with_the_supervisor(line: socket.socket) -> None:
    try:
        line.recv(1)
    except OSError:
        pass  # reset: it is gone as well
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LET_GO_SECONDS)
    os._exit(1)
