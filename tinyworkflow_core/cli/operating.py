"""Commands for operators: what is done to runs from outside, and forgetting old ones. Servers and workers are in
serving.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated

import typer

from ..clock import SystemClock
from ..errors import RunNotFoundError, RunStateError
from .completing import RunId
from .console import InputText, JsonFlag, ask, cli, parse
from .printing import progress, show, show_done, show_json
from .reach import Reach, Verb

Reason = Annotated[str | None, typer.Option(help="Why, for the history.")]

_PAGE = 100


@cli.command()
def cancel(context: typer.Context, run_id: RunId, reason: Reason = None, as_json: JsonFlag = False) -> None:
    """Ask a run to end; it may clean up first."""
    _steer(context, "cancel", run_id, reason, as_json)


@cli.command()
def terminate(context: typer.Context, run_id: RunId, reason: Reason = None, as_json: JsonFlag = False) -> None:
    """End a run by force: its code is not asked, nothing is cleaned up."""
    _steer(context, "terminate", run_id, reason, as_json)


@cli.command()
def suspend(context: typer.Context, run_id: RunId, reason: Reason = None, as_json: JsonFlag = False) -> None:
    """Put a run aside until it is resumed."""
    _steer(context, "suspend", run_id, reason, as_json)


@cli.command()
def resume(context: typer.Context, run_id: RunId, as_json: JsonFlag = False) -> None:
    """Let a suspended run go on; have a parked one tried again."""
    _steer(context, "resume", run_id, None, as_json)


@cli.command()
def retry(context: typer.Context, run_id: RunId, as_json: JsonFlag = False) -> None:
    """Have a failed or terminated run go on from where it failed."""
    _steer(context, "retry", run_id, None, as_json)


def _steer(context: typer.Context, verb: Verb, run_id: str, reason: str | None, as_json: bool) -> None:
    ask(context, lambda reach: reach.steer(verb, run_id, reason))
    show_done(as_json, run_id=run_id)


@cli.command()
def fork(
    context: typer.Context,
    run_id: RunId,
    at_event: Annotated[int, typer.Option(help="The last event to take over, as `events` numbers them.", min=1)],
    input_data: InputText = None,
    as_json: JsonFlag = False,
) -> None:
    """Start a new run from the first events of another and print its id. Its module is needed: -w."""
    data = parse("--input", input_data)
    made = ask(context, lambda reach: reach.fork(run_id, at_event, data), code=True)
    (show_json({"run_id": made}) if as_json else show(made))


@cli.command()
def cleanup(
    context: typer.Context,
    days: Annotated[float, typer.Option(help="Keep what ended within so many days.", min=0, max=36500)] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Forget runs that ended long ago, history and all, and print how many."""
    before = SystemClock().now() - timedelta(days=days)

    async def forget(reach: Reach) -> int:
        with progress("forgetting runs", quiet=context.obj.quiet) as tell:
            count = 0
            async for run_id in _ended(reach, before):
                try:
                    await reach.delete(run_id)
                except (RunNotFoundError, RunStateError):  # somebody was faster, or has had it go on
                    continue
                count += 1
                tell(count)
            return count

    count = ask(context, forget)
    (show_json({"forgotten": count}) if as_json else show(str(count)))


async def _ended(reach: Reach, before: datetime) -> AsyncIterator[str]:
    from ..store import CLOSED_STATUSES

    for status in sorted(CLOSED_STATUSES):
        cursor = None
        while True:
            page = await reach.runs(limit=_PAGE, cursor=cursor, status=status.value, started_before=before)
            for run in page["runs"]:
                ended = run["times"]["ended"]
                if ended is not None and datetime.fromisoformat(ended) < before:
                    yield run["run_id"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
