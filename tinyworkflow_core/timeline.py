"""Timeline: a run's events as plain data for people, HTTP and the command line."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from .engine.history import Event, event_to_dict
from .serialization import Codec, Failure

_ENCODED = ("input", "output", "result", "payload", "data", "details", "form", "heartbeat")
_WORDS = ("title", "comment", "reason")


class WorkflowEvent(dict[str, Any]):
    """One event as plain data. `event_type`, `event_data` and `timestamp` are what the 0.1 library called its parts."""

    @property
    def event_type(self) -> str:
        """The type in words, such as "activity_completed"."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", str(self["type"])).lower()

    @property
    def event_data(self) -> dict[str, Any]:
        """What the event says, without its number, type and time."""
        return {name: value for name, value in self.items() if name not in ("event_id", "type", "at")}

    @property
    def timestamp(self) -> datetime:
        """When it was recorded."""
        return datetime.fromisoformat(self["at"])


def event_view(number: int, event: Event, codec: Codec) -> WorkflowEvent:
    """One event: `event_id` (from 1), `type`, `at` (ISO text), and its fields with values as plain JSON."""
    data = event_to_dict(event)
    view = WorkflowEvent(event_id=number, type=data.pop("kind"), at=data.pop("at"))
    for name, value in data.items():
        if not isinstance(value, str):
            view[name] = value
        elif name in _ENCODED:
            view[name] = codec.plain(value)
        else:
            view[name] = codec.plain_text(value) if name in _WORDS else value
    if "error" in view:
        error = codec.opened(Failure.from_dict(view["error"]))
        view["error"] = {"type": error.type, "message": error.message}
    return view
