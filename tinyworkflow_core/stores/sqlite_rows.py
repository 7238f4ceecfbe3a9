"""SQLite's tables, and our records as rows of them. No connection is used here.

Times are integers, microseconds since the epoch. What is asked for by value has a column of its own; the rest of
a record is JSON in `notes`.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Literal

from ..clock import EPOCH
from ..serialization import Failure, json_text
from ..store import CastVote, Message, MessageKind, OpenApproval, Release, Run, RunQuery, Status, after_prefix

Row = tuple[Any, ...]

MICROSECOND = timedelta(microseconds=1)

_TABLES = (
    """CREATE TABLE runs (
        run_id TEXT NOT NULL PRIMARY KEY,
        workflow_id TEXT NOT NULL,
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        status TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        started_at INTEGER,
        closed_at INTEGER,
        generation INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        wake_at INTEGER,
        due_at INTEGER,
        lease_owner TEXT,
        lease_until INTEGER,
        lease_token TEXT,
        released_by TEXT,
        parent_run_id TEXT,
        retry_count INTEGER NOT NULL,
        request_digest TEXT,
        open_approvals TEXT,
        attributes TEXT NOT NULL,
        notes TEXT NOT NULL,
        input TEXT NOT NULL,
        output TEXT)""",
    # due_at is the one moment at which somebody must look: wake_at, or the end of the oldest message's grace. Whatever
    # writes a lease, a release or a message keeps it right, so that finding what is due is one range of this index.
    "CREATE INDEX runs_due ON runs (due_at, run_id) WHERE due_at IS NOT NULL",
    "CREATE INDEX runs_held ON runs (lease_owner, due_at) WHERE lease_owner IS NOT NULL",
    "CREATE INDEX runs_asking ON runs (created_at, run_id) WHERE open_approvals IS NOT NULL",
    "CREATE INDEX runs_newest ON runs (created_at, run_id)",
    "CREATE INDEX runs_by_status ON runs (status, created_at, run_id)",
    "CREATE INDEX runs_by_name ON runs (name, created_at, run_id)",
    "CREATE INDEX runs_by_workflow_id ON runs (workflow_id, created_at, run_id)",
    """CREATE TABLE history (
        run_id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        token TEXT NOT NULL,
        events TEXT NOT NULL,
        PRIMARY KEY (run_id, generation, sequence)) WITHOUT ROWID""",
    """CREATE TABLE inbox (
        run_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (run_id, message_id)) WITHOUT ROWID""",
    "CREATE TABLE listeners (port INTEGER NOT NULL PRIMARY KEY, pid INTEGER NOT NULL)",
)
_CHILDREN = ("CREATE INDEX runs_by_parent ON runs (parent_run_id, created_at, run_id) WHERE parent_run_id IS NOT NULL",)

SCHEMA: tuple[tuple[str, ...], ...] = (_TABLES, _CHILDREN)
"""Step n makes a file of schema n out of one of schema n - 1; an empty file is of schema 0. A step that has been
released is never changed."""

SCHEMA_NUMBER = len(SCHEMA)
"""`PRAGMA user_version` of the files that this release reads and writes."""

COLUMNS = (
    "run_id, workflow_id, name, version, status, created_at, started_at, closed_at, generation, sequence, wake_at, "
    "lease_owner, lease_until, parent_run_id, retry_count, request_digest, open_approvals, attributes, notes, "
    "input, output"
)

COLUMN = {name: place for place, name in enumerate(COLUMNS.split(", "))}
"""Where in such a row each column stands."""


# --- values ------------------------------------------------------------------------------------------


def microseconds(when: datetime | None) -> Any:
    """A moment as SQLite keeps it."""
    # Whole numbers all the way: a float of seconds would be off by a microsecond in dates that are far away.
    return None if when is None else (when - EPOCH) // MICROSECOND


def _moment(number: int | None) -> Any:
    return None if number is None else EPOCH + number * MICROSECOND


# --- records -----------------------------------------------------------------------------------------


def row_of(run: Run) -> Row:
    """A run as the values of COLUMNS."""
    approvals, notes = notes_of(run)
    return (
        run.run_id, run.workflow_id, run.name, run.version, run.status.value, microseconds(run.created_at),
        microseconds(run.started_at), microseconds(run.closed_at), run.generation, run.sequence,
        microseconds(run.wake_at), run.lease_owner, microseconds(run.lease_until), run.parent_run_id,
        run.retry_count, run.request_digest, approvals, json_text(dict(run.attributes)), notes, run.input, run.output,
    )  # fmt: skip


def run_of(row: Row) -> Run:
    """The reverse of `row_of`."""
    (
        run_id, workflow_id, name, version, status, created_at, started_at, closed_at, generation, sequence,
        wake_at, lease_owner, lease_until, parent_run_id, retry_count, request_digest, approvals, attributes, notes,
        input_text, output,
    ) = row  # fmt: skip
    noted = _NOTHING if notes == _NO_NOTES else json.loads(notes)
    return Run(
        run_id=run_id,
        workflow_id=workflow_id,
        name=name,
        version=version,
        input=input_text,
        created_at=_moment(created_at),
        status=status_of(status),
        output=output,
        error=Failure.from_dict(noted["error"]) if noted["error"] is not None else None,
        started_at=_moment(started_at),
        closed_at=_moment(closed_at),
        parent_run_id=parent_run_id,
        generation=generation,
        sequence=sequence,
        wake_at=_moment(wake_at),
        lease_owner=lease_owner,
        lease_until=_moment(lease_until),
        open_approvals=tuple(_approval_of(one) for one in json.loads(approvals)) if approvals else (),
        custom_status=noted["custom_status"],
        attributes={} if attributes == "{}" else json.loads(attributes),
        retry_count=retry_count,
        problem=noted["problem"],
        request_digest=request_digest,
    )


def status_of(text: str) -> Status:
    """What `Status` gives, sooner. Raises ValueError for a text that is none."""
    return _STATUSES.get(text) or Status(text)


_STATUSES = {one.value: one for one in Status}


def with_columns(row: Row, **columns: Any) -> Row:
    """The row with other values in these columns."""
    values = list(row)
    for name, value in columns.items():
        values[COLUMN[name]] = value
    return tuple(values)


def notes_of(record: Run | Release) -> tuple[str | None, str]:
    """The columns `open_approvals` (NULL when there are none) and `notes`."""
    approvals = [_with_numbers(asdict(one)) for one in record.open_approvals]
    error = None if record.error is None else record.error.to_dict()
    notes = {"error": error, "custom_status": record.custom_status, "problem": record.problem}
    # Most records have none, and each of them is read again and again.
    return json_text(approvals) if approvals else None, _NO_NOTES if notes == _NOTHING else json_text(notes)


_NOTHING = {"error": None, "custom_status": None, "problem": None}
_NO_NOTES = json_text(_NOTHING)


def _approval_of(data: dict[str, Any]) -> OpenApproval:
    # Records that were written before there were votes have neither `escalates_at` nor `votes`.
    moments = {key: _moment(data.get(key)) for key in ("requested_at", "expires_at", "escalates_at")}
    lists = {key: tuple(data.get(key, ())) for key in ("approvers", "escalate_to")}
    votes = tuple(CastVote(**{**one, "at": _moment(one["at"])}) for one in data.get("votes", ()))
    return OpenApproval(**{**data, **moments, **lists, "votes": votes})


def _with_numbers(data: dict[str, Any]) -> dict[str, Any]:
    votes = [_with_numbers(one) for one in data.get("votes", ())]
    told = {key: microseconds(value) if isinstance(value, datetime) else value for key, value in data.items()}
    return told | {"votes": votes} if "votes" in told else told


def letter_of(run_id: str, message: Message) -> Row:
    """A message for a run as a row of the inbox."""
    return (run_id, message.id, microseconds(message.received_at), message.kind.value, json_text(dict(message.body)))


def message_of(row: Row) -> Message:
    """The reverse of `letter_of`, without the run."""
    _, message_id, received_at, kind, body = row
    return Message(id=message_id, kind=MessageKind(kind), received_at=_moment(received_at), body=json.loads(body))


# --- lists -------------------------------------------------------------------------------------------


def list_statement(query: RunQuery) -> tuple[str, Row]:
    """The SELECT that finds one row more than a page holds, and its values. Raises ValueError for a strange cursor."""
    where, values = _where(query)
    return (
        f"SELECT {COLUMNS} FROM runs WHERE {where} ORDER BY created_at DESC, run_id DESC LIMIT ? OFFSET ?",
        (*values, query.limit + 1, query.offset),
    )


def count_statement(query: RunQuery, most: int) -> tuple[str, Row]:
    """The SELECT that counts up to `most`, and its values."""
    where, values = _where(query)
    return f"SELECT count(*) FROM (SELECT 1 FROM runs WHERE {where} LIMIT ?)", (*values, most)


def find_statement(prefix: str, by: Literal["run_id", "workflow_id"], limit: int) -> tuple[str, Row]:
    """The SELECT of the runs whose id of that kind begins like this, and its values."""
    end = after_prefix(prefix)
    order = "run_id" if by == "run_id" else "workflow_id, created_at DESC, run_id DESC"
    below, values = ("", (prefix, limit)) if end is None else (f" AND {by} < ?", (prefix, end, limit))
    return f"SELECT {COLUMNS} FROM runs WHERE {by} >= ?{below} ORDER BY {order} LIMIT ?", values


def _where(query: RunQuery) -> tuple[str, Row]:
    tests: list[tuple[str, Row]] = []
    if query.status is not None:
        tests.append(("status = ?", (query.status.value,)))
    if query.name is not None:
        tests.append(("name = ?", (query.name,)))
    if query.workflow_id is not None:
        tests.append(("workflow_id = ?", (query.workflow_id,)))
    if query.parent_run_id is not None:
        tests.append(("parent_run_id = ?", (query.parent_run_id,)))
    if query.started_after is not None:
        tests.append(("created_at >= ?", (microseconds(query.started_after),)))
    if query.started_before is not None:
        tests.append(("created_at < ?", (microseconds(query.started_before),)))
    if query.open_approvals:
        tests.append(("open_approvals IS NOT NULL", ()))
    if query.cursor is not None:
        tests.append(("(created_at, run_id) < (?, ?)", _position_of(query.cursor)))
    tests += [_attribute_test(name, value) for name, value in query.attributes.items()]
    where = " AND ".join(test for test, _ in tests) or "TRUE"
    return where, tuple(value for _, some in tests for value in some)


def _attribute_test(name: str, value: object) -> tuple[str, Row]:
    if isinstance(value, bool):  # for SQLite true would equal 1
        return "EXISTS (SELECT 1 FROM json_each(attributes) WHERE key = ? AND type = ?)", (name, str(value).lower())
    types = "('text')" if isinstance(value, str) else "('integer', 'real')"
    test = f"EXISTS (SELECT 1 FROM json_each(attributes) WHERE key = ? AND type IN {types} AND atom = ?)"
    return test, (name, value)


def cursor_after(run: Run) -> str:
    """Where the page after this run begins."""
    return base64.urlsafe_b64encode(json_text([microseconds(run.created_at), run.run_id]).encode()).decode()


def _position_of(cursor: str) -> tuple[int, str]:
    try:
        created_at, run_id = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        created_at = run_id = None
    if type(created_at) is not int or type(run_id) is not str:
        raise ValueError(f"not a cursor of this list: {cursor!r}")
    return created_at, run_id
