"""Exceptions as data: of their own type where that can be, and never lost where it cannot."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tinyworkflow_core.errors import ActivityError, ApplicationError, LeaseLost, RetryAfter
from tinyworkflow_core.serialization import MAX_PAYLOAD_BYTES, Codec, Failure

codec = Codec()


class PlainError(Exception):
    pass


class OddError(Exception):
    """Its message is not what it was made from."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


class FussyError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class DeclinedError(ApplicationError):
    pass


@dataclasses.dataclass(frozen=True)
class Details:
    amount: int


def again(error: BaseException) -> Any:
    """The error after it went through a store, as JSON."""
    data = json.loads(json.dumps(codec.failure(error).to_dict()))
    return codec.exception(Failure.from_dict(data))


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        KeyError("missing"),
        KeyError(("a", 1)),
        ZeroDivisionError(),
        TimeoutError("late"),
        PlainError("one", 2, {"three": [3]}),
        FileNotFoundError(2, "No such file or directory", "orders.csv"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        json.JSONDecodeError("Expecting value", "{,", 1),
        ValueError("x" * 9_000),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_can_be_made_again_comes_back_as_its_own_type(error: Exception) -> None:
    back = again(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args


def test_an_os_error_keeps_its_number_and_file_name() -> None:
    back = again(FileNotFoundError(2, "No such file or directory", "orders.csv"))
    assert (back.errno, back.filename) == (2, "orders.csv")


class Unstorable:
    pass


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OddError(7), "OddError", "code 7"),
        (FussyError(code=7), "FussyError", "code 7"),
        (PlainError(Unstorable), "PlainError", str(Unstorable)),
        (MuteError("?"), "MuteError", "<MuteError whose message cannot be shown>"),
        (LeaseLost("gone"), "LeaseLost", "gone"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_cannot_be_made_again_becomes_an_activity_error_with_its_type_and_message(
    error: BaseException, kind: str, message: str
) -> None:
    back = again(error)
    if kind == "MuteError":  # it can be made again; its words are lost either way
        assert type(back) is MuteError
        return
    assert type(back) is ActivityError
    assert (back.type, back.message) == (kind, message)


@pytest.mark.parametrize("error", [RetryAfter(5), RetryAfter(2.5, "the queue is full")])
def test_a_wish_to_be_retried_later_comes_back_with_its_delay(error: RetryAfter) -> None:
    back = again(error)
    assert isinstance(back, RetryAfter)
    assert (back.delay, str(back)) == (error.delay, str(error))


def test_a_local_exception_class_becomes_an_activity_error() -> None:
    class LocalError(Exception):
        pass

    back = again(LocalError("here"))
    assert type(back) is ActivityError
    assert back.type == "LocalError"


def test_a_message_with_a_lone_surrogate_can_be_stored() -> None:
    failure = codec.failure(ValueError("file \udcff"))
    assert failure.message == "file \\udcff"
    assert str(codec.exception(failure)) == "file \udcff"
    group = codec.failure(ExceptionGroup("g \udcff", [ValueError("v")]))
    json.dumps(group.to_dict(), ensure_ascii=False).encode()


@pytest.mark.parametrize("cls", [ApplicationError, DeclinedError])
@pytest.mark.parametrize("retryable", [True, False])
def test_an_application_error_keeps_type_details_and_its_word_on_retries(
    cls: type[ApplicationError], retryable: bool
) -> None:
    back = again(cls("no funds", type="CardDeclined", details=Details(12), retryable=retryable))
    assert type(back) is cls
    assert (back.message, back.type, back.details, back.retryable) == (
        "no funds",
        "CardDeclined",
        Details(12),
        retryable,
    )


def test_an_activity_error_that_passes_on_keeps_the_type_it_stands_for() -> None:
    back = again(again(ActivityError("code 7", type="OddError", details={"a": (1,)})))
    assert type(back) is ActivityError
    assert (back.message, back.type, back.details) == ("code 7", "OddError", {"a": (1,)})


def test_details_whose_class_is_gone_arrive_as_plain_data() -> None:
    failure = dataclasses.replace(
        codec.failure(ApplicationError("m")), details='{"$":"dataclass","c":"gone.module:Details","v":{"amount":12}}'
    )
    back = codec.exception(failure)
    assert isinstance(back, ApplicationError)
    assert back.details == {"amount": 12}


def test_the_chain_of_causes_is_kept() -> None:
    error = ValueError("top")
    error.__cause__ = PlainError("middle")
    error.__cause__.__cause__ = OddError(3)
    back = again(error)
    assert [type(one) for one in (back, back.__cause__, back.__cause__.__cause__)] == [
        ValueError,
        PlainError,
        ActivityError,
    ]
    assert back.__cause__.__cause__.type == "OddError"


def test_what_an_error_was_raised_in_the_course_of_counts_as_its_cause_unless_it_was_suppressed() -> None:
    error = ValueError("second")
    error.__context__ = KeyError("first")
    assert type(again(error).__cause__) is KeyError
    error.__suppress_context__ = True  # raise ... from None
    assert again(error).__cause__ is None


def test_an_exception_group_comes_back_with_its_members() -> None:
    back = again(ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [OddError(1)])]))
    assert type(back) is ExceptionGroup
    assert (back.message, str(back)) == ("two", "two (2 sub-exceptions)")
    first, second = back.exceptions
    assert type(first) is ValueError
    assert isinstance(second, ExceptionGroup)
    assert isinstance(second.exceptions[0], ActivityError)


def test_a_traceback_is_kept_as_text() -> None:
    assert "in raised" in codec.failure(raised(ValueError("x"))).traceback


def test_an_error_of_any_size_fits_into_one_event() -> None:
    long = "x" * 15_000
    many: list[Exception] = [raised(PlainError(long)) for _ in range(200)]
    for _ in range(3):
        many = [ExceptionGroup(long, many) for _ in range(20)]
    top = ExceptionGroup(long, many)
    top.__cause__ = PlainError(long)
    failure = codec.failure(top)
    assert failure.cause is not None
    assert failure.members
    assert len(json.dumps(failure.to_dict())) < MAX_PAYLOAD_BYTES
    assert isinstance(codec.exception(failure), ActivityError | ExceptionGroup)


def test_causes_that_form_a_circle_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert str(again(one).__cause__) == "two"


def test_a_failure_without_its_optional_fields_can_be_read() -> None:
    failure = Failure.from_dict({"type": "T", "message": "m", "added_later": 1})
    assert failure == Failure(type="T", message="m")
    assert failure.to_dict() == {"type": "T", "message": "m"}
