"""Signatures: who a sender is, one module a scheme. Each gives a verifier for `@webhook(verify=...)`.

A verifier has two parts. `check` looks at headers and raw body and raises a 401 for a sender who proves nothing;
`event` reads what a known sender has sent. What all of them share, secrets and times, is in `proof.py`. Libraries are
loaded by the first request that needs them.
"""

from .cloud_events import CloudEvents, cloud_events, platform_only
from .github import GitHubSignature, github_signature
from .google import GoogleIdentity, google_identity
from .plain import HmacSignature, hmac_signature
from .slack import SlackSignature, slack_signature
from .standard import StandardWebhooks, standard_webhooks
from .stripe import StripeSignature, stripe_signature

__all__ = [
    "CloudEvents",
    "GitHubSignature",
    "GoogleIdentity",
    "HmacSignature",
    "SlackSignature",
    "StandardWebhooks",
    "StripeSignature",
    "cloud_events",
    "github_signature",
    "google_identity",
    "hmac_signature",
    "platform_only",
    "slack_signature",
    "standard_webhooks",
    "stripe_signature",
]
