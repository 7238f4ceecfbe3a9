"""Values as JSON data and back, types kept.

What is not JSON is written as `{"$": tag, ...}`; a user's dict that has a "$" key is itself written under a tag, so
data from outside can never pose as one. Classes are named `module:qualname` and looked up by import on the way back;
only dataclasses, pydantic models, enums and named tuples are accepted, and nothing is ever unpickled or evaluated.
Text and sizes are the Codec's.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import importlib
import json
import math
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from .errors import SerializationError
from .sealing import closed, sealed_with

PLAIN = (str, int, bool, type(None))
"""Types that are their own JSON data."""

_TAG = "$"
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


# --- writing -----------------------------------------------------------------------------------------


def to_tree(value: Any, path: str) -> Any:
    """The value as JSON data. Raises SerializationError naming the place (`path` and on) of what cannot be stored."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {_TAG: "float", "v": str(value)}
    if kind is dict:
        return _dict_tree(value, path)
    if kind is list:
        return [one if type(one) in PLAIN else to_tree(one, f"{path}[{i}]") for i, one in enumerate(value)]
    if writer := _WRITERS.get(kind):
        return writer(value, path)
    return _object_tree(value, path)


def _dict_tree(value: dict[Any, Any], path: str) -> Any:
    if _TAG not in value and all(type(key) is str for key in value):
        return {key: one if type(one) in PLAIN else to_tree(one, f"{path}.{key}") for key, one in value.items()}
    return {_TAG: "dict", "v": [[to_tree(k, f"{path} key"), to_tree(v, f"{path}[{k!r}]")] for k, v in value.items()]}


def _items(tag: str, *, unordered: bool = False) -> Callable[[Any, str], Any]:
    def write(value: Any, path: str) -> Any:
        trees = [to_tree(one, f"{path}[{i}]") for i, one in enumerate(value)]
        # A set's own order differs from process to process; its fingerprint must not.
        return {_TAG: tag, "v": sorted(trees, key=_dumps) if unordered else trees}

    return write


def _scalar(tag: str, write: Callable[[Any], Any]) -> Callable[[Any, str], Any]:
    return lambda value, path: {_TAG: tag, "v": write(value)}


_WRITERS: dict[type, Callable[[Any, str], Any]] = {
    tuple: _items("tuple"),
    set: _items("set", unordered=True),
    frozenset: _items("frozenset", unordered=True),
    bytes: _scalar("bytes", lambda v: base64.b64encode(v).decode("ascii")),
    datetime: lambda v, path: {_TAG: "datetime", "v": v.isoformat()} | _zone(v),
    date: _scalar("date", date.isoformat),
    time: lambda v, path: {_TAG: "time", "v": v.isoformat()} | _zone(v),
    timedelta: _scalar("timedelta", lambda v: [v.days, v.seconds, v.microseconds]),
    Decimal: _scalar("decimal", str),
    UUID: _scalar("uuid", str),
}


def _zone(value: datetime | time) -> dict[str, str]:
    key = getattr(value.tzinfo, "key", None)  # zoneinfo: "Europe/Berlin" says more than +01:00
    return {"z": key} if isinstance(key, str) else {}


def _object_tree(value: Any, path: str) -> Any:
    if isinstance(value, enum.Enum):
        tree: dict[str, Any] = {_TAG: "enum", "c": _name(type(value), path), "v": value.name}
        if value.name not in type(value).__members__:  # flags that are set together have no name of their own
            tree["n"] = value.value
        return tree
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)}
        return {_TAG: "dataclass", "c": _name(type(value), path), "v": _fields(fields, path)}
    if hasattr(type(value), "__pydantic_fields__") and not isinstance(value, type):
        # Not all of __dict__: a cached property lies there too once somebody has looked at it.
        own = {name: value.__dict__[name] for name in type(value).__pydantic_fields__ if name in value.__dict__}
        fields = own | (value.__pydantic_extra__ or {})
        tree = {_TAG: "model", "c": _name(type(value), path), "v": _fields(fields, path)}
        if value.model_fields_set != set(fields):
            tree["s"] = sorted(value.model_fields_set)
        return tree
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {
            _TAG: "namedtuple",
            "c": _name(type(value), path),
            "v": [to_tree(v, f"{path}[{i}]") for i, v in enumerate(value)],
        }
    raise SerializationError(
        f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be stored; "
        "use JSON types, datetime, Decimal, UUID, bytes, tuple, set, Enum, a dataclass or a pydantic model"
    )


def _fields(fields: dict[str, Any], path: str) -> dict[str, Any]:
    return {name: to_tree(value, f"{path}.{name}") for name, value in fields.items()}


def _name(cls: type, path: str) -> str:
    if "<locals>" in cls.__qualname__:
        raise SerializationError(
            f"{path} is a {cls.__qualname__}, a class made inside a function: it could not be found again; "
            "move it to a module"
        )
    name = f"{cls.__module__}:{cls.__qualname__}"
    try:
        found = find_named(name)
    except Exception:
        found = None
    if found is not cls:  # Box[int], or a class whose module now has another of that name
        raise SerializationError(f"{path} is a {name}, which could not be found again under that name; give it one")
    return name


# --- reading -----------------------------------------------------------------------------------------


