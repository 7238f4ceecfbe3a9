"""EncryptionCodec: a payload codec that encrypts what is stored. On the library cryptography (extra `encryption`).

AES-256-GCM with a random nonce: it hides and authenticates in one pass, and costs 28 bytes. Fernet, the other choice of
that library, has shorter keys, shows when a value was sealed, and does not say with which key.

The sealed text is `KEY:BASE64`. KEY, the first eight digits of a hash of the key, says which key opens it; BASE64 holds
the 96 random bits of the nonce, then ciphertext and tag.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .clock import fresh_id
from .errors import ConfigurationError, SerializationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE = "TINYWORKFLOW_ENCRYPTION_KEYS"

_KEY_BYTES = 32
_NONCE_BYTES = 12


class EncryptionCodec:
    """Encrypts with the first of its keys and decrypts with any: to change keys, put the new one in front.

    - keys: 32 random bytes each, as text in base64 (`generate_key()` makes one) or raw.
    - Raises ConfigurationError for what is no key, without repeating it, and when cryptography is not installed.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        if isinstance(keys, str | bytes) or not keys:
            raise ConfigurationError("EncryptionCodec takes a list of at least one key; generate_key() makes one")
        raw = [_key(key, f"key {i} of {len(keys)}") for i, key in enumerate(keys, start=1)]
        aesgcm = _aesgcm()
        self._ciphers: dict[str, AESGCM] = {}
        for one in raw:
            self._ciphers.setdefault(_key_id(one), aesgcm(one))
        if len(self._ciphers) < len(set(raw)):
            raise ConfigurationError("two of the encryption keys have the same key id; make another one")
        self._first, self._cipher = next(iter(self._ciphers.items()))

    @classmethod
    def from_env(cls, environ: Mapping[str, str], name: str = VARIABLE) -> EncryptionCodec | None:
        """With the keys in that variable, separated by commas; None when it is not set.

        Raises ConfigurationError naming the variable, also when it is set and empty: to go on without encryption is
        not what was meant.
        """
        if (text := environ.get(name)) is None:
            return None
        keys = [key for part in text.split(",") if (key := part.strip())]
        if not keys:
            raise ConfigurationError(f"{name} is set but holds no key; unset it to store values as they are")
        try:
            return cls(keys)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Eight hexadecimal digits for each key, the one that seals first. They tell nothing of the keys."""
        return tuple(self._ciphers)

    def seal(self, text: str) -> str:
        """The text, encrypted with the first key."""
        nonce = bytes.fromhex(fresh_id(2 * _NONCE_BYTES))
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), None)
        return f"{self._first}:{base64.b64encode(sealed).decode('ascii')}"

    def unseal(self, text: str) -> str:
        """The text that `seal` took. Raises SerializationError naming the key's id when that key is not here, or when
        the text was changed."""
        key_id, _, encoded = text.partition(":")
        if (cipher := self._ciphers.get(key_id)) is None:
            raise SerializationError(
                f"a stored value is sealed with key {key_id[:64]}, which is not among the keys here "
                f"({', '.join(self._ciphers)}): put it back behind them"
            )
        from cryptography.exceptions import InvalidTag

        try:
            sealed = base64.b64decode(encoded)
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None).decode()
        except (ValueError, InvalidTag):  # no base64, too short, or not what was sealed
            raise SerializationError(
                f"a stored value that was sealed with key {key_id} was changed or damaged"
            ) from None

    def __repr__(self) -> str:
        return f"EncryptionCodec(key_ids={list(self._ciphers)})"


def generate_key() -> str:
    """A fresh key, as text: for a secret manager, not for a repository."""
    return base64.urlsafe_b64encode(_aesgcm().generate_key(8 * _KEY_BYTES)).decode("ascii")


def _key(key: Any, which: str) -> bytes:
    if isinstance(key, bytes) and len(key) == _KEY_BYTES:
        return key
    try:
        raw = base64.b64decode(key, altchars=b"-_", validate=True)
    except ValueError:  # raised below without its cause: what it quotes may be the key
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise ConfigurationError(f"{which} is not {_KEY_BYTES} bytes in base64; generate_key() makes such a key")
    return raw


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"tinyworkflow key id" + key).hexdigest()[:8]


def _aesgcm() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigurationError(
            "encryption needs the library cryptography: pip install 'tinyworkflow-core[encryption]'"
        ) from error
    return AESGCM
