"""The page that shows two runs side by side: /ui/diff?a=RUN&b=RUN. What differs is said by `comparing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ...errors import InvalidInputError, RunNotFoundError, SerializationError
from ...records import dataclass
from ...serialization import digest
from ...store import RunState
from ..callers import caller_of, looks_at_caller
from ..operations import Html, Operation, Scope
from ..shown import Showing, Shown
from .comparing import Pair, Side, compare, first_difference, same_value
from .rendering import render
from .run_view import pretty

ROWS = 50
"""Steps on a page."""
_MOST = 2_000
"""Characters of one value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run's side of a step, as it is shown. Values only where the runs differ."""

    side: Side
    input: str | None
    result: str | None
    error: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shade:
    """A pair of cells. `index`: its place among all pairs."""

    index: int
    pair: Pair
    a: Cell | None
    b: Cell | None


class DiffPages:
    """The endpoint, for one App."""

    def __init__(self, app: App) -> None:
        self._app = app

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            Operation(
                method="GET",
                path="/ui/diff",
                endpoint=self.page,
                summary="Two runs side by side",
                scope=Scope.READ,
                answers={200: Html},
                described=False,
            )
        ]

    @looks_at_caller
    async def page(self, request: Request) -> Response:
        """The difference; with `only=1` what differs alone. Without two runs: a form that asks for them."""
        asked = request.query_params
        ids = [asked.get(name, "").strip() for name in ("a", "b")]
        if not all(ids):
            return render(request, "diff.html", a=ids[0], b=ids[1], said=None, found=None)
        try:
            states = [await self._load(request, one) for one in ids]
        except (RunNotFoundError, InvalidInputError) as error:
            status = 404 if isinstance(error, RunNotFoundError) else 422
            return render(request, "diff.html", status=status, a=ids[0], b=ids[1], said=str(error), found=None)
        found = self._found(request, states, only=asked.get("only") == "1", row=asked.get("row", ""))
        return render(request, "diff.html", a=ids[0], b=ids[1], said=None, found=found)

    async def _load(self, request: Request, run_id: str) -> RunState:
        """A run that the caller reaches."""
        try:
            state = await self._app.store.load(run_id)
        except SerializationError as error:
            raise InvalidInputError(f"the history of run {run_id[:200]!r} cannot be read here: {error}") from None
        if state is None or not caller_of(request).reaches(state.run.name):
            raise RunNotFoundError(f"there is no run {run_id[:200]!r}", run_id=run_id)
        return state

    def _found(self, request: Request, states: Sequence[RunState], *, only: bool, row: str) -> dict[str, Any]:
        one, other = states
        pairs = compare(one.history, other.history, self._fingerprint)
        first = first_difference(pairs)
        listed = [(index, pair) for index, pair in enumerate(pairs) if pair.differs or not only]
        start = min(int(row) if row.isascii() and row.isdigit() and len(row) < 10 else 0, max(len(listed) - 1, 0))
        start = start // ROWS * ROWS
        showing = Showing(request, self._app)
        shown = [showing.of(state.run.name) for state in states]
        return {
            "runs": [state.run for state in states],
            "heads": [
                self._head("Input", [state.run.input for state in states], shown),
                self._head("Output", [state.run.output for state in states], shown),
            ],
            "rows": [
                Shade(index=index, pair=pair, a=_cell(pair, pair.a, shown[0]), b=_cell(pair, pair.b, shown[1]))
                for index, pair in listed[start : start + ROWS]
            ],
            "first": first,
            "first_step": None if first is None else pairs[first],
            "first_row": None if first is None else next(n for n, (index, _) in enumerate(listed) if index == first),
            "total": len(listed),
            "start": start,
            "step": ROWS,
            "different": sum(bool(pair.differs) for pair in pairs),
            "only": only,
        }

    def _head(self, title: str, texts: Sequence[str | None], shown: Sequence[Shown]) -> dict[str, Any]:
        return {
            "title": title,
            "same": same_value(texts[0], texts[1], self._fingerprint),
            "texts": [_text(text, codec) for text, codec in zip(texts, shown, strict=True)],
        }

    def _fingerprint(self, text: str) -> str:
        try:
            return self._app.codec.fingerprint(text)
        except SerializationError:  # sealed with a key that is not here: then the sealed texts are compared
            return digest(text)


def _cell(pair: Pair, side: Side | None, shown: Shown) -> Cell | None:
    if side is None:
        return None
    differs = pair.differs
    error = None
    if differs and side.error is not None:
        opened = shown.opened(side.error)
        error = f"{opened.type}: {opened.message}"[:_MOST]
    return Cell(
        side=side,
        input=_text(side.input, shown) if differs else None,
        result=_text(side.result, shown) if differs else None,
        error=error,
    )


def _text(text: str | None, shown: Shown) -> str | None:
    if text is None:
        return None
    said = pretty(shown.plain(text))[0]
    return said if len(said) <= _MOST else f"{said[:_MOST]}…"
