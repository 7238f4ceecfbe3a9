"""Figures into one table: ours, the floor, each peer, ratios, targets; and that table into a page of the docs. Pure,
but for `write`.

A figure is the median over the passes. A ratio is taken within each pass, and then its median, so that a machine that
drifts between passes does not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .targets import MEASURES, TARGETS, Measure, Target

Line = dict[str, Any]
BEGIN, END = "<!-- results: written by the benchmark -->", "<!-- end of results -->"
FLOOR = "floor"
FLOOR_SETTING = "WAL-FULL"
BUSY = 30.0
"""Percent of one core: above it, others were at work beside the figure."""


def named(line: Line) -> str:
    """The column that the line belongs to."""
    return f"{line['peer']}:{line['variant']}" if line.get("variant") and line["peer"] != FLOOR else line["peer"]


class Figures:
    """All lines of one session."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines: dict[tuple[str, str], dict[int, Line]] = {}
        self.columns: list[str] = []
        self.durable: dict[str, bool] = {}
        for line in lines:
            name, workload = named(line), line["workload"]
            if name == FLOOR and line["variant"] != FLOOR_SETTING:
                name = f"{FLOOR} {line['variant']}"
            elif name not in ("ours", FLOOR, *self.columns):
                self.columns.append(name)
            self.durable.setdefault(name, line.get("durable", True))
            self._lines.setdefault((name, workload), {})[line.get("pass", 0)] = line

    def lines(self, name: str, workload: str) -> list[Line]:
        """Of that column, by pass."""
        return list(self._lines.get((name, workload), {}).values())

    def values(self, measure: Measure, name: str) -> dict[int, float]:
        """pass -> figure, in the measure's unit."""
        if name == FLOOR:
            if measure.steps is None:
                return {}
            lines, field, scale = self._lines.get((FLOOR, "FLOOR"), {}), "per_second", 1 / measure.steps
        else:
            lines, field, scale = self._lines.get((name, measure.workload), {}), measure.field, measure.scale
        found = {at: line[field] if field in line else line["extra"].get(field) for at, line in lines.items()}
        return {at: value * scale for at, value in found.items() if value is not None}

    def figure(self, measure: Measure, name: str) -> float | None:
        """The median over the passes."""
        found = self.values(measure, name)
        return statistics.median(found.values()) if found else None

    def ratio(self, measure: Measure, other: str) -> float | None:
        """Our figure over that of `other`: the median of the ratios of all passes that have both."""
        ours, theirs = self.values(measure, "ours"), self.values(measure, other)
        found = [ours[at] / theirs[at] for at in ours.keys() & theirs.keys() if theirs[at] > 0]
        return statistics.median(found) if found else None

    def best(self, measure: Measure) -> str | None:
        """The peer with the best figure, among the durable ones where that matters."""
        found = {
            name: figure
            for name in self.columns
            if (measure.any_peer or self.durable[name]) and (figure := self.figure(measure, name)) is not None
        }
        if not found:
            return None
        return (max if measure.more else min)(found, key=lambda name: found[name])


def table(figures: Figures) -> str:
    """One row for each measure that has a figure of ours, or a reason why there is none."""
    peers = figures.columns
    heads = ["", "measure", "ours", "all passes", FLOOR, *[_head(figures, name) for name in peers]]
    heads += (["÷ best peer"] if peers else []) + ["÷ floor", "target"]
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for measure in MEASURES:
        lines = figures.lines("ours", measure.workload)
        if not lines:
            continue
        cells = [measure.workload, f"{measure.title}, {measure.unit}" if measure.unit else measure.title]
        cells += [_cell(figures, measure, "ours"), _passes(figures, measure), _cell(figures, measure, FLOOR)]
        cells += [_cell(figures, measure, name) for name in peers]
        if peers:
            best = figures.best(measure)
            over_best = None if best is None else figures.ratio(measure, best)
            cells.append("" if over_best is None else f"{over_best:.2f} ({best})")
        over_floor = figures.ratio(measure, FLOOR)
        cells.append("" if over_floor is None else f"{over_floor:.2f}")
        cells.append("; ".join(verdict(figures, measure, target) for target in _targets(measure)))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def verdict(figures: Figures, measure: Measure, target: Target) -> str:
    """The target, and whether it is met; a ratio is shown, too."""
    found = figures.ratio(measure, target.of) if target.of else figures.figure(measure, "ours")
    text = target.text(measure.unit)
    if found is None:
        return f"{text}: not measured"
    met = found >= target.bound if target.at_least else found <= target.bound
    return f"{text}: {'met' if met else '**not met**'}" + (f" ({found:.2f})" if target.of else "")


