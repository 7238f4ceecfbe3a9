"""Definitions: what the decorators accept, what they give, and how a registry finds it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import importlib
import inspect
import os
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, assert_type, cast

import pydantic
import pytest
from typing_extensions import TypedDict

from tinyworkflow_core import RetryPolicy, activity, workflow
from tinyworkflow_core.errors import (
    DefinitionError,
    DeterminismError,
    DeterminismWarning,
    DuplicateDefinitionError,
    InvalidInputError,
    UnknownWorkflowError,
)
from tinyworkflow_core.registry import ActivityDefinition, Registry, WorkflowDefinition

if TYPE_CHECKING:  # as in much user code: the context's class is known to type checkers alone
    from tinyworkflow_core import WorkflowContext


class Order(pydantic.BaseModel):
    number: int
    tags: list[str] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict):
    deep: bool


class Opaque:
    """Nothing that pydantic could validate."""


def a_workflow(name: str = "one", version: int = 1, result: int = 0) -> WorkflowDefinition[Any]:
    """A definition from this one place, whatever its name."""

    @workflow(name=name, version=version)
    async def made(ctx: WorkflowContext) -> int:
        return result

    return made


def elsewhere(name: str = "one", version: int = 1) -> WorkflowDefinition[Any]:
    """A definition from another place."""

    @workflow(name=name, version=version)
    async def also_made(ctx: WorkflowContext) -> int:
        return 1

    return also_made


def face_of(thing: Any) -> tuple[str, str, str, str]:
    """What a reader of a function sees of it."""
    return (thing.__name__, thing.__doc__, thing.__module__, thing.__qualname__)


# --- activities --------------------------------------------------------------------------------------


def test_a_bare_and_a_called_decorator_give_the_same_activity() -> None:
    def pay(amount: int) -> int:
        """Pay."""
        return -amount

    for definition in (activity(pay), activity()(pay), activity(None, None, None)(pay)):
        assert (definition.name, definition.timeout, definition.retry_policy) == ("pay", None, RetryPolicy())
        assert face_of(definition) == face_of(pay) == ("pay", "Pay.", __name__, pay.__qualname__)
        assert inspect.unwrap(definition) is pay
        assert definition(3) == -3


def test_an_activity_takes_its_name_policy_and_timeout_by_position_and_by_keyword() -> None:
    policy = RetryPolicy(max_retries=7)

    def pay() -> None: ...

    for definition in (
        activity("charge", policy, "1m")(pay),
        activity(name="charge", retry_policy=policy, timeout=60)(pay),
    ):
        assert (definition.name, definition.retry_policy, definition.timeout) == ("charge", policy, 60.0)
        assert face_of(definition) == face_of(pay)


async def test_calling_a_definition_runs_the_plain_function() -> None:
    @activity
    async def shout(text: str) -> str:
        return text.upper()

    @workflow(lint="off")  # it calls an activity as a plain function, which is what is shown here
    async def twice(ctx: Any, text: str) -> str:
        return await shout(text) * 2

    assert await shout("a") == "A"
    assert await twice(None, "a") == "AA"


def test_options_change_what_they_name_and_leave_the_activity_as_it_was() -> None:
    policy = RetryPolicy(max_retries=1)

    @activity(timeout=5)
    def pay(amount: int) -> int:
        return -amount

    assert pay.options() is not pay
    assert pay.options().timeout == 5.0
    assert pay.options(timeout=timedelta(minutes=1)).timeout == 60.0
    assert pay.options(retry_policy=policy).retry_policy is policy
    changed = pay.options(name="charge").options(timeout="2s")
    assert (changed.name, changed.timeout, face_of(changed), changed(3)) == ("charge", 2.0, face_of(pay), -3)
    assert (pay.name, pay.timeout, pay.retry_policy) == ("pay", 5.0, RetryPolicy())


def test_an_activitys_variants_are_not_activities_of_their_own() -> None:
    @activity
    def the_only_one_of_this_name() -> None: ...

    variant = the_only_one_of_this_name.options(timeout=1)
    renamed = the_only_one_of_this_name.options(name="the only one, renamed")
    known = {one.name: one for one in Registry().activities()}
    assert known["the_only_one_of_this_name"] is the_only_one_of_this_name
    assert renamed.name not in known
    assert variant.timeout == 1


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: activity()(cast("Any", 3)), "goes on a function, not on 3"),
        (lambda: activity(functools.partial(print, 1)), "has no name of its own"),
        (lambda: activity(cast("Any", 3))(print), "the name of an activity is a text, not 3"),
    ],
)
def test_what_cannot_be_an_activity_is_refused(declare: Callable[[], Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        declare()


@activity
def undo(receipt: str) -> None: ...


@activity(run_on="queue")
async def asks(number: int) -> str:
    return str(number)


def no_activity() -> None: ...


EVERY_SETTING: dict[str, tuple[Any, Any]] = {
    "name": ("charge", "charge"),
    "retry_policy": (RetryPolicy(max_retries=9), RetryPolicy(max_retries=9)),
    "timeout": ("5s", 5.0),
    "total_timeout": (timedelta(minutes=2), 120.0),
    "heartbeat_timeout": (0.5, 0.5),
    "compensate": (undo, undo),
    "at_most_once": (True, True),
    "run_on": ("queue", "queue"),
}
"""What is given, and what the definition then holds."""


@pytest.mark.parametrize("setting", EVERY_SETTING)
def test_every_setting_of_an_activity_can_be_declared_or_changed_by_options_alone(setting: str) -> None:
    def pay() -> None: ...

    given, held = EVERY_SETTING[setting]
    plain = activity(pay)
    for definition in (activity(**{setting: given})(pay), plain.options(**{setting: given})):
        assert getattr(definition, setting) == held
        for other in EVERY_SETTING.keys() - {setting}:
            assert getattr(definition, other) == getattr(plain, other)
        assert getattr(definition.options(), setting) == held


def test_an_activity_without_settings_has_no_limits_and_is_retried_here() -> None:
    @activity
    def pay() -> None: ...

    assert (pay.timeout, pay.total_timeout, pay.heartbeat_timeout, pay.compensate) == (None, None, None, None)
    assert (pay.at_most_once, pay.run_on, pay.retry_policy) == (False, "here", RetryPolicy())


def test_what_an_activity_promised_can_be_taken_back_for_one_call() -> None:
    @activity(at_most_once=True)
    def once() -> None: ...

    assert once.options(at_most_once=False, run_on="queue").at_most_once is False
    assert asks.options(run_on="here", at_most_once=True).at_most_once is True


BAD_SETTINGS = [
    ({"timeout": "soon"}, r"timeout: not a duration: 'soon'"),
    ({"timeout": -1}, r"timeout: .*not negative: -1"),
    ({"timeout": 0}, r"timeout must be more than 0 seconds; leave it out for no limit"),
    ({"timeout": []}, r"timeout: "),
    ({"total_timeout": float("nan")}, r"total_timeout: "),
    ({"total_timeout": "0s"}, r"total_timeout must be more than 0"),
    ({"heartbeat_timeout": timedelta(0)}, r"heartbeat_timeout must be more than 0"),
    ({"heartbeat_timeout": "x"}, r"heartbeat_timeout: not a duration: 'x'"),
    ({"retry_policy": 3}, r"retry_policy takes a RetryPolicy\(\.\.\.\), not 3"),
    ({"compensate": no_activity}, r"compensate takes an activity, .*; put @activity on 'no_activity'"),
    ({"compensate": "undo"}, r"compensate takes an activity, not 'undo'; declare one"),
    ({"at_most_once": 1}, r"at_most_once is True or False, not 1"),
    ({"run_on": "moon"}, r"run_on is 'here' or 'queue', not 'moon'"),
    ({"at_most_once": True, "run_on": "queue"}, r"at_most_once cannot be kept with run_on='queue', .*idempotency_key"),
]


@pytest.mark.parametrize(("settings", "words"), BAD_SETTINGS, ids=lambda value: str(value).partition(" at 0x")[0][:60])
def test_settings_that_make_no_sense_are_refused_by_name_with_the_way_out(settings: Any, words: str) -> None:
    for declare in (activity(**settings), lambda fn: activity(fn).options(**settings)):
        with pytest.raises(DefinitionError, match=f"^activity 'no_activity': {words}"):
            declare(no_activity)


def test_a_variant_is_held_to_the_same_rules_as_the_whole_it_becomes() -> None:
    @activity(at_most_once=True)
    def once() -> None: ...

    with pytest.raises(DefinitionError, match="cannot be kept with run_on='queue'"):
        once.options(run_on="queue")
    with pytest.raises(DefinitionError, match="the name of an activity is a text, not ''"):
        once.options(name="")


def test_two_activities_are_the_same_only_if_they_are_one() -> None:
    def pay() -> None: ...

    one, other = activity(pay), activity(pay)
    assert one != other
    assert len({one, other, one.options()}) == 3


def test_a_function_without_a_name_is_an_activity_once_it_is_given_one() -> None:
    definition = activity(name="double")(functools.partial(int.__mul__, 2))
    assert (definition.name, definition(21)) == ("double", 42)


# --- workflows ---------------------------------------------------------------------------------------


def test_a_bare_and_a_called_decorator_give_the_same_workflow() -> None:
    async def order(ctx: WorkflowContext) -> None:
        """Order something."""

    for definition in (workflow(order), workflow()(order), workflow(None)(order)):
        assert (definition.name, definition.version) == ("order", 1)
        assert face_of(definition) == face_of(order) == ("order", "Order something.", __name__, order.__qualname__)
    named = workflow("buy", version=3)(order)
    assert (named.name, named.version, face_of(named)) == ("buy", 3, face_of(order))


def test_a_workflow_takes_its_name_policy_and_timeout_by_position_and_by_keyword() -> None:
    policy = RetryPolicy(max_retries=2)

    async def order(ctx: WorkflowContext) -> None: ...

    for definition in (
        workflow("buy", policy, "2h")(order),
        workflow(name="buy", retry_policy=policy, timeout=timedelta(hours=2))(order),
    ):
        assert (definition.name, definition.retry_policy, definition.timeout) == ("buy", policy, 7200.0)
    bare = workflow(order)
    assert (bare.retry_policy, bare.timeout, bare.lint) == (None, None, "error")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"retry_policy": "often"}, r"retry_policy takes a RetryPolicy\(\.\.\.\), not 'often'"),
        ({"timeout": 0}, "timeout must be more than 0 seconds"),
        ({"timeout": "late"}, "timeout: not a duration: 'late'"),
        ({"lint": "on"}, "lint is 'error', 'warn' or 'off', not 'on'"),
    ],
    ids=str,
)
def test_a_workflows_settings_that_make_no_sense_are_refused_by_name(settings: Any, words: str) -> None:
    async def order(ctx: WorkflowContext) -> None: ...

    with pytest.raises(DefinitionError, match=f"^workflow 'order': {words}"):
        workflow(**settings)(order)


def test_a_workflow_definition_is_typed_by_what_its_coroutine_gives() -> None:
    @workflow
    async def bare(ctx: WorkflowContext) -> int:
        return 1

    @workflow(version=2)
    async def called(ctx: WorkflowContext, name: str) -> list[str]:
        return [name]

    # A type checker is who reads these; when they run they do nothing.
    assert_type(bare, WorkflowDefinition[int])
    assert_type(called, WorkflowDefinition[list[str]])
    assert_type(undo("receipt"), None)
    shown: ActivityDefinition[[int], Coroutine[Any, Any, str]] = asks.options(timeout=1)
    assert shown.name == asks.name


# --- what a workflow's code is recognised by ---------------------------------------------------------


def made_from(source: str, tmp_path: Path, name: str = "made_here") -> WorkflowDefinition[Any]:
    """The workflow `wf` of a module with this source, in a file of its own."""
    path = tmp_path / f"{name}.py"
    path.write_text("import functools\nfrom tinyworkflow_core import workflow\n" + source)
    names: dict[str, Any] = {"__name__": name}
    exec(compile(path.read_text(), str(path), "exec"), names)
    definition: WorkflowDefinition[Any] = names["wf"]
    return definition


CODE = """
@workflow
async def wf(ctx, number=1):
    x = await ctx.sleep(number + 1)
    return {"x": x}
