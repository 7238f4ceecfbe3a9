"""Commands on schedules: `tinyworkflow schedule ...`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..schedule_store import DEFAULT_CONCURRENCY
from .completing import ScheduleId, WorkflowName
from .console import InputText, JsonFlag, ask, cli, parse
from .following import LOOK_SECONDS
from .moments import moment
from .printing import progress, say, show, show_done, show_json
from .reach import Data, Reach

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
    name: WorkflowName,
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
    fields = _options(overlap, catch_up, catch_up_window, jitter, pause_after_failures)
    fields |= {"workflow": name, "timing": timing, "input": parse("--input", input_data), "id": schedule_id}
    made = ask(context, lambda reach: reach.declare(fields), code=True)
    (show_json({"id": made}) if as_json else show(made))


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
    fields = _options(overlap, catch_up, catch_up_window, jitter, pause_after_failures)
    fields |= {} if timing is None else {"timing": timing}
    fields |= {} if input_data is None else {"input": parse("--input", input_data)}
    ask(context, lambda reach: reach.change(schedule_id, fields), code=input_data is not None)
    show_done(as_json, id=schedule_id)


@schedules.command(name="list")
def list_schedules(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List all schedules, by id."""

    async def gather(reach: Reach) -> list[Data]:
        return [one async for one in _every(reach)]

    found = ask(context, gather)
    if as_json:
        show_json(found)
    for one in () if as_json else found:
        say(one["id"] if context.obj.quiet else _line(one))


@schedules.command()
def pause(
    context: typer.Context,
    schedule_id: ScheduleId,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start nothing until it is resumed."""
    ask(context, lambda reach: reach.pause(schedule_id, note))
    show_done(as_json, id=schedule_id)


@schedules.command()
def resume(context: typer.Context, schedule_id: ScheduleId, as_json: JsonFlag = False) -> None:
    """Go on with the next time from now."""
    ask(context, lambda reach: reach.resume(schedule_id))
    show_done(as_json, id=schedule_id)


@schedules.command()
def delete(context: typer.Context, schedule_id: ScheduleId, as_json: JsonFlag = False) -> None:
    """Forget a schedule; its runs stay."""
    ask(context, lambda reach: reach.forget(schedule_id))
    show_done(as_json, id=schedule_id)


@schedules.command()
def trigger(context: typer.Context, schedule_id: ScheduleId, as_json: JsonFlag = False) -> None:
    """Start a run now and print its id. Its module is needed: -w."""
    made = ask(context, lambda reach: reach.trigger(schedule_id), code=True)
    (show_json({"run_id": made}) if as_json else show(made))


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
    wait: Annotated[bool, typer.Option("--wait", help="Go on until all of its runs have ended.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the times in a window for which runs would be started; with --go, start them. Each time gets one run."""
    window = moment("START", start), moment("END", end)
    if wait and not go:
        raise typer.BadParameter("--wait belongs to --go")

    async def make(reach: Reach) -> Data:
        made = await reach.backfill(schedule_id, *window, not go, max_concurrency)
        if wait and made["backfill_id"] is not None:
            with progress("starting runs", total=len(made["times"]), quiet=context.obj.quiet) as tell:
                await _wait_done(reach, schedule_id, made["backfill_id"], tell)
        return made

    made = ask(context, make, code=True)
    if as_json:
        show_json({"id": schedule_id, "times": made["times"], "started": go, "backfill_id": made["backfill_id"]})
    for text in () if as_json else made["times"]:
        say(text)


async def _wait_done(reach: Reach, schedule_id: str, backfill_id: str, tell: Callable[[int], None]) -> None:
    while True:
        kept = (await reach.schedule(schedule_id))["backfills"]
        found = next((one for one in kept if one["id"] == backfill_id), None)
        if found is None or found["state"] != "running":
            return
        tell(found["started"] - found["open"])
        await asyncio.sleep(LOOK_SECONDS)


@schedules.command()
def backfills(context: typer.Context, schedule_id: ScheduleId, as_json: JsonFlag = False) -> None:
    """Show how far the backfills of a schedule have come."""
    found = ask(context, lambda reach: reach.schedule(schedule_id))["backfills"]
    if as_json:
        show_json(found)
    for one in () if as_json else found:
        about = f", {one['failed']} failed" * bool(one["failed"]) + f"  ({one['problem']})" * bool(one["problem"])
        window = f"{_minute(one['start'])} to {_minute(one['end'])}"
        say(
            one["id"]
            if context.obj.quiet
            else f"{one['id']} {window} {one['state']} {one['started']}/{one['total']}{about}"
        )


@schedules.command()
def cancel_backfill(
    context: typer.Context,
    schedule_id: ScheduleId,
    backfill_id: Annotated[str, typer.Argument(help="The backfill's id.")],
    as_json: JsonFlag = False,
) -> None:
    """Have a backfill start nothing more; the runs that it has started go on."""
    ask(context, lambda reach: reach.cancel_backfill(schedule_id, backfill_id))
    show_done(as_json, id=schedule_id, backfill_id=backfill_id)


def _timing(cron: str | None, every: str | None, at: str | None, timezone: str | None) -> Data | None:
    """The timing that was asked for, as the API takes it. None: nothing was."""
    if sum(one is not None for one in (cron, every, at)) > 1:
        raise typer.BadParameter("give a cron line, or --every, or --at")
    if timezone is not None and cron is None:
        raise typer.BadParameter("--timezone belongs to a cron line")
    if cron is not None:
        return {"cron": cron, "timezone": timezone or "UTC"}
    if every is not None:
        return {"interval": every}
    return None if at is None else {"at": moment("--at", at).isoformat()}


def _options(
    overlap: str | None, catch_up: str | None, window: str | None, jitter: str | None, failures: int | None
) -> Data:
    options = {
        "overlap": overlap,
        "catch_up": catch_up,
        "catch_up_window": window,
        "jitter": jitter,
        "pause_after_failures": failures,
    }
    return {name: value for name, value in options.items() if value is not None}


async def _every(reach: Reach) -> AsyncIterator[Data]:
    after = None
    while True:
        page = await reach.schedules(limit=_PAGE, after=after)
        for one in page:
            yield one
        if len(page) < _PAGE:
            return
        after = page[-1]["id"]


def _line(schedule: Data) -> str:
    if "workflow" not in schedule:
        return f"{schedule['id']:24} damaged: {schedule['problem']}"
    timing = " ".join(str(value) for key, value in schedule["timing"].items() if key != "anchor")
    next_at = schedule["next_at"]
    state = "paused" if schedule["paused"] else f"next {_minute(next_at, 19)}" if next_at else "over"
    about = schedule["problem"] or schedule["note"]
    return f"{schedule['id']:24} {schedule['workflow']:24} {timing:24} {state}" + (f"  ({about})" if about else "")


def _minute(text: str, digits: int = 16) -> str:
    return text[:digits].replace("T", " ")
