"""What steps cost on Google Cloud: list prices, and the tables of docs/costs.md that follow from them and from what
`tests/scenarios/costing.py` counts. Pure: nothing is measured here.

Prices are of us-central1, in dollars, without free quotas and discounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.scenarios.costing import ROWS, Row, Spent

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Price:
    """So many dollars for so many of something."""

    dollars: float
    per: int
    what: str
    page: str

    def of(self, amount: float) -> float:
        return amount * self.dollars / self.per


FIRESTORE, RUN, TASKS = (f"cloud.google.com/{name}/pricing" for name in ("firestore", "run", "tasks"))
PRICES = {
    "write": Price(dollars=0.09, per=100_000, what="Firestore, document writes", page=FIRESTORE),
    "read": Price(dollars=0.03, per=100_000, what="Firestore, document reads", page=FIRESTORE),
    "delete": Price(dollars=0.01, per=100_000, what="Firestore, document deletes", page=FIRESTORE),
    "storage": Price(dollars=0.15, per=1, what="Firestore, GiB stored for a month", page=FIRESTORE),
    "request": Price(dollars=0.40, per=MILLION, what="Cloud Run functions, requests", page=RUN),
    "cpu": Price(dollars=0.000024, per=1, what="Cloud Run functions, vCPU-seconds while a request is served", page=RUN),
    "memory": Price(dollars=0.0000025, per=1, what="Cloud Run functions, GiB-seconds, the same", page=RUN),
    "task": Price(dollars=0.40, per=MILLION, what="Cloud Tasks, operations (a task: made, delivered)", page=TASKS),
}

PEERS = {
    "AWS Lambda durable functions": "8, and the data written and kept",
    "AWS Step Functions, Standard": "25",
    "Google Workflows": "10 internal steps, 25 calls of other services",
    "Upstash Workflow": "10",
}
"""Dollars for a million steps."""

CPUS, GIBIBYTES = 1.0, 0.5
"""Of one instance, which serves one request at a time here: the dearest way."""
LEAST_SECONDS = 0.1
"""Time is billed in these."""
STEP_SECONDS = 0.01
"""One commit to Firestore in the same region, and what the engine does for a step: assumed, not measured there."""


def runs_of(row: Row) -> float:
    """Runs that make a million steps."""
    return MILLION / row.steps


def requests_of(row: Row) -> int:
    """Requests of one run: the one that starts it, the one that brings it a message, and its calls."""
    return 1 + (row.meanwhile is not None) + row.spent.calls


def documents(spent: Spent) -> float:
    """Dollars for the documents of one run."""
    amounts = {"write": spent.written, "read": spent.read, "delete": spent.deleted}
    return sum(PRICES[name].of(amount) for name, amount in amounts.items())


def calls(row: Row) -> float:
    """Dollars for the requests and tasks of one run."""
    return PRICES["request"].of(requests_of(row)) + PRICES["task"].of(2 * row.spent.calls)


def time(row: Row) -> float:
    """Dollars for the time of the function in one run, the activities' own time not counted."""
    seconds = LEAST_SECONDS * requests_of(row) + max(0.0, STEP_SECONDS * row.steps - LEAST_SECONDS * row.spent.calls)
    return PRICES["cpu"].of(seconds * CPUS) + PRICES["memory"].of(seconds * GIBIBYTES)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def documents_table(counted: Mapping[str, Spent] | None = None) -> str:
    """What a run costs in documents and calls, by what was counted, or by what the tests hold it to."""
    spent = counted or {name: row.spent for name, row in ROWS.items()}
    rows = [(name, one.written, one.deleted, one.read, one.calls) for name, one in spent.items()]
    return table(("a whole run", "written", "deleted", "read", "calls"), rows)


def prices_table() -> str:
    rows = [(one.what, f"{one.dollars:.7f}".rstrip("0"), f"{one.per:,}", one.page) for one in PRICES.values()]
    return table(("price", "dollars", "for", "list"), rows)


MILLION_OF = (
    "a sequence of 1 step", "a sequence of 10 steps", "a sequence of 100 steps", "a fan-out of 10 that end together",
    "a signal waited for", "a timer", "an approval", "a child of one step", "ten calls of their own",
)  # fmt: skip


def million_table() -> str:
    """Dollars for a million steps, by the kind of run they are made in."""
    rows = []
    for name in MILLION_OF:
        row = ROWS[name]
        parts = [part * runs_of(row) for part in (documents(row.spent), calls(row), time(row))]
        rows.append((name, *(f"{part:.2f}" for part in (*parts, sum(parts)))))
    return table(("a million steps, in runs of", "documents", "calls", "time", "all"), rows)


def peers_table() -> str:
    return table(("service", "dollars for a million steps"), PEERS.items())


def arithmetic() -> str:
    """One row of `million_table` in full."""
    row, spent = ROWS["a sequence of 10 steps"], ROWS["a sequence of 10 steps"].spent
    runs = int(runs_of(row))
    seconds = LEAST_SECONDS * requests_of(row)
    second = PRICES["cpu"].of(CPUS) + PRICES["memory"].of(GIBIBYTES)
    lines = [
        f"{runs:,} runs of {row.steps} steps",
        f"written   {spent.written:3} x {runs:,} = {spent.written * runs:9,} x 0.09 / 100,000   = "
        f"{PRICES['write'].of(spent.written * runs):.2f}",
        f"read      {spent.read:3} x {runs:,} = {spent.read * runs:9,} x 0.03 / 100,000   = "
        f"{PRICES['read'].of(spent.read * runs):.2f}",
        f"requests  {requests_of(row):3} x {runs:,} = {requests_of(row) * runs:9,} x 0.40 / 1,000,000 = "
        f"{PRICES['request'].of(requests_of(row) * runs):.2f}",
        f"tasks     {2 * spent.calls:3} x {runs:,} = {2 * spent.calls * runs:9,} x 0.40 / 1,000,000 = "
        f"{PRICES['task'].of(2 * spent.calls * runs):.2f}",
        f"seconds   {seconds:3} x {runs:,} = {seconds * runs:9,.0f} x {second:.8f}       = {time(row) * runs:.2f}",
        f"all {(documents(spent) + calls(row) + time(row)) * runs:.2f}",
    ]
    return "\n".join(lines)
