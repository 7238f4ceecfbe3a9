"""Deploying other code under runs that are open: every process is replaced by one that knows these definitions."""

from __future__ import annotations

from typing import Any

from tinyworkflow_core.registry import WorkflowDefinition
from tinyworkflow_core.testing import WorkflowEnvironment


def deploy(env: WorkflowEnvironment, *workflows: WorkflowDefinition[Any]) -> None:
    """From now on the processes of this world know these workflows and no others."""
    platform = env._platform
    platform.workflows = list(workflows)
    for process in list(platform.processes):
        platform.replace(process)
