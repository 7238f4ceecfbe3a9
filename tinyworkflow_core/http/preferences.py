"""What request headers ask for besides the body: how long to wait, which delivery this is, what the caller has seen."""

from __future__ import annotations

import hashlib
import re

from starlette.requests import Request
from starlette.responses import Response

from .answers import Json
from .bodies import header_of
from .wire import MAX_WAIT_SECONDS

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})(?:$|[,;\s])", re.IGNORECASE)


def preferred_wait(request: Request, *, default: int = 0) -> int:
    """Seconds by `Prefer: wait=N` (RFC 7240), at most MAX_WAIT_SECONDS; the default without, or for nonsense."""
    found = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else default


def message_id(request: Request) -> str | None:
    """What makes this delivery the same as an earlier one."""
    for name in ("idempotency-key", "webhook-id"):
        if (value := header_of(request, name)) is not None:
            return value
    if (event := header_of(request, "ce-id")) is not None:  # an event's id is unique within its source only
        return f"{header_of(request, 'ce-source', most=1000) or ''}#{event}"
    return None


def unless_seen(request: Request, answer: Json) -> Response:
    """The answer with an ETag; a 304 in its place for a caller whose If-None-Match names what it would get."""
    etag = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
    answer.headers["ETag"] = etag
    answer.headers["Cache-Control"] = "private, no-cache"  # it may be kept, but has to be asked for again
    seen = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if etag not in seen:
        return answer
    kept = {name: value for name, value in answer.headers.items() if name not in ("content-length", "content-type")}
    return Response(status_code=304, headers=kept)
