"""A process that hears of changed runs: `python -m tests.stores.listener URL`. Prints "ready", then each run_id."""

from __future__ import annotations

import asyncio
import sys

from tinyworkflow_core.store import Notifies
from tinyworkflow_core.stores import open_store


async def listen(url: str) -> None:
    """Print what is heard until the process is killed."""
    store = open_store(url)
    assert isinstance(store, Notifies)
    store.subscribe(lambda run_id, has_ended: print(run_id, flush=True))
    await store.purge("nobody")  # queued behind the registration: when it is done, so is that
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1]))
