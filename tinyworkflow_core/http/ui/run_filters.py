"""Run filters: what a list of runs is narrowed by, as it stands in the URL of its page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from ...records import dataclass
from ...store import Run, RunQuery, Status

SPANS: Mapping[str, timedelta] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
"""What can be chosen without typing a moment."""
SIZES = (25, 50, 100, 200)
DEFAULT_SIZE = 50
MAX_ATTRIBUTES = 5
_MAX_TEXT = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFilters:
    """Everything by which the list is narrowed, and where its page begins. Texts are as they were typed."""

    status: Status | None = None
    workflow: str = ""
    id: str = ""
    """A run_id or a workflow_id, or the beginning of one."""
    since: str = ""
    """A key of SPANS."""
    after: str = ""
    before: str = ""
    attributes: tuple[str, ...] = ()
    """KEY=VALUE each."""
    size: int = DEFAULT_SIZE
    cursor: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Name of a field -> what is wrong with it."""

    @classmethod
    def of(cls, given: QueryParams) -> RunFilters:
        """As the URL says. What does not fit is in `errors`."""
        errors: dict[str, str] = {}
        status: Status | None = None
        one = {name: given.get(name, "").strip() for name in ("workflow", "id", "since", "after", "before")}
        attributes = tuple(text for text in (each.strip() for each in given.getlist("attribute")) if text)
        try:
            status = Status(told) if (told := given.get("status", "")) else None
        except ValueError:
            errors["status"] = f"There is no such status; there are {', '.join(Status)}."
        if one["since"] not in ("", *SPANS):
            errors["since"] = f"Choose one of {', '.join(SPANS)}."
            one["since"] = ""
        for name in ("after", "before"):
            try:
                _moment(one[name])
            except ValueError:
                errors[name] = "Write a day and time, such as 2026-01-31T09:30."
        for name in ("workflow", "id"):
            if len(one[name]) > _MAX_TEXT:
                errors[name] = f"This has more than {_MAX_TEXT} characters."
        if len(attributes) > MAX_ATTRIBUTES:
            errors["attribute"] = f"There may be at most {MAX_ATTRIBUTES} attributes."
        elif any(len(each) > _MAX_TEXT or not _pair(each)[0] for each in attributes):
            errors["attribute"] = "Write an attribute as NAME=VALUE."
        size = given.get("size", "")
        return cls(
            **one,
            status=status,
            attributes=attributes,
            size=int(size) if size in map(str, SIZES) else DEFAULT_SIZE,
            cursor=given.get("cursor", ""),
            errors=errors,
        )

    @property
    def narrows(self) -> bool:
        """Whether anything at all is left out."""
        return bool(self.status or self.workflow or self.id or self.attributes or self.has_times)

    @property
    def has_times(self) -> bool:
        """Whether it is narrowed by when runs were started."""
        return bool(self.since or self.after or self.before)

    def wanted(self) -> Mapping[str, Any]:
        """Attributes and their values. A number, true and false stand for themselves; in quotes they are texts."""
        return dict(map(_pair, self.attributes))

    def query(self, now: datetime, *, only: str | None) -> RunQuery:
        """What the store is asked, but for `id`. `only`: the one workflow that somebody reaches."""
        after = _moment(self.after)
        if self.since:
            after = max(now - SPANS[self.since], after) if after else now - SPANS[self.since]
        return RunQuery(
            status=self.status,
            name=self.workflow or only,
            started_after=after,
            started_before=_moment(self.before),
            attributes=self.wanted(),
            limit=self.size,
            cursor=self.cursor or None,
        )

    def link(self, path: str = "/ui/runs", **changes: Any) -> str:
        """The address of the list with these changes; it begins again at the newest unless `cursor` is among them."""
        new = replace(self, **({"cursor": ""} | changes))
        pairs: list[tuple[str, str]] = [
            (name, str(value))
            for name in ("status", "workflow", "id", "since", "after", "before", "cursor")
            if (value := getattr(new, name))
        ]
        pairs += [("attribute", each) for each in new.attributes]
        pairs += [("size", str(new.size))] if new.size != DEFAULT_SIZE else []
        return f"{path}?{urlencode(pairs, errors='replace')}" if pairs else path


def fits(run: Run, query: RunQuery) -> bool:
    """Whether a run that was found by its id is one that the query would find."""
    return (
        (query.status is None or run.status is query.status)
        and (query.name is None or run.name == query.name)
        and (query.started_after is None or run.created_at >= query.started_after)
        and (query.started_before is None or run.created_at < query.started_before)
    )


def has_attributes(shown: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether these are among the attributes as somebody is shown them: nobody finds out by filters what is hidden."""
    return all(name in shown and _same(shown[name], value) for name, value in wanted.items())


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def _pair(text: str) -> tuple[str, str | int | float | bool]:
    """Name and value of an attribute; the name is empty where there is none."""
    name, sign, told = (part.strip() for part in text.partition("="))
    if not sign:
        return "", ""
    try:
        value = json.loads(told, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return name, told
    if isinstance(value, str | bool | float) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return name, value
    return name, told


def _refuse(name: str) -> Sequence[str]:
    raise ValueError(name)
