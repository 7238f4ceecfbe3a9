"""The kit for testing workflows; the public names, nothing else.

They are loaded on first use: pytest imports this package at every start, for its plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .environment import WorkflowEnvironment
    from .replaying import Replayed, replay_history
    from .virtual_clock import START, VirtualClock
    from .ways import Scenario, four_ways
    from .world import SimulatedCrash

_HOMES = {
    "START": "virtual_clock",
    "Replayed": "replaying",
    "Scenario": "ways",
    "SimulatedCrash": "world",
    "VirtualClock": "virtual_clock",
    "WorkflowEnvironment": "environment",
    "four_ways": "ways",
    "replay_history": "replaying",
}

__all__ = [
    "START",
    "Replayed",
    "Scenario",
    "SimulatedCrash",
    "VirtualClock",
    "WorkflowEnvironment",
    "four_ways",
    "replay_history",
]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
