"""Event text: events as the JSON text that a store keeps, made in one go.

It is the text that an encoder makes of `event_to_dict`. But each step is such a text, and the way by a dict, and by an
encoder that is set up anew for each, takes three times as long: so there is one function for each class of events,
made of its fields when the first event of that class is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from ..serialization import json_text
from .history import WRITERS, Event, event_to_dict, history_to_json, kind_of_field

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def history_text(events: Sequence[Event]) -> str:
    """`json_text` of `history_to_json`."""
    text = f"[{','.join([_text_of(event) for event in events])}]"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return json_text(history_to_json(events))
    return text


def _text_of(event: Event) -> str:
    cls = type(event)
    if (write := _written_by.get(cls)) is None:
        write = _written_by[cls] = _writer_of(cls)
    try:
        return write(event)
    except (TypeError, AttributeError):  # a value of another type than its field's: an older release may have stored it
        return json_text(event_to_dict(event))


_written_by: dict[type[Event], Callable[[Any], str]] = {}


def _writer_of(cls: type[Event]) -> Callable[[Any], str]:
    """The function for events of that class, as source: `fields` are ours, nothing of it comes from elsewhere."""
    names: dict[str, Any] = {"_text": json.encoder.encode_basestring, "_number": int.__repr__, "_json": _dumps}
    parts: list[str] = [f"""'{{"kind":"{cls.__name__}"'"""]
    for one in fields(cls):
        value, kind = f"event.{one.name}", kind_of_field(one)
        match kind:
            case "str":
                written = f"_text({value})"
            case "int":
                written = f"(_number({value}) if type({value}) is int else _json({value}))"
            case "bool":
                written = f"('true' if {value} is True else 'false' if {value} is False else _json({value}))"
            case "datetime":
                written = f"""'"' + {value}.isoformat() + '"'"""
            case _:
                names[f"_data_of_{one.name}"] = WRITERS[kind]
                written = f"_json(_data_of_{one.name}({value}))"
        part = f"""',"{one.name}":' + {written}"""
        if one.default is not MISSING:
            names[f"_default_{one.name}"] = one.default
            differs = "is not" if one.default is None else "!="
            part = f"({part} if {value} {differs} _default_{one.name} else '')"
        parts.append(part)
    exec(f"""def write(event):\n return {" + ".join(parts)} + '}}'""", names)
    made: Callable[[Any], str] = names["write"]
    return made
