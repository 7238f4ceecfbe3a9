"""Codec: Python values to JSON text and back, types kept. Failure: an exception as data.

A value comes back equal and of the same type: JSON's own types, datetime, date, time, timedelta, Decimal,
UUID, bytes, tuple, set, frozenset, Enum members, pydantic models and dataclasses, nested in any way. What is
not JSON is written as `{"$": tag, ...}`; a user's dict that has a "$" key is itself written under a tag, so data
from outside can never pose as one. Private attributes of a pydantic model are not stored: they come back with their
defaults.

Classes are named `module:qualname` and looked up by import on the way back; only dataclasses, pydantic models,
enums and exceptions are accepted, and nothing is ever unpickled or evaluated.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import hashlib
import importlib
import json
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from .errors import ActivityError, ApplicationError, PayloadTooLargeError, SerializationError

MAX_PAYLOAD_BYTES = 900_000
"""One encoded value, in bytes as stored: a Firestore document holds 1 MiB, with room left for the event around it."""

MAX_DEPTH = 8
MAX_MESSAGE_CHARACTERS = 8_000
MAX_TRACEBACK_CHARACTERS = 16_000
MAX_NESTED_CHARACTERS = 2_000
MAX_NESTED_FAILURES = 50
"""Causes and group members of one exception: so many are kept, each with its parts this short. Together they have to
fit into one event."""

_TAG = "$"
_PLAIN = (str, int, bool, type(None))
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_dumps_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


class Codec:
    """Values to JSON text and back. Stateless but for its size limit; safe to share between threads."""

    def __init__(self, *, max_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self.max_bytes = max_bytes

    def encode(self, value: object) -> str:
        """The value as JSON text.

        Raises SerializationError, naming the place inside the value and the reason, for what cannot be stored,
        and PayloadTooLargeError for what is over the limit.
        """
        try:
            tree = value if type(value) in _PLAIN else _to_tree(value, "$")
            text = _dumps(tree)
            size = stored_size(text)
        except UnicodeEncodeError:  # lone surrogates: legal in a str, impossible in UTF-8, fine as an escape
            if _SURROGATE_PAIR.search(text):  # as escapes the two would come back as one character
                raise SerializationError(
                    "a text in the value holds a pair of surrogates, which JSON cannot keep"
                ) from None
            text = _dumps_ascii(tree)
            size = stored_size(text)
        except RecursionError:
            raise SerializationError("the value is nested too deeply, or contains itself") from None
        except ValueError as error:
            raise SerializationError(f"the value cannot be written as JSON: {error}") from None
        if size > self.max_bytes:
            raise PayloadTooLargeError(
                f"the value takes {size} bytes, over the limit of {self.max_bytes}; "
                "store it elsewhere and pass a reference"
            )
        return text

    def decode(self, text: str) -> Any:
        """The value that `encode` was given. Raises SerializationError when its class is gone or was changed."""
        try:
            return _from_tree(json.loads(text))
        except SerializationError:
            raise
        except Exception as error:  # whatever Decimal, ZoneInfo or an enum's own hook say to a damaged value
            raise SerializationError(f"a stored value cannot be read: {error!r}") from error

    def plain(self, text: str) -> Any:
        """The stored value as plain JSON data for people and HTTP: models as objects, dates as ISO text."""
        return _plain(json.loads(text))

    # --- exceptions as data ------------------------------------------------------------------

    def failure(self, error: BaseException) -> Failure:
        """The exception as data: its class, message, arguments (where they can be stored), traceback and causes."""
        return self._failure(error, depth=0, room=[MAX_NESTED_FAILURES])

    def _failure(self, error: BaseException, *, depth: int, room: list[int]) -> Failure:
        told = error if isinstance(error, ActivityError | ApplicationError) else None
        limit = MAX_NESTED_CHARACTERS if depth else MAX_TRACEBACK_CHARACTERS

        def nested(errors: Iterable[BaseException]) -> Iterator[Failure]:
            for one in errors:
                if depth < MAX_DEPTH and room[0] > 0:
                    room[0] -= 1
                    yield self._failure(one, depth=depth + 1, room=room)

        cause = error.__cause__ if error.__cause__ is not None or error.__suppress_context__ else error.__context__
        return Failure(
            type=told.type if told and isinstance(told.type, str) else type(error).__name__,
            message=_shorten(_text(error), MAX_MESSAGE_CHARACTERS),
            cls=f"{type(error).__module__}:{type(error).__qualname__}",
            args=self._small(list(_arguments(error)), limit),
            details=self._small(told.details, limit) if told else None,
            retryable=isinstance(error, ApplicationError) and error.retryable,
            traceback=_shorten("".join(traceback.format_tb(error.__traceback__)), limit),
            cause=next(nested([cause]), None) if cause is not None else None,
            members=tuple(nested(error.exceptions)) if isinstance(error, BaseExceptionGroup) else (),
        )

    def _small(self, value: object, limit: int) -> str | None:
        try:
            text = self.encode(value)
        except SerializationError:
            return None
        return text if len(text) <= limit else None

    def exception(self, failure: Failure) -> Exception:
        """The exception again, of its own type where that is importable and takes its arguments, else ActivityError."""
        error = self._rebuild(failure)
        if failure.cause is not None:
            error.__cause__ = self.exception(failure.cause)
        return error

    def _rebuild(self, failure: Failure) -> Exception:
        details = self._details(failure)
        fallback = ActivityError(failure.message, type=failure.type, details=details)
        try:
            cls = _find(failure.cls)
            if not (isinstance(cls, type) and issubclass(cls, Exception)) or failure.args is None:
                return fallback
            args = self.decode(failure.args)
            if issubclass(cls, ExceptionGroup):
                args = [*args, [self.exception(one) for one in failure.members]]
            error: Any = cls(*args)
            # A constructor that builds its message from its arguments would wrap it a second time.
            if not isinstance(error, Exception) or _shorten(_text(error), MAX_MESSAGE_CHARACTERS) != failure.message:
                return fallback
        except Exception:  # a stranger's constructor may raise anything; the stand-in keeps type and message
            return fallback
        if isinstance(error, ActivityError | ApplicationError):
            error.type, error.details = failure.type, details
        if isinstance(error, ApplicationError):
            error.retryable = failure.retryable
        return error

    def _details(self, failure: Failure) -> Any:
        if failure.details is None:
            return None
        try:
            return self.decode(failure.details)
        except SerializationError:  # its class is gone; the error itself must still arrive
            return self.plain(failure.details)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An exception as data. `type` is its short name, `cls` is `module:qualname`, `args` and `details` are encoded.

    `retryable` is an ApplicationError's own word.
    """

    type: str
    message: str
    cls: str = ""
    args: str | None = None
    details: str | None = None
    retryable: bool = False
    traceback: str = ""
    cause: Failure | None = None
    members: tuple[Failure, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON data, without the fields that are empty."""
        data: dict[str, Any] = {"type": self.type, "message": self.message}
        for name in ("cls", "args", "details", "retryable", "traceback"):
            if value := getattr(self, name):
                data[name] = value
        if self.cause is not None:
            data["cause"] = self.cause.to_dict()
        if self.members:
            data["members"] = [one.to_dict() for one in self.members]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Failure:
        """The reverse of `to_dict`; fields it does not know are ignored."""
        cause = data.get("cause")
        return cls(
            type=data["type"],
            message=data["message"],
            cls=data.get("cls", ""),
            args=data.get("args"),
            details=data.get("details"),
            retryable=data.get("retryable", False),
            traceback=data.get("traceback", ""),
            cause=cls.from_dict(cause) if cause else None,
            members=tuple(cls.from_dict(one) for one in data.get("members", ())),
        )


def digest(text: str) -> str:
    """A short fingerprint of encoded arguments: 16 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def stored_size(text: str) -> int:
    """Bytes of UTF-8 once the text is a string inside a history document, where quotes and backslashes are escaped."""
    return (len(text) if text.isascii() else len(text.encode())) + text.count('"') + text.count("\\")


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return error.message.encode("utf-8", "backslashreplace").decode()
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()  # no store can keep a lone surrogate
    except Exception:
        return f"<{type(error).__name__} whose message cannot be shown>"


def _arguments(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        return (error.message,)
    try:
        made = error.__reduce__()  # knows what `args` leaves out: the file name of an OSError, the position of bad JSON
    except Exception:
        return error.args
    return made[1] if isinstance(made, tuple) and made[0] is type(error) else error.args


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}\n[...]\n{text[-limit // 2 :]}"


# --- writing -----------------------------------------------------------------------------------------


def _to_tree(value: Any, path: str) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {_TAG: "float", "v": str(value)}
    if kind is dict:
        return _dict_tree(value, path)
    if kind is list:
        return [_to_tree(one, f"{path}[{i}]") for i, one in enumerate(value)]
    if writer := _WRITERS.get(kind):
        return writer(value, path)
    return _object_tree(value, path)


def _dict_tree(value: dict[Any, Any], path: str) -> Any:
    if _TAG not in value and all(type(key) is str for key in value):
        return {key: _to_tree(one, f"{path}.{key}") for key, one in value.items()}
    return {_TAG: "dict", "v": [[_to_tree(k, f"{path} key"), _to_tree(v, f"{path}[{k!r}]")] for k, v in value.items()]}


def _items(tag: str, *, unordered: bool = False) -> Callable[[Any, str], Any]:
    def write(value: Any, path: str) -> Any:
        trees = [_to_tree(one, f"{path}[{i}]") for i, one in enumerate(value)]
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
            "v": [_to_tree(v, f"{path}[{i}]") for i, v in enumerate(value)],
        }
    raise SerializationError(
        f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be stored; "
        "use JSON types, datetime, Decimal, UUID, bytes, tuple, set, Enum, a dataclass or a pydantic model"
    )


def _fields(fields: dict[str, Any], path: str) -> dict[str, Any]:
    return {name: _to_tree(value, f"{path}.{name}") for name, value in fields.items()}


def _name(cls: type, path: str) -> str:
    if "<locals>" in cls.__qualname__:
        raise SerializationError(
            f"{path} is a {cls.__qualname__}, a class made inside a function: it could not be found again; "
            "move it to a module"
        )
    name = f"{cls.__module__}:{cls.__qualname__}"
    try:
        found = _find(name)
    except Exception:
        found = None
    if found is not cls:  # Box[int], or a class whose module now has another of that name
        raise SerializationError(f"{path} is a {name}, which could not be found again under that name; give it one")
    return name


# --- reading -----------------------------------------------------------------------------------------


def _from_tree(tree: Any) -> Any:
    kind = type(tree)
    if kind is list:
        return [_from_tree(one) for one in tree]
    if kind is not dict:
        return tree
    tag = tree.get(_TAG)
    if tag is None:
        return {key: _from_tree(one) for key, one in tree.items()}
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
    values = _from_tree_fields(tree["v"])
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
    values = _from_tree_fields(tree["v"])
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
    return tuple.__new__(cls, [_from_tree(one) for one in tree["v"]])


def _from_tree_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _from_tree(value) for name, value in fields.items()}


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "float": lambda t: float(t["v"]),
    "dict": lambda t: {_from_tree(k): _from_tree(v) for k, v in t["v"]},
    "tuple": lambda t: tuple(_from_tree(one) for one in t["v"]),
    "set": lambda t: {_from_tree(one) for one in t["v"]},
    "frozenset": lambda t: frozenset(_from_tree(one) for one in t["v"]),
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
}


def _find(name: str) -> Any:
    module_name, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _class(name: str, accepts: Callable[[Any], bool]) -> Any:
    try:
        cls = _find(name)
    except Exception as error:  # a module may raise anything while it is imported
        raise SerializationError(f"the class {name} of a stored value cannot be imported: {error}") from error
    if not (isinstance(cls, type) and accepts(cls)):
        raise SerializationError(f"{name} is not the kind of class that its stored value was made from")
    return cls


def _plain(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_plain(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    tag = tree.get(_TAG)
    if tag is None:
        return {key: _plain(one) for key, one in tree.items()}
    if tag == "dict":
        return {str(_plain(k)): _plain(v) for k, v in tree["v"]}
    if tag in ("model", "dataclass"):
        return {name: _plain(one) for name, one in tree["v"].items()}
    if tag == "timedelta":
        return timedelta(*tree["v"]).total_seconds()
    return _plain(tree["v"])
