"""Definitions: what the decorators accept, what they give, and how a registry finds it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, cast

import pydantic
import pytest
from typing_extensions import TypedDict

from tinyworkflow_core import RetryPolicy, activity, workflow
from tinyworkflow_core.errors import (
    DefinitionError,
    DuplicateDefinitionError,
    InvalidInputError,
    UnknownWorkflowError,
)
from tinyworkflow_core.registry import Registry, WorkflowDefinition

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

    @workflow
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
    assert pay.options(timeout=0).timeout == 0.0
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
        (lambda: activity(timeout="soon")(print), "not a duration: 'soon'"),
        (lambda: activity(timeout=-1)(print), "not negative"),
    ],
)
def test_what_cannot_be_an_activity_is_refused(declare: Callable[[], Any], words: str) -> None:
    with pytest.raises((DefinitionError, ValueError), match=words):
        declare()


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


def plain(ctx: Any) -> None: ...
async def nothing() -> None: ...
async def three(ctx: Any, one: int, two: int) -> None: ...
async def keyword_only(ctx: Any, *, one: int) -> None: ...
async def star(ctx: Any, *many: int) -> None: ...
async def double_star(ctx: Any, **many: int) -> None: ...
async def generator(ctx: Any) -> Any:
    yield 1


@pytest.mark.parametrize("function", [plain, generator, 3, Opaque])
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


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "x" * 101])
def test_a_workflows_name_has_to_fit_into_a_run_id_and_a_url(name: str) -> None:
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
