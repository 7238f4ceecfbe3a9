"""HttpSettings: what the front is told by the environment, gathered in one place and given to whoever needs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field

from ..approval_links import LinkSettings
from ..records import dataclass
from .access import VARIABLE, Document
from .platform_identity import PlatformSettings
from .security_headers import origins_from_env


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """Everything that the front needs to know besides the App. The defaults let nobody in."""

    platform: PlatformSettings = field(default_factory=PlatformSettings)
    access: Document | None = None
    cors_origins: tuple[str, ...] = ()
    links: LinkSettings = field(default_factory=LinkSettings)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> HttpSettings:
        """By the environment. Raises ConfigurationError naming the variable that does not fit."""
        return cls(
            platform=PlatformSettings.from_env(environ),
            access=_access(environ),
            cors_origins=origins_from_env(environ),
            links=LinkSettings.from_env(environ),
        )


def _access(environ: Mapping[str, str]) -> Document | None:
    if VARIABLE not in environ:
        return None
    from .access_document import document_from_env  # with pydantic: a process without a document does without

    return document_from_env(environ)
