"""The package's face: these names, found when asked for, at no cost before."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tinyworkflow_core

NAMES = [
    "ActivityContext",
    "ActivityError",
    "AdvanceSettings",
    "App",
    "ApplicationError",
    "Approval",
    "ApprovalClosedError",
    "ApprovalConflictError",
    "ApprovalForbiddenError",
    "ApprovalNotFoundError",
    "ApprovalRequest",
    "BatchResult",
    "ChildFailedError",
    "ChildHandle",
    "Codec",
    "DefinitionError",
    "DeterminismError",
    "DeterminismWarning",
    "EncryptionCodec",
    "HeartbeatTimeoutError",
    "HttpResponse",
    "HttpStatusError",
    "InvalidInputError",
    "NonDeterminismError",
    "PayloadCodec",
    "QueryError",
    "RetryAfter",
    "RetryPolicy",
    "RetrySchedule",
    "RunClosedError",
    "RunExistsError",
    "RunNotFoundError",
    "RunStateError",
    "ScheduleChangedError",
    "ScheduleInfo",
    "ScheduleNotFoundError",
    "Signal",
    "Start",
    "StepInterruptedError",
    "TinyWorkflowClient",
    "TinyWorkflowError",
    "UnknownWorkflowError",
    "UpdateRejectedError",
    "Vote",
    "WebhookEvent",
    "WorkflowCancelledError",
    "WorkflowClient",
    "WorkflowContext",
    "WorkflowEvent",
    "WorkflowExecution",
    "WorkflowFailedError",
    "WorkflowStatus",
    "activity",
    "activity_context",
    "approval_link",
    "cloud_events",
    "create_app",
    "github_signature",
    "google_identity",
    "hmac_signature",
    "notify",
    "on_cloud_event",
    "platform_only",
    "slack_signature",
    "standard_webhooks",
    "stripe_signature",
    "webhook",
    "workflow",
]
"""A name that is added here is kept for good; one that is missing breaks somebody's code."""

HEAVY = {"asyncio", "google", "httpx", "pydantic", "starlette", "typer"}
FACE = Path(tinyworkflow_core.__file__)
ROOT = FACE.parents[1]


def loaded_by(statement: str) -> tuple[float, set[str]]:
    """What the statement takes in seconds in a fresh process, and the packages and modules that it loads."""
    code = (
        "import json, sys, time; before = set(sys.modules); began = time.perf_counter()\n"  # site loads some by itself
        f"{statement}\n"
        "took = time.perf_counter() - began; loaded = set(sys.modules) - before\n"
        "print(json.dumps([took, sorted({name.partition('.')[0] for name in loaded})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    took, loaded = json.loads(done.stdout)
    return took, set(loaded)


def test_the_public_names_are_these_and_sorted() -> None:
    assert tinyworkflow_core.__all__ == NAMES
    assert sorted(NAMES) == NAMES
    assert dir(tinyworkflow_core) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_what_its_home_defines(name: str) -> None:
    value = getattr(tinyworkflow_core, name)
    assert value.__name__ == {"WorkflowStatus": "Status"}.get(name, name)
    assert value.__module__.startswith("tinyworkflow_core.")


def test_type_checkers_and_python_find_the_same_names_in_the_same_places() -> None:
    checking = next(node for node in ast.parse(FACE.read_text()).body if isinstance(node, ast.If))
    imports = [node for node in checking.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == tinyworkflow_core._HOMES


def test_a_star_import_brings_every_public_name() -> None:
    names: dict[str, Any] = {}
    exec("from tinyworkflow_core import *", names)
    assert names.keys() - {"__builtins__"} == set(NAMES)


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'tinyworkflow_core' has no attribute 'workflows'"):
        tinyworkflow_core.workflows  # noqa: B018  # looking is the test
    with pytest.raises(ImportError, match="cannot import name 'Workflow'"):
        exec("from tinyworkflow_core import Workflow")


def test_the_import_alone_loads_nothing_heavy() -> None:
    took, loaded = loaded_by("import tinyworkflow_core")
    assert "tinyworkflow_core" in loaded
    assert HEAVY.isdisjoint(loaded)
    print(f"\nimport tinyworkflow_core: {1000 * took:.1f} ms")


def test_defining_workflows_loads_neither_stores_nor_servers() -> None:
    took, loaded = loaded_by("from tinyworkflow_core import RetryPolicy, activity, workflow")
    assert "tinyworkflow_core" in loaded
    assert HEAVY.isdisjoint(loaded - {"asyncio"})
    print(f"\nimport of the decorators: {1000 * took:.1f} ms")
