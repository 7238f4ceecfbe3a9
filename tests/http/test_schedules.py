"""Schedules over HTTP: declared, seen, changed, steered; and every answer is of the type that is documented."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from tests.http.front import assert_problem, calling, new_app
from tests.scheduling import START
from tinyworkflow_core import App
from tinyworkflow_core.http.operations import Operation, Scope
from tinyworkflow_core.http.schedules import ScheduleRoutes
from tinyworkflow_core.schedule_store import Schedule
from tinyworkflow_core.testing import VirtualClock

SCHEDULES = "/v1/schedules"
DAILY = {"workflow": "echo", "timing": {"cron": "0 9 * * *", "timezone": "Europe/Berlin"}, "id": "daily"}


class Desk:
    """A caller whose answers are compared with what is documented, and the clock of what it calls."""

    def __init__(self, app: App, clock: VirtualClock, caller: httpx.AsyncClient) -> None:
        self.app = app
        self.clock = clock
        self._caller = caller
        self._operations = ScheduleRoutes(app, 0).operations()

    async def ask(self, method: str, path: str, status: int, body: Any = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._caller.request(method, path, json=body, headers=sent)
        assert answer.status_code == status, answer.text
        if status < 400:
            expected = self._operation(method, path).answers[status]
            if expected is not None:
                TypeAdapter(expected).validate_json(answer.content, strict=True)
        return answer

    async def see(self, path: str) -> Any:
        return (await self.ask("GET", path, 200)).json()

    async def post(self, path: str, status: int, body: Any = None, **headers: str) -> Any:
        return (await self.ask("POST", path, status, body, **headers)).json()

    async def refused(self, method: str, path: str, status: int, body: Any, *words: str, **headers: str) -> None:
        answer = await self.ask(method, path, status, body, **headers)
        assert_problem(answer, status, *words)

    async def tick_after(self, **duration: float) -> list[str]:
        self.clock.move_to(self.clock.now() + timedelta(**duration))
        return list((await self.app.tick()).started)

    def _operation(self, method: str, path: str) -> Operation:
        parts = path.partition("?")[0].split("/")
        for one in self._operations:
            pattern = one.path.split("/")
            fits = len(pattern) == len(parts) and all(
                a == b or a.startswith("{") for a, b in zip(pattern, parts, strict=True)
            )
            if fits and one.method == method:
                return one
        raise AssertionError(f"{method} {path} is not documented")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    clock = VirtualClock(START)
    app = new_app(clock=clock, dispatcher="none", api_keys=["key"])
    async with calling(app, emulate=False, headers={"authorization": "Bearer key"}) as caller:
        yield Desk(app, clock, caller)
    await app.close()


async def test_a_schedule_is_declared_by_cron_interval_or_moment_and_fires(desk: Desk) -> None:
    answer = await desk.ask("POST", SCHEDULES, 201, {**DAILY, "input": {"n": 1}})
    made = answer.json()
    assert answer.headers["location"] == made["links"]["self"] == "/v1/schedules/daily"
    assert (made["timing"], made["next_at"]) == (DAILY["timing"], "2026-01-06T08:00:00+00:00")
    often = await desk.post(SCHEDULES, 201, {"workflow": "echo", "timing": {"interval": "6h"}, "jitter": 0.5})
    assert often["timing"] == {"interval": 21600.0, "anchor": "2026-01-05T14:00:00+00:00"}
    body = {"workflow": "echo", "timing": {"at": "2026-01-05T12:00:00+01:00"}, "id": "once"}
    once = await desk.post(SCHEDULES, 201, body)
    assert (once["timing"], once["next_at"]) == ({"at": "2026-01-05T11:00:00+00:00"}, "2026-01-05T11:00:00+00:00")
    assert await desk.tick_after(hours=3) == ["once@20260105T110000Z"]
    once = await desk.see("/v1/schedules/once")
    assert (once["next_at"], once["last_run_id"]) == (None, "once@20260105T110000Z")
    assert (await desk.ask("POST", SCHEDULES, 200, {**DAILY, "input": {"n": 1}})).json() == made, "the same again"
    changed = await desk.post(SCHEDULES, 200, {**DAILY, "overlap": "allow"})
    assert (changed["overlap"], changed["input"], changed["created_at"]) == ("allow", None, made["created_at"])


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"timing": {"cron": "61 * * * *"}}, 422, "cron: minute: '61'"),
        ({"timing": {"cron": "0 9 * *"}}, 422, "has 4 fields instead of five"),
        ({"timing": {"cron": "@daily", "timezone": "Mars"}}, 422, "timezone: 'Mars'"),
        ({"timing": {"cron": "@daily", "interval": 5}}, 422, "Extra inputs"),
        ({"timing": {"interval": "soon"}}, 422, "interval: not a duration"),
        ({"timing": {"interval": 1e300}}, 422, "interval: "),
        ({"timing": {"at": "2026-01-05T07:59:59Z"}}, 422, "has passed"),
        ({"timing": {"at": "9999-12-31T23:59:59Z"}}, 422, "at: 9999"),
        ({"timing": {"at": "2027-01-05T08:00:00"}}, 422, "body.timing.at.at: Input should have timezone"),
        ({"timing": {"at": 1800000000}}, 422, "body.timing.at.at"),
        ({"timing": {"daily": True}}, 422, "give one of {cron, timezone?}, {interval} and {at}"),
        ({"timing": None}, 422, "give one of"),
        ({"workflow": "ecko"}, 404, "did you mean 'echo'"),
        ({"workflow": "order", "input": {"amount": 1}}, 422, "input of workflow 'order'"),
        ({"overlap": "sometimes"}, 422, "overlap"),
        ({"catch_up_window": -1}, 422, "catch_up_window: "),
        ({"jitter": "2d"}, 422, "jitter: "),
        ({"pause_after_failures": 0}, 422, "pause_after_failures"),
        ({"id": "a/b"}, 422, "id: 'a/b'"),
        ({"attributes": {"a": []}}, 422, "attributes"),
        ({"note": "no such field"}, 422, "note"),
    ],
    ids=str,
)
async def test_what_does_not_fit_is_refused_by_name_and_nothing_is_stored(
    desk: Desk, change: dict[str, Any], status: int, words: str
) -> None:
    await desk.refused("POST", SCHEDULES, status, {**DAILY, **change}, words)
    assert await desk.see(SCHEDULES) == {"schedules": [], "next_cursor": None}
    if "workflow" not in change and "id" not in change:
        await desk.post(SCHEDULES, 201, DAILY)
        before = await desk.see("/v1/schedules/daily")
        if change != {"timing": None}:
            await desk.refused("PATCH", "/v1/schedules/daily", status, change, words)
        assert await desk.see("/v1/schedules/daily") == before


async def test_schedules_are_listed_page_by_page_and_a_damaged_one_hides_no_other(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        await desk.post(SCHEDULES, 201, {**DAILY, "id": name})
    first = await desk.see(f"{SCHEDULES}?limit=2")
    assert ([one["id"] for one in first["schedules"]], first["next_cursor"]) == (["a", "b"], "b")
    last = await desk.see(f"{SCHEDULES}?limit=2&cursor=b")
    assert ([one["id"] for one in last["schedules"]], last["next_cursor"]) == (["c"], None)
    assert first["schedules"][0] == await desk.see("/v1/schedules/a")
    await _damage(desk, "b")
    damaged = (await desk.see(SCHEDULES))["schedules"][1]
    assert (set(damaged), damaged["id"]) == ({"id", "problem"}, "b")
    await desk.refused("GET", "/v1/schedules/b", 409, None, "cannot be read")
    await desk.ask("DELETE", "/v1/schedules/b", 204)
    await desk.refused("GET", f"{SCHEDULES}?limit=0", 422, None, "query.limit")


async def _damage(desk: Desk, schedule_id: str) -> None:
    found = await desk.app.store.schedules.get(schedule_id)
    assert isinstance(found, Schedule)
    broken: Any = _Broken(found)
    assert await desk.app.store.schedules.put(broken, expected=found.etag)


class _Broken:
    """A schedule as another release might write it."""

    def __init__(self, found: Schedule) -> None:
        self.id, self.etag, self.wake_at = found.id, "x", None
        self._found = found

    def to_dict(self) -> dict[str, Any]:
        return self._found.to_dict() | {"overlap": "perhaps"}


async def test_a_patch_changes_what_is_given_and_nothing_else(desk: Desk) -> None:
    made = await desk.post(SCHEDULES, 201, {**DAILY, "input": 1, "jitter": 5, "catch_up_window": "2h"})
    changed = (await desk.ask("PATCH", "/v1/schedules/daily", 200, {"overlap": "queue"})).json()
    assert changed == made | {"overlap": "queue", "etag": changed["etag"]}
    change = {"input": None, "catch_up_window": None, "timing": {"interval": 3600}, "pause_after_failures": 2}
    changed = (await desk.ask("PATCH", "/v1/schedules/daily", 200, change)).json()
    assert (changed["input"], changed["catch_up_window"], changed["jitter"]) == (None, None, 5)
    assert (changed["timing"]["interval"], changed["pause_after_failures"]) == (3600, 2)
    same = (await desk.ask("PATCH", "/v1/schedules/daily", 200, {"timing": None, "overlap": None})).json()
    assert same == changed


async def test_a_patch_of_a_state_that_is_no_more_is_refused(desk: Desk) -> None:
    seen = (await desk.ask("POST", SCHEDULES, 201, DAILY)).headers["etag"]
    path = "/v1/schedules/daily"
    answer = await desk.ask("PATCH", path, 200, {"overlap": "allow"}, If_Match=f'"other", {seen}')
    assert answer.headers["etag"] == (await desk.ask("GET", path, 200)).headers["etag"] != seen
    await desk.refused("PATCH", path, 412, {"overlap": "queue"}, "'daily'", If_Match=seen)
    await desk.refused("PATCH", path, 412, {"overlap": "queue"}, "'daily'", If_Match=f"W/{answer.headers['etag']}")
    assert (await desk.see(path))["overlap"] == "allow"
    await desk.ask("PATCH", path, 200, {"overlap": "queue"}, If_Match="*")


async def test_a_schedule_is_paused_resumed_triggered_and_deleted(desk: Desk) -> None:
    await desk.post(SCHEDULES, 201, {**DAILY, "input": "in"})
    paused = await desk.post("/v1/schedules/daily/pause", 200, {"note": "stocktaking"})
    assert (paused["paused"], paused["note"], paused["next_at"]) == (True, "stocktaking", None)
    assert await desk.post("/v1/schedules/daily/pause", 200, {"note": "stocktaking"}) == paused
    assert await desk.tick_after(days=3) == []
    answer = await desk.ask("POST", "/v1/schedules/daily/trigger", 202, Idempotency_Key="k")
    run_id = answer.json()["run_id"]
    assert (await desk.post("/v1/schedules/daily/trigger", 202, Idempotency_Key="k"))["run_id"] == run_id
    assert (await desk.post("/v1/schedules/daily/trigger", 202))["run_id"] != run_id
    run = (await desk._caller.get(answer.headers["location"])).json()
    assert (run["input"], run["attributes"]["schedule_id"]) == ("in", "daily")
    resumed = await desk.post("/v1/schedules/daily/resume", 200)
    assert (resumed["paused"], resumed["note"], resumed["next_at"]) == (False, None, "2026-01-09T08:00:00+00:00")
    await desk.ask("DELETE", "/v1/schedules/daily", 204)
    assert (await desk._caller.get(answer.headers["location"])).status_code == 202, "its runs stay"


async def test_a_window_is_shown_first_filled_when_told_to_and_called_off(desk: Desk) -> None:
    await desk.post(SCHEDULES, 201, DAILY)
    path, window = "/v1/schedules/daily/backfill", {"start": "2026-01-01T00:00:00Z", "end": "2026-01-04T00:00:00Z"}
    shown = await desk.post(path, 200, window)
    assert shown["times"] == [f"2026-01-0{day}T08:00:00+00:00" for day in (1, 2, 3)]
    assert shown["backfill_id"] is None
    assert (await desk._caller.get("/v1/runs")).json()["runs"] == []
    begun = await desk.post(path, 202, {**window, "dry_run": False, "max_concurrency": 2})
    [backfill] = (await desk.see("/v1/schedules/daily"))["backfills"]
    assert (backfill["id"], backfill["started"], backfill["open"], backfill["total"]) == (begun["backfill_id"], 2, 2, 3)
    assert backfill["links"]["cancel"] == begun["links"]["cancel"]
    [over] = (await desk.post(begun["links"]["cancel"], 200))["backfills"]
    assert (over["state"], over["started"]) == ("cancelled", 2)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_concurrency": 0}, "body.max_concurrency"),
        ({"max_concurrency": 101}, "body.max_concurrency"),
        ({"end": "2027-01-01T00:00:00Z", "dry_run": False}, "into the future"),
        ({"start": "0001-01-01T00:00:00Z"}, "start: 0001"),
        ({"start": "yesterday"}, "body.start"),
    ]
    for change, words in wrong:
        await desk.refused("POST", path, 422, {**window, **change}, words)


async def test_every_route_says_that_there_is_no_such_schedule(desk: Desk) -> None:
    window = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    for method, verb, body in (
        ("GET", "", None),
        ("PATCH", "", {"overlap": "allow"}),
        ("DELETE", "", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/trigger", None),
        ("POST", "/backfill", window),
        ("POST", "/backfills/x/cancel", None),
    ):
        for name in ("nightly", "not%20an%20id", "__x__", "x" * 3000):
            await desk.refused(method, f"/v1/schedules/{name}{verb}", 404, body, "there is no schedule")
    await desk.post(SCHEDULES, 201, DAILY)
    await desk.refused("POST", "/v1/schedules/daily/backfills/x/cancel", 404, None, "has no backfill 'x'")


def test_seeing_needs_one_scope_and_everything_else_another() -> None:
    for one in ScheduleRoutes(new_app(), 0).operations():
        assert one.scope is (Scope.READ if one.method == "GET" else Scope.OPERATE)
