"""Calls every route that the document names, by curl, and prints each command with its answer:
`python -m tests.functions.tour`. Ends with 1 when an answer is not the expected one, or a route was left out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import httpx

from tests.functions.server import Server, server
from tinyworkflow_core.approval_links import LinkSettings, approval_link

SOURCE = "tests/http/described_main.py"
LINK_KEY = "k" * 32
SHOWN = 300
"""Characters of an answer."""


class Tour:
    """One caller, who remembers where he has been."""

    def __init__(self, front: Server) -> None:
        self._front = front
        self.visited: set[tuple[str, str]] = set()
        self.wrong: list[str] = []

    def call(
        self,
        method: str,
        route: str,
        expected: int,
        body: Any = None,
        *options: str,
        open_to_all: bool = False,
        **names: str,
    ) -> Any:
        """Call the route, with `{name}` filled in, and print what is answered. Gives the JSON, else the text."""
        path = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], route)
        command = ["curl", "-s", "-X", method, f"{self._front.url}{path}{names.get('query', '')}", *options]
        if not open_to_all:
            command += ["-H", "X-API-Key: key"]
        if body is not None:
            command += ["-d", body if isinstance(body, str) else json.dumps(body)]
        answer = subprocess.run([*command, "-w", "\n%{http_code}"], capture_output=True, text=True, check=True).stdout
        text, _, status = answer.rpartition("\n")
        shown = " ".join(_quoted(one) for one in command).replace(self._front.url, "$URL")
        print(f"$ {shown}\n{status} {' '.join(text.split())[:SHOWN]}\n")
        if int(status) != expected:
            self.wrong.append(f"{method} {path}: {status} and not {expected}")
        self.visited.add((method, route))
        return json.loads(text) if text.startswith(("{", "[")) else text

    def until(self, run_id: str, status: str) -> None:
        """Wait for a run; the server is another process."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            run = httpx.get(f"{self._front.url}/v1/runs/{run_id}", headers={"X-API-Key": "key"}).json()
            if run["status"] == status:
                return
            time.sleep(0.05)
        self.wrong.append(f"run {run_id} is not {status}")


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w:/.$?=&{}-]+", word) else f"'{word}'"


def runs(tour: Tour) -> None:
    """Starting, seeing, asking, steering."""
    start = "/v1/workflows/{name}/runs"
    tour.call("GET", "/v1/workflows", 200)
    tour.call("POST", start, 202, {"run_id": "ask-1"}, name="asker")
    tour.call("POST", start, 200, {"input": {"item": "x"}}, "-H", "Prefer: wait=5", name="order")
    tour.call("POST", start, 202, {"run_id": "bad-1"}, "-H", "Prefer: wait=0", name="broken")
    tour.until("ask-1", "paused")
    tour.until("bad-1", "failed")
    tour.call("GET", "/v1/runs", 200, query="?limit=1")
    tour.call("GET", "/v1/runs/{run_id}", 202, run_id="ask-1")
    tour.call("GET", "/v1/runs/{run_id}/events", 200, run_id="ask-1", query="?limit=1")
    tour.call("GET", "/v1/runs/{run_id}/history", 200, run_id="ask-1")
    tour.call("GET", "/v1/activities", 200)
    tour.call("POST", "/v1/runs/{run_id}/signals/{name}", 202, "7", run_id="ask-1", name="word")
    tour.call("POST", "/v1/runs/{run_id}/updates/{name}", 200, "8", run_id="ask-1", name="hear")
    tour.call("POST", "/v1/runs/{run_id}/queries/{name}", 200, {"args": ["how many"]}, run_id="ask-1", name="heard")
    tour.call("POST", "/v1/runs/{run_id}/suspend", 202, {"reason": "lunch"}, run_id="ask-1")
    tour.until("ask-1", "suspended")
    tour.call("POST", "/v1/runs/{run_id}/resume", 202, run_id="ask-1")
    tour.until("ask-1", "paused")
    fork = tour.call("POST", "/v1/runs/{run_id}/fork", 202, {"at_event": 1}, run_id="ask-1")["run_id"]
    tour.until(fork, "paused")
    tour.call("POST", "/v1/runs/{run_id}/cancel", 202, {"reason": "enough"}, run_id=fork)
    tour.until(fork, "cancelled")
    tour.call("POST", "/v1/runs/{run_id}/retry", 202, run_id="bad-1")
    tour.until("bad-1", "failed")
    tour.call("POST", start, 202, {"run_id": "end-1"}, name="asker")
    tour.call("POST", "/v1/runs/{run_id}/terminate", 202, run_id="end-1")
    tour.until("end-1", "terminated")
    tour.call("DELETE", "/v1/runs/{run_id}", 204, run_id="end-1")


