"""The page of limits: each line of it is lifted, by the example that stands on the page itself."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinyworkflow_core import ApplicationError, WorkflowContext, WorkflowFailedError, activity_context, workflow
from tinyworkflow_core.errors import DeterminismError
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import START, WorkflowEnvironment, four_ways

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/limits.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """All Python blocks of the page, as one module."""
    with pytest.MonkeyPatch.context() as patch:
        yield _import("page_limits", "\n\n".join(blocks("python")), tmp_path_factory.mktemp("page"), patch)
        del sys.modules["page_limits"]


def _import(name: str, code: str, folder: Path, patch: pytest.MonkeyPatch) -> ModuleType:
    (folder / f"{name}.py").write_text(code)
    patch.syspath_prepend(folder)
    return importlib.import_module(name)


@pytest.fixture
def calls() -> Counter[str]:
    return Counter()


def counted(calls: Counter[str], *names: str, returns: Any = "done") -> dict[str, Callable[..., Any]]:
    """Activities that only count their calls."""

    def call(name: str) -> Callable[..., Any]:
        def body(*args: Any) -> Any:
            calls[name] += 1
            return returns

        return body

    return {name: call(name) for name in names}


def failing(calls: Counter[str], name: str, times: int) -> dict[str, Callable[..., Any]]:
    """An activity whose first attempts fail."""

    def body(*args: Any) -> str:
        calls[name] += 1
        if calls[name] <= times:
            raise ConnectionError(f"call {calls[name]}")
        return f"call {calls[name]}"

    return {name: body}


async def test_1_a_retry_runs_only_what_failed(page: ModuleType, calls: Counter[str]) -> None:
    replaced = counted(calls, "step1", "step2") | failing(calls, "step3", 2)
    async with WorkflowEnvironment([page.example], activities=replaced) as world:
        run_id = await world.start(page.example)
        assert await world.result(run_id) == "call 3"
        assert calls == {"step1": 1, "step2": 1, "step3": 3}
        assert len(await world.events(run_id, "ActivityCompleted")) == 3
        assert (await world.status(run_id)).retry_count == 2


async def test_1_a_person_retries_a_failed_run_from_where_it_failed(page: ModuleType, calls: Counter[str]) -> None:
    replaced = counted(calls, "step1", "step2") | failing(calls, "step3", 3)
    async with WorkflowEnvironment([page.example], activities=replaced) as world:
        run_id = await world.start(page.example)
        with pytest.raises(WorkflowFailedError):
            await world.result(run_id)
        assert calls["step3"] == 3
        await world.client.retry_workflow(run_id)
        assert await world.result(run_id) == "call 4"
        assert calls == {"step1": 1, "step2": 1, "step3": 4}


def test_2_the_dangerous_example_is_refused_with_its_three_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = blocks("py")
    with pytest.raises(DeterminismError) as refused:
        _import("page_limits_refused", code, tmp_path, monkeypatch)
    for asked, instead in [("uuid.uuid4", "ctx.uuid4"), ("datetime.now", "ctx.now"), ("random.randint", "ctx.random")]:
        [number] = [n for n, line in enumerate(code.splitlines(), start=1) if f"{asked}(" in line]
        [finding] = [line for line in str(refused.value).splitlines() if f"page_limits_refused.py:{number}" in line]
        assert instead in finding


async def test_2_the_mended_example_is_the_same_on_every_replay(page: ModuleType) -> None:
    results = []
    for always_replay in (False, True):
        async with WorkflowEnvironment([page.good_example], always_replay=always_replay) as world:
            results.append(await world.result(await world.start(page.good_example, run_id="the-same")))
    assert results[0] == results[1]
    assert re.fullmatch(r"[0-9a-f-]{36} 2026-01-01 \d+", results[0])


async def test_3_a_timer_survives_the_end_of_every_process(page: ModuleType, calls: Counter[str]) -> None:
    replaced = counted(calls, "send_email", "send_reminder")
    async with WorkflowEnvironment([page.workflow_with_timer], activities=replaced) as world:
        run_id = await world.start(page.workflow_with_timer)
        await world.advance("59m")
        world.lose_everything()
        assert calls == {"send_email": 1}
        await world.result(run_id)
        assert calls == {"send_email": 1, "send_reminder": 1}
        assert world.clock.now() - START == timedelta(hours=1)


async def test_4_a_signal_arrives_and_nothing_is_polled_meanwhile(page: ModuleType) -> None:
    async with WorkflowEnvironment([page.workflow_waiting_for_signal]) as world:
        run_id = await world.start(page.workflow_waiting_for_signal)
        await world.run()
        before = (world.writes, world.hops[run_id])
        await world.advance("30d")
        assert (world.writes, world.hops[run_id]) == before
        await world.signal(run_id, "approval_signal", {"approved": True})
        assert await world.result(run_id) == {"approved": True}


async def test_5_what_was_booked_is_cancelled_in_reverse_order(page: ModuleType) -> None:
    undone: list[str] = []
    replaced = dict.fromkeys(("cancel_hotel", "cancel_flight"), undone.append)

    async def scenario(world: WorkflowEnvironment) -> None:
        undone.clear()
        run_id = await world.start(page.booking_workflow)
        with pytest.raises(WorkflowFailedError, match="declined") as failed:
            await world.result(run_id)
        assert isinstance(failed.value.__cause__, ApplicationError)
        assert list(dict.fromkeys(undone)) == ["flight 12", "hotel 7"]
        assert not world.plain or len(undone) == 2

    assert await four_ways(scenario, [page.booking_workflow], activities=replaced) > 2


async def test_6_a_run_in_flight_ends_on_its_version_and_new_ones_take_the_next(page: ModuleType) -> None:
    store = open_store("sqlite:///:memory:")
    before = WorkflowEnvironment([page.my_workflow_v1], store=store)
    in_flight = await before.start("my_workflow")
    await before.run()
    after = WorkflowEnvironment([page.my_workflow_v1, page.my_workflow_v2], store=store)
    after.clock.move_to(START + timedelta(days=1))
    assert await after.result(in_flight) == {"result": 3}
    assert await after.result(await after.start("my_workflow")) == {"result": 103}
    await store.close()


async def test_6_a_patch_changes_new_runs_only(page: ModuleType) -> None:
    unpatched = before_the_patch(page)
    store = open_store("sqlite:///:memory:")
    before = WorkflowEnvironment([unpatched], store=store)
    in_flight = await before.start("patched_workflow")
    await before.run()
    after = WorkflowEnvironment([page.patched_workflow], store=store)
    after.clock.move_to(START + timedelta(days=1))
    assert await after.result(in_flight) == {"result": 3}
    assert await after.result(await after.start("patched_workflow")) == {"result": 103}
    await store.close()


def before_the_patch(page: ModuleType) -> Any:
    @workflow(name="patched_workflow")
    async def unpatched_workflow(ctx: WorkflowContext) -> dict[str, int]:
        step1 = await ctx.execute_activity(page.activity_a)
        await ctx.sleep("1d")
        step2 = await ctx.execute_activity(page.activity_b)
        return {"result": step1 + step2}

    return unpatched_workflow


async def test_7_each_call_keeps_to_its_own_policy(page: ModuleType) -> None:
    def fetch(url: str) -> str:
        if activity_context().attempt <= {"patiently": 4, "now": 1}[url]:
            raise ConnectionError("away")
        return url

    async with WorkflowEnvironment([page.choosy], activities={"fetch": fetch}) as world:
        run_id = await world.start(page.choosy)
        began = world.clock.now()
        assert await world.result(run_id) == ["patiently", "now", "answered"]
        failed = await world.events(run_id, "ActivityFailed")
        assert Counter(one["id"] for one in failed) == {1: 4, 2: 1, 3: 1}
        assert 100 < (world.clock.now() - began).total_seconds() < 110

    def never(url: str) -> str:
        raise ValueError(f"{url} is no address")

    async with WorkflowEnvironment([page.choosy], activities={"fetch": never}) as world:
        run_id = await world.start(page.choosy)
        with pytest.raises(WorkflowFailedError, match="no address"):
            await world.result(run_id)
        assert len(await world.events(run_id, "ActivityFailed")) == 1


async def test_8_a_run_of_a_year_keeps_a_short_history(page: ModuleType) -> None:
    async with WorkflowEnvironment([page.daily]) as world:
        run_id = await world.start(page.daily)
        assert await world.result(run_id) == "a year, of which this is generation 364"
        assert world.clock.now() - START == timedelta(days=365)
        assert len(await world.events(run_id)) < 5


async def test_9_a_parent_waits_for_its_children_and_gets_their_results(page: ModuleType) -> None:
    async with WorkflowEnvironment([page.square, page.sum_of_squares]) as world:
        run_id = await world.start(page.sum_of_squares, 4)
        assert await world.result(run_id) == 1 + 4 + 9 + 16
        runs = await world.client.list_workflow_executions(workflow_name="square")
        assert {one.parent_run_id for one in runs} == {run_id}
        assert len(runs) == 4


async def test_10_a_charge_that_was_made_is_not_made_again(page: ModuleType) -> None:
    orders: dict[str, int] = {}

    def charge(amount: int) -> str:
        orders.setdefault(activity_context().idempotency_key, amount)
        return "paid"

    async def scenario(world: WorkflowEnvironment) -> None:
        orders.clear()
        run_id = await world.start(page.purchase, 10)
        await world.advance("29d")
        world.lose_everything()
        assert await world.result(run_id) == "paid"
        assert list(orders.values()) == [10]

    assert await four_ways(scenario, [page.purchase], activities={"charge": charge}) > 2


# --- the page ----------------------------------------------------------------------------------------


def test_every_line_of_the_limits_page_has_a_row_a_section_and_a_proof_that_exists() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| (\d+) \|.*\|$", text, re.MULTILINE)
    sections = re.findall(r"^## (\d+) ", text, re.MULTILINE)
    assert rows == sections == [str(number) for number in range(1, 11)]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    for path, test in named:
        assert re.search(rf"^(?:async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE), test
    here = set(re.findall(r"^(?:async )?def (test_\d+_\w+)\(", Path(__file__).read_text(), re.MULTILINE))
    assert here == {test for path, test in named if path == "tests/test_limits.py"}
