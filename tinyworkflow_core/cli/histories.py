"""Commands on stored histories: export them, and check that the code that is here fits them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ..checking import Finding, Report, check_histories, check_store, exported, open_runs
from ..embedded import TinyWorkflowClient
from ..errors import RunNotFoundError, SerializationError
from .code import declared_workflows
from .console import JsonFlag, Modules, ask, cli, codec, import_modules, json_text, saying_what_failed, show

Name = Annotated[str | None, typer.Option("--workflow", help="Only runs of this workflow.")]


@cli.command()
def check(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(help="Exported histories, in place of the database.")] = None,
    workflows: Modules = None,
    workflow: Name = None,
    limit: Annotated[int | None, typer.Option(help="Replay at most so many.", min=1)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Replay open runs with the code that `-w` brings in. Exit code 1 when any does not fit, 2 when nobody can say."""
    import_modules(workflows)
    with saying_what_failed(2):
        registry = declared_workflows()
        if files:
            histories = _Histories(files)
            try:
                report = check_histories(registry, codec(), histories, name=workflow, limit=limit)
            except (ValueError, SerializationError) as error:
                raise ValueError(f"{histories.place}: {error}") from error
    if not files:
        report = ask(
            context,
            lambda client: check_store(client.store, registry, client.codec, name=workflow, limit=limit),
            failure=2,
        )
    if as_json:
        show(_as_data(report))
    for line in () if as_json else _as_lines(report):
        typer.echo(line)
    raise typer.Exit(1 if report.misfits else 0)


@cli.command()
def export(
    context: typer.Context,
    run_id: Annotated[str | None, typer.Argument(help="The run's id.")] = None,
    every: Annotated[bool, typer.Option("--open", help="All open runs, each on a line.")] = False,
    workflow: Name = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as it does anyway.")] = False,
) -> None:
    """Write a run's history as JSON, or with --open those of all open runs as JSON lines, for `check` and for tests."""
    if (run_id is None) is not every:
        raise typer.BadParameter("name one run, or ask for all that are open with --open")

    async def write(client: TinyWorkflowClient) -> int:
        if run_id is not None:
            text = json_text(await _one(client, run_id)) + "\n"
            with _opened(output) as file:
                file.write(text)
            return 0
        unreadable = 0
        with _opened(output) as file:
            async for found in _all_open(client, workflow):
                if isinstance(found, str):
                    typer.echo(f"tinyworkflow: {found}", err=True)
                    unreadable += 1
                else:
                    file.write(json.dumps(found, ensure_ascii=False) + "\n")
        return unreadable

    if ask(context, write):
        raise typer.Exit(1)


async def _one(client: TinyWorkflowClient, run_id: str) -> dict[str, Any]:
    state = await client.store.load(run_id)
    if state is None:
        raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id)
    return exported(state)


async def _all_open(client: TinyWorkflowClient, name: str | None) -> AsyncIterator[dict[str, Any] | str]:
    """Each history, or what is wrong with it."""
    async for run in open_runs(client.store, name=name):
        try:
            state = await client.store.load(run.run_id)
        except SerializationError as error:
            yield f"run {run.run_id!r}: {error}"
        else:
            if state is not None and not state.run.status.closed:
                yield exported(state)


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8") as file:
        yield file


class _Histories:
    """What exported files hold, one after the other: JSON lines, one JSON object, or a list of them."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self.place = ""
        """Where the latest one stands, for an error message."""

    def __iter__(self) -> Iterator[Any]:
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
