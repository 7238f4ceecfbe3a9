"""advance: one call that brings one run as far as it goes.

acquire -> replay -> act -> commit -> let go. What workflow code does is the engine's, how an activity is called is
the runner's, where it is written is the store's. Nothing here is remembered between calls: whatever a call that dies
leaves behind, the next one finds in the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from ..errors import LeaseLost
from .call import Attention, Call
from .surroundings import AdvanceSettings, Progress, Surroundings
from .work import RunActivity

__all__ = ["AdvanceSettings", "Advancer", "Progress", "RunActivity", "Surroundings"]

_log = logging.getLogger("tinyworkflow.advance")


class Advancer:
    """Advances runs, several at a time, each by one call at a time within this process and, by its lease, within the
    world."""

    def __init__(self, around: Surroundings, *, new_owner: Callable[[], str], is_gone: Callable[[str], bool]) -> None:
        self._around = around
        self._new_owner = new_owner
        self._is_gone = is_gone
        self._held: dict[str, Attention] = {}

    async def advance(self, run_id: str, *, deadline: datetime | None = None) -> Progress:
        """Bring the run as far as it goes before `deadline` (None: however long it takes).

        Any number of calls for one run may come at once, here or elsewhere: one works, the others answer BUSY. Raises
        StoreError when the store breaks; the run is then picked up again when the lease ends at the latest.
        """
        if (attention := self._held.get(run_id)) is not None:
            attention.call_for_messages()
            return Progress.BUSY
        self._held[run_id] = attention = Attention()
        try:
            while True:
                attention.messages = False
                progress = await self._once(run_id, attention, deadline)
                if progress is not Progress.RELEASED or attention.aside:
                    return progress
                # A message may have come after the last look and found the lease still held.
                if not await self._around.store.inbox(run_id) and not attention.messages:
                    return progress
        finally:
            del self._held[run_id]

    async def _once(self, run_id: str, attention: Attention, deadline: datetime | None) -> Progress:
        owner = self._new_owner()
        ttl = timedelta(seconds=self._around.settings.lease_seconds)
        lease = await self._around.store.acquire(
            run_id, owner=owner, now=self._around.clock.now(), ttl=ttl, gone=self._is_gone
        )
        if lease is None:
            run = await self._around.store.get(run_id)
            if run is None:
                return Progress.UNKNOWN
            return Progress.CLOSED if run.status.closed else Progress.BUSY
        state = await self._around.store.load(run_id)
        if state is None:  # purged in this very moment
            return Progress.UNKNOWN
        call = Call(self._around, lease, state, attention, deadline)
        try:
            return await call.run()
        except LeaseLost:
            call.lost()
            _log.warning("lost the lease of %s", run_id, extra={"run_id": run_id})
            return Progress.LOST
        except Exception:
            call.failed()
            raise
        finally:
            await call.put_away()
