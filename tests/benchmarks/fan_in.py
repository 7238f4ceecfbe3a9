"""Prints what it takes to gather many activities that are calls of their own: `python -m tests.benchmarks.fan_in [N]`.

Two instances on the Firestore emulator share the calls; each outcome is a message to the run, and asks for a call of
it.
What matters is how often the run's record is written, because one document takes about one write a second for long.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter

from tests.benchmarks.calls import Calls, count_takings
from tests.emulator import firestore_emulator
from tests.scenarios.costing import elsewhere, hands_out
from tests.stores.wire import Wire
from tinyworkflow_core import App
from tinyworkflow_core.clock import fresh_id
from tinyworkflow_core.stores.firestore import FirestoreStore

INSTANCES, AT_ONCE = 2, 20


async def main(width: int = 1000) -> None:
    project, calls, takings = f"bench-{fresh_id()}", Calls(), Counter[str]()
    stores = [FirestoreStore(project) for _ in range(INSTANCES)]
    apps = [App(store, workflows=[hands_out, elsewhere], dispatcher=calls) for store in stores]
    wires = []
    for store in stores:
        await store.get("nobody")  # connects
        wires.append(Wire(store._connection.client()._firestore_api))
        count_takings(store, takings)
    run_id = await apps[0].client.start_workflow(hands_out, width)
    took = await calls.make(apps, at_once=AT_ONCE, until=asyncio.Event())
    run = await stores[0].get(run_id)
    assert run is not None
    assert run.status.closed, run.status
    written, deleted, read = (sum(numbers) for numbers in zip(*(wire.spent() for wire in wires), strict=True))
    on_record = sum(wire.written_to[run_id] for wire in wires)
    print(
        f"{width} activities in {took:.1f} s by {INSTANCES} instances with {AT_ONCE} calls at once each: {run.status}"
    )
    print(f"calls: {dict(sorted(calls.made.items()))}")
    print(f"takings of the run: {takings['tried']} tried, {takings['got']} got")
    print(f"documents: {written} written, {deleted} deleted, {read} read; for each activity {written / width:.2f}, "
          f"{deleted / width:.2f}, {read / width:.1f}")  # fmt: skip
    print(f"its record was written {on_record} times, {on_record / took:.2f} a second, "
          f"{on_record / width:.3f} for each activity")  # fmt: skip
    for app in apps:
        await app.close()


if __name__ == "__main__":
    with firestore_emulator() as host:
        os.environ["FIRESTORE_EMULATOR_HOST"] = host
        asyncio.run(main(*map(int, sys.argv[1:])))
