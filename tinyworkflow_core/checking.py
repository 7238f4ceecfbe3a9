"""Checking: stored histories against the code that is about to be deployed. And the form in which they are exported.

Each open run is replayed as the deployed code would replay it: no activity runs, nothing is written. What that says of
one run is a `Finding`; without one the run fits. Where histories come from and how a report is shown is for others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import field, replace
from enum import StrEnum
from typing import Any

from .engine.context import RunFacts
from .engine.history import (
    CLOSING,
    Event,
    LeaseTaken,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunTerminated,
    history_from_json,
    history_to_json,
)
from .engine.replay import Blocked, Cancelled, Completed, ContinuedAsNew, Failed, Mismatch, Outcome, replay
from .errors import NonDeterminismError, SerializationError, UnknownWorkflowError
from .records import dataclass
from .registry import Registry
from .serialization import Codec
from .store import Run, RunQuery, RunState, Status, Store

FORMAT = 1
"""Of an exported history."""

MAX_LISTED = 1_000
"""Findings, and notes, that a report lists; the rest is only counted."""

_PAGE = 100
_PASSING = (Status.PENDING, Status.RUNNING)
_STAYING = (Status.RETRYING, Status.WAITING, Status.PAUSED, Status.SUSPENDED, Status.PARKED)
OPEN_IN_TURN = (*_PASSING, *_STAYING, *_PASSING)
"""The statuses of open runs, in an order in which to ask for all of them: what changes its status meanwhile is not
missed, since runs in passing are asked for again at the end."""


class Kind(StrEnum):
    """What was found. All but ENDS speak against deploying."""

    MISMATCH = "mismatch"
    """The code asks for something else than the history records."""
    MISSING = "missing"
    """There is no code for this workflow, or for this version of it."""
    UNREADABLE = "unreadable"
    """A value or an event of the history cannot be read here."""
    BROKEN = "broken"
    """The replay broke for another reason."""
    ENDS = "ends"
    """Code and history fit, but the code ends where the run had not, or otherwise than it had: worth a look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What there is to say about one run. The last four are known for a mismatch: the position of the step, what the
    history records there, what the code asks for instead, and the code's file:line."""

    run_id: str
    workflow: str
    version: int
    kind: Kind
    problem: str
    """The whole of it in words."""
    step: int | None = None
    recorded: str | None = None
    asked: str | None = None
    where: str | None = None

    @property
    def is_note(self) -> bool:
        """Whether the run fits all the same."""
        return self.kind is Kind.ENDS


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the replay of one run has shown."""

    finding: Finding | None
    changed: bool = False
    """It fits, and the workflow's own code is another than the one it was started with."""


@dataclass(kw_only=True, slots=True)
class Tally:
    """Runs of one version of one workflow. `changed`: those that fit although the workflow's own code is another than
    the one they were started with."""

    checked: int = 0
    fit: int = 0
    changed: int = 0


@dataclass(kw_only=True, slots=True)
class Report:
    """What a check has found. `findings` and `notes` hold MAX_LISTED each at most; the tallies count all."""

    tallies: dict[tuple[str, int], Tally] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    is_complete: bool = True
    """False: a limit was reached before all runs were looked at."""

    @property
    def checked(self) -> int:
        """How many runs were replayed."""
        return sum(one.checked for one in self.tallies.values())

    @property
    def misfits(self) -> int:
        """How many of them do not fit."""
        return sum(one.checked - one.fit for one in self.tallies.values())

    def is_cut_at(self, limit: int | None) -> bool:
        """Whether so many were replayed already, and another would be one too many."""
        if limit is None or self.checked < limit:
            return False
        self.is_complete = False
        return True

    def add(self, facts: RunFacts, seen: _Seen) -> None:
        """Count one run."""
        tally = self.tallies.setdefault((facts.name, facts.version), Tally())
        tally.checked += 1
        tally.changed += seen.changed
        finding = seen.finding
        if finding is None or finding.is_note:
            tally.fit += 1
        if finding is not None:
            listed = self.notes if finding.is_note else self.findings
            if len(listed) < MAX_LISTED:
                listed.append(finding)


# --- where the histories come from ---------------------------------------------------------------------


def exported(state: RunState) -> dict[str, Any]:
    """A run's current generation as JSON data. Values stand in it as they are stored: what is sealed stays sealed."""
    run = state.run
    about = {
        "run_id": run.run_id,
        "workflow_id": run.workflow_id,
        "name": run.name,
        "version": run.version,
        "generation": run.generation,
        "parent_run_id": run.parent_run_id,
        "retry_count": run.retry_count,
    }
    return {"format": FORMAT, "run": about, "history": history_to_json(state.history)}


async def open_runs(store: Store, *, name: str | None = None) -> AsyncIterator[Run]:
    """The records of all open runs, each once, a page at a time; only ids are kept.

    What changes its status meanwhile is not missed: runs in passing are asked for again at the end.
    """
    seen: set[str] = set()
    for status in OPEN_IN_TURN:
        query = RunQuery(status=status, name=name, limit=_PAGE)
        while True:
            page = await store.list(query)
            for run in page.items:
                if run.run_id not in seen:
                    seen.add(run.run_id)
                    yield run
            if page.next_cursor is None:
                break
            query = replace(query, cursor=page.next_cursor)


# --- the check -----------------------------------------------------------------------------------------


