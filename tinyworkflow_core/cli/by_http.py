"""Reaching runs in a deployment, by its HTTP API.

- The key goes as X-API-Key, never over an open line to another machine, and never to where a redirect points.
- Problems become the errors that the deployment has met itself, so that messages and exit codes are the same.
- 429 and 503 are tried again after Retry-After: a 503 only for what may be asked twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ..clock import fresh_id
from ..errors import (
    ApprovalClosedError,
    ApprovalNotFoundError,
    ConfigurationError,
    InvalidInputError,
    RunError,
    StoreUnavailableError,
    TinyWorkflowError,
)
from ..http.wire import MAX_WAIT_SECONDS, error_named
from .reach import MOST, Data, Verb, bare, has_ended, run_data, schedule_data

TRIES = 5
LONGEST_PAUSE = 30.0
"""However long a deployment says to wait."""
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_POLL = (0.1, 2.0)
"""Seconds between two looks at a run that is waited for: at first, and at most."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class HttpReach:
    """A deployment.

    - url: where it is; its paths begin there.
    - key: an API key. None: for local emulation, which asks for none.

    Raises ConfigurationError for a URL that is none, and for a key that anybody on the way could read.
    """

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationError(f"--url: {url!r} is no address such as https://flows.example.com")
        if parts.username or parts.password:
            raise ConfigurationError("--url: an address holds no user and password; set TINYWORKFLOW_API_KEY")
        if key and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise ConfigurationError(f"--url: the key would go to {parts.hostname} in the open; use https://")
        self._url = url.rstrip("/")
        headers = {"X-API-Key": key} if key else {}
        # On an open line there is nothing to verify, and loading the certificates takes longer than most calls.
        verify = parts.scheme == "https"
        self._http = httpx.AsyncClient(headers=headers, timeout=_TIMEOUT, follow_redirects=False, verify=verify)

    async def __aenter__(self) -> HttpReach:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    # --- what can be started ------------------------------------------------------------------

    async def workflows(self) -> list[Data]:
        found: list[Data] = (await self._get("/v1/workflows"))["workflows"]
        return found

    async def activities(self) -> list[Data]:
        found: list[Data] = (await self._get("/v1/activities"))["activities"]
        return found

    # --- runs ---------------------------------------------------------------------------------

    async def start(self, name: str, *, idempotency_key: str | None, **fields: Any) -> str:
        # A run_id says by itself what is the same start, and goes with no key; but to a repetition it would be taken.
        named = fields.get("run_id") is not None and idempotency_key is None
        headers = {} if named else {"Idempotency-Key": idempotency_key or fresh_id(32)}
        body = {field: value for field, value in fields.items() if value is not None}
        path = f"/v1/workflows/{_segment(name)}/runs"
        return str((await self._post(path, body, headers=headers, repeatable=not named))["run_id"])

    async def run(self, run_id: str) -> Data:
        return run_data(await self._get(_run(run_id)))

    async def runs(self, *, limit: int, cursor: str | None = None, **narrowed: Any) -> Data:
        page = await self._get("/v1/runs", limit=limit, cursor=cursor, **narrowed)
        return {"runs": [run_data(one) for one in page["runs"]], "next_cursor": page["next_cursor"]}

    async def events(self, run_id: str, *, after: int = 0, limit: int = MOST) -> Data:
        page = await self._get(f"{_run(run_id)}/events", after=after, limit=limit)
        return {"events": page["events"], "next_after": page["next_after"]}

    async def history(self, run_id: str, *, only_open: bool = False) -> Data | None:
        from ..engine.history import CLOSING

        found: Data = await self._get(f"{_run(run_id)}/history")
        ended = bool(found["history"]) and found["history"][-1]["kind"] in {one.__name__ for one in CLOSING}
        return None if only_open and ended else found

    async def wait(self, run_id: str, timeout: float | None) -> Data:
        pause, most = _POLL
        async with asyncio.timeout(timeout):
            while not has_ended(run := await self.run(run_id)):
                await asyncio.sleep(pause)
                pause = min(2 * pause, most)
        return run

    async def bring(self, run_id: str) -> None:
        await self.wait(run_id, None)

    async def signal(self, run_id: str, name: str, payload: Any) -> None:
        await self._post(f"{_run(run_id)}/signals/{_segment(name)}", payload, headers={"Idempotency-Key": fresh_id(32)})

    async def query(self, run_id: str, name: str, arguments: Sequence[Any]) -> Any:
        return (await self._post(f"{_run(run_id)}/queries/{_segment(name)}", {"args": list(arguments)}))["value"]

    async def update(self, run_id: str, name: str, payload: Any, update_id: str | None, timeout: float | None) -> Any:
        key, path = update_id or fresh_id(32), f"{_run(run_id)}/updates/{_segment(name)}"
        async with asyncio.timeout(timeout):
            while True:
                headers = {"Idempotency-Key": key, "Prefer": f"wait={MAX_WAIT_SECONDS}"}
                answer = await self._post(path, payload, headers=headers)
                if "value" in answer:
                    return answer["value"]

    async def steer(self, verb: Verb, run_id: str, reason: str | None = None) -> None:
        body = {} if reason is None else {"reason": reason}
        headers = {"Idempotency-Key": fresh_id(32)} if verb in ("suspend", "resume") else {}
        await self._post(f"{_run(run_id)}/{verb}", body, headers=headers, repeatable=verb != "retry")

    async def fork(self, run_id: str, at_event: int, input_data: Any) -> str:
        body = {"at_event": at_event, "input": input_data}
        return str((await self._post(f"{_run(run_id)}/fork", body, repeatable=False))["run_id"])

    async def delete(self, run_id: str) -> None:
        await self._ask("DELETE", _run(run_id))

    # --- approvals ----------------------------------------------------------------------------

    async def approvals(self, approver: str | None) -> list[Data]:
        found: list[Data] = []
        cursor = None
        while True:
            page = await self._get("/v1/approvals", approver=approver, limit=MOST - len(found), cursor=cursor)
            found, cursor = found + [bare(one) for one in page["approvals"]], page["next_cursor"]
            if cursor is None or len(found) >= MOST:
                return found[:MOST]

    async def decide(self, run_id: str, key: str | None, **decision: Any) -> str:
        asked = await self._asked(run_id) if key is None else key
        body = {name: value for name, value in decision.items() if value is not None}
        answer = await self._post(f"{_run(run_id)}/approvals/{_segment(asked)}", body)
        return str(answer["key"])

    async def _asked(self, run_id: str) -> str:
        """The key of the only approval that the run asks for, else of the latest that it has asked for."""
        run = await self.run(run_id)
        keys = [str(one["key"]) for one in run["open_approvals"]]
        if len(keys) > 1:
            named = ", ".join(repr(one) for one in keys)
            raise ApprovalNotFoundError(f"run {run_id!r} has several open approvals, name one of {named}", run_id)
        if not keys:
            keys = [one["key"] async for one in self._all_events(run_id) if one["type"] == "ApprovalRequested"]
        if keys:
            return keys[-1]
        if has_ended(run):
            raise ApprovalClosedError(f"run {run_id!r} has ended", run_id)
        raise ApprovalNotFoundError(f"run {run_id!r} has not asked for an approval", run_id)

    async def _all_events(self, run_id: str) -> Any:
        after: int | None = 0
        while after is not None:
            page = await self.events(run_id, after=after)
            for event in page["events"]:
                yield event
            after = page["next_after"]

    # --- schedules ----------------------------------------------------------------------------

    async def declare(self, fields: Mapping[str, Any]) -> str:
        body = {name: value for name, value in fields.items() if value is not None}
        return str((await self._post("/v1/schedules", body, repeatable="id" in body))["id"])

    async def change(self, schedule_id: str, fields: Mapping[str, Any]) -> None:
        await self._ask("PATCH", _schedule(schedule_id), json=dict(fields))

    async def schedule(self, schedule_id: str) -> Data:
        return schedule_data(await self._get(_schedule(schedule_id)))

    async def schedules(self, *, limit: int, after: str | None) -> list[Data]:
        page = await self._get("/v1/schedules", limit=limit, cursor=after)
        return [schedule_data(one) for one in page["schedules"]]

    async def pause(self, schedule_id: str, note: str | None) -> None:
        await self._post(f"{_schedule(schedule_id)}/pause", {} if note is None else {"note": note})

    async def resume(self, schedule_id: str) -> None:
        await self._post(f"{_schedule(schedule_id)}/resume", {})

    async def forget(self, schedule_id: str) -> None:
        await self._ask("DELETE", _schedule(schedule_id))

    async def trigger(self, schedule_id: str) -> str:
        answer = await self._post(f"{_schedule(schedule_id)}/trigger", {}, headers={"Idempotency-Key": fresh_id(32)})
        return str(answer["run_id"])

    async def backfill(self, schedule_id: str, start: datetime, end: datetime, dry_run: bool, most: int) -> Data:
        body = {"start": start.isoformat(), "end": end.isoformat(), "dry_run": dry_run, "max_concurrency": most}
        return bare(await self._post(f"{_schedule(schedule_id)}/backfill", body, repeatable=dry_run))

    async def cancel_backfill(self, schedule_id: str, backfill_id: str) -> None:
        await self._post(f"{_schedule(schedule_id)}/backfills/{_segment(backfill_id)}/cancel", {})

    # --- asking -------------------------------------------------------------------------------

    async def _get(self, path: str, **query: Any) -> Any:
        texts = {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in query.items()
            if value is not None
        }
        return await self._ask("GET", path, params=texts)

    async def _post(
        self, path: str, body: Any, *, headers: Mapping[str, str] | None = None, repeatable: bool = True
    ) -> Any:
        return await self._ask("POST", path, json=body, headers=dict(headers or {}), repeatable=repeatable)

    async def _ask(self, method: str, path: str, *, repeatable: bool = True, **request: Any) -> Any:
        """The JSON that is answered. Raises what the problem stands for."""
        if "Prefer" in request.get("headers", {}):
            request["timeout"] = httpx.Timeout(MAX_WAIT_SECONDS + 30.0, connect=10.0)
        for left in reversed(range(TRIES)):
            try:
                answer = await self._http.request(method, self._url + path, **request)
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
                raise ConnectionError(f"{self._url} does not answer: {said}") from None
            again = answer.status_code == 429 or (answer.status_code == 503 and repeatable)
            if not (again and left):
                break
            await asyncio.sleep(_pause(answer))
        if answer.is_success:
            return _json(answer) if answer.content else None
        raise _error(answer, self._url)