"""


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("    x =", "    # why\n\n    x =").replace("number + 1", "(number  +  1)"),
        CODE.replace("    x =", '    """What it does."""\n    x ='),
        CODE.replace("@workflow", "@workflow(version=2, timeout='1h')"),
        CODE.replace("{", "{\n").replace('"', "'"),
        "if True:\n" + "".join(f"    {line}\n" if line else "\n" for line in CODE.splitlines()),
    ],
    ids=["comments", "docstring", "settings", "layout", "depth"],
)
def test_a_fingerprint_stays_the_same_when_only_the_look_of_the_code_changes(other: str, tmp_path: Path) -> None:
    fingerprint = made_from(CODE, tmp_path, "one").fingerprint
    assert re.fullmatch("[0-9a-f]{16}", fingerprint)
    assert made_from(other, tmp_path, "other").fingerprint == fingerprint


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("number + 1", "number + 2"),
        CODE.replace("ctx.sleep", "ctx.sleep_until"),
        CODE.replace('"x"', '"y"'),
        CODE.replace("number=1", "number=2"),
        CODE.replace("    return", "    await ctx.sleep(0)\n    return"),
    ],
)
def test_a_fingerprint_changes_with_the_code(other: str, tmp_path: Path) -> None:
    assert made_from(CODE, tmp_path, "one").fingerprint != made_from(other, tmp_path, "other").fingerprint


def test_a_text_that_spans_lines_is_part_of_the_fingerprint_at_any_depth(tmp_path: Path) -> None:
    deep = 'if True:\n    @workflow\n    async def wf(ctx):\n        return """a\n{}b"""\n'
    one, other = (made_from(deep.format(margin), tmp_path, f"deep{len(margin)}") for margin in ("", "    "))
    assert one.fingerprint != other.fingerprint


def test_a_wrapped_workflow_is_recognised_by_what_was_written(tmp_path: Path) -> None:
    wrapper = """
