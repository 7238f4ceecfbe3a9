"""The shape of what the Firestore store keeps: ids, fields, sizes, cursors. Pure: no client, no network.

    {prefix}_runs/{run}                                  the record; also the opening events, and the closing ones
    {prefix}_runs/{run}/{prefix}_history/{position}      one commit each, in between, and copies of earlier ones
    {prefix}_runs/{run}/{prefix}_inbox/{message}         one message each
    {prefix}_runs/{run}/{prefix}_result/result           output and error, when they do not fit into the record

Events, bodies and errors are JSON text. What a query filters or orders by is a field of its own; moments are native
timestamps, exact to the microsecond.

Indexes that production needs (the emulator asks for none):

    runs     wake_at                                     made by itself          due
    runs     created_at                                  made by itself          list
    runs     FIELD ascending, created_at descending      composite, one each     list by status, name, workflow_id,
             (Firestore merges them)                                             parent_run_id, waits_for_approval,
                                                                                 attributes.`=KEY`
    inbox    received_at, collection group scope         single-field override   due
    history  position                                    made by itself          load, take-over, next generation
    Exempt from indexing: input, output, error, problem, custom_status, opening, closing, events, copied, body,
    open_approvals, attributes_json. An index on a rising moment carries about 500 writes a second.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from ..clock import EPOCH
from ..engine.event_text import history_text
from ..engine.history import Event, history_from_json, history_to_json
from ..errors import PayloadTooLargeError
from ..serialization import Failure, json_text
from ..store import CastVote, Commit, Lease, Message, MessageKind, OpenApproval, Release, Run, Status
from .firestore_blocks import Block

MAX_EVENT_BYTES = 1_000_000
"""The events of one commit as JSON: a document holds 1 MiB, with room left for its other fields."""

MAX_DOCUMENT_BYTES = 1_040_000
"""One document as `size_of` counts it."""

MAX_COMMIT_BYTES = 4_000_000
"""One request: 4 MiB in the emulator, 10 MiB in production. Over it the client tries in vain for a minute."""

_SAME = (
    "run_id", "workflow_id", "name", "version", "input", "output", "parent_run_id", "generation", "sequence",
    "lease_owner", "retry_count", "request_digest",
)  # fmt: skip
_TEXTS = ("custom_status", "problem")
"""Kept as JSON: they may hold a lone surrogate, say from a file name in an error's message, and UTF-8 cannot."""
_MOMENTS = ("created_at", "started_at", "closed_at", "wake_at", "lease_until")

# --- ids ------------------------------------------------------------------------------------------------

LAST_CHARACTER = "\U0010fffd"
"""Comes after all others in the order of the ids: a document id may not hold every character that could end a range."""

_FORBIDDEN = re.compile("[%/\x00-\x1f\x7f\ud800-\udfff]")


def document_id(text: str) -> str:
    """A document id for any text, the same text where Firestore takes it. The text itself is kept in a field."""
    quoted = _FORBIDDEN.sub(_percent, text)
    if quoted in ("", ".", ".."):
        return "%" + quoted  # cannot be anything else's: a real escape has two hexadecimal digits
    if quoted.startswith("__") and quoted.endswith("__"):
        quoted = "%5F" + quoted[1:]
    if len(quoted.encode()) > 1000:  # the limit is 1,500
        return "%h" + hashlib.sha256(quoted.encode()).hexdigest()
    return quoted


def document_prefix(text: str) -> str:
    """What the document ids of texts begin with that begin with `text`, but for those that are kept as something else
    altogether."""
    return _FORBIDDEN.sub(_percent, text)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def position(generation: int, sequence: int) -> str:
    """The id of a history document: sorts as text in the order in which the commits were made."""
    return f"{generation:08d}-{sequence:08d}"


# --- JSON and sizes -------------------------------------------------------------------------------------


def events_text(events: Sequence[Event]) -> str:
    """The events of one history document. Raises PayloadTooLargeError over MAX_EVENT_BYTES."""
    text = history_text(events)
    if (size := len(text.encode())) > MAX_EVENT_BYTES:
        raise PayloadTooLargeError(
            f"the events of one commit take {size} bytes, over the limit of {MAX_EVENT_BYTES}; "
            "store large values elsewhere and pass a reference"
        )
    return text


def events_of(text: str) -> list[Event]:
    """The reverse of `events_text`."""
    return history_from_json(json.loads(text))


def size_of(value: Any) -> int:
    """Bytes that a document (or a value in it) takes, not less than Firestore counts."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) + 1
    if isinstance(value, Mapping):
        return 128 + sum(size_of(key) + size_of(one) for key, one in value.items())
    return 8


# --- the record -----------------------------------------------------------------------------------------


def record_fields(run: Run) -> dict[str, Any]:
    """The whole record of a run as Firestore fields."""
    data: dict[str, Any] = {name: getattr(run, name) for name in (*_SAME, *_MOMENTS)}
    return data | {
        "status": run.status.value,
        **{name: _json_or_none(getattr(run, name)) for name in _TEXTS},
        "error": _error_text(run.error),
        **_approval_fields(run.open_approvals),
        "attributes_json": json_text(dict(run.attributes)),
        "attributes": {attribute_key(key): one for key, one in run.attributes.items() if _can_be_filtered(one)},
        "result_apart": False,
    }


def release_fields(release: Release, *, lets_go: bool) -> dict[str, Any]:
    """What a release changes. A run that has ended is never due; one that is kept is due at its lease's end."""
    data: dict[str, Any] = {
        "status": release.status.value,
        "output": release.output,
        "error": _error_text(release.error),
        "closed_at": release.closed_at,
        **_approval_fields(release.open_approvals),
        **{name: _json_or_none(getattr(release, name)) for name in _TEXTS},
        "retry_count": release.retry_count,
    }
    if lets_go:
        data |= dict.fromkeys(("lease_owner", "lease_until", "lease_token"))
        data["wake_at"] = None if release.status.closed else release.wake_at
    return data


