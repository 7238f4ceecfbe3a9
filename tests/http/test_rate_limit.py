"""Rate limits: a bucket for each caller, and one for each address whose calls prove nothing."""

from __future__ import annotations

import pytest

from tests.http.front import assert_problem
from tests.http.test_access import by, front, granted
from tinyworkflow_core import App
from tinyworkflow_core.http.rate_limit import Rate, RateLimit, network_of

TWO = Rate(per_second=2.0, burst=3)


class Seconds:
    """A clock of the machine, by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_gets_the_burst_at_once_and_then_the_rate() -> None:
    seconds = Seconds()
    limit = RateLimit(monotonic=seconds)
    assert [limit.take("a", TWO) for _ in range(4)] == [None, None, None, 1]
    assert limit.take("b", TWO) is None
    seconds.now += 0.5
    assert [limit.take("a", TWO) for _ in range(2)] == [None, 1]
    seconds.now += 3600
    assert [limit.take("a", TWO) for _ in range(4)] == [None, None, None, 1]


def test_a_caller_who_does_not_stop_is_told_how_long_to_wait_and_no_longer() -> None:
    seconds = Seconds()
    limit = RateLimit(monotonic=seconds)
    slow = Rate(per_second=0.1, burst=1)
    assert [limit.take("a", slow) for _ in range(50)] == [None] + [10] * 49
    seconds.now += 9.5
    assert limit.take("a", slow) == 1
    seconds.now += 0.5
    assert limit.take("a", slow) is None


def test_what_is_kept_of_callers_is_bounded_and_the_quiet_ones_are_forgotten_first() -> None:
    limit = RateLimit(max_buckets=10, monotonic=Seconds())
    once = Rate(per_second=0.001, burst=1)
    for number in range(1000):
        assert limit.take(f"stranger {number}", once) is None
        limit.take("busy", once)
        assert len(limit) <= 10
    assert limit.take("busy", once) is not None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("testclient", "testclient", True),
    ],
)
def test_an_address_stands_for_the_network_that_one_caller_has(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


async def test_a_key_over_its_rate_is_429_with_the_time_to_wait_and_others_go_on(app: App) -> None:
    slow = granted("slow", "read", rate={"per_second": 0.01, "burst": 2})
    async with front(app, keys=[slow, granted("other", "read")]) as caller:
        statuses = [(await caller.get("/v1/runs", headers=by("slow"))).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = await caller.get("/v1/runs", headers=by("slow"))
        assert_problem(refused, 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 100
        assert (await caller.get("/v1/runs", headers=by("other"))).status_code == 200


async def test_the_common_rate_counts_each_key_for_itself(app: App) -> None:
    async with front(
        app, keys=[granted("a", "read"), granted("b", "read")], rate={"per_second": 0.01, "burst": 1}
    ) as caller:
        statuses = [(await caller.get("/v1/runs", headers=by(key))).status_code for key in "abab"]
        assert statuses == [200, 200, 429, 429]


async def test_guessing_is_slowed_down_by_address_and_shuts_nobody_out_who_has_a_key(app: App) -> None:
    failures = {"per_second": 0.01, "burst": 3}
    async with front(app, keys=[granted("right", "read")], failures=failures, proxies=1) as caller:

        async def status(key: str, forwarded: str) -> int:
            headers = by(key) | {"X-Forwarded-For": forwarded}
            return (await caller.get("/v1/runs", headers=headers)).status_code

        assert [await status(f"guess-{n}", f"10.0.0.{n}, 198.51.100.7") for n in range(5)] == [401, 401, 401, 429, 429]
        assert [await status("right", "198.51.100.7") for _ in range(20)] == [200] * 20
        assert await status("guess", "198.51.100.8") == 401
        token = [(await caller.get("/approvals/no-token")).status_code for _ in range(5)]
        assert token[-1] in (429, 503)  # 503: no link can be read where no key for links is set
