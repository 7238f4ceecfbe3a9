"""The list of runs: narrowed by what stands in its URL, counted by status, in pages, brought up to date by itself.

What is asked of the store are ranges of its indexes, a page at a time, also for an ID or the beginning of one; counts
end at MOST_COUNTED. By an attribute and for callers who reach some workflows only nothing is counted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ...errors import InvalidInputError
from ...records import dataclass
from ...redaction import REDACTED
from ...store import Page, Run, RunQuery, Status
from ..callers import Caller, caller_of, looks_at_caller
from ..operations import Html, Operation, Scope
from ..shown import Showing, Shown
from .rendering import render
from .run_filters import SIZES, SPANS, RunFilters, fits, has_attributes

MOST_COUNTED = 1000
REFRESH_SECONDS = 5
MOST_WORKFLOWS = 200
"""So many names are offered to choose from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A run as the list shows it to somebody."""

    run: Run
    says: str
    """What it says about itself, or why it stands."""
    is_bad: bool
    attributes: Mapping[str, Any]
    """Those that are not hidden from them."""
    seconds: float
    """How long it took, or has been going on."""


class RunListPages:
    """The endpoints, for one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            Operation(
                method="GET",
                path=path,
                endpoint=self.show,
                summary="Runs",
                scope=Scope.READ,
                answers={200: Html},
                described=False,
            )
            for path in ("/ui", "/ui/", "/ui/runs")
        ]

    @looks_at_caller
    async def show(self, request: Request) -> Response:
        """The list."""
        caller, now = caller_of(request), self._app.clock.now()
        filters = RunFilters.of(request.query_params)
        page: Page[Run] = Page(items=())
        counts, more_begin = None, False
        if not filters.errors:
            query = filters.query(now, only=caller.only_workflow)
            page, counts = await asyncio.gather(self._page(filters, query), self._counts(caller, filters, query))
            if filters.id and not filters.cursor and page.next_cursor is None:
                page, more_begin = await self._beginning(filters, query, page)
        showing, wanted = Showing(request, self._app), filters.wanted() if not filters.errors else {}
        rows = [
            row
            for run in page.items
            if caller.reaches(run.name)
            if has_attributes((row := row_of(run, showing.of(run.name), now)).attributes, wanted)
        ]
        names = sorted({one.name for one in self._app.registry.workflows() if caller.reaches(one.name)})
        return render(
            request,
            "runs.html",
            status=422 if filters.errors else 200,
            filters=filters,
            rows=rows,
            counts=counts,
            most=MOST_COUNTED,
            next_cursor=page.next_cursor,
            more_begin=more_begin,
            names=names[:MOST_WORKFLOWS],
            statuses=list(Status),
            spans=list(SPANS),
            sizes=SIZES,
            now=now,
            refresh=REFRESH_SECONDS,
        )

    async def _page(self, filters: RunFilters, query: RunQuery) -> Page[Run]:
        store = self._app.store
        try:
            if not filters.id:
                return await store.list(query)
            run = None if filters.cursor else await store.get(filters.id)
            page = await store.list(replace(query, workflow_id=filters.id))
        except ValueError as error:
            raise InvalidInputError(f"cursor: {error}") from None
        if run is None or run.workflow_id == filters.id or not fits(run, query):
            return page
        return Page(items=[run, *page.items], next_cursor=page.next_cursor)

    async def _beginning(self, filters: RunFilters, query: RunQuery, page: Page[Run]) -> tuple[Page[Run], bool]:
        """The page, and after it the runs with an id that begins like this; whether more of them were not looked at.
        Of each kind of id one range of an index is read."""
        limit = filters.size + 1
        ranges = await asyncio.gather(
            self._app.store.find(filters.id, by="run_id", limit=limit),
            self._app.store.find(filters.id, by="workflow_id", limit=limit),
        )
        known = {run.run_id for run in page.items}
        besides = {run.run_id: run for found in ranges for run in found[: filters.size] if fits(run, query)}
        newest = sorted(besides.values(), key=lambda run: (run.created_at, run.run_id), reverse=True)
        items = [*page.items, *(run for run in newest if run.run_id not in known)]
        room = max(filters.size, len(page.items))
        return Page(items=items[:room]), len(items) > room or any(len(found) == limit for found in ranges)

    async def _counts(self, caller: Caller, filters: RunFilters, query: RunQuery) -> Mapping[Status, int] | None:
        """How many there are of each status. None: that would tell too much, or cost too much."""
        sees_all = caller.workflows is None or (query.name is not None and caller.reaches(query.name))
        if not sees_all or filters.attributes or filters.id:
            return None
        found = await asyncio.gather(
            *(self._app.store.count(replace(query, status=one, cursor=None), most=MOST_COUNTED + 1) for one in Status)
        )
        return dict(zip(Status, found, strict=True))


def row_of(run: Run, shown: Shown, now: datetime) -> RunRow:
    """The run as somebody is shown it."""
    says, is_bad = _says(run, shown)
    return RunRow(
        run=run,
        says=says,
        is_bad=is_bad,
        attributes={name: value for name, value in shown.attributes(run.attributes).items() if value != REDACTED},
        seconds=max(0.0, ((run.closed_at or now) - run.created_at).total_seconds()),
    )


def _says(run: Run, shown: Shown) -> tuple[str, bool]:
    if run.error is not None:
        error = shown.opened(run.error)
        return f"{error.type}: {error.message}" if error.message else error.type, True
    if run.problem is not None:
        return run.problem, True
    if run.open_approvals:
        titles: Sequence[str] = [shown.plain_text(one.title) or one.key for one in run.open_approvals]
        return f"Asks: {', '.join(titles)}", False
    return "" if run.custom_status is None else _in_a_line(shown.plain(run.custom_status)), False


def _in_a_line(told: Any) -> str:
    """Plain data as people would say it."""
    if isinstance(told, Mapping) and told:
        return ", ".join(f"{name}: {_in_a_line(one)}" for name, one in told.items())
    return "" if told is None else told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
