"""RetrySchedule: the pauses that it was given, one after the other, and then no more."""

from __future__ import annotations

import pytest

from tinyworkflow_core import RetrySchedule
from tinyworkflow_core.errors import ApplicationError


def test_each_pause_is_the_one_that_was_given_give_or_take_the_jitter() -> None:
    schedule = RetrySchedule(delays=("5s", 300, "1d"), jitter=False)
    assert [schedule.delay(attempt, chance=0.9) for attempt in (1, 2, 3, 4)] == [5, 300, 86_400, None]
    spread = RetrySchedule(delays=(100,), jitter_factor=0.2)
    assert [spread.delay(1, chance=chance) for chance in (0.0, 0.5)] == [80, 100]
    assert 119 < (spread.delay(1, chance=0.999) or 0) <= 120
    assert schedule.max_retries == 3


def test_the_kinds_of_errors_count_as_in_every_policy() -> None:
    schedule = RetrySchedule(delays=(1,), retry_on=(OSError,))
    assert schedule.retries(ConnectionError())
    assert not schedule.retries(ValueError())
    assert not schedule.retries(ApplicationError("no"))


@pytest.mark.parametrize("delays", [(-1,), ("soon",), (float("inf"),)])
def test_a_pause_that_is_none_is_refused(delays: tuple[float | str, ...]) -> None:
    with pytest.raises(ValueError, match="duration"):
        RetrySchedule(delays=delays)