def _pause(answer: httpx.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE) if text.isdigit() else 1.0


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise TinyWorkflowError(f"{answer.url} answered {answer.status_code} with something that is no JSON") from None


def _error(answer: httpx.Response, url: str) -> Exception:
    """What the library itself would have raised where the deployment is; by its status for what only HTTP knows."""
    status = answer.status_code
    problem: Any = None
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        problem = _json(answer)
    if not isinstance(problem, dict):
        hint = "" if status >= 500 else "; is this the address of a deployment, and its root?"
        return _by_status(status)(f"{url} answered {status}{hint}")
    detail, kind = str(problem.get("detail", problem.get("title", status))), str(problem.get("type", ""))
    known = error_named(kind.rpartition(":")[2])
    if known is None:
        return _by_status(status)(detail)
    if issubclass(known, RunError):
        return known(detail, str(problem.get("run_id", "")))
    if issubclass(known, InvalidInputError):
        return known(detail, problem.get("errors"))
    try:
        return known(detail)
    except TypeError:  # it is made of more than words
        return TinyWorkflowError(detail)


def _by_status(status: int) -> type[Exception]:
    if status in (401, 403):
        return PermissionError
    return StoreUnavailableError if status in (429, 502, 503, 504) else TinyWorkflowError


def _run(run_id: str) -> str:
    return f"/v1/runs/{_segment(run_id)}"


def _schedule(schedule_id: str) -> str:
    return f"/v1/schedules/{_segment(schedule_id)}"


def _segment(name: str) -> str:
    """A name as one part of a path: never a way out of it."""
    return quote(name, safe="") if name.strip(".") else quote(name, safe="").replace(".", "%2E")
