"""Workflows on pages: what can be started, seen by whom, and started by a form that its input's schema makes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, Field

from tests.http.front import echo, sleeper
from tests.http.ui.visitor import HOSTILE, visiting, visitors
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.http.ui.workflows import source_of
from tinyworkflow_core.store import RunQuery


class Parcel(BaseModel):
    to: str = Field(description=HOSTILE.replace("\0", ""), title=HOSTILE.replace("\0", "")[:50])
    weight: float = Field(gt=0)
    kind: Literal["letter", "box"] = "box"
    express: bool = False
    tags: list[str] = []
    pickup: AwareDatetime | None = None


@workflow
async def ship(ctx: WorkflowContext, parcel: Parcel) -> Parcel:
    """Ship it </pre><script>alert(1)</script>."""
    return parcel


@workflow(name="ship", version=2)
async def ship_again(ctx: WorkflowContext, pages: int = 3) -> int:
    return pages


@pytest.fixture
async def app() -> AsyncIterator[App]:
    made = App("sqlite:///:memory:", workflows=[echo, sleeper, ship, ship_again], dispatcher="none")
    yield made
    await made.close()


async def inputs(app: App) -> list[tuple[str, int, Any]]:
    found = (await app.store.list(RunQuery())).items
    return [(one.name, one.version, app.codec.plain(one.input)) for one in found]


async def test_a_run_is_started_by_the_form_that_its_schema_makes(app: App) -> None:
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/workflows/ship?version=1")
        form = page.form("/ui/workflows/ship")
        assert {"data.to", "data.weight", "data.kind", "data.express", "data.tags", "data.pickup"} < form.names
        assert (form.fields["data.kind"], form.fields["version"]) == ('"box"', "1")
        wrong = await visitor.send(page, "/ui/workflows/ship", 422, data__to="Ada", data__weight="-1", data__tags="[1")
        assert "must be JSON" in wrong.words
        wrong = await visitor.send(
            page, "/ui/workflows/ship", 422, data__to=HOSTILE, data__weight="-1", data__tags="[1]"
        )
        assert "Weight: Input should be greater than 0" in wrong.words
        assert "Tags: 0: Input should be" in wrong.words
        assert wrong.form("/ui/workflows/ship").fields["data.to"] == HOSTILE.replace("\0", "\ufffd")
        assert await inputs(app) == []
        answer = await visitor.post(
            wrong.form("/ui/workflows/ship"),
            data__to="Ada",
            data__weight="1.5",
            data__express="on",
            data__tags='["a"]',
            workflow_id="mine",
        )
    assert answer.status_code == 303
    (run,) = (await app.store.list(RunQuery(workflow_id="mine"))).items
    assert answer.headers["location"] == f"/ui/runs/{run.run_id}"
    given = {"to": "Ada", "weight": 1.5, "kind": "box", "express": True, "tags": ["a"], "pickup": None}
    assert await inputs(app) == [("ship", 1, given)]


async def test_a_form_starts_one_run_and_says_so_when_it_is_sent_with_another_input(app: App) -> None:
    async with visiting(app) as visitor:
        form = (await visitor.see("/ui/workflows/echo")).form("/ui/workflows/echo")
        first, second = [await visitor.post(form, data='{"a": 1}') for _ in range(2)]
        assert first.headers["location"] == second.headers["location"]
        page = await visitor.see("/ui/workflows/echo")
        page.form("/ui/workflows/echo").fields["once"] = form.fields["once"]
        again = await visitor.send(page, "/ui/workflows/echo", 422, data='{"a": 2}')
        assert "has started another run already" in again.words
        assert (await visitor.post(again.form("/ui/workflows/echo"))).status_code == 303
    assert await inputs(app) == [("echo", 1, {"a": 2}), ("echo", 1, {"a": 1})]


async def test_what_no_field_can_say_is_given_as_json(app: App) -> None:
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/workflows/ship?version=1")
        for text in ("{", "[" * 500, "NaN", HOSTILE.replace("\0", "")):
            wrong = await visitor.send(page, "/ui/workflows/ship", 422, as_json=text)
            assert wrong.form("/ui/workflows/ship").fields["as_json"] == text
        pickup = "2026-03-01T10:00:00+01:00"
        form = page.form("/ui/workflows/ship")
        body = f'{{"to": "A", "weight": 1, "pickup": "{pickup}"}}'
        assert (await visitor.post(form, as_json=body, data__to="B")).status_code == 303
        empty = (await visitor.see("/ui/workflows/sleeper")).form("/ui/workflows/sleeper")
        assert (await visitor.post(empty)).status_code == 303
    none, one = await inputs(app)
    assert none == ("sleeper", 1, None)
    assert one[2]["to"] == "A"
    assert datetime.fromisoformat(one[2]["pickup"]) == datetime.fromisoformat(pickup)


async def test_the_latest_version_is_shown_and_started_unless_another_one_is_asked_for(app: App) -> None:
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/workflows/ship")
        assert "Version 2 (new runs take it) All versions 1 , 2" in page.words
        assert "/ui/workflows/ship?version=1" in page.links
        assert (await visitor.post(page.form("/ui/workflows/ship"))).status_code == 303
        assert "Start a run of version 1" in (await visitor.see("/ui/workflows/ship?version=1")).words
        for wrong in ("3", "0", "x", "9" * 5000, "²"):
            await visitor.see(f"/ui/workflows/ship?version={wrong}", 404)
        await visitor.see("/ui/workflows/%3Cscript%3E", 404)
    assert await inputs(app) == [("ship", 2, None)]


async def test_source_is_shown_to_readers_alone_and_only_where_it_is_what_runs(app: App) -> None:
    async with visitors(app, reader=["read", "start"], starter=["start"], only_reader=["read"]) as by:
        page = await by["reader"].see("/ui/workflows/ship?version=1")
        assert "@workflow async def ship(ctx: WorkflowContext, parcel: Parcel)" in page.words
        assert "</pre><script>alert(1)</script>" in page.words
        blind = await by["starter"].see("/ui/workflows/ship?version=1")
        assert "async def ship" not in blind.words
        assert "Latest runs" not in blind.words
        assert blind.has_form("/ui/workflows/ship")
        await by["only_reader"].see("/ui/workflows", 403)
    made: dict[str, Any] = {}
    exec("async def typed(ctx): return 1", made)
    assert source_of(workflow(lint="off")(made["typed"])) is None


async def test_a_caller_for_some_workflows_meets_no_others(app: App) -> None:
    async with visitors(app, few={"scopes": ["all"], "workflows": ["echo", "sleep*"]}) as by:
        page = await by["few"].see("/ui/workflows")
        assert "/ui/workflows/echo" in page.links
        assert "/ui/workflows/ship" not in page.links
        await by["few"].see("/ui/workflows/ship", 403)
        form = (await by["few"].see("/ui/workflows/echo")).form("/ui/workflows/echo")
        form.action = "/ui/workflows/ship"
        assert (await by["few"].post(form)).status_code == 403
        form.action, form.fields["csrf"] = "/ui/workflows/echo", "no"
        assert (await by["few"].post(form)).status_code == 403
    assert await inputs(app) == []


async def test_what_cannot_be_stored_is_told_on_the_page(app: App) -> None:
    async with visiting(app) as visitor:
        page = await visitor.see("/ui/workflows/echo")
        assert (
            "Workflow id: must have at most 200"
            in (await visitor.send(page, "/ui/workflows/echo", 422, workflow_id="w" * 201)).words
        )
        assert "not JSON" in (await visitor.send(page, "/ui/workflows/echo", 422, data="1", as_json="{")).words
    assert await inputs(app) == []
