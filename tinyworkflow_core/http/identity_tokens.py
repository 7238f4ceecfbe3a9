"""IdentityTokens: who a request comes from, by a token that Google has signed for a person or a service account.

- A Bearer that is a Google identity token (RS256), made for one of our audiences.
- What Identity-Aware Proxy adds to each request that it lets through: X-Goog-IAP-JWT-Assertion (ES256).

google-auth checks signature and times; here is what it leaves to its users: the algorithm is never the token's choice,
audience and issuer are never optional, the e-mail address is verified. What an identity may do is said by `access.py`;
what a queue and a scheduler bring is read by `platform_identity.py`, whose way to keep certificates this shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from ..records import dataclass
from .access import Identity
from .platform_identity import CLOCK_SKEW_SECONDS, GOOGLE_CERTIFICATES, ISSUERS, Certificates
from .problems import HttpProblem

IAP_CERTIFICATES = "https://www.gstatic.com/iap/verify/public_key"
IAP_HEADER = "x-goog-iap-jwt-assertion"
IAP_ISSUERS = frozenset({"https://cloud.google.com/iap"})
_MOST_CHARACTERS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """One kind of token, and what is required of it."""

    algorithm: str
    issuers: frozenset[str]
    audiences: Sequence[str]
    certificates: Certificates


class IdentityTokens:
    """Reads identity tokens. Cheap to make: certificates come with the first token that needs them."""

    def __init__(
        self,
        *,
        audiences: Sequence[str] = (),
        iap_audiences: Sequence[str] = (),
    ) -> None:
        self._google = _Kind(
            algorithm="RS256", issuers=ISSUERS, audiences=audiences, certificates=Certificates(GOOGLE_CERTIFICATES)
        )
        self._iap = _Kind(
            algorithm="ES256",
            issuers=IAP_ISSUERS,
            audiences=iap_audiences,
            certificates=Certificates(IAP_CERTIFICATES),
        )

    async def identity(self, request: Request, bearer: str) -> Identity | None:
        """Who the request comes from; None when it brings no identity token of a kind that has audiences here.

        Raises a 401 for a token that is not right, and a 503 when Google's certificates cannot be had.
        """
        assertions = request.headers.getlist(IAP_HEADER)
        if self._iap.audiences and assertions:
            if len(assertions) > 1:
                raise refused("there is more than one")
            return await _identity(assertions[0], self._iap)
        if self._google.audiences and bearer.count(".") == 2:
            return await _identity(bearer, self._google)
        return None


async def _identity(token: str, kind: _Kind) -> Identity:
    claims = await _claims(token, kind)
    email, domain = claims.get("email"), claims.get("hd")
    if not isinstance(email, str) or "@" not in email:
        raise refused("it names no e-mail address")
    # IAP vouches for the address itself, and says nothing about it.
    if kind.algorithm == "RS256" and claims.get("email_verified") is not True:
        raise refused("its e-mail address is not verified")
    return Identity(email=email, domain=domain if isinstance(domain, str) else None)


async def _claims(token: str, kind: _Kind) -> Mapping[str, Any]:
    from google.auth import jwt  # with cryptography: only where somebody brings such a token
    from google.auth.exceptions import GoogleAuthError

    decode: Any = jwt.decode  # untyped
    read_header: Any = jwt.decode_header
    if len(token) > _MOST_CHARACTERS:
        raise refused("it is too long")
    try:
        header = read_header(token)
        key_id = header.get("kid") if header.get("alg") == kind.algorithm else None
        certificate = await kind.certificates.find(key_id) if isinstance(key_id, str) else None
        if certificate is None:
            raise refused(f"it is not signed with {kind.algorithm} and a key of Google's")
        claims: Mapping[str, Any] = decode(
            token,
            certs={key_id: certificate},
            audience=list(kind.audiences),
            clock_skew_in_seconds=CLOCK_SKEW_SECONDS,
        )
    # Claims of other types than google-auth expects end in a TypeError or AttributeError of its own. Its words quote
    # the token: they are not told.
    except (GoogleAuthError, ValueError, TypeError, AttributeError, RecursionError):
        raise refused("it is malformed, out of date, for another audience, or its signature is wrong") from None
    if claims.get("iss") not in kind.issuers:
        raise refused("it was issued by somebody else")
    return claims


def refused(why: str) -> HttpProblem:
    """The 401 for a token that is not right."""
    return HttpProblem(
        401,
        f"the identity token is refused: {why}",
        kind="invalid-identity",
        headers={"WWW-Authenticate": 'Bearer realm="tinyworkflow", error="invalid_token"'},
    )