async def check_store(
    store: Store, registry: Registry, codec: Codec, *, name: str | None = None, limit: int | None = None
) -> Report:
    """Replay every open run, of one workflow or of all, and at most `limit` of them. One history is loaded at a time.

    Raises StoreError, and DuplicateDefinitionError.
    """
    report = Report()
    async for run in open_runs(store, name=name):
        if report.is_cut_at(limit):
            break
        try:
            state = await store.load(run.run_id)
        except SerializationError as error:  # an event of a release that is newer than this one
            report.add(_facts(run), _look(registry, codec, _facts(run), error))
            continue
        if state is not None and not state.run.status.closed:  # else it ended meanwhile
            facts = _facts(state.run)
            report.add(facts, _look(registry, codec, facts, state.history))
    return report


def check_history(registry: Registry, codec: Codec, data: Any) -> Finding | None:
    """Replay one exported history, of an open run or of one that has ended. None: it fits.

    Raises SerializationError for what is no exported history.
    """
    facts, history = read_exported(data)
    return _look(registry, codec, facts, history).finding


def check_histories(
    registry: Registry,
    codec: Codec,
    histories: Iterable[Any],
    *,
    name: str | None = None,
    limit: int | None = None,
    report: Report | None = None,
) -> Report:
    """Replay exported histories, of one workflow or of all, and add them to `report`, or to a new one. Raises
    SerializationError for what is none."""
    report = Report() if report is None else report
    for data in histories:
        facts, history = read_exported(data)
        if name in (None, facts.name):
            if report.is_cut_at(limit):
                break
            report.add(facts, _look(registry, codec, facts, history))
    return report


def read_exported(data: Any) -> tuple[RunFacts, Sequence[Event] | SerializationError]:
    """The run of an exported history and its events, or why these cannot be read. Raises SerializationError for what is
    no exported history."""
    if not isinstance(data, Mapping) or "format" not in data:
        raise SerializationError("this is no exported history: it has no field 'format'")
    if data["format"] != FORMAT:
        raise SerializationError(f"an exported history of format {data['format']!r}; this release reads {FORMAT}")
    try:
        facts = RunFacts(**data["run"])
        if "unreadable" in data:  # whoever has the run could not export it, and says why
            return facts, SerializationError(str(data["unreadable"]))
        events = [dict(one) for one in data["history"]]
    except (TypeError, ValueError, KeyError) as error:
        raise SerializationError(f"the exported history is damaged: {error!r}") from error
    try:
        return facts, history_from_json(events)
    except SerializationError as error:
        return facts, error


def _look(registry: Registry, codec: Codec, facts: RunFacts, history: Sequence[Event] | SerializationError) -> _Seen:
    """Replay one run. `history`: the events, or why they cannot be read."""
    if isinstance(history, SerializationError):
        return _found(facts, Kind.UNREADABLE, str(history))
    try:
        definition = registry.workflow(facts.name, facts.version)
    except UnknownWorkflowError as error:
        return _found(facts, Kind.MISSING, f"no code for version {facts.version}: {error}")
    try:
        outcome = replay(definition, history, facts=facts, codec=codec)
    except SerializationError as error:
        return _found(facts, Kind.UNREADABLE, str(error))
    except Exception as error:  # one run that breaks the replay must not hide what is wrong with the others
        return _found(facts, Kind.BROKEN, f"the replay broke: {type(error).__name__}: {error}")
    if isinstance(outcome, Mismatch):
        return _mismatch(facts, outcome.error)
    started, said = history[0], _ending(outcome, history, codec)
    known = started.fingerprint if isinstance(started, RunStarted) else None
    changed = known not in (None, definition.fingerprint)
    return replace(_found(facts, Kind.ENDS, said), changed=changed) if said else _Seen(None, changed=changed)


def _mismatch(facts: RunFacts, error: NonDeterminismError) -> _Seen:
    problem = "\n".join([str(error), *getattr(error, "__notes__", ())])
    about = {"step": error.step, "recorded": error.recorded, "asked": error.asked, "where": error.where or None}
    return _found(facts, Kind.MISMATCH, problem, **about)


def _found(facts: RunFacts, kind: Kind, problem: str, **about: Any) -> _Seen:
    return _Seen(
        Finding(run_id=facts.run_id, workflow=facts.name, version=facts.version, kind=kind, problem=problem, **about)
    )


def _ending(outcome: Outcome, history: Sequence[Event], codec: Codec) -> str | None:
    """What is odd about how the replay ends; None: nothing."""
    last = history[-1]
    how = _how(outcome, codec)
    if how is None or isinstance(last, RunTerminated):
        return None
    if not isinstance(last, CLOSING):
        has_begun = any(not isinstance(event, RunStarted | LeaseTaken) for event in history)
        return f"the run is open, but with this code it {how}" if has_begun or isinstance(outcome, Failed) else None
    match last, outcome:
        case RunCompleted(), Completed():
            same = codec.fingerprint(last.output) == codec.fingerprint(outcome.output)
            return None if same else "the run has completed; with this code it does so with another result"
        case RunFailed(), Failed():
            same = last.error.type == outcome.error.type
        case RunCancelled(), Cancelled():
            same = True
        case _:
            same = False
    return None if same else f"the run has ended ({type(last).__name__}), but with this code it {how}"


def _how(outcome: Outcome, codec: Codec) -> str | None:
    match outcome:
        case Completed():
            return "completes"
        case Failed(error=stored):
            error = codec.opened(stored)
            return f"fails with {error.type}: {error.message}"
        case Cancelled():
            return "ends by its cancellation"
        case ContinuedAsNew():
            return "continues as new"
        case Blocked() | Mismatch():
            return None


def _facts(run: Run) -> RunFacts:
    return RunFacts(
        run_id=run.run_id,
        workflow_id=run.workflow_id,
        name=run.name,
        version=run.version,
        generation=run.generation,
        parent_run_id=run.parent_run_id,
        retry_count=run.retry_count,
    )
