"""Prints what runs cost on Firestore, counted on the emulator: `python -m tests.benchmarks.firestore_cost`.

Documents and calls of each kind of run, then dollars for a million steps by list prices (`costs`), then what a step
keeps stored. `--page` prints the tables of docs/costs.md and counts nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from tests.benchmarks import costs
from tests.emulator import firestore_emulator
from tests.scenarios.costing import ROWS, Spent, metered_environment, sequence
from tinyworkflow_core.stores.firestore_documents import size_of

STEPS = (10, 100, 1000)
"""Of the runs whose stored bytes and CPU time are measured."""


async def count() -> dict[str, Spent]:
    """Every row, each on an empty store."""
    counted = {}
    for name, row in ROWS.items():
        async with metered_environment() as metered:
            counted[name] = await metered.to_the_end(row)
    return counted


async def stored(steps: int) -> tuple[int, float]:
    """What a run of so many steps leaves behind, in bytes; and the CPU time of this process for it, in seconds."""
    async with metered_environment() as metered:
        run_id = await metered.env.start(sequence, steps)
        began = time.process_time()
        await metered.env._processes[0].app.advance(run_id)
        took = time.process_time() - began
        at = metered.store._at
        record = at.record(run_id)
        found = [await record.get(), *(await at.history(record).get())]
        return sum(size_of(one.to_dict()) + len(one.reference.path) for one in found), took


async def main() -> None:
    counted = await count()
    print(costs.documents_table(counted))
    for name, spent in counted.items():
        if spent != ROWS[name].spent:
            print(f"NOT AS EXPECTED: {name}: {spent}, and not {ROWS[name].spent}")
    print("\na sequence of N steps: N + 3 written, 0 deleted, 3 read, 1 call\n")
    print(costs.million_table(), costs.peers_table(), costs.arithmetic(), sep="\n\n")
    print()
    for steps in STEPS:
        size, took = await stored(steps)
        gib = size / steps * costs.MILLION / 2**30
        dollars = costs.PRICES["storage"].of(gib)
        print(
            f"{steps:5} steps: {size / steps:7,.0f} bytes a step stored; a million steps kept for a month: {gib:5.2f} "
            f"GiB, {dollars:.2f} dollars; CPU of this process {took / steps * 1000:.2f} ms a step"
        )


def page() -> None:
    print(costs.documents_table(), costs.prices_table(), costs.arithmetic(), sep="\n\n")
    print(costs.million_table(), costs.peers_table(), sep="\n\n")


if __name__ == "__main__":
    if "--page" in sys.argv[1:]:
        page()
    else:
        with firestore_emulator() as host:
            os.environ["FIRESTORE_EMULATOR_HOST"] = host
            asyncio.run(main())
