"""RetryPolicy: which failed attempt is tried again, and after how long."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyworkflow_core.errors import (
    ApplicationError,
    HeartbeatTimeoutError,
    PayloadTooLargeError,
    RetryAfter,
    SerializationError,
)
from tinyworkflow_core.retry import RetryPolicy
from tinyworkflow_core.serialization import Codec


def delays(policy: RetryPolicy, *, chance: float = 0.5, attempts: int = 10) -> list[float | None]:
    return [policy.delay(attempt, chance=chance) for attempt in range(1, attempts + 1)]


def test_the_defaults_are_three_retries_from_one_second_doubling_to_at_most_sixty() -> None:
    assert delays(RetryPolicy(), attempts=5) == [1.0, 2.0, 4.0, None, None]


def test_arguments_keep_their_order() -> None:
    policy = RetryPolicy(2, 3.0, 4.0, 5.0, False, 0.6)
    assert policy == RetryPolicy(
        max_retries=2, initial_delay=3.0, max_delay=4.0, backoff_multiplier=5.0, jitter=False, jitter_factor=0.6
    )


def test_delays_grow_by_the_multiplier_up_to_the_longest() -> None:
    policy = RetryPolicy(max_retries=3, initial_delay=2, backoff_multiplier=3, max_delay=5, jitter=False)
    assert delays(policy, attempts=4) == [2.0, 5.0, 5.0, None]


def test_durations_may_be_text_or_timedelta() -> None:
    policy = RetryPolicy(initial_delay="2m", max_delay=timedelta(minutes=3), jitter=False)
    assert delays(policy, attempts=2) == [120.0, 180.0]


def test_jitter_spreads_a_delay_evenly_around_itself() -> None:
    policy = RetryPolicy(initial_delay=10, jitter_factor=0.2)
    assert [policy.delay(1, chance=chance) for chance in (0.0, 0.5, 0.75)] == [8.0, 10.0, 11.0]


policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 5000),
    initial_delay=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    backoff_multiplier=st.floats(1, 1e300),
    jitter=st.booleans(),
    jitter_factor=st.floats(0, 1),
)


@given(policy=policies, attempt=st.integers(1, 6000), chance=st.floats(0, 1, exclude_max=True))
@example(policy=RetryPolicy(max_retries=5000, initial_delay=0), attempt=4000, chance=0.99)
def test_no_delay_is_below_zero_or_above_the_longest_whatever_the_policy(
    policy: RetryPolicy, attempt: int, chance: float
) -> None:
    delay = policy.delay(attempt, chance=chance)
    if attempt > policy.max_retries:
        assert delay is None
        return
    assert delay is not None
    assert 0 <= delay <= float(policy.max_delay)  # type: ignore[arg-type]  # the strategy makes floats only
    if policy.initial_delay == 0:
        assert delay == 0


def test_a_policy_of_no_retries_never_retries() -> None:
    assert RetryPolicy(max_retries=0).delay(1, chance=0.5) is None


class TransientError(Exception):
    pass


class FatalError(TransientError):
    pass


def test_only_the_named_errors_are_retried() -> None:
    policy = RetryPolicy(retry_on=(TransientError,))
    assert policy.retries(TransientError())
    assert policy.retries(FatalError())
    assert not policy.retries(ValueError())


def test_never_on_wins_over_retry_on() -> None:
    policy = RetryPolicy(retry_on=(TransientError,), never_on=(FatalError,))
    assert policy.retries(TransientError())
    assert not policy.retries(FatalError())


def test_one_class_or_a_list_of_classes_will_do() -> None:
    assert RetryPolicy(retry_on=TransientError, never_on=[FatalError]) == RetryPolicy(  # type: ignore[arg-type]  # on purpose: people write it so
        retry_on=(TransientError,), never_on=(FatalError,)
    )


def test_an_application_error_decides_for_itself() -> None:
    assert not RetryPolicy().retries(ApplicationError("no"))
    assert RetryPolicy(retry_on=()).retries(ApplicationError("again", retryable=True))


def test_retry_after_is_retried_whatever_the_policy_names() -> None:
    assert RetryPolicy(retry_on=(TransientError,)).retries(RetryAfter(5))


@pytest.mark.parametrize("error", [SerializationError("a socket"), PayloadTooLargeError("much")])
def test_a_result_that_cannot_be_stored_is_not_tried_again(error: Exception) -> None:
    assert not RetryPolicy().retries(error)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()])
def test_what_ends_a_call_is_no_failure_to_retry(error: BaseException) -> None:
    assert not RetryPolicy().retries(error)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": None},
        {"initial_delay": -1},
        {"initial_delay": "soon"},
        {"initial_delay": math.inf},
        {"max_delay": -1},
        {"max_delay": math.nan},
        {"backoff_multiplier": 0.5},
        {"backoff_multiplier": math.inf},
        {"backoff_multiplier": math.nan},
        {"jitter_factor": -0.1},
        {"jitter_factor": 1.1},
        {"total": -1},
        {"total": "long"},
        {"retry_on": "ValueError"},
        {"retry_on": (ValueError, 1)},
        {"never_on": int},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused_at_construction(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        RetryPolicy(**arguments)


def test_a_heartbeat_that_stopped_is_retried_as_a_timeout_is() -> None:
    assert RetryPolicy().retries(HeartbeatTimeoutError("silent"))
    assert RetryPolicy(retry_on=TimeoutError).retries(HeartbeatTimeoutError("silent"))  # type: ignore[arg-type]  # one class will do
    assert not RetryPolicy(never_on=(TimeoutError,)).retries(HeartbeatTimeoutError("silent"))


def test_an_error_that_went_through_the_store_is_judged_as_the_one_that_was_raised() -> None:
    codec = Codec()
    policy = RetryPolicy(retry_on=(TransientError,), never_on=(FatalError,))
    errors = (
        TransientError("busy"),
        FatalError("gone"),
        ValueError("x"),
        ApplicationError("no"),
        ApplicationError("again", retryable=True),
        RetryAfter(5),
        SerializationError("a socket"),
    )
    for error in errors:
        assert policy.retries(codec.exception(codec.failure(error))) == policy.retries(error)