def run_of(data: Mapping[str, Any]) -> Run:
    """The reverse of `record_fields`."""
    values: dict[str, Any] = {name: data.get(name) for name in _SAME}
    values |= {name: moment_of(data.get(name)) for name in _MOMENTS}
    values |= {name: _value_or_none(data.get(name)) for name in _TEXTS}
    error = _value_or_none(data.get("error"))
    return Run(
        **values,
        status=Status(data["status"]),
        error=None if error is None else Failure.from_dict(error),
        open_approvals=tuple(_approval(one) for one in json.loads(data["open_approvals"])),
        attributes=json.loads(data["attributes_json"]),
    )


def moment_of(value: Any) -> Any:
    """A stored timestamp (the client's own subclass, with nanoseconds) as a plain UTC datetime."""
    return None if value is None else EPOCH + (value - EPOCH)


def attribute_key(key: str) -> str:
    """The field for an attribute: Firestore refuses an empty name and `__name__`, so none is used bare."""
    return "=" + key


def _can_be_filtered(value: Any) -> bool:
    return isinstance(value, str | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _error_text(error: Failure | None) -> str | None:
    return None if error is None else json_text(error.to_dict())


def _json_or_none(value: Any) -> str | None:
    return None if value is None else json_text(value)


def _value_or_none(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _approval_fields(approvals: Sequence[OpenApproval]) -> dict[str, Any]:
    rows = [asdict(one) for one in approvals]
    for row in rows:
        for holder in (row, *row["votes"]):
            holder.update({name: one.isoformat() for name, one in holder.items() if isinstance(one, datetime)})
    return {"open_approvals": json_text(rows), "waits_for_approval": bool(rows)}


def _approval(row: dict[str, Any]) -> OpenApproval:
    # Records that were written before there were votes have neither `escalates_at` nor `votes`.
    for name in ("requested_at", "expires_at", "escalates_at"):
        row[name] = None if row.get(name) is None else datetime.fromisoformat(row[name])
    row["approvers"], row["escalate_to"] = tuple(row["approvers"]), tuple(row.get("escalate_to", ()))
    votes = [{**one, "at": datetime.fromisoformat(one["at"])} for one in row.get("votes", ())]
    return OpenApproval(**{**row, "votes": tuple(CastVote(**one) for one in votes)})


# --- history and inbox ----------------------------------------------------------------------------------


def history_fields(generation: int, block: Block, key: str) -> dict[str, Any]:
    """One history document. `key` says which commit wrote it. Its own events have a field of their own: it is all that
    older releases write, and all that they read."""
    data = {"position": position(generation, block.last), "sequence": block.last, "events": block.own, "key": key}
    return data if block.copied is None else data | {"first": block.first, "copied": block.copied}


def block_of(data: Mapping[str, Any]) -> Block:
    """The reverse of `history_fields`."""
    sequence = data["sequence"]
    return Block(first=data.get("first", sequence), last=sequence, copied=data.get("copied"), own=data["events"])


def is_fence(data: Mapping[str, Any]) -> bool:
    """Whether this history document was written by taking the run from a silent holder: its key is the bare token of
    a lease, without the colon that every commit's key has, and it is no opening."""
    return data["sequence"] > 0 and ":" not in data["key"]


def message_fields(run_id: str, message: Message, attempt: str) -> dict[str, Any]:
    """One inbox document. `attempt` says which call wrote it."""
    return {
        "run_id": run_id,
        "id": message.id,
        "kind": message.kind.value,
        "received_at": message.received_at,
        "body": json_text(dict(message.body)),
        "attempt": attempt,
    }


def message_of(data: Mapping[str, Any]) -> Message:
    """The reverse of `message_fields`."""
    return Message(
        id=data["id"],
        kind=MessageKind(data["kind"]),
        received_at=moment_of(data["received_at"]),
        body=json.loads(data["body"]),
    )


def commit_key(lease: Lease, commit: Commit, events: str) -> str:
    """Names this commit by this taking of the lease: an equal commit has the same key, any other has another."""
    release = commit.release
    parts = (
        commit.sequence if commit.events else None,
        events,
        commit.consumed,
        None if release is None else asdict(replace(release, next_generation=())),
        () if release is None else history_to_json(release.next_generation),
        [(run_id, message_fields(run_id, message, "")) for run_id, message in commit.outbox],
        [(record_fields(new.run), history_to_json(new.events)) for new in commit.new_runs],
    )
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"{lease.token}:{hashlib.sha256(text.encode()).hexdigest()}"


# --- cursors --------------------------------------------------------------------------------------------


def cursor_after(run: Run) -> str:
    """Where the page that ends with this run stops."""
    text = json_text([run.created_at.astimezone(UTC).isoformat(), run.run_id])
    return base64.urlsafe_b64encode(text.encode()).decode()


def cursor_of(text: str) -> tuple[datetime, str]:
    """(created_at, run_id) of the last run before the page. Raises ValueError when the cursor is none of ours."""
    try:
        created_at, run_id = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
        moment = datetime.fromisoformat(created_at)
        if moment.tzinfo is None or not isinstance(run_id, str):
            raise ValueError(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"not a cursor of this store: {text!r}") from error
    return moment, run_id
