"""Commands on schedules: `tinyworkflow schedule ...`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from ..backfilling import DEFAULT_CONCURRENCY
from ..cron import CronSchedule, OneOff, Timing
from ..declaring import ScheduleChanges, ScheduleOptions
from ..embedded import TinyWorkflowClient
from ..schedule_store import DamagedSchedule, Schedule
from ..schedules import Schedules
from .console import InputText, JsonFlag, ask, cli, codec, parse, show, show_done

ScheduleId = Annotated[str, typer.Argument(help="The schedule's id.")]

_PAGE = 100


class _Group(TyperGroup):
    """Takes `schedule NAME CRON`, the 0.1 library's only form, for `schedule add NAME CRON`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if len(args) > 1 and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["add", *args]
        return super().parse_args(ctx, args)


schedules = typer.Typer(
    cls=_Group,
    help="Start runs by the clock: add, change, list, pause, resume, delete, trigger, backfill.",
    no_args_is_help=True,
)
cli.add_typer(schedules, name="schedule")


Cron = Annotated[str | None, typer.Argument(help="When, as a cron line: '0 9 * * 1'.")]
Every = Annotated[str | None, typer.Option(help="Or an interval: 30s, 5m, 1h, 7d.")]
At = Annotated[str | None, typer.Option(help="Or once: a moment in ISO format; UTC unless it says otherwise.")]
Zone = Annotated[str | None, typer.Option(help="The zone that the cron line is meant in; UTC unless given.")]
OverlapText = Annotated[
    str | None, typer.Option(help="While the last run is open: skip (unless given), queue, cancel_other, allow.")
]
CatchUpText = Annotated[str | None, typer.Option(help="Of times that were missed: none, latest (unless given), all.")]
Window = Annotated[str | None, typer.Option(help="A time that is older when its turn comes gets no run, such as 2h.")]
Jitter = Annotated[str | None, typer.Option(help="Start up to so much later, such as 30s.")]
Failures = Annotated[int | None, typer.Option(help="Pause it when so many of its runs have failed in a row.")]


@schedules.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The workflow's name.")],
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    input_data: InputText = None,
    schedule_id: Annotated[str | None, typer.Option("--id", help="An id; one that exists is changed.")] = None,
    timezone: Zone = None,
    overlap: OverlapText = None,
    catch_up: CatchUpText = None,
    catch_up_window: Window = None,
    jitter: Jitter = None,
    pause_after_failures: Failures = None,
    as_json: JsonFlag = False,
) -> None:
    """Have runs of a workflow started by the clock, and print the schedule's id. Its module is needed: -w."""
    timing = _timing(cron, every, at, timezone)
    if timing is None:
        raise typer.BadParameter("give a cron line, or --every, or --at")
    data = parse("--input", input_data)
    options = _options(overlap, catch_up, catch_up_window, jitter, pause_after_failures)

    async def create(client: TinyWorkflowClient) -> str:
        return await Schedules(client).create(name, timing(client), data, id=schedule_id, **options)

    made = ask(context, create)
    show({"id": made} if as_json else made)


@schedules.command()
def change(
    context: typer.Context,
    schedule_id: ScheduleId,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    input_data: InputText = None,
    timezone: Zone = None,
    overlap: OverlapText = None,
    catch_up: CatchUpText = None,
    catch_up_window: Window = None,
    jitter: Jitter = None,
    pause_after_failures: Failures = None,
    as_json: JsonFlag = False,
) -> None:
    """Change what is given of a schedule, and nothing else. Its module is needed for another --input: -w."""
    timing = _timing(cron, every, at, timezone)
    changes = cast(ScheduleChanges, _options(overlap, catch_up, catch_up_window, jitter, pause_after_failures))
    if input_data is not None:
        changes["input_data"] = parse("--input", input_data)

    async def update(client: TinyWorkflowClient) -> Schedule:
        if timing is not None:
            changes["timing"] = timing(client)
        return await client.update_schedule(schedule_id, **changes)

    changed = ask(context, update)
    show_done(as_json, id=changed.id)


