"""Rate limits: how often somebody may call, as token buckets in the memory of this process.

Each instance of a service counts for itself: with N instances a caller gets up to N times the rate. What is kept is
bounded: of more callers than MAX_BUCKETS those are forgotten that have not called for the longest time.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, ip_address

from ..records import dataclass

MAX_BUCKETS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """So many calls a second on average, and so many at once after a rest."""

    per_second: float
    burst: int


class RateLimit:
    """Counts calls of many callers. `monotonic` gives seconds from any origin; safe within one event loop."""

    def __init__(self, *, max_buckets: int = MAX_BUCKETS, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        """Who -> (calls left, at this moment); the one that was quiet for the longest time first."""
        self._max = max_buckets
        self._monotonic = monotonic

    def take(self, who: Hashable, rate: Rate) -> int | None:
        """Count one call. None: it is within the rate. Else it is not counted, and may come in so many seconds."""
        now = self._monotonic()
        left, since = self._buckets.pop(who, (float(rate.burst), now))
        left = min(left + (now - since) * rate.per_second, float(rate.burst))
        allowed = left >= 1
        self._buckets[who] = (left - 1 if allowed else left, now)
        if len(self._buckets) > self._max:
            self._buckets.popitem(last=False)
        return None if allowed else max(1, math.ceil((1 - left) / rate.per_second))

    def __len__(self) -> int:
        return len(self._buckets)


def network_of(address: str) -> str:
    """What one caller can be told by: an IPv4 address, or the /64 that an IPv6 address is in, of which one has all."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
