"""What a schedule is declared with: its options, checked, and the record that they make, new or changed.

Nothing is stored here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypedDict, TypeVar

from .client import WorkflowClient
from .clock import Duration, fresh_id, seconds
from .cron import Timing, timing_from_dict, timing_to_dict
from .errors import InvalidInputError, SerializationError
from .firing import expecting
from .schedule_store import CatchUp, Overlap, Schedule

LONGEST_JITTER = 86_400.0
LONGEST_WINDOW = 3660 * 86_400.0
MOST_FAILURES = 1000

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+=~-]{0,149}")
"""What a run_id may begin with; an @ and the time follow."""
_ATTRIBUTE_TYPES = (str, int, float, bool)

E = TypeVar("E", bound=StrEnum)


class ScheduleOptions(TypedDict, total=False):
    """How a schedule goes about its times. What is left out is as shown."""

    overlap: str
    """While its last run is open: skip (so it is unless given), queue, cancel_other, allow."""
    catch_up: str
    """Of times that were missed: none, latest (so it is unless given), all."""
    catch_up_window: Duration | None
    """A time that is older when its turn comes gets no run. None: however old it is."""
    jitter: Duration | None
    """Each run is started up to so much later. At most a day."""
    pause_after_failures: int | None
    """It is paused when so many of its runs have failed in a row. None: never."""
    attributes: Mapping[str, Any] | None
    """Given to every run."""


class ScheduleChanges(ScheduleOptions, total=False):
    """What can be changed of a schedule. What is left out stays."""

    timing: Timing
    input_data: Any


def declared(
    client: WorkflowClient,
    workflow: str,
    timing: Timing,
    input_data: Any,
    schedule_id: str | None,
    options: ScheduleOptions,
) -> Schedule:
    """The record of a schedule that expects nothing yet. Raises UnknownWorkflowError, InvalidInputError,
    SerializationError."""
    plain = Schedule(
        id=_schedule_id(workflow, schedule_id),
        workflow=workflow,
        timing=timing_to_dict(timing),
        created_at=client.clock.now(),
        etag="",
        input=_input(client, workflow, input_data),
    )
    return replace(plain, **_checked(options))


def changed(client: WorkflowClient, found: Schedule, changes: ScheduleChanges) -> Schedule:
    """The record with these changes, and whatever follows from them. Raises what `declared` raises."""
    given = dict(changes)
    wanted = replace(found, **_checked({key: value for key, value in given.items() if key in _CHECKS}))
    if "timing" in changes:
        wanted = replace(wanted, timing=timing_to_dict(changes["timing"]))
    if "input_data" in changes:
        wanted = replace(wanted, input=_input(client, found.workflow, changes["input_data"]))
    return merged(client, wanted, found)


def merged(client: WorkflowClient, wanted: Schedule, found: Schedule | None) -> Schedule:
    """The record as it has to be, with the etag that was found: a schedule that is there keeps what it has run, whether
    it is paused, and (unless its timing changes) its next time. Raises InvalidInputError for one that never fires."""
    now = client.clock.now()
    timing = timing_from_dict(wanted.timing)
    if found is None or _rhythm(found.timing) != _rhythm(wanted.timing):
        at = timing.next_after(now)
        if at is None:
            raise InvalidInputError(f"timing: {wanted.timing['at']} has passed")
        if found is None:
            return expecting(wanted, at)
    else:
        wanted, at = replace(wanted, timing=found.timing), found.next_at
    if _is_same_value(client, wanted.input, found.input):
        wanted = replace(wanted, input=found.input)
    wanted = replace(wanted, **{name: getattr(found, name) for name in _KEPT})
    if wanted.pause_after_failures is None:
        wanted = replace(wanted, failures=0, watched=())
    if wanted.paused:
        return expecting(wanted, None)
    if at == found.next_at and wanted.jitter == found.jitter and found.problem is None:
        return replace(wanted, next_at=at, due_at=found.due_at, held_since=found.held_since)
    return expecting(wanted, at)


_KEPT = (
    "created_at", "etag", "paused", "note", "last_at", "last_run_id", "failures", "watched", "backfills",
)  # fmt: skip


def _input(client: WorkflowClient, workflow: str, input_data: Any) -> str:
    return client.codec.encode(client.registry.workflow(workflow).validate(input_data))


def _is_same_value(client: WorkflowClient, one: str, other: str) -> bool:
    try:
        return client.codec.fingerprint(one) == client.codec.fingerprint(other)
    except SerializationError:  # sealed with a key that is not here any more
        return False


# --- options, one by one ----------------------------------------------------------------------------------


def _checked(options: Mapping[str, object]) -> dict[str, Any]:
    unknown = options.keys() - _CHECKS.keys()
    if unknown:
        raise TypeError(f"a schedule has no option {', '.join(sorted(unknown))}; there are {', '.join(_CHECKS)}")
    return {name: _CHECKS[name](value) for name, value in options.items()}


def _schedule_id(workflow: str, given: str | None) -> str:
    if given is None:
        return f"{workflow if ID.fullmatch(workflow) else 'schedule'}_{fresh_id(12)}"
    if not ID.fullmatch(given):
        raise InvalidInputError(
            f"id: {given!r} does not fit; use 1 to 150 letters, digits and . _ : + = ~ -, "
            "beginning with a letter or digit"
        )
    return given


def _choice(kind: type[E], name: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise InvalidInputError(f"{name}: {value!r} is not known; use one of {', '.join(kind)}") from None


def _seconds(name: str, value: Duration, most: float, in_words: str) -> float:
    try:
        found = seconds(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInputError(f"{name}: {error}") from None
    if found > most:
        raise InvalidInputError(f"{name}: {found} s is over the limit of {in_words}")
    return found


def _jitter(value: Duration | None) -> float:
    return 0.0 if value is None else _seconds("jitter", value, LONGEST_JITTER, "a day")


def _window(value: Duration | None) -> float | None:
    return None if value is None else _seconds("catch_up_window", value, LONGEST_WINDOW, "ten years")


def _failures(value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_FAILURES):
        raise InvalidInputError(f"pause_after_failures: {value!r} is not a number from 1 to {MOST_FAILURES}")
    return value


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    for key, value in (attributes or {}).items():
        if not isinstance(key, str) or not isinstance(value, _ATTRIBUTE_TYPES):
            raise InvalidInputError(f"attributes: {key!r} must be text, with a text, number or boolean as its value")
    return dict(attributes or {})


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "overlap": lambda value: _choice(Overlap, "overlap", value),
    "catch_up": lambda value: _choice(CatchUp, "catch_up", value),
    "catch_up_window": _window,
    "jitter": _jitter,
    "pause_after_failures": _failures,
    "attributes": _attributes,
}


def _rhythm(timing: Mapping[str, Any]) -> dict[str, Any]:
    """The timing without the moment at which it was made."""
    return {key: value for key, value in timing.items() if key != "anchor"}
