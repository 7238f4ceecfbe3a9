"""Drawing: a run's timeline as text, from its events as the API shows them. What rows and bars there are is said by
`http/ui/timeline.py`, which the dashboard draws too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..engine.history import Event, event_from_dict
from ..errors import SerializationError
from ..http.ui.rows import Bar, Kind, Row, Timeline, Tone
from ..http.ui.timeline import timeline
from .printing import Part
from .reach import Data

MOST_ROWS = 40
BAR_WIDTH = 40
_NAME_WIDTH = 28
_SIGNS = {Tone.DONE: "█", Tone.FAILED: "x", Tone.OPEN: "▒", Tone.WAIT: "·", Tone.CANCELLED: "-"}
_STYLES = {
    Tone.DONE: "green", Tone.FAILED: "red", Tone.OPEN: "blue", Tone.WAIT: "cyan", Tone.CANCELLED: "yellow",
}  # fmt: skip
_ENCODED = ("input", "output", "result", "payload", "data", "details", "form", "heartbeat", "custom_status")


def timeline_of(events: Sequence[Data], now: datetime) -> Timeline | None:
    """The timeline of a history that begins with its first event. None: there is nothing, or an event of another
    release."""
    try:
        history = [_event(one) for one in events]
    except SerializationError:
        return None
    return timeline(history, now=now) if history else None


def drawn(found: Timeline) -> list[list[Part]]:
    """A line per row: its name, its bars on a common scale, how it stands and how long it took."""
    rows = [row for row in found.rows if row.kind is not Kind.RUN and (row.bars or row.marks)]
    lines: list[list[Part]] = []
    if len(rows) > MOST_ROWS:
        lines.append([(f"... {len(rows) - MOST_ROWS} earlier rows are left out", "dim")])
        rows = rows[-MOST_ROWS:]
    for row in rows:
        name = f"{row.name}" if row.kind is Kind.ACTIVITY or row.kind.value == row.name else f"{row.kind} {row.name}"
        style = _STYLES.get(_tone(row), "")
        name = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
        attempts = f", {row.attempts} attempts" if row.attempts > 1 else ""
        lines.append(
            [f"{name:{_NAME_WIDTH}} ", ("│" + _bar(row, found) + "│", style), f" {row.state}{attempts}", _took(row)]
        )
    return lines


def _bar(row: Row, found: Timeline) -> str:
    cells = [" "] * BAR_WIDTH
    span = max((found.end - found.begin).total_seconds(), 0.001)

    def place(moment: datetime) -> int:
        share = (moment - found.begin).total_seconds() / span
        return min(max(int(share * BAR_WIDTH), 0), BAR_WIDTH - 1)

    for bar in row.bars:
        for cell in range(place(bar.begin), place(bar.end or found.end) + 1):
            cells[cell] = _SIGNS[bar.tone]
    for mark in row.marks:
        cells[place(mark.at)] = "x" if mark.tone is Tone.FAILED else "|"
    return "".join(cells)


def _tone(row: Row) -> Tone:
    parts: list[Any] = [*row.bars, *row.marks]
    latest = max(parts, key=lambda one: one.event)
    tone: Tone = latest.tone
    return tone


def _took(row: Row) -> Part:
    ends = [bar for bar in row.bars if isinstance(bar, Bar) and bar.end is not None]
    if row.end is None or not ends:
        return ""
    return f"  {(row.end - row.begin).total_seconds():.3f} s", "dim"


def _event(view: Mapping[str, Any]) -> Event:
    """The event that is shown so, as far as a timeline looks at it."""
    data = {name: value for name, value in view.items() if name not in ("event_id", "type")}
    for name in _ENCODED:
        if data.get(name) is not None:
            data[name] = json.dumps(data[name])
    return event_from_dict(data | {"kind": view["type"]})
