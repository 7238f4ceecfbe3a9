"""Fakes: functions that are called in place of activities."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigurationError
from ..outbound import send as call_http
from ..registry import ActivityDefinition, Registry

Fake = Callable[..., Any]

Fakes = Mapping[Any, Fake]
"""By the activity or by its name (a type that says so would refuse a mapping that has both). A fake is called with the
activity's arguments; it may be async or not."""


def by_name(fakes: Fakes) -> dict[str, Fake]:
    """The fakes by the names of their activities.

    Raises ConfigurationError for a name that no declared activity has, for two fakes of one name, and for what cannot
    be called.
    """
    found: dict[str, Fake] = {}
    for key, fake in fakes.items():
        name = key.name if isinstance(key, ActivityDefinition) else _checked(key)
        if name in found:
            raise ConfigurationError(f"activities: there are two fakes for {name!r}")
        if not callable(fake):
            raise ConfigurationError(
                f"activities: the fake for {name!r} is called in its place, and {fake!r} cannot be called"
            )
        found[name] = fake
    return found


def _checked(name: Any) -> str:
    if not isinstance(name, str):
        hint = f"; put @activity on {name.__name__!r}" if hasattr(name, "__name__") else ""
        raise ConfigurationError(f"activities: a fake stands for an activity or for its name, not for {name!r}{hint}")
    names = [*(one.name for one in Registry().activities()), call_http.name]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        known = f"did you mean {' or '.join(map(repr, near))}?" if near else f"declared: {', '.join(names) or 'none'}"
        raise ConfigurationError(f"activities: no activity {name!r} is declared; {known}")
    return name
