"""Access: who stands behind a key or a verified identity, by the plain keys and the access document.

The document holds no secret that could be used: of a key there is its SHA-256 alone. That is enough for keys of 256
random bits, which `tinyworkflow keys new` makes; a password that people choose could be guessed from it. How it is
written is `access_document.py`'s.

Plain keys (TINYWORKFLOW_API_KEYS) have all scopes but `reveal`, for all workflows. Who is let in is `auth.py`'s.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from ..errors import ConfigurationError
from ..records import dataclass
from .callers import ALL_SCOPES, Caller
from .operations import Scope
from .rate_limit import Rate

VARIABLE = "TINYWORKFLOW_ACCESS"

FAILURES = Rate(per_second=1.0, burst=100)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """What somebody may do, and who it is: whoever brings a key, or was verified."""

    name: str
    scopes: frozenset[Scope]
    workflows: tuple[str, ...] | None = None
    """Names, with * for any characters; None: all."""
    expires: datetime | None = None
    rate: Rate | None = None
    digests: tuple[bytes, ...] = ()
    """The SHA-256 of each of their keys."""
    emails: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """The access document, read. The defaults let nobody in."""

    keys: tuple[Grant, ...] = ()
    identities: tuple[Grant, ...] = ()
    audiences: tuple[str, ...] = ()
    """What a Google identity token that comes as a Bearer must have been made for."""
    iap_audiences: tuple[str, ...] = ()
    """The same for the assertion of Identity-Aware Proxy."""
    rate: Rate | None = None
    """For everybody who has no rate of his own."""
    failures: Rate = FAILURES
    """How many calls without a valid key are answered 401 to one address; the others are answered 429."""
    proxies: int = 0
    """How many proxies in front of the service each add an address to X-Forwarded-For."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What a verified identity token says. `domain` is the Workspace domain (`hd`): no other account can claim it."""

    email: str
    domain: str | None = None


class Access:
    """Finds callers. `document` None: there are plain keys alone. Raises ConfigurationError for an empty plain key."""

    def __init__(self, document: Document | None = None, plain_keys: Iterable[str] = ()) -> None:
        self.document = document or Document()
        keys = list(plain_keys)
        if not all(key.strip() for key in keys):
            raise ConfigurationError("an API key must not be empty; without any key leave TINYWORKFLOW_API_KEYS unset")
        self._keys = [(digest, one) for one in self.document.keys for digest in one.digests]
        for number, key in enumerate(keys, start=1):
            digest = hashlib.sha256(key.encode()).digest()
            self._keys.append((digest, Grant(name=f"api-key-{number}", scopes=ALL_SCOPES, digests=(digest,))))

    @property
    def has_keys(self) -> bool:
        """Whether anybody may be let in by a key."""
        return bool(self._keys)

    @property
    def configured(self) -> bool:
        """Whether anybody at all may be let in by it."""
        return bool(self._keys or self.document.identities)

    def by_key(self, presented: bytes, now: datetime) -> Caller | datetime | None:
        """Who stands behind a key as it was sent; the moment for one that has expired; None for none of ours."""
        return self.by_digest(hashlib.sha256(presented).digest(), now)

    def by_digest(self, digest: bytes, now: datetime) -> Caller | datetime | None:
        """The same by the key's SHA-256, for what a browser keeps in the key's place."""
        # All of them, always: the time that this takes tells nothing about which key came close.
        found = [grant for known, grant in self._keys if hmac.compare_digest(digest, known)]
        if not found:
            return None
        if (expires := found[0].expires) is not None and expires <= now:
            return expires
        return self._caller(found[0], name=found[0].name, kind="key")

    def by_identity(self, identity: Identity, now: datetime) -> Caller | None:
        """Who stands behind an identity. Of several grants the first one counts that names the address, then the first
        that names the domain."""
        email, domain = identity.email.lower(), (identity.domain or "").lower()
        grants = [one for one in self.document.identities if one.expires is None or one.expires > now]
        found = [one for one in grants if email in one.emails] + [one for one in grants if domain in one.domains]
        if not found:
            return None
        kind: Literal["person", "service"] = "service" if email.endswith(".gserviceaccount.com") else "person"
        return self._caller(found[0], name=email, kind=kind, email=email)

    def _caller(
        self, grant: Grant, *, name: str, kind: Literal["key", "person", "service"], email: str | None = None
    ) -> Caller:
        return Caller(
            name=name,
            kind=kind,
            scopes=grant.scopes,
            workflows=grant.workflows,
            email=email,
            rate=grant.rate or self.document.rate,
        )
