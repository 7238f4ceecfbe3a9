"""advance: one call that brings one run as far as it goes.

acquire -> replay -> act -> commit -> let go. What workflow code does is the engine's, how an activity is called is
the runner's, where it is written is the store's. Nothing here is remembered between calls: whatever a call that dies
leaves behind, the next one finds in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from ..dispatcher import Advance
from ..errors import LeaseLost, SerializationError, StoreError, StoreUnavailableError
from ..store import STEERING, Lease, Status, hand_back
from .call import Call
from .holding import Attention
from .ledger import PAUSES
from .performing import Performer
from .surroundings import AdvanceSettings, Progress, Surroundings
from .work import RunActivity

__all__ = ["AdvanceSettings", "Advancer", "Performer", "Progress", "RunActivity", "Surroundings"]

_log = logging.getLogger("tinyworkflow.advance")


class Advancer:
    """Advances runs, several at a time, each by one call at a time within this process and, by its lease, within the
    world."""

    def __init__(self, around: Surroundings, *, new_owner: Callable[[], str], is_gone: Callable[[str], bool]) -> None:
        self._around = around
        self._new_owner = new_owner
        self._is_gone = is_gone
        self._ttl = timedelta(seconds=around.settings.lease_seconds)
        self._held: dict[str, Attention] = {}

    async def advance(self, run_id: str, *, deadline: datetime | None = None) -> Progress:
        """Bring the run as far as it goes before `deadline` (None: however long it takes).

        Any number of calls for one run may come at once, here or elsewhere: one works, the others answer BUSY. Raises
        StoreError when the store breaks; the run is then picked up again when the lease ends at the latest.
        """
        if (attention := self._held.get(run_id)) is not None and not attention.handed_over:
            attention.call_for_messages()
            return Progress.BUSY
        self._held[run_id] = attention = Attention()
        try:
            while True:
                attention.messages = attention.aside = attention.handed_over = False
                progress = await self._once(run_id, attention, deadline)
                if progress not in (Progress.RELEASED, Progress.CONTINUED) or attention.unreadable:
                    return progress
                # A message may have come after the last look and found the lease still held.
                if progress is Progress.RELEASED and not await self._moves_on(run_id, attention):
                    return progress
                if deadline is not None and self._around.clock.now() >= deadline:
                    attention.handed_over = True
                    await self._around.dispatcher.dispatch(Advance(run_id=run_id))
                    return Progress.CONTINUES
        finally:
            attention.rest()
            if self._held.get(run_id) is attention:
                del self._held[run_id]

    async def _moves_on(self, run_id: str, attention: Attention) -> bool:
        inbox = await self._around.store.inbox(run_id)
        if attention.aside:
            return any(message.kind in STEERING for message in inbox)
        return bool(inbox) or attention.messages

    async def _once(self, run_id: str, attention: Attention, deadline: datetime | None) -> Progress:
        store = self._around.store
        now, owner = self._around.clock.now(), self._new_owner()
        taken = await store.acquire(run_id, owner=owner, now=now, ttl=self._ttl, gone=self._is_gone)
        if taken is None:
            run = await store.get(run_id)
            if run is None:
                return Progress.UNKNOWN
            return Progress.CLOSED if run.status.closed else Progress.BUSY
        lease = taken.lease
        try:
            state = taken.state or await store.load(run_id)
        except SerializationError as error:  # written by a newer release, or damaged
            attention.unreadable = True
            after = timedelta(seconds=self._around.settings.parked_retry_seconds)
            await self._leave(lease, Status.PARKED, after, problem=str(error))
            return Progress.RELEASED
        except BaseException as error:
            await self._leave(lease, Status.PENDING, self._ttl if isinstance(error, Exception) else timedelta(0))
            raise
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

    async def _leave(self, lease: Lease, status: Status, after: timedelta, problem: str | None = None) -> None:
        """Let go of a run that could not be read. Where that fails, its lease runs out by itself."""
        wake_at = self._around.clock.now() + after
        with contextlib.suppress(LeaseLost, StoreError):
            for pause in (*PAUSES, None):
                try:
                    return await hand_back(self._around.store, lease, wake_at=wake_at, status=status, problem=problem)
                except StoreUnavailableError:
                    if pause is not None:
                        await asyncio.sleep(pause)