def traced(fn):
    @functools.wraps(fn)
    async def inner(ctx):
        return await fn(ctx)
    return inner
"""
    wrapped = made_from(wrapper + CODE.replace("@workflow\n", "@workflow\n@traced\n"), tmp_path, "wrapped")
    assert wrapped.fingerprint == made_from(CODE, tmp_path, "bare").fingerprint


def without_source(source: str) -> WorkflowDefinition[Any]:
    names: dict[str, Any] = {"workflow": workflow}
    exec(source, names)
    definition: WorkflowDefinition[Any] = names["wf"]
    return definition


def test_code_without_a_source_is_recognised_by_what_it_does() -> None:
    nested = CODE.replace('{"x": x}', "[f(y) for y in x if y in {'a', 'b', 'c'} or (lambda: y + 1)()]")
    seen = set()
    for source in (
        CODE,
        nested,
        nested.replace("y + 1", "y + 2"),
        CODE.replace("sleep", "wait"),
        CODE.replace("+", "-"),
    ):
        fingerprint = without_source(source).fingerprint
        assert without_source("\n\n# moved down\n" + source).fingerprint == fingerprint
        seen.add(fingerprint)
    assert len(seen) == 5


def test_a_fingerprint_without_a_source_is_the_same_in_every_process() -> None:
    source = "@workflow\nasync def wf(ctx):\n    return (lambda: ctx.x in {'a', 'b', 'c', 'd', 'e'})()"
    code = (
        "from tinyworkflow_core import workflow\n"
        "names = {'workflow': workflow}\n"
        f"exec({source!r}, names)\n"
        "print(names['wf'].fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(prints) == 1
    assert len(prints.pop().strip()) == 16


# --- lint --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Finding:
    """As lint gives them."""

    line: int
    file: str = "shop.py"
    what: str = "datetime.now()"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}: differs on every replay; write ctx.now() instead"


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The functions that the lint, which finds two places in every one of them, was asked about."""
    asked: list[Any] = []

    def check(fn: Any) -> list[Finding]:
        asked.append(fn)
        return [Finding(3), Finding(8, what="open()")]

    stand_in = types.ModuleType("tinyworkflow_core.lint")
    stand_in.check = check  # type: ignore[attr-defined]  # that is how a module is made
    monkeypatch.setitem(sys.modules, "tinyworkflow_core.lint", stand_in)
    monkeypatch.delenv("TINYWORKFLOW_LINT", raising=False)
    return asked


