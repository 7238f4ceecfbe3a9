"""Codec: Python values to JSON text and back, types kept. Failure: an exception as data.

A value comes back equal and of the same type: JSON's own types, datetime, date, time, timedelta, Decimal,
UUID, bytes, tuple, set, frozenset, Enum members, pydantic models and dataclasses, nested in any way (values.py says
how). Private attributes of a pydantic model are not stored: they come back with their defaults. An exception comes
back as itself where its class can be imported and takes its arguments.

With a payload codec (encryption, say) what is stored of a value, of an exception and of people's words is sealed
(sealing.py says in which form); without one the stored text is the JSON text itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from . import sealing
from .errors import ActivityError, ApplicationError, PayloadTooLargeError, SerializationError
from .sealing import PayloadCodec, Sealing
from .values import PLAIN, find_named, from_tree, plain, to_tree

MAX_PAYLOAD_BYTES = 900_000
"""One encoded value, in bytes as stored: a Firestore document holds 1 MiB, with room left for the event around it."""

MAX_DEPTH = 8
MAX_MESSAGE_CHARACTERS = 8_000
MAX_TRACEBACK_CHARACTERS = 16_000
MAX_NESTED_CHARACTERS = 2_000
MAX_NESTED_FAILURES = 50
"""Causes and group members of one exception: so many are kept, each with its parts this short. Together they have to
fit into one event."""

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_SURROGATE_PAIR = "[\ud800-\udbff][\udc00-\udfff]"
_dumps_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def json_text(data: Any) -> str:
    """JSON data as compact text that UTF-8 can hold."""
    text = _plain_dumps(data)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, say from a file name in an error's message
            return _plain_dumps_ascii(data)
    return text


_plain_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_plain_dumps_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode

_SHORT = 1000
_SCALARS: dict[type, Callable[[Any], str]] = {
    int: int.__repr__,
    str: json.encoder.encode_basestring,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "null",
}
_read = json.JSONDecoder().raw_decode


def _loads(text: str) -> Any:
    """json.loads without what it does around the reading, which takes longer than to read a small value."""
    try:
        value, end = _read(text)
    except ValueError:
        end = -1
    return value if end == len(text) else json.loads(text)


class Codec:
    """Values to stored text and back. Stateless but for its settings; safe to share between threads.

    - payload_codec: what seals the text before it is stored and opens it again. What was stored without one can still
      be read with one.
    - max_bytes: of one value as it is stored, sealed or not.
    - `decode`, `exception` and `unseal_text` are for code: they raise SerializationError for what is sealed and cannot
      be opened here. `plain`, `opened` and `plain_text` are for people: they say "sealed with key ..." in its place.
    """

    def __init__(self, payload_codec: PayloadCodec | None = None, *, max_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self.max_bytes = max_bytes
        self._sealing = None if payload_codec is None else Sealing(payload_codec)

    def encode(self, value: object) -> str:
        """The value as the text that is stored: JSON, sealed where there is a payload codec.

        Raises SerializationError, naming the place inside the value and the reason, for what cannot be stored,
        and PayloadTooLargeError for what is over the limit.
        """
        if self._sealing is None and type(value) in _SCALARS and self.max_bytes >= _SHORT:
            try:  # the same text sooner, for what many steps give
                text = _SCALARS[type(value)](value)
            except ValueError as error:  # an int of more digits than Python writes
                raise SerializationError(f"the value cannot be written as JSON: {error}") from None
            if len(text) < _SHORT and text.isascii():
                return text
        try:
            tree = value if type(value) in PLAIN else to_tree(value, "$")
            text = _dumps(tree)
            size = stored_size(text)
        except UnicodeEncodeError:  # lone surrogates: legal in a str, impossible in UTF-8, fine as an escape
            if re.search(_SURROGATE_PAIR, text):  # as escapes the two would come back as one character
                raise SerializationError(
                    "a text in the value holds a pair of surrogates, which JSON cannot keep"
                ) from None
            text = _dumps_ascii(tree)
            size = stored_size(text)
        except RecursionError:
            raise SerializationError("the value is nested too deeply, or contains itself") from None
        except ValueError as error:
            raise SerializationError(f"the value cannot be written as JSON: {error}") from None
        if self._sealing is not None:
            text = self._sealing.seal_value(text)
            size = stored_size(text)
        if size > self.max_bytes:
            raise PayloadTooLargeError(
                f"the value takes {size} bytes, over the limit of {self.max_bytes}; "
                "store it elsewhere and pass a reference"
            )
        return text

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The arguments of a call as one value, `[args]` or `[args, kwargs]`; see `encode`."""
        if not kwargs and self._sealing is None and self.max_bytes >= 2 * _SHORT:
            # The same text sooner, for what most calls are given: a replay does this for every step.
            parts: list[str] = []
            try:
                for one in args:
                    parts.append(_SCALARS[type(one)](one))
            except (KeyError, ValueError):  # another type, or an int of more digits than Python writes
                return self.encode([list(args)])
            text = f"[[{','.join(parts)}]]"
            if len(text) < _SHORT and text.isascii():
                return text
        return self.encode([list(args), kwargs] if kwargs else [list(args)])

    def decode(self, text: str) -> Any:
        """The value that `encode` was given.

        Raises SerializationError when its class is gone or was changed, or when it is sealed and cannot be opened.
        """
        try:
            tree = _loads(text if self._sealing is None else self._sealing.unseal_value(text))
            return tree if type(tree) in PLAIN else from_tree(tree)
        except SerializationError:
            raise
        except Exception as error:  # whatever Decimal, ZoneInfo or an enum's own hook say to a damaged value
            # The message is stored with a run that is parked for it: what is sealed must not stand in it.
            said = repr(error) if self._sealing is None else type(error).__name__
            raise SerializationError(f"a stored value cannot be read: {said}") from error

    def plain(self, text: str) -> Any:
        """The stored value as plain JSON data for people and HTTP: models as objects, dates as ISO text."""
        try:
            return plain(json.loads(self.plaintext(text)))
        except SerializationError:
            return plain(json.loads(text))

    def plaintext(self, text: str) -> str:
        """The JSON text of a stored value. Raises SerializationError for what the payload codec cannot open."""
        return text if self._sealing is None else self._sealing.unseal_value(text)

    def fingerprint(self, text: str) -> str:
        """`digest` of the JSON text of a stored value: the same for equal values, however often they were sealed."""
        return digest(text if self._sealing is None else self._sealing.unseal_value(text))

    # --- words of people ---------------------------------------------------------------------

    def seal_text(self, text: str | None) -> str | None:
        """Free text (a comment, a title, a reason) as it is stored; without a payload codec as it is."""
        return None if text is None else sealing.seal_text(text, self._sealing)

    def unseal_text(self, text: str | None) -> str | None:
        """What `seal_text` was given. Raises SerializationError for what is sealed and cannot be opened here."""
        return None if text is None else sealing.unseal_text(text, self._sealing)

    def plain_text(self, text: str | None) -> str | None:
        """The same for people: what cannot be opened here says so."""
        try:
            return self.unseal_text(text)
        except SerializationError:
            return sealing.sealed_with((text or "").partition(":")[2])

    # --- exceptions as data ------------------------------------------------------------------

    def failure(self, error: BaseException) -> Failure:
        """The exception as data: its class, message, arguments (where they can be stored), traceback and causes.

        With a payload codec all of it but its short name and an ApplicationError's word on retries is sealed.
        """
        if self._sealing is not None:
            return self._sealed(Codec(max_bytes=self.max_bytes).failure(error), self._sealing)
        return self._failure(error, depth=0, room=[MAX_NESTED_FAILURES])

    def _sealed(self, failure: Failure, by: Sealing) -> Failure:
        sealed = by.seal(failure.to_dict())
        if len(sealed) > self.max_bytes:  # sealed text is longer, and it has to fit into one event all the same
            sealed = by.seal(dataclasses.replace(failure, cause=None, members=()).to_dict())
        return Failure(
            type=failure.type, message=sealing.sealed_with(sealed), retryable=failure.retryable, sealed=sealed
        )

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
        """The exception again, of its own type where that is importable and takes its arguments, else ActivityError.

        Raises SerializationError for one that is sealed and cannot be opened here.
        """
        failure = self._open(failure)
        error = self._rebuild(failure)
        if failure.cause is not None:
            error.__cause__ = self.exception(failure.cause)
        return error

    def opened(self, failure: Failure) -> Failure:
        """The failure for people: with its own message, cause and traceback where it can be opened here."""
        try:
            return self._open(failure)
        except SerializationError:
            return failure

    def _open(self, failure: Failure) -> Failure:
        if failure.sealed is None:
            return failure
        if self._sealing is None:
            raise SerializationError(sealing.closed(failure.sealed))
        return Failure.from_dict(self._sealing.unseal(failure.sealed))

    def _rebuild(self, failure: Failure) -> Exception:
        details = self._details(failure)
        fallback = ActivityError(failure.message, type=failure.type, details=details)
        try:
            cls = find_named(failure.cls)
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

    `retryable` is an ApplicationError's own word. `sealed` holds, in place of all but `type` and `retryable`, the whole
    failure as the payload codec wrote it; Codec.opened reads it.
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
    sealed: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON data, without the fields that are empty."""
        data: dict[str, Any] = {"type": self.type, "message": self.message}
        for name in ("cls", "args", "details", "retryable", "traceback", "sealed"):
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
            sealed=data.get("sealed"),
        )


def digest(text: str) -> str:
    """A short fingerprint of text: 16 hexadecimal digits of BLAKE2b. For stored values see Codec.fingerprint."""
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
