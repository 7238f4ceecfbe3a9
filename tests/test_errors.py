"""The tree of errors: what a caller catches, and what user code must not catch by accident."""

from __future__ import annotations

import ast
import inspect
import sys

import pytest

from tinyworkflow_core import errors

EVERY = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BaseException)]


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_error_is_in_the_tree_and_control_flow_is_out_of_reach_of_except_exception(
    cls: type[BaseException],
) -> None:
    if cls in (errors.LeaseLost, errors.Suspended):
        assert not issubclass(cls, Exception)
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


def test_the_tree_stands_on_the_standard_library_alone() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(inspect.getsource(errors)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."])
    }
    assert imported <= sys.stdlib_module_names