async def shaky(ctx: Any) -> None: ...


def test_code_that_would_differ_on_replay_is_refused_with_every_place_on_a_line_of_its_own(
    looked_at: list[Any],
) -> None:
    for declare in (workflow, workflow(lint="error")):
        with pytest.raises(DeterminismError) as raised:
            declare(shaky)
        first, *lines = str(raised.value).splitlines()
        assert "'shaky'" in first
        assert "lint='warn'" in first
        assert lines == [
            "shop.py:3: datetime.now(): differs on every replay; write ctx.now() instead",
            "shop.py:8: open(): differs on every replay; write ctx.now() instead",
        ]
        assert raised.value.findings == (Finding(3), Finding(8, what="open()"))
    assert looked_at == [shaky, shaky]
    with pytest.raises(UnknownWorkflowError):
        Registry().workflow("shaky")


def test_code_that_would_differ_on_replay_can_be_warned_of_at_its_place(looked_at: list[Any]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        definition = workflow(lint="warn")(shaky)
    assert definition.lint == "warn"
    assert [(one.filename, one.lineno, one.category) for one in seen] == [
        ("shop.py", 3, DeterminismWarning),
        ("shop.py", 8, DeterminismWarning),
    ]
    assert str(seen[0].message) == f"workflow 'shaky': {Finding(3)}"
    with warnings.catch_warnings():  # and a filter finds it by the module that it is in
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeterminismWarning, module=__name__.replace(".", r"\."))
        workflow(lint="warn")(shaky)


