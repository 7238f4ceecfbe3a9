"""Timeline: a run's events as plain data for people, HTTP and the command line."""

from __future__ import annotations

from typing import Any

from .engine.history import Event, event_to_dict
from .serialization import Codec

_ENCODED = ("input", "output", "result", "payload", "data", "details", "form")


def event_view(number: int, event: Event, codec: Codec) -> dict[str, Any]:
    """One event: `event_id` (from 1), `type`, `at` (ISO text), and its fields with values as plain JSON."""
    data = event_to_dict(event)
    view: dict[str, Any] = {"event_id": number, "type": data.pop("kind"), "at": data.pop("at")}
    for name, value in data.items():
        view[name] = codec.plain(value) if name in _ENCODED and isinstance(value, str) else value
    if "error" in view:
        view["error"] = {key: view["error"].get(key) for key in ("type", "message")}
    return view
