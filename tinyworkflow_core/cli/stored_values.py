"""Stored values as the command line reads them: whatever their size, with the keys of the environment."""

from __future__ import annotations

import os
import sys
from typing import Any

from ..encryption import EncryptionCodec
from ..serialization import Codec

_PLAIN = Codec(max_bytes=sys.maxsize)


def codec() -> Codec:
    """What reads stored values here, however large."""
    return Codec(EncryptionCodec.from_env(os.environ), max_bytes=sys.maxsize)


def plain(value: Any) -> Any:
    """Any value that can be stored as plain JSON data."""
    return _PLAIN.plain(_PLAIN.encode(value))
