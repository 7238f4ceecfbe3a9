"""Following a run while it goes on: its events as they come, and its steps on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC
from typing import Any

from ..clock import SystemClock
from .printing import Part, is_terminal, safe, say, short
from .reach import Data, Reach, has_ended

LOOK_SECONDS = 0.3
"""Between two looks at a run that others work on."""

_HEADS = ("event_id", "type", "at", "digest")


async def all_events(reach: Reach, run_id: str, after: int = 0) -> AsyncIterator[Data]:
    """The events of the run's current generation from there on, as far as they are recorded."""
    following: int | None = after
    while following is not None:
        page = await reach.events(run_id, after=following)
        for event in page["events"]:
            yield event
        following = page["next_after"]


async def coming_events(reach: Reach, run_id: str, after: int = 0) -> AsyncIterator[Data]:
    """The same, and those that come, through all generations, until the run has ended."""
    first = await _first(reach, run_id)
    while True:
        ended = has_ended(await reach.run(run_id))  # asked before: what is recorded after it is read is not missed
        async for event in all_events(reach, run_id, after):
            after = event["event_id"]
            yield event
        latest = await _first(reach, run_id)
        if latest != first:  # it has continued as new: another history, from its beginning
            first, after = latest, 0
            continue
        if ended:
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _first(reach: Reach, run_id: str) -> Any:
    page = (await reach.events(run_id, limit=1))["events"]
    return [(one["at"], one.get("generation")) for one in page]


def event_line(event: Data) -> list[Part]:
    """An event in a line."""
    rest = {key: value for key, value in event.items() if key not in _HEADS}
    style = {"Completed": "green", "Failed": "red"}.get(
        next((end for end in ("Completed", "Failed") if event["type"].endswith(end)), ""), ""
    )
    return [f"{event['event_id']:5}  {event['at'][11:23]}  ", (f"{event['type']:18}", style), f" {short(rest)[:160]}"]


async def watched(reach: Reach, run_id: str, *, quiet: bool) -> None:
    """Bring the run to its end and show its steps meanwhile: as a picture on a terminal, else as lines on stderr."""
    if quiet:
        await reach.bring(run_id)
        return
    watching = asyncio.ensure_future(_draw(reach, run_id) if is_terminal(err=True) else _tell(reach, run_id))
    try:
        await reach.bring(run_id)
        await watching  # it ends by itself, once it has seen the end
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _tell(reach: Reach, run_id: str) -> None:
    async for event in coming_events(reach, run_id):
        name = event.get("name") or event.get("key") or ""
        attempt = f" (attempt {event['attempt']})" if event.get("attempt", 1) > 1 else ""
        say(f"{event['at'][11:23]}  {event['type']} {name}{attempt}", err=True)


async def _draw(reach: Reach, run_id: str) -> None:
    seen: list[Data] = []
    with _live() as show:
        async for event in coming_events(reach, run_id):
            if event["event_id"] == 1:
                seen.clear()
            seen.append(event)
            show(seen)


@contextlib.contextmanager
def _live() -> Iterator[Any]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from .drawing import drawn, timeline_of

    with Live(console=Console(stderr=True, highlight=False), transient=False, auto_refresh=False) as live:

        def show(events: list[Data]) -> None:
            found = timeline_of(events, SystemClock().now().astimezone(UTC))
            rows = drawn(found)[-(live.console.height - 2) :] if found else []
            lines = [Text.assemble(*((safe(one), "") if isinstance(one, str) else one for one in row)) for row in rows]
            live.update(Text("\n").join(lines), refresh=True)

        yield show
