"""asyncio as it stands, made durable: each of its tools in a workflow of its own, replayed after every event."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.engine.activities import echo, inc
from tests.engine.history_builder import Begin, LiveRun
from tinyworkflow_core.engine.context import WorkflowContext


def fire_all(run: LiveRun) -> LiveRun:
    """Timers fire, the earliest first, until none is left."""
    while timers := [one.command for one in run.execution.journal.open.values()]:
        run.fire(min(timers, key=lambda timer: (timer.due, timer.id)))  # type: ignore[union-attr, arg-type]  # all timers
    return run


def test_sleep_gives_its_result(begin: Begin) -> None:
    async def nap(ctx: WorkflowContext) -> str:
        return await asyncio.sleep(30, "rested")

    assert fire_all(begin(nap)).result == "rested"


def test_gather_gives_results_in_argument_order(begin: Begin) -> None:
    async def gathered(ctx: WorkflowContext) -> Any:
        return await asyncio.gather(ctx.execute_activity(inc, 1), asyncio.sleep(5, "slept"), ctx.wait_for_signal("go"))

    run = begin(gathered).signal("go", "went")
    run.fire(run.timers[0])
    assert run.complete(run.activities[0], 2).result == [2, "slept", "went"]


def test_gather_raises_the_first_failure_and_leaves_the_others_running(begin: Begin) -> None:
    async def gathered(ctx: WorkflowContext) -> list[Any]:
        second = asyncio.ensure_future(ctx.execute_activity(inc, 2))
        try:
            await asyncio.gather(ctx.execute_activity(inc, 1), second)
        except ValueError as error:
            return [str(error), await second]
        return []

    run = begin(gathered)
    second, first = run.activities
    run.fail(first, ValueError("first"))
    assert run.complete(second, 3).result == ["first", 3]


def test_gather_can_give_failures_as_results(begin: Begin) -> None:
    async def gathered(ctx: WorkflowContext) -> list[str]:
        calls = (ctx.execute_activity(inc, i) for i in range(3))
        return [repr(one) for one in await asyncio.gather(*calls, return_exceptions=True)]

    run = begin(gathered)
    first, second, third = run.activities
    run.fail(second, ValueError("no")).complete(third, 3).complete(first, 1)
    assert run.result == ["1", "ValueError('no')", "3"]


def test_wait_for_the_first_completed(begin: Begin) -> None:
    async def first(ctx: WorkflowContext) -> list[Any]:
        tasks = [asyncio.create_task(ctx.execute_activity(inc, i)) for i in range(3)]
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in left:
            one.cancel()
        return [[one.result() for one in done], len(left)]

    run = begin(first)
    assert run.complete(run.activities[1], "second").result == [["second"], 2]


def test_wait_for_the_first_exception(begin: Begin) -> None:
    async def first(ctx: WorkflowContext) -> list[Any]:
        tasks = [asyncio.create_task(ctx.execute_activity(inc, i)) for i in range(3)]
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        return [sorted(repr(one.exception()) for one in done), len(left)]

    run = begin(first)
    commands = run.activities
    run.complete(commands[0], 1)
    assert run.fail(commands[1], ValueError("no")).result == [["None", "ValueError('no')"], 1]


def test_wait_with_a_timeout_gives_what_is_done_by_then(begin: Begin) -> None:
    async def partial(ctx: WorkflowContext) -> list[Any]:
        tasks = [asyncio.create_task(asyncio.sleep(i, i)) for i in (1, 2, 30)]
        done, left = await asyncio.wait(tasks, timeout=10)
        return [sorted(one.result() for one in done), len(left)]

    run = begin(partial)
    for _ in range(3):
        run.fire(min(run.timers, key=lambda timer: timer.due))
    assert run.result == [[1, 2], 1]


def test_wait_for_in_time_and_too_late(begin: Begin) -> None:
    async def twice(ctx: WorkflowContext) -> list[Any]:
        got: list[Any] = [await asyncio.wait_for(ctx.wait_for_signal("go"), 10)]
        try:
            await asyncio.wait_for(ctx.wait_for_signal("go"), 10)
        except TimeoutError:
            got.append("late")
        got.append(await ctx.wait_for_signal("go"))
        return got

    run = begin(twice).later(3).signal("go", 1)
    assert fire_all(run).signal("go", 2).result == [1, "late", 2]


def test_timeouts_nest_and_the_one_that_expired_is_the_one_that_raises(begin: Begin) -> None:
    async def nested(ctx: WorkflowContext) -> list[str]:
        said: list[str] = []
        try:
            async with asyncio.timeout(10):
                try:
                    async with asyncio.timeout(60):
                        await ctx.wait_for_signal("never")
                except TimeoutError:
                    said.append("inner")
        except TimeoutError:
            said.append("outer")
        async with asyncio.timeout(5) as extended:
            extended.reschedule(asyncio.get_running_loop().time() + 50)
            await asyncio.sleep(20)
        return [*said, str(extended.expired())]

    run = begin(nested)
    assert fire_all(run).result == ["outer", "False"]


def test_a_timeout_around_an_activity_withdraws_it_and_waits_for_its_end(begin: Begin) -> None:
    async def limited(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(10):
                await ctx.execute_activity(inc, 1)
        except TimeoutError:
            return "late"
        return "in time"

    run = begin(limited)
    run.fire(run.timers[0])
    assert [one.id for one in run.withdrawn] == [2]
    assert run.end_withdrawn().result == "late"


def test_an_activity_that_is_given_up_twice_is_withdrawn_once(begin: Begin) -> None:
    async def twice_limited(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(10), asyncio.timeout(5):
                await ctx.execute_activity(inc, 1)
        except TimeoutError:
            return "late"
        return "in time"

    run = begin(twice_limited)
    outer, inner = run.timers
    (command,) = run.activities
    run.fire(inner).fire(outer)
    assert run.execution.journal.withdrawn == [command.id]
    assert run.end_withdrawn().result == "late"


def test_task_group_waits_for_all(begin: Begin) -> None:
    async def grouped(ctx: WorkflowContext) -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.execute_activity(inc, i)) for i in range(3)]
        return [one.result() for one in tasks]

    run = begin(grouped)
    for command in reversed(run.activities):
        run.complete(command, command.args[0] + 1)
    assert run.result == [1, 2, 3]


def test_task_group_cancels_the_others_and_raises_what_failed(begin: Begin) -> None:
    async def grouped(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.execute_activity(inc, 1))
            group.create_task(ctx.execute_activity(inc, 2))
            group.create_task(asyncio.sleep(50))

    run = begin(grouped)
    first, second = run.activities
    run.fail(second, ValueError("no"))
    assert run.withdrawn == [first]
    assert run.timers == []
    assert [member.message for member in run.end_withdrawn().error.members] == ["no"]


def test_shield_keeps_an_activity_running_beyond_a_timeout(begin: Begin) -> None:
    async def shielded(ctx: WorkflowContext) -> list[Any]:
        work = asyncio.ensure_future(ctx.execute_activity(inc, 1))
        try:
            await asyncio.wait_for(asyncio.shield(work), 5)
        except TimeoutError:
            return ["late", await work]
        return []

    run = begin(shielded)
    run.fire(run.timers[0])
    assert run.withdrawn == []
    assert run.complete(run.activities[0], 2).result == ["late", 2]


def test_event(begin: Begin) -> None:
    async def with_event(ctx: WorkflowContext) -> list[str]:
        order: list[str] = []
        event = asyncio.Event()

        async def wait(name: str) -> None:
            await event.wait()
            order.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(wait(name))
            await asyncio.sleep(5)
            event.set()
        return order

    assert fire_all(begin(with_event)).result == ["a", "b", "c"]


def test_lock(begin: Begin) -> None:
    async def with_lock(ctx: WorkflowContext) -> list[int]:
        lock = asyncio.Lock()

        async def one(number: int) -> int:
            async with lock:
                return await ctx.execute_activity(inc, number)

        return await asyncio.gather(*(one(i) for i in range(3)))

    run = begin(with_lock)
    for i in range(3):
        (command,) = run.activities
        assert command.args == (i,)
        run.complete(command, i + 1)
    assert run.result == [1, 2, 3]


def test_semaphore(begin: Begin) -> None:
    async def with_semaphore(ctx: WorkflowContext) -> list[int]:
        free = asyncio.Semaphore(2)

        async def one(number: int) -> int:
            async with free:
                return await ctx.execute_activity(inc, number)

        return await asyncio.gather(*(one(i) for i in range(5)))

    run = begin(with_semaphore)
    for _ in range(5):
        commands = run.activities
        assert len(commands) <= 2
        run.complete(commands[-1], commands[-1].args[0] + 1)
    assert run.result == [1, 2, 3, 4, 5]


def test_queue(begin: Begin) -> None:
    async def with_queue(ctx: WorkflowContext) -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        results: list[Any] = []

        async def work(name: str) -> None:
            while True:
                results.append([name, await ctx.execute_activity(inc, await queue.get())])
                queue.task_done()

        workers = [asyncio.create_task(work(name)) for name in "ab"]
        for i in range(5):
            await queue.put(i)
        await queue.join()
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return results

    run = begin(with_queue)
    for _ in range(5):
        command = run.activities[-1]
        run.complete(command, command.args[0] + 1)
    assert run.result == [["b", 2], ["b", 3], ["b", 4], ["b", 5], ["a", 1]]


def test_condition(begin: Begin) -> None:
    async def with_condition(ctx: WorkflowContext) -> list[Any]:
        condition = asyncio.Condition()
        stock: list[Any] = []

        async def add(item: Any) -> None:
            async with condition:
                stock.append(item)
                condition.notify_all()

        ctx.on_signal("stock", add)
        async with condition:
            await condition.wait_for(lambda: len(stock) >= 2)
            return await ctx.execute_activity(echo, stock)

    run = begin(with_condition).signal("stock", 1).signal("stock", 2)
    assert run.complete(run.activities[0], "sold").result == "sold"


def test_a_future_of_the_loop_is_a_wait_like_any_other(begin: Begin) -> None:
    async def by_hand(ctx: WorkflowContext) -> Any:
        future = asyncio.get_running_loop().create_future()
        ctx.on_signal("go", future.set_result)
        return await future

    assert begin(by_hand).signal("go", 4).result == 4


def test_current_task_and_its_name_are_the_same_in_every_replay(begin: Begin) -> None:
    async def named(ctx: WorkflowContext) -> list[str]:
        async def name() -> str:
            task = asyncio.current_task()
            assert task is not None
            await asyncio.sleep(1)
            return task.get_name()

        return [await name(), *await asyncio.gather(name(), name()), await asyncio.create_task(name(), name="mine")]

    names = fire_all(begin(named)).result
    assert names[0] == "workflow"
    assert names[-1] == "mine"
    assert len(set(names)) == 4
