"""The dispatchers that there are, by name. An adapter is imported when it is opened, never before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..clock import Clock
from ..dispatcher import Dispatcher
from ..errors import ConfigurationError

__all__ = ["NAMES", "open_dispatcher"]

NAMES = ("local", "none", "direct", "cloud-tasks")


def open_dispatcher(environ: Mapping[str, str], *, clock: Clock) -> Dispatcher | Literal["local", "none"]:
    """The dispatcher that TINYWORKFLOW_DISPATCHER names; it connects on first use.

    - `local` (the default) makes calls in this process, `none` leaves them to others on the same store. Both are told
      by name, since the App makes them.
    - `direct` posts calls to the worker service: TINYWORKFLOW_WORKER_URL, and TINYWORKFLOW_WORKER_KEY where it wants a
      key.
    - `cloud-tasks` hands them to Google Cloud Tasks: TINYWORKFLOW_QUEUE, TINYWORKFLOW_ACTIVITY_QUEUE (the same unless
      given), TINYWORKFLOW_WORKER_URL, TINYWORKFLOW_INVOKER.

    Raises ConfigurationError naming the variable that does not fit.
    """
    match environ.get("TINYWORKFLOW_DISPATCHER", "local"):
        case "local":
            return "local"
        case "none":
            return "none"
        case "direct":
            from .direct import DirectDispatcher

            return DirectDispatcher.from_env(environ, clock=clock)
        case "cloud-tasks":
            from .cloud_tasks import CloudTasksDispatcher

            return CloudTasksDispatcher.from_env(environ, clock=clock)
        case other:
            raise ConfigurationError(f"TINYWORKFLOW_DISPATCHER: {other!r} is not known; use one of {', '.join(NAMES)}")
