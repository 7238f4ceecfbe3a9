"""Commands on stored histories: export them, and check that the code that is here fits them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RunNotFoundError, SerializationError
from .code import bring_in, declared_workflows
from .completing import run_ids, workflow_names
from .console import JsonFlag, Modules, ask, cli, saying_what_failed
from .printing import json_text, progress, say, show_json
from .reach import Data, Reach

if TYPE_CHECKING:  # they bring the engine, which the other commands do without
    from ..checking import Finding, Report
    from ..registry import Registry
    from ..serialization import Codec

Name = Annotated[
    str | None, typer.Option("--workflow", help="Only runs of this workflow.", autocompletion=workflow_names)
]

_PAGE = 100


@cli.command()
def check(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(help="Exported histories, in place of the open runs.")] = None,
    workflows: Modules = None,
    workflow: Name = None,
    limit: Annotated[int | None, typer.Option(help="Replay at most so many.", min=1)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Replay open runs with the code that `-w` brings in. Exit code 1 when any does not fit, 2 when nobody can say."""
    from ..checking import Report, check_histories
    from .stored_values import codec

    bring_in(context, workflows)
    with saying_what_failed(2), progress("checking runs", quiet=context.obj.quiet) as tell:
        registry = declared_workflows()
        report = Report()
        if files:
            histories = _Histories(files, lambda: tell(report.checked))
            try:
                check_histories(registry, codec(), histories, name=workflow, limit=limit, report=report)
            except (ValueError, SerializationError) as error:
                raise ValueError(f"{histories.place}: {error}") from error
        else:
            ask(context, lambda reach: _check(reach, registry, codec(), report, workflow, limit, tell), failure=2)
    if as_json:
        show_json(_as_data(report))
    for line in () if as_json else _as_lines(report):
        say(line)
    raise typer.Exit(1 if report.misfits else 0)


async def _check(
    reach: Reach,
    registry: Registry,
    opening: Codec,
    report: Report,
    name: str | None,
    limit: int | None,
    tell: Callable[[int], None],
) -> None:
    from ..checking import check_histories

    async for run, found in _all_open(reach, name):
        data = _unreadable(run, found) if isinstance(found, SerializationError) else found
        check_histories(registry, opening, [data], limit=limit, report=report)
        tell(report.checked)
        if not report.is_complete:
            return


def _unreadable(run: Data, error: SerializationError) -> Data:
    """In place of a history: what is known of the run all the same."""
    from ..checking import FORMAT

    about = {name: run[name] for name in ("run_id", "workflow_id", "version", "parent_run_id", "retry_count")}
    return {"format": FORMAT, "run": about | {"name": run["workflow"], "generation": 0}, "unreadable": str(error)}


@cli.command()
def export(
    context: typer.Context,
    run_id: Annotated[str | None, typer.Argument(help="The run's id.", autocompletion=run_ids)] = None,
    every: Annotated[bool, typer.Option("--open", help="All open runs, each on a line.")] = False,
    workflow: Name = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as it does anyway.")] = False,
) -> None:
    """Write a run's history as JSON, or with --open those of all open runs as JSON lines, for `check` and for tests."""
    if (run_id is None) is not every:
        raise typer.BadParameter("name one run, or ask for all that are open with --open")

    async def write(reach: Reach) -> int:
        if run_id is not None:
            text = json_text(await reach.history(run_id)) + "\n"
            with _opened(output) as file:
                file.write(text)
            return 0
        unreadable = written = 0
        with _opened(output) as file, progress("exporting runs", quiet=context.obj.quiet) as tell:
            async for run, found in _all_open(reach, workflow):
                if isinstance(found, SerializationError):
                    say(f"tinyworkflow: run {run['run_id']!r}: {found}", err=True)
                    unreadable += 1
                else:
                    file.write(json.dumps(found, ensure_ascii=False) + "\n")
                    tell(written := written + 1)
        return unreadable

    if ask(context, write):
        raise typer.Exit(1)


async def _all_open(reach: Reach, name: str | None) -> AsyncIterator[tuple[Data, Data | SerializationError]]:
    """Each open run with its history, or with what is wrong with it; each once, also when it changes meanwhile."""
    from ..checking import OPEN_IN_TURN

    seen: set[str] = set()
    for status in OPEN_IN_TURN:
        cursor = None
        while True:
            page = await reach.runs(limit=_PAGE, cursor=cursor, status=status.value, workflow=name)
            for run in page["runs"]:
                if run["run_id"] in seen:
                    continue
                seen.add(run["run_id"])
                try:
                    found = await reach.history(run["run_id"], only_open=True)
                except RunNotFoundError:  # it was ended and forgotten meanwhile
                    continue
                except SerializationError as error:
                    yield run, error
                    continue
                if found is not None:
                    yield run, found
            cursor = page["next_cursor"]
            if cursor is None:
                break


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8") as file:
        yield file


class _Histories:
    """What exported files hold, one after the other: JSON lines, one JSON object, or a list of them."""

    def __init__(self, files: Sequence[Path], at_each: Callable[[], None]) -> None:
        self._files = files
        self._at_each = at_each
        self.place = ""
        """Where the latest one stands, for an error message."""

    def __iter__(self) -> Iterator[Any]:
        for data in self._all():
            yield data
            self._at_each()

    def _all(self) -> Iterator[Any]:
        for path in self._files:
            self.place = str(path)
            with path.open(encoding="utf-8") as file:
                first = file.readline()
                try:
                    data = json.loads(first)
                except ValueError:  # it goes on below
                    data = json.loads(first + file.read())
                yield from data if isinstance(data, list) else [data]
                for number, line in enumerate(file, start=2):
                    self.place = f"{path}:{number}"
                    if line.strip():
                        yield json.loads(line)


# --- the report ----------------------------------------------------------------------------------------


def _as_data(report: Report) -> dict[str, Any]:
    return {
        "checked": report.checked,
        "misfits": report.misfits,
        "complete": report.is_complete,
        "workflows": [
            {"workflow": name, "version": version, **asdict(tally)}
            for (name, version), tally in sorted(report.tallies.items())
        ],
        "findings": [asdict(one) for one in report.findings],
        "notes": [asdict(one) for one in report.notes],
    }


def _as_lines(report: Report) -> Iterator[str]:
    for finding in report.findings:
        yield from _finding_lines(finding)
    if report.misfits > len(report.findings):
        yield f"... and {report.misfits - len(report.findings)} more that do not fit"
    for note in report.notes:
        yield f"note: {note.run_id} ({note.workflow} v{note.version}): {note.problem}"
    for (name, version), tally in sorted(report.tallies.items()):
        changed = f" ({tally.changed} of them began with other code)" if tally.changed else ""
        misfits = tally.checked - tally.fit
        wrong = f", {misfits} {'does' if misfits == 1 else 'do'} not" if misfits else ""
        yield f"{name} v{version}: {tally.checked} checked, {tally.fit} fit{changed}{wrong}"
    if not report.tallies:
        yield "there was nothing to check"
    if not report.is_complete:
        yield f"stopped after {report.checked} (--limit); there are more"


def _finding_lines(finding: Finding) -> Iterator[str]:
    head = f"{finding.run_id} ({finding.workflow} v{finding.version}): {finding.kind}"
    if finding.step is None:
        yield head
        yield from (f"  {line}" for line in finding.problem.splitlines())
        return
    yield f"{head} at step {finding.step}"
    yield f"  recorded   {finding.recorded}"
    yield f"  asked for  {finding.asked}"
    yield f"  at         {finding.where}"
    yield from (f"  {line}" for line in finding.problem.splitlines()[1:])