def approvals(tour: Tour, settings: LinkSettings) -> None:
    """What is open, the page of a link, deciding both ways."""
    tour.call("GET", "/v1/approvals", 200)
    token = approval_link("ask-1", "go", by="ada", settings=settings).rpartition("/")[2]
    tour.call("GET", "/approvals/{token}", 200, token=token, open_to_all=True)
    options = ["-H", "Content-Type: application/json"]
    tour.call("POST", "/approvals/{token}", 200, {"approved": True}, *options, token=token, open_to_all=True)
    tour.call(
        "POST", "/v1/runs/{run_id}/approvals/{key}", 200, {"approved": True, "by": "ada"}, run_id="ask-1", key="go"
    )
    tour.until("ask-1", "completed")


def schedules(tour: Tour) -> None:
    """A schedule, from its declaration to its end."""
    one = "/v1/schedules/{schedule_id}"
    timing = {"cron": "0 9 * * 1", "timezone": "Europe/Berlin"}
    declared = {"id": "weekly", "workflow": "echo", "timing": timing}
    tour.call("POST", "/v1/schedules", 201, declared)
    tour.call("GET", "/v1/schedules", 200)
    tour.call("GET", one, 200, schedule_id="weekly")
    tour.call("PATCH", one, 200, {"overlap": "queue"}, schedule_id="weekly")
    tour.call("POST", f"{one}/pause", 200, {"note": "holidays"}, schedule_id="weekly")
    tour.call("POST", f"{one}/resume", 200, schedule_id="weekly")
    tour.call("POST", f"{one}/trigger", 202, schedule_id="weekly")
    window = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-20T00:00:00Z"}
    tour.call("POST", f"{one}/backfill", 200, window, schedule_id="weekly")
    begun = tour.call(
        "POST", f"{one}/backfill", 202, window | {"dry_run": False, "max_concurrency": 1}, schedule_id="weekly"
    )
    cancel = one + "/backfills/{backfill_id}/cancel"
    tour.call("POST", cancel, 200, schedule_id="weekly", backfill_id=str(begun["backfill_id"]))
    tour.call("DELETE", one, 204, schedule_id="weekly")


def the_rest(tour: Tour) -> None:
    """What senders, the queue and the scheduler call, and what is open to all."""
    tour.call("GET", "/healthz", 200, open_to_all=True)
    tour.call("GET", "/openapi.json", 200, open_to_all=True)
    tour.call("POST", "/internal/tick", 200)
    tour.call("POST", "/internal/advance", 200, {"run_id": "ask-1"})
    attempt = {"run_id": "ask-1", "generation": 0, "activity_id": 1, "attempt": 1}
    tour.call("POST", "/internal/activity", 200, attempt)
    body = json.dumps({"ref": "refs/heads/main"})
    signature = "sha256=" + hmac.new(b"secret", body.encode(), hashlib.sha256).hexdigest()
    headers = ["Content-Type: application/json", "X-GitHub-Event: push", "X-GitHub-Delivery: 1"]
    options = [word for header in [*headers, f"X-Hub-Signature-256: {signature}"] for word in ("-H", header)]
    tour.call("POST", "/hooks/{name}", 202, body, *options, name="pushes", open_to_all=True)
    tour.call(
        "POST",
        "/hooks/{name}",
        401,
        body,
        *options[:-1],
        "X-Hub-Signature-256: sha256=0",
        name="pushes",
        open_to_all=True,
    )


def main() -> int:
    """Everything, once."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "TINYWORKFLOW_API_KEYS": "key",
            "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{folder}/runs.db",
            "TINYWORKFLOW_LINK_KEYS": LINK_KEY,
            "PUSHES_SECRET": "secret",
        }
        with server("app", environ, source=SOURCE) as front:
            front.wait_until_up()
            tour = Tour(front)
            runs(tour)
            approvals(tour, LinkSettings(keys=(LINK_KEY,), public_url=front.url))
            schedules(tour)
            the_rest(tour)
            document = httpx.get(f"{front.url}/openapi.json").json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    wrong = tour.wrong + [f"{method} {path} was left out" for method, path in sorted(described - tour.visited)]
    print("\n".join(wrong) or f"{len(tour.visited)} routes, each answered as it should")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
