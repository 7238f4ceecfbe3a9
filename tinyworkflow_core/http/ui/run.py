"""The page of one run: how it stands, what happened when, what it was given and gave, why it failed, and what can be
done about it. Its forms are carried out by `run_actions.py`.

The page reads the run once, with its history, and one page of its children. However long the history is, what is shown
is a page of rows, a page of events, and values cut short; the whole of it can be downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ... import approvals
from ...app import App
from ...checking import check_history, exported
from ...clock import fresh_id
from ...engine.history import Event, RunForked, RunStarted
from ...errors import RunNotFoundError, SerializationError
from ...records import dataclass
from ...steering import RETRIABLE
from ...store import Run, RunQuery, RunState, Status
from ..callers import caller_of
from ..operations import Html, Operation, Scope
from ..problems import HttpProblem
from ..shown import Showing, Shown
from . import parked
from .gantt import gantt
from .overview import overview
from .rendering import render
from .run_view import EVENTS, brought_down_by, cost_of, events_page, pretty, struggling, told
from .timeline import timeline

CHILDREN = 50
"""Children that are listed."""

_ASIDE = (Status.SUSPENDED, Status.PARKED)
_DONE = {
    "signal": "The signal is stored. The run takes it up as soon as it can.",
    "cancel": "The run was asked to end.",
    "terminate": "The run is being ended by force.",
    "suspend": "The run is being put aside.",
    "resume": "The run was told to go on.",
    "retry": "The run goes on from where it failed.",
    "fork": "This run was made from the first events of another.",
}
"""What is said after an action, by the word in the URL: nothing else from there gets into the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """An action that was not carried out: which, why in words, what was typed, and the status to answer."""

    action: str
    said: str
    errors: list[str] = field(default_factory=list)
    given: Mapping[str, str] = field(default_factory=dict)
    status: int = 422


