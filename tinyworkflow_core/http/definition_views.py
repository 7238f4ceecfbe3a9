"""What is declared here, as JSON data: workflows with their inputs, and activities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from ..definitions import WorkflowDefinition
from ..registry import Registry
from .views import WorkflowVersion, WorkflowView


class ActivityView(TypedDict):
    """An activity that is declared here."""

    name: str
    run_on: Literal["here", "queue"]
    at_most_once: bool


def activity_views(registry: Registry) -> list[ActivityView]:
    """The activities declared there, by name."""
    return [
        {"name": one.name, "run_on": one.run_on, "at_most_once": one.at_most_once}
        for one in sorted(registry.activities(), key=lambda one: one.name)
    ]


def workflow_views(definitions: Iterable[WorkflowDefinition[Any]]) -> list[WorkflowView]:
    """What can be started, by name."""
    found: dict[str, list[WorkflowVersion]] = {}
    for one in definitions:
        found.setdefault(one.name, []).append({"version": one.version, "input_schema": _schema(one)})
    return [{"name": name, "versions": found[name]} for name in sorted(found)]


def _schema(definition: WorkflowDefinition[Any]) -> dict[str, Any] | None:
    try:
        return definition.input_schema()
    except Exception as error:
        from pydantic.errors import PydanticUserError  # it is loaded by now; without a typed input nobody needs it

        if isinstance(error, PydanticUserError):  # an input type that no JSON schema can describe
            return None
        raise
