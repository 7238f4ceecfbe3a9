"""What differs on every replay is refused when the workflow is declared, with its line; what stands in for it does not
differ."""

from __future__ import annotations

import datetime as dt
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.engine.activities import inc
from tests.engine.history_builder import FACTS, Begin, codec, stored
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.engine.replay import Completed, Execution
from tinyworkflow_core.errors import DeterminismError, DeterminismWarning

REFUSED = {
    "now": "import datetime",
    "clock": "from datetime import datetime",
    "uuid": "import uuid",
    "chance": "import random",
    "nap": "import time",
    "file": "",
    "request": "import requests",
}
CALLS = {
    "now": "datetime.datetime.now()",
    "clock": "datetime.now()",
    "uuid": "uuid.uuid4()",
    "chance": "random.random()",
    "nap": "time.sleep(1)",
    "file": 'open("orders.csv")',
    "request": 'requests.get("https://example.org")',
}
INSTEAD = {
    "now": "ctx.now()",
    "clock": "ctx.now()",
    "uuid": "ctx.uuid4()",
    "chance": "ctx.random()",
    "nap": "ctx.sleep",
    "file": "activity",
    "request": "activity",
}

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports source text as a module, with a stand-in for requests."""
    stand_in = ModuleType("requests")
    exec("def get(url): ...", stand_in.__dict__)  # a function whose module is requests
    monkeypatch.setitem(sys.modules, "requests", stand_in)

    def load(source: str) -> ModuleType:
        path = tmp_path / "declared.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("declared", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "declared", module)
        spec.loader.exec_module(module)
        return module

    return load


def source_of(what: str, *, in_helper: bool, options: str = "") -> tuple[str, int]:
    """A module with a workflow that makes that call itself, or in a function it calls; and the line of the call."""
    lines = [REFUSED[what], "from tinyworkflow_core import workflow", ""]
    if in_helper:
        lines += ["def helper():", f"    return {CALLS[what]}", ""]
    lines += [f"@workflow{options}", "async def declared(ctx):"]
    lines += ["    return helper()" if in_helper else f"    return {CALLS[what]}"]
    [line] = [i for i, text in enumerate(lines, start=1) if CALLS[what] in text]
    return "\n".join(lines) + "\n", line


@pytest.mark.parametrize("in_helper", [False, True], ids=["body", "helper"])
@pytest.mark.parametrize("what", list(CALLS))
def test_what_differs_on_replay_is_refused_with_its_line_and_what_to_write_instead(
    load: Load, tmp_path: Path, what: str, in_helper: bool
) -> None:
    source, line = source_of(what, in_helper=in_helper)
    with pytest.raises(DeterminismError) as raised:
        load(source)
    assert f"{tmp_path / 'declared.py'}:{line}" in str(raised.value)
    assert INSTEAD[what] in str(raised.value)
    assert len(raised.value.findings) == 1


def test_a_workflow_may_ask_for_a_warning_or_for_no_check(load: Load) -> None:
    source, line = source_of("uuid", in_helper=False, options='(lint="warn")')
    with pytest.warns(DeterminismWarning, match=rf"declared\.py:{line}"):
        load(source)
    source, _ = source_of("uuid", in_helper=False, options='(lint="off")')
    load(source)


async def fateful(ctx: WorkflowContext) -> list[Any]:
    """All that stands in for time and chance, before and after a step, and in two tasks."""

    def drawn() -> list[Any]:
        return [ctx.now(), ctx.uuid4(), ctx.random().random(), ctx.random().randint(1, 6), ctx.uuid4()]

    first = drawn()
    await ctx.execute_activity(inc, 1)
    await ctx.sleep(60)
    return [first, drawn()]


def test_time_and_chance_are_the_same_in_every_replay_at_every_cut(begin: Begin) -> None:
    run = begin(fateful)
    run.later(5).complete(run.activities[0], 2)
    run.later(60).fire(run.timers[0])
    first, second = run.result
    assert second[0] - first[0] >= dt.timedelta(seconds=65)
    drawn = [*first[1:], *second[1:]]
    assert len({str(one) for one in drawn if not isinstance(one, int)}) == 6  # no two alike
    for cut in range(1, len(run.history) + 1):
        again = Execution(run.code, stored(run.history[:cut]), facts=FACTS, codec=codec)
        again.step(stored(run.history[cut:]))
        assert isinstance(again.outcome, Completed), inspect.cleandoc(str(again.outcome))
        assert codec.decode(again.outcome.output) == run.result
        again.close()


def test_each_run_and_each_generation_draws_its_own(begin: Begin) -> None:
    async def draws(ctx: WorkflowContext) -> list[Any]:
        return [ctx.random().random(), ctx.uuid4()]

    facts = (FACTS, replace(FACTS, run_id="run-2"), replace(FACTS, generation=1))
    drawn = [begin(draws, facts=one).result for one in facts]
    assert len({one[0] for one in drawn}) == len({one[1] for one in drawn}) == 3
