"""The tree of errors: what a caller catches, and what user code must not catch by accident."""

from __future__ import annotations

import ast
import inspect
import pickle
import sys

import pytest

from tinyworkflow_core import errors
from tinyworkflow_core.serialization import Codec

EVERY = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BaseException)]


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_error_is_in_the_tree_and_control_flow_is_out_of_reach_of_except_exception(
    cls: type[BaseException],
) -> None:
    if cls in (errors.LeaseLost, errors.Suspended, errors.ContinueAsNew):
        assert not issubclass(cls, Exception)
    elif cls is errors.DeterminismWarning:
        assert issubclass(cls, UserWarning)
    else:
        assert issubclass(cls, errors.TinyWorkflowError)


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_means(cls: type[BaseException]) -> None:
    assert cls.__doc__


def test_a_run_error_names_its_run() -> None:
    error = errors.RunNotFoundError("no such run", run_id="order_1")
    assert (str(error), error.run_id) == ("no such run", "order_1")


def test_a_mismatch_names_the_step_both_sides_and_the_place_in_the_code() -> None:
    error = errors.NonDeterminismError(step=3, recorded="charge()", asked="refund()", where="shop.py:12")
    for part in ("step 3", "charge()", "refund()", "shop.py:12"):
        assert part in str(error)
    assert " at " not in str(errors.NonDeterminismError(step=3, recorded="charge()", asked="nothing")).split(".")[0]


@pytest.mark.parametrize(
    "error",
    [
        errors.StepInterruptedError("step 3: activity 'fire' was begun"),
        errors.HeartbeatTimeoutError("activity 'mute' gave no heartbeat"),
        errors.QueryError("no query 'total'"),
        errors.ChildFailedError("no such card", "order_1", "CardError"),
        errors.ChildFailedError("was terminated", "order_2"),
    ],
    ids=repr,
)
def test_an_error_that_workflow_code_may_catch_comes_back_from_the_store_and_from_a_pickle(error: Exception) -> None:
    codec = Codec()
    for again in (codec.exception(codec.failure(error)), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_a_childs_failure_names_the_run_the_kind_and_the_message() -> None:
    error = errors.ChildFailedError("no such card", "order_1", "CardError")
    assert (error.message, error.run_id, error.type) == ("no such card", "order_1", "CardError")
    assert errors.ChildFailedError("gone", "order_1").type == "ChildFailedError"


def test_a_heartbeat_that_stopped_is_caught_as_a_timeout() -> None:
    with pytest.raises(TimeoutError, match=r"^silent$"):
        raise errors.HeartbeatTimeoutError("silent")


def test_continuing_as_new_carries_the_next_input() -> None:
    assert errors.ContinueAsNew({"page": 2}).input_data == {"page": 2}
    assert errors.ContinueAsNew().input_data is None


def test_a_determinism_error_is_a_definition_error_that_keeps_its_findings() -> None:
    error = errors.DeterminismError("two places", ["one", "two"])
    assert isinstance(error, errors.DefinitionError)
    assert (str(error), error.findings) == ("two places", ("one", "two"))


def test_the_tree_stands_on_the_standard_library_alone() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(inspect.getsource(errors)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."])
    }
    assert imported <= sys.stdlib_module_names
