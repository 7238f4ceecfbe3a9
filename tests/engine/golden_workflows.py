"""The workflows of the golden histories. Never edit one: a stored history fits the code that it was made with."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.engine.activities import DeclinedError, book, charge, echo, inc, once, remote, tell, undo
from tinyworkflow_core.engine.context import WorkflowContext
from tinyworkflow_core.errors import ChildFailedError, RunExistsError, RunNotFoundError, StepInterruptedError


async def sequential(ctx: WorkflowContext, order: dict[str, Any]) -> list[Any]:
    """Steps one after the other, one of them tried again; then a rest."""
    receipt = await ctx.execute_activity(charge, order["amount"], currency="USD")
    shipped = await ctx.execute_activity(echo, {"receipt": receipt, "item": ctx.get_input("item")})
    await ctx.sleep("1h")
    return [shipped, ctx.now().isoformat()]


async def parallel_with_failure(ctx: WorkflowContext) -> list[Any]:
    """Of five calls one fails; then three that succeed; then one that fails the run."""
    try:
        await ctx.execute_parallel(*((inc, (i,)) for i in range(5)))
    except ValueError as error:
        said = str(error)
    results = await ctx.execute_parallel((echo, ("a",)), (echo, ("b",)), (charge, (1,), {"currency": "EUR"}))
    return await ctx.execute_activity(echo, [said, results])


async def timers_and_signals(ctx: WorkflowContext) -> list[Any]:
    """Deadlines that signals keep or miss, a handler, a condition."""
    log: list[Any] = []
    ctx.on_signal("note", lambda payload: log.append(["note", payload]))
    for deadline in (10, 20):
        try:
            log.append(await ctx.wait_for_signal("go", timeout=deadline))
        except TimeoutError:
            log.append("late")
    async with asyncio.timeout(600):
        await ctx.wait_until(lambda: ["note", "enough"] in log)
    naps = [asyncio.create_task(asyncio.sleep(i, i)) for i in (3, 1, 2)]
    log += [await one for one in asyncio.as_completed(naps)]
    return log


async def approvals(ctx: WorkflowContext) -> list[Any]:
    """Two questions at once, of which one is answered too late; then the same key again."""

    async def ask(key: str, timeout: int) -> Any:
        try:
            got = await ctx.wait_for_approval(key, timeout, title=f"{key}?", details={"amount": 5}, approvers=["ada"])
        except TimeoutError:
            return [key, "late"]
        return [key, got.approved, got.by, got.comment, got.data]

    both = await asyncio.gather(ask("boss", 60), ask("legal", 3600))
    return [both, await ask("boss", 60)]


async def approval_by_vote(ctx: WorkflowContext) -> list[Any]:
    """Two of three agree, after they were told, reminded, and somebody else was asked as well."""
    got = await ctx.wait_for_approval(
        "boss",
        3600,
        title="Go?",
        approvers=["ada", "bob"],
        quorum=2,
        notify=tell,
        remind_every=600,
        max_reminders=2,
        escalate_after=1500,
        escalate_to=["eve"],
    )
    return [got.approved, [[one.by, one.approved, one.comment, one.data] for one in got.votes]]


async def task_group_cleanup(ctx: WorkflowContext) -> str:
    """One of nine tasks fails; the others clean up in the order in which the group cancels them."""

    async def sleeper(number: int) -> None:
        try:
            await asyncio.sleep(100 + number)
        finally:
            await ctx.execute_activity(undo, number)

    async def fails() -> None:
        await ctx.execute_activity(charge, 5)

    try:
        async with asyncio.TaskGroup() as group:
            for i in range(8):
                group.create_task(sleeper(i))
            group.create_task(fails())
    except* ValueError as errors:
        said = [str(one) for one in errors.exceptions]
    return f"cleaned up after {said}"


def _nothing() -> Any:
    raise KeyError("nothing")


async def chances(ctx: WorkflowContext) -> list[Any]:
    """What is drawn by chance or seen of the world is the result."""
    rng = ctx.random()
    drawn: list[Any] = [str(ctx.uuid4()), rng.random(), rng.randint(1, 10**9), rng.getrandbits(64)]
    drawn.append(await ctx.side_effect(lambda: {"seen": (1, 2)}))
    await ctx.sleep(5)
    try:
        await ctx.side_effect(_nothing)
    except KeyError as error:
        drawn.append(repr(error))
    return [*drawn, str(ctx.uuid4()), rng.random(), rng.uniform(1, 2), rng.choice("abcdef")]


async def cancelled_with_cleanup(ctx: WorkflowContext) -> None:
    """Cancelled in the middle of two activities, it undoes one of them and lets the cancellation go on."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.execute_activity(charge, 1))
            group.create_task(ctx.execute_activity(charge, 2))
            group.create_task(asyncio.sleep(1000))
    except asyncio.CancelledError:
        await ctx.execute_activity(undo, "charge")
        raise


async def first_of_many(ctx: WorkflowContext) -> list[Any]:
    """The first answer counts; the others are withdrawn. Locks, queues and steps in a set."""
    tasks = {asyncio.create_task(ctx.execute_activity(inc, i)) for i in range(4)}
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    await asyncio.wait(left)
    got: list[Any] = [one.result() for one in done]
    lock, queue = asyncio.Lock(), asyncio.Queue[int]()

    async def work(name: str) -> None:
        async with lock:
            got.append([name, await ctx.execute_activity(echo, await queue.get())])

    for i in range(3):
        queue.put_nowait(i)
    await asyncio.gather(*(work(name) for name in "xyz"))
    steps = {ctx.execute_activity(inc, i) for i in range(3)}
    return [got, [await one for one in asyncio.as_completed(steps)]]


