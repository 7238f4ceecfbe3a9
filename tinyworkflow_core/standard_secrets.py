"""Secrets of Standard Webhooks: from text to a key of the standardwebhooks library, which signs. For those who check
(http/signatures/standard.py) and those who send (notifications.py)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from .errors import ConfigurationError

if TYPE_CHECKING:
    from standardwebhooks.webhooks import Webhook


def signing_key(secret: str) -> Webhook:
    """The secret as the library takes it. Raises ValueError unless it is base64, with or without `whsec_` before it,
    and ConfigurationError when the library is not installed."""
    try:
        from standardwebhooks.webhooks import Webhook
    except ImportError:
        raise ConfigurationError(
            "Standard Webhooks need a library: pip install 'tinyworkflow-core[webhooks]'"
        ) from None

    text = secret.removeprefix("whsec_")
    # The library would leave out what is not base64, and sign with whatever remains.
    if not base64.b64decode(text + "=" * (-len(text) % 4), validate=True):
        raise ValueError("an empty secret")
    return Webhook(secret)
