"""Ledger: what the holder of a lease has read of its run and writes to it, in order.

It knows the record, the history and the sequence number of this holding, cuts what does not fit into one document,
repeats a write whose answer was lost, and keeps the lease alive. What is written, and when, the call decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ..clock import Clock
from ..engine.history import ApprovalDecided, ApprovalVoted, ApprovalWithdrawn, Event
from ..engine.voting import verdict
from ..errors import LeaseLost, StoreError, StoreUnavailableError
from ..serialization import Codec
from ..store import Commit, Lease, Message, NewRun, OpenApproval, Release, RunState, Status, Store
from .records import cast_vote, how_many_fit

PAUSES = (0.05, 0.2, 1.0)
"""Seconds before a write is repeated that the store could not confirm."""

_SHOWN_EVERY = timedelta(seconds=1)


class Ledger:
    """One holding of one lease, as far as the store is concerned."""

    def __init__(
        self, store: Store, lease: Lease, state: RunState, *, clock: Clock, codec: Codec, lease_seconds: float
    ) -> None:
        self.run = state.run
        self.history = list(state.history)
        self.closed = False
        """Whether the run was let go: nothing more may be written."""
        self._store = store
        self._lease = lease
        self._clock = clock
        self._codec = codec
        self._sequence = state.sequence
        self._ttl = timedelta(seconds=lease_seconds)
        self.renewed_every = self._ttl / 3
        self._renewed_at = self._shown_at = lease.until - self._ttl
        self._renew_at = self._renewed_at + self.renewed_every

    def seconds_to_renewal(self, now: datetime) -> float:
        """How long to wait at most before the next `renew_if_due`."""
        return min(self._renew_at - now, self.renewed_every).total_seconds()

    async def renew_if_due(self, now: datetime) -> bool:
        """Renew the lease at a third of its life. True: messages are waiting."""
        if self._renewed_at <= now < self._renew_at:  # a clock that was set back must not put it off
            return False
        try:
            waiting = await self._store.renew(self._lease, now=now, ttl=self._ttl)
        except StoreUnavailableError:
            if now >= self._renewed_at + self._ttl * 2 / 3:  # stop while the lease is still surely ours
                raise
            self._renew_at = now + min(self._ttl / 30, timedelta(seconds=1))
            return False
        self._renewed_at, self._renew_at = now, now + self.renewed_every
        return waiting

    async def write(
        self,
        events: Sequence[Event],
        *,
        consumed: tuple[str, ...] = (),
        release: Release | None = None,
        outbox: tuple[tuple[str, Message], ...] = (),
        new_runs: tuple[NewRun, ...] = (),
    ) -> None:
        """Append events, in as few documents as they need. What goes out goes with the first one; messages and release
        with the last one. Raises RunExistsError for one of `new_runs`, nothing written."""
        while len(events) > (fit := how_many_fit(events, self._store.max_event_bytes)):
            part = tuple(events[:fit])
            await self._commit(Commit(sequence=self._sequence + 1, events=part, outbox=outbox, new_runs=new_runs))
            events, outbox, new_runs = events[fit:], (), ()
        if events or consumed or outbox or release is not None:
            commit = Commit(
                sequence=self._sequence + 1,
                events=tuple(events),
                consumed=consumed,
                release=release,
                outbox=outbox,
                new_runs=new_runs,
            )
            await self._commit(commit)
        if release is not None and not release.keep_lease:
            self.closed = True

    async def give_up(self, wake_at: datetime) -> None:
        """Let go of the run in the middle, if that is still possible; somebody goes on at `wake_at`."""
        if self.closed:
            return
        self.closed = True
        release = self.release(Status.PENDING, wake_at=wake_at)
        try:
            await self._store.commit(self._lease, Commit(sequence=self._sequence, release=release))
        except (LeaseLost, StoreError):
            pass  # the lease runs out by itself

    def release(self, status: Status, **changes: Any) -> Release:
        """A release that repeats the parts of the record that stay as they are."""
        run = self.run
        kept = {
            "open_approvals": run.open_approvals,
            "custom_status": run.custom_status,
            "retry_count": run.retry_count,
        }
        return Release(status=status, **(kept | changes))

    def show(self, **changes: Any) -> None:
        """From the next release on the record shows these."""
        if any(getattr(self.run, name) != value for name, value in changes.items()):
            self.run = replace(self.run, **changes)

    def changes_shown(
        self, events: Sequence[Event], custom_status: str | None, now: Callable[[], datetime]
    ) -> Release | None:
        """The change of the record that goes with these events while the lease is kept; None when there is none.

        Votes are shown, and decided approvals taken off, in the same write that takes the message out of the inbox, so
        that nobody can decide a second time in between. A custom status is shown once a second at most: the record is
        one document.
        """
        run = self.run
        if not run.open_approvals and custom_status == run.custom_status:
            return None
        closed = {event.id for event in events if isinstance(event, ApprovalDecided | ApprovalWithdrawn)}
        asked = [_counted(one, events) for one in self.run.open_approvals if one.id not in closed]
        left = tuple(one for one in asked if verdict(one, one.votes) is None)
        # By fingerprint: a sealed value is another text each time.
        differs = self._fingerprint(custom_status) != self._fingerprint(self.run.custom_status)
        moment = now()
        late = differs and moment >= self._shown_at + _SHOWN_EVERY
        if left == self.run.open_approvals and not late:
            return None
        self._shown_at = moment
        self.show(open_approvals=left, custom_status=custom_status)
        return self.release(Status.RUNNING, keep_lease=True)

    def _fingerprint(self, text: str | None) -> str | None:
        return None if text is None else self._codec.fingerprint(text)

    async def _commit(self, commit: Commit) -> None:
        for pause in (*PAUSES, None):
            try:
                await self._store.commit(self._lease, commit)
                break
            except StoreUnavailableError:
                if pause is None:
                    raise
                await asyncio.sleep(pause)  # the same commit again: the store can tell whether it was written
        if commit.events:
            self._sequence += 1
            self.history += commit.events


def _counted(asked: OpenApproval, events: Sequence[Event]) -> OpenApproval:
    new = [cast_vote(one) for one in events if isinstance(one, ApprovalVoted) and one.id == asked.id]
    return replace(asked, votes=(*asked.votes, *new)) if new else asked