async def saga_retried(ctx: WorkflowContext) -> list[Any]:
    """What was booked is undone when the charge is declined; retried, it is booked anew."""
    hotel = await ctx.execute_activity(book, "hotel")
    flight = await ctx.execute_activity(echo, "flight")
    ctx.add_compensation(undo, "the flight")
    return [hotel, flight, await ctx.execute_activity(charge, 5), ctx.retry_count]


async def parent(ctx: WorkflowContext) -> list[Any]:
    """Children of every kind: waited for, refused, failed, signalled, cancelled, abandoned; and a stranger's run."""
    told = await ctx.start_child("other", "told", on_parent_close="terminate")
    left = await ctx.start_child("other", "left", on_parent_close="abandon")
    got: list[Any] = [left.run_id, await ctx.execute_child("other", {"n": 1}, run_id="given")]
    await told.signal("go", 1)
    for name in ("refused", "broken"):
        try:
            await ctx.execute_child("other", name)
        except (RunExistsError, DeclinedError) as error:
            got.append(f"{type(error).__name__}: {error}")
    await told.cancel()
    try:
        await told.result()
    except ChildFailedError as error:
        got.append(str(error))
    try:
        await ctx.signal_run("nobody", "go")
    except RunNotFoundError as error:
        got.append(str(error))
    try:
        async with asyncio.timeout(10):
            await ctx.execute_child("other", "slow")
    except TimeoutError:
        got.append("slow")
    return got


async def generations(ctx: WorkflowContext, number: int) -> list[Any]:
    """Takes one signal in each generation, and leaves the others to the next."""
    ctx.set_status({"generation": number})
    got = await ctx.wait_for_signal("go")
    drawn = [str(ctx.uuid4()), ctx.random().random()]
    if number < 2:
        ctx.continue_as_new(number + 1)
    return [number, got, ctx.generation, drawn]


async def patched(ctx: WorkflowContext) -> list[Any]:
    """Begun when the change was deployed: it takes the new branch."""
    first = await ctx.execute_activity(inc, 1)
    second = await ctx.execute_activity(charge, 5) if ctx.patched("change") else await ctx.execute_activity(echo, "old")
    await ctx.sleep(60)
    return [first, second, ctx.patched("change")]


async def before_the_patch(ctx: WorkflowContext) -> list[Any]:
    """What `unpatched` was when its history was made."""
    first = await ctx.execute_activity(inc, 1)
    second = await ctx.execute_activity(echo, "old")
    await ctx.sleep(60)
    return [first, second, False]


async def unpatched(ctx: WorkflowContext) -> list[Any]:
    """Was past the change when that was deployed: it keeps the old branch."""
    return await patched(ctx)


async def updates_and_queries(ctx: WorkflowContext) -> list[Any]:
    """Updates that are accepted, fail, and are rejected, with an activity of their own; queries; a status."""
    total = 0

    async def add(amount: int) -> int:
        nonlocal total
        more = await ctx.execute_activity(inc, amount)
        total += more
        ctx.set_status({"total": total})
        return total

    def check(amount: int) -> None:
        if amount < 0:
            raise DeclinedError("negative")

    def fail(payload: Any) -> None:
        raise KeyError(payload)

    ctx.on_query("total", lambda: total)
    ctx.on_update("add", add, check)
    ctx.on_update("fail", fail)
    await ctx.wait_until(lambda: total >= 10)
    return [total, ctx.history_length]


async def at_most_once_interrupted(ctx: WorkflowContext) -> list[Any]:
    """One such step is done, one is cut off half-way, of which nobody knows whether it took effect."""
    first = await ctx.execute_activity(once, "first")
    try:
        await ctx.execute_activity(once, "second")
    except StepInterruptedError as error:
        return [first, str(error)]
    return [first]


async def queue_activities(ctx: WorkflowContext) -> Any:
    """Attempts that are calls of their own: one is lost and made again, one reports how far it is; then many."""
    both = await ctx.execute_parallel((remote, ("a",)), (remote, ("b",)))
    batch = await ctx.map(remote, range(4), max_concurrency=2, tolerated_failures=1)
    return [both, batch.reason, batch.results, [str(one) for one in batch.errors]]


async def times_out(ctx: WorkflowContext) -> None:
    """Its time is up while it waits; what it did is undone, and one that undoes fails."""
    await ctx.execute_activity(book, "room")
    await ctx.execute_activity(book, "car")
    try:
        await ctx.sleep("3h")
    finally:
        await ctx.execute_activity(echo, "cleaned up")


async def forked(ctx: WorkflowContext, amount: int) -> list[Any]:
    """Forked off in the middle of a wait, with a child that was the other run's and another input."""
    drawn = [str(ctx.uuid4()), ctx.random().random()]
    handle = await ctx.start_child("other", amount)
    first = await ctx.execute_activity(charge, amount)
    await ctx.sleep(100)
    return [amount, drawn, first, await handle.result(), ctx.now().isoformat(), ctx.random().random()]


GOLDEN: dict[str, Any] = {
    code.__name__: code
    for code in (
        sequential,
        parallel_with_failure,
        timers_and_signals,
        approvals,
        approval_by_vote,
        task_group_cleanup,
        chances,
        cancelled_with_cleanup,
        first_of_many,
        saga_retried,
        parent,
        generations,
        patched,
        unpatched,
        updates_and_queries,
        at_most_once_interrupted,
        queue_activities,
        times_out,
        forked,
    )
}