def _targets(measure: Measure) -> list[Target]:
    return [one for one in TARGETS if (one.workload, one.field) == (measure.workload, measure.field)]


def _head(figures: Figures, name: str) -> str:
    return name if figures.durable[name] else f"{name} (not durable)"


def _cell(figures: Figures, measure: Measure, name: str) -> str:
    if (found := figures.figure(measure, name)) is not None:
        return f"{found:,.{measure.digits}f}"
    extras = [line["extra"] for line in figures.lines(name, measure.workload)]
    for key, word in (("unsupported", "cannot"), ("timed_out", "never"), ("error", "failed")):
        if any(extra.get(key) for extra in extras):
            return word
    return ""


def _passes(figures: Figures, measure: Measure) -> str:
    found = figures.values(measure, "ours")
    if len(found) < 2:
        return ""
    lines = {line.get("pass", 0): line for line in figures.lines("ours", measure.workload)}
    busy = {at: lines[at]["extra"].get("others_cpu", 0) > BUSY for at in found}
    return " / ".join(f"{found[at]:,.{measure.digits}f}{'*' if busy[at] else ''}" for at in sorted(found))


def notes(lines: Sequence[Line]) -> list[str]:
    """What has to be known beside the table: the other floors, stores, failures, and how busy the machine was."""
    said: dict[str, None] = {}
    for line in lines:
        name, extra = named(line), line["extra"]
        if line.get("version") and line.get("store") and name != FLOOR:
            said[f"{name} {line['version']}: {line['store']}."] = None
        for key, words in (("unsupported", "cannot do"), ("error", "failed in")):
            if extra.get(key):
                said[f"{name} {words} {line['workload']}: {' '.join(str(extra[key]).split())[-300:]}"] = None
        if extra.get("failed_runs"):
            said[f"{name} {line['workload']}: {extra['failed_runs']} of {line['n']} runs failed."] = None
        if extra.get("timed_out"):
            said[f"{name} {line['workload']}: nothing within {extra['cap_s']:g} s."] = None
    return [*_floors(lines), *said, *_busy(lines)]


def _floors(lines: Sequence[Line]) -> list[str]:
    found: dict[str, list[float]] = {}
    for line in lines:
        if line["workload"] == "FLOOR" and "per_second" in line:
            found.setdefault(line["variant"], []).append(line["per_second"])
    each = ", ".join(f"{setting} {statistics.median(rates):,.0f}" for setting, rates in found.items())
    return [f"Floor, commits/s: {each}."] if each else []


def _busy(lines: Sequence[Line]) -> list[str]:
    shares = [line["extra"]["others_cpu"] for line in lines if "others_cpu" in line["extra"]]
    if not shares:
        return []
    often = sum(share > BUSY for share in shares)
    text = f"CPU that others used meanwhile, of one core: median {statistics.median(shares):.0f} %, at most "
    text += f"{max(shares):.0f} %"
    return [
        f"{text}; {often} of {len(shares)} figures were taken beside a busy neighbour (`*`)." if often else f"{text}."
    ]


def section(lines: Sequence[Line], session: dict[str, Any]) -> str:
    """Date, machine, table and notes."""
    head = f"{session['at']}, {session['passes']} passes, commit {session['commit']}. {session['machine']}."
    return "\n".join([head, "", table(Figures(lines)), "", *(f"- {note}" for note in notes(lines))])


def write(page: Path, text: str) -> None:
    """Put the section between the page's two marker comments. ValueError when they are not there."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the comments {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
