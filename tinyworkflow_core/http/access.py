"""Access: the document that says who may call, and who stands behind a key or a verified identity by it.

The document is JSON in TINYWORKFLOW_ACCESS, or in the file that it names (a secret that is mounted, say). It holds no
secret that could be used: of a key there is its SHA-256 alone. That is enough for keys of 256 random bits, which
`tinyworkflow keys new` makes; a password that people choose could be guessed from it.

Plain keys (TINYWORKFLOW_API_KEYS) have all scopes but `reveal`, for all workflows. Who is let in is `auth.py`'s.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ..errors import ConfigurationError
from ..records import dataclass
from .callers import ALL_SCOPES, Caller
from .operations import Scope
from .rate_limit import Rate

VARIABLE = "TINYWORKFLOW_ACCESS"

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_Name = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", to_lower=True)]
_Domain = Annotated[str, StringConstraints(pattern=r"^[^@\s*]+\.[^@\s*]+$", to_lower=True)]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_ScopeName = Literal["start", "signal", "read", "approve", "operate", "platform", "reveal", "all"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True)


class RateRecord(_Record):
    """Calls a second, and at once."""

    per_second: Annotated[float, Field(gt=0, le=100_000)]
    burst: Annotated[int, Field(ge=1, le=1_000_000)]

    def rate(self) -> Rate:
        """As the rate limit takes it."""
        return Rate(per_second=self.per_second, burst=self.burst)


class Grant(_Record):
    """What somebody may do."""

    name: _Name
    scopes: Annotated[list[_ScopeName], Field(min_length=1)]
    workflows: Annotated[list[_Text], Field(min_length=1)] | None = None
    """Names, with * for any characters; left out: all."""
    expires: AwareDatetime | None = None
    rate: RateRecord | None = None

    @property
    def granted(self) -> frozenset[Scope]:
        """The scopes, `all` spelled out: without `platform` for a grant of some workflows."""
        named = {Scope(one) for one in self.scopes if one != "all"}
        if "all" in self.scopes:
            named |= ALL_SCOPES if self.workflows is None else ALL_SCOPES - {Scope.PLATFORM}
        return frozenset(named)

    @model_validator(mode="after")
    def _platform_reaches_all(self) -> Grant:
        if self.workflows is not None and "platform" in self.scopes:
            raise ValueError("the scope platform reaches every workflow: leave `workflows` out, or the scope")
        return self


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class KeyGrant(Grant):
    """An API key, by the SHA-256 of its text in hexadecimal digits; several while one takes another's place."""

    sha256: Annotated[list[_Sha256], Field(min_length=1, max_length=10), BeforeValidator(_listed)]

    @property
    def digests(self) -> tuple[bytes, ...]:
        """All of them, raw."""
        return tuple(map(bytes.fromhex, self.sha256))


class IdentityGrant(Grant):
    """People and service accounts whose e-mail was verified: by address, or by the Workspace domain they belong to."""

    emails: list[_Email] = []
    domains: list[_Domain] = []

    @model_validator(mode="after")
    def _somebody(self) -> IdentityGrant:
        if not self.emails and not self.domains:
            raise ValueError("name somebody in `emails` or `domains`")
        return self


class AccessDocument(_Record):
    """The whole document."""

    keys: list[KeyGrant] = []
    identities: list[IdentityGrant] = []
    audiences: list[_Text] = []
    """What a Google identity token that comes as a Bearer must have been made for, such as this service's URL."""
    iap_audiences: list[_Text] = []
    """The same for the assertion of Identity-Aware Proxy, such as /projects/1/global/backendServices/2."""
    rate: RateRecord | None = None
    """For everybody who has no rate of his own."""
    failures: RateRecord = Field(default_factory=lambda: RateRecord.model_construct(per_second=1.0, burst=100))
    """How many calls without a valid key are answered 401 to one address; the others are answered 429."""
    proxies: Annotated[int, Field(ge=0, le=10)] = 0
    """How many proxies in front of the service each add an address to X-Forwarded-For."""

    @model_validator(mode="after")
    def _consistent(self) -> AccessDocument:
        names = [one.name for one in (*self.keys, *self.identities)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {twice[0]} is there twice")
        digests = [digest for key in self.keys for digest in key.digests]
        if len(set(digests)) < len(digests):
            raise ValueError("two of the keys are the same")
        if self.identities and not (self.audiences or self.iap_audiences):
            raise ValueError("identities need `audiences` or `iap_audiences`: a token made for another service is none")
        if not self.identities and (self.audiences or self.iap_audiences):
            raise ValueError("an audience lets nobody in without `identities`")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What a verified identity token says. `domain` is the Workspace domain (`hd`): no other account can claim it."""

    email: str
    domain: str | None = None


class Access:
    """Finds callers. `document` None: there are plain keys alone. Raises ConfigurationError for an empty plain key."""

    def __init__(self, document: AccessDocument | None = None, plain_keys: Iterable[str] = ()) -> None:
        # What we say ourselves needs no check: a process without a document builds no validator.
        self.document = document or AccessDocument.model_construct()
        keys = list(plain_keys)
        if not all(key.strip() for key in keys):
            raise ConfigurationError("an API key must not be empty; without any key leave TINYWORKFLOW_API_KEYS unset")
        self._keys = [(digest, one) for one in self.document.keys for digest in one.digests]
        for number, key in enumerate(keys, start=1):
            digest = hashlib.sha256(key.encode()).hexdigest()
            plain = KeyGrant.model_construct(name=f"api-key-{number}", scopes=["all"], sha256=[digest])
            self._keys.append((plain.digests[0], plain))

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
        rate = grant.rate or self.document.rate
        return Caller(
            name=name,
            kind=kind,
            scopes=grant.granted,
            workflows=None if grant.workflows is None else tuple(grant.workflows),
            email=email,
            rate=None if rate is None else rate.rate(),
        )


def document_from_env(environ: Mapping[str, str]) -> AccessDocument | None:
    """What TINYWORKFLOW_ACCESS holds, or the file that it names; None when it is not set.

    Raises ConfigurationError naming the variable, the key and the field, and repeating no value.
    """
    if (text := environ.get(VARIABLE)) is None:
        return None
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text.strip()).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigurationError(
                f"{VARIABLE} is neither a JSON object nor a file that can be read: {why}"
            ) from None
    try:
        data = json.loads(text)
        return AccessDocument.model_validate_json(text)
    except ValidationError as error:
        told = [_told(one["loc"], one["msg"], data) for one in error.errors(include_input=False, include_url=False)]
        raise ConfigurationError(f"{VARIABLE}: {'; '.join(told[:5])}") from None
    except ValueError as error:
        raise ConfigurationError(f"{VARIABLE} is not JSON: {error}") from None


def _told(loc: tuple[int | str, ...], message: str, data: Any) -> str:
    """One error, with the name of the key that it is about."""
    where, name = "", None
    for part in loc:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
        try:
            data = data[part]
        except (LookupError, TypeError):  # a branch of a union is in the place as well
            continue
        own = data.get("name") if isinstance(data, dict) else None
        name = own if isinstance(own, str) and re.fullmatch(_NAME, own) else name
    message = message.removeprefix("Value error, ")
    return f"{where}{'' if name is None else f' (of {name!r})'}: {message}" if where else message
