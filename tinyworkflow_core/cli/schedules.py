"""Commands on schedules: `tinyworkflow schedule ...`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..embedded import TinyWorkflowClient
from ..schedule_store import DamagedSchedule, Schedule
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
    help="Start runs by the clock: add, list, pause, resume, delete, trigger, backfill.",
    no_args_is_help=True,
)
cli.add_typer(schedules, name="schedule")


@schedules.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The workflow's name.")],
    cron: Annotated[str | None, typer.Argument(help="When, as a cron line: '0 9 * * 1'.")] = None,
    every: Annotated[str | None, typer.Option(help="Or an interval: 30s, 5m, 1h, 7d.")] = None,
    input_data: InputText = None,
    schedule_id: Annotated[str | None, typer.Option("--id", help="An id; one that exists is changed.")] = None,
    timezone: Annotated[str, typer.Option(help="The zone that the cron line is meant in.")] = "UTC",
    overlap: Annotated[
        str, typer.Option(help="While the last run is open: skip, queue, cancel_other, allow.")
    ] = "skip",
    catch_up: Annotated[str, typer.Option(help="Of times that were missed: none, latest, all.")] = "latest",
    jitter: Annotated[str | None, typer.Option(help="Start up to so much later, such as 30s.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Have runs of a workflow started by the clock, and print the schedule's id. Its module is needed: -w."""
    if (cron is None) is (every is None):
        raise typer.BadParameter("give a cron line, or --every")
    data = parse("--input", input_data)
    options: dict[str, Any] = {"overlap": overlap, "catch_up": catch_up, "jitter": jitter, "id": schedule_id}

    async def create(client: TinyWorkflowClient) -> str:
        if every is not None:
            return await client.schedule_interval_workflow(name, every, data, **options)
        return await client.schedule_workflow(name, cron, data, timezone=timezone, **options)

    made = ask(context, create)
    show({"id": made} if as_json else made)


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
    as_json: JsonFlag = False,
) -> None:
    """Show the times in a window for which runs would be started; with --go, start them. Each time gets one run."""
    window = _moment("START", start), _moment("END", end)
    times = ask(context, lambda client: client.backfill_schedule(schedule_id, *window, dry_run=not go))
    texts = [one.isoformat() for one in times]
    if as_json:
        show({"id": schedule_id, "times": texts, "started": go})
    for text in () if as_json else texts:
        typer.echo(text)


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
    del view["etag"]  # says which state of the record it is, to the store
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
