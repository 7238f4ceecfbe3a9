"""Activities on a page: how they have fared in the latest runs. What is counted, and how much is read, is
`measuring.py`'s."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ..callers import caller_of, looks_at_caller
from ..operations import Html, Operation, Scope
from .measuring import DEFAULT_RUNS, MOST_ACTIVITIES, MOST_DOCUMENTS, MOST_RUNS, Measured, measure
from .rendering import render

CHOICES = (20, DEFAULT_RUNS, MOST_RUNS)
"""How many runs may be looked at."""


class ActivityPages:
    """The endpoints, for one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def operations(self) -> list[Operation]:
        """The one that there is."""
        return [
            Operation(
                method="GET",
                path="/ui/activities",
                endpoint=self.page,
                summary="How activities have fared in the latest runs",
                scope=Scope.READ,
                answers={200: Html},
                described=False,
            )
        ]

    @looks_at_caller
    async def page(self, request: Request) -> Response:
        """Activities by name; `workflow` and `runs` say whose, and how many runs are looked at."""
        asked, caller = request.query_params, caller_of(request)
        workflow = asked.get("workflow") or None
        chosen = asked.get("runs", "")
        limit = next((one for one in CHOICES if str(one) == chosen), DEFAULT_RUNS)
        found = await measure(
            self._app.store, workflow=workflow or caller.only_workflow, limit=limit, reaches=caller.reaches
        )
        measured = {one.name: one for one in found.activities}
        if workflow is None and caller.workflows is None:
            for name in self._app.client.list_registered_activities():
                measured.setdefault(name, Measured(name=name))
        names = sorted({one.name for one in self._app.registry.workflows() if caller.reaches(one.name)})
        return render(
            request,
            "activities.html",
            activities=[_row(measured[name]) for name in sorted(measured)],
            found=found,
            workflow=workflow,
            workflows=names if workflow is None or workflow in names else [*names, workflow],
            limit=limit,
            choices=CHOICES,
            most_documents=MOST_DOCUMENTS,
            most_activities=MOST_ACTIVITIES,
        )


def _row(one: Measured) -> dict[str, Any]:
    return {
        "one": one,
        "rate": one.success_rate,
        "percent": _percent(one),
        "per_step": one.attempts_per_step,
        "p50": one.percentile(0.5),
        "p95": one.percentile(0.95),
        "longest": one.percentile(1.0),
    }


def _percent(one: Measured) -> str:
    """Rounded down, so that only what never failed has 100 %."""
    ended = one.succeeded + one.failed
    return f"{one.succeeded * 1000 // ended / 10:g} %" if ended else ""
