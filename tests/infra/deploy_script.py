"""infra/deploy.sh, run whole against a `gcloud` and a `curl` that note what they were told and do nothing."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.infra.provider import PROJECT_NUMBER

SCRIPT = Path(__file__).parents[2] / "infra/deploy.sh"

_GCLOUD = f"""#!/bin/sh
note=$(mktemp)
{{
    printf '%s\\037' "$@"
    case "$*" in *--data-file=-* | "--config - "*) cat ;; esac
    printf '\\036'
}} >"$note"
cat "$note" >>"$NOTES"
rm "$note"
case "$*" in
*"projects describe"*) echo {PROJECT_NUMBER} ;;
*print-access-token*) echo an-access-token ;;
*" describe "*) test "$IS_THERE" = yes ;;
esac
"""
"""Notes each call as its words and what it read, with the control characters between them that are meant for that. In
one write each: two commands of a pipe note at the same time."""


@dataclass(frozen=True)
class Call:
    """One call of gcloud, or of curl."""

    words: list[str]
    given: str
    """What it read."""

    def is_for(self, *words: str) -> bool:
        """Whether it is this command."""
        return [word for word in self.words if not word.startswith("--")][: len(words)] == list(words)

    def option(self, name: str) -> str:
        """The value of its only such option."""
        [value] = [word.removeprefix(f"--{name}=") for word in self.words if word.startswith(f"--{name}=")]
        return value


def deploy(folder: Path, *, is_there: bool = False, **settings: str) -> list[Call]:
    """All calls of one run; `is_there`: of a second one, which finds what the first has made."""
    (folder / "bin").mkdir(exist_ok=True)
    notes = folder / "notes"
    for program in ("gcloud", "curl"):
        (folder / "bin" / program).write_text(_GCLOUD)
        (folder / "bin" / program).chmod(0o755)
    notes.unlink(missing_ok=True)
    environ = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "NOTES": str(notes), "HOME": str(folder)}
    environ |= {"IS_THERE": "yes" if is_there else "no", "PROJECT": "my-project-123", **settings}
    done = subprocess.run([str(SCRIPT)], env=environ, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    noted = [call.split("\x1f") for call in notes.read_text().split("\x1e")[:-1]]
    return [Call(words, given) for *words, given in noted]


def environment_of(calls: list[Call]) -> dict[str, str]:
    """What the service is given besides its secrets."""
    [made] = [call for call in calls if call.is_for("functions", "deploy")]
    separator, text = made.option("set-env-vars")[1:].split("^", 1)
    return dict(one.split("=", 1) for one in text.split(separator))