class RunPages:
    """The endpoints, for one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            _get("/ui/runs/{run_id}", self.page, "One run", Html),
            _get("/ui/runs/{run_id}/history.json", self.history, "The history of a run as a file", None),
        ]

    async def page(self, request: Request) -> Response:
        """The run."""
        return await self.show(request)

    async def show(self, request: Request, refused: Refused | None = None) -> Response:
        """The run, with why an action on it was refused."""
        run_id: str = request.path_params["run_id"]
        run, state, unreadable = await self._found(run_id)
        shown = Showing(request, self._app).of(run.name)
        context = {**self._head(request, run, shown), **await self._family(request, run), "unreadable": unreadable}
        context |= self._told(request, run, state, shown) if state is not None else _NO_HISTORY
        return render(
            request,
            "run.html",
            status=200 if refused is None else refused.status,
            refused=refused,
            given={} if refused is None else refused.given,
            done=_DONE.get(request.query_params.get("done", "")),
            once=fresh_id(32),
            now=self._app.clock.now(),
            **context,
        )

    async def history(self, request: Request) -> Response:
        """The history as `tinyworkflow export` writes it: values as they are stored, so only for who sees them all."""
        run_id: str = request.path_params["run_id"]
        state = await self._app.store.load(run_id)
        if state is None:
            raise _no_run(run_id)
        if Showing(request, self._app).of(state.run.name).hides:
            raise HttpProblem(
                403, "this workflow hides some of its values, and an export holds them all: it takes the scope reveal"
            )
        text = json.dumps(exported(state), ensure_ascii=True, indent=2) + "\n"
        name = "".join(one if one.isalnum() or one in "._-" else "_" for one in run_id if one.isascii())
        headers = {
            "Content-Disposition": f'attachment; filename="{name}.history.json"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(text, media_type="application/json", headers=headers)

    # --- parts ----------------------------------------------------------------------------------

    async def _found(self, run_id: str) -> tuple[Run, RunState | None, str | None]:
        """The run, its history where it can be read, and else why it cannot. Raises RunNotFoundError."""
        try:
            state = await self._app.store.load(run_id)
        except SerializationError as error:
            run = await self._app.store.get(run_id)
            if run is not None:
                return run, None, str(error)
            raise _no_run(run_id) from None
        if state is None:
            raise _no_run(run_id)
        return state.run, state, None

    def _head(self, request: Request, run: Run, shown: Shown) -> dict[str, Any]:
        now, caller = self._app.clock.now(), caller_of(request)
        is_open = not run.status.closed
        questions = [
            {
                "key": one.key,
                "title": shown.plain_text(one.title) or one.key,
                "id": f"{run.generation}.{one.id}",
                "expires_at": one.expires_at,
                "deciders": list(approvals.deciders(one, now)),
                "has_form": one.form is not None,
                "quorum": one.quorum,
                "approvals": sum(vote.approved for vote in one.votes),
            }
            for one in run.open_approvals
        ]
        operates = caller.may(Scope.OPERATE)
        return {
            "run": run,
            "is_open": is_open,
            "took": ((run.closed_at or now) - (run.started_at or run.created_at)) if run.started_at else None,
            "attributes": shown.attributes(run.attributes),
            "custom_status": None if run.custom_status is None else pretty(shown.plain(run.custom_status))[0],
            "input": pretty(shown.plain(run.input)),
            "output": None if run.output is None else pretty(shown.plain(run.output)),
            "errors": [] if run.error is None else told(run.error, shown),
            "sides": None if run.problem is None else parked.sides(run.problem),
            "questions": questions,
            "hides": shown.hides,
            "may": {
                "signal": is_open and caller.may(Scope.SIGNAL),
                "approve": bool(questions) and caller.may(Scope.APPROVE),
                "cancel": is_open and operates,
                "suspend": is_open and operates and run.status not in _ASIDE,
                "resume": operates and run.status in _ASIDE,
                "retry": operates and run.status in RETRIABLE,
                "fork": operates,
            },
        }

    async def _family(self, request: Request, run: Run) -> dict[str, Any]:
        """Its children, newest first, of workflows that the caller reaches."""
        page = await self._app.store.list(RunQuery(parent_run_id=run.run_id, limit=CHILDREN))
        caller = caller_of(request)
        children = [one for one in page.items if caller.reaches(one.name)]
        return {"children": children, "more_children": page.next_cursor is not None}

    def _told(self, request: Request, run: Run, state: RunState, shown: Shown) -> dict[str, Any]:
        """What the history tells."""
        asked = request.query_params
        history, now = state.history, self._app.clock.now()
        opened = _count(asked.get("event"))
        after = _count(asked.get("after")) if not opened else (opened - 1) // EVENTS * EVENTS
        events = events_page(history, after, shown)
        whole = timeline(history, now=now, undo_of=self._undo_of())
        drawn = gantt(whole, asked)
        checked, finding = asked.get("check") == "1" and run.status is Status.PARKED, None
        if checked:
            finding = check_history(self._app.registry, self._app.codec, exported(state))
        given = pretty(shown.plain(_opening(history)))
        return {
            "has_history": True,
            "started": history[0],
            "forks": [one for one in history if isinstance(one, RunForked)],
            "cost": cost_of(state),
            "waiting_messages": len(state.inbox),
            "down": brought_down_by(history),
            "struggling": [] if run.status.closed else struggling(history, shown),
            "gantt": drawn,
            "gantt_begin": whole.begin,
            "overview": overview(whole),
            "events": events,
            "opened": opened,
            "window": drawn.window.query(),
            "fork_asked": "fork_at" in asked,
            "fork_at": str(_count(asked.get("fork_at")) or len(history)),
            # What is hidden, or cut short, cannot be sent back: then it is left out, and the input stays as it is.
            "fork_input": "" if shown.hides or given[1] else given[0],
            "checked": checked,
            "finding": finding,
            "finding_sides": None if finding is None else parked.sides_of(finding),
        }

    def _undo_of(self) -> dict[str, str]:
        found = self._app.registry.activities()
        return {one.name: one.compensate.name for one in found if one.compensate is not None}


_NO_HISTORY: dict[str, Any] = {
    "has_history": False,
    "started": None,
    "forks": [],
    "cost": None,
    "waiting_messages": 0,
    "down": [],
    "struggling": [],
    "checked": False,
}


def _opening(history: Any) -> str:
    first: Event = history[0]
    assert isinstance(first, RunStarted)
    return first.input


def _count(text: str | None) -> int | None:
    """A number in a URL; None for what is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def _no_run(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)


def _get(path: str, endpoint: Any, summary: str, answer: Any) -> Operation:
    return Operation(
        method="GET",
        path=path,
        endpoint=endpoint,
        summary=summary,
        scope=Scope.READ,
        answers={200: answer},
        described=False,
    )