def from_tree(tree: Any) -> Any:
    """The value that JSON data stands for. Raises SerializationError for a class that is gone or not what it was."""
    kind = type(tree)
    if kind is list:
        return [from_tree(one) for one in tree]
    if kind is not dict:
        return tree
    tag = tree.get(_TAG)
    if tag is None:
        return {key: from_tree(one) for key, one in tree.items()}
    reader = _READERS.get(tag)
    if reader is None:
        raise SerializationError(f"a stored value has the type tag {tag!r}, which this version does not know")
    return reader(tree)


def _read_datetime(tree: dict[str, Any]) -> datetime:
    value = datetime.fromisoformat(tree["v"])
    if key := tree.get("z"):
        from zoneinfo import ZoneInfo

        return value.replace(tzinfo=ZoneInfo(key), fold=_fold(value, ZoneInfo(key)))
    return value


def _read_time(tree: dict[str, Any]) -> time:
    value = time.fromisoformat(tree["v"])
    if key := tree.get("z"):
        from zoneinfo import ZoneInfo

        return value.replace(tzinfo=ZoneInfo(key))
    return value


def _fold(value: datetime, zone: Any) -> int:
    first = value.replace(tzinfo=zone, fold=0)
    return 0 if first.utcoffset() == value.utcoffset() else 1


def _read_enum(tree: dict[str, Any]) -> Any:
    cls = _class(tree["c"], lambda cls: issubclass(cls, enum.Enum))
    return cls(tree["n"]) if "n" in tree else cls[tree["v"]]


def _read_dataclass(tree: dict[str, Any]) -> Any:
    cls = _class(tree["c"], dataclasses.is_dataclass)
    values = _values(tree["v"])
    made = object.__new__(cls)  # not cls(...): __post_init__ has already had its say on these values
    for field in dataclasses.fields(cls):
        if field.name in values:
            object.__setattr__(made, field.name, values[field.name])
        elif field.default is not dataclasses.MISSING:
            object.__setattr__(made, field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            object.__setattr__(made, field.name, field.default_factory())
    return made


def _read_model(tree: dict[str, Any]) -> Any:
    from pydantic_core import PydanticUndefined

    cls = _class(tree["c"], lambda cls: hasattr(cls, "__pydantic_fields__"))
    values = _values(tree["v"])
    own = {name: values[name] for name in cls.model_fields if name in values}
    for name, field in cls.model_fields.items():
        if name not in own and not field.is_required():  # added to the class since
            own[name] = field.get_default(call_default_factory=True, validated_data=own)
    extra = {name: value for name, value in values.items() if name not in cls.model_fields}
    private = {name: attribute.get_default() for name, attribute in cls.__private_attributes__.items()}
    defined = {name: value for name, value in private.items() if value is not PydanticUndefined}
    made = cls.__new__(cls)
    # As unpickling does, not by a constructor: validators and hooks have already had their say on these values.
    made.__setstate__(
        {
            "__dict__": own,
            "__pydantic_fields_set__": set(tree.get("s", values)),
            "__pydantic_extra__": extra if cls.model_config.get("extra") == "allow" else None,
            "__pydantic_private__": defined if private else None,
        }
    )
    return made


def _read_namedtuple(tree: dict[str, Any]) -> Any:
    cls = _class(tree["c"], lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"))
    return tuple.__new__(cls, [from_tree(one) for one in tree["v"]])


def _read_sealed(tree: dict[str, Any]) -> Any:
    raise SerializationError(closed(tree.get("v")))


def _values(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: from_tree(value) for name, value in fields.items()}


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "float": lambda t: float(t["v"]),
    "dict": lambda t: {from_tree(k): from_tree(v) for k, v in t["v"]},
    "tuple": lambda t: tuple(from_tree(one) for one in t["v"]),
    "set": lambda t: {from_tree(one) for one in t["v"]},
    "frozenset": lambda t: frozenset(from_tree(one) for one in t["v"]),
    "bytes": lambda t: base64.b64decode(t["v"]),
    "datetime": _read_datetime,
    "date": lambda t: date.fromisoformat(t["v"]),
    "time": _read_time,
    "timedelta": lambda t: timedelta(*t["v"]),
    "decimal": lambda t: Decimal(t["v"]),
    "uuid": lambda t: UUID(t["v"]),
    "enum": _read_enum,
    "dataclass": _read_dataclass,
    "model": _read_model,
    "namedtuple": _read_namedtuple,
    "sealed": _read_sealed,
}


def find_named(name: str) -> Any:
    """What `module:qualname` names, imported where needed. Raises whatever the import does."""
    module_name, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _class(name: str, accepts: Callable[[Any], bool]) -> Any:
    try:
        cls = find_named(name)
    except Exception as error:  # a module may raise anything while it is imported
        raise SerializationError(f"the class {name} of a stored value cannot be imported: {error}") from error
    if not (isinstance(cls, type) and accepts(cls)):
        raise SerializationError(f"{name} is not the kind of class that its stored value was made from")
    return cls


def plain(tree: Any) -> Any:
    """The JSON data without its tags, for people."""
    if isinstance(tree, list):
        return [plain(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    tag = tree.get(_TAG)
    if tag is None:
        return {key: plain(one) for key, one in tree.items()}
    if tag == "dict":
        return {str(plain(k)): plain(v) for k, v in tree["v"]}
    if tag in ("model", "dataclass"):
        return {name: plain(one) for name, one in tree["v"].items()}
    if tag == "timedelta":
        return timedelta(*tree["v"]).total_seconds()
    if tag == "sealed":
        return sealed_with(tree.get("v"))
    return plain(tree["v"])