@schedules.command(name="list")
def list_schedules(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List all schedules, by id."""

    async def gather(client: TinyWorkflowClient) -> list[Schedule | DamagedSchedule]:
        return [one async for one in _every(client)]

    found = ask(context, gather)
    if as_json:
        show([_view(one) for one in found])
    for one in () if as_json else found:
        typer.echo(_line(one))


@schedules.command()
def pause(
    context: typer.Context,
    schedule_id: ScheduleId,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start nothing until it is resumed."""
    ask(context, lambda client: client.pause_schedule(schedule_id, note))
    show_done(as_json, id=schedule_id)


@schedules.command()
def resume(context: typer.Context, schedule_id: ScheduleId, as_json: JsonFlag = False) -> None:
    """Go on with the next time from now."""
    ask(context, lambda client: client.resume_schedule(schedule_id))
    show_done(as_json, id=schedule_id)


@schedules.command()
def delete(context: typer.Context, schedule_id: ScheduleId, as_json: JsonFlag = False) -> None:
    """Forget a schedule; its runs stay."""
    ask(context, lambda client: client.delete_schedule(schedule_id))
    show_done(as_json, id=schedule_id)


@schedules.command()
def trigger(context: typer.Context, schedule_id: ScheduleId, as_json: JsonFlag = False) -> None:
    """Start a run now and print its id. Its module is needed: -w."""
    made = ask(context, lambda client: client.trigger_schedule(schedule_id))
    show({"run_id": made} if as_json else made)


@schedules.command()
def backfill(
    context: typer.Context,
    schedule_id: ScheduleId,
    start: Annotated[str, typer.Argument(help="From this time on, in ISO format; UTC unless it says otherwise.")],
    end: Annotated[str, typer.Argument(help="Up to, not including, this time.")],
    go: Annotated[bool, typer.Option("--go", help="Start the runs; without it the times are only shown.")] = False,
    max_concurrency: Annotated[
        int, typer.Option(help="So many of its runs may be open at once.")
    ] = DEFAULT_CONCURRENCY,
    as_json: JsonFlag = False,
) -> None:
    """Show the times in a window for which runs would be started; with --go, start them. Each time gets one run."""
    window = _moment("START", start), _moment("END", end)
    plan = ask(
        context,
        lambda client: client.backfill_schedule(schedule_id, *window, dry_run=not go, max_concurrency=max_concurrency),
    )
    texts = [one.isoformat() for one in plan.times]
    if as_json:
        show({"id": schedule_id, "times": texts, "started": go, "backfill_id": plan.id})
    for text in () if as_json else texts:
        typer.echo(text)


@schedules.command()
def backfills(context: typer.Context, schedule_id: ScheduleId, as_json: JsonFlag = False) -> None:
    """Show how far the backfills of a schedule have come."""
    schedule = ask(context, lambda client: client.get_schedule(schedule_id))
    if as_json:
        show(schedule.to_dict()["backfills"])
    for one in () if as_json else schedule.backfills:
        about = f", {one.failed} failed" * bool(one.failed) + f"  ({one.problem})" * bool(one.problem)
        typer.echo(
            f"{one.id} {one.start:%Y-%m-%d %H:%M} to {one.end:%Y-%m-%d %H:%M} "
            f"{one.state} {one.started}/{one.total}{about}"
        )


@schedules.command()
def cancel_backfill(
    context: typer.Context,
    schedule_id: ScheduleId,
    backfill_id: Annotated[str, typer.Argument(help="The backfill's id.")],
    as_json: JsonFlag = False,
) -> None:
    """Have a backfill start nothing more; the runs that it has started go on."""
    ask(context, lambda client: client.cancel_backfill(schedule_id, backfill_id))
    show_done(as_json, id=schedule_id, backfill_id=backfill_id)


def _timing(
    cron: str | None, every: str | None, at: str | None, timezone: str | None
) -> Callable[[TinyWorkflowClient], Timing] | None:
    """What makes the timing that was asked for. None: nothing was."""
    if sum(one is not None for one in (cron, every, at)) > 1:
        raise typer.BadParameter("give a cron line, or --every, or --at")
    if timezone is not None and cron is None:
        raise typer.BadParameter("--timezone belongs to a cron line")
    if cron is not None:
        return lambda client: CronSchedule(cron, timezone or "UTC")
    if every is not None:
        return lambda client: Schedules(client).interval(every)
    if at is not None:
        moment = _moment("--at", at)
        return lambda client: OneOff(moment)
    return None


def _options(
    overlap: str | None, catch_up: str | None, window: str | None, jitter: str | None, failures: int | None
) -> ScheduleOptions:
    options = ScheduleOptions()
    if overlap is not None:
        options["overlap"] = overlap
    if catch_up is not None:
        options["catch_up"] = catch_up
    if window is not None:
        options["catch_up_window"] = window
    if jitter is not None:
        options["jitter"] = jitter
    if failures is not None:
        options["pause_after_failures"] = failures
    return options


async def _every(client: TinyWorkflowClient) -> AsyncIterator[Schedule | DamagedSchedule]:
    after = None
    while True:
        page = await client.list_schedules(limit=_PAGE, after=after)
        for one in page:
            yield one
        if len(page) < _PAGE:
            return
        after = page[-1].id


def _view(schedule: Schedule | DamagedSchedule) -> dict[str, Any]:
    if isinstance(schedule, DamagedSchedule):
        return {"id": schedule.id, "problem": schedule.problem}
    view = schedule.to_dict() | {"input": codec().plain(schedule.input)}
    for name in ("etag", "watched"):  # say which state of the record it is, and what is still to be counted
        del view[name]
    return view


def _line(schedule: Schedule | DamagedSchedule) -> str:
    if isinstance(schedule, DamagedSchedule):
        return f"{schedule.id:24} damaged: {schedule.problem}"
    timing = " ".join(str(value) for key, value in schedule.timing.items() if key not in ("kind", "anchor"))
    state = (
        "paused" if schedule.paused else f"next {schedule.next_at:%Y-%m-%d %H:%M:%S}" if schedule.next_at else "over"
    )
    about = schedule.problem or schedule.note
    return f"{schedule.id:24} {schedule.workflow:24} {timing:24} {state}" + (f"  ({about})" if about else "")


def _moment(argument: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{argument}: {error}") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
