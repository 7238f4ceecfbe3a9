"""Watching: which source files were saved since one last looked.

By looking at their times, and not by asking the system to tell: that works on every file system (also those of
containers and networks), needs nothing installed, and leaves out whole trees such as a virtual environment, which would
use up the system's watches. Looking takes at most a tenth of one processor, however large the folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PAUSE_SECONDS = 0.25
_QUIET_SECONDS = 0.05
_NAMES = frozenset({"pyproject.toml"})
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages"})

_Seen = dict[str, tuple[int, int]]


class Watch:
    """The Python files (and pyproject.toml) in some folders and below, apart from what others have installed there."""

    def __init__(self, folders: Iterable[Path]) -> None:
        resolved = {folder.resolve() for folder in folders}
        self._folders = [one for one in resolved if not any(other in one.parents for other in resolved)]
        self.pause_seconds = PAUSE_SECONDS
        self._seen = self._look()

    def changes(self) -> list[str]:
        """The paths that were saved, made or removed since the last call; empty while somebody is still writing."""
        now = self._look()
        if now == self._seen:
            return []
        time.sleep(_QUIET_SECONDS)  # an editor or git may be in the middle of it
        if self._look() != now:
            return []
        changed = sorted(path for path in now.keys() | self._seen.keys() if now.get(path) != self._seen.get(path))
        self._seen = now
        return changed

    def _look(self) -> _Seen:
        began = time.monotonic()
        found: _Seen = {}
        for folder in self._folders:
            for entry in _sources(folder):
                try:
                    known = entry.stat()
                except OSError:  # it was removed just now
                    continue
                found[entry.path] = (known.st_mtime_ns, known.st_size)
        self.pause_seconds = max(PAUSE_SECONDS, 10 * (time.monotonic() - began))
        return found


def _sources(top: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(top)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # it was removed just now, or is not ours to read
            continue
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in _LEFT_OUT:
                    waiting.append(entry.path)
            elif entry.name.endswith(".py") or entry.name in _NAMES:
                yield entry
