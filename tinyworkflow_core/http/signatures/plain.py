"""Plain HMAC: senders who sign the raw body with a shared secret and put the signature into one header."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import Literal

from ...errors import DefinitionError
from ..webhooks import WebhookEvent
from .proof import Secrets, Verifier, delivery_id, expect, field_of, json_of, text_of

_ALGORITHMS = ("sha256", "sha384", "sha512")


class HmacSignature(Verifier):
    """See `hmac_signature`."""

    def __init__(
        self,
        secret_env: str,
        *,
        header: str,
        algorithm: str,
        encoding: str,
        prefix: str,
        identity: tuple[str | None, str | None],
        kind: tuple[str | None, str | None],
    ) -> None:
        self._secrets = Secrets(secret_env)
        self._header = header
        self._algorithm = algorithm
        self._encoding = encoding
        self._prefix = prefix
        self._identity = identity
        self._kind = kind

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        sent = headers.get(self._header.lower(), "")
        if self._encoding == "hex" and sent.startswith(self._prefix):
            sent = self._prefix + sent[len(self._prefix) :].lower()
        expect(
            [sent],
            self._secrets.all(),
            lambda secret: self._signed(secret, body),
            f"{self._header} does not fit the body",
        )

    def _signed(self, secret: str, body: bytes) -> str:
        made = hmac.new(secret.encode(), body, self._algorithm).digest()
        return self._prefix + (made.hex() if self._encoding == "hex" else base64.b64encode(made).decode())

    def event(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        data = json_of(headers, body, "send the body as application/json")

        def look(header: str | None, field: str | None) -> object:
            return headers.get(header.lower()) if header is not None else field_of(data, field) if field else None

        identity = delivery_id(look(*self._identity), f"the id, {self._identity[0] or self._identity[1]},")
        return WebhookEvent(type=text_of(look(*self._kind)), id=identity, headers=headers, body=data)


def hmac_signature(
    *,
    secret_env: str,
    header: str,
    algorithm: Literal["sha256", "sha384", "sha512"] = "sha256",
    encoding: Literal["hex", "base64"] = "hex",
    prefix: str = "",
    id_header: str | None = None,
    id_field: str | None = None,
    type_header: str | None = None,
    type_field: str | None = None,
) -> HmacSignature:
    """Senders who sign the raw body and put `prefix` and the signature into `header`.

    - secret_env: the environment variable that holds the secrets, separated by commas.
    - id_header or id_field: where the delivery's id is, the same when it is sent again: a header, or a field of the
      JSON body ("event.id" is the id inside of event). One of them is needed: without it nothing tells two events from
      one that comes twice.
    - type_header or type_field: where the event's type is; without them the type is empty.

    Nothing but the body is under the signature, and no time: take ids and types from fields where there is a choice,
    and another scheme where the sender knows one. Raises DefinitionError for what does not fit together.
    """
    if algorithm not in _ALGORITHMS:
        raise DefinitionError(f"algorithm= is one of {', '.join(_ALGORITHMS)}, not {algorithm!r}")
    if encoding not in ("hex", "base64"):
        raise DefinitionError(f"encoding= is 'hex' or 'base64', not {encoding!r}")
    if not header:
        raise DefinitionError("header= names the header that the signature is in")
    if (id_header is None) == (id_field is None):
        raise DefinitionError("id_header=, id_field=: give one of them, the place of the delivery's id")
    if type_header is not None and type_field is not None:
        raise DefinitionError("type_header=, type_field=: give one of them")
    return HmacSignature(
        secret_env,
        header=header,
        algorithm=algorithm,
        encoding=encoding,
        prefix=prefix,
        identity=(id_header, id_field),
        kind=(type_header, type_field),
    )
