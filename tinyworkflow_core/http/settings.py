"""HttpSettings: what the front is told by the environment, gathered in one place and given to whoever needs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field

from ..approval_links import LinkSettings
from ..records import dataclass
from .access import AccessDocument, document_from_env
from .platform_identity import PlatformSettings
from .security_headers import origins_from_env


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """Everything that the front needs to know besides the App. The defaults let nobody in."""

    platform: PlatformSettings = field(default_factory=PlatformSettings)
    access: AccessDocument | None = None
    cors_origins: tuple[str, ...] = ()
    links: LinkSettings = field(default_factory=LinkSettings)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> HttpSettings:
        """By the environment. Raises ConfigurationError naming the variable that does not fit."""
        return cls(
            platform=PlatformSettings.from_env(environ),
            access=document_from_env(environ),
            cors_origins=origins_from_env(environ),
            links=LinkSettings.from_env(environ),
        )