def test_nobody_looks_where_the_lint_is_off(looked_at: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert workflow(lint="off")(shaky).lint == "off"
    monkeypatch.setenv("TINYWORKFLOW_LINT", "off")
    assert workflow(shaky).lint == "error"
    assert looked_at == []


def test_the_clock_of_the_machine_is_refused_in_a_workflow_at_its_line() -> None:
    async def late(ctx: WorkflowContext) -> Any:
        return datetime.now()

    line = late.__code__.co_firstlineno + 1
    with pytest.raises(DeterminismError, match=rf"test_registry\.py:{line}: .*now\(\).*ctx\.now\(\)") as raised:
        workflow(late)
    (finding,) = raised.value.findings
    assert (Path(finding.file).name, finding.line) == ("test_registry.py", line)
    with pytest.warns(DeterminismWarning, match=r"workflow 'late': .*now\(\)") as seen:
        workflow(lint="warn")(late)
    assert (seen[0].filename, seen[0].lineno) == (finding.file, line)


def plain(ctx: Any) -> None: ...
async def nothing() -> None: ...
async def three(ctx: Any, one: int, two: int) -> None: ...
async def keyword_only(ctx: Any, *, one: int) -> None: ...
async def star(ctx: Any, *many: int) -> None: ...
async def double_star(ctx: Any, **many: int) -> None: ...
async def generator(ctx: Any) -> Any:
    yield 1


@pytest.mark.parametrize("function", [plain, generator, 3, Opaque, functools.partial(nothing)])
def test_only_an_async_def_can_be_a_workflow(function: Any) -> None:
    with pytest.raises(DefinitionError, match="goes on an `async def` function, not on"):
        workflow()(function)


@pytest.mark.parametrize("function", [nothing, three, keyword_only, star, double_star])
def test_a_workflow_takes_the_context_and_at_most_one_input(function: Any) -> None:
    with pytest.raises(DefinitionError, match=f"'{function.__name__}' takes the context and at most one input"):
        workflow(function)


@pytest.mark.parametrize("version", [0, -1, 1.5, "2", None, True])
def test_a_version_is_a_whole_number_from_1(version: Any) -> None:
    with pytest.raises(DefinitionError, match="must be a whole number from 1"):
        a_workflow(version=version)


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "x" * 101, 5])
def test_a_workflows_name_has_to_fit_into_a_run_id_and_a_url(name: Any) -> None:
    with pytest.raises(DefinitionError, match="workflow name"):
        a_workflow(name)


