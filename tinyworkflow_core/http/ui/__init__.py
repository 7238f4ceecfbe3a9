"""The dashboard: pages for people, at /ui. The part `ui` of the front.

A page module has a class with `operations()`, each `Operation(..., described=False)`: a GET shows, a POST acts and
sends the browser on to a GET (`go_to`). Its scope is the API's for the same thing; who calls is `caller_of(request)`,
and a button is there only where `caller.may(scope)`. Lists are marked by `looks_at_caller` and hold what the caller
reaches. Values are shown by `Showing`, as the API shows them. No page scans: every query has a limit.

- dashboard.py: all pages together. rendering.py: templates and static files. sessions.py: cookies and forms. login.py:
  signing in, problems as pages. timeline.py: what happened in a run as rows and bars, which the command line draws too.

Importing this package loads none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dashboard import UiRoutes, home

__all__ = ["UiRoutes", "home"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import dashboard

    return getattr(dashboard, name)
