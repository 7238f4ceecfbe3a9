"""Sealing: what stands in the store in place of what people and workflows said, when a PayloadCodec is in use.

Here is the stored form alone, by which what is sealed is told from what was written without a payload codec: a value is
JSON text, `{"$":"sealed","v":"KEY:..."}`, free text begins with `$sealed:`. How the content is turned is the payload
codec's business (encryption.py is one), what is sealed and when is serialization.py's.
"""

from __future__ import annotations

import json
import re
from typing import Any, Protocol

from .errors import SerializationError


class PayloadCodec(Protocol):
    """Turns text into other text before it is stored, and back. Safe to share between threads.

    - Both are called on the event loop, for every value: no input or output, nothing slow.
    - `seal` takes any text that can be written as UTF-8 and gives text that does not mind being stored as JSON. It
      should begin with `KEY:`, KEY being up to 64 letters, digits, `_` or `-` that say what opens it: a reader that
      cannot is told KEY.
    - `unseal` gives the text that `seal` took, and raises SerializationError for what it cannot open. The message ends
      up in the store and in logs: it names no content. A run that meets it is parked, and goes on once it can be read.
    """

    def seal(self, text: str) -> str: ...

    def unseal(self, text: str) -> str: ...


_VALUE = '{"$":"sealed","v":'
_TEXT = "$sealed:"
_UNSEALED_TEXT = "$text:"
"""Stands before free text that was stored unsealed and looks like one of these two marks."""
_KEY = re.compile(r"([0-9A-Za-z_-]{1,64}):")
_dumps = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class Sealing:
    """One payload codec, and the stored forms of what it seals."""

    def __init__(self, payload_codec: PayloadCodec) -> None:
        self._codec = payload_codec

    def seal(self, data: Any) -> str:
        """JSON data, sealed; in ASCII before that, so that a lone surrogate is no trouble to any payload codec."""
        return self._seal(_dumps(data))

    def unseal(self, sealed: str) -> Any:
        """What `seal` was given. Raises SerializationError, also for whatever else the payload codec raises."""
        text = self._unseal(sealed)
        try:
            return json.loads(text)
        except ValueError:
            raise SerializationError(f"what was {sealed_with(sealed)} was opened, but is damaged") from None

    def seal_value(self, text: str) -> str:
        """JSON text as it is stored."""
        return f"{_VALUE}{_dumps(self._seal(text))}}}"

    def unseal_value(self, text: str) -> str:
        """The JSON text; what was stored without a payload codec is that already."""
        if not text.startswith(_VALUE):
            return text
        try:
            sealed = json.loads(text)["v"]
        except ValueError as error:
            raise SerializationError("a stored value that is sealed is damaged") from error
        return self._unseal(sealed)

    def _seal(self, text: str) -> str:
        try:
            return self._codec.seal(text)
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"the value cannot be sealed: {type(error).__name__}") from error

    def _unseal(self, sealed: str) -> str:
        try:
            return self._codec.unseal(sealed)
        except SerializationError:
            raise
        except Exception as error:  # a stranger's codec may raise anything; the run waits until it can be read
            raise SerializationError(
                f"what was {sealed_with(sealed)} cannot be opened: {type(error).__name__}"
            ) from error


def seal_text(text: str, sealing: Sealing | None) -> str:
    """Free text as it is stored: itself without a payload codec, marked where it could be taken for sealed text."""
    if sealing is not None:
        return f"{_TEXT}{sealing.seal(text)}"
    return f"{_UNSEALED_TEXT}{text}" if text.startswith((_TEXT, _UNSEALED_TEXT)) else text


def unseal_text(text: str, sealing: Sealing | None) -> str:
    """The reverse of `seal_text`. Raises SerializationError for what is sealed and cannot be opened here."""
    if text.startswith(_UNSEALED_TEXT):
        return text.removeprefix(_UNSEALED_TEXT)
    if not text.startswith(_TEXT):
        return text
    sealed = text.removeprefix(_TEXT)
    if sealing is None:
        raise SerializationError(closed(sealed))
    return str(sealing.unseal(sealed))


def sealed_with(sealed: object) -> str:
    """For people who cannot open it: `sealed with key 1a2b3c4d`."""
    key = _KEY.match(sealed) if isinstance(sealed, str) else None
    return f"sealed with key {key[1]}" if key else "sealed"


def closed(sealed: object) -> str:
    """The error's message where there is no payload codec at all."""
    return (
        f"a stored value is {sealed_with(sealed)}, and this process has no payload codec to open it: "
        "give its Codec the one that wrote it"
    )