# --- input -------------------------------------------------------------------------------------------


@workflow
async def takes_a_model(ctx: WorkflowContext, order: Order) -> None: ...
@workflow
async def takes_a_dataclass(ctx: WorkflowContext, point: Point) -> None: ...
@workflow
async def takes_a_typed_dict(ctx: WorkflowContext, options: Options) -> None: ...
@workflow
async def takes_an_int(ctx: WorkflowContext, number: int) -> None: ...
@workflow
async def takes_a_list(ctx: WorkflowContext, numbers: list[Decimal]) -> None: ...
@workflow
async def takes_an_optional(ctx: WorkflowContext, order: Optional[Order]) -> None: ...  # noqa: UP045  # the old spelling
@workflow
async def takes_a_union(ctx: WorkflowContext, order: Order | None = None) -> None: ...
@workflow
async def takes_a_default(ctx: WorkflowContext, number: int = 5) -> int:
    return number


@workflow
async def takes_anything(ctx: WorkflowContext, thing) -> None: ...  # type: ignore[no-untyped-def]  # that is the case
@workflow
async def takes_nothing(ctx: WorkflowContext) -> None: ...


@pytest.mark.parametrize(
    ("definition", "given", "received"),
    [
        (takes_a_model, {"number": "7"}, Order(number=7)),
        (takes_a_model, Order(number=7, tags=["x"]), Order(number=7, tags=["x"])),
        (takes_a_dataclass, {"x": 1}, Point(1, 0)),
        (takes_a_dataclass, Point(1, 2), Point(1, 2)),
        (takes_a_typed_dict, {"deep": True}, {"deep": True}),
        (takes_an_int, "12", 12),
        (takes_a_list, ["1.10", 2], [Decimal("1.10"), Decimal(2)]),
        (takes_an_optional, None, None),
        (takes_an_optional, {"number": 1}, Order(number=1)),
        (takes_a_union, None, None),
        (takes_a_union, {"number": 1}, Order(number=1)),
        (takes_a_default, None, None),
        (takes_a_default, 3, 3),
        (takes_anything, {"any": [Opaque]}, {"any": [Opaque]}),
        (takes_nothing, {"any": "thing"}, {"any": "thing"}),
    ],
)
def test_input_is_what_the_annotation_makes_of_it(
    definition: WorkflowDefinition[Any], given: Any, received: Any
) -> None:
    assert definition.validate(given) == received
    assert type(definition.validate(given)) is type(received)


@pytest.mark.parametrize(
    ("definition", "given", "message", "places"),
    [
        (takes_a_model, {"number": "x"}, r"'takes_a_model': number: Input should be a valid integer", [["number"]]),
        (takes_a_model, {"number": "x", "tags": [1]}, r"number: .* \(and 1 more\)", [["number"], ["tags", 0]]),
        (takes_a_model, {}, "number: Field required", [["number"]]),
        (takes_a_model, None, "input: Input should be a valid dictionary", [[]]),
        (takes_a_dataclass, {"x": 1, "y": "far"}, "y: Input should be a valid integer", [["y"]]),
        (takes_a_typed_dict, {"deep": "perhaps"}, "deep: Input should be a valid boolean", [["deep"]]),
        (takes_an_int, "twelve", "input: Input should be a valid integer", [[]]),
        (takes_an_int, None, "input: Input should be a valid integer", [[]]),
        (takes_a_list, ["1", "x"], r"1: Input should be a valid decimal", [[1]]),
        (takes_an_optional, 5, "input: Input should be a valid dictionary", [[]]),
        (takes_a_default, "x", "input: Input should be a valid integer", [[]]),
    ],
)
def test_input_that_does_not_fit_is_refused_by_place(
    definition: WorkflowDefinition[Any], given: Any, message: str, places: list[Any]
) -> None:
    with pytest.raises(InvalidInputError, match=message) as raised:
        definition.validate(given)
    assert [error["loc"] for error in raised.value.errors] == places
    assert all(error.keys() == {"loc", "msg", "type"} for error in raised.value.errors)


