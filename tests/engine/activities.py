"""Activities and exceptions that the workflows of these tests name. None is ever run: a test gives the results."""

from __future__ import annotations

from typing import Any

from tinyworkflow_core.registry import activity


class DeclinedError(Exception):
    """Importable, made from what it is asked with."""


class TwistedError(Exception):
    """Importable, but not to be made again from its arguments."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


@activity
def inc(number: int) -> int:
    return number + 1


@activity
def echo(value: Any) -> Any:
    return value


@activity
def charge(amount: int, *, currency: str = "EUR") -> str:
    return f"{amount} {currency}"


@activity
def undo(what: Any) -> None:
    return None


@activity(compensate=undo)
def book(what: Any) -> Any:
    return what


@activity(at_most_once=True)
def once(what: Any) -> Any:
    return what


@activity(run_on="queue")
def remote(what: Any) -> Any:
    return what


@activity
def tell(request: Any) -> None:
    return None
