"""The HTTP front: `create_app` puts the routes of an App together, in parts, so that a function can serve one alone.

- api: starting, seeing and reaching runs. approvals: deciding what runs ask. hooks: webhooks that start runs.
- worker and tick: what a queue and a scheduler call. ui: the dashboard, for browsers.
- GET /healthz is in all of them, and GET /openapi.json, which describes what this very process answers.

Nothing here knows how runs work; that is the App's. Errors are told in one form by `problems.py`. Importing this
package loads none of it: code that declares webhooks and the command line that shows views need no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .front import ALL, create_app

__all__ = ["ALL", "create_app"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import front

    return getattr(front, name)
