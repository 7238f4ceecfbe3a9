"""What is reported of each workload (`MEASURES`), and what our figure has to reach (`TARGETS`). The one place for both.

A target is a ratio within one session, pass by pass, or a limit. It is reported as met or not met; no test fails by it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One row of the table.

    - field: of the figure's line, or of its `extra`; times `scale` it is in `unit`.
    - more: whether more is better.
    - steps: how many durable steps one unit is; the row is compared with the floor's commits.
    - any_peer: the best peer may be one that is not durable, since durability has no part in it.
    """

    workload: str
    title: str
    unit: str
    field: str
    scale: float = 1
    digits: int = 0
    more: bool = False
    steps: float | None = None
    any_peer: bool = False


@dataclass(frozen=True, kw_only=True)
class Target:
    """Of the measure (workload, field): at least or at most `bound`, times the figure of `of` if that is given."""

    workload: str
    field: str
    bound: float
    at_least: bool = False
    of: str | None = None

    def text(self, unit: str) -> str:
        """In words."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {f'of {self.of}' if self.of else unit}".strip()


MEASURES = (
    Measure(workload="W1", title="sequential steps", unit="steps/s", field="per_second", more=True, steps=1),
    Measure(
        workload="W2", title="runs of 3 steps, 50 in flight", unit="runs/s", field="per_second", more=True, steps=3
    ),
    Measure(workload="W2", title="such a run, p50", unit="ms", field="p50_ms"),
    Measure(workload="W2", title="such a run, p99", unit="ms", field="p99_ms"),
    Measure(workload="W3", title="fan-out of 200", unit="ms", field="seconds", scale=1e3, digits=1),
    Measure(workload="W4", title="signal to completion, p50", unit="ms", field="p50_ms", digits=1),
    Measure(workload="W4", title="signal to completion, p99", unit="ms", field="p99_ms", digits=1),
    Measure(workload="W5", title="replay of 1,000 steps", unit="ms", field="replay_s", scale=1e3, digits=1),
    Measure(workload="W5", title="process start to result", unit="s", field="seconds", digits=2),
    Measure(workload="W6", title="import of the package", unit="ms", field="seconds", scale=1e3, any_peer=True),
    Measure(
        workload="W6",
        title="import of what a workflow needs",
        unit="ms",
        field="names_ms",
        any_peer=True,
    ),
    Measure(workload="W6", title="memory after the import", unit="MB", field="rss_mb", digits=1, any_peer=True),
    Measure(
        workload="W6",
        title="memory after the import of what a workflow needs",
        unit="MB",
        field="names_rss_mb",
        digits=1,
        any_peer=True,
    ),
    Measure(workload="ANSWER", title="first answer, later than an empty function's", unit="ms", field="later_ms"),
    Measure(workload="W7", title="kill -9 to result", unit="s", field="seconds", digits=2),
    Measure(workload="W7", title="repeated steps", unit="", field="repeated"),
    Measure(workload="W8", title="sleep, late by, p99", unit="ms", field="p99_ms", digits=1),
    Measure(workload="W8", title="sleep, earliest", unit="ms", field="earliest_ms", digits=1, more=True),
    Measure(workload="HTTP", title="start over HTTP, median", unit="ms", field="p50_ms", digits=2),
    Measure(workload="HTTP", title="start over HTTP, times GET /healthz", unit="", field="times_healthz", digits=1),
    Measure(workload="FSYNC", title="fsync calls per step of W1", unit="", field="syncs_per_step", digits=2),
)

TARGETS = (
    Target(workload="W1", field="per_second", bound=0.6, at_least=True, of="floor"),
    Target(workload="W1", field="per_second", bound=3, at_least=True, of="restate"),
    Target(workload="W2", field="per_second", bound=5, at_least=True, of="restate"),
    Target(workload="W3", field="seconds", bound=0.5, of="restate"),
    Target(workload="W4", field="p50_ms", bound=5),
    Target(workload="W4", field="p99_ms", bound=15),
    Target(workload="W5", field="replay_s", bound=20),
    Target(workload="W5", field="seconds", bound=0.4),
    Target(workload="W6", field="seconds", bound=0.8, of="durabletask"),
    Target(workload="W6", field="names_ms", bound=0.8, of="durabletask"),
    Target(workload="W6", field="rss_mb", bound=35),
    Target(workload="W6", field="names_rss_mb", bound=35),
    Target(workload="ANSWER", field="later_ms", bound=200),
    Target(workload="W7", field="seconds", bound=0.6),
    Target(workload="W7", field="repeated", bound=1),
    Target(workload="W8", field="p99_ms", bound=10),
    Target(workload="FSYNC", field="syncs_per_step", bound=1, at_least=True),
)
