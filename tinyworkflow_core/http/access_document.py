"""The access document as it is written, and reading it: JSON in TINYWORKFLOW_ACCESS, or in the file that it names (a
secret that is mounted, say). What it means is `access.py`'s; a process without a document never loads this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
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
from .access import FAILURES, VARIABLE, Document, Grant
from .callers import ALL_SCOPES
from .operations import Scope
from .rate_limit import Rate

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


class GrantRecord(_Record):
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

    def grant(self) -> Grant:
        """As the front takes it."""
        return Grant(
            name=self.name,
            scopes=self.granted,
            workflows=None if self.workflows is None else tuple(self.workflows),
            expires=self.expires,
            rate=None if self.rate is None else self.rate.rate(),
        )

    @model_validator(mode="after")
    def _platform_reaches_all(self) -> GrantRecord:
        if self.workflows is not None and "platform" in self.scopes:
            raise ValueError("the scope platform reaches every workflow: leave `workflows` out, or the scope")
        return self


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class KeyRecord(GrantRecord):
    """An API key, by the SHA-256 of its text in hexadecimal digits; several while one takes another's place."""

    sha256: Annotated[list[_Sha256], Field(min_length=1, max_length=10), BeforeValidator(_listed)]

    def grant(self) -> Grant:
        """As the front takes it."""
        return replace(super().grant(), digests=tuple(map(bytes.fromhex, self.sha256)))


class IdentityRecord(GrantRecord):
    """People and service accounts whose e-mail was verified: by address, or by the Workspace domain they belong to."""

    emails: list[_Email] = []
    domains: list[_Domain] = []

    def grant(self) -> Grant:
        """As the front takes it."""
        return replace(super().grant(), emails=frozenset(self.emails), domains=frozenset(self.domains))

    @model_validator(mode="after")
    def _somebody(self) -> IdentityRecord:
        if not self.emails and not self.domains:
            raise ValueError("name somebody in `emails` or `domains`")
        return self


class AccessRecord(_Record):
    """The whole document."""

    keys: list[KeyRecord] = []
    identities: list[IdentityRecord] = []
    audiences: list[_Text] = []
    """What a Google identity token that comes as a Bearer must have been made for, such as this service's URL."""
    iap_audiences: list[_Text] = []
    """The same for the assertion of Identity-Aware Proxy, such as /projects/1/global/backendServices/2."""
    rate: RateRecord | None = None
    """For everybody who has no rate of his own."""
    failures: RateRecord = Field(
        default_factory=lambda: RateRecord.model_construct(per_second=FAILURES.per_second, burst=FAILURES.burst)
    )
    """How many calls without a valid key are answered 401 to one address; the others are answered 429."""
    proxies: Annotated[int, Field(ge=0, le=10)] = 0
    """How many proxies in front of the service each add an address to X-Forwarded-For."""

    def document(self) -> Document:
        """As the front takes it."""
        return Document(
            keys=tuple(one.grant() for one in self.keys),
            identities=tuple(one.grant() for one in self.identities),
            audiences=tuple(self.audiences),
            iap_audiences=tuple(self.iap_audiences),
            rate=None if self.rate is None else self.rate.rate(),
            failures=self.failures.rate(),
            proxies=self.proxies,
        )

    @model_validator(mode="after")
    def _consistent(self) -> AccessRecord:
        names = [one.name for one in (*self.keys, *self.identities)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {twice[0]} is there twice")
        digests = [digest for key in self.keys for digest in key.sha256]
        if len(set(digests)) < len(digests):
            raise ValueError("two of the keys are the same")
        if self.identities and not (self.audiences or self.iap_audiences):
            raise ValueError("identities need `audiences` or `iap_audiences`: a token made for another service is none")
        if not self.identities and (self.audiences or self.iap_audiences):
            raise ValueError("an audience lets nobody in without `identities`")
        return self


def document_from_env(environ: Mapping[str, str]) -> Document | None:
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
        return AccessRecord.model_validate_json(text).document()
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
