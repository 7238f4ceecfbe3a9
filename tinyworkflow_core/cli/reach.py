"""Port: what the commands need of wherever the runs are: a store (`by_store.py`) or a deployment (`by_http.py`).

Everything is plain JSON data in the shape of the HTTP API's answers, without its links, so that a command prints the
same whichever it talks to. Errors are those of the library, plus PermissionError (the key is missing, wrong, or may not
do that) and ConnectionError (nobody answers). Every verb on a run raises RunNotFoundError for one that there is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from ..errors import WorkflowCancelledError, WorkflowFailedError

Data = dict[str, Any]
"""A JSON object."""

Verb = Literal["cancel", "terminate", "suspend", "resume", "retry"]

MOST = 1000
"""The most that one page may hold."""

LINKS = "links"


class Reach(Protocol):
    """Somewhere with runs. It is open between `__aenter__` and `__aexit__`, and serves one event loop."""

    async def __aenter__(self) -> Reach: ...

    async def __aexit__(self, *exc: object) -> None: ...

    # --- what can be started ------------------------------------------------------------------

    async def workflows(self) -> list[Data]:
        """`{name, versions: [{version, input_schema}]}` of each."""
        ...

    async def activities(self) -> list[Data]:
        """`{name, run_on, at_most_once}` of each."""
        ...

    # --- runs ---------------------------------------------------------------------------------

    async def start(self, name: str, *, idempotency_key: str | None, **fields: Any) -> str:
        """Start a run, with the fields of the HTTP request; gives its id."""
        ...

    async def run(self, run_id: str) -> Data:
        """The run with its input and output."""
        ...

    async def runs(self, *, limit: int, cursor: str | None = None, **narrowed: Any) -> Data:
        """`{runs, next_cursor}`: a page, newest first, without inputs and outputs. `limit` is at most MOST."""
        ...

    async def events(self, run_id: str, *, after: int = 0, limit: int = MOST) -> Data:
        """`{events, next_after}`: a page of the history of the current generation, oldest first."""
        ...

    async def history(self, run_id: str, *, only_open: bool = False) -> Data | None:
        """The history as it is exported, values as they are stored. None: the run has ended, and only an open one was
        wanted. Raises SerializationError for one that cannot be read."""
        ...

    async def wait(self, run_id: str, timeout: float | None) -> Data:
        """The run once it has ended, however it did. Raises TimeoutError after so many seconds."""
        ...

    async def bring(self, run_id: str) -> None:
        """Wait for the run's end; where nobody else may be at work, do the work here."""
        ...

    async def signal(self, run_id: str, name: str, payload: Any) -> None:
        """Send a signal."""
        ...

    async def query(self, run_id: str, name: str, arguments: Sequence[Any]) -> Any:
        """What the run's own code answers."""
        ...

    async def update(self, run_id: str, name: str, payload: Any, update_id: str | None, timeout: float | None) -> Any:
        """What the run's handler gives. Raises TimeoutError after so many seconds."""
        ...

    async def steer(self, verb: Verb, run_id: str, reason: str | None = None) -> None:
        """Cancel, terminate, suspend, resume or retry it; the latter two take no reason."""
        ...

    async def fork(self, run_id: str, at_event: int, input_data: Any) -> str:
        """Start a new run from the first events of this one; gives its id."""
        ...

    async def delete(self, run_id: str) -> None:
        """Forget a run that has ended."""
        ...

    # --- approvals ----------------------------------------------------------------------------

    async def approvals(self, approver: str | None) -> list[Data]:
        """Open approvals, those of the newest runs first."""
        ...

    async def decide(self, run_id: str, key: str | None, **decision: Any) -> str:
        """Approve or reject (`approved`, `by`, `comment`, `data`); gives the key. None: the run's only open one."""
        ...

    # --- schedules ----------------------------------------------------------------------------

    async def declare(self, fields: Mapping[str, Any]) -> str:
        """Make a schedule, with the fields of the HTTP request; gives its id."""
        ...

    async def change(self, schedule_id: str, fields: Mapping[str, Any]) -> None:
        """Change what is given."""
        ...

    async def schedule(self, schedule_id: str) -> Data:
        """One schedule, with its backfills."""
        ...

    async def schedules(self, *, limit: int, after: str | None) -> list[Data]:
        """A page, by id; a damaged one is `{id, problem}`. A page shorter than `limit` is the last."""
        ...

    async def pause(self, schedule_id: str, note: str | None) -> None:
        """Start nothing until it is resumed."""
        ...

    async def resume(self, schedule_id: str) -> None:
        """Go on with the next time from now."""
        ...

    async def forget(self, schedule_id: str) -> None:
        """Forget the schedule; its runs stay."""
        ...

    async def trigger(self, schedule_id: str) -> str:
        """Start a run now; gives its id."""
        ...

    async def backfill(self, schedule_id: str, start: datetime, end: datetime, dry_run: bool, most: int) -> Data:
        """`{backfill_id, times}`: make up for a window, at most so many runs at once."""
        ...

    async def cancel_backfill(self, schedule_id: str, backfill_id: str) -> None:
        """Have it start nothing more."""
        ...


# --- the shape of the data ------------------------------------------------------------------------------


def run_data(view: Mapping[str, Any]) -> Data:
    """A run as the API shows it, without links."""
    return bare(view) | {"open_approvals": [bare(one) for one in view["open_approvals"]]}


def schedule_data(view: Mapping[str, Any]) -> Data:
    """A schedule as the API shows it, without links and without the name of its state."""
    if "workflow" not in view:  # a damaged one
        return bare(view)
    data = bare(view) | {"backfills": [bare(one) for one in view["backfills"]]}
    del data["etag"]
    return data


def bare(view: Mapping[str, Any]) -> Data:
    """The object without its own links."""
    return {name: value for name, value in view.items() if name != LINKS}


def has_ended(run: Data) -> bool:
    """Whether the run's status is final."""
    from ..store import CLOSED_STATUSES

    return run["status"] in CLOSED_STATUSES


def result_of(run: Data) -> Any:
    """What a run that has ended returned. Raises WorkflowFailedError when it did not complete."""
    run_id, status = run["run_id"], run["status"]
    if status == "completed":
        return run["output"]
    if status == "cancelled":
        raise WorkflowCancelledError(f"run {run_id!r} was cancelled", run_id=run_id)
    error = run["error"] or {"type": "Terminated", "message": "terminated by an operator"}
    raise WorkflowFailedError(f"run {run_id!r} {status}: {error['type']}: {error['message']}", run_id=run_id)
