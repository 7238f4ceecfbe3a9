"""Google's identity tokens: who sends is a service account, proven by the Bearer token of each request.

For Pub/Sub push subscriptions and Eventarc, which send one: `cloud_events(verify=google_identity(...))`. A token
covers neither body nor headers; it says who sends, to whom, and until when.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from ..platform_identity import GOOGLE_CERTIFICATES, PlatformIdentity, PlatformSettings
from ..problems import HttpProblem
from .proof import Secrets


class GoogleIdentity:
    """See `google_identity`."""

    def __init__(self, audience_env: str, senders_env: str, certificates_url: str) -> None:
        self._audiences = Secrets(audience_env, "audience_env")
        self._senders = Secrets(senders_env, "senders_env")
        self._certificates_url = certificates_url
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], PlatformIdentity] = {}

    async def __call__(self, headers: Mapping[str, str], body: bytes) -> None:
        """Returns for one of the senders. Raises a 401, 403 or 503."""
        whose = tuple(self._audiences.all()), tuple(self._senders.all())
        if whose not in self._known:  # it keeps the certificates
            settings = PlatformSettings(audiences=whose[0], invokers=whose[1], certificates_url=self._certificates_url)
            self._known = {whose: PlatformIdentity(settings)}
        sent = [(b"authorization", headers.get("authorization", "").encode("latin-1", "replace"))]
        try:
            if await self._known[whose].admits(Request({"type": "http", "headers": sent})):
                return
        except HttpProblem as problem:  # it speaks of the variables of /internal/*
            words = problem.detail.replace("TINYWORKFLOW_AUDIENCE", self._audiences.variable)
            words = words.replace("TINYWORKFLOW_INVOKERS", self._senders.variable)
            raise HttpProblem(problem.status, words, kind=problem.kind, headers=problem.headers) from None
        raise HttpProblem(
            401,
            "send an identity token as `Authorization: Bearer TOKEN`",
            kind="invalid-identity",
            headers={"WWW-Authenticate": 'Bearer realm="tinyworkflow"'},
        )


def google_identity(
    *, audience_env: str, senders_env: str, certificates_url: str = GOOGLE_CERTIFICATES
) -> GoogleIdentity:
    """Requests that bring an identity token (OIDC) which Google has signed for a service account.

    - audience_env: the environment variable with the audiences that a token may be for, separated by commas.
    - senders_env: the one with the e-mail addresses of the service accounts that may send.
    - certificates_url: where Google's certificates are; for tests.

    Says who sends and not what: put it inside of `cloud_events(verify=...)`.
    """
    return GoogleIdentity(audience_env, senders_env, certificates_url)