async def test_no_input_leaves_the_default_to_the_function() -> None:
    assert await takes_a_default.call(None, None) == 5
    assert await takes_a_default.call(None, 6) == 6
    await takes_nothing.call(None, "what nobody takes")


def test_an_input_has_a_json_schema_where_it_has_a_type() -> None:
    schema = takes_a_model.input_schema()
    assert schema is not None
    assert (schema["required"], schema["properties"]["number"]["type"]) == (["number"], "integer")
    assert takes_an_int.input_schema() == {"type": "integer"}
    assert takes_anything.input_schema() is None
    assert takes_nothing.input_schema() is None


def test_an_annotation_that_names_what_is_not_there_is_a_definition_error() -> None:
    @workflow
    async def lost(ctx: WorkflowContext, order: NoSuchClass) -> None:  # type: ignore[name-defined]  # noqa: F821  # it is
        ...

    for use in (lambda: lost.validate({}), lambda: lost.input_type, lost.input_schema):
        with pytest.raises(
            DefinitionError, match=r"'NoSuchClass' of workflow 'lost' cannot be resolved .*module level"
        ):
            use()


@pytest.mark.parametrize("annotation", ["1 +", "Order[int]", "Order.Missing", "pydantic.Missing", "int | 'x' | 3"])
def test_an_annotation_that_makes_no_sense_is_a_definition_error(annotation: str) -> None:
    async def odd(ctx: WorkflowContext, order: Any) -> None: ...

    odd.__annotations__["order"] = annotation
    with pytest.raises(DefinitionError, match="of workflow 'odd' cannot be resolved"):
        workflow(odd).validate({})


def test_a_type_that_cannot_be_validated_is_a_definition_error() -> None:
    @workflow
    async def odd(ctx: WorkflowContext, thing: Opaque) -> None: ...

    with pytest.raises(DefinitionError, match=r"input of workflow 'odd' cannot be validated: .*Opaque"):
        odd.validate({})


def test_a_wrapped_workflows_annotation_means_what_it_means_where_it_was_written() -> None:
    somewhere: dict[str, Any] = {}
    exec(
        "import functools\n"
        "def traced(fn):\n"
        "    @functools.wraps(fn)\n"
        "    async def inner(*args):\n"
        "        return await fn(*args)\n"
        "    return inner\n",
        somewhere,
    )

    async def written(ctx: WorkflowContext, order: Order) -> None: ...

    wrapped = workflow(somewhere["traced"](written))
    assert wrapped.input_type is Order
    assert wrapped.validate({"number": 1}) == Order(number=1)


def test_a_class_of_an_enclosing_function_serves_where_the_code_uses_it() -> None:
    class Local(pydantic.BaseModel):
        x: int

    @workflow
    async def inner(ctx: WorkflowContext, local: Local) -> Any:
        return Local(x=1)

    assert inner.validate({"x": "1"}) == Local(x=1)


# --- finding -----------------------------------------------------------------------------------------


def test_the_same_name_and_version_from_another_place_is_refused_and_both_places_are_named() -> None:
    one, other = a_workflow("twin"), elsewhere("twin")
    with pytest.raises(DuplicateDefinitionError, match=r"'twin' version 1 is defined twice") as raised:
        Registry([one, other])
    for definition in (one, other):
        code = definition.fn.__code__
        assert f"{code.co_filename}:{code.co_firstlineno}" in str(raised.value)
    with pytest.raises(DuplicateDefinitionError):  # by the process's own registry as well
        Registry().workflow("twin")


def test_a_registry_that_refused_a_definition_goes_on_without_it() -> None:
    one = a_workflow("twin")
    registry = Registry([one])
    with pytest.raises(DuplicateDefinitionError):
        registry.add(elsewhere("twin"))
    assert registry.workflow("twin") is one
    assert registry.workflows() == [one]


def test_two_versions_live_side_by_side_and_the_highest_is_taken() -> None:
    old, new, newest = a_workflow(version=2), elsewhere(version=9), a_workflow(version=10)
    registry = Registry([newest, old, new])
    assert registry.workflow("one") is newest
    assert registry.workflow("one", 2) is old
    assert registry.workflow("one", 9) is new
    assert registry.workflows() == [old, new, newest]
    with pytest.raises(UnknownWorkflowError, match=r"'one' has no version 3 here; known: 2, 9, 10"):
        registry.workflow("one", 3)


