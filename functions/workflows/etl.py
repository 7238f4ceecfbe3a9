"""Extract, transform, load: three steps in a row, each of which may be repeated without harm.

What one step gives is stored before the next one begins, so a process that dies in between costs at most one step, and
no step needs the files of another: only `extract` reads the source, only `load` writes the target.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tinyworkflow_core import ApplicationError, RetryPolicy, WorkflowContext, activity, activity_context, workflow

_COLUMNS = {"customer", "amount"}

Row = dict[str, str]


@dataclass
class Transfer:
    """A CSV file with the columns `customer` and `amount`, and the JSON file that becomes of it."""

    source: str
    target: str


@activity(retry_policy=RetryPolicy(max_retries=5, initial_delay=2.0), timeout="1m")
def extract(source: str) -> list[Row]:
    """The rows of a CSV file. A file that is not there yet is tried again; one with other columns never fits."""
    with Path(source).open(newline="") as file:
        reader = csv.DictReader(file)
        if missing := _COLUMNS - set(reader.fieldnames or ()):
            raise ApplicationError(f"{source} has no column {', '.join(sorted(missing))}", type="WrongColumns")
        return list(reader)


@activity
def transform(rows: list[Row]) -> dict[str, Any]:
    """Totals per customer, and how many rows say no amount."""
    totals: dict[str, Decimal] = {}
    unreadable = 0
    for row in rows:
        try:
            amount = Decimal(row["amount"])
        except InvalidOperation:
            unreadable += 1
        else:
            totals[row["customer"]] = totals.get(row["customer"], Decimal()) + amount
    return {"totals": {name: str(total) for name, total in sorted(totals.items())}, "unreadable": unreadable}


@activity
def load(target: str, totals: dict[str, str]) -> int:
    """Write the totals, whole or not at all, so that a repetition changes nothing. Returns how many there are."""
    unfinished = Path(f"{target}.{activity_context().idempotency_key.replace('/', '-')}")
    unfinished.write_text(json.dumps(totals, indent=2))
    os.replace(unfinished, target)
    return len(totals)


@workflow
async def simple_etl(ctx: WorkflowContext, transfer: Transfer) -> dict[str, Any]:
    """From a CSV file of orders to a JSON file of totals."""
    rows = await ctx.execute_activity(extract, transfer.source)
    transformed = await ctx.execute_activity(transform, rows)
    loaded = await ctx.execute_activity(load, transfer.target, transformed["totals"])
    return {"read": len(rows), "unreadable": transformed["unreadable"], "loaded": loaded}
