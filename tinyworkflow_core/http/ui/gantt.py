"""Gantt: the rows of a timeline that are in sight, as shapes with places and sizes. Pure.

Every row is drawn by itself in a box that is WIDTH wide, whatever the page makes of it, so that a row of a table can
hold it. However long a history is, what is drawn is bounded: so many rows a page, and so many shapes a row; what falls
together is drawn as one and said to be several.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from ...records import dataclass
from .rows import Bar, Mark, Row, Timeline, Tone

WIDTH = 1000
ROWS = 60
"""Rows on a page."""
MAX_SHAPES = 120
"""Bars, and marks, of one row that are drawn each for itself."""
MAX_SAID = 4
"""Bars and marks of one row that are told in words."""

_SMALLEST = 0.001
"""Seconds that a window spans at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A bar, or (width 0) a mark. `title`: what it is, in words."""

    x: float
    width: float
    tone: Tone
    title: str
    void: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A row as it is drawn. `seconds`: how long it took so far."""

    row: Row
    begin: datetime
    seconds: float
    goes_on: bool
    zoom: str
    """The query string of a window that it fills."""
    shapes: list[Shape]
    said: list[str]
    """The latest of it in words, and how much there is besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """What is looked at: `begin` and `end` in seconds since the timeline's begin, and which rows."""

    begin: float
    end: float
    first: int
    is_whole: bool

    def query(self, **changed: float | int | None) -> str:
        """The query string of this window with something else in places; None leaves a part out."""
        parts: dict[str, float | int | None] = {} if self.is_whole else {"from": self.begin, "to": self.end}
        parts = {**parts, **({"row": self.first} if self.first else {}), **changed}
        return "&".join(f"{name}={_short(value)}" for name, value in parts.items() if value is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gantt:
    """A page of a timeline. `links`: what leads to other windows, (words, query string) each."""

    lines: list[Line]
    total: int
    """Rows in this window of time, of which `lines` are some."""
    all_rows: int
    whole: float
    """Seconds that the timeline spans."""
    window: Window
    ticks: list[float]
    """Seconds since the timeline's begin, evenly over the width."""
    links: list[tuple[str, str]]


def gantt(timeline: Timeline, asked: Mapping[str, str]) -> Gantt:
    """The page that is asked for by `from`, `to` (seconds since the begin) and `row` (the first one). What cannot be
    read is as if it were not there."""
    whole = max((timeline.end - timeline.begin).total_seconds(), _SMALLEST)
    begin, end = _number(asked.get("from")), _number(asked.get("to"))
    zoomed = begin is not None and end is not None and end > begin
    low, high = (max(begin or 0.0, 0.0), min(end or whole, whole)) if zoomed else (0.0, whole)
    if high - low < _SMALLEST:
        zoomed, low, high = False, 0.0, whole
    rows = _in_sight(timeline, low, high) if zoomed else timeline.rows
    first = min(max(int(_number(asked.get("row")) or 0), 0), max(len(rows) - 1, 0))
    shown = rows[first : first + ROWS]
    if not zoomed and len(rows) > ROWS:  # a page of a long history is drawn over its own time
        low, high = _span(timeline, [row for row in shown if row.id is not None] or shown, low, high)
    window = Window(begin=low, end=high, first=first, is_whole=not zoomed)
    span = high - low
    return Gantt(
        lines=[_line(timeline, row, window) for row in shown],
        total=len(rows),
        all_rows=len(timeline.rows),
        whole=whole,
        window=window,
        ticks=[low + span * part / 4 for part in range(5)],
        links=list(_links(window, whole, (timeline.latest - timeline.begin).total_seconds(), len(rows))),
    )


def _in_sight(timeline: Timeline, low: float, high: float) -> list[Row]:
    begin, end = timeline.begin + timedelta(seconds=low), timeline.begin + timedelta(seconds=high)
    return [row for row in timeline.rows if row.begin <= end and (row.end or timeline.end) >= begin]


def _span(timeline: Timeline, rows: Sequence[Row], low: float, high: float) -> tuple[float, float]:
    begin = min(row.begin for row in rows)
    end = max(row.end or timeline.end for row in rows)
    first, last = ((at - timeline.begin).total_seconds() for at in (begin, end))
    return (first, last) if last - first >= _SMALLEST else (low, high)


def _links(window: Window, whole: float, latest: float, total: int) -> Iterable[tuple[str, str]]:
    span = window.end - window.begin
    middle = window.begin + span / 2
    if span / 2 >= _SMALLEST:
        yield "Zoom in", window.query(**{"from": middle - span / 4, "to": middle + span / 4, "row": None})
    if _SMALLEST <= latest < whole / 2 and latest < window.end:  # nothing has happened for long
        yield "Up to the latest event", window.query(**{"from": 0.0, "to": latest, "row": None})
    if not window.is_whole:
        low, high = max(middle - span, 0.0), min(middle + span, whole)
        if high - low < whole:
            yield "Zoom out", window.query(**{"from": low, "to": high, "row": None})
        if window.begin > 0:
            back = min(span / 2, window.begin)
            yield "Earlier", window.query(**{"from": window.begin - back, "to": window.end - back, "row": None})
        if window.end < whole:
            on = min(span / 2, whole - window.end)
            yield "Later", window.query(**{"from": window.begin + on, "to": window.end + on, "row": None})
        yield "Whole run", window.query(**{"from": None, "to": None, "row": None})
    if window.first > 0:
        yield "Rows before", window.query(row=max(window.first - ROWS, 0) or None)
    if window.first + ROWS < total:
        yield "Rows after", window.query(row=window.first + ROWS)
        yield "Last rows", window.query(row=(total - 1) // ROWS * ROWS)


def _line(timeline: Timeline, row: Row, window: Window) -> Line:
    begin, end = row.begin, row.end
    bars = [
        (one, one.begin, one.end or timeline.end, f"{one.words}{'' if one.end else ' (goes on)'}") for one in row.bars
    ]
    marks = [(one, one.at, one.at, one.words) for one in row.marks]
    shapes = [*_shapes(timeline, bars, window), *_shapes(timeline, marks, window)]
    seconds = max(((end or timeline.end) - begin).total_seconds(), 0.0)
    whole = (timeline.end - timeline.begin).total_seconds()
    after = (begin - timeline.begin).total_seconds()
    room = max(seconds / 10, _SMALLEST) if seconds else max(whole / 100, _SMALLEST)
    low, high = max(after - room, 0.0), min(after + seconds + room, max(whole, _SMALLEST))
    return Line(
        row=row,
        begin=begin,
        seconds=seconds,
        goes_on=end is None,
        zoom=window.query(**{"from": low, "to": high, "row": None}),
        shapes=shapes,
        said=_said(row),
    )


def _shapes(
    timeline: Timeline, parts: Sequence[tuple[Bar | Mark, datetime, datetime, str]], window: Window
) -> list[Shape]:
    """Shapes of what is in the window. Where there are many, those that stand closest together become one."""
    scale = WIDTH / (window.end - window.begin)
    placed = []
    for one, begin, end, words in parts:
        left = ((begin - timeline.begin).total_seconds() - window.begin) * scale
        right = ((end - timeline.begin).total_seconds() - window.begin) * scale
        if right < 0 or left > WIDTH:
            continue
        left, right = max(left, 0.0), min(right, float(WIDTH))
        placed.append(Shape(x=round(left, 1), width=round(right - left, 1), tone=one.tone, title=words, void=one.void))
    if len(placed) <= MAX_SHAPES:
        return placed
    cells: dict[tuple[int, int], list[Shape]] = {}
    size = WIDTH / MAX_SHAPES
    for shape in placed:
        wide = shape.width > size
        cells.setdefault((int(shape.x / size), int(wide)), []).append(shape)
    return [_together(cell) for cell in cells.values()]


def _together(cell: list[Shape]) -> Shape:
    if len(cell) == 1:
        return cell[0]
    left, right = min(one.x for one in cell), max(one.x + one.width for one in cell)
    bad = next((one for one in cell if one.tone is Tone.FAILED), cell[-1])
    title = f"{len(cell)} of these, the last: {cell[-1].title}"
    void = all(one.void for one in cell)
    return Shape(x=left, width=round(right - left, 1), tone=bad.tone, title=title, void=void)


def _said(row: Row) -> list[str]:
    """The latest bars and marks in words: they are at the ends of both lists, since events are told in order."""
    latest: list[Bar | Mark] = [*row.bars[-MAX_SAID:], *row.marks[-MAX_SAID:]]
    latest = sorted(latest, key=lambda one: one.event)[-MAX_SAID:]
    said = [f"{one.words} (void)" if one.void else one.words for one in latest]
    before = len(row.bars) + len(row.marks) - len(said)
    return [f"{before} before", *said] if before else said


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e12 else None


def _short(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