def test_an_unknown_name_is_refused_with_the_nearest_one_or_with_all() -> None:
    registry = Registry([a_workflow("billing"), a_workflow("shipping"), a_workflow("shipping", 2)])
    with pytest.raises(UnknownWorkflowError, match=r"no workflow 'biling' is registered; did you mean 'billing'\?"):
        registry.workflow("biling")
    with pytest.raises(UnknownWorkflowError, match=r"known here: billing, shipping$"):
        registry.workflow("zzz")
    with pytest.raises(UnknownWorkflowError, match=r"known here: none$"):
        Registry([]).workflow("zzz")


def test_definitions_are_listed_by_name_and_version() -> None:
    @activity
    def b() -> None: ...
    @activity
    def a() -> None: ...

    one, two = a_workflow("z"), a_workflow("y", 2)
    registry = Registry([b, one, a, two])
    assert registry.workflows() == [two, one]
    assert registry.activities() == [a, b]


def test_a_registry_of_everything_that_is_given_one_more_still_knows_everything() -> None:
    kept, added = a_workflow("kept for this test"), a_workflow("added in this test")
    registry = Registry()
    registry.add(added)
    later = a_workflow("declared later in this test")
    for one in (kept, added, later):
        assert registry.workflow(one.name) is one


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module that can be reloaded."""
    (tmp_path / "reloaded_here.py").write_text(
        "from tinyworkflow_core import activity, workflow\n\n"
        "@workflow\nasync def of_a_reloaded_module(ctx): ...\n\n"
        "@activity\ndef also_reloaded(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("reloaded_here")
    del sys.modules["reloaded_here"]


def test_a_reloaded_module_declares_the_same_again_and_the_latest_counts(module: types.ModuleType) -> None:
    held: list[Any] = []  # somebody has imported them by name, and keeps them alive
    for _ in range(8):
        held += [module.of_a_reloaded_module, module.also_reloaded]
        source = Path(str(module.__file__))
        source.write_text("# edited\n" + source.read_text())
        module = importlib.reload(module)
        assert Registry().workflow("of_a_reloaded_module") is module.of_a_reloaded_module
        (latest,) = (one for one in Registry().activities() if one.name == "also_reloaded")
        assert latest is module.also_reloaded
        assert Registry([held[0], module.of_a_reloaded_module]).workflows() == [module.of_a_reloaded_module]


def test_a_script_that_is_also_imported_by_its_name_declares_the_same_twice() -> None:
    first, second = a_workflow("of a script"), a_workflow("of a script")
    first.fn.__module__ = "__main__"
    assert Registry([first, second]).workflow("of a script") is second


def test_a_definition_that_nobody_holds_is_forgotten() -> None:
    name = "nobody holds this one"
    definition = a_workflow(name)
    assert Registry().workflow(name) is definition
    del definition
    gc.collect()
    with pytest.raises(UnknownWorkflowError):
        Registry().workflow(name)


async def test_what_a_workflow_definition_calls_is_a_coroutine() -> None:
    coroutine = a_workflow(result=7).call(None, None)
    assert asyncio.iscoroutine(coroutine)
    assert await coroutine == 7


def test_a_registry_that_has_looked_finds_what_is_declared_later() -> None:
    known = Registry()

    async def one(ctx: WorkflowContext) -> None: ...

    first = workflow(name="declared in turn")(one)
    assert known.workflow("declared in turn") is first
    second = workflow(name="declared in turn", version=2)(one)
    assert known.workflow("declared in turn") is second
    assert known.workflow("declared in turn", 1) is first


def test_a_registry_keeps_nothing_alive_that_it_has_found() -> None:
    known = Registry()

    async def one(ctx: WorkflowContext) -> None: ...

    workflow(name="for a moment")(one)
    gc.collect()
    with pytest.raises(UnknownWorkflowError):
        known.workflow("for a moment")
    held = workflow(name="for a moment")(one)
    assert known.workflow("for a moment") is held
    del held
    gc.collect()
    with pytest.raises(UnknownWorkflowError):
        known.workflow("for a moment")
