"""Check: stored histories against the code that is about to be deployed, before any run meets it."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tinyworkflow_core import RetryPolicy, WorkflowContext, activity, workflow
from tinyworkflow_core.checking import (
    MAX_LISTED,
    Finding,
    Kind,
    Report,
    check_histories,
    check_history,
    check_store,
    exported,
    open_runs,
)
from tinyworkflow_core.encryption import EncryptionCodec, generate_key
from tinyworkflow_core.engine.history import RunStarted
from tinyworkflow_core.errors import ContinueAsNew, SerializationError
from tinyworkflow_core.registry import Registry, WorkflowDefinition
from tinyworkflow_core.serialization import Codec
from tinyworkflow_core.store import Page, Run, RunQuery, Status, Store
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.testing import START, WorkflowEnvironment

codec = Codec()


@activity
async def reserve(amount: int) -> int:
    return amount


@activity
async def charge(amount: int) -> str:
    return f"{amount} paid"


@activity
async def count() -> int:
    return 0


@workflow(name="order")
async def order(ctx: WorkflowContext) -> str:
    """What is deployed: two steps, then it waits."""
    amount = await ctx.execute_activity(reserve, 5)
    paid = await ctx.execute_activity(charge, amount)
    await ctx.wait_for_signal("go")
    return paid


def changed(code: Callable[..., Any]) -> WorkflowDefinition[Any]:
    """What is about to be deployed in its place."""
    return workflow(name="order")(code)


def line_of(code: WorkflowDefinition[Any], mark: str = "# here") -> str:
    """file:line of the line of the function that bears the mark; without one, of its definition."""
    lines, first = inspect.getsourcelines(code.fn)
    return f"{__file__}:{first + next((i for i, line in enumerate(lines) if mark in line), 0)}"


@pytest.fixture
async def env() -> AsyncIterator[WorkflowEnvironment]:
    async with WorkflowEnvironment([order], activities={"count": lambda: 0}) as env:
        yield env


async def waiting(env: WorkflowEnvironment, code: WorkflowDefinition[Any] = order, input_data: Any = None) -> str:
    """A run of it that has come as far as it comes by itself."""
    run_id = await env.start(code, input_data)
    await env.run()
    return run_id


async def checked(env: WorkflowEnvironment, *code: WorkflowDefinition[Any], **options: Any) -> Report:
    return await check_store(env.store, Registry(code), codec, **options)


# --- what does not fit -----------------------------------------------------------------------------------


@changed
async def added(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(count)  # here
    amount = await ctx.execute_activity(reserve, 5)
    return await ctx.execute_activity(charge, amount)


@changed
async def removed(ctx: WorkflowContext) -> str:
    return await ctx.execute_activity(charge, 5)  # here


@changed
async def renamed(ctx: WorkflowContext) -> str:
    amount = await ctx.execute_activity(reserve, 5)
    return await ctx.execute_activity(charge.options(name="debit"), amount)  # here


@changed
async def reordered(ctx: WorkflowContext) -> str:
    paid = await ctx.execute_activity(charge, 5)  # here
    await ctx.execute_activity(reserve, 5)
    return paid


@changed
async def with_other_arguments(ctx: WorkflowContext) -> str:
    amount = await ctx.execute_activity(reserve, 5)
    return await ctx.execute_activity(charge, amount + 1)  # here


@changed
async def of_another_kind(ctx: WorkflowContext) -> str:
    await ctx.sleep("1h")  # here
    return "done"


@changed
async def waiting_earlier(ctx: WorkflowContext) -> str:
    amount = await ctx.execute_activity(reserve, 5)
    await ctx.wait_for_signal("go")  # here
    return await ctx.execute_activity(charge, amount)


@changed
async def returning_earlier(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(reserve, 5)
    return "done"


@changed
async def raising_earlier(ctx: WorkflowContext) -> str:
    await ctx.execute_activity(reserve, 5)
    return {"paid": "done"}["payed"]  # here


RESERVE, CHARGE = "activity 'reserve' with arguments", "activity 'charge' with arguments"


@pytest.mark.parametrize(
    ("code", "step", "recorded", "asked"),
    [
        (added, 1, RESERVE, "activity 'count' with arguments"),
        (removed, 1, RESERVE, CHARGE),
        (renamed, 2, CHARGE, "activity 'debit' with arguments"),
        (reordered, 1, RESERVE, CHARGE),
        (with_other_arguments, 2, CHARGE, CHARGE),
        (of_another_kind, 1, RESERVE, "a timer due 2026-01-01T10:00:00"),
        (waiting_earlier, 2, CHARGE, "nothing at that point"),
        (returning_earlier, 2, CHARGE, "nothing more: it has ended"),
        (raising_earlier, 2, CHARGE, "nothing more: it has raised KeyError"),
    ],
    ids=lambda value: value.fn.__name__ if isinstance(value, WorkflowDefinition) else "",
)
async def test_a_change_under_an_open_run_is_told_beforehand_with_step_both_sides_and_line(
    env: WorkflowEnvironment, code: WorkflowDefinition[Any], step: int, recorded: str, asked: str
) -> None:
    run_id = await waiting(env)
    history = await env.events(run_id)

    report = await checked(env, code)

    [finding] = report.findings
    assert (finding.run_id, finding.workflow, finding.version, finding.kind) == (run_id, "order", 1, Kind.MISMATCH)
    assert finding.step == step
    assert finding.recorded is not None
    assert finding.recorded.startswith(recorded)
    assert finding.asked is not None
    assert finding.asked.startswith(asked)
    assert finding.recorded != finding.asked
    assert finding.where == line_of(code)
    assert (report.checked, report.misfits, report.is_complete, report.notes) == (1, 1, True, [])
    assert await env.events(run_id) == history, "looking leaves no trace"

    deployed = WorkflowEnvironment([code], store=env.store)
    await deployed.signal(run_id, "go")
    await deployed.run()
    run = await deployed.status(run_id)
    assert (run.status, run.problem) == ("parked", finding.problem), "it is what would have happened"
    [parked] = (await checked(env, code)).findings
    assert parked == finding, "a parked run is open as well"
    assert (await checked(env, order)).findings == [], "and fits the code it began with"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (replace(order, version=2), "no code for version 1: workflow 'order' has no version 1 here; known: 2"),
        (
            replace(order, name="orders"),
            "no code for version 1: no workflow 'order' is registered; did you mean 'orders'?",
        ),
    ],
    ids=["version", "workflow"],
)
async def test_a_run_whose_code_is_gone_is_told_as_missing(
    env: WorkflowEnvironment, code: WorkflowDefinition[Any], problem: str
) -> None:
    run_id = await waiting(env)
    report = await checked(env, code)
    assert report.findings == [Finding(run_id=run_id, workflow="order", version=1, kind=Kind.MISSING, problem=problem)]


async def test_a_run_of_another_python_says_so_where_it_does_not_fit(env: WorkflowEnvironment) -> None:
    data = await as_file(env, await waiting(env))
    data["history"][0]["python"] = "3.10"
    finding = check_history(Registry([renamed]), codec, data)
    assert finding is not None
    assert finding.problem.splitlines()[1].startswith("The run was started on Python 3.10")
    assert check_history(Registry([order]), codec, data) is None


async def test_every_version_is_checked_against_its_own_code(env: WorkflowEnvironment) -> None:
    first = await waiting(env)
    second = replace(added, version=2)
    async with WorkflowEnvironment([order, second], store=env.store) as both:
        other = await both.start("order")
    report = await checked(env, order, second)
    assert (report.findings, {key: one.fit for key, one in report.tallies.items()}) == (
        [], {("order", 1): 1, ("order", 2): 1},
    )  # fmt: skip
    assert [one.run_id for one in (await checked(env, replace(order, version=2), added)).findings] == [first]
    assert [one.run_id for one in (await checked(env, order)).findings] == [other]


async def test_what_cannot_be_read_here_is_told_and_hides_nothing(env: WorkflowEnvironment) -> None:
    sealed = Codec(EncryptionCodec([generate_key()]))
    run_id = await waiting(env)
    state = await env.store.load(run_id)
    assert state is not None
    secret = replace(state.run, run_id="secret", input=sealed.encode(5))
    started = state.history[0]
    assert isinstance(started, RunStarted)
    start = replace(started, input=secret.input)
    await env.store.create(secret, [start])
    report = await checked(env, added)
    assert {one.run_id: one.kind for one in report.findings} == {run_id: Kind.MISMATCH, "secret": Kind.UNREADABLE}
    [unreadable] = [one for one in report.findings if one.run_id == "secret"]
    assert "sealed with key" in unreadable.problem
    assert (await check_store(env.store, Registry([order]), sealed)).misfits == 0


class Odd:
    """A store that does as told where it would do something else."""

    def __init__(self, store: Store, **verbs: Any) -> None:
        self._store = store
        self.__dict__.update(verbs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_an_event_of_a_newer_release_is_told_and_hides_nothing(env: WorkflowEnvironment) -> None:
    newer, other = await waiting(env), await waiting(env)

    async def load(run_id: str) -> Any:
        if run_id == newer:
            raise SerializationError("the history holds an event of kind 'New', which this release does not know")
        return await env.store.load(run_id)

    report = await check_store(Odd(env.store, load=load), Registry([order]), codec)
    assert [(one.run_id, one.kind) for one in report.findings] == [(newer, Kind.UNREADABLE)]
    assert (report.checked, report.misfits) == (2, 1)
    assert other != newer


async def test_a_replay_that_breaks_is_told_and_hides_nothing(
    env: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, other = await waiting(env), await waiting(env)

    def replay(definition: Any, history: Any, *, facts: Any, codec: Any) -> Any:
        if facts.run_id == broken:
            raise RuntimeError("a bug")
        return original(definition, history, facts=facts, codec=codec)

    original = replay_of_checking()
    monkeypatch.setattr("tinyworkflow_core.checking.replay", replay)
    report = await checked(env, added)
    assert {one.run_id: one.kind for one in report.findings} == {broken: Kind.BROKEN, other: Kind.MISMATCH}
    assert "the replay broke: RuntimeError: a bug" in [one.problem for one in report.findings]


def replay_of_checking() -> Any:
    from tinyworkflow_core.engine.replay import replay

    return replay


# --- what fits -------------------------------------------------------------------------------------------


@changed
async def mended(ctx: WorkflowContext) -> str:
    paid, costs = "nothing", await ctx.execute_activity(reserve, 5)
    if costs:
        paid = await ctx.execute_activity(charge, costs)
    await ctx.wait_for_signal("go")
    await ctx.execute_activity(count)
    return paid


async def test_other_code_that_fits_is_counted_as_changed(env: WorkflowEnvironment) -> None:
    await waiting(env)
    await waiting(env)
    [same] = (await checked(env, order)).tallies.values()
    assert (same.checked, same.fit, same.changed) == (2, 2, 0)
    report = await checked(env, mended)
    [other] = report.tallies.values()
    assert (other.checked, other.fit, other.changed) == (2, 2, 2)
    assert (report.findings, report.notes, report.misfits) == ([], [], 0)


async def test_code_that_does_not_fit_is_not_counted_as_changed(env: WorkflowEnvironment) -> None:
    await waiting(env)
    [tally] = (await checked(env, added)).tallies.values()
    assert (tally.checked, tally.fit, tally.changed) == (1, 0, 0)


async def test_ended_runs_are_left_alone(env: WorkflowEnvironment) -> None:
    run_id = await waiting(env)
    await env.signal(run_id, "go")
    assert await env.result(run_id) == "5 paid"
    assert (await checked(env, added)).tallies == {}


async def test_a_run_that_ends_while_it_is_looked_for_is_left_alone(env: WorkflowEnvironment) -> None:
    ended, gone = await waiting(env), await waiting(env)

    async def load(run_id: str) -> Any:
        if run_id == gone:
            await env.store.purge(gone)
        else:
            await env.signal(ended, "go")
            await env.run()
        return await env.store.load(run_id)

    report = await check_store(Odd(env.store, load=load), Registry([added]), codec)
    assert report.tallies == {}


async def test_a_run_that_was_retried_fits_by_what_counts_of_its_history() -> None:
    tries: list[int] = []

    @activity(retry_policy=RetryPolicy(max_retries=0))
    def ship() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("no lorry")
        return "shipped"

    @workflow(name="shipping", retry_policy=RetryPolicy(max_retries=1, initial_delay="1m", jitter=False))
    async def shipping(ctx: WorkflowContext) -> str:
        await ctx.execute_activity(reserve, 5)
        shipped = await ctx.execute_activity(ship)
        await ctx.wait_for_signal("go")
        return shipped

    async with WorkflowEnvironment([shipping]) as env:
        await waiting(env, shipping)
        assert (await checked(env, shipping)).misfits == 0
        await env.advance("5m")
        report = await checked(env, shipping)
        assert (len(tries), report.checked, report.misfits, report.notes) == (2, 1, 0, [])


# --- notes -----------------------------------------------------------------------------------------------


@changed
async def ending(ctx: WorkflowContext) -> str:
    amount = await ctx.execute_activity(reserve, 5)
    return await ctx.execute_activity(charge, amount)


@changed
async def failing(ctx: WorkflowContext) -> str:
    amount = await ctx.execute_activity(reserve, 5)
    await ctx.execute_activity(charge, amount)
    raise ValueError("too late")


@changed
async def continuing(ctx: WorkflowContext) -> str:
    amount = await ctx.execute_activity(reserve, 5)
    await ctx.execute_activity(charge, amount)
    raise ContinueAsNew


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (ending, "the run is open, but with this code it completes"),
        (failing, "the run is open, but with this code it fails with ValueError: too late"),
        (continuing, "the run is open, but with this code it continues as new"),
    ],
    ids=["completes", "fails", "continues"],
)
async def test_a_run_that_would_end_at_once_is_noted_and_fits(
    env: WorkflowEnvironment, code: WorkflowDefinition[Any], said: str
) -> None:
    run_id = await waiting(env)
    report = await checked(env, code)
    assert [(one.run_id, one.kind, one.problem) for one in report.notes] == [(run_id, Kind.ENDS, said)]
    assert (report.misfits, report.findings) == (0, [])
    assert report.tallies["order", 1].changed == 1


async def test_that_a_run_which_has_not_begun_would_complete_is_no_news_but_that_it_would_fail_is() -> None:
    @workflow(name="order")
    async def short(ctx: WorkflowContext) -> str:
        return "done"

    @workflow(name="order")
    async def hopeless(ctx: WorkflowContext) -> str:
        raise KeyError("x")

    async with WorkflowEnvironment([short]) as env:
        await env.start(short)
        assert (await checked(env, short)).notes == []
        [note] = (await checked(env, hopeless)).notes
        assert "fails with KeyError" in note.problem


# --- many runs -------------------------------------------------------------------------------------------


async def put(store: Store, run_id: str, *, name: str = "order", minute: int = 0) -> None:
    at = START + timedelta(minutes=minute)
    run = Run(run_id=run_id, workflow_id=run_id, name=name, version=1, input="null", created_at=at, wake_at=at)
    await store.create(run, [RunStarted(at=at, name=name, version=1, input="null", engine=1, python="3.11")])


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = open_store("sqlite:///:memory:")
    yield store
    await store.close()


async def test_runs_are_found_page_after_page_and_loaded_one_at_a_time(store: Store) -> None:
    for number in range(250):
        await put(store, f"run-{number}", minute=number)
    pages: list[int] = []

    async def listed(query: RunQuery) -> Page[Run]:
        page = await store.list(query)
        pages.append(len(page.items))
        return page

    odd: Any = Odd(store, list=listed)
    report = await check_store(odd, Registry([order]), codec)
    assert (report.checked, report.misfits, max(pages)) == (250, 0, 100)


async def test_only_so_many_or_those_of_one_workflow_are_replayed_when_asked(store: Store) -> None:
    for number in range(5):
        await put(store, f"run-{number}", minute=number)
    await put(store, "other", name="other", minute=9)
    registry = Registry([order, replace(order, name="other")])
    report = await check_store(store, registry, codec, limit=4)
    assert (report.checked, report.is_complete) == (4, False)
    report = await check_store(store, registry, codec, limit=6)
    assert (report.checked, report.is_complete) == (6, True)
    report = await check_store(store, registry, codec, name="other")
    assert list(report.tallies) == [("other", 1)]


async def test_a_run_that_changes_its_status_meanwhile_is_looked_at_once(store: Store) -> None:
    await put(store, "waking")
    await put(store, "sleeping")
    record = await store.get("waking")
    assert record is not None
    asked: list[Status | None] = []

    async def listed(query: RunQuery) -> Page[Run]:
        asked.append(query.status)
        if query.status is Status.PENDING and asked.count(Status.PENDING) == 1:
            return Page(items=[one for one in (await store.list(query)).items if one.run_id != "waking"])
        return await store.list(query)

    odd: Any = Odd(store, list=listed)
    assert [run.run_id async for run in open_runs(odd)] == ["sleeping", "waking"]
    assert {one for one in Status if not one.closed} == set(asked)


async def test_a_report_lists_no_more_than_so_many_and_counts_all(env: WorkflowEnvironment) -> None:
    run_id = await waiting(env)
    state = await env.store.load(run_id)
    assert state is not None
    data = exported(state)
    report = check_histories(Registry([added]), codec, [data] * (MAX_LISTED + 5))
    assert (len(report.findings), report.misfits) == (MAX_LISTED, MAX_LISTED + 5)
    report = check_histories(Registry([ending]), codec, [data] * (MAX_LISTED + 5))
    assert (len(report.notes), report.misfits) == (MAX_LISTED, 0)


# --- exported histories ----------------------------------------------------------------------------------


async def as_file(env: WorkflowEnvironment, run_id: str) -> Any:
    state = await env.store.load(run_id)
    assert state is not None
    return json.loads(json.dumps(exported(state)))


async def test_an_exported_history_says_all_that_a_replay_needs(env: WorkflowEnvironment) -> None:
    run_id = await waiting(env)
    data = await as_file(env, run_id)
    assert data["format"] == 1
    assert data["run"] == {
        "run_id": run_id,
        "workflow_id": run_id,
        "name": "order",
        "version": 1,
        "generation": 0,
        "parent_run_id": None,
        "retry_count": 0,
    }
    assert [one["kind"] for one in data["history"]] == ["RunStarted", "ActivityCompleted", "ActivityCompleted"]
    assert check_history(Registry([order]), codec, data) is None
    [expected] = (await checked(env, renamed)).findings
    assert check_history(Registry([renamed]), codec, data) == expected


async def test_exported_histories_are_narrowed_like_a_store(env: WorkflowEnvironment) -> None:
    data = [await as_file(env, await waiting(env)) for _ in range(3)]
    data.append({**data[0], "run": {**data[0]["run"], "name": "other"}})
    registry = Registry([order])
    assert check_histories(registry, codec, data).misfits == 1
    assert check_histories(registry, codec, data, name="order").checked == 3
    report = check_histories(registry, codec, data, limit=2)
    assert (report.checked, report.is_complete) == (2, False)
    assert check_histories(registry, codec, data, name="order", limit=3).is_complete


def _ended(history: Sequence[Any], event: Any) -> list[Any]:
    return [*history[:-1], event]


async def test_the_history_of_an_ended_run_is_held_against_its_end(env: WorkflowEnvironment) -> None:
    run_id = await waiting(env)
    await env.signal(run_id, "go")
    await env.result(run_id)
    data = await as_file(env, run_id)

    def said(code: WorkflowDefinition[Any], history: Any = None) -> str | None:
        given = data if history is None else {**data, "history": history}
        finding = check_history(Registry([code]), codec, given)
        return None if finding is None else f"{finding.kind}: {finding.problem}"

    @changed
    async def otherwise(ctx: WorkflowContext) -> str:
        amount = await ctx.execute_activity(reserve, 5)
        await ctx.execute_activity(charge, amount)
        await ctx.wait_for_signal("go")
        return "otherwise"

    @changed
    async def never(ctx: WorkflowContext) -> str:
        amount = await ctx.execute_activity(reserve, 5)
        await ctx.execute_activity(charge, amount)
        return str(await ctx.wait_for_signal("never"))

    assert said(order) is None
    assert said(otherwise) == "ends: the run has completed; with this code it does so with another result"
    assert (
        said(failing) == "ends: the run has ended (RunCompleted), but with this code it fails with ValueError: too late"
    )
    assert (said(never) or "").startswith("mismatch: step 3: the history records the end of the workflow")
    failed = {"kind": "RunFailed", "at": START.isoformat(), "error": {"type": "ValueError", "message": "then"}}
    assert said(failing, _ended(data["history"], failed)) is None
    failed["error"] = {"type": "KeyError", "message": "then"}
    assert "(RunFailed), but" in (said(failing, _ended(data["history"], failed)) or "")
    killed = {"kind": "RunTerminated", "at": START.isoformat(), "message_id": "terminate"}
    assert said(never, _ended(data["history"], killed)) is None
    assert said(ending, _ended(data["history"], killed)) is None


async def test_an_ended_run_that_was_cancelled_fits(env: WorkflowEnvironment) -> None:
    run_id = await waiting(env)
    await env.cancel(run_id)
    await env.run()
    assert (await env.status(run_id)).status == "cancelled"
    assert check_history(Registry([order]), codec, await as_file(env, run_id)) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "no exported history"),
        ({"run": {}}, "no field 'format'"),
        ({"format": 2}, "format 2; this release reads 1"),
        ({"format": 1, "run": {}}, "damaged"),
        ({"format": 1, "run": {"run_id": "a"}, "history": []}, "damaged"),
        (
            {"format": 1, "run": {"run_id": "a", "workflow_id": "a", "name": "order", "version": 1}, "history": [1]},
            "damaged",
        ),
    ],
)
def test_what_is_no_exported_history_is_refused(data: Any, words: str) -> None:
    with pytest.raises(SerializationError, match=words):
        check_history(Registry([order]), codec, data)


def test_an_exported_event_that_this_release_does_not_know_is_a_finding() -> None:
    about = {"run_id": "a", "workflow_id": "a", "name": "order", "version": 1}
    for history, words in (([{"kind": "New"}], "kind 'New'"), ([], "does not begin with RunStarted")):
        finding = check_history(Registry([order]), codec, {"format": 1, "run": about, "history": history})
        assert finding is not None
        assert (finding.kind, words in finding.problem) == (Kind.UNREADABLE, True)
