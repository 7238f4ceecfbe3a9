"""Batch: one activity for each of many items, with a bound on how many at a time and a rule for when to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, Literal, TypeVar

from ..records import dataclass
from .step import cancel_all

R = TypeVar("R")

Reason = Literal["all_completed", "min_successful", "failures"]


@dataclass(frozen=True, slots=True)
class BatchItem(Generic[R]):
    """What became of one item: `status` is "succeeded", "failed", or "cancelled" (stopped, or never begun)."""

    index: int
    status: Literal["succeeded", "failed", "cancelled"]
    result: R | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class BatchResult(Generic[R]):
    """What `ctx.map` gives: each item in the order of the input, and why it ended.

    - reason: "all_completed"; "min_successful" (enough have succeeded, the rest was cancelled); "failures" (more
      failed than are tolerated, the rest was cancelled).
    """

    items: tuple[BatchItem[R], ...]
    reason: Reason

    @property
    def results(self) -> list[R]:
        """The results of the items that succeeded, in the order of the input."""
        return [one.result for one in self.items if one.status == "succeeded"]  # type: ignore[misc]  # R may be None

    @property
    def errors(self) -> list[BaseException]:
        """The errors of the items that failed, in the order of the input."""
        return [one.error for one in self.items if one.error is not None]

    @property
    def total_count(self) -> int:
        return len(self.items)

    @property
    def success_count(self) -> int:
        return self._count("succeeded")

    @property
    def failure_count(self) -> int:
        return self._count("failed")

    @property
    def cancelled_count(self) -> int:
        return self._count("cancelled")

    def raise_if_failed(self) -> None:
        """Raise the first error when more items failed than were tolerated."""
        if self.reason == "failures":
            raise self.errors[0]

    def _count(self, status: str) -> int:
        return sum(one.status == status for one in self.items)


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """How many at a time, and when to stop. Raises ValueError for numbers that make no sense."""

    max_concurrency: int | None = None
    min_successful: int | None = None
    tolerated_failures: int | None = 0

    def __post_init__(self) -> None:
        for name, least in (("max_concurrency", 1), ("min_successful", 1), ("tolerated_failures", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"{name} must be a whole number of at least {least}, or None, not {value!r}")


async def run_batch(
    begin: Callable[[int], Coroutine[Any, Any, R]], count: int, completion: Completion
) -> BatchResult[R]:
    """Run `begin(index)` for each index below `count`. Cancelled ones have ended when this returns or raises."""
    if completion.min_successful is not None and completion.min_successful > count:
        raise ValueError(f"min_successful is {completion.min_successful}, but there are only {count} items")
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[R]] = []
    ended: list[asyncio.Task[R]] = []
    """Those that ended since the last look, so that looking costs nothing for the others."""
    some_ended = asyncio.Event()
    running = succeeded = failed = 0

    def note_end(task: asyncio.Task[R]) -> None:
        ended.append(task)
        some_ended.set()

    try:
        while (reason := _reason_to_stop(completion, succeeded, failed)) is None and (len(tasks) < count or running):
            while len(tasks) < count and running < (completion.max_concurrency or count):
                tasks.append(loop.create_task(begin(len(tasks))))
                tasks[-1].add_done_callback(note_end)
                running += 1
            await some_ended.wait()
            some_ended.clear()
            for task in ended:
                running -= 1
                succeeded += _has_succeeded(task)
                failed += _has_failed(task)
            ended.clear()
    finally:
        await cancel_all(tasks)
    return BatchResult(tuple(_item(i, tasks) for i in range(count)), reason or "all_completed")


def _reason_to_stop(completion: Completion, succeeded: int, failed: int) -> Reason | None:
    if completion.tolerated_failures is not None and failed > completion.tolerated_failures:
        return "failures"
    if completion.min_successful is not None and succeeded >= completion.min_successful:
        return "min_successful"
    return None


def _has_succeeded(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is None


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is not None


def _item(index: int, tasks: Sequence[asyncio.Task[R]]) -> BatchItem[R]:
    task = tasks[index] if index < len(tasks) else None
    if task is None or task.cancelled():
        return BatchItem(index, "cancelled")
    if (error := task.exception()) is not None:
        return BatchItem(index, "failed", error=error)
    return BatchItem(index, "succeeded", result=task.result())
